//! Small blocks where nothing moves: size classes, and a cache per thread, so that most allocations and releases take no
//! lock.
//!
//! Address space is cut into spans of one class each; which one is read off the address. A thread keeps freed blocks and
//! exchanges them with a list per class in batches. Blocks are never merged and never given back to the system: what they
//! hold at most is what they held at the same time, by class, and what threads keep. That a block is released twice is not
//! noticed.

use place::Budget;
use std::cell::RefCell;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The largest block.
pub const LARGEST_BYTES: u64 = 64 << 10;
/// Every length is a multiple of this, and so is every address.
const GRAIN_BYTES: u64 = 64;
/// Up to here, classes are one grain apart; above, each doubling has `PER_DOUBLING`.
const FINE_BYTES: u64 = 4096;
const FINE_CLASSES: u64 = FINE_BYTES / GRAIN_BYTES;
const PER_DOUBLING: u64 = 8;
const CLASSES: usize = 96;
const SPAN_BYTES: usize = 256 << 10;
/// Bytes of a class that a thread keeps at most, and blocks.
const KEPT_BYTES: u64 = 256 << 10;
const KEPT_BLOCKS: u64 = 256;
/// What is known of a class.
#[derive(Clone, Copy)]
struct Class {
    len: u64,
    /// Blocks that a thread and a list exchange at once.
    batch: usize,
    /// Bytes into a span, times this, shifted by `RECIPROCAL_SHIFT`, is the number of the block there, without a division.
    reciprocal: u64,
}

const RECIPROCAL_SHIFT: u32 = 40;

static TABLE: [Class; CLASSES] = {
    let mut table = [Class { len: 0, batch: 0, reciprocal: 0 }; CLASSES];
    let mut class = 0;
    while class < CLASSES {
        let len = len_of(class);
        let reciprocal = (1_u64 << RECIPROCAL_SHIFT).div_ceil(len);
        table[class] = Class { len, batch: batch(len), reciprocal };
        class += 1;
    }
    table
};

/// The mark of a span that has no class yet.
const NO_CLASS: u8 = u8::MAX;

/// The blocks of a process.
#[derive(Debug)]
pub struct Blocks {
    range: Range<usize>,
    /// Class of each span.
    classes: Box<[AtomicU8]>,
    /// Spans in use.
    spans: AtomicUsize,
    lists: Box<[Mutex<List>]>,
    /// Bytes of all blocks that were ever cut.
    cut_bytes: AtomicU64,
}

/// Free blocks of a class that no thread keeps, and what is not cut yet of its latest span.
#[derive(Debug, Default)]
struct List {
    free: Vec<usize>,
    uncut: Range<usize>,
}

/// What a thread keeps.
struct Kept {
    of: Arc<Blocks>,
    free: Vec<Vec<usize>>,
}

thread_local! {
    static KEPT: RefCell<Option<Kept>> = const { RefCell::new(None) };
}

impl Drop for Kept {
    fn drop(&mut self) {
        for (class, free) in self.free.iter_mut().enumerate() {
            self.of.list(class).free.append(free);
        }
    }
}

impl Blocks {
    /// Blocks in this address space.
    #[must_use]
    pub fn new(range: Range<usize>) -> Arc<Blocks> {
        Arc::new(Blocks {
            classes: (0..range.len() / SPAN_BYTES).map(|_| AtomicU8::new(NO_CLASS)).collect(),
            spans: AtomicUsize::new(0),
            lists: (0..CLASSES).map(|_| Mutex::default()).collect(),
            cut_bytes: AtomicU64::new(0),
            range,
        })
    }

    /// Bytes that these blocks hold, free ones included.
    #[must_use]
    pub fn held_bytes(&self) -> u64 {
        self.cut_bytes.load(Ordering::Relaxed)
    }

    /// Whether the address lies here.
    #[must_use]
    pub fn owns(&self, addr: usize) -> bool {
        self.range.contains(&addr)
    }

    /// A block of at least `size_bytes`; `None` for sizes above [`LARGEST_BYTES`], and when there is no room. `budget` is
    /// charged when a block is cut, once and for all.
    pub fn alloc(self: &Arc<Blocks>, size_bytes: u64, budget: &Budget) -> Option<usize> {
        let class = class_of(size_bytes)?;
        let kept = KEPT.try_with(|kept| {
            let mut kept = kept.borrow_mut();
            let own = self.kept_by(&mut kept);
            if own.free[class].is_empty() {
                self.fetch(class, TABLE[class].batch, &mut own.free[class], budget);
            }
            own.free[class].pop()
        });
        kept.unwrap_or_else(|_| {
            // The thread is about to end, and keeps nothing any more.
            let mut one = Vec::new();
            self.fetch(class, 1, &mut one, budget);
            one.pop()
        })
    }

