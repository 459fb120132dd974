//! Free chunks of about the same length, in order: a sorted list as long as there are few of them, which is nearly always,
//! and a tree when there are many, so that no number of chunks makes an allocation slow.

use std::collections::BTreeMap;

/// A list that gets longer becomes a tree.
const FEW: usize = 64;

/// Chunks by length, then by offset; each has an index that its owner gives it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bin {
    /// Empty while `many` is not.
    few: Vec<(u64, u64, usize)>,
    many: BTreeMap<(u64, u64), usize>,
}

impl Bin {
    /// Adds a chunk that is not there yet.
    pub(crate) fn insert(&mut self, len: u64, offset: u64, index: usize) {
        if !self.many.is_empty() || self.few.len() == FEW {
            let before = self.few.drain(..).map(|(len, offset, index)| ((len, offset), index));
            self.many.extend(before);
            self.many.insert((len, offset), index);
        } else {
            let place = self.place(len, offset);
            self.few.insert(place, (len, offset, index));
        }
    }

    /// Takes the chunk out, when it is there.
    pub(crate) fn remove(&mut self, len: u64, offset: u64) {
        let place = self.place(len, offset);
        if self.few.get(place).is_some_and(|&(l, o, _)| (l, o) == (len, offset)) {
            self.few.remove(place);
        } else {
            self.many.remove(&(len, offset));
        }
    }

    /// Takes out the first chunk of at least `len` bytes; its index.
    pub(crate) fn take_from(&mut self, len: u64) -> Option<usize> {
        if !self.many.is_empty() {
            let (&key, _) = self.many.range((len, 0)..).next()?;
            return self.many.remove(&key);
        }
        let place = self.place(len, 0);
        (place < self.few.len()).then(|| self.few.remove(place).2)
    }

    /// True when no chunk is there.
    pub(crate) fn is_empty(&self) -> bool {
        self.few.is_empty() && self.many.is_empty()
    }

    /// Length, offset and index of the chunks of at least `len` bytes, in order.
    pub(crate) fn from(&self, len: u64) -> impl Iterator<Item = (u64, u64, usize)> + '_ {
        let many = self.many.range((len, 0)..).map(|(&(len, offset), &index)| (len, offset, index));
        self.few[self.place(len, 0)..].iter().copied().chain(many)
    }

    /// Where a chunk is in the list, or would be.
    fn place(&self, len: u64, offset: u64) -> usize {
        self.few.partition_point(|&(l, o, _)| (l, o) < (len, offset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bin_is_in_order_however_many_chunks_it_has() {
        let mut bin = Bin::default();
        let mut wanted = BTreeMap::new();
        let mut draw = 1_u64;
        let mut both = [false; 2];
        for round in 0..6000_usize {
            draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let (len, offset) = (draw >> 61, (draw >> 32) % 97);
            // Half of the time it grows, half of the time it shrinks.
            if (round / 700) % 2 == 0 {
                if wanted.insert((len, offset), round).is_none() {
                    bin.insert(len, offset, round);
                } else {
                    bin.remove(len, offset);
                    bin.insert(len, offset, round);
                }
            } else {
                wanted.remove(&(len, offset));
                bin.remove(len, offset);
            }
            if round % 11 == 0 {
                let first = wanted.range((5, 0)..).next().map(|(&key, &index)| (key, index));
                assert_eq!(bin.take_from(5), first.map(|(_, index)| index), "round {round}");
                first.map(|(key, _)| wanted.remove(&key));
            }
            both[usize::from(bin.many.is_empty())] |= !bin.is_empty();
            assert_eq!(bin.is_empty(), wanted.is_empty());
            let expected = wanted.range((3, 0)..).map(|(&(len, offset), &index)| (len, offset, index));
            assert!(bin.from(3).eq(expected), "round {round}");
        }
        assert_eq!(both, [true; 2], "both a list and a tree");
    }
}
