//! What every plan keeps, whatever the step and the budget.

use super::hpca21;
use crate::testing::{large_step, traces};
use crate::{pack_ceil, Machine, Place, Plan, PlanError, UnitHome, PACK_ALIGN_BYTES};
use profile::{Class, Profile};
use proptest::prelude::*;
use std::collections::BTreeSet;
use trace::{StepTrace, Tier, PAGE_BYTES};

fn optane() -> Machine {
    Machine::by_name("optane").unwrap()
}

/// Sum over what is live at `op` and has a place in fast memory, worked out op by op from slots, units and moves.
fn planned_fast_at(plan: &Plan, profile: &Profile, op: u32, unit_is_fast: &[bool]) -> u64 {
    let live = |slot: &&crate::Slot| {
        let buffer = profile.buffers.iter().find(|buffer| buffer.key == Some(slot.key)).unwrap();
        buffer.birth_op <= op && op <= buffer.death_op
    };
    let in_pool = plan.slots.iter().filter(live).filter(|slot| matches!(slot.place, Place::Pool { .. }));
    let pool: u64 = in_pool.map(|slot| slot.size_bytes).sum();
    let units = plan.units.iter().enumerate().filter(|&(index, _)| unit_is_fast[index]);
    let live_units = units.filter(|&(index, unit)| match unit.home {
        UnitHome::Persistent { .. } => true,
        UnitHome::Arena { .. } => plan
            .slots
            .iter()
            .filter(|slot| matches!(slot.place, Place::Units { first, .. } if first as usize == index))
            .any(|slot| live(&slot)),
    });
    pool + live_units.map(|(_, unit)| unit.len_bytes).sum::<u64>()
}

/// Holds the plan to its budget in each layer, evictions counted until they are due, and at each op, moves counted when
/// they are issued.
fn check_budget(plan: &Plan, profile: &Profile) {
    let limit = plan.fast_budget_bytes - plan.unplanned_bytes;
    for (layer, bytes) in plan.fast_bytes_by_layer(profile).into_iter().enumerate() {
        assert!(bytes <= limit, "layer {layer}: {bytes} of {limit}");
    }
    let mut fast: Vec<bool> = plan.units.iter().map(|unit| unit.birth_tier == Tier::FAST).collect();
    for op in 0..u32::try_from(profile.ops.len()).unwrap() {
        let layer = profile.ops[op as usize].layer;
        if profile.layers[layer as usize].first_op == op {
            let issued = plan.intervals.iter().flat_map(|interval| &interval.moves);
            for step in issued.filter(|step| step.issue_layer == layer) {
                fast[step.unit as usize] = step.to == Tier::FAST;
            }
        }
        let bytes = planned_fast_at(plan, profile, op, &fast);
        assert!(bytes <= limit, "op {op}: {bytes} of {limit}");
    }
    for (unit, fast) in plan.units.iter().zip(fast) {
        let returns = matches!(unit.home, UnitHome::Arena { .. }) || fast == (unit.birth_tier == Tier::FAST);
        assert!(returns, "a persistent unit ends the step in another tier than it began");
    }
}

fn check_arena(plan: &Plan, profile: &Profile) {
    let uses = plan.arena_uses(profile);
    for (index, a) in uses.iter().enumerate() {
        assert_eq!(a.offset_bytes % PACK_ALIGN_BYTES, 0);
        assert!(a.offset_bytes + a.len_bytes <= plan.arena_bytes);
        for b in &uses[..index] {
            let at_once = a.first_op <= b.last_op && b.first_op <= a.last_op;
            let overlap = a.offset_bytes < b.offset_bytes + pack_ceil(b.len_bytes)
                && b.offset_bytes < a.offset_bytes + pack_ceil(a.len_bytes);
            assert!(!(at_once && overlap), "{a:?} and {b:?}");
        }
    }
    // A pool slot lies inside what its interval keeps in fast memory.
    for slot in &plan.slots {
        if let Place::Pool { offset_bytes } = slot.place {
            let layer = slot.birth_layer;
            let interval = plan.intervals.iter().find(|i| (i.first_layer..=i.last_layer).contains(&layer)).unwrap();
            assert!(offset_bytes + slot.size_bytes <= interval.pool_bytes);
        }
    }
    // Units are whole pages of their own, after the pool.
    let mut begin = plan.pool_bytes;
    for unit in &plan.units {
        assert_eq!(unit.len_bytes % PAGE_BYTES, 0);
        if let UnitHome::Arena { offset_bytes } = unit.home {
            assert_eq!(offset_bytes, begin);
            begin += unit.len_bytes;
        }
    }
    assert_eq!(begin, plan.arena_bytes);
}

