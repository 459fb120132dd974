//! The short-lived pool: one strip from offset 0 in which the buffers of all layers lie over each other.

use crate::pack::{load_bytes, pack, pack_ceil, pack_lifetimes, pack_within, Effort, Item, Packing, PACK_ALIGN_BYTES};
use profile::{BufferFacts, OpFacts, Profile};
use std::cmp::Ordering;
use trace::page_ceil;

/// With several inter-op threads, an op this many places earlier in the profiled order counts as done, though no edge
/// says so. This is a heuristic: it keeps the pool small, and when a step runs in another order, the claim on the address
/// fails and the buffer goes to the heap.
const APART_OPS: u32 = 48;

/// Up to this many buffers are packed greedily too, where lifetimes as intervals say too much or room is short; that compares
/// most pairs of buffers of the same time.
const GREEDY_MAX: usize = 8192;

/// A fast packing draws no lots.
const SEED: u64 = 0;

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
        let uses = uses(profile, members);
        let items: Vec<Item> = uses.iter().map(Use::item).collect();
        let whole = pack_whole(&uses, &items);
        let placed: Vec<Option<u64>> = if whole.height_bytes <= limit_bytes {
            whole.offsets.into_iter().map(Some).collect()
        } else {
            let mut by_density: Vec<usize> = (0..members.len()).collect();
            by_density.sort_by(|&a, &b| densest_first(&profile.buffers[members[a]], &profile.buffers[members[b]]));
            let placed = pack_below(&items, &by_density, limit_bytes);
            settle(&uses, &items, placed, &by_density, limit_bytes)
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

/// Where all buffers go.
///
/// Intervals say too much where an op that is not ordered against a buffer comes after some that are; a predicate knows.
fn pack_whole(uses: &[Use], items: &[Item]) -> Packing {
    let whole = pack_lifetimes(items, PACK_ALIGN_BYTES, Effort::Fast, SEED);
    if uses.len() > GREEDY_MAX || uses.iter().all(|one| one.later_ops == 0) {
        return whole;
    }
    let lifetimes: Vec<Item> = uses.iter().map(|one| Item { last_op: one.death_op, ..one.item() }).collect();
    if whole.height_bytes <= load_bytes(&lifetimes, PACK_ALIGN_BYTES) {
        return whole;
    }
    let greedy = pack(items, |a, b| uses[a].conflicts(&uses[b]));
    if greedy.height_bytes < whole.height_bytes {
        greedy
    } else {
        whole
    }
}

/// Offsets below `limit_bytes` for as many items as fit when they come in this order; `None` for the others.
///
/// An item is let in when no op would have more than `limit_bytes` alive. The packing of those is hardly higher than that,
/// and what is above it is left out.
fn pack_below(items: &[Item], order: &[usize], limit_bytes: u64) -> Vec<Option<u64>> {
    let op_count = items.iter().map(|item| item.last_op as usize + 1).max().unwrap_or(0);
    let mut load = vec![0_u64; op_count];
    let mut admitted = Vec::with_capacity(items.len());
    for &index in order {
        let Item { size_bytes, first_op, last_op } = items[index];
        let load = &mut load[first_op as usize..=last_op as usize];
        let size = pack_ceil(size_bytes);
        if load.iter().copied().max().unwrap_or(0).saturating_add(size) <= limit_bytes {
            load.iter_mut().for_each(|bytes| *bytes += size);
            admitted.push(index);
        }
    }
    let chosen: Vec<Item> = admitted.iter().map(|&index| items[index]).collect();
    let packing = pack_lifetimes(&chosen, PACK_ALIGN_BYTES, Effort::Fast, SEED);
    let mut offsets = vec![None; items.len()];
    for (index, offset) in admitted.into_iter().zip(packing.offsets) {
        let fits = offset.saturating_add(pack_ceil(items[index].size_bytes)) <= limit_bytes;
        offsets[index] = fits.then_some(offset);
    }
    offsets
}

/// Lets placed items sink into the gaps below them, the lowest first; then come the others, in the order of `order`, into
/// gaps that are left.
///
/// No item rises: when its turn comes, those that lay below it lie no higher than they did.
fn settle(
    uses: &[Use],
    items: &[Item],
    placed: Vec<Option<u64>>,
    order: &[usize],
    limit_bytes: u64,
) -> Vec<Option<u64>> {
    if uses.len() > GREEDY_MAX {
        return placed;
    }
    let mut upwards = order.to_vec();
    // The sort is stable: those without a place keep their order.
    upwards.sort_by_key(|&index| placed[index].unwrap_or(u64::MAX));
    pack_within(items, &upwards, limit_bytes, |a, b| uses[a].conflicts(&uses[b]))
}

/// When a buffer is in the way of others.
#[derive(Clone, Copy)]
struct Use {
    size_bytes: u64,
    birth_op: u32,
    death_op: u32,
    /// Bit `k` says that buffers are born at the op `k + 1` places after the death, and that this op may run while an op that
    /// touches the buffer is not done.
    later_ops: u64,
}

impl Use {
    /// The shortest interval that covers everything that is in the buffer's way.
    fn item(&self) -> Item {
        let margin = u64::BITS - self.later_ops.leading_zeros();
        Item { size_bytes: self.size_bytes, first_op: self.birth_op, last_op: self.death_op.saturating_add(margin) }
    }

    /// Whether two buffers may be alive at the same time.
    fn conflicts(&self, other: &Use) -> bool {
        let (earlier, later) = if self.birth_op <= other.birth_op { (self, other) } else { (other, self) };
        match later.birth_op.checked_sub(earlier.death_op) {
            None | Some(0) => true,
            Some(apart) => apart <= u64::BITS && earlier.later_ops >> (apart - 1) & 1 == 1,
        }
    }
}

/// The uses of these buffers.
fn uses(profile: &Profile, members: &[usize]) -> Vec<Use> {
    let order = HappensBefore::new(profile, members);
    let of = |buffer: &BufferFacts| Use {
        size_bytes: buffer.size_bytes,
        birth_op: buffer.birth_op,
        death_op: buffer.death_op,
        later_ops: order.later_ops(buffer),
    };
    members.iter().map(|&index| of(&profile.buffers[index])).collect()
}

/// Which of the ops shortly before an op are known to be done when it begins.
struct HappensBefore {
    /// Per op: bit `k` says that the op `k + 1` places earlier happens before it. `None` when one op runs at a time, so
    /// that the profiled order is the order.
    recent: Option<Vec<u64>>,
    /// Per op, whether buffers are born at it that are to be packed.
    bears: Vec<bool>,
}

impl HappensBefore {
    fn new(profile: &Profile, members: &[usize]) -> HappensBefore {
        let recent = (profile.inter_op_threads > 1).then(|| recent_ancestors(&profile.ops));
        let mut bears = vec![false; profile.ops.len()];
        for &index in members {
            bears[profile.buffers[index].birth_op as usize] = true;
        }
        HappensBefore { recent, bears }
    }

    /// [`Use::later_ops`] of a buffer. An op `APART_OPS` after the last one that touches it is done with it.
    fn later_ops(&self, buffer: &BufferFacts) -> u64 {
        const WINDOW: u64 = (1 << (APART_OPS - 1)) - 1;
        let Some(recent) = &self.recent else { return 0 };
        // Bit `k`: the op `k` places before the death touches the buffer.
        let mut touching = 0_u64;
        for op in std::iter::once(buffer.birth_op).chain(buffer.uses.iter().map(|used| used.op)) {
            let back = buffer.death_op - op;
            touching |= if back < APART_OPS { 1 << back } else { 0 };
        }
        let mut later_ops = 0;
        let after = buffer.death_op as usize + 1;
        for (places, (recent, bears)) in
            recent.iter().zip(&self.bears).skip(after).take(APART_OPS as usize - 1).enumerate()
        {
            let undone = (touching << places) & WINDOW & !recent;
            later_ops |= u64::from(*bears && undone != 0) << places;
        }
        later_ops
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{add, large_step, step, traces};
    use profile::Class;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use trace::PAGE_BYTES;

    /// Whether `op` is done when `when` begins, by a walk over all paths.
    fn is_done(profile: &Profile, op: u32, when: u32) -> bool {
        let reaches =
            |&predecessor: &u32| predecessor >= op && (predecessor == op || is_done(profile, op, predecessor));
        when - op >= APART_OPS || profile.ops[when as usize].predecessors.iter().any(reaches)
    }

    fn may_meet(profile: &Profile, a: &BufferFacts, b: &BufferFacts) -> bool {
        let (earlier, later) = if a.birth_op <= b.birth_op { (a, b) } else { (b, a) };
        let mut touching = earlier.uses.iter().map(|used| used.op).chain([earlier.birth_op]);
        let unordered = |op: u32| op == later.birth_op || !is_done(profile, op, later.birth_op);
        later.birth_op <= earlier.death_op || profile.inter_op_threads > 1 && touching.any(unordered)
    }

    fn pack_short(profile: &Profile, limit_bytes: u64) -> Pool {
        let short = |&index: &usize| profile.buffers[index].class == Class::ShortLived;
        let members: Vec<usize> = (0..profile.buffers.len()).filter(short).collect();
        Pool::pack(profile, &members, limit_bytes)
    }

    fn end_of(pool: &Pool, profile: &Profile, index: usize) -> Option<u64> {
        pool.offsets[index].map(|offset| offset + pack_ceil(profile.buffers[index].size_bytes))
    }

    /// Each layer's extent is the whole pages up to the highest end of a buffer that is born in it.
    fn check_extents(pool: &Pool, profile: &Profile) {
        let mut highest = vec![0; profile.layers.len()];
        for (index, buffer) in profile.buffers.iter().enumerate() {
            let highest = &mut highest[profile.ops[buffer.birth_op as usize].layer as usize];
            *highest = end_of(pool, profile, index).unwrap_or(0).max(*highest);
        }
        assert_eq!(pool.extent_by_layer, highest.into_iter().map(page_ceil).collect::<Vec<_>>());
    }

    proptest! {
        #[test]
        fn buffers_that_may_meet_are_apart_and_below_the_limit(trace in traces(), share in 0.0_f64..1.2) {
            let profile = profile::fold(&trace).unwrap();
            let whole = pack_short(&profile, u64::MAX);
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
            let limit = (whole.whole_bytes as f64 * share) as u64 / PAGE_BYTES * PAGE_BYTES;
            let limited = pack_short(&profile, limit);
            prop_assert!(limited.extent_by_layer.iter().all(|&extent| extent <= limit));
            let is_short = |buffer: &BufferFacts| buffer.class == Class::ShortLived;
            for (index, buffer) in profile.buffers.iter().enumerate() {
                prop_assert_eq!(whole.offsets[index].is_some(), is_short(buffer));
                prop_assert!(limit < whole.whole_bytes || limited.offsets[index].is_some() == is_short(buffer));
            }
            for pool in [&whole, &limited] {
                check_extents(pool, &profile);
                for (a, one) in profile.buffers.iter().enumerate() {
                    for (b, other) in profile.buffers[..a].iter().enumerate() {
                        let (Some(from), Some(to)) = (pool.offsets[a], end_of(pool, &profile, a)) else { continue };
                        let (Some(low), Some(high)) = (pool.offsets[b], end_of(pool, &profile, b)) else { continue };
                        prop_assert!(to <= low || high <= from || !may_meet(&profile, one, other), "{a} and {b}");
                    }
                }
            }
        }
    }

    /// More buffers than are packed greedily, with and without room for all of them.
    #[test]
    fn in_a_large_step_no_two_live_buffers_overlap() {
        let profile = profile::fold(&large_step(5000)).unwrap();
        let whole = pack_short(&profile, u64::MAX);
        let short = whole.offsets.iter().flatten().count();
        assert!(short > GREEDY_MAX, "{short} buffers");
        let half = pack_short(&profile, whole.whole_bytes / 2 / PAGE_BYTES * PAGE_BYTES);
        let kept = half.offsets.iter().flatten().count();
        assert!(short / 2 < kept && kept < short, "{kept} of {short} in half the room");
        for pool in [whole, half] {
            check_extents(&pool, &profile);
            let mut edges: Vec<(u32, bool, usize)> = Vec::new();
            for (index, buffer) in
                profile.buffers.iter().enumerate().filter(|&(index, _)| pool.offsets[index].is_some())
            {
                edges.extend([(buffer.birth_op, true, index), (buffer.death_op + 1, false, index)]);
            }
            edges.sort_unstable();
            let mut living: BTreeMap<u64, u64> = BTreeMap::new();
            for (_, begins, index) in edges {
                let (offset, end) = (pool.offsets[index].unwrap(), end_of(&pool, &profile, index).unwrap());
                if !begins {
                    living.remove(&offset);
                    continue;
                }
                assert!(living.range(..end).next_back().is_none_or(|(_, &below)| below <= offset), "buffer {index}");
                living.insert(offset, end);
            }
        }
    }

    /// Ops 0 to 4; ops 1 and 3 wait for op 0 only, so that op 3 may run beside op 1 while ops 2 and 4 may not.
    #[test]
    fn an_op_that_is_ordered_shares_the_address_though_a_later_one_is_not() {
        let mut profile = step(&[1000; 5]);
        profile.inter_op_threads = 2;
        profile.ops[3].predecessors = vec![0];
        profile.ops[4].predecessors = vec![2, 3];
        let buffers = [1, 2, 3].map(|op| add(&mut profile, Class::ShortLived, 4 * PAGE_BYTES, &[op], op));
        let pool = pack_short(&profile, u64::MAX);
        let [one, two, three] = buffers.map(|index| pool.offsets[index].unwrap());
        // By intervals, the first buffer is in the way of all that is born up to op 3.
        assert!(one == two && three != one, "{one} {two} {three}");
        assert_eq!(pool.whole_bytes, 8 * PAGE_BYTES);
    }

    #[test]
    fn what_is_touched_least_for_its_size_is_left_out() {
        let mut profile = step(&[1000; 2]);
        let rare = add(&mut profile, Class::ShortLived, 3 * PAGE_BYTES, &[0], 0);
        let often = add(&mut profile, Class::ShortLived, 3 * PAGE_BYTES, &[0], 0);
        let apart = add(&mut profile, Class::ShortLived, 4 * PAGE_BYTES, &[1], 1);
        profile.buffers[often].reads = 2;
        let pool = pack_short(&profile, 5 * PAGE_BYTES);
        assert_eq!([rare, often, apart].map(|index| pool.offsets[index]), [None, Some(0), Some(0)]);
        assert_eq!((pool.extent_by_layer, pool.whole_bytes), (vec![3 * PAGE_BYTES, 4 * PAGE_BYTES], 6 * PAGE_BYTES));
    }
}
