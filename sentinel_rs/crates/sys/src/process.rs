//! The life of this process: its exit, and whether we are a forked child, which has its parent's memory, but none of its
//! threads, and perhaps locks that nobody will ever release.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Once;

static IS_CHILD: AtomicBool = AtomicBool::new(false);

extern "C" fn in_child() {
    IS_CHILD.store(true, Ordering::Relaxed);
}

/// From now on, [`is_forked_child`] knows. Calling it again does nothing.
pub fn watch_forks() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: the handler stores to an atomic and nothing else, which is allowed in a child of a process with threads.
        // A refusal (no memory) leaves children unmarked, as they would be without this call.
        unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
    });
}

/// Whether the caller runs in a child that was forked off after [`watch_forks`]. One relaxed load.
#[must_use]
pub fn is_forked_child() -> bool {
    IS_CHILD.load(Ordering::Relaxed)
}

/// Has `handler` called when the process exits in an orderly way, that is not by a signal or `_exit`. A refusal (no
/// memory) means that it is not called.
pub fn at_exit(handler: extern "C" fn()) {
    // SAFETY: the handler is a function of this program, which stays loaded, and takes no arguments.
    unsafe { libc::atexit(handler) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forked_child_knows_that_it_is_one() {
        watch_forks();
        assert!(!is_forked_child());
        // SAFETY: the child calls nothing but an atomic load and `_exit`, which are safe after fork in a process with threads.
        let child = unsafe { libc::fork() };
        assert!(child >= 0, "fork failed");
        if child == 0 {
            let code = if is_forked_child() { 42 } else { 1 };
            // SAFETY: ends the child at once, without running anything of the parent's.
            unsafe { libc::_exit(code) };
        }
        let mut status = 0;
        // SAFETY: `status` is valid for writes, and the child is ours.
        assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
        assert!(libc::WIFEXITED(status));
        assert_eq!(libc::WEXITSTATUS(status), 42);
        assert!(!is_forked_child());
    }
}
