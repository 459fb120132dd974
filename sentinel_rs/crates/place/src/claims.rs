//! Who owns which part of an arena, without a lock.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes that one bit stands for. A claim takes every granule that it touches.
pub const GRANULE_BYTES: u64 = 512;

const BITS: u64 = 64;

/// A bitmap of claimed granules over the offsets `0..len_bytes`. All methods may be called from several threads at once.
///
/// A claim takes the words that it covers in part bit by bit, and those that it covers as a whole by one bit each in a second
/// map: large claims are what training is made of, and 64 times fewer bits change for them. Whoever takes a word in one of
/// the two ways looks afterwards whether it is taken in the other, and gives it back when it is. Words that were never taken
/// in part need no such look, and a third map says which those are: plans claim the same places in every step, so that few
/// words of a large claim are ever taken in part.
///
/// A claim acquires and a release releases each word, so whoever claims a granule sees everything that the owner before
/// did to the memory under it before releasing it. A claim is sequentially consistent: of two threads of which one claims and
/// then reads a flag, the other writes that flag and then looks for claims, at least one sees the other, when the flag is read
/// and written sequentially consistently and a sequentially consistent fence lies before the look.
#[derive(Debug)]
pub struct ClaimMap {
    /// Bit `g % 64` of word `g / 64` is granule `g`.
    words: Box<[AtomicU64]>,
    /// Bit `w % 64` of word `w / 64` is all of word `w`.
    whole: Box<[AtomicU64]>,
    /// Bit `w % 64` of word `w / 64` says that word `w` was taken in part at some time.
    parted: Box<[AtomicU64]>,
    granules: u64,
}

impl ClaimMap {
    /// A map of `len_bytes`, rounded up to whole granules; all of it is free.
    #[must_use]
    pub fn new(len_bytes: u64) -> Self {
        let granules = len_bytes.div_ceil(GRANULE_BYTES);
        let words = granules.div_ceil(BITS);
        let zeroes = |count: u64| (0..count).map(|_| AtomicU64::new(0)).collect();
        let places = words.div_ceil(BITS);
        ClaimMap { words: zeroes(words), whole: zeroes(places), parted: zeroes(places), granules }
    }

    /// Takes every granule of `offset..offset + len` or none of them, and says whether it did. `false` when one of them is
    /// taken or outside the map. A length of zero takes nothing and succeeds.
    ///
    /// A claim that fails half-way holds its first granules for a moment, so of claims that hinder one another at the same
    /// time, all may fail.
    pub fn claim(&self, offset: u64, len: u64) -> bool {
        let Some(granules) = self.granules_of(offset, len) else {
            return false;
        };
        let Cut { head, whole, tail } = Cut::of(&granules);
        if !self.take_part(head) {
            return false;
        }
        if !self.take_whole(whole.clone()) {
            self.give_part(head);
            return false;
        }
        if !self.take_part(tail) {
            self.give_whole(whole);
            self.give_part(head);
            return false;
        }
        true
    }

    /// Gives back what an earlier `claim` with the same arguments took.
    pub fn release(&self, offset: u64, len: u64) {
        let Some(granules) = self.granules_of(offset, len) else {
            return;
        };
        let Cut { head, whole, tail } = Cut::of(&granules);
        self.give_part(head);
        self.give_whole(whole);
        self.give_part(tail);
    }

    /// Whether every granule of `offset..offset + len` is inside the map and free at the moment.
    #[must_use]
    pub fn is_free(&self, offset: u64, len: u64) -> bool {
        self.granules_of(offset, len)
            .is_some_and(|granules| masks(granules).all(|(word, mask)| self.bits(word, Ordering::Acquire) & mask == 0))
    }

    /// The end offset of the highest claimed granule that begins below the offset `below`; 0 when there is none.
    #[must_use]
    pub fn highest_claimed_end(&self, below: u64) -> u64 {
        let granules = below.div_ceil(GRANULE_BYTES).min(self.granules);
        for word in (0..granules.div_ceil(BITS)).rev() {
            let mask = low_bits((granules - word * BITS).min(BITS));
            let bits = self.bits(index(word), Ordering::Acquire) & mask;
            if bits != 0 {
                return (word * BITS + u64::from(bits.ilog2()) + 1) * GRANULE_BYTES;
            }
        }
        0
    }

