//! How a plan fares in steps that are not the step it was made for, beside first touch in the same steps.

use sim::{
    enlarged, gap_schedule, jittered, reordered, resized, run, Costs, Follower, MemoryTime, Named, Setting, Workload,
};
use trace::StepTrace;

use super::policies::Model;

/// Migration speeds in GB/s, each known to the planner; the lowest is met unknown as well.
const SPEEDS_GBPS: [f64; 5] = [0.5, 1.0, 2.15, 5.0, 11.0];
/// Op times change by up to this share.
const JITTER: f64 = 0.2;
/// Share of ops that come in another order.
const REORDERED: f64 = 0.05;
/// How much larger than the planned step a step is.
const LARGER: f64 = 1.1;
/// Share of the peak that is fast.
const FAST_SHARE: u64 = 5;
/// Of the random changes.
const SEED: u64 = 21;

/// One disturbance.
pub struct Case {
    /// What was disturbed.
    pub name: String,
    /// Throughput of the plan in the disturbed step ÷ that of first touch.
    pub ratio: f64,
}

/// Every disturbance of one model.
pub fn cases(model: &Model, machine: &plan::Machine) -> anyhow::Result<Vec<Case>> {
    let Model { workload, costs, trace, .. } = model;
    let budget = workload.profile.peak_live_bytes / FAST_SHARE;
    let speed = |gbps: f64| Setting::with_gbps(costs, budget, gbps, gbps);
    let planned_for = speed(machine.promote_gbps);
    let schedule = gap_schedule(workload, costs, &planned_for);
    let mut cases = Vec::new();
    let mut add = |name: String, workload: &Workload, setting: &Setting, schedule| -> anyhow::Result<()> {
        let costs = Costs::new(&workload.profile, machine, MemoryTime::Scale(model.kappa()))?;
        let ours = run(workload, &costs, setting, &mut Follower::new(workload, schedule)?)?;
        let first = Named::FirstTouch.run(workload, &costs, setting, machine)?;
        cases.push(Case { name, ratio: first.sums.step_ns / ours.sums.step_ns });
        Ok(())
    };
    for gbps in SPEEDS_GBPS {
        let setting = speed(gbps);
        add(format!("{gbps} GB/s"), workload, &setting, gap_schedule(workload, costs, &setting))?;
    }
    let stale = speed(SPEEDS_GBPS[0]);
    add(format!("{} GB/s, unknown", SPEEDS_GBPS[0]), workload, &stale, schedule.clone())?;
    let step = |changed: &StepTrace| Workload::of(&model.name, changed);
    add("op times ±20%".into(), &step(&jittered(trace, JITTER, SEED))?, &planned_for, schedule.clone())?;
    add("5% of ops reordered".into(), &step(&reordered(trace, REORDERED, SEED))?, &planned_for, schedule.clone())?;
    let larger = step(&enlarged(trace, LARGER))?;
    add("step 10% larger".into(), &larger, &planned_for, resized(&schedule, workload, &larger))?;
    Ok(cases)
}

/// The least ratio.
pub fn worst(cases: &[Case]) -> f64 {
    cases.iter().map(|case| case.ratio).fold(f64::INFINITY, f64::min)
}
