//! What every plan of the policy keeps, and how long it takes to make one.

use super::*;
use crate::testing::{add, large_step, step, traces, PAGE};
use crate::{Costs, Machine, Place, UnitHome};
use profile::Class;
use proptest::prelude::*;
use trace::{Tier, PAGE_BYTES};

fn optane() -> Machine {
    Machine::by_name("optane").unwrap()
}

fn plan_of(profile: &profile::Profile, budget: u64, machine: &Machine) -> crate::Plan {
    crate::Policy::Gap.plan(profile, budget, machine).unwrap().unwrap()
}

/// Every buffer with a key has a slot of its size, nothing that lives at the same time overlaps, units lie inside the arena and
/// apart from each other, and a buffer's units cover it.
fn check_layout(plan: &crate::Plan, profile: &profile::Profile) {
    let keyed = profile.buffers.iter().filter(|buffer| buffer.key.is_some()).count();
    assert_eq!(plan.slots.len(), keyed);
    let uses = plan.arena_uses(profile);
    for (index, one) in uses.iter().enumerate() {
        assert!(one.offset_bytes + one.len_bytes <= plan.arena_bytes);
        for other in &uses[..index] {
            let apart = one.offset_bytes + one.len_bytes <= other.offset_bytes
                || other.offset_bytes + other.len_bytes <= one.offset_bytes;
            let meet = one.first_op <= other.last_op && other.first_op <= one.last_op;
            assert!(apart || !meet, "{one:?} {other:?}");
        }
    }
    let mut end = plan.pool_bytes;
    for unit in &plan.units {
        match unit.home {
            UnitHome::Arena { offset_bytes } => {
                assert_eq!((offset_bytes, unit.len_bytes % PAGE_BYTES), (end.next_multiple_of(PAGE_BYTES), 0));
                end = offset_bytes + unit.len_bytes;
            }
            UnitHome::Persistent { buffer, offset_bytes } => {
                let size = profile.buffers[buffer as usize].size_bytes;
                assert!(offset_bytes + unit.len_bytes <= trace::page_ceil(size));
            }
        }
    }
    assert!(end <= plan.arena_bytes);
    for slot in &plan.slots {
        match slot.place {
            Place::Pool { offset_bytes } => assert!(offset_bytes + slot.size_bytes <= plan.pool_bytes),
            Place::Units { first, count, offset_bytes } => {
                let units = &plan.units[first as usize..(first + count) as usize];
                let UnitHome::Arena { offset_bytes: begin } = units[0].home else { panic!("{slot:?}") };
                let len: u64 = units.iter().map(|unit| unit.len_bytes).sum();
                assert!(begin <= offset_bytes && offset_bytes + slot.size_bytes <= begin + len, "{slot:?}");
            }
            Place::Heap { .. } => {}
        }
    }
}

/// A unit's moves go to and fro, from where it is born, and a persistent one ends the step where it begins it.
fn check_moves(plan: &crate::Plan, profile: &profile::Profile) {
    let layers = u32::try_from(profile.layers.len()).unwrap();
    let moves: Vec<&crate::Move> = plan.intervals.iter().flat_map(|interval| &interval.moves).collect();
    assert!(moves.iter().all(|step| step.issue_layer < layers && step.due_layer < layers));
    assert!(moves.windows(2).all(|pair| pair[0].issue_layer <= pair[1].issue_layer));
    for (index, unit) in plan.units.iter().enumerate() {
        let own = moves.iter().filter(|step| step.unit as usize == index);
        let mut tier = unit.birth_tier;
        for step in own {
            assert_ne!(step.to, tier, "unit {index}");
            tier = step.to;
        }
        if matches!(unit.home, UnitHome::Persistent { .. }) {
            assert_eq!(tier, unit.birth_tier, "unit {index}");
        }
    }
}

proptest! {
    #[test]
    fn every_plan_keeps_its_promises(trace in traces(), share in 0.001_f64..1.5, gbps in 0.01_f64..20.0) {
        let profile = profile::fold(&trace).unwrap();
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
        let budget = ((profile.peak_live_bytes as f64 * share) as u64).max(1);
        let machine = Machine { promote_gbps: gbps, demote_gbps: gbps, ..optane() };
        let plan = plan_of(&profile, budget, &machine);
        check_layout(&plan, &profile);
        check_moves(&plan, &profile);
    }

    #[test]
    fn with_room_for_everything_nothing_moves(trace in traces()) {
        let profile = profile::fold(&trace).unwrap();
        let total: u64 = profile.buffers.iter().map(|buffer| buffer.size_bytes + PAGE_BYTES).sum();
        let plan = plan_of(&profile, 4 * total + PAGE_BYTES, &optane());
        prop_assert_eq!(plan.moved_bytes(), (0, 0));
        let slow = Place::Heap { tier: Tier::SLOW };
        prop_assert!(plan.slots.iter().all(|slot| slot.place != slow));
    }
}

