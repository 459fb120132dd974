//! Large blocks that were freed a moment ago, for whoever asks for one of the same length next: no lock, no tree.
//!
//! They still are blocks of the heap, which takes them back before it grows: what waits here never costs memory that the
//! heap would not have used anyway, it only joins its neighbours later.

use crate::busy;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::OnceLock;

/// Every address and every length is a multiple of this.
const GRAIN_BYTES: u64 = 64;
/// Blocks are larger than this, so that no two of them begin in the same stretch of so many bytes.
pub const LARGER_THAN_BYTES: u64 = 64 << 10;
const STRETCH_BYTES: usize = 64 << 10;
/// Stretches of a GiB, which is what gets its record at once.
const CHUNK_STRETCHES: usize = 1 << 14;
/// Threads look in their own part first, so that they rarely meet.
const PARTS: usize = 4;
const BUCKETS: usize = 64;
/// Blocks of a bucket, in half a line of the processor's cache.
const WAYS: usize = 4;
/// A block in one word: its begin above, its length below, both in grains. Zero is no block.
const LEN_BITS: u32 = 30;
const LEN_MASK: u64 = (1 << LEN_BITS) - 1;
/// The bit of a block's record that says that it waits here.
const WAITS: u64 = 1 << 63;

#[derive(Debug, Default)]
#[repr(align(32))]
struct Bucket([AtomicU64; WAYS]);

/// What becomes of a block that is freed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offered {
    /// It waits here; its length.
    Taken(u64),
    /// It has to go back to the heap.
    Refused,
    /// It waits here already: nobody may free it again.
    Dead,
}

/// The blocks that wait, and what is known of the live ones.
#[derive(Debug)]
pub struct Recent {
    base: usize,
    parts: Box<[[Bucket; BUCKETS]]>,
    /// By GiB and stretch, the block that begins there.
    records: Box<[OnceLock<Box<[AtomicU64]>>]>,
}

impl Recent {
    /// No blocks, of a heap over this range.
    #[must_use]
    pub fn new(range: &Range<usize>) -> Recent {
        let chunks = range.len().div_ceil(STRETCH_BYTES * CHUNK_STRETCHES);
        Recent {
            base: range.start,
            parts: (0..PARTS).map(|_| std::array::from_fn(|_| Bucket::default())).collect(),
            records: (0..chunks).map(|_| OnceLock::new()).collect(),
        }
    }

    /// A block of exactly `len_bytes`, if one waits.
    pub fn take(&self, len_bytes: u64) -> Option<usize> {
        let len = len_bytes / GRAIN_BYTES;
        let own = busy::line();
        for part in 0..PARTS {
            // The places are filled from the first one, so the last is the latest, and the likeliest to be in a cache.
            for slot in self.parts[(own + part) % PARTS][bucket_of(len)].0.iter().rev() {
                let word = slot.load(Ordering::Relaxed);
                let matches = word != 0 && word & LEN_MASK == len;
                if matches && slot.compare_exchange(word, 0, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                    let addr = self.addr_of(word);
                    if let Some(record) = self.record(addr) {
                        record.store(word, Ordering::Relaxed);
                    }
                    return Some(addr);
                }
            }
        }
        None
    }

    /// The heap has made a block.
    pub fn born(&self, addr: usize, len_bytes: u64) {
        if let (Some(record), Some(word)) = (self.record(addr), self.word_of(addr, len_bytes)) {
            record.store(word, Ordering::Relaxed);
        }
    }

    /// The block at `addr` is freed.
    pub fn offer(&self, addr: usize) -> Offered {
        let Some(record) = self.record(addr) else { return Offered::Refused };
        let known = record.load(Ordering::Relaxed);
        let word = known & !WAITS;
        if word == 0 || self.addr_of(word) != addr {
            return Offered::Refused;
        }
        if known & WAITS != 0 {
            return Offered::Dead;
        }
        record.store(word | WAITS, Ordering::Relaxed);
        let len = word & LEN_MASK;
        let own = busy::line();
        let places = (0..PARTS).flat_map(|part| &self.parts[(own + part) % PARTS][bucket_of(len)].0);
        for slot in places {
            let empty = slot.load(Ordering::Relaxed) == 0;
            if empty && slot.compare_exchange(0, word, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                return Offered::Taken(len * GRAIN_BYTES);
            }
        }
        record.store(0, Ordering::Relaxed);
        Offered::Refused
    }

    /// Hands every block that waits to `back`, which gives it to the heap.
    pub fn drain(&self, mut back: impl FnMut(usize)) {
        for slot in self.parts.iter().flatten().flat_map(|bucket| &bucket.0) {
            // Most are empty, and a look is much cheaper than an exchange.
            let word = if slot.load(Ordering::Relaxed) == 0 { 0 } else { slot.swap(0, Ordering::AcqRel) };
            if word != 0 {
                let addr = self.addr_of(word);
                if let Some(record) = self.record(addr) {
                    record.store(0, Ordering::Relaxed);
                }
                back(addr);
            }
        }
    }

