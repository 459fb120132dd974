//! The clock that only goes forward.

/// Nanoseconds of the monotonic clock, whose zero is when the machine was started.
#[must_use]
pub fn monotonic_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is valid for writes. The call cannot fail: every supported kernel has this clock.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanoseconds = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds * 1_000_000_000 + nanoseconds
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    #[test]
    fn goes_forward_as_fast_as_time() {
        let outer = Instant::now();
        let begin_ns = monotonic_ns();
        let inner = Instant::now();
        std::thread::sleep(Duration::from_millis(20));
        let inside = inner.elapsed();
        let passed = Duration::from_nanos(monotonic_ns() - begin_ns);
        assert!(inside <= passed && passed <= outer.elapsed(), "{passed:?}");
    }
}
