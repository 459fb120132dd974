//! The fast heuristic: fill each valley of the skyline with the heaviest rectangle that fits into it.
//!
//! Best-fit filling after Burke, Kendall and Whitwell (Operations Research 52(4), 2004), with fixed abscissae as in Sekiyama
//! et al. (arXiv:1804.10001), over a tree that finds the rectangle without looking at all of them.

use super::strip::Rect;

/// Offsets for `rects`, whose sections are below `sections`; among those that fit into a valley, the one of the largest
/// weight is placed first.
pub(super) fn fill(rects: &[Rect], sections: usize, weights: &[u64]) -> Vec<u64> {
    let mut offsets = vec![0; rects.len()];
    let mut waiting = Waiting::new(rects, sections, weights);
    let mut skyline = Skyline::new(sections);
    let mut left = rects.len();
    // Which valley is filled first makes no difference to how another is filled: neighbours of a valley are higher and
    // wait for it. The nearest is filled first, so that what is looked at is still in the caches.
    let mut at = 0;
    while left > 0 {
        let Some((begin, run)) = skyline.valley_near(at) else { break };
        if let Some(k) = waiting.take(begin, run.end) {
            offsets[k] = run.floor;
            at = skyline.put(begin, rects[k]);
            left -= 1;
        } else if let Some(begin) = skyline.raise(begin) {
            at = begin;
        } else {
            break;
        }
    }
    offsets
}

/// Sections with one floor, from an index that the skyline knows up to `end`.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Run {
    end: usize,
    /// Begin of the run before it.
    before: Option<usize>,
    floor: u64,
}

/// Runs from left to right; neighbours differ in their floors.
struct Skyline {
    /// By first section; `None` where no run begins.
    runs: Vec<Option<Run>>,
}

impl Skyline {
    fn new(sections: usize) -> Skyline {
        let mut runs = vec![None; sections];
        if let Some(first) = runs.first_mut() {
            *first = Some(Run { end: sections, before: None, floor: 0 });
        }
        Skyline { runs }
    }

    fn set(&mut self, begin: usize, run: Run) {
        self.runs[begin] = Some(run);
        if let Some(Some(after)) = self.runs.get_mut(run.end) {
            after.before = Some(begin);
        }
    }

    /// The floors of the runs before and after a run.
    fn walls(&self, run: Run) -> (Option<u64>, Option<u64>) {
        let left = run.before.and_then(|before| self.runs[before]).map(|before| before.floor);
        let right = self.runs.get(run.end).copied().flatten().map(|after| after.floor);
        (left, right)
    }

    /// Downhill from the run that begins at `begin` to one whose neighbours are higher.
    fn valley_near(&self, begin: usize) -> Option<(usize, Run)> {
        let mut begin = begin;
        loop {
            let run = self.runs.get(begin).copied().flatten()?;
            let (left, right) = self.walls(run);
            if left.is_some_and(|left| left < run.floor) {
                begin = run.before?;
            } else if right.is_some_and(|right| right < run.floor) {
                begin = run.end;
            } else {
                return Some((begin, run));
            }
        }
    }

    /// Puts a rectangle on the run that begins at `begin`, which is as wide or wider; the begin of a run that is lower
    /// now than its top, or of its top.
    fn put(&mut self, begin: usize, rect: Rect) -> usize {
        let Some(run) = self.runs[begin] else { return begin };
        let mut before = run.before;
        if begin < rect.begin {
            self.set(begin, Run { end: rect.begin, ..run });
            before = Some(begin);
        }
        if rect.end < run.end {
            self.set(rect.end, Run { before: Some(rect.begin), ..run });
        }
        let top =
            self.set_merged(rect.begin, Run { end: rect.end, before, floor: run.floor.saturating_add(rect.size) });
        if begin < rect.begin {
            begin
        } else {
            top
        }
    }

    /// Lifts a run to the lower of its neighbours; the begin of what it is part of then, `None` when it has none.
    fn raise(&mut self, begin: usize) -> Option<usize> {
        let run = self.runs[begin]?;
        let (left, right) = self.walls(run);
        let floor = [left, right].into_iter().flatten().min()?;
        Some(self.set_merged(begin, Run { floor, ..run }))
    }

