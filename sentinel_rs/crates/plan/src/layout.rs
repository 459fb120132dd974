//! What the policies of this crate share: how much of the budget is theirs to plan, and the slots of a plan.

use crate::hpca21::pool::Pool;
use crate::hpca21::units::{coallocate, Coallocation, Span};
use crate::{Interval, Place, Plan, PlanError, PoolRule, Slot, Unit};
use profile::{live_bytes, BufferFacts, BufferUse, Class, LayerFacts, Profile};
use std::collections::BTreeMap;
use trace::{page_ceil, Tier, PAGE_BYTES};

/// The part of the budget that allocations without a planned address may take is at most the budget divided by this.
const UNPLANNED_SHARE: u64 = 4;

/// How a budget is divided.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Space {
    /// All of it.
    pub(crate) budget_bytes: u64,
    /// What allocations without a planned address would like to have.
    pub(crate) unplanned_want: u64,
    /// What they get.
    pub(crate) unplanned_bytes: u64,
    /// Whole pages for everything that is planned.
    pub(crate) planned_bytes: u64,
}

impl Space {
    /// Divides `fast_budget_bytes` for a step.
    ///
    /// # Errors
    /// When the profile has no op or the budget is zero.
    pub(crate) fn new(profile: &Profile, fast_budget_bytes: u64) -> Result<Space, PlanError> {
        if profile.ops.is_empty() {
            return Err(PlanError::Empty);
        }
        if fast_budget_bytes == 0 {
            return Err(PlanError::NoBudget);
        }
        let unplanned_want = unplanned_want(profile);
        let unplanned_bytes = unplanned_want.min(fast_budget_bytes / UNPLANNED_SHARE);
        let planned_bytes = (fast_budget_bytes - unplanned_bytes) / PAGE_BYTES * PAGE_BYTES;
        Ok(Space { budget_bytes: fast_budget_bytes, unplanned_want, unplanned_bytes, planned_bytes })
    }
}

/// The published layout: a pool of the short-lived, and units of the long-lived by the layers that use them. Which tier a
/// unit begins in is the policy's to say.
pub(crate) struct Layout {
    /// How the budget is divided.
    pub(crate) space: Space,
    pool_bytes: u64,
    /// Where short-lived buffers lie.
    pub(crate) pool: Pool,
    /// Units of the plan, all born slow.
    pub(crate) units: Vec<Unit>,
    /// When each unit exists and is used.
    pub(crate) spans: Vec<Span>,
    /// By buffer index, the place of each long-lived buffer in its unit.
    pub(crate) places: Vec<Option<Place>>,
}

impl Layout {
    /// Lays out a step for `fast_budget_bytes` of fast memory.
    ///
    /// # Errors
    /// When the profile has no op or the budget is zero.
    pub(crate) fn new(profile: &Profile, fast_budget_bytes: u64) -> Result<Layout, PlanError> {
        let space = Space::new(profile, fast_budget_bytes)?;
        let short = |&index: &usize| profile.buffers[index].class == Class::ShortLived;
        let members: Vec<usize> = (0..profile.buffers.len()).filter(short).collect();
        let pool = Pool::pack(profile, &members, space.planned_bytes);
        let pool_bytes = pool.extent_by_layer.iter().copied().max().unwrap_or(0);
        let Coallocation { units, spans, mut places } = coallocate(profile, pool_bytes);
        for (place, offset_bytes) in places.iter_mut().zip(&pool.offsets) {
            *place = place.or(offset_bytes.map(|offset_bytes| Place::Pool { offset_bytes }));
        }
        Ok(Layout { space, pool_bytes, places, pool, units, spans })
    }

    /// The plan, with the policy's moves and the birth tiers that it has set in `units`.
    pub(crate) fn into_plan(self, profile: &Profile, intervals: Vec<Interval>, may_be_late: bool) -> Plan {
        let largest_unit = self.units.iter().map(|unit| unit.len_bytes).max().unwrap_or(0);
        let in_arena = self.spans.iter().filter(|span| !span.persistent).map(|span| span.len_bytes);
        Plan {
            fast_budget_bytes: self.space.budget_bytes,
            fast_needed_bytes: page_ceil(self.pool.whole_bytes) + largest_unit + self.space.unplanned_want,
            unplanned_bytes: self.space.unplanned_bytes,
            arena_bytes: self.pool_bytes + in_arena.sum::<u64>(),
            pool_bytes: self.pool_bytes,
            pool_rule: PoolRule::Reserved,
            slots: slots(profile, &self.places),
            layer_first_op: profile.layers.iter().map(|layer| layer.first_op).collect(),
            may_be_late,
            units: self.units,
            intervals,
        }
    }
}

