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

use crate::layout::Layout;
use crate::{Interval, Machine, Plan, PlanError};
use intervals::Cuts;
use profile::Profile;
use trace::Tier;

/// Plans a step for `fast_budget_bytes` of fast memory.
///
/// A budget that is too small gives a plan all the same: what does not fit lives in slow memory, and
/// `Plan::fast_needed_bytes` says what would have been enough.
///
/// # Errors
/// When the profile has no op or the budget is zero.
pub fn hpca21(profile: &Profile, fast_budget_bytes: u64, machine: &Machine) -> Result<Plan, PlanError> {
    let mut layout = Layout::new(profile, fast_budget_bytes)?;
    let (extents, space) = (&layout.pool.extent_by_layer, layout.space.planned_bytes);
    let cuts = Cuts::choose(&profile.layers, &layout.spans, extents, space, machine);
    let schedule = schedule::schedule(&profile.layers, &layout.spans, &cuts, space, machine);
    for (unit, tier) in layout.units.iter_mut().zip(&schedule.birth_tiers) {
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
    let late = may_be_late(profile, &intervals, &layout.units, machine);
    Ok(layout.into_plan(profile, intervals, late))
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