    /// Releases the block at `addr`, which lies here; its length, or `None` when no block can begin there.
    pub fn free(self: &Arc<Blocks>, addr: usize) -> Option<u64> {
        let (class, len) = self.block_at(addr)?;
        let kept = KEPT.try_with(|kept| {
            let mut kept = kept.borrow_mut();
            let own = &mut self.kept_by(&mut kept).free[class];
            own.push(addr);
            let batch = TABLE[class].batch;
            if own.len() > 2 * batch {
                self.list(class).free.extend(own.drain(..batch));
            }
        });
        if kept.is_err() {
            self.list(class).free.push(addr);
        }
        Some(len)
    }

    /// Length of the block that begins at `addr`.
    #[must_use]
    pub fn size_of(&self, addr: usize) -> Option<u64> {
        self.block_at(addr).map(|(_, len)| len)
    }

    fn block_at(&self, addr: usize) -> Option<(usize, u64)> {
        let offset = addr.checked_sub(self.range.start)?;
        let class = self.classes.get(offset / SPAN_BYTES)?.load(Ordering::Relaxed);
        let known = TABLE.get(usize::from(class))?;
        let inside = (offset % SPAN_BYTES) as u64;
        let number = (inside * known.reciprocal) >> RECIPROCAL_SHIFT;
        (number * known.len == inside).then_some((usize::from(class), known.len))
    }

    /// The calling thread's blocks, emptied first when they belong to others.
    #[inline]
    fn kept_by<'a>(self: &Arc<Blocks>, kept: &'a mut Option<Kept>) -> &'a mut Kept {
        if kept.as_ref().is_some_and(|kept| !Arc::ptr_eq(&kept.of, self)) {
            *kept = None;
        }
        kept.get_or_insert_with(|| Kept { of: Arc::clone(self), free: vec![Vec::new(); CLASSES] })
    }

    fn list(&self, class: usize) -> MutexGuard<'_, List> {
        self.lists[class].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves up to `count` blocks to `free`, cut from a span when no others are there.
    fn fetch(&self, class: usize, count: usize, free: &mut Vec<usize>, budget: &Budget) {
        let mut list = self.list(class);
        let there = list.free.len().min(count);
        let keep = list.free.len() - there;
        free.extend(list.free.drain(keep..));
        let len = TABLE[class].len;
        while free.len() < count {
            let begin = list.uncut.start;
            let end = usize::try_from(len).map_or(usize::MAX, |len| begin.saturating_add(len));
            if end > list.uncut.end {
                match self.new_span(class) {
                    Some(span) => list.uncut = span,
                    None => return,
                }
                continue;
            }
            if !budget.try_reserve(len) {
                return;
            }
            self.cut_bytes.fetch_add(len, Ordering::Relaxed);
            free.push(begin);
            list.uncut.start = end;
        }
    }

    fn new_span(&self, class: usize) -> Option<Range<usize>> {
        let span = self.spans.fetch_add(1, Ordering::Relaxed);
        let Some(own) = self.classes.get(span) else {
            self.spans.fetch_sub(1, Ordering::Relaxed);
            return None;
        };
        own.store(u8::try_from(class).unwrap_or(NO_CLASS), Ordering::Relaxed);
        let begin = self.range.start + span * SPAN_BYTES;
        Some(begin..begin + SPAN_BYTES)
    }
}

/// Blocks of this length that a thread and a list exchange at once.
#[allow(clippy::cast_possible_truncation)] // at most `KEPT_BLOCKS`
const fn batch(len: u64) -> usize {
    let blocks = KEPT_BYTES / 2 / len;
    let most = KEPT_BLOCKS / 2;
    (if blocks < 1 {
        1
    } else if blocks > most {
        most
    } else {
        blocks
    }) as usize
}

/// The class of a size; `None` above the largest.
fn class_of(size_bytes: u64) -> Option<usize> {
    let grains = size_bytes.div_ceil(GRAIN_BYTES).max(1);
    let class = if grains <= FINE_CLASSES {
        grains - 1
    } else if size_bytes <= LARGEST_BYTES {
        // The doubling above the fine classes in which the size lies, and its part of that.
        let below = grains - 1;
        let doubling = u64::from(below.ilog2() - FINE_CLASSES.ilog2());
        let part = (below >> (doubling + u64::from((FINE_CLASSES / PER_DOUBLING).ilog2()))) - PER_DOUBLING;
        FINE_CLASSES + doubling * PER_DOUBLING + part
    } else {
        return None;
    };
    usize::try_from(class).ok()
}

