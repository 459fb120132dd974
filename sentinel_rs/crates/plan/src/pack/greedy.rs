//! Greedy placement in several orders, where a predicate says which items are in each other's way.

use super::{pack_ceil, Item, Packing};
use std::cmp::Reverse;

/// Which gap between placed items an item takes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fit {
    /// The lowest that is large enough.
    Lowest,
    /// The smallest that is large enough; the lowest of equals.
    Tightest,
}

/// Offsets such that no two items that conflict overlap.
///
/// Items whose op ranges are disjoint never conflict; for the others `conflicts` decides, given two indices in either
/// order, and must be symmetric. The result is the lowest of five greedy placements: by size, by size times lifetime
/// (into the lowest and into the tightest gap), by birth, and by lifetime. It stops at the first whose height is the
/// largest sum of sizes whose ranges share an op, and when many items live long, after fewer. Same input, same result.
#[must_use]
pub fn pack(items: &[Item], conflicts: impl Fn(usize, usize) -> bool) -> Packing {
    let bound = crowded_bytes(items);
    let mut best: Option<Packing> = None;
    let mut looked = 0;
    for (order, fit) in orders(items) {
        let offsets = place_in_order(items, &order, fit, u64::MAX, &conflicts, &mut looked);
        let offsets: Vec<u64> = offsets.into_iter().map(Option::unwrap_or_default).collect();
        let height_bytes = height(items, &offsets);
        if best.as_ref().is_none_or(|best| height_bytes < best.height_bytes) {
            best = Some(Packing { offsets, height_bytes });
        }
        if looked > COMPARISONS_MAX || best.as_ref().is_some_and(|best| best.height_bytes <= bound) {
            break;
        }
    }
    best.unwrap_or(Packing { offsets: Vec::new(), height_bytes: 0 })
}

/// Offsets below `limit_bytes` for as many items as fit when they come in the order of `order`, each into the lowest gap;
/// `None` for an item that finds no gap.
pub(crate) fn pack_within(
    items: &[Item],
    order: &[usize],
    limit_bytes: u64,
    conflicts: impl Fn(usize, usize) -> bool,
) -> Vec<Option<u64>> {
    place_in_order(items, order, Fit::Lowest, limit_bytes, &conflicts, &mut 0)
}

fn orders(items: &[Item]) -> Vec<(Vec<usize>, Fit)> {
    let lifetime = |item: &Item| u64::from(item.last_op.saturating_sub(item.first_op)) + 1;
    let area = |item: &Item| u128::from(item.size_bytes) * u128::from(lifetime(item));
    let mut by_size: Vec<usize> = (0..items.len()).collect();
    let mut by_area = by_size.clone();
    let mut by_birth = by_size.clone();
    let mut by_lifetime = by_size.clone();
    by_size.sort_by_key(|&i| (Reverse(items[i].size_bytes), items[i].first_op, i));
    by_area.sort_by_key(|&i| (Reverse(area(&items[i])), items[i].first_op, i));
    by_birth.sort_by_key(|&i| (items[i].first_op, Reverse(items[i].size_bytes), i));
    by_lifetime.sort_by_key(|&i| (Reverse(lifetime(&items[i])), Reverse(items[i].size_bytes), i));
    vec![
        (by_area.clone(), Fit::Lowest),
        (by_size, Fit::Lowest),
        (by_area, Fit::Tightest),
        (by_birth, Fit::Tightest),
        (by_lifetime, Fit::Lowest),
    ]
}

/// A placed item, laid out for a scan in offset order.
#[derive(Clone, Copy)]
struct Placed {
    offset: u64,
    index: usize,
    end: u64,
    first_op: u32,
    last_op: u32,
}

/// Most shelves that are worth their memory.
const SHELVES_MAX: u32 = 4096;

/// With fewer shelves, one that needs no merging is faster.
const SHELVES_MIN: u32 = 16;

/// Comparisons of items after which no further order is tried: about a second, while what the later orders gain is a few
/// percent of the height.
const COMPARISONS_MAX: u64 = 100_000_000;

/// Placed items by the stretch of time in which they live, so that an item is compared with its contemporaries only.
struct Shelves {
    /// Ops per shelf: twice the mean lifetime, so that most items lie on one or two; more when that made too many.
    ops: u32,
    /// Each in offset order; an item lies on every shelf that it outlives or lives in.
    shelves: Vec<Vec<Placed>>,
}

