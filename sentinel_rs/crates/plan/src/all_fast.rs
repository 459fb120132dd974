//! The plan of a step that has all the fast memory it wants: one arena as low as a packing makes it, and no moves.

use crate::hpca21::pool::Pool;
use crate::layout::slots;
use crate::pack::{load_bytes, Item, PACK_ALIGN_BYTES};
use crate::{Interval, Place, Plan, PlanError, PoolRule};
use profile::{Class, Profile};

/// Plans addresses for every recurring buffer that lives and dies within the step. What outlives it, and scratch, goes to
/// the heaps.
///
/// # Errors
/// When the profile has no op.
pub fn all_fast(profile: &Profile) -> Result<Plan, PlanError> {
    if profile.ops.is_empty() {
        return Err(PlanError::Empty);
    }
    let pool = Pool::pack(profile, &members(profile), u64::MAX);
    let places: Vec<Option<Place>> =
        pool.offsets.iter().map(|offset| offset.map(|offset_bytes| Place::Pool { offset_bytes })).collect();
    let pool_bytes = pool.extent_by_layer.iter().copied().max().unwrap_or(0);
    let last_layer = u32::try_from(profile.layers.len()).unwrap_or(u32::MAX).max(1) - 1;
    Ok(Plan {
        fast_budget_bytes: u64::MAX,
        fast_needed_bytes: pool_bytes,
        unplanned_bytes: profile.unplanned_peak_bytes,
        arena_bytes: pool_bytes,
        pool_bytes,
        pool_rule: PoolRule::OnDemand,
        slots: slots(profile, &places),
        units: Vec::new(),
        layer_first_op: profile.layers.iter().map(|layer| layer.first_op).collect(),
        intervals: vec![Interval { first_layer: 0, last_layer, pool_bytes, moves: Vec::new() }],
        may_be_late: false,
    })
}

/// Bytes that the buffers of [`all_fast`]'s arena take at the op at which most of them are alive in the profiled order, each
/// rounded up to the arena's grain: no arena is lower.
#[must_use]
pub fn all_fast_load_bytes(profile: &Profile) -> u64 {
    let item = |index: usize| {
        let buffer = &profile.buffers[index];
        Item { size_bytes: buffer.size_bytes, first_op: buffer.birth_op, last_op: buffer.death_op }
    };
    let items: Vec<Item> = members(profile).into_iter().map(item).collect();
    load_bytes(&items, PACK_ALIGN_BYTES)
}

fn members(profile: &Profile) -> Vec<usize> {
    let inside = |class: Class| matches!(class, Class::ShortLived | Class::LongLived);
    (0..profile.buffers.len()).filter(|&index| inside(profile.buffers[index].class)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{add, step, PAGE};
    use trace::Tier;

    #[test]
    fn what_dies_in_the_step_shares_addresses_and_the_rest_is_on_the_heap() {
        let mut profile = step(&[1000; 4]);
        add(&mut profile, Class::ShortLived, 4 * PAGE, &[0], 0);
        add(&mut profile, Class::ShortLived, 4 * PAGE, &[2], 2);
        add(&mut profile, Class::LongLived, 2 * PAGE, &[1, 3], 3);
        add(&mut profile, Class::Escaping, PAGE, &[3], 3);
        add(&mut profile, Class::Persistent, 8 * PAGE, &[0, 3], 3);
        let plan = all_fast(&profile).expect("a plan");
        assert_eq!(plan.pool_bytes, 6 * PAGE);
        assert_eq!(all_fast_load_bytes(&profile), 6 * PAGE);
        let places: Vec<Place> = plan.slots.iter().map(|slot| slot.place).collect();
        assert_eq!(places.iter().filter(|place| matches!(place, Place::Pool { .. })).count(), 3);
        assert!(places.contains(&Place::Heap { tier: Tier::FAST }));
        assert!(plan.units.is_empty() && plan.intervals[0].moves.is_empty());
        assert_eq!(plan.intervals[0].last_layer, 3);
    }

    #[test]
    fn a_step_without_ops_has_no_plan() {
        assert_eq!(all_fast(&step(&[])), Err(PlanError::Empty));
    }
}