/// Length of the blocks of a class.
const fn len_of(class: usize) -> u64 {
    let class = class as u64;
    if class < FINE_CLASSES {
        return (class + 1) * GRAIN_BYTES;
    }
    let (doubling, part) = ((class - FINE_CLASSES) / PER_DOUBLING, (class - FINE_CLASSES) % PER_DOUBLING);
    (FINE_BYTES / PER_DOUBLING * (PER_DOUBLING + part + 1)) << doubling
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_size_has_the_smallest_class_that_holds_it() {
        for size in 0..=LARGEST_BYTES {
            let class = class_of(size).expect("not above the largest");
            assert!(class < CLASSES && len_of(class) >= size, "{size}: class {class} of {}", len_of(class));
            assert!(class == 0 || len_of(class - 1) < size.max(1), "{size}: class {class} is not the smallest");
            assert!(len_of(class) % GRAIN_BYTES == 0);
        }
        assert_eq!((class_of(LARGEST_BYTES), class_of(LARGEST_BYTES + 1)), (Some(CLASSES - 1), None));
    }

    #[test]
    fn the_number_of_a_block_is_what_a_division_gives() {
        for Class { len, reciprocal, .. } in TABLE {
            for inside in 0..SPAN_BYTES as u64 {
                assert_eq!((inside * reciprocal) >> RECIPROCAL_SHIFT, inside / len, "{inside} in blocks of {len}");
            }
        }
    }

    #[test]
    fn live_blocks_never_overlap_and_come_back_from_any_thread() {
        const ROUNDS: u64 = 12;
        const THREADS: u64 = 4;
        let blocks = Blocks::new(1 << 30..(1 << 30) + (1 << 30));
        let budget = Budget::new(u64::MAX);
        let sizes = |me: u64| (0..2000_u64).map(move |i| 1 + (i * 7919 + me * 31) % 9000);
        let mut most_live_bytes = 0;
        for _ in 0..ROUNDS {
            let live: Vec<(usize, u64)> = std::thread::scope(|scope| {
                let (blocks, budget) = (&blocks, &budget);
                let work = |me: u64| {
                    let take = |size: u64| (blocks.alloc(size, budget).expect("there is room"), size);
                    sizes(me).map(take).collect::<Vec<_>>()
                };
                let running: Vec<_> = (0..THREADS).map(|me| scope.spawn(move || work(me))).collect();
                running.into_iter().flat_map(|thread| thread.join().expect("no thread fails")).collect()
            });
            let mut sorted = live.clone();
            sorted.sort_unstable();
            for pair in sorted.windows(2) {
                assert!(pair[0].0 as u64 + pair[0].1 <= pair[1].0 as u64, "{pair:?}");
            }
            assert!(live.iter().all(|&(addr, size)| blocks.size_of(addr).is_some_and(|len| len >= size)));
            let freed = live.into_iter().map(|(addr, _)| blocks.free(addr).expect("the block lives"));
            most_live_bytes = freed.sum::<u64>().max(most_live_bytes);
        }
        assert_eq!(budget.used(), blocks.held_bytes());
        // All rounds together need what one does, and what the threads of a round and the one that frees keep.
        let kept_at_most = (THREADS + 1) * CLASSES as u64 * KEPT_BYTES;
        assert!(ROUNDS * most_live_bytes > 2 * (most_live_bytes + kept_at_most), "or the next line says nothing");
        assert!(blocks.held_bytes() <= most_live_bytes + kept_at_most, "{}", blocks.held_bytes());
    }

    #[test]
    fn what_is_no_block_is_refused() {
        let blocks = Blocks::new(1 << 30..(1 << 30) + (1 << 20));
        let budget = Budget::new(u64::MAX);
        let addr = blocks.alloc(100, &budget).expect("there is room");
        assert_eq!(blocks.size_of(addr), Some(128));
        assert_eq!(blocks.free(addr + 64), None);
        assert_eq!(blocks.free((1 << 30) + (1 << 19)), None, "no span there yet");
        let taken = std::iter::from_fn(|| blocks.alloc(LARGEST_BYTES, &budget)).count();
        assert_eq!(taken, 3 * 4, "three of four spans are left");
    }
}