    /// Sets a run and joins it with neighbours of the same floor; the begin of the whole.
    fn set_merged(&mut self, begin: usize, run: Run) -> usize {
        let (mut begin, mut run) = (begin, run);
        if let Some(Some(after)) = self.runs.get(run.end).copied() {
            if after.floor == run.floor {
                self.runs[run.end] = None;
                run.end = after.end;
            }
        }
        if let Some(before) = run.before {
            if let Some(left) = self.runs[before].filter(|left| left.floor == run.floor) {
                self.runs[begin] = None;
                begin = before;
                run.before = left.before;
            }
        }
        self.set(begin, run);
        begin
    }
}

/// Rectangles not placed yet: a tree over them in the order of their begins.
struct Waiting {
    /// Indices of rectangles, by begin.
    order: Vec<usize>,
    ends: Vec<usize>,
    weights: Vec<u64>,
    /// By section, how many rectangles begin before it; one more entry for the end.
    before: Vec<usize>,
    /// Leaves of the tree, a power of two.
    width: usize,
    /// Per node from 1 at the root: smallest end and largest weight below it.
    nodes: Vec<(usize, u64)>,
    /// Nodes still to be looked at, with the places that they span.
    open: Vec<(usize, usize, usize)>,
}

/// Nodes looked at for one rectangle, at most, once one that fits is found. A node whose smallest end fits has a
/// rectangle that fits below it, so that the first is found within twice the tree's depth.
const LOOKS_MAX: usize = 128;

/// A node below which nothing waits.
const NOTHING: (usize, u64) = (usize::MAX, 0);

impl Waiting {
    fn new(rects: &[Rect], sections: usize, weights: &[u64]) -> Waiting {
        let mut order: Vec<usize> = (0..rects.len()).collect();
        order.sort_unstable_by_key(|&k| (rects[k].begin, rects[k].end, k));
        let mut before = vec![0; sections + 1];
        for rect in rects {
            before[rect.begin + 1] += 1;
        }
        for section in 0..sections {
            before[section + 1] += before[section];
        }
        let width = order.len().next_power_of_two();
        let mut nodes = vec![NOTHING; 2 * width];
        for (at, &k) in order.iter().enumerate() {
            nodes[width + at] = (rects[k].end, weights[k]);
        }
        for node in (1..width).rev() {
            nodes[node] = join(nodes[2 * node], nodes[2 * node + 1]);
        }
        let ends = order.iter().map(|&k| rects[k].end).collect();
        let weights = order.iter().map(|&k| weights[k]).collect();
        Waiting { order, ends, weights, before, width, nodes, open: Vec::new() }
    }

    /// Takes out the heaviest rectangle within sections `begin..end`, or when that is hard to tell, a heavy one.
    fn take(&mut self, begin: usize, end: usize) -> Option<usize> {
        let (from, to) = (self.before[begin], self.before[end]);
        let mut best: Option<usize> = None;
        let mut looks = 0;
        self.open.clear();
        self.open.push((1, 0, self.width));
        while let Some((node, low, high)) = self.open.pop() {
            looks += 1;
            if looks > LOOKS_MAX && best.is_some() {
                break;
            }
            let (first_end, heaviest) = self.nodes[node];
            let beaten = best.is_some_and(|best| heaviest <= self.weights[best]);
            if high <= from || to <= low || first_end > end || beaten {
                continue;
            }
            if node >= self.width {
                best = Some(low);
                continue;
            }
            let middle = low.midpoint(high);
            let children = [(2 * node, low, middle), (2 * node + 1, middle, high)];
            // The heavier child is looked at first, so that the other is often beaten.
            let right_first = self.nodes[2 * node + 1].1 > self.nodes[2 * node].1;
            self.open.extend(if right_first { children } else { [children[1], children[0]] });
        }
        let at = best?;
        debug_assert!(self.ends[at] <= end, "the tree's ends are the rectangles'");
        let mut node = self.width + at;
        self.nodes[node] = NOTHING;
        while node > 1 {
            node /= 2;
            self.nodes[node] = join(self.nodes[2 * node], self.nodes[2 * node + 1]);
        }
        Some(self.order[at])
    }
}

fn join(a: (usize, u64), b: (usize, u64)) -> (usize, u64) {
    (a.0.min(b.0), a.1.max(b.1))
}
