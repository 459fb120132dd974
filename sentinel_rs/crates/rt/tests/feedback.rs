//! What becomes of a plan when moves are slower than it assumed, and when they are as fast.

mod trainer;

use plan::{Machine, PLANS_MAX};
use rt::memory::Memory;
use rt::options;
use rt::runtime::Runtime;
use rt::stats::Report;
use rt::tiers::emulated::EmulatedTiers;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use trainer::{Trainer, FAST_BYTES};

/// Of an operation: in the time of a step, the slow moves of these tests are too few for a plan made for the fast ones.
const WORK: Duration = Duration::from_micros(50);

/// Of each tier; plans have four times as much address space.
const CAPACITY_BYTES: u64 = 8 << 30;

/// What is measured here is time: one test runs at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn machine(gbps: f64) -> Machine {
    Machine { promote_gbps: gbps, demote_gbps: gbps, ..Machine::by_name("optane").expect("built in") }
}

/// A training whose plans assume one speed of moves, in GB/s, while moves have the other. Slow memory delays nothing.
fn trainer(policy: &str, assumed_gbps: f64, real_gbps: f64) -> Trainer {
    Trainer::new(Arc::new(runtime(policy, machine(assumed_gbps), real_gbps, false)), WORK)
}

fn runtime(policy: &str, assumed: Machine, real_gbps: f64, delays: bool) -> Runtime {
    let variables = [
        ("SENTINEL_FAST", FAST_BYTES.to_string()),
        ("SENTINEL_POLICY", policy.to_owned()),
        ("SENTINEL_SLOW", "emulated:optane".to_owned()),
        ("SENTINEL_WARMUP_STEPS", "2".to_owned()),
    ];
    let variables = variables.map(|(name, value)| (name.to_owned(), value));
    let options = options::parse(&[], &variables).expect("good options").expect("a budget was set");
    let tiers = Arc::new(EmulatedTiers::new(machine(real_gbps), "emulated:optane".to_owned()));
    let memory =
        Memory::reserve(Arc::<EmulatedTiers>::clone(&tiers), CAPACITY_BYTES, FAST_BYTES).expect("address space");
    let emulated = delays.then_some(tiers);
    let runtime = Runtime::assemble(options, Arc::new(memory), assumed, emulated).expect("threads");
    runtime.set_threads(2, 1);
    runtime
}

#[test]
fn moves_ten_times_slower_than_assumed_are_planned_again_and_become_fewer() {
    let _alone = alone();
    let mut trainer = trainer("gap", 10.0, 1.0);
    let first = trainer.train_until(|report| report.steps_managed >= 4);
    assert_eq!(plans_for_speeds(&first), 1, "so few moves say little");

    let again = trainer.train_until(|report| plans_for_speeds(report) > 1);
    let after = trainer.train_until(|report| report.steps_managed >= again.steps_managed + 100);
    assert!(after.plans_made <= u64::from(PLANS_MAX), "{after:?}");
    let (before, now) = (first.planned_move_bytes, after.planned_move_bytes);
    assert!(2 * now < before, "{now} bytes after {before}: {after:?}");
    follows_well(&after);
    assert!(after.demote_gbps_measured.is_some(), "{after:?}");
    for gbps in [after.promote_gbps_measured, after.demote_gbps_measured] {
        assert!(gbps.is_none_or(|gbps| gbps < 1.5), "{after:?}");
    }
    let runtime = Arc::clone(&trainer.runtime);
    everything_dies(trainer);
    let free_bytes: u64 = std::iter::from_fn(|| runtime.memory.plan_range(1)).map(|_| 1 << 30).sum();
    assert_eq!(free_bytes, 4 * CAPACITY_BYTES, "address space of plans that are not followed any more is free");
}

