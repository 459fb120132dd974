//! Offsets for buffers whose lifetimes are known: strip packing of time against address.
//!
//! `pack` takes a predicate that frees pairs of buffers from each other and is greedy; `pack_lifetimes` knows lifetimes
//! only and goes from a fast heuristic to an exact search. `docs/packing.md` describes both.

mod greedy;
mod search;
mod skyline;
mod strip;
#[cfg(test)]
mod tests;

pub use greedy::pack;
pub(crate) use greedy::pack_within;

use search::{improve, Budget, SEARCHED_MAX};
use skyline::fill;
use std::cmp::Reverse;
use std::time::{Duration, Instant};
use strip::{height, Leaf, Rect, Strip};

/// Offsets and sizes are multiples of this: the grain in which addresses are claimed at run time, so that two buffers
/// never share a grain.
pub const PACK_ALIGN_BYTES: u64 = 512;

/// `bytes` rounded up to `PACK_ALIGN_BYTES`.
#[must_use]
pub const fn pack_ceil(bytes: u64) -> u64 {
    bytes.div_ceil(PACK_ALIGN_BYTES) * PACK_ALIGN_BYTES
}

/// Something that needs an address while it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item {
    /// Length.
    pub size_bytes: u64,
    /// First op index at which it may be alive.
    pub first_op: u32,
    /// Last op index at which it may be alive; not below `first_op`.
    pub last_op: u32,
}

/// Where items go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packing {
    /// One offset per item, a multiple of the alignment asked for (`PACK_ALIGN_BYTES` from `pack`).
    pub offsets: Vec<u64>,
    /// Largest end of an item, rounded up to the alignment.
    pub height_bytes: u64,
}

/// How much work a packing is worth. A higher effort never gives a higher packing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// Fill valleys of the skyline: about n log n, under half a second for 100,000 items.
    Fast,
    /// Then search, up to a fixed amount of work: at most about a second.
    Good,
    /// Then search until the height is proved to be the least, or the time is over. Only where the time is over does
    /// the result depend on the machine's speed.
    Exact {
        /// Wall-clock time for the search that follows `Good`'s.
        time_limit: Duration,
    },
}

/// Elements that `Effort::Good` looks at, at most: about half a second.
const GOOD_WORK: u64 = 400_000_000;

/// Offsets, multiples of `align_bytes` (not 0), such that no two items whose op ranges meet overlap.
///
/// The height is at least `load_bytes`, and equal to it where the search finds such a packing, which is the rule for
/// training steps. Sizes must add up to less than 2^62. Same input, effort and seed give the same result, unless an `Exact` search runs out of time.
#[must_use]
pub fn pack_lifetimes(items: &[Item], align_bytes: u64, effort: Effort, seed: u64) -> Packing {
    let align = align_bytes.max(1);
    let sizes: Vec<u64> = items.iter().map(|item| item.size_bytes.div_ceil(align) * align).collect();
    let Strip { mut offsets, leaves, settled } = Strip::of(items, &sizes);
    let mut fills: Vec<Filled> = leaves.into_iter().map(Filled::fast).collect();
    let target = fills.iter().map(|fill| fill.leaf.base + fill.leaf.load).max().unwrap_or(0).max(settled);
    if effort != Effort::Fast {
        refine(&mut fills, target, &mut Allowance::Work(GOOD_WORK), seed);
    }
    if let Effort::Exact { time_limit } = effort {
        // Another seed, so that the walks that have failed are not repeated.
        refine(&mut fills, target, &mut Allowance::Until(Instant::now().checked_add(time_limit)), !seed);
    }
    for fill in &fills {
        for (&id, &offset) in fill.leaf.ids.iter().zip(&fill.offsets) {
            offsets[id] = fill.leaf.base + offset;
        }
    }
    let height_bytes = fills.iter().map(Filled::top).max().unwrap_or(0).max(settled);
    Packing { offsets, height_bytes }
}

/// Largest sum of sizes, each rounded up to `align_bytes` (not 0), of items alive at one op: no packing is lower.
#[must_use]
pub fn load_bytes(items: &[Item], align_bytes: u64) -> u64 {
    let align = align_bytes.max(1);
    let sizes: Vec<u64> = items.iter().map(|item| item.size_bytes.div_ceil(align) * align).collect();
    let strip = Strip::of(items, &sizes);
    strip.leaves.iter().map(|leaf| leaf.base + leaf.load).max().unwrap_or(0).max(strip.settled)
}

/// A leaf with its best packing so far.
struct Filled {
    leaf: Leaf,
    offsets: Vec<u64>,
    height: u64,
}

impl Filled {
    /// The lowest of a few skylines, which differ in what counts as heavy.
    fn fast(leaf: Leaf) -> Filled {
        let length = |rect: &Rect| (rect.end - rect.begin) as u64;
        let weights: [&dyn Fn(&Rect) -> u64; 3] =
            [&|rect| length(rect), &|rect| length(rect).saturating_mul(rect.size), &|rect| rect.size];
        let mut best: Option<(u64, Vec<u64>)> = None;
        for weigh in weights {
            let weights: Vec<u64> = leaf.rects.iter().map(weigh).collect();
            let offsets = fill(&leaf.rects, leaf.sections, &weights);
            let height = height(&leaf.rects, &offsets);
            if best.as_ref().is_none_or(|(least, _)| height < *least) {
                best = Some((height, offsets));
            }
            if best.as_ref().is_some_and(|(least, _)| *least == leaf.load) {
                break;
            }
        }
        let (height, offsets) = best.unwrap_or_default();
        Filled { leaf, offsets, height }
    }

    fn top(&self) -> u64 {
        self.leaf.base + self.height
    }
}

/// What is left for the searches of all leaves.
enum Allowance {
    Work(u64),
    /// Nothing for a limit beyond what clocks count.
    Until(Option<Instant>),
}

impl Allowance {
    /// An even share for the next of `leaves` leaves.
    fn share(&self, leaves: u32) -> Budget {
        match *self {
            Allowance::Work(left) => Budget { work: left / u64::from(leaves), deadline: None },
            Allowance::Until(end) => {
                let now = Instant::now();
                let share = |end: Instant| now + end.saturating_duration_since(now) / leaves;
                Budget { work: u64::MAX, deadline: end.map(share) }
            }
        }
    }
}

/// Lowers what reaches above `target`, the highest first.
fn refine(fills: &mut [Filled], target: u64, allowance: &mut Allowance, seed: u64) {
    let mut target = target;
    let mut order: Vec<usize> = (0..fills.len()).filter(|&k| fills[k].top() > target).collect();
    order.sort_by_key(|&k| (Reverse(fills[k].top()), k));
    for (done, &k) in order.iter().enumerate() {
        let fill = &mut fills[k];
        if fill.top() <= target || fill.leaf.rects.len() > SEARCHED_MAX {
            // What cannot be lowered sets the height; there is no use in making others lower than that.
            target = target.max(fill.top());
            continue;
        }
        let budget = allowance.share(u32::try_from(order.len() - done).unwrap_or(u32::MAX));
        let goal = target - fill.leaf.base;
        let found = improve(&fill.leaf, std::mem::take(&mut fill.offsets), goal, budget, seed);
        (fill.offsets, fill.height) = (found.offsets, found.height);
        target = target.max(fill.top());
        if let Allowance::Work(left) = allowance {
            *left = left.saturating_sub(found.work);
        }
    }
}
