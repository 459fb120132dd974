//! The short-lived pool: one strip from offset 0 in which the buffers of all layers lie over each other.

use crate::pack::{pack, pack_ceil, pack_within, Item};
use profile::{BufferFacts, OpFacts, Profile};
use std::cmp::Ordering;
use trace::page_ceil;

/// With several inter-op threads, an op this many places earlier in the profiled order counts as done, though no edge
/// says so. This is a heuristic: it keeps the pool small, and when a step runs in another order, the claim on the address
/// fails and the buffer goes to the heap.
const APART_OPS: u32 = 48;

/// Where short-lived buffers lie.
pub(crate) struct Pool {
    /// By buffer index; `None` for buffers of other classes and for those that have no room.
    pub(crate) offsets: Vec<Option<u64>>,
    /// By layer, whole pages from offset 0 in which the layer's buffers lie.
    pub(crate) extent_by_layer: Vec<u64>,
    /// Extent of the pool if it had all the room it wants.
    pub(crate) whole_bytes: u64,
}

impl Pool {
    /// Packs the buffers `members`, or as many as `limit_bytes` hold.
    ///
    /// When there is too little room, buffers come in the order of their accesses per byte, so that what is left to slow
    /// memory is what is touched least for its size; the larger of equals comes last.
    pub(crate) fn pack(profile: &Profile, members: &[usize], limit_bytes: u64) -> Pool {
        let order = HappensBefore::new(profile);
        let items: Vec<Item> = members.iter().map(|&index| order.item(&profile.buffers[index])).collect();
        let conflicts = |a: usize, b: usize| order.conflict(&profile.buffers[members[a]], &profile.buffers[members[b]]);
        let whole = pack(&items, conflicts);
        let placed: Vec<Option<u64>> = if whole.height_bytes <= limit_bytes {
            whole.offsets.iter().copied().map(Some).collect()
        } else {
            let mut by_density: Vec<usize> = (0..members.len()).collect();
            by_density.sort_by(|&a, &b| densest_first(&profile.buffers[members[a]], &profile.buffers[members[b]]));
            pack_within(&items, &by_density, limit_bytes, conflicts)
        };
        let mut offsets = vec![None; profile.buffers.len()];
        let mut extent_by_layer = vec![0; profile.layers.len()];
        for (&index, offset) in members.iter().zip(placed) {
            let Some(offset) = offset else { continue };
            let buffer = &profile.buffers[index];
            let layer_of = |op: u32| profile.ops[op as usize].layer as usize;
            let end = page_ceil(offset + pack_ceil(buffer.size_bytes));
            for extent in &mut extent_by_layer[layer_of(buffer.birth_op)..=layer_of(buffer.death_op)] {
                *extent = end.max(*extent);
            }
            offsets[index] = Some(offset);
        }
        Pool { offsets, extent_by_layer, whole_bytes: whole.height_bytes }
    }
}

fn densest_first(a: &BufferFacts, b: &BufferFacts) -> Ordering {
    let weigh = |one: &BufferFacts, other: &BufferFacts| u128::from(one.access_count()) * u128::from(other.size_bytes);
    weigh(b, a).cmp(&weigh(a, b)).then(a.size_bytes.cmp(&b.size_bytes)).then(a.birth_op.cmp(&b.birth_op))
}

/// Which of the ops shortly before an op are known to be done when it begins.
struct HappensBefore {
    /// Per op: bit `k` says that the op `k + 1` places earlier happens before it. `None` when one op runs at a time, so
    /// that the profiled order is the order.
    recent: Option<Vec<u64>>,
}

impl HappensBefore {
    fn new(profile: &Profile) -> HappensBefore {
        let recent = (profile.inter_op_threads > 1).then(|| recent_ancestors(&profile.ops));
        HappensBefore { recent }
    }

    /// A buffer's lifetime, drawn out by the ops that may still run at the same time.
    fn item(&self, buffer: &BufferFacts) -> Item {
        let margin = if self.recent.is_some() { APART_OPS - 1 } else { 0 };
        Item {
            size_bytes: buffer.size_bytes,
            first_op: buffer.birth_op,
            last_op: buffer.death_op.saturating_add(margin),
        }
    }

    /// Whether two buffers may be alive at the same time: they were in the profiled step, or some op that touches the
    /// earlier one is not known to be done when the later one is born.
    fn conflict(&self, a: &BufferFacts, b: &BufferFacts) -> bool {
        let (earlier, later) = if a.birth_op <= b.birth_op { (a, b) } else { (b, a) };
        if later.birth_op <= earlier.death_op {
            return true;
        }
        let mut touching = earlier.uses.iter().rev().map(|used| used.op).chain(std::iter::once(earlier.birth_op));
        touching.any(|op| !self.is_done(op, later.birth_op))
    }

    fn is_done(&self, op: u32, when: u32) -> bool {
        let Some(recent) = &self.recent else { return true };
        let apart = when - op;
        apart >= APART_OPS || (apart > 0 && recent[when as usize] >> (apart - 1) & 1 == 1)
    }
}

/// A path between two ops visits only ops between them, so 64 places of history are enough for a window of `APART_OPS`.
fn recent_ancestors(ops: &[OpFacts]) -> Vec<u64> {
    let mut recent: Vec<u64> = Vec::with_capacity(ops.len());
    for (index, op) in ops.iter().enumerate() {
        let mut bits = 0;
        for &predecessor in &op.predecessors {
            let apart = index - predecessor as usize;
            if apart <= 64 {
                bits |= 1 << (apart - 1);
            }
            if apart < 64 {
                bits |= recent[predecessor as usize] << apart;
            }
        }
        recent.push(bits);
    }
    recent
}
