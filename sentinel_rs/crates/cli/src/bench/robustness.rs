//! How a plan fares in steps that are not the step it was made for, beside first touch in the same steps.

use sim::{enlarged, gap_with_feedback, jittered, reordered, Costs, MemoryTime, Named, Setting, Workload};
use trace::StepTrace;

use super::policies::Model;

/// Migration speeds in GB/s, each known to the planner; the lowest and the highest are met unknown as well, and learnt.
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
    let mut cases = Vec::new();
    let mut add = |name: String, changed: &Workload, setting: &Setting, assumed: &Setting| -> anyhow::Result<()> {
        let changed_costs = Costs::new(&changed.profile, machine, MemoryTime::Scale(model.kappa()))?;
        let ours = gap_with_feedback((workload, costs), assumed.migration(), changed, &changed_costs, setting)?;
        let first = Named::FirstTouch.run(changed, &changed_costs, setting, machine)?;
        cases.push(Case { name, ratio: first.sums.step_ns / ours.sums.step_ns });
        Ok(())
    };
    for gbps in SPEEDS_GBPS {
        let setting = speed(gbps);
        add(format!("{gbps} GB/s"), workload, &setting, &setting)?;
    }
    for gbps in [SPEEDS_GBPS[0], SPEEDS_GBPS[4]] {
        add(format!("{gbps} GB/s, unknown"), workload, &speed(gbps), &planned_for)?;
    }
    let step = |changed: &StepTrace| Workload::of(model.name, changed);
    let changes = [
        ("op times ±20%", jittered(trace, JITTER, SEED)),
        ("5% of ops reordered", reordered(trace, REORDERED, SEED)),
        ("step 10% larger", enlarged(trace, LARGER)),
    ];
    for (name, changed) in changes {
        add(name.into(), &step(&changed)?, &planned_for, &planned_for)?;
    }
    Ok(cases)
}

/// The least ratio.
pub fn worst(cases: &[Case]) -> f64 {
    cases.iter().map(|case| case.ratio).fold(f64::INFINITY, f64::min)
}
