//! Temporaries of one operation for another batch.
//!
//! Some kernels make a fixed set of temporaries that grow with the batch; some make one per image; broadcasting kernels
//! make as many small blocks as the threads happen to take. So their number is fitted where it differs.

use std::collections::BTreeMap;

/// What becomes of one temporary of the base.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fate {
    /// Its size in bytes for the wanted batch.
    pub(super) size_bytes: u64,
    /// How many like it there are: 1 unless their number was fitted, 0 when it is one too many. A number, and not a list of them,
    /// because a batch may ask for more than memory holds.
    pub(super) count: u64,
}

/// Fits the temporaries of one operation: `base` and `other` are their sizes in bytes in the two steps, in the order of
/// their births; `fit` takes a figure of the base and one of the other step.
///
/// As many in both steps: the smallest is fitted with the smallest, and so on. Else, of each size that both have, the
/// number is fitted. What is left is paired by size when it is as many in both, and otherwise stays as recorded.
pub(super) fn fit(base: &[u64], other: &[u64], fit: impl Fn(u64, u64) -> u64) -> Vec<Fate> {
    let mut result = base.iter().map(|&size_bytes| Fate { size_bytes, count: 1 }).collect::<Vec<_>>();
    if base.len() == other.len() {
        pair_by_size(&positions(base, |_| true), &sizes(other, |_| true), &fit, &mut result);
        return result;
    }
    let (ours, theirs) = (by_size(base), by_size(other));
    let shared = |size: u64| ours.contains_key(&size) && theirs.contains_key(&size);
    for (&size, places) in ours.iter().filter(|(&size, _)| shared(size)) {
        let mut left = fit(places.len() as u64, theirs[&size].len() as u64);
        for (place, after) in places.iter().zip((0..places.len()).rev()) {
            // Further ones come after the last.
            result[*place].count = if after == 0 { left } else { left.min(1) };
            left -= result[*place].count;
        }
    }
    let (ours, theirs) = (positions(base, |size| !shared(size)), sizes(other, |size| !shared(size)));
    if ours.len() == theirs.len() {
        pair_by_size(&ours, &theirs, &fit, &mut result);
    }
    result
}

/// Positions of the sizes that `picks` wants, by rising size.
fn positions(all: &[u64], picks: impl Fn(u64) -> bool) -> Vec<(u64, usize)> {
    let mut found: Vec<(u64, usize)> =
        all.iter().enumerate().filter(|&(_, &size)| picks(size)).map(|(place, &size)| (size, place)).collect();
    found.sort_unstable();
    found
}

fn sizes(all: &[u64], picks: impl Fn(u64) -> bool) -> Vec<u64> {
    positions(all, picks).into_iter().map(|(size, _)| size).collect()
}

fn by_size(all: &[u64]) -> BTreeMap<u64, Vec<usize>> {
    let mut found: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
    for (place, &size) in all.iter().enumerate() {
        found.entry(size).or_default().push(place);
    }
    found
}

fn pair_by_size(ours: &[(u64, usize)], theirs: &[u64], fit: &impl Fn(u64, u64) -> u64, fates: &mut [Fate]) {
    for (&(our_size, place), &their_size) in ours.iter().zip(theirs) {
        fates[place].size_bytes = fit(our_size, their_size);
    }
}

#[cfg(test)]
mod tests {
    use super::{fit, Fate};

    fn double(base: u64, other: u64) -> u64 {
        base + (base - other)
    }

    fn sizes(fates: &[Fate]) -> Vec<u64> {
        fates.iter().map(|fate| fate.size_bytes).collect()
    }

    fn counts(fates: &[Fate]) -> Vec<u64> {
        fates.iter().map(|fate| fate.count).collect()
    }

    #[test]
    fn as_many_are_paired_by_size_whatever_their_order() {
        let result = fit(&[40, 10, 20], &[15, 10, 30], double);
        assert_eq!(sizes(&result), [50, 10, 25]);
        assert_eq!(counts(&result), [1; 3]);
    }

    #[test]
    fn one_per_image_grows_in_number_and_the_rest_in_size() {
        let result = fit(&[7, 100, 7, 7, 7], &[7, 60, 7], double);
        assert_eq!(sizes(&result), [7, 140, 7, 7, 7]);
        assert_eq!(counts(&result), [1, 1, 1, 1, 3]);
    }

    #[test]
    fn one_per_image_shrinks_in_number() {
        let result = fit(&[7, 7, 7, 7], &[7; 7], |base, other| base.min(other) / 2);
        assert_eq!(sizes(&result), [7; 4]);
        assert_eq!(counts(&result), [1, 1, 0, 0]);
    }

    #[test]
    fn more_than_memory_holds_is_a_number_like_any_other() {
        let result = fit(&[7, 7], &[7], |_, _| u64::MAX);
        assert_eq!(counts(&result), [1, u64::MAX - 1]);
    }

    #[test]
    fn what_cannot_be_paired_stays() {
        let result = fit(&[7, 11, 12], &[7, 13], double);
        assert_eq!(sizes(&result), [7, 11, 12]);
        assert_eq!(counts(&result), [1; 3]);
    }
}
