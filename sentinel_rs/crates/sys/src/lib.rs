//! Every system call that Sentinel makes, the processor's counter and the C library's heap, behind functions that are safe to call with any argument.
//!
//! May use the C library and the kernel's interface files; must not know tiers, plans or tensors. Each failing operation
//! has its own variant of [`Error`]. Functions that can destroy contents accept only memory that [`memory::reserve`] gave
//! out, and no Rust reference to such memory ever exists here, so the compiler's rules about references hold.

pub mod abi;
pub mod child;
mod error;
pub mod host;
pub mod huge;
pub mod measure;
pub mod memory;
pub mod numa;
pub mod process;
pub mod profiler;
pub mod swap;
pub mod ticks;
pub mod topology;

pub use error::{errno_text, Error};

/// Error numbers that callers tell apart, and those that their tests let calls fail with.
pub mod errno {
    pub use libc::{EACCES, EBUSY, EFAULT, EINVAL, ENODEV, ENOENT, ENOMEM, ENOSYS, EPERM, ESRCH};
}