#[test]
fn without_room_for_another_plan_the_first_one_stays() {
    let _alone = alone();
    let mut trainer = trainer("gap", 10.0, 1.0);
    trainer.train_until(|report| report.steps_managed >= 2);
    while trainer.runtime.memory.plan_range(1).is_some() {}
    let before = trainer.runtime.report();
    // Half a second of moves in one direction, of which two tenths will do.
    let after = trainer.train_until(|report| report.promoted_bytes.max(report.demoted_bytes) > 500 << 20);
    assert_eq!((after.plans_made, after.steps_unmanaged), (1, before.steps_unmanaged), "{after:?}");
    follows_well(&after);
    everything_dies(trainer);
}

/// The first plan, and those made again because moves ran at other speeds than assumed. How long operations take depends on
/// what else the machine does, and may call for plans in any of these tests.
fn plans_for_speeds(report: &Report) -> u64 {
    report.plans_made - report.plans_for_op_times
}

/// Steps follow one plan from their begin to their end: allocations may find fast memory full, but nothing else.
fn follows_well(report: &Report) {
    assert_eq!((report.state.as_str(), report.steps_profiled, report.panics_caught), ("managed", 1, 0), "{report:?}");
    let misses = [report.slot_misses_busy, report.slot_misses_unknown, report.slot_misses_size];
    assert_eq!(misses, [0; 3], "{report:?}");
}

/// A training that moves at 1 GB/s, or what the machine makes of it, where plans assume the speeds of `assumed`, and slow
/// memory delays operations. It lasts until four tenths of a second of moves in one direction, of which two would do.
fn moved(assumed: Machine) -> Report {
    let mut trainer = Trainer::new(Arc::new(runtime("gap", assumed, 1.0, true)), WORK);
    let none = trainer.runtime.report();
    assert_eq!((none.promote_gbps_measured, none.demote_gbps_measured), (None, None));
    let report = trainer.train_until(|report| moves_much(report) || report.steps_seen >= 900);
    assert!(report.emulated_delay_ns > 0, "{report:?}");
    everything_dies(trainer);
    report
}

fn moves_much(report: &Report) -> bool {
    report.promoted_bytes.max(report.demoted_bytes) > 400 << 20
}

#[test]
fn moves_as_fast_as_assumed_leave_the_plan_as_it_is() {
    let _alone = alone();
    let keeps_its_plan = |report: &Report| moves_much(report) && plans_for_speeds(report) == 1;
    let mut tries = Vec::new();
    let kept = (0..5).any(|_| {
        let first = moved(machine(1.0));
        let measured = (first.promote_gbps_measured, first.demote_gbps_measured);
        let (Some(promote_gbps), Some(demote_gbps)) = measured else { panic!("{first:?}") };
        assert!(promote_gbps.max(demote_gbps) < 1.1, "{first:?}");
        if keeps_its_plan(&first) {
            return true;
        }
        // That may be so only where others keep the processor busy, and then those are the speeds to assume.
        assert!(promote_gbps.min(demote_gbps) < 0.9, "{first:?}");
        let second = moved(Machine { promote_gbps, demote_gbps, ..machine(1.0) });
        let kept = plans_for_speeds(&second) == 1;
        tries.push((first, second));
        kept
    });
    assert!(kept, "{tries:?}");
}

#[test]
fn the_published_policy_keeps_its_plan() {
    let _alone = alone();
    let mut trainer = trainer("hpca21", 10.0, 1.0);
    let report = trainer.train_until(|report| report.promoted_bytes.max(report.demoted_bytes) > 500 << 20);
    assert_eq!(report.plans_made, 1, "{report:?}");
    everything_dies(trainer);
}

/// What replaced plans held is given back, as well as what the last one holds.
fn everything_dies(mut trainer: Trainer) {
    for weight in std::mem::take(&mut trainer.weights) {
        trainer.free(weight);
    }
    trainer.runtime.graph_closes(trainer.graph);
    let waited = std::time::Instant::now();
    while trainer.runtime.memory.budget.used() > 0 && waited.elapsed().as_secs() < 10 {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(trainer.runtime.memory.budget.used(), 0, "{:?}", trainer.runtime.report());
}
