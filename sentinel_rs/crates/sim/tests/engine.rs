//! The engine on steps that are small enough to be worked out by hand.

use plan::Machine;
use sim::{
    jittered, reordered, run, Carrier, Costs, Follower, MemoryTime, Outcome, Piece, PieceMove, Schedule, Setting,
};
use sim::{Policy as _, Ready, SimError, Workload, World};
use trace::{Access, Buffer, LayerSource, Op, Origin, StepTrace, Tier};

const MB: u64 = 1 << 20;
/// Each op takes this long.
const OP_NS: u64 = 1_000_000;

/// `op_count` ops in a layer each, of which every one reads all bytes of the buffers given as (size, birth, uses, death).
fn step(op_count: u32, buffers: &[(u64, u32, &[u32], u32)]) -> StepTrace {
    let op = |index: u32| Op {
        kernel: index,
        name: format!("op{index}"),
        kind: "Op".into(),
        layer: index,
        start_ns: u64::from(index) * OP_NS,
        end_ns: u64::from(index + 1) * OP_NS,
        predecessors: if index == 0 { vec![] } else { vec![index - 1] },
    };
    let mut ordinals = vec![0; op_count as usize];
    let mut buffer = |&(size_bytes, birth, uses, death): &(u64, u32, &[u32], u32)| {
        let ordinal = ordinals[birth as usize];
        ordinals[birth as usize] += 1;
        Buffer {
            size_bytes,
            origin: Origin::Step { op: birth, ordinal },
            death_op: Some(death),
            temporary: false,
            accesses: uses.iter().map(|&op| Access { op, write: false, bytes: size_bytes }).collect(),
        }
    };
    StepTrace {
        counts: None,
        tensorflow_version: "1.13.1".into(),
        step_number: 10,
        intra_op_threads: 1,
        inter_op_threads: 1,
        layer_source: LayerSource::Marked,
        ops: (0..op_count).map(op).collect(),
        buffers: buffers.iter().map(&mut buffer).collect(),
    }
}

/// Two tiers without latency, the slow one three times slower; one byte per nanosecond of migration.
fn machine(tiers: &str) -> Machine {
    let head =
        "name = \"hand\"\npromote_gbps = 1.0\ndemote_gbps = 1.0\nlines_in_flight_per_thread = 1.0\nthreads = 1\n";
    let mut machine = Machine::parse("hand", &format!("{head}{tiers}")).unwrap();
    // No machine has so little; times by hand are shorter without it.
    machine.tiers.iter_mut().for_each(|tier| tier.latency_ns = 1e-9);
    machine
}

const FAST: &str = "[[tiers]]\nname = \"f\"\nread_gbps = 30.0\nwrite_gbps = 30.0\nlatency_ns = 100.0\n";
const SLOW: &str = "[[tiers]]\nname = \"s\"\nread_gbps = 10.0\nwrite_gbps = 10.0\nlatency_ns = 100.0\n";
const SLOWER: &str = "[[tiers]]\nname = \"t\"\nread_gbps = 5.0\nwrite_gbps = 5.0\nlatency_ns = 100.0\n";

fn whole(buffer: u32, len_bytes: u64, birth_tier: Tier) -> Piece {
    Piece { buffer, len_bytes, birth_tier }
}

fn simulate(trace: &StepTrace, machine: &Machine, rate: f64, budget: u64, schedule: Schedule) -> (Workload, Outcome) {
    let workload = Workload::of("hand", trace).unwrap();
    let costs = Costs::new(&workload.profile, machine, MemoryTime::Share(1.0)).unwrap();
    let setting = Setting { budget_bytes: vec![budget, u64::MAX / 2], promote_rate: rate, demote_rate: rate };
    let outcome = run(&workload, &costs, &setting, &mut Follower::new(&workload, schedule).unwrap()).unwrap();
    (workload, outcome)
}

#[test]
fn a_memory_bound_op_takes_as_much_longer_as_its_tier_is_slower() {
    let trace = step(2, &[(MB, 0, &[0, 1], 1)]);
    let schedule = Schedule { pieces: vec![whole(0, MB, Tier::SLOW)], ..Schedule::default() };
    let (workload, outcome) = simulate(&trace, &machine(&format!("{FAST}{SLOW}")), 1.0, MB, schedule);
    assert!((outcome.sums.step_ns - 3.0 * workload.step_ns).abs() < 1.0, "{outcome:?}");
    assert!(outcome.settled);
}

