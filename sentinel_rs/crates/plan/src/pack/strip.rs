//! The normal form of a packing problem: lifetimes become runs of sections, and what can be settled at once is.

use super::Item;

/// A buffer: sections `begin..end` wide, `size` bytes high.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rect {
    pub(super) begin: usize,
    pub(super) end: usize,
    pub(super) size: u64,
}

/// A problem of its own: its items meet no item of another leaf, apart from those that lie under all of it.
pub(super) struct Leaf {
    /// Bytes that lie under it.
    pub(super) base: u64,
    /// The items' indices in the whole problem.
    pub(super) ids: Vec<usize>,
    /// One per item.
    pub(super) rects: Vec<Rect>,
    /// By item: the number of ops it lives for.
    pub(super) ops: Vec<u64>,
    /// Number of sections; each is in some rectangle.
    pub(super) sections: usize,
    /// Largest sum of sizes in a section.
    pub(super) load: u64,
}

/// The leaves of a problem, and offsets for the items that are settled already.
pub(super) struct Strip {
    pub(super) offsets: Vec<u64>,
    pub(super) leaves: Vec<Leaf>,
    /// Bytes that the settled items reach up to.
    pub(super) settled: u64,
}

/// How often items that outlive all others are taken out. Each time costs a sort; a training step needs two or three.
const PEELS_MAX: usize = 6;

impl Strip {
    /// Splits `items`, whose heights are `sizes`.
    ///
    /// An item that lives through a whole independent stretch of time may lie at its bottom in some best packing: shift
    /// what lies below it up by its size. So the best height of the stretch is that size plus the best height of the rest,
    /// which may fall apart again.
    pub(super) fn of(items: &[Item], sizes: &[u64]) -> Strip {
        let mut strip = Strip { offsets: vec![0; items.len()], leaves: Vec::new(), settled: 0 };
        let all: Vec<usize> = (0..items.len()).filter(|&id| sizes[id] > 0).collect();
        let mut open = vec![(all, 0_u64, 0_usize)];
        while let Some((ids, base, depth)) = open.pop() {
            let (rects, sections) = rects_of(&ids, items, sizes);
            for (from, to, members) in stretches(&rects, sections) {
                let spans = |k: &usize| rects[*k].begin == from && rects[*k].end == to;
                if depth == PEELS_MAX || !members.iter().any(spans) {
                    strip.leaves.push(leaf(&ids, items, &rects, base, (from, to), &members));
                    continue;
                }
                let mut top = base;
                for &k in members.iter().filter(|k| spans(k)) {
                    strip.offsets[ids[k]] = top;
                    top = top.saturating_add(rects[k].size);
                }
                strip.settled = strip.settled.max(top);
                let rest: Vec<usize> = members.iter().filter(|k| !spans(k)).map(|&k| ids[k]).collect();
                if !rest.is_empty() {
                    open.push((rest, top, depth + 1));
                }
            }
        }
        strip
    }
}

fn leaf(
    ids: &[usize],
    items: &[Item],
    rects: &[Rect],
    base: u64,
    (from, to): (usize, usize),
    members: &[usize],
) -> Leaf {
    let rects: Vec<Rect> = members
        .iter()
        .map(|&k| Rect { begin: rects[k].begin - from, end: rects[k].end - from, size: rects[k].size })
        .collect();
    let load = loads(&rects, to - from).into_iter().max().unwrap_or(0);
    let ids: Vec<usize> = members.iter().map(|&k| ids[k]).collect();
    let ops = ids.iter().map(|&id| u64::from(items[id].last_op.saturating_sub(items[id].first_op)) + 1).collect();
    Leaf { base, ids, rects, ops, sections: to - from, load }
}

/// Rectangles over as few sections as tell which items meet: one for each largest set of items that are alive together.
fn rects_of(ids: &[usize], items: &[Item], sizes: &[u64]) -> (Vec<Rect>, usize) {
    let mut edges: Vec<(u64, bool, usize)> = Vec::with_capacity(ids.len() * 2);
    for (k, &id) in ids.iter().enumerate() {
        edges.push((u64::from(items[id].first_op), true, k));
        edges.push((u64::from(items[id].last_op.max(items[id].first_op)) + 1, false, k));
    }
    // Ends sort before begins at the same op, since `false < true`.
    edges.sort_unstable();
    let mut rects: Vec<Rect> = ids.iter().map(|&id| Rect { begin: 0, end: 0, size: sizes[id] }).collect();
    let mut section = 0;
    let mut ended = false;
    for (_, begins, k) in edges {
        if begins {
            section += usize::from(ended);
            ended = false;
            rects[k].begin = section;
        } else {
            ended = true;
            rects[k].end = section + 1;
        }
    }
    (rects, if ids.is_empty() { 0 } else { section + 1 })
}

/// Runs of sections that no rectangle crosses the borders of, each with the rectangles in it.
fn stretches(rects: &[Rect], sections: usize) -> Vec<(usize, usize, Vec<usize>)> {
    let mut reach: Vec<usize> = (0..sections).map(|section| section + 1).collect();
    for rect in rects {
        reach[rect.begin] = reach[rect.begin].max(rect.end);
    }
    let mut runs: Vec<(usize, usize, Vec<usize>)> = Vec::new();
    let mut run_of = vec![0; sections];
    let (mut from, mut to) = (0, 0);
    for section in 0..sections {
        to = to.max(reach[section]);
        run_of[section] = runs.len();
        if to == section + 1 {
            runs.push((from, to, Vec::new()));
            from = to;
        }
    }
    for (k, rect) in rects.iter().enumerate() {
        runs[run_of[rect.begin]].2.push(k);
    }
    runs
}

/// Sum of sizes by section.
pub(super) fn loads(rects: &[Rect], sections: usize) -> Vec<u64> {
    let mut begins = vec![0_u64; sections + 1];
    let mut ends = vec![0_u64; sections + 1];
    for rect in rects {
        begins[rect.begin] = begins[rect.begin].saturating_add(rect.size);
        ends[rect.end] = ends[rect.end].saturating_add(rect.size);
    }
    let mut load = 0_u64;
    (0..sections)
        .map(|section| {
            load = load.saturating_sub(ends[section]).saturating_add(begins[section]);
            load
        })
        .collect()
}

/// Largest end of a rectangle.
pub(super) fn height(rects: &[Rect], offsets: &[u64]) -> u64 {
    rects.iter().zip(offsets).map(|(rect, offset)| offset.saturating_add(rect.size)).max().unwrap_or(0)
}
