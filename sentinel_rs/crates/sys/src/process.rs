//! Whether we are still in the process that set things up: a forked child has its memory, but none of its threads.

/// The process in which something was set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HomeProcess {
    pid: u32,
}

impl HomeProcess {
    /// This process.
    #[must_use]
    pub fn here() -> Self {
        HomeProcess { pid: std::process::id() }
    }

    /// Whether the caller runs in a child that was forked off after [`HomeProcess::here`]. Costs one `getpid`.
    #[must_use]
    pub fn is_forked_child(self) -> bool {
        std::process::id() != self.pid
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forked_child_knows_that_it_is_one() {
        let home = HomeProcess::here();
        assert!(!home.is_forked_child());
        // SAFETY: the child calls nothing but `getpid` and `_exit`, which are safe after fork in a process with threads.
        let child = unsafe { libc::fork() };
        assert!(child >= 0, "fork failed");
        if child == 0 {
            let code = if home.is_forked_child() { 42 } else { 1 };
            // SAFETY: ends the child at once, without running anything of the parent's.
            unsafe { libc::_exit(code) };
        }
        let mut status = 0;
        // SAFETY: `status` is valid for writes, and the child is ours.
        let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
        assert_eq!(waited, child);
        assert_eq!((libc::WIFEXITED(status), libc::WEXITSTATUS(status)), (true, 42));
    }
}
