//! What every plan of the policy keeps, and how long it takes to make one.

use super::*;
use crate::hpca21::properties::check_promises;
use crate::testing::{large_step, traces};
use crate::{Machine, Place};
use proptest::prelude::*;
use trace::{Tier, PAGE_BYTES};

fn optane() -> Machine {
    Machine::by_name("optane").unwrap()
}

proptest! {
    #[test]
    fn every_plan_keeps_its_promises(trace in traces(), share in 0.001_f64..1.5, gbps in 0.01_f64..20.0) {
        check_promises(gap, &trace, share, gbps);
    }

    #[test]
    fn with_room_for_everything_nothing_that_is_used_is_slow(trace in traces()) {
        let profile = profile::fold(&trace).unwrap();
        let total: u64 = profile.buffers.iter().map(|buffer| buffer.size_bytes + PAGE_BYTES).sum();
        let plan = gap(&profile, 4 * total + PAGE_BYTES, &optane()).unwrap();
        prop_assert_eq!(plan.moved_bytes(), (0, 0));
        let slow = Place::Heap { tier: Tier::SLOW };
        prop_assert!(plan.slots.iter().all(|slot| slot.place != slow));
        prop_assert!(plan.units.iter().all(|unit| unit.accesses == 0 || unit.birth_tier == Tier::FAST));
    }
}

/// Two tensors of one page and room for one: the idle one makes way, comes back in time, and nothing is slower for it.
#[test]
fn a_tensor_that_idles_long_makes_room_and_returns() {
    let used = |op, slow_ns| GapUse { op, slow_ns, busy_ns: [0.0; 2] };
    let tensor = |birth_op, death_op, uses| GapTensor { size_bytes: 4096, birth_op, death_op, persistent: false, uses };
    let problem = GapProblem {
        base_ns: vec![1000.0; 8],
        memory_ns: vec![1000.0; 8],
        room_bytes: vec![4096; 8],
        tensors: vec![
            tensor(0, 7, vec![used(0, 500.0), used(7, 500.0)]),
            tensor(3, 4, vec![used(3, 900.0), used(4, 900.0)]),
        ],
        promote_rate: 4.096,
        demote_rate: 4.096,
        taken: [[0.0; 2]; 2],
        travel_beside_uses: true,
    };
    let choice = gap_choice(&problem);
    assert!((choice.step_ns - 8000.0).abs() < 1e-6, "{choice:?}");
    assert_eq!(
        choice.moves.iter().map(|step| (step.tensor, step.way)).collect::<Vec<_>>(),
        [(0, Way::Out), (0, Way::In)]
    );
    // Without bandwidth the longer stay costs a slow use at either end, or the shorter one both of its uses.
    let still = gap_choice(&GapProblem { promote_rate: 0.001, demote_rate: 0.001, ..problem });
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
    let plan = gap(&profile, profile.peak_live_bytes / 5, &optane()).unwrap();
    let elapsed = begin.elapsed();
    assert_eq!(plan.slots.len(), 100_000);
    assert!(plan.fast_bytes_by_layer(&profile).into_iter().max() <= Some(plan.fast_budget_bytes));
    println!(
        "{} units, {} moves: {elapsed:?}",
        plan.units.len(),
        plan.intervals.iter().map(|i| i.moves.len()).sum::<usize>()
    );
}