    /// Bytes in claimed granules, those of claims under way as far as they are taken. It looks at the whole map.
    #[must_use]
    pub fn claimed_bytes(&self) -> u64 {
        let taken = |word| u64::from(self.bits(word, Ordering::Acquire).count_ones());
        (0..self.words.len()).map(taken).sum::<u64>() * GRANULE_BYTES
    }

    /// The taken granules of a word, in whichever way.
    fn bits(&self, word: usize, order: Ordering) -> u64 {
        if self.whole[word / 64].load(order) & (1 << (word % 64)) != 0 {
            return u64::MAX;
        }
        self.words[word].load(order)
    }

    /// Takes some granules of a word when they are free.
    fn take_part(&self, part: Option<(usize, u64)>) -> bool {
        let Some((word, mask)) = part else { return true };
        let (place, own) = (word / 64, 1 << (word % 64));
        // Before the bits themselves: whoever then takes the word as a whole and does not see this, is seen below. That takes
        // one order of all these accesses, also where another thread has set it.
        if self.parted[place].load(Ordering::SeqCst) & own == 0 {
            self.parted[place].fetch_or(own, Ordering::SeqCst);
        }
        if !take(&self.words[word], mask) {
            return false;
        }
        // Whoever takes the word as a whole at the same time sees our bits, or we see theirs.
        let taken = self.whole[place].load(Ordering::SeqCst) & own != 0;
        if taken {
            self.give_part(part);
        }
        !taken
    }

    fn give_part(&self, part: Option<(usize, u64)>) {
        if let Some((word, mask)) = part {
            self.words[word].fetch_and(!mask, Ordering::Release);
        }
    }

    /// Takes words as a whole when all of their granules are free.
    fn take_whole(&self, words: Range<u64>) -> bool {
        for (taken, (place, mask)) in masks(words.clone()).enumerate() {
            if !take(&self.whole[place], mask) {
                for (place, mask) in masks(words).take(taken) {
                    self.whole[place].fetch_and(!mask, Ordering::Release);
                }
                return false;
            }
        }
        let free = masks(words.clone()).all(|(place, mask)| {
            let parted = self.parted[place].load(Ordering::SeqCst) & mask;
            bits_of(parted).all(|bit| self.words[place * 64 + bit].load(Ordering::SeqCst) == 0)
        });
        if !free {
            self.give_whole(words);
        }
        free
    }

    fn give_whole(&self, words: Range<u64>) {
        for (place, mask) in masks(words) {
            self.whole[place].fetch_and(!mask, Ordering::Release);
        }
    }

    /// The granules that the bytes touch, `None` when one is outside the map.
    fn granules_of(&self, offset: u64, len: u64) -> Option<Range<u64>> {
        let end = offset.checked_add(len)?.div_ceil(GRANULE_BYTES);
        let first = offset / GRANULE_BYTES;
        (end <= self.granules).then_some(if len == 0 { first..first } else { first..end })
    }
}

/// Sets the bits of `mask` when none of them is set.
fn take(word: &AtomicU64, mask: u64) -> bool {
    let free = |bits: u64| (bits & mask == 0).then_some(bits | mask);
    word.fetch_update(Ordering::SeqCst, Ordering::Relaxed, free).is_ok()
}

/// A range of granules by how it covers words: in part at its begin, as a whole, in part at its end.
struct Cut {
    head: Option<(usize, u64)>,
    whole: Range<u64>,
    tail: Option<(usize, u64)>,
}

impl Cut {
    fn of(granules: &Range<u64>) -> Cut {
        let (first, last) = (granules.start.div_ceil(BITS), granules.end / BITS);
        let part = |part: Range<u64>| masks(part).next();
        if first > last {
            // Inside one word.
            return Cut { head: part(granules.clone()), whole: 0..0, tail: None };
        }
        Cut { head: part(granules.start..first * BITS), whole: first..last, tail: part(last * BITS..granules.end) }
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

/// The numbers of the bits that are set, ascending.
fn bits_of(word: u64) -> impl Iterator<Item = usize> {
    let rest = |bits: &u64| Some(bits & (bits - 1)).filter(|&bits| bits != 0);
    std::iter::successors(Some(word).filter(|&bits| bits != 0), rest).map(|bits| bits.trailing_zeros() as usize)
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