#[test]
fn a_move_that_fits_its_gap_makes_the_use_fast() {
    // Read by ops 0 and 3; leaves during op 1 and comes back during op 2.
    let trace = step(4, &[(500_000, 0, &[0, 3], 3), (500_000, 1, &[1], 2)]);
    let moves = vec![
        PieceMove { piece: 0, to: Tier::SLOW, issue_op: 1, due_op: 2 },
        PieceMove { piece: 0, to: Tier::FAST, issue_op: 2, due_op: 3 },
    ];
    let pieces = vec![whole(0, 500_000, Tier::FAST), whole(1, 500_000, Tier::FAST)];
    let (workload, outcome) = simulate(
        &trace,
        &machine(&format!("{FAST}{SLOW}")),
        1.0,
        MB,
        Schedule { pieces, moves, ..Schedule::default() },
    );
    assert_eq!((outcome.sums.promoted_bytes, outcome.sums.demoted_bytes), (500_000, 500_000));
    // The eviction reads the fast device while op 1 wants all of it: rate / bandwidth, times the time scale, of its time.
    assert!(outcome.sums.step_ns >= workload.step_ns);
    assert!(outcome.sums.step_ns < 2.0 * workload.step_ns, "{outcome:?}");
}

#[test]
fn a_promotion_that_is_late_is_read_from_slow_memory_or_waited_for() {
    let trace = step(3, &[(2_500_000, 0, &[0, 2], 2)]);
    let moves = vec![PieceMove { piece: 0, to: Tier::FAST, issue_op: 1, due_op: 2 }];
    let pieces = vec![whole(0, 2_500_000, Tier::SLOW)];
    let schedule = Schedule { pieces, moves, ..Schedule::default() };
    let machine = machine(&format!("{FAST}{SLOW}"));
    let (_, reads) = simulate(&trace, &machine, 1.0, 4 * MB, schedule.clone());
    // Ops 0 and 2 take three times as long; and for the 1.5 ms for which the promotion goes on beside op 2, it takes half of
    // the slow device, so that only a quarter of the op is done then.
    assert!((reads.sums.step_ns - (3.0 + 1.0 + 1.5 + 0.75 * 3.0) * 1e6).abs() < 1e3, "{reads:?}");
    let waiting = Schedule { wait_for_promotions: true, ..schedule };
    let (_, waits) = simulate(&trace, &machine, 1.0, 4 * MB, waiting);
    assert!((waits.sums.stall_ns - 1_500_000.0).abs() < 1e3, "{waits:?}");
    assert!((waits.sums.step_ns - (3.0 + 2.5 + 1.0) * 1e6).abs() < 1e3, "{waits:?}");
}

#[test]
fn a_newborn_without_room_waits_or_overflows() {
    // The second buffer is born while the first one is leaving.
    let trace = step(3, &[(500_000, 0, &[0], 2), (500_000, 1, &[1, 2], 2)]);
    let pieces = vec![whole(0, 500_000, Tier::FAST), whole(1, 500_000, Tier::FAST)];
    let moves = vec![PieceMove { piece: 0, to: Tier::SLOW, issue_op: 1, due_op: 1 }];
    let schedule = Schedule { pieces, moves, ..Schedule::default() };
    let machine = machine(&format!("{FAST}{SLOW}"));
    let (_, overflows) = simulate(&trace, &machine, 1.0, 500_000, schedule.clone());
    assert_eq!(overflows.sums.overflow_bytes, 500_000);
    let (_, waits) = simulate(&trace, &machine, 1.0, 500_000, Schedule { wait_for_room: true, ..schedule });
    assert_eq!(waits.sums.overflow_bytes, 0);
    assert!((waits.sums.stall_ns - 500_000.0).abs() < 1.0, "{waits:?}");
    assert!(waits.sums.step_ns < overflows.sums.step_ns);
}

#[test]
fn three_tiers_are_three_speeds_and_moves_go_between_any_two() {
    let trace = step(3, &[(300_000, 0, &[0, 1, 2], 2)]);
    let machine = machine(&format!("{FAST}{SLOW}{SLOWER}"));
    for (tier, times) in [(0, 1.0), (1, 3.0), (2, 6.0)] {
        let schedule = Schedule { pieces: vec![whole(0, 300_000, Tier(tier))], ..Schedule::default() };
        let (workload, outcome) = simulate(&trace, &machine, 1.0, MB, schedule);
        assert!((outcome.sums.step_ns / workload.step_ns - times).abs() < 1e-3, "tier {tier}: {outcome:?}");
    }
    let moves = vec![
        PieceMove { piece: 0, to: Tier(1), issue_op: 0, due_op: 1 },
        PieceMove { piece: 0, to: Tier(0), issue_op: 1, due_op: 2 },
    ];
    let schedule = Schedule { pieces: vec![whole(0, 300_000, Tier(2))], moves, ..Schedule::default() };
    let (_, outcome) = simulate(&trace, &machine, 1.0, MB, schedule);
    // Born in the slowest tier after its move was to be issued, so only the second one happens; for its 0.3 ms op 1 has half
    // of the device.
    assert_eq!(outcome.sums.promoted_bytes, 300_000);
    assert!((outcome.sums.step_ns - (6.0 + 6.0 + 0.15 + 1.0) * 1e6).abs() < 1e3, "{outcome:?}");
}

