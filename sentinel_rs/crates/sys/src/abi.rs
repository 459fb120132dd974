//! The kernel's numbers that are used here, in one place; a test compares them with the C headers.

use libc::{c_int, c_long};

/// Memory policy: what the process has.
pub const MPOL_DEFAULT: c_int = 0;
/// Memory policy: this node first, others when it is full.
pub const MPOL_PREFERRED: c_int = 1;
/// Memory policy: these nodes and no others.
pub const MPOL_BIND: c_int = 2;
/// Memory policy: these nodes first, others when they are full. Known to Linux since 5.15.
pub const MPOL_PREFERRED_MANY: c_int = 5;
/// Move pages that only this process uses.
pub const MPOL_MF_MOVE: c_int = 2;
/// Contents are not needed any more.
pub const MADV_DONTNEED: c_int = 4;
/// Use huge pages when there are some.
pub const MADV_HUGEPAGE: c_int = 14;
/// Do not use huge pages.
pub const MADV_NOHUGEPAGE: c_int = 15;
/// The range will be needed soon: read it in from swap.
pub const MADV_WILLNEED: c_int = 3;
/// The range will not be needed soon: write it to swap. Known to Linux since 5.4.
pub const MADV_PAGEOUT: c_int = 21;
/// Fault pages in as a write would, page by page. Known to Linux since 5.14.
pub const MADV_POPULATE_WRITE: c_int = 23;
/// Make huge pages of the range now. Known to Linux since 6.1.
pub const MADV_COLLAPSE: c_int = 25;
/// Number of the system call `mbind`.
pub const SYS_MBIND: c_long = libc::SYS_mbind;
/// Number of the system call `move_pages`.
pub const SYS_MOVE_PAGES: c_long = libc::SYS_move_pages;