/// Two tensors of one page and room for one: the idle one makes way, comes back in time, and nothing is slower for it.
#[test]
fn a_tensor_that_idles_long_makes_room_and_returns() {
    let used = |op, slow_ns| GapUse { op, slow_ns, busy_ns: [0.0; 2] };
    let tensor = |birth_op, death_op, uses| GapTensor {
        size_bytes: 4096,
        birth_op,
        death_op,
        persistent: false,
        takes_what_is_free: false,
        uses,
    };
    let problem = GapProblem {
        base_ns: vec![1000.0; 8],
        memory_ns: vec![1000.0; 8],
        busy_ns: vec![0.0; 8],
        room_bytes: vec![4096; 8],
        tensors: vec![
            tensor(0, 7, vec![used(0, 500.0), used(7, 500.0)]),
            tensor(3, 4, vec![used(3, 900.0), used(4, 900.0)]),
        ],
        promote_rate: 4.096,
        demote_rate: 4.096,
        taken: [[0.0; 2]; 2],
        issue: Issue::at_ops(8),
    };
    let choice = gap_choice(&problem, GapEffort::Good { worth_ns: f64::INFINITY });
    assert!((choice.step_ns - 8000.0).abs() < 1e-6, "{choice:?}");
    assert_eq!(
        choice.moves.iter().map(|step| (step.tensor, step.way)).collect::<Vec<_>>(),
        [(0, Way::Out), (0, Way::In)]
    );
    // Without bandwidth the longer stay costs a slow use at either end, or the shorter one both of its uses.
    let still = gap_choice(
        &GapProblem { promote_rate: 0.001, demote_rate: 0.001, ..problem },
        GapEffort::Good { worth_ns: f64::INFINITY },
    );
    assert!((still.step_ns - 9000.0).abs() < 1e-6 && still.moves.is_empty(), "{still:?}");
}

/// Nearly all of the time is packing the short-lived pool; `sentinel bench` measures it.
#[test]
fn a_hundred_thousand_buffers_are_planned() {
    let mut trace = large_step(10_000);
    // Ten buffers per op instead of four: the same step with each buffer of every op repeated.
    let extra = trace.buffers.clone();
    for (copy, buffers) in [extra.clone(), extra].into_iter().enumerate() {
        for mut buffer in buffers.into_iter().take(30_000) {
            if let trace::Origin::Step { ordinal, .. } = &mut buffer.origin {
                *ordinal += 4 + 4 * u32::try_from(copy).unwrap();
            }
            trace.buffers.push(buffer);
        }
    }
    let profile = profile::fold(&trace).unwrap();
    assert_eq!(profile.buffers.len(), 100_000);
    let begin = std::time::Instant::now();
    let plan = plan_of(&profile, profile.peak_live_bytes / 5, &optane());
    let elapsed = begin.elapsed();
    assert_eq!(plan.slots.len(), 100_000);
    assert!(plan.pool_bytes <= plan.fast_budget_bytes);
    println!(
        "{} units, {} moves: {elapsed:?}",
        plan.units.len(),
        plan.intervals.iter().map(|i| i.moves.len()).sum::<usize>()
    );
}

#[test]
fn a_page_fault_hides_behind_no_compute() {
    // Ops of 100 ms, beside which the tensor of 1 MiB could be read from swap many times.
    let mut profile = step(&[100_000_000; 9]);
    let idle = add(&mut profile, Class::LongLived, 256 * PAGE, &[0, 1, 8], 8);
    add(&mut profile, Class::LongLived, 256 * PAGE, &[3, 4, 5], 5);
    for name in ["swap-nvme", "cxl"] {
        let machine = Machine::by_name(name).unwrap();
        let costs = Costs::as_emulated(&profile, &machine);
        assert_eq!(costs.ops.iter().all(|op| op.slack_ns == 0.0), name == "swap-nvme", "{name}");
    }
    let plan = plan_of(&profile, 400 * PAGE, &Machine::by_name("swap-nvme").unwrap());
    let Place::Units { first, count, .. } = plan.slots[idle].place else { panic!("{:?}", plan.slots[idle]) };
    let own = first..first + count;
    assert!(own.clone().all(|unit| plan.units[unit as usize].birth_tier == Tier::FAST));
    let back = plan.intervals.iter().flat_map(|interval| &interval.moves).filter(|step| step.to == Tier::FAST);
    assert!(back.filter(|step| own.contains(&step.unit)).count() > 0, "{plan:?}");
}

#[test]
fn what_is_slow_for_life_shares_no_pages_where_they_are_reached_by_faults() {
    let mut profile = step(&[1_000_000; 6]);
    add(&mut profile, Class::LongLived, 64 * PAGE, &[0, 2], 2);
    add(&mut profile, Class::LongLived, 64 * PAGE, &[3, 5], 5);
    for (name, units) in [("swap-nvme", 2), ("optane", 1)] {
        let plan = plan_of(&profile, PAGE, &Machine::by_name(name).unwrap());
        assert_eq!(plan.units.len(), units, "{name}: one after the other, they could be in the same place");
        check_layout(&plan, &profile);
    }
}

#[test]
fn what_stays_fast_shares_pages_where_fresh_ones_have_a_price() {
    let mut profile = step(&[1_000_000; 6]);
    for layer in 0..6 {
        add(&mut profile, Class::ShortLived, 64 * PAGE, &[layer], layer);
    }
    for (name, pooled) in [("swap-nvme", 6), ("optane", 0)] {
        let plan = plan_of(&profile, 1000 * PAGE, &Machine::by_name(name).unwrap());
        let in_pool = plan.slots.iter().filter(|slot| matches!(slot.place, Place::Pool { .. })).count();
        assert_eq!(in_pool, pooled, "{name}: no step is faster for it, and births are");
        check_layout(&plan, &profile);
    }
}