    fn addr_of(&self, word: u64) -> usize {
        self.base + usize::try_from((word >> LEN_BITS) * GRAIN_BYTES).unwrap_or(usize::MAX)
    }

    /// The block as a word; `None` for one that no word can hold, below 1 TiB and up to 64 GiB.
    fn word_of(&self, addr: usize, len_bytes: u64) -> Option<u64> {
        let begin = u64::try_from(addr.checked_sub(self.base)?).ok()? / GRAIN_BYTES;
        let len = len_bytes / GRAIN_BYTES;
        let fits = len <= LEN_MASK && begin < WAITS >> LEN_BITS;
        (fits && len_bytes > LARGER_THAN_BYTES).then_some(begin << LEN_BITS | len)
    }

    fn record(&self, addr: usize) -> Option<&AtomicU64> {
        let stretch = addr.checked_sub(self.base)? / STRETCH_BYTES;
        let chunk = self.records.get(stretch / CHUNK_STRETCHES)?;
        let chunk = chunk.get_or_init(|| (0..CHUNK_STRETCHES).map(|_| AtomicU64::new(0)).collect());
        chunk.get(stretch % CHUNK_STRETCHES)
    }
}

/// Lengths that follow each other lie in different buckets.
fn bucket_of(len: u64) -> usize {
    let spread = len.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 58;
    usize::try_from(spread).unwrap_or(0) % BUCKETS
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    const BASE: usize = 1 << 40;
    const LEN: u64 = LARGER_THAN_BYTES + GRAIN_BYTES;

    fn at(number: usize) -> usize {
        BASE + number * 2 * STRETCH_BYTES + 64
    }

    #[test]
    fn a_freed_block_is_had_again_once_and_only_for_its_length() {
        let recent = Recent::new(&(BASE..BASE + (2 << 30)));
        assert_eq!(recent.offer(at(0)), Offered::Refused, "nothing is known of it");
        recent.born(at(0), LEN);
        assert_eq!(recent.offer(at(0) + 64), Offered::Refused, "no block begins there");
        assert_eq!(recent.offer(at(0)), Offered::Taken(LEN));
        assert_eq!(recent.offer(at(0)), Offered::Dead);
        assert_eq!(recent.take(LEN + GRAIN_BYTES), None);
        assert_eq!(recent.take(LEN), Some(at(0)));
        assert_eq!(recent.take(LEN), None);
        assert_eq!(recent.offer(at(0)), Offered::Taken(LEN), "it lives again in between");
    }

    #[test]
    fn the_latest_block_comes_first() {
        let recent = Recent::new(&(BASE..BASE + (2 << 30)));
        (0..2).for_each(|number| recent.born(at(number), LEN));
        (0..2).for_each(|number| assert_eq!(recent.offer(at(number)), Offered::Taken(LEN)));
        assert_eq!([recent.take(LEN), recent.take(LEN)], [Some(at(1)), Some(at(0))]);
    }

    #[test]
    fn what_finds_no_place_and_what_is_drained_belongs_to_the_heap() {
        let recent = Recent::new(&(BASE..BASE + (2 << 30)));
        (0..PARTS * WAYS + 1).for_each(|number| recent.born(at(number), LEN));
        let taken = (0..PARTS * WAYS + 1).filter(|&number| recent.offer(at(number)) == Offered::Taken(LEN)).count();
        assert_eq!(taken, PARTS * WAYS);
        assert_eq!(recent.offer(at(PARTS * WAYS)), Offered::Refused);
        let mut drained = Vec::new();
        recent.drain(|addr| drained.push(addr));
        drained.sort_unstable();
        assert_eq!(drained, (0..PARTS * WAYS).map(at).collect::<Vec<_>>());
        assert_eq!(recent.take(LEN), None);
        assert_eq!(recent.offer(at(0)), Offered::Refused);
    }

    #[test]
    fn blocks_that_no_word_can_hold_are_left_to_the_heap() {
        let recent = Recent::new(&(BASE..BASE + (3 << 40)));
        for (addr, len) in [(at(0), 1 << 36), (BASE + (2 << 40), LEN), (at(1), LARGER_THAN_BYTES)] {
            recent.born(addr, len);
            assert_eq!(recent.offer(addr), Offered::Refused, "{addr:#x} of {len}");
        }
    }

    #[test]
    fn threads_never_get_the_same_block() {
        const BLOCKS: usize = 12;
        let recent = Recent::new(&(BASE..BASE + (2 << 30)));
        for number in 0..BLOCKS {
            recent.born(at(number), LEN);
            recent.offer(at(number));
        }
        let held = std::sync::Mutex::new(BTreeSet::new());
        let met = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..20_000 {
                        let Some(addr) = recent.take(LEN) else { continue };
                        assert!(held.lock().expect("no thread fails").insert(addr), "{addr:#x} was had twice");
                        met.fetch_add(1, Ordering::Relaxed);
                        assert!(held.lock().expect("no thread fails").remove(&addr));
                        recent.offer(addr);
                    }
                });
            }
        });
        assert!(met.load(Ordering::Relaxed) > 20_000, "or this says nothing");
    }
}
