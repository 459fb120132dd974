//! The client's numbers, sizes and offsets are those of the C header that describes the profiler's interface.

#[path = "common/c_program.rs"]
mod c_program;

use std::fmt::Write;
use std::mem::offset_of;
use std::path::Path;
use sys::profiler::abi;

/// Values of constants under their names in the header.
fn constants() -> Vec<(&'static str, u64)> {
    vec![
        ("SENTINEL_ABI_VERSION", abi::ABI_VERSION.into()),
        ("SENTINEL_MECHANISM_NONE", abi::MECHANISM_NONE.into()),
        ("SENTINEL_MECHANISM_RESERVED_BIT", abi::MECHANISM_RESERVED_BIT.into()),
        ("SENTINEL_MECHANISM_PROT_NONE", abi::MECHANISM_PROT_NONE.into()),
        ("SENTINEL_FEATURE_EXACT", abi::FEATURE_EXACT),
        ("SENTINEL_FEATURE_TLB_MISS", abi::FEATURE_TLB_MISS),
        ("SENTINEL_FEATURE_EXACT_THREADS", abi::FEATURE_EXACT_THREADS),
        ("SENTINEL_FEATURE_ATTACH", abi::FEATURE_ATTACH),
        ("SENTINEL_FEATURE_PATCHED", abi::FEATURE_PATCHED),
        ("SENTINEL_FEATURE_FLUSH", abi::FEATURE_FLUSH),
        ("SENTINEL_MODE_EXACT", abi::MODE_EXACT.into()),
        ("SENTINEL_MODE_TLB_MISS", abi::MODE_TLB_MISS.into()),
        ("SENTINEL_RESET_RANGES", abi::RESET_RANGES.into()),
        ("SENTINEL_IOC_MAGIC", abi::IOC_MAGIC.into()),
        ("SENTINEL_IOC_INFO", abi::IOC_INFO),
        ("SENTINEL_IOC_ADD_RANGE", abi::IOC_ADD_RANGE),
        ("SENTINEL_IOC_START", abi::IOC_START),
        ("SENTINEL_IOC_STOP", abi::IOC_STOP),
        ("SENTINEL_IOC_READ", abi::IOC_READ),
        ("SENTINEL_IOC_RESET", abi::IOC_RESET),
        ("SENTINEL_IOC_STATUS", abi::IOC_STATUS),
        ("SENTINEL_IOC_FLUSH", abi::IOC_FLUSH),
    ]
}

/// A structure's C name, its size here, and its fields with their offsets here.
type Layout = (&'static str, usize, Vec<(&'static str, usize)>);

macro_rules! layout {
    ($raw:ident as $name:literal: $($field:ident),+) => {
        ($name, size_of::<abi::$raw>(), vec![$((stringify!($field), offset_of!(abi::$raw, $field))),+])
    };
}

fn layouts() -> Vec<Layout> {
    vec![
        layout!(RawInfo as "sentinel_info": abi_version, mechanism, features, not_counted, max_ranges, max_pages,
                page_bytes, physical_bits, poison_bit, reserved, mechanism_name),
        layout!(RawRange as "sentinel_range": start, bytes),
        layout!(RawStart as "sentinel_start": mode, flags),
        layout!(RawCount as "sentinel_count": reads, writes),
        layout!(RawRead as "sentinel_read": start, pages, counts, reserved),
        layout!(RawReset as "sentinel_reset": flags, reserved),
        layout!(RawStatus as "sentinel_status": mode, reserved, ranges, pages, reads, writes, kernel_accesses, steps,
                spurious, left_open),
    ]
}

#[test]
fn the_client_agrees_with_the_header() {
    let header = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../linux-4.9-profiler/include/uapi/sentinel.h");
    let mut source = format!("#include <stdio.h>\n#include <stddef.h>\n#include \"{}\"\n", header.display());
    let mut expected = String::new();
    source.push_str("int main(void) {\n");
    for (name, value) in constants() {
        writeln!(source, "  printf(\"{name} %llu\\n\", (unsigned long long){name});").unwrap();
        writeln!(expected, "{name} {value}").unwrap();
    }
    for (name, size, fields) in layouts() {
        writeln!(source, "  printf(\"{name} %zu\\n\", sizeof(struct {name}));").unwrap();
        writeln!(expected, "{name} {size}").unwrap();
        for (field, offset) in fields {
            writeln!(source, "  printf(\"{name}.{field} %zu\\n\", offsetof(struct {name}, {field}));").unwrap();
            writeln!(expected, "{name}.{field} {offset}").unwrap();
        }
    }
    source.push_str("}\n");
    assert_eq!(c_program::output("profiler_abi", &source), expected);
}

#[test]
fn every_constant_and_structure_is_compared() {
    let source = include_str!("../src/profiler/abi.rs");
    assert_eq!(source.matches("pub const").count(), constants().len(), "a constant is missing in this test");
    assert_eq!(source.matches("pub struct").count(), layouts().len(), "a structure is missing in this test");
    let fields = source.matches("\n    pub ").count();
    assert_eq!(fields, layouts().iter().map(|(_, _, fields)| fields.len()).sum::<usize>(), "a field is missing");
}