impl Shelves {
    fn new(items: &[Item]) -> Shelves {
        let lifetimes: u64 = items.iter().map(|item| u64::from(item.last_op.saturating_sub(item.first_op)) + 1).sum();
        let mean = lifetimes / (items.len() as u64).max(1);
        let last_op = items.iter().map(|item| item.last_op).max().unwrap_or(0);
        let wide = u32::try_from(mean.saturating_mul(2)).unwrap_or(u32::MAX).max(last_op / SHELVES_MAX + 1);
        let ops = if last_op / wide < SHELVES_MIN { last_op.saturating_add(1) } else { wide };
        Shelves { ops, shelves: vec![Vec::new(); (last_op / ops) as usize + 1] }
    }

    fn of(&self, item: Item) -> std::ops::RangeInclusive<usize> {
        (item.first_op / self.ops) as usize..=(item.last_op / self.ops) as usize
    }

    /// The begin of the gap that an item of `size` bytes takes; counts the items that were looked at.
    fn find_gap(&self, item: Item, size: u64, fit: Fit, conflicts: impl Fn(usize) -> bool, looked: &mut u64) -> u64 {
        let meets = |other: &&Placed| other.first_op <= item.last_op && item.first_op <= other.last_op;
        let range = self.of(item);
        if range.start() == range.end() {
            let shelf = &self.shelves[*range.start()];
            return gap_among(shelf.iter().inspect(|_| *looked += 1).filter(meets), size, fit, conflicts);
        }
        let mut found: Vec<&Placed> = Vec::new();
        for shelf in &self.shelves[range] {
            *looked += shelf.len() as u64;
            found.extend(shelf.iter().filter(meets));
        }
        found.sort_unstable_by_key(|other| (other.offset, other.index));
        found.dedup_by_key(|other| other.index);
        gap_among(found.into_iter(), size, fit, conflicts)
    }

    fn put(&mut self, item: Item, placed: Placed) {
        for shelf in self.of(item) {
            let shelf = &mut self.shelves[shelf];
            let at = shelf.partition_point(|other| (other.offset, other.index) < (placed.offset, placed.index));
            shelf.insert(at, placed);
        }
    }
}

fn place_in_order(
    items: &[Item],
    order: &[usize],
    fit: Fit,
    limit_bytes: u64,
    conflicts: &impl Fn(usize, usize) -> bool,
    looked: &mut u64,
) -> Vec<Option<u64>> {
    let mut offsets = vec![None; items.len()];
    let mut shelves = Shelves::new(items);
    for &index in order {
        let item = items[index];
        let size = pack_ceil(item.size_bytes);
        let offset = shelves.find_gap(item, size, fit, |other| conflicts(index, other), looked);
        let end = offset.saturating_add(size);
        if end <= limit_bytes {
            offsets[index] = Some(offset);
            shelves.put(item, Placed { offset, index, end, first_op: item.first_op, last_op: item.last_op });
        }
    }
    offsets
}

/// The begin of the gap that `size` bytes take among placed items, which come in offset order.
fn gap_among<'a>(
    placed: impl Iterator<Item = &'a Placed>,
    size: u64,
    fit: Fit,
    conflicts: impl Fn(usize) -> bool,
) -> u64 {
    let mut free_from = 0_u64;
    let mut tightest: Option<(u64, u64)> = None;
    for other in placed {
        if other.end <= free_from || !conflicts(other.index) {
            continue;
        }
        let gap = other.offset.saturating_sub(free_from);
        if gap >= size && tightest.is_none_or(|(smallest, _)| gap < smallest) {
            if fit == Fit::Lowest {
                return free_from;
            }
            tightest = Some((gap, free_from));
        }
        free_from = other.end;
    }
    tightest.map_or(free_from, |(_, offset)| offset)
}

fn height(items: &[Item], offsets: &[u64]) -> u64 {
    items.iter().zip(offsets).map(|(item, offset)| offset.saturating_add(pack_ceil(item.size_bytes))).max().unwrap_or(0)
}

