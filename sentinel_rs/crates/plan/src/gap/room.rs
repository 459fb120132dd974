//! Free bytes per op, with the two questions that a plan asks of them: how little is free over a stretch, and take some.

use std::ops::Range;

/// Free bytes by op: range minimum and range addition in the logarithm of the number of ops.
#[derive(Clone, Debug)]
pub(super) struct Room {
    leaves: usize,
    /// Minimum of the subtree, what was added to the node itself included.
    least: Vec<i64>,
    /// Added to the whole subtree of an inner node.
    added: Vec<i64>,
}

impl Room {
    /// One entry per op.
    pub(super) fn new(free: &[i64]) -> Room {
        let leaves = free.len().next_power_of_two().max(1);
        let mut least = vec![i64::MAX / 2; 2 * leaves];
        least[leaves..leaves + free.len()].copy_from_slice(free);
        for node in (1..leaves).rev() {
            least[node] = least[2 * node].min(least[2 * node + 1]);
        }
        Room { leaves, least, added: vec![0; leaves] }
    }

    /// Adds `bytes` at every op of the range.
    pub(super) fn add(&mut self, range: Range<usize>, bytes: i64) {
        if range.is_empty() {
            return;
        }
        let (mut low, mut high) = (range.start + self.leaves, range.end + self.leaves);
        let (first, last) = (low, high - 1);
        while low < high {
            if low & 1 == 1 {
                self.add_to(low, bytes);
                low += 1;
            }
            if high & 1 == 1 {
                high -= 1;
                self.add_to(high, bytes);
            }
            low >>= 1;
            high >>= 1;
        }
        self.pull(first);
        self.pull(last);
    }

    /// Least free bytes over the range; huge for an empty one.
    pub(super) fn least(&self, range: Range<usize>) -> i64 {
        if range.is_empty() {
            return i64::MAX / 2;
        }
        let (mut low, mut high) = (range.start + self.leaves, range.end - 1 + self.leaves);
        let (mut of_low, mut of_high) = (self.least[low], self.least[high]);
        // Both ends climb; what lies between them is picked up from the inner siblings, what was added above from parents.
        while low >> 1 != high >> 1 {
            if low & 1 == 0 {
                of_low = of_low.min(self.least[low + 1]);
            }
            if high & 1 == 1 {
                of_high = of_high.min(self.least[high - 1]);
            }
            low >>= 1;
            high >>= 1;
            of_low += self.added[low];
            of_high += self.added[high];
        }
        let mut result = of_low.min(of_high);
        let mut node = low >> 1;
        while node > 0 {
            result += self.added[node];
            node >>= 1;
        }
        result
    }

    fn add_to(&mut self, node: usize, bytes: i64) {
        self.least[node] += bytes;
        if node < self.leaves {
            self.added[node] += bytes;
        }
    }

    fn pull(&mut self, leaf: usize) {
        let mut node = leaf >> 1;
        while node > 0 {
            self.least[node] = self.least[2 * node].min(self.least[2 * node + 1]) + self.added[node];
            node >>= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_answers_as_a_plain_list_does(
            free in prop::collection::vec(-50_i64..50, 1..40),
            steps in prop::collection::vec((0_usize..40, 0_usize..41, -20_i64..20), 0..60),
        ) {
            let mut room = Room::new(&free);
            let mut plain = free;
            for (start, end, bytes) in steps {
                let range = start.min(plain.len())..end.min(plain.len());
                let range = range.start.min(range.end)..range.end;
                room.add(range.clone(), bytes);
                plain[range.clone()].iter_mut().for_each(|free| *free += bytes);
                let all = 0..plain.len();
                prop_assert_eq!(room.least(all), plain.iter().copied().min().unwrap());
                prop_assert_eq!(room.least(range.clone()), plain[range].iter().copied().min().unwrap_or(i64::MAX / 2));
            }
        }
    }
}
