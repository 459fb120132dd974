//! The life of this process: the time that its threads spend on cores, its exit, and whether we are a forked child, which
//! has its parent's memory, but none of its threads, and perhaps locks that nobody will ever release.

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

/// Nanoseconds that the calling thread has spent on a core so far, by which benches measure because other work shares the machine.
#[must_use]
pub fn thread_cpu_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is valid for writes. Every thread has this clock, so the call cannot fail; if it did, time would stand still.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    let [seconds, nanoseconds] = [time.tv_sec, time.tv_nsec].map(|part| u64::try_from(part).unwrap_or(0));
    seconds * 1_000_000_000 + nanoseconds
}

/// Gives pages of free memory of the C library's allocator back to the system, whichever thread freed it. Takes milliseconds
/// where much is free. The allocator keeps what it may need soon, so that the next small allocation takes no page fault.
pub fn give_back_free_memory() {
    /// What stays at the end of the heap.
    const KEPT_BYTES: usize = 1 << 20;
    // SAFETY: takes no pointer, and the allocator locks itself.
    unsafe { libc::malloc_trim(KEPT_BYTES) };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resident_bytes() -> u64 {
        let text = std::fs::read_to_string("/proc/self/status").expect("the kernel tells it");
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("what is resident is in it");
        1024 * line.split_whitespace().next().and_then(|number| number.parse::<u64>().ok()).expect("a number of KiB")
    }

    #[test]
    fn memory_that_lies_free_between_blocks_goes_back_to_the_system() {
        const BLOCKS: usize = 1000;
        const BLOCK_BYTES: usize = 64 << 10;
        let blocks: Vec<Vec<u8>> = (0..2 * BLOCKS).map(|_| vec![1; BLOCK_BYTES]).collect();
        let kept: Vec<Vec<u8>> = blocks.into_iter().step_by(2).collect();
        let before = resident_bytes();
        give_back_free_memory();
        let given = before.saturating_sub(resident_bytes());
        let freed = (BLOCKS * BLOCK_BYTES) as u64;
        assert!(given > freed / 2, "{given} of {freed} bytes");
        assert!(kept.iter().flatten().all(|&byte| byte == 1));
    }

    #[test]
    fn a_threads_time_passes_while_it_works_and_not_while_it_sleeps() {
        let before = thread_cpu_ns();
        std::thread::sleep(std::time::Duration::from_millis(200));
        let slept = thread_cpu_ns() - before;
        assert!(slept < 100_000_000, "{slept}");
        let begin = std::time::Instant::now();
        while thread_cpu_ns() - before < 20_000_000 {
            assert!(begin.elapsed().as_secs() < 60, "the clock stands still");
        }
    }

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
