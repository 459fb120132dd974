//! Which operation the calling thread works for.
//!
//! One word pair per thread, set by the device around every kernel and carried into worker threads by the thread pool.

use std::cell::Cell;

/// No kernel.
pub const NO_KERNEL: u32 = u32::MAX;

/// A thread's operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Current {
    /// The kernel's number, or [`NO_KERNEL`].
    pub kernel: u32,
    /// Which execution of the profiled step it is; 0 outside one.
    pub execution: u32,
    /// Tag of the step that Sentinel profiles or manages, 0 for every other step.
    pub step_tag: u32,
}

impl Current {
    /// No operation at all.
    pub const NONE: Current = Current { kernel: NO_KERNEL, execution: 0, step_tag: 0 };
}

thread_local! {
    static CURRENT: Cell<Current> = const { Cell::new(Current::NONE) };
}

/// The calling thread's operation.
#[must_use]
pub fn get() -> Current {
    CURRENT.get()
}

/// Sets the calling thread's operation and returns the one before.
pub fn swap(new: Current) -> Current {
    CURRENT.replace(new)
}
