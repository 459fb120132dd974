//! The kernel's numbers in `abi` are those of the C headers of this machine.

#[path = "common/c_program.rs"]
mod c_program;

use std::fmt::Write;
use sys::abi;

/// Every constant of `abi` under its C name.
fn ours() -> Vec<(&'static str, i64)> {
    vec![
        ("MPOL_DEFAULT", abi::MPOL_DEFAULT.into()),
        ("MPOL_PREFERRED", abi::MPOL_PREFERRED.into()),
        ("MPOL_BIND", abi::MPOL_BIND.into()),
        ("MPOL_PREFERRED_MANY", abi::MPOL_PREFERRED_MANY.into()),
        ("MPOL_MF_MOVE", abi::MPOL_MF_MOVE.into()),
        ("MADV_DONTNEED", abi::MADV_DONTNEED.into()),
        ("MADV_HUGEPAGE", abi::MADV_HUGEPAGE.into()),
        ("MADV_NOHUGEPAGE", abi::MADV_NOHUGEPAGE.into()),
        ("MADV_WILLNEED", abi::MADV_WILLNEED.into()),
        ("MADV_PAGEOUT", abi::MADV_PAGEOUT.into()),
        ("MADV_POPULATE_WRITE", abi::MADV_POPULATE_WRITE.into()),
        ("MADV_COLLAPSE", abi::MADV_COLLAPSE.into()),
        ("SYS_mbind", abi::SYS_MBIND),
        ("SYS_move_pages", abi::SYS_MOVE_PAGES),
    ]
}

#[test]
fn constants_are_those_of_the_c_headers() {
    let mut source = String::from("#define _GNU_SOURCE\n");
    let own = ["linux/mempolicy.h", "linux/version.h", "stdio.h", "sys/mman.h", "asm-generic/mman-common.h"];
    for header in own.into_iter().chain(["sys/syscall.h"]) {
        writeln!(source, "#include <{header}>").unwrap();
    }
    // Headers of Linux before 5.15 do not have it; the kernel then answers EINVAL, which callers handle.
    source.push_str("#if LINUX_VERSION_CODE < KERNEL_VERSION(5, 15, 0)\n#define MPOL_PREFERRED_MANY 5\n#endif\n");
    source.push_str("#ifndef MADV_POPULATE_WRITE\n#define MADV_POPULATE_WRITE 23\n#endif\n");
    source.push_str("#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 1, 0)\n#define MADV_COLLAPSE 25\n#endif\n");
    source.push_str("int main(void) {\n");
    for (name, _) in ours() {
        writeln!(source, "  printf(\"{name} %lld\\n\", (long long){name});").unwrap();
    }
    source.push_str("}\n");

    let expected: String = ours().iter().map(|(name, value)| format!("{name} {value}\n")).collect();
    assert_eq!(c_program::output("constants", &source), expected);
}

#[test]
fn every_constant_is_compared() {
    let source = include_str!("../src/abi.rs");
    assert_eq!(source.matches("pub const").count(), ours().len(), "a constant is missing in this test");
}
