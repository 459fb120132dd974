//! Search for the lowest packing: depth first over which rectangle is lowest where, with a cap on the height.
//!
//! The cap starts at the largest load. A walk that finds no packing and was not cut short proves a higher lower bound;
//! one that was cut short is started again with other preferences, and between walks at the lower bound, walks at caps
//! below the best height lower that. `docs/packing.md` has the argument why no packing is missed.

mod part;
mod tree;

use super::strip::{height, Leaf, Rect};
use part::mix;
use std::time::Instant;
use tree::{Outcome, Tree};

/// What a search may cost.
#[derive(Clone, Copy)]
pub(super) struct Budget {
    /// Elements looked at; about 500 million a second.
    pub(super) work: u64,
    /// When to stop at the latest.
    pub(super) deadline: Option<Instant>,
}

/// What a search found.
pub(super) struct Found {
    /// The best offsets.
    pub(super) offsets: Vec<u64>,
    /// Their height.
    pub(super) height: u64,
    /// Work done.
    pub(super) work: u64,
}

/// Walks at the largest load before caps above it are tried as well: one for each preference.
const FIRST_WALKS: u64 = 6;

/// Work of the shortest walk.
const WALK_WORK_MIN: u64 = 500_000;

/// Elements looked at per rectangle, for each rectangle and section, by a walk that never has to go back.
const DIVE_WORK: u64 = 12;

/// Rectangles of the largest problem that is searched: frames hold what waits, so memory grows with the square.
pub(super) const SEARCHED_MAX: usize = 4096;

/// Improves `offsets` of `leaf` until the height is `goal` or the least possible, or the budget is used up.
pub(super) fn improve(leaf: &Leaf, offsets: Vec<u64>, goal: u64, budget: Budget, seed: u64) -> Found {
    let size = (leaf.rects.len() + leaf.sections) as u64;
    let shortest = WALK_WORK_MIN + DIVE_WORK * leaf.rects.len() as u64 * size;
    let mut tree = Tree::new(&leaf.rects, leaf.sections);
    let mut found = Found { height: height(&leaf.rects, &offsets), offsets, work: 0 };
    let mut low = leaf.load;
    // Caps up to here have resisted for as long as the present effort lasts.
    let mut resisted = low;
    for walk in 0.. {
        let left = budget.work.saturating_sub(tree.work);
        let goal = goal.max(low);
        let late = budget.deadline.is_some_and(|deadline| Instant::now() >= deadline);
        if found.height <= goal || left == 0 || late {
            break;
        }
        let between = walk >= FIRST_WALKS && walk % 2 == 1;
        if between && found.height.saturating_sub(resisted) <= found.height / 2000 {
            resisted = goal;
        }
        tree.cap = if between { resisted.max(goal).midpoint(found.height - 1) } else { goal };
        tree.ranks = ranks(leaf, walk, seed);
        match tree.walk((shortest * luby(walk + 1)).min(left), budget.deadline) {
            Outcome::Packed => {
                found.height = height(&leaf.rects, &tree.offsets);
                found.offsets.clone_from(&tree.offsets);
            }
            Outcome::Needs(needs) => {
                low = low.max(needs);
                resisted = resisted.max(low);
            }
            Outcome::Stopped if between => resisted = resisted.max(tree.cap),
            Outcome::Stopped => {}
        }
    }
    found.work = tree.work;
    found
}

/// Who comes first in a walk: by area, length, size or load, from the fifth walk on with noise.
fn ranks(leaf: &Leaf, walk: u64, seed: u64) -> Vec<f64> {
    let loads = super::strip::loads(&leaf.rects, leaf.sections);
    let noise = if walk < FIRST_WALKS { 0.0 } else { 0.5 };
    let rank = |(rect, &ops): (&Rect, &u64)| {
        let length = (rect.end - rect.begin) as f64;
        let size = rect.size as f64;
        let crowd = loads[rect.begin..rect.end].iter().copied().max().unwrap_or(0) as f64;
        let plain = match walk % FIRST_WALKS {
            0 => length * size,
            1 => ops as f64 * size,
            2 => size,
            3 => length,
            4 => ops as f64,
            _ => crowd + length * size / (leaf.sections as f64 * leaf.load as f64),
        };
        // Equal rectangles have equal noise, so that one of them is tried only.
        let drawn = mix(mix(seed, walk), mix(rect.begin as u64, mix(rect.end as u64, rect.size)));
        let centred = (drawn >> 11) as f64 / (1_u64 << 52) as f64 - 1.0;
        plain * (1.0 + noise * centred)
    };
    leaf.rects.iter().zip(&leaf.ops).map(rank).collect()
}

/// The `i`-th of 1, 1, 2, 1, 1, 2, 4, ... from 1: lengths of walks that lose little against the best fixed length
/// (Luby, Sinclair and Zuckerman, Information Processing Letters 47, 1993).
fn luby(i: u64) -> u64 {
    let mut i = i;
    loop {
        let bits = u64::from(u64::BITS - i.leading_zeros());
        if i == (1 << bits) - 1 {
            return 1 << (bits - 1);
        }
        i -= (1 << (bits - 1)) - 1;
    }
}