#[test]
fn a_schedule_that_does_not_belong_to_the_step_is_refused() {
    let workload = Workload::of("hand", &step(2, &[(MB, 0, &[0], 1)])).unwrap();
    let short = Schedule { pieces: vec![whole(0, MB - 1, Tier::FAST)], ..Schedule::default() };
    assert!(matches!(Follower::new(&workload, short), Err(SimError::Malformed(_))));
    let stray = vec![PieceMove { piece: 3, to: Tier::SLOW, issue_op: 0, due_op: 1 }];
    let stray = Schedule { pieces: vec![whole(0, MB, Tier::FAST)], moves: stray, ..Schedule::default() };
    assert!(matches!(Follower::new(&workload, stray), Err(SimError::Malformed(_))));
}

/// The plan of the published policy, carried out by the code of `place`, moves what the plan says when there is time.
#[test]
fn a_plan_carried_out_in_time_moves_what_it_says() {
    let buffers: Vec<(u64, u32, Vec<u32>, u32)> =
        (0..8).map(|layer| (MB, layer, vec![layer, 15 - layer], 15 - layer)).collect();
    let buffers: Vec<(u64, u32, &[u32], u32)> = buffers.iter().map(|b| (b.0, b.1, b.2.as_slice(), b.3)).collect();
    let trace = step(16, &buffers);
    let machine = Machine::by_name("optane").unwrap();
    let workload = Workload::of("hand", &trace).unwrap();
    let costs = Costs::new(&workload.profile, &machine, MemoryTime::Share(0.5)).unwrap();
    let setting = Setting::with_m_hat(&workload, 4 * MB, 50.0);
    let plan = plan::hpca21(&workload.profile, 4 * MB, &setting.machine_for_planning(&machine)).unwrap();
    let said = plan.moved_bytes();
    assert!(said.0 > 0 && said.1 > 0);
    let outcome = run(&workload, &costs, &setting, &mut Carrier::new(&workload, plan, true).unwrap()).unwrap();
    assert_eq!((outcome.sums.promoted_bytes, outcome.sums.demoted_bytes), said);
    assert!(outcome.sums.fast_peak_bytes <= 4 * MB);
}

#[test]
fn disturbed_steps_are_well_formed_and_named_by_their_seed() {
    let trace = step(12, &[(MB, 0, &[0, 5], 7), (MB, 3, &[3, 4, 9], 11)]);
    for seed in 0..20 {
        let one = jittered(&trace, 0.2, seed);
        assert_eq!(one, jittered(&trace, 0.2, seed));
        assert!(one.violations().is_empty());
        let mut loose = trace.clone();
        for op in &mut loose.ops {
            (op.layer, op.predecessors) = (0, vec![]);
        }
        let other = reordered(&loose, 0.9, seed);
        assert!(other.violations().is_empty(), "{:?}", other.violations());
        assert!(seed > 3 || other != loose);
    }
}

#[test]
fn the_memory_share_is_found_from_the_ratio_and_a_ratio_beyond_the_machine_is_refused() {
    let trace = step(3, &[(MB, 0, &[0, 1, 2], 2)]);
    let workload = Workload::of("hand", &trace).unwrap();
    let machine = machine(&format!("{FAST}{SLOW}"));
    let costs = Costs::new(&workload.profile, &machine, MemoryTime::SlowRatio(1.8)).unwrap();
    assert!((costs.step_in_tier_ns(&workload.profile, Tier::SLOW) / workload.step_ns - 1.8).abs() < 1e-9);
    assert!((costs.memory_share - 0.6).abs() < 1e-6);
    assert!(Costs::new(&workload.profile, &machine, MemoryTime::SlowRatio(3.5)).is_err());
    // The recorded op of a millisecond has 0.035 ms of fast memory time; 0.105 ms of slow memory time hides behind it.
    let emulated = Costs::new(&workload.profile, &machine, MemoryTime::Emulated).unwrap();
    assert!((emulated.step_in_tier_ns(&workload.profile, Tier::SLOW) - workload.step_ns).abs() < 1.0);
    // Nothing to run twice: the step is the same from the first.
    let mut world_policy = Follower::new(&workload, Schedule::fixed(&workload, |_| Tier::FAST)).unwrap();
    let setting = Setting::with_m_hat(&workload, 2 * MB, 1.0);
    let mut world = World::new(&workload, &costs, &setting);
    assert_eq!(world_policy.before_op(&mut world, false).unwrap(), Ready::Yes);
}