/// Largest sum of rounded sizes of items whose ranges share an op.
fn crowded_bytes(items: &[Item]) -> u64 {
    let mut edges: Vec<(u64, bool, u64)> = Vec::with_capacity(items.len() * 2);
    for item in items {
        let size = pack_ceil(item.size_bytes);
        edges.push((u64::from(item.first_op), true, size));
        edges.push((u64::from(item.last_op) + 1, false, size));
    }
    // Ends sort before begins at the same op, since `false < true`.
    edges.sort_unstable();
    let mut live = 0_u64;
    let mut crowded = 0;
    for (_, begins, size) in edges {
        live = if begins { live.saturating_add(size) } else { live.saturating_sub(size) };
        crowded = crowded.max(live);
    }
    crowded
}

#[cfg(test)]
mod tests {
    use super::super::PACK_ALIGN_BYTES;
    use super::*;
    use proptest::prelude::*;

    fn item(size_bytes: u64, first_op: u32, last_op: u32) -> Item {
        Item { size_bytes, first_op, last_op }
    }

    #[test]
    fn nothing_takes_no_space() {
        assert_eq!(pack(&[], |_, _| true), Packing { offsets: vec![], height_bytes: 0 });
    }

    #[test]
    fn lives_that_do_not_meet_share_an_address() {
        let packing = pack(&[item(1000, 0, 3), item(600, 4, 9)], |_, _| true);
        assert_eq!(packing, Packing { offsets: vec![0, 0], height_bytes: 1024 });
    }

    #[test]
    fn items_that_meet_are_apart_unless_the_caller_knows_better() {
        let items = [item(512, 0, 4), item(512, 4, 9)];
        assert_eq!(pack(&items, |_, _| true).height_bytes, 1024);
        assert_eq!(pack(&items, |_, _| false).height_bytes, 512);
    }

    /// By birth, B (2 units) would be placed over A and D (3 units) on top, 5 units high; by size, D takes the ground and the
    /// rest fits into 4, which is the largest live sum.
    #[test]
    fn the_lowest_of_several_orders_is_kept() {
        let unit = PACK_ALIGN_BYTES;
        let items = [item(unit, 0, 1), item(2 * unit, 1, 2), item(unit, 2, 3), item(3 * unit, 3, 4)];
        assert_eq!(pack(&items, |_, _| true).height_bytes, 4 * unit);
    }

    #[test]
    fn a_limit_leaves_out_what_comes_too_late() {
        let items = [item(1024, 0, 2), item(512, 1, 1), item(512, 2, 3)];
        let offsets = pack_within(&items, &[1, 0, 2], 1024, |_, _| true);
        assert_eq!(offsets, [None, Some(0), Some(0)]);
    }

    fn items() -> impl Strategy<Value = Vec<Item>> {
        let item = (1_u64..5000, 0_u32..40, 0_u32..10).prop_map(|(size, first, life)| item(size, first, first + life));
        prop::collection::vec(item, 0..60)
    }

    proptest! {
        #[test]
        fn no_two_items_that_conflict_overlap(items in items(), parity in any::<bool>()) {
            // A symmetric predicate that frees some pairs.
            let conflicts = |a: usize, b: usize| !parity || (a + b) % 3 > 0;
            let packing = pack(&items, conflicts);
            for (a, one) in items.iter().enumerate() {
                prop_assert_eq!(packing.offsets[a] % PACK_ALIGN_BYTES, 0);
                prop_assert!(packing.offsets[a] + one.size_bytes <= packing.height_bytes);
                for (b, other) in items[..a].iter().enumerate() {
                    let meet = one.first_op <= other.last_op && other.first_op <= one.last_op && conflicts(a, b);
                    let overlap = packing.offsets[a] < packing.offsets[b] + pack_ceil(other.size_bytes)
                        && packing.offsets[b] < packing.offsets[a] + pack_ceil(one.size_bytes);
                    prop_assert!(!(meet && overlap));
                }
            }
            let total: u64 = items.iter().map(|item| pack_ceil(item.size_bytes)).sum();
            prop_assert!(packing.height_bytes <= total);
            if !parity {
                prop_assert!(packing.height_bytes >= crowded_bytes(&items));
            }
            prop_assert_eq!(&packing, &pack(&items, conflicts));
        }
    }
}
