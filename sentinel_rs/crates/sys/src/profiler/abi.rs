//! The interface of `/dev/sentinel`, as `linux-4.9-profiler/include/uapi/sentinel.h` describes it. That header is the only
//! description; a test compiles it and compares everything here with it.

use libc::c_ulong;

/// Version that this client speaks.
pub const ABI_VERSION: u32 = 1;

/// [`RawInfo::mechanism`]: nothing can be profiled.
pub const MECHANISM_NONE: u32 = 0;
/// [`RawInfo::mechanism`]: a reserved physical address bit of the page table entry.
pub const MECHANISM_RESERVED_BIT: u32 = 1;
/// [`RawInfo::mechanism`]: an entry without its present bit.
pub const MECHANISM_PROT_NONE: u32 = 2;

/// [`RawInfo::features`]: exact counts can be had.
pub const FEATURE_EXACT: u64 = 1 << 0;
/// [`RawInfo::features`]: counts of TLB misses can be had.
pub const FEATURE_TLB_MISS: u64 = 1 << 1;
/// [`RawInfo::features`]: exact counts are exact also when threads share pages.
pub const FEATURE_EXACT_THREADS: u64 = 1 << 2;
/// [`RawInfo::features`]: another process can be profiled.
pub const FEATURE_ATTACH: u64 = 1 << 3;
/// [`RawInfo::features`]: built into the kernel.
pub const FEATURE_PATCHED: u64 = 1 << 4;
/// [`RawInfo::features`]: the TLBs can be emptied while it counts.
pub const FEATURE_FLUSH: u64 = 1 << 5;

/// [`RawStart::mode`]: every access.
pub const MODE_EXACT: u32 = 1;
/// [`RawStart::mode`]: accesses whose translation is not in the TLB.
pub const MODE_TLB_MISS: u32 = 2;

/// [`RawReset::flags`]: forget the ranges too.
pub const RESET_RANGES: u32 = 1 << 0;

/// What this kernel can do.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct RawInfo {
    /// Version of the kernel's interface.
    pub abi_version: u32,
    /// `MECHANISM_*`.
    pub mechanism: u32,
    /// Bits `FEATURE_*`.
    pub features: u64,
    /// What the counts leave out; for people.
    pub not_counted: u64,
    /// Ranges that one process can have.
    pub max_ranges: u64,
    /// Pages in all ranges of one process.
    pub max_pages: u64,
    /// Bytes in a page.
    pub page_bytes: u32,
    /// Width of physical addresses.
    pub physical_bits: u32,
    /// Bit that marks a page.
    pub poison_bit: u32,
    /// 0.
    pub reserved: u32,
    /// The mechanism for people, ends with a 0 byte.
    pub mechanism_name: [u8; 32],
}

/// Addresses to profile.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct RawRange {
    /// First address.
    pub start: u64,
    /// Length.
    pub bytes: u64,
}

/// Begins counting.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct RawStart {
    /// `MODE_*`.
    pub mode: u32,
    /// 0.
    pub flags: u32,
}

/// Accesses to one page.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RawCount {
    /// Those that the processor reported as reads.
    pub reads: u64,
    /// Those that it reported as writes.
    pub writes: u64,
}

/// Fetches counts.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct RawRead {
    /// Address of the first page.
    pub start: u64,
    /// Pages.
    pub pages: u64,
    /// Address of as many `RawCount`.
    pub counts: u64,
    /// 0.
    pub reserved: u64,
}

/// Sets counts to 0.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct RawReset {
    /// Bits `RESET_*`.
    pub flags: u32,
    /// 0.
    pub reserved: u32,
}

/// Where profiling stands.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct RawStatus {
    /// `MODE_*` while it runs, else 0.
    pub mode: u32,
    /// 0.
    pub reserved: u32,
    /// Ranges that were added.
    pub ranges: u64,
    /// Pages in them.
    pub pages: u64,
    /// Sum of reads.
    pub reads: u64,
    /// Sum of writes.
    pub writes: u64,
    /// Those of the two that system calls did.
    pub kernel_accesses: u64,
    /// Instructions let through one at a time.
    pub steps: u64,
    /// Faults with nothing left to do.
    pub spurious: u64,
    /// Times that a page may have missed counts.
    pub left_open: u64,
}

/// The header's `SENTINEL_IOC_MAGIC`.
pub const IOC_MAGIC: u8 = 0xD3;
const WRITE: c_ulong = 1;
const READ: c_ulong = 2;

/// As the C macro `_IOC` of x86 puts an ioctl's number together.
const fn number(direction: c_ulong, number: c_ulong, size: usize) -> c_ulong {
    (direction << 30) | ((size as c_ulong) << 16) | ((IOC_MAGIC as c_ulong) << 8) | number
}

/// Number of INFO.
pub const IOC_INFO: c_ulong = number(READ, 0, size_of::<RawInfo>());
/// Number of ADD_RANGE.
pub const IOC_ADD_RANGE: c_ulong = number(WRITE, 2, size_of::<RawRange>());
/// Number of START.
pub const IOC_START: c_ulong = number(WRITE, 3, size_of::<RawStart>());
/// Number of STOP.
pub const IOC_STOP: c_ulong = number(0, 4, 0);
/// Number of READ.
pub const IOC_READ: c_ulong = number(WRITE, 5, size_of::<RawRead>());
/// Number of RESET.
pub const IOC_RESET: c_ulong = number(WRITE, 6, size_of::<RawReset>());
/// Number of STATUS.
pub const IOC_STATUS: c_ulong = number(READ, 7, size_of::<RawStatus>());
/// Number of FLUSH.
pub const IOC_FLUSH: c_ulong = number(0, 8, 0);
