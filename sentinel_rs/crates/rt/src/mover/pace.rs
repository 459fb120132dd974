//! How much one batch may carry: what the system moves in a bounded time, by how fast moves were so far.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A batch cannot be broken off, so none may take longer than this. Aimed at is half of it, because speeds vary.
pub const BATCH_AT_MOST: Duration = Duration::from_millis(20);
const AIM_NS: u64 = 10_000_000;
/// Each call has a price of its own, mostly waiting until all processors have emptied their lists of pages. In smaller batches
/// it outweighs the pages where processors are busy: see decision 11.
const LEAST_BYTES: u64 = 256 << 10;
/// More gains nothing, and a tensor that dies waits for the batch under way.
const MOST_BYTES: u64 = 4 << 20;
const HUGE_BYTES: usize = sys::memory::HUGE_PAGE_BYTES;
const PAGE_BYTES: usize = sys::memory::PAGE_BYTES;
/// The first batch, before anything is known.
const FIRST_BYTES: u64 = 256 << 10;

/// The size of one direction's next batch.
#[derive(Debug)]
pub(super) struct Pace {
    bytes: AtomicU64,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace { bytes: AtomicU64::new(FIRST_BYTES) }
    }
}

impl Pace {
    /// A batch of this length took so long. Growth is at most twofold, so that one lucky batch does not make the next too
    /// large; a slow one counts at once.
    pub(super) fn learn(&self, batch_bytes: u64, took: Duration) {
        let took_ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX).max(1);
        let fitting = u128::from(batch_bytes) * u128::from(AIM_NS) / u128::from(took_ns);
        let fitting = u64::try_from(fitting).unwrap_or(u64::MAX);
        let twice = self.bytes.load(Ordering::Relaxed).saturating_mul(2);
        self.bytes.store(fitting.min(twice).clamp(LEAST_BYTES, MOST_BYTES), Ordering::Relaxed);
    }

    /// True for a batch that took longer than aimed at.
    pub(super) fn is_slow(took: Duration) -> bool {
        took.as_nanos() > u128::from(AIM_NS)
    }

    /// The first batch of what is left of a unit: whole pages. Where the unit fills a huge page's place, the batch takes the
    /// whole place: a huge page moves at once and much faster than its parts, and must not be cut.
    pub(super) fn batch(&self, left: &Range<usize>) -> Range<usize> {
        let bytes = usize::try_from(self.bytes.load(Ordering::Relaxed)).unwrap_or(HUGE_BYTES);
        let huge = left.start.next_multiple_of(HUGE_BYTES)..left.end / HUGE_BYTES * HUGE_BYTES;
        let end = if huge.is_empty() || left.start < huge.start {
            let stop = if huge.is_empty() { left.end } else { huge.start };
            ((left.start + bytes) / PAGE_BYTES * PAGE_BYTES).max(left.start + PAGE_BYTES).min(stop)
        } else {
            (left.start + (bytes / HUGE_BYTES).max(1) * HUGE_BYTES).min(huge.end)
        };
        left.start..end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: usize = 1 << 30;

    /// The batches of units of 1 MiB, when the system moves so many bytes in a millisecond.
    fn batches(pace: &Pace, units: usize, bytes_per_ms: u64) -> Vec<usize> {
        let mut sizes = Vec::new();
        for _ in 0..units {
            let mut left = BASE..BASE + (1 << 20);
            while !left.is_empty() {
                let batch = pace.batch(&left);
                assert!(batch.start == left.start && batch.end <= left.end && !batch.is_empty());
                left.start = batch.end;
                sizes.push(batch.len());
                let bytes = u64::try_from(batch.len()).unwrap();
                pace.learn(bytes, Duration::from_nanos(bytes * 1_000_000 / bytes_per_ms));
            }
        }
        sizes
    }

    #[test]
    fn batches_follow_the_speed_and_stay_in_bounds() {
        let pace = Pace::default();
        assert_eq!(batches(&pace, 4, 2 << 20)[..4], [256 << 10, 512 << 10, 256 << 10, 1 << 20]);
        // Much slower: the first batch is late, and no other one is.
        let slow = batches(&pace, 4, 32 << 10);
        assert_eq!((slow[0], slow[1]), (1 << 20, 320 << 10));
        assert!(slow[1..].iter().all(|&bytes| bytes <= 20 * (32 << 10)), "{slow:?}");
        let again = batches(&pace, 4, 2 << 20);
        assert!(again[0] < again[1] && again[1] <= 2 * again[0], "{again:?}");
    }

    #[test]
    fn huge_pages_are_not_cut_however_slow_moves_are() {
        for (took_ms, expected) in
            [(1000, &[2 << 20, 4 << 20, 6 << 20, 8 << 20, 10 << 20][..]), (1, &[2 << 20, 6 << 20, 10 << 20])]
        {
            let pace = Pace::default();
            for _ in 0..10 {
                pace.learn(4 << 20, Duration::from_millis(took_ms));
            }
            let mut left = BASE + 12 * PAGE_BYTES..BASE + (10 << 20) + 3 * PAGE_BYTES;
            let mut ends = Vec::new();
            while !left.is_empty() {
                left.start = pace.batch(&left).end;
                ends.push(left.start - BASE);
            }
            assert_eq!(ends.pop(), Some((10 << 20) + 3 * PAGE_BYTES));
            ends.retain(|end| *end >= 2 << 20);
            assert_eq!(ends, expected);
        }
    }
}