fn check_slots(plan: &Plan, profile: &Profile) {
    assert!(plan.slots.windows(2).all(|pair| pair[0].key < pair[1].key));
    let wanted = |class| matches!(class, Class::ShortLived | Class::LongLived | Class::Escaping);
    let keys: BTreeSet<_> = profile.buffers.iter().filter(|b| wanted(b.class)).map(|b| b.key.unwrap()).collect();
    assert_eq!(plan.slots.iter().map(|slot| slot.key).collect::<BTreeSet<_>>(), keys);
}

fn check_intervals(plan: &Plan, profile: &Profile) {
    let mut next = 0;
    for interval in &plan.intervals {
        assert_eq!(interval.first_layer, next);
        assert!(interval.first_layer <= interval.last_layer);
        next = interval.last_layer + 1;
        for step in &interval.moves {
            assert!((interval.first_layer..=interval.last_layer).contains(&step.issue_layer));
            assert!((step.due_layer as usize) < profile.layers.len());
        }
        assert!(interval.moves.windows(2).all(|pair| pair[0].issue_layer <= pair[1].issue_layer));
    }
    assert_eq!(next as usize, profile.layers.len());
    // Moves of one unit take turns, and happen while it exists.
    for (index, unit) in plan.units.iter().enumerate() {
        let all = plan.intervals.iter().flat_map(|interval| &interval.moves);
        let mut tier = unit.birth_tier;
        for step in all.filter(|step| step.unit as usize == index) {
            assert_ne!(step.to, tier, "unit {index}");
            tier = step.to;
            if let UnitHome::Arena { .. } = unit.home {
                assert!(step.issue_layer > unit.layers[0] && step.due_layer >= step.issue_layer);
            }
        }
    }
}

/// A policy of this crate.
pub(crate) type PolicyFn = fn(&Profile, u64, &Machine) -> Result<Plan, PlanError>;

/// Everything that every policy's plan keeps, for a budget of `share` of the peak and moves at `gbps`.
pub(crate) fn check_promises(policy: PolicyFn, trace: &StepTrace, share: f64, gbps: f64) {
    let profile = profile::fold(trace).unwrap();
    let machine = Machine { promote_gbps: gbps, demote_gbps: gbps, ..optane() };
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
    let budget = (profile.peak_live_bytes as f64 * share) as u64 + 1;
    let plan = policy(&profile, budget, &machine).unwrap();
    check_budget(&plan, &profile);
    check_arena(&plan, &profile);
    check_slots(&plan, &profile);
    check_intervals(&plan, &profile);
    assert_eq!(&plan, &policy(&profile, budget, &machine).unwrap());
}

proptest! {
    #[test]
    fn every_plan_keeps_its_promises(trace in traces(), share in 0.001_f64..1.5, gbps in 0.01_f64..20.0) {
        check_promises(hpca21, &trace, share, gbps);
    }

    #[test]
    fn with_room_for_everything_nothing_is_slow_and_nothing_moves(trace in traces()) {
        let profile = profile::fold(&trace).unwrap();
        let total: u64 = profile.buffers.iter().map(|buffer| buffer.size_bytes + PAGE_BYTES).sum();
        let plan = hpca21(&profile, 4 * total + PAGE_BYTES, &optane()).unwrap();
        prop_assert_eq!(plan.moved_bytes(), (0, 0));
        prop_assert!(!plan.may_be_late);
        let slow = Place::Heap { tier: Tier::SLOW };
        prop_assert!(plan.slots.iter().all(|slot| slot.place != slow));
        prop_assert!(plan.units.iter().all(|unit| unit.layers.is_empty() || unit.birth_tier == Tier::FAST));
        prop_assert!(plan.fast_needed_bytes <= plan.fast_budget_bytes);
    }
}

/// The plan of a large model is made while training goes on, but training waits for it with its fast memory unused. The
/// time is only held to account where the compiler optimizes.
#[test]
fn a_large_step_is_planned_in_two_seconds() {
    let profile = profile::fold(&large_step(5000)).unwrap();
    assert_eq!(profile.buffers.len(), 20_000);
    for share in [2, 5, 100] {
        let begin = std::time::Instant::now();
        let plan = hpca21(&profile, profile.peak_live_bytes / share, &optane()).unwrap();
        let elapsed = begin.elapsed();
        assert_eq!(plan.slots.len(), 20_000);
        assert!(plan.fast_bytes_by_layer(&profile).into_iter().max() <= Some(plan.fast_budget_bytes));
        assert!(cfg!(debug_assertions) || elapsed.as_secs_f64() < 2.0, "1/{share} of the peak took {elapsed:?}");
        println!("1/{share} of the peak: {elapsed:?}");
    }
}
