//! A clock for many short spans: it counts ticks, and says at the end how long a tick was.
//!
//! Where the kernel itself keeps time by the processor's time stamp counter, a tick is one of its counts, and to read it takes
//! half as long as to ask the kernel's clock. Elsewhere a tick is a nanosecond of the kernel's clock.

use std::time::Instant;

/// Where the kernel names its clock.
const CLOCK_SOURCE: &str = "/sys/devices/system/clocksource/clocksource0/current_clocksource";

/// A clock that runs from when it was made.
#[derive(Clone, Copy, Debug)]
pub struct Ticks {
    began: Instant,
    /// The counter at that time, where there is one to be trusted.
    first_count: Option<u64>,
}

impl Ticks {
    /// A clock that begins at zero.
    #[must_use]
    pub fn start() -> Ticks {
        if !counter_keeps_time() {
            return Ticks { began: Instant::now(), first_count: None };
        }
        let (began, first_count) = both_clocks();
        Ticks { began, first_count: Some(first_count) }
    }

    /// Ticks since the start. Two reads that follow each other on two threads may seem to be in the other order by a few
    /// nanoseconds.
    #[must_use]
    pub fn now(&self) -> u64 {
        match self.first_count {
            Some(first) => count().saturating_sub(first),
            None => u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX),
        }
    }

    /// Nanoseconds of a tick: the longer the clock has run, the more exact.
    #[must_use]
    #[allow(clippy::cast_precision_loss)] // a ratio
    pub fn tick_ns(&self) -> f64 {
        let Some(first_count) = self.first_count else { return 1.0 };
        let (now, count) = both_clocks();
        match count.saturating_sub(first_count) {
            0 => 1.0,
            ticks => (now - self.began).as_nanos() as f64 / ticks as f64,
        }
    }
}

/// The time, and the counter at that time: whoever is interrupted between the two tries again.
fn both_clocks() -> (Instant, u64) {
    /// A thousand ticks are less than a microsecond.
    const NEAR_TICKS: u64 = 1000;
    const TRIES: u32 = 100;
    let look = || {
        let before = count();
        (before, Instant::now(), count())
    };
    let mut best = look();
    for _ in 0..TRIES {
        let (before, _, after) = best;
        if after.saturating_sub(before) < NEAR_TICKS {
            break;
        }
        let again = look();
        if again.2.saturating_sub(again.0) < after.saturating_sub(before) {
            best = again;
        }
    }
    (best.1, best.0 + best.2.saturating_sub(best.0) / 2)
}

/// Whether the kernel finds that the counter runs evenly, and alike on all cores. It may change its mind.
fn counter_keeps_time() -> bool {
    cfg!(target_arch = "x86_64") && std::fs::read_to_string(CLOCK_SOURCE).is_ok_and(|name| name.trim() == "tsc")
}

/// The processor's time stamp counter.
#[cfg(target_arch = "x86_64")]
fn count() -> u64 {
    // SAFETY: every x86-64 processor has the instruction, and Linux allows it; where a process had it forbidden by
    // `PR_SET_TSC`, the C library's own clock would fail as well.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Never asked: no clock source of other processors is named like this counter.
#[cfg(not(target_arch = "x86_64"))]
fn count() -> u64 {
    0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    #[allow(clippy::cast_precision_loss)]
    fn ticks_tell_the_same_time_as_the_kernel() {
        let kernels = Ticks { began: Instant::now(), first_count: None };
        for ticks in [kernels, Ticks::start()] {
            let mut before = 0;
            let (from_ticks, from) = (ticks.now(), Instant::now());
            while from.elapsed() < Duration::from_millis(50) {
                let now = ticks.now();
                assert!(now >= before, "{now} after {before}");
                before = now;
            }
            let told_ns = (ticks.now() - from_ticks) as f64 * ticks.tick_ns();
            let took_ns = from.elapsed().as_nanos() as f64;
            assert!((told_ns / took_ns - 1.0).abs() < 0.02, "{told_ns} of {took_ns}");
        }
    }
}