/// What allocations without a planned address would like to have: the profiled peak and a tenth more, because the number
/// of blocks of a scratch kernel varies from step to step; what outlives the step; persistent buffers below a page.
fn unplanned_want(profile: &Profile) -> u64 {
    profile.unplanned_peak_bytes + profile.unplanned_peak_bytes / 10 + staying_bytes(profile)
}

/// Bytes without a planned address that are there all the time.
fn staying_bytes(profile: &Profile) -> u64 {
    let stays = |class: Class, size_bytes: u64| match class {
        Class::Escaping => true,
        Class::Persistent => size_bytes < PAGE_BYTES,
        _ => false,
    };
    profile.buffers.iter().filter(|b| stays(b.class, b.size_bytes)).map(|b| b.size_bytes).sum()
}

/// By layer, what of the budget is left to allocations without a planned address: the most that is alive of them at an op of
/// the layer and a tenth more, and what outlives the step. Scratch of the ops that `decided` names is not counted.
pub(crate) fn unplanned_by_layer(profile: &Profile, fast_budget_bytes: u64, decided: &[Scratch]) -> Vec<u64> {
    let is_decided = |facts: &BufferFacts| {
        facts.birth_op == facts.death_op && decided.binary_search_by_key(&facts.birth_op, |scratch| scratch.op).is_ok()
    };
    let counts = |facts: &BufferFacts| facts.class == Class::Scratch && !is_decided(facts);
    let alive = live_bytes(profile.ops.len(), &profile.buffers, counts);
    let staying = staying_bytes(profile);
    let most_bytes = fast_budget_bytes / UNPLANNED_SHARE;
    let of_layer = |layer: &LayerFacts| {
        let ops = &alive[layer.first_op as usize..=layer.last_op as usize];
        let most_alive = ops.iter().copied().max().unwrap_or(0);
        (most_alive + most_alive / 10 + staying).min(most_bytes)
    };
    profile.layers.iter().map(of_layer).collect()
}

/// The temporaries without a planned address that one op makes and gives back.
#[derive(Clone, Debug)]
pub(crate) struct Scratch {
    /// Index of the op.
    pub(crate) op: u32,
    /// What the heap takes for them.
    pub(crate) bytes: u64,
    /// What the op does with all of them together.
    pub(crate) used: BufferUse,
}

/// The scratch of every op that makes more than `limit_bytes` of it, by op.
pub(crate) fn large_scratch(profile: &Profile, limit_bytes: u64) -> Vec<Scratch> {
    let mut by_op: BTreeMap<u32, (u64, BufferUse)> = BTreeMap::new();
    let own = |facts: &&BufferFacts| facts.class == Class::Scratch && facts.birth_op == facts.death_op;
    for facts in profile.buffers.iter().filter(own) {
        let op = facts.birth_op;
        let (bytes, used) = by_op.entry(op).or_insert((0, BufferUse { op, read_bytes: 0, written_bytes: 0 }));
        *bytes += if facts.size_bytes < PAGE_BYTES { facts.size_bytes } else { page_ceil(facts.size_bytes) };
        used.read_bytes += facts.read_bytes;
        used.written_bytes += facts.written_bytes;
    }
    let scratch = by_op.into_iter().map(|(op, (bytes, used))| Scratch { op, bytes, used });
    scratch.filter(|scratch| scratch.bytes > limit_bytes).collect()
}

/// One slot per buffer that has a key, sorted by key. `places` says where, by buffer index; what has no place there goes
/// to the heap, fast when it outlives the step, and slow otherwise.
pub(crate) fn slots(profile: &Profile, places: &[Option<Place>]) -> Vec<Slot> {
    let mut slots = Vec::new();
    for (buffer, place) in profile.buffers.iter().zip(places) {
        let Some(key) = buffer.key else { continue };
        let place = match buffer.class {
            Class::ShortLived | Class::LongLived => place.unwrap_or(Place::Heap { tier: Tier::SLOW }),
            Class::Escaping => Place::Heap { tier: Tier::FAST },
            Class::Persistent | Class::Scratch | Class::External => continue,
        };
        let birth_layer = profile.ops[buffer.birth_op as usize].layer;
        slots.push(Slot { key, size_bytes: buffer.size_bytes, place, birth_layer });
    }
    slots.sort_unstable_by_key(|slot| slot.key);
    slots
}
