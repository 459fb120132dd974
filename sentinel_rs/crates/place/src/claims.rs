//! Who owns which part of an arena, without a lock.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes that one bit stands for. A claim takes every granule that it touches.
pub const GRANULE_BYTES: u64 = 512;

const BITS: u64 = 64;

/// A bitmap of claimed granules over the offsets `0..len_bytes`. All methods may be called from several threads at once.
///
/// A claim acquires and a release releases each word, so whoever claims a granule sees everything that the owner before
/// did to the memory under it before releasing it.
#[derive(Debug)]
pub struct ClaimMap {
    words: Box<[AtomicU64]>,
    granules: u64,
    claimed_granules: AtomicU64,
}

impl ClaimMap {
    /// A map of `len_bytes`, rounded up to whole granules; all of it is free.
    #[must_use]
    pub fn new(len_bytes: u64) -> Self {
        let granules = len_bytes.div_ceil(GRANULE_BYTES);
        let words = (0..granules.div_ceil(BITS)).map(|_| AtomicU64::new(0)).collect();
        ClaimMap { words, granules, claimed_granules: AtomicU64::new(0) }
    }

    /// Takes every granule of `offset..offset + len` or none of them, and says whether it did. `false` when one of them is
    /// taken or outside the map. A length of zero takes nothing and succeeds.
    ///
    /// A claim that fails half-way holds its first granules for a moment, so another claim may fail because of one that
    /// fails in the end. Words are taken in ascending order: of claims that only hinder one another, one succeeds.
    pub fn claim(&self, offset: u64, len: u64) -> bool {
        let Some(granules) = self.granules_of(offset, len) else {
            return false;
        };
        for (taken, (word, mask)) in masks(granules.clone()).enumerate() {
            if !self.take(word, mask) {
                for (word, mask) in masks(granules).take(taken) {
                    self.words[word].fetch_and(!mask, Ordering::Release);
                }
                return false;
            }
        }
        self.claimed_granules.fetch_add(granules.end - granules.start, Ordering::Relaxed);
        true
    }

    /// Gives back what an earlier `claim` with the same arguments took. Granules that are free or outside stay as they are.
    pub fn release(&self, offset: u64, len: u64) {
        let Some(granules) = self.granules_of(offset, len) else {
            return;
        };
        let freed: u64 = masks(granules)
            .map(|(word, mask)| {
                let before = self.words[word].fetch_and(!mask, Ordering::Release);
                u64::from((before & mask).count_ones())
            })
            .sum();
        self.claimed_granules.fetch_sub(freed, Ordering::Relaxed);
    }

    /// Whether every granule of `offset..offset + len` is inside the map and free at the moment.
    #[must_use]
    pub fn is_free(&self, offset: u64, len: u64) -> bool {
        self.granules_of(offset, len).is_some_and(|granules| {
            masks(granules).all(|(word, mask)| self.words[word].load(Ordering::Acquire) & mask == 0)
        })
    }

    /// The end offset of the highest claimed granule that begins below the offset `below`; 0 when there is none.
    #[must_use]
    pub fn highest_claimed_end(&self, below: u64) -> u64 {
        let granules = below.div_ceil(GRANULE_BYTES).min(self.granules);
        for word in (0..granules.div_ceil(BITS)).rev() {
            let mask = low_bits((granules - word * BITS).min(BITS));
            let bits = self.words[index(word)].load(Ordering::Acquire) & mask;
            if bits != 0 {
                return (word * BITS + u64::from(bits.ilog2()) + 1) * GRANULE_BYTES;
            }
        }
        0
    }

    /// Bytes in claimed granules. Claims under way are not counted.
    #[must_use]
    pub fn claimed_bytes(&self) -> u64 {
        self.claimed_granules.load(Ordering::Relaxed) * GRANULE_BYTES
    }

    /// Sets the bits of `mask` when none of them is set.
    fn take(&self, word: usize, mask: u64) -> bool {
        let free = |bits: u64| (bits & mask == 0).then_some(bits | mask);
        self.words[word].fetch_update(Ordering::Acquire, Ordering::Relaxed, free).is_ok()
    }

    /// The granules that the bytes touch, `None` when one is outside the map.
    fn granules_of(&self, offset: u64, len: u64) -> Option<Range<u64>> {
        let end = offset.checked_add(len)?.div_ceil(GRANULE_BYTES);
        let first = offset / GRANULE_BYTES;
        (end <= self.granules).then_some(if len == 0 { first..first } else { first..end })
    }
}

/// The words that hold these granules, ascending, each with the bits of the granules.
fn masks(granules: Range<u64>) -> impl Iterator<Item = (usize, u64)> {
    let words = granules.start / BITS..granules.end.div_ceil(BITS);
    let words = if granules.is_empty() { 0..0 } else { words };
    words.map(move |word| {
        let from = granules.start.saturating_sub(word * BITS);
        let to = (granules.end - word * BITS).min(BITS);
        (index(word), low_bits(to) & !low_bits(from))
    })
}

/// A word whose lowest `count` bits are set, for up to 64.
fn low_bits(count: u64) -> u64 {
    if count >= BITS {
        u64::MAX
    } else {
        (1 << count) - 1
    }
}

/// A word number as an index. The map exists in memory, so its word numbers fit; one that does not is out of bounds anyway.
fn index(word: u64) -> usize {
    usize::try_from(word).unwrap_or(usize::MAX)
}
