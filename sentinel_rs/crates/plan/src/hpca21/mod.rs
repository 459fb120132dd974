//! The published policy: Ren et al., "Sentinel: Efficient Tensor Migration and Allocation on Heterogeneous Memory Systems
//! for Deep Learning", HPCA 2021 (doi 10.1109/HPCA51647.2021.00057).
//!
//! Short-lived buffers share a pool that never moves; long-lived ones are co-allocated in units by the layers that use
//! them; the step is cut into equal intervals, and each interval fetches what the next one uses and evicts what is not
//! used soon. Where the paper leaves a choice open, the comment at the place says what was chosen.

mod intervals;
mod ledger;
pub(crate) mod pool;
mod schedule;
pub(crate) mod units;

#[cfg(test)]
pub(crate) mod properties;
#[cfg(test)]
mod tests;

use crate::{Interval, Machine, Place, Plan, PlanError, Slot};
use intervals::Cuts;
use pool::Pool;
use profile::{Class, Profile};
use trace::{page_ceil, Tier, PAGE_BYTES};
use units::Coallocation;

/// The part of the budget that allocations without a planned address may take is at most the budget divided by this.
pub(crate) const UNPLANNED_SHARE: u64 = 4;

/// Plans a step for `fast_budget_bytes` of fast memory.
///
/// A budget that is too small gives a plan all the same: what does not fit lives in slow memory, and
/// `Plan::fast_needed_bytes` says what would have been enough.
///
/// # Errors
/// When the profile has no op or the budget is zero.
pub fn hpca21(profile: &Profile, fast_budget_bytes: u64, machine: &Machine) -> Result<Plan, PlanError> {
    if profile.ops.is_empty() {
        return Err(PlanError::Empty);
    }
    if fast_budget_bytes == 0 {
        return Err(PlanError::NoBudget);
    }
    let unplanned_want = unplanned_want(profile);
    let unplanned_bytes = unplanned_want.min(fast_budget_bytes / UNPLANNED_SHARE);
    let space = (fast_budget_bytes - unplanned_bytes) / PAGE_BYTES * PAGE_BYTES;
    let pool = Pool::pack(profile, space);
    let pool_bytes = pool.extent_by_layer.iter().copied().max().unwrap_or(0);
    let Coallocation { mut units, spans, places } = units::coallocate(profile, pool_bytes);
    let cuts = Cuts::choose(&profile.layers, &spans, &pool.extent_by_layer, space, machine);
    let schedule = schedule::schedule(&profile.layers, &spans, &cuts, space, machine);
    for (unit, tier) in units.iter_mut().zip(&schedule.birth_tiers) {
        unit.birth_tier = *tier;
    }
    let intervals: Vec<Interval> = schedule
        .moves_by_interval
        .into_iter()
        .enumerate()
        .map(|(index, moves)| Interval {
            first_layer: cuts.first_layer(index),
            last_layer: cuts.last_layer(index),
            pool_bytes: cuts.pool_bytes[index],
            moves,
        })
        .collect();
    let largest_unit = units.iter().map(|unit| unit.len_bytes).max().unwrap_or(0);
    Ok(Plan {
        fast_budget_bytes,
        fast_needed_bytes: page_ceil(pool.whole_bytes) + largest_unit + unplanned_want,
        unplanned_bytes,
        arena_bytes: pool_bytes + spans.iter().filter(|span| !span.persistent).map(|span| span.len_bytes).sum::<u64>(),
        pool_bytes,
        slots: slots(profile, &pool, &places),
        layer_first_op: profile.layers.iter().map(|layer| layer.first_op).collect(),
        may_be_late: may_be_late(profile, &intervals, &units, machine),
        units,
        intervals,
    })
}

/// What allocations without a planned address would like to have: the profiled peak and a tenth more, because the number
/// of blocks of a scratch kernel varies from step to step; what outlives the step; persistent buffers below a page.
pub(crate) fn unplanned_want(profile: &Profile) -> u64 {
    let stays = |class: Class, size_bytes: u64| match class {
        Class::Escaping => true,
        Class::Persistent => size_bytes < PAGE_BYTES,
        _ => false,
    };
    let staying: u64 = profile.buffers.iter().filter(|b| stays(b.class, b.size_bytes)).map(|b| b.size_bytes).sum();
    profile.unplanned_peak_bytes + profile.unplanned_peak_bytes / 10 + staying
}

/// One slot per buffer that has a key, sorted by key.
pub(crate) fn slots(profile: &Profile, pool: &Pool, unit_places: &[Option<Place>]) -> Vec<Slot> {
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

/// Whether some interval is asked to promote more than fits in its time.
fn may_be_late(profile: &Profile, intervals: &[Interval], units: &[crate::Unit], machine: &Machine) -> bool {
    intervals.iter().any(|interval| {
        let promotions = interval.moves.iter().filter(|step| step.to == Tier::FAST);
        let bytes: u64 = promotions.map(|step| units[step.unit as usize].len_bytes).sum();
        let layers = interval.first_layer as usize..=interval.last_layer as usize;
        let time_ns: u64 = profile.layers[layers].iter().map(|layer| layer.time_ns).sum();
        ledger::move_ns(bytes, machine.promote_gbps) > time_ns
    })
}
