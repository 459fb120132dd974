//! What every policy of this crate shares: where buffers lie. Policies differ in which unit is in which tier when.

use crate::hpca21::pool::Pool;
use crate::hpca21::units::{coallocate, Coallocation, Span};
use crate::{Interval, Place, Plan, PlanError, Slot, Unit};
use profile::{Class, Profile};
use trace::{page_ceil, Tier, PAGE_BYTES};

/// The part of the budget that allocations without a planned address may take is at most the budget divided by this.
const UNPLANNED_SHARE: u64 = 4;

/// A step's short-lived pool and long-lived units under a budget; which tier a unit begins in is the policy's to say.
pub(crate) struct Layout {
    fast_budget_bytes: u64,
    unplanned_want: u64,
    unplanned_bytes: u64,
    pool_bytes: u64,
    /// Whole pages of fast memory for the pool and the units.
    pub(crate) space_bytes: u64,
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
        if profile.ops.is_empty() {
            return Err(PlanError::Empty);
        }
        if fast_budget_bytes == 0 {
            return Err(PlanError::NoBudget);
        }
        let unplanned_want = unplanned_want(profile);
        let unplanned_bytes = unplanned_want.min(fast_budget_bytes / UNPLANNED_SHARE);
        let space_bytes = (fast_budget_bytes - unplanned_bytes) / PAGE_BYTES * PAGE_BYTES;
        let pool = Pool::pack(profile, space_bytes);
        let pool_bytes = pool.extent_by_layer.iter().copied().max().unwrap_or(0);
        let Coallocation { units, spans, places } = coallocate(profile, pool_bytes);
        Ok(Layout {
            fast_budget_bytes,
            unplanned_want,
            unplanned_bytes,
            pool_bytes,
            places,
            space_bytes,
            pool,
            units,
            spans,
        })
    }

    /// The plan, with the policy's moves and the birth tiers that it has set in `units`.
    pub(crate) fn into_plan(self, profile: &Profile, intervals: Vec<Interval>, may_be_late: bool) -> Plan {
        let largest_unit = self.units.iter().map(|unit| unit.len_bytes).max().unwrap_or(0);
        let in_arena = self.spans.iter().filter(|span| !span.persistent).map(|span| span.len_bytes);
        Plan {
            fast_budget_bytes: self.fast_budget_bytes,
            fast_needed_bytes: page_ceil(self.pool.whole_bytes) + largest_unit + self.unplanned_want,
            unplanned_bytes: self.unplanned_bytes,
            arena_bytes: self.pool_bytes + in_arena.sum::<u64>(),
            pool_bytes: self.pool_bytes,
            slots: slots(profile, &self.pool, &self.places),
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
    let stays = |class: Class, size_bytes: u64| match class {
        Class::Escaping => true,
        Class::Persistent => size_bytes < PAGE_BYTES,
        _ => false,
    };
    let staying: u64 = profile.buffers.iter().filter(|b| stays(b.class, b.size_bytes)).map(|b| b.size_bytes).sum();
    profile.unplanned_peak_bytes + profile.unplanned_peak_bytes / 10 + staying
}

/// One slot per buffer that has a key, sorted by key.
fn slots(profile: &Profile, pool: &Pool, unit_places: &[Option<Place>]) -> Vec<Slot> {
    let mut slots = Vec::new();
    for (index, buffer) in profile.buffers.iter().enumerate() {
        let Some(key) = buffer.key else { continue };
        let place = match buffer.class {
            Class::ShortLived => match pool.offsets[index] {
                Some(offset_bytes) => Place::Pool { offset_bytes },
                None => Place::Heap { tier: Tier::SLOW },
            },
            Class::LongLived => unit_places[index].unwrap_or(Place::Heap { tier: Tier::SLOW }),
            Class::Escaping => Place::Heap { tier: Tier::FAST },
            Class::Persistent | Class::Scratch | Class::External => continue,
        };
        let birth_layer = profile.ops[buffer.birth_op as usize].layer;
        slots.push(Slot { key, size_bytes: buffer.size_bytes, place, birth_layer });
    }
    slots.sort_unstable_by_key(|slot| slot.key);
    slots
}
