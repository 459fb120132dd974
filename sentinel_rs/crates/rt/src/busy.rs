//! Counters for what happens in every operation: each thread writes to a line of the processor's cache that is its own, with
//! a plain store where others need a locked instruction.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

/// Lines with one owner at a time; threads beyond them share one more.
const OWNED: usize = 63;

/// Bit `l` is set while a thread owns line `l`.
static OWNERS: AtomicU64 = AtomicU64::new(0);

/// A counter that any thread may add to.
#[derive(Debug)]
pub struct BusyCounter([Line; OWNED + 1]);

#[derive(Debug, Default)]
#[repr(align(64))]
struct Line(AtomicU64);

/// Gives the line back when its thread ends.
struct Lease(usize);

impl Drop for Lease {
    fn drop(&mut self) {
        // Whoever gets the line next goes on from what this thread has counted.
        OWNERS.fetch_and(!(1 << self.0), Ordering::Release);
        LINE.set(OWNED);
    }
}

/// The mark of a thread that has counted nothing yet.
const UNASKED: usize = usize::MAX;

thread_local! {
    static LINE: Cell<usize> = const { Cell::new(UNASKED) };
    static LEASE: Cell<Option<Lease>> = const { Cell::new(None) };
}

impl Default for BusyCounter {
    fn default() -> BusyCounter {
        BusyCounter(std::array::from_fn(|_| Line::default()))
    }
}

impl BusyCounter {
    /// Adds one.
    pub fn count(&self) {
        let mut line = LINE.get();
        if line == UNASKED {
            line = lease_line();
        }
        let count = &self.0[line % (OWNED + 1)].0;
        if line < OWNED {
            count.store(count.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        } else {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The sum so far.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.iter().map(|line| line.0.load(Ordering::Relaxed)).sum()
    }
}

/// The line for the calling thread from now on.
#[cold]
fn lease_line() -> usize {
    let vacant = |owners: u64| {
        let line = owners.trailing_ones() as usize;
        (line < OWNED).then_some(owners | 1 << line)
    };
    let line = match OWNERS.fetch_update(Ordering::Acquire, Ordering::Relaxed, vacant) {
        Ok(before) => before.trailing_ones() as usize,
        Err(_) => OWNED,
    };
    LINE.set(line);
    if line < OWNED {
        let lease = Lease(line);
        if LEASE.try_with(|own| own.set(Some(lease))).is_err() {
            // The thread is about to end; the lease is given back already.
            return OWNED;
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_threads_than_lines_lose_no_count() {
        const THREADS: usize = 150;
        const EACH: u64 = 2000;
        let counter = BusyCounter::default();
        for _ in 0..2 {
            let begin = std::sync::Barrier::new(THREADS);
            std::thread::scope(|scope| {
                for _ in 0..THREADS {
                    scope.spawn(|| {
                        counter.count();
                        begin.wait();
                        (1..EACH).for_each(|_| counter.count());
                    });
                }
            });
        }
        assert_eq!(counter.get(), 2 * THREADS as u64 * EACH);
    }

    #[test]
    fn a_line_whose_thread_has_ended_is_used_again() {
        let counter = BusyCounter::default();
        for _ in 0..10 * OWNED {
            std::thread::scope(|scope| {
                scope.spawn(|| counter.count());
            });
        }
        let used = counter.0.iter().filter(|line| line.0.load(Ordering::Relaxed) > 0).count();
        assert_eq!(counter.get(), 10 * OWNED as u64);
        assert!(used < OWNED, "{used}");
    }
}
