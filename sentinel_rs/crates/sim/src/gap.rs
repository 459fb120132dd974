//! Sentinel's own policy in the simulator, and the lower bound on what any policy can do.

use crate::engine::{run, Outcome};
use crate::workload::to_f64;
use crate::{lower_bound, Bound, BoundEffort, Carrier, Costs, Setting, SimError, Workload};
use plan::{GapProblem, GapTensor, Migration, MoveTally, Plan};
use profile::{Class, LayerFacts, Profile};

/// No schedule makes the step faster, whichever of the tiers below the fastest it uses.
#[must_use]
pub fn step_bound(workload: &Workload, costs: &Costs, setting: &Setting, effort: BoundEffort) -> Bound {
    let budget = i64::try_from(setting.fast_budget_bytes()).unwrap_or(i64::MAX);
    let room = vec![budget; workload.ops.len()];
    let mut problem = GapProblem::of_ops(&workload.profile, costs, setting.migration(), room);
    for facts in &workload.profile.buffers {
        if facts.class != Class::External && facts.size_bytes > 0 {
            let below = 1..=costs.tiers.len() - 1;
            problem.tensors.push(GapTensor::part(facts, costs, below, facts.size_bytes, 1.0));
        }
    }
    lower_bound(&problem, effort)
}

/// The plan of the policy `gap`.
///
/// # Errors
/// When the step has no op or the budget is zero.
pub fn gap_plan(workload: &Workload, costs: &Costs, setting: &Setting) -> Result<Plan, SimError> {
    planned(&workload.profile, costs, setting.fast_budget_bytes(), setting.migration())
}

fn planned(profile: &Profile, costs: &Costs, budget_bytes: u64, migration: Migration) -> Result<Plan, SimError> {
    plan::gap(profile, budget_bytes, costs, migration).map_err(|error| SimError::Malformed(error.to_string()))
}

/// The policy `gap`: its plan, carried out.
///
/// # Errors
/// As [`gap_plan`] and [`run`].
pub fn gap(workload: &Workload, costs: &Costs, setting: &Setting) -> Result<Outcome, SimError> {
    run(workload, costs, setting, &mut Carrier::new(workload, gap_plan(workload, costs, setting)?, false)?)
}

/// The policy `gap` with moves issued at every op: the same step with each op a layer of its own.
///
/// # Errors
/// As [`gap`].
pub fn gap_at_ops(workload: &Workload, costs: &Costs, setting: &Setting) -> Result<Outcome, SimError> {
    let apart = Workload { profile: one_op_per_layer(&workload.profile), ..workload.clone() };
    gap(&apart, costs, setting)
}

/// The policy `gap` planned for another speed of moves than they have: it measures the speed while it runs, and plans again
/// when that is off, until it is not.
///
/// `planned_for` is the step that was profiled, `workload` the one that runs.
///
/// # Errors
/// As [`gap`].
pub fn gap_with_feedback(
    planned_for: (&Workload, &Costs),
    mut assumed: Migration,
    workload: &Workload,
    costs: &Costs,
    setting: &Setting,
) -> Result<Outcome, SimError> {
    let mut plans = 0;
    loop {
        let plan = planned(&planned_for.0.profile, planned_for.1, setting.fast_budget_bytes(), assumed)?;
        let outcome = run(workload, costs, setting, &mut Carrier::new(workload, plan, false)?)?;
        plans += 1;
        let sums = &outcome.sums;
        let tally = MoveTally {
            moved_bytes: [to_f64(sums.promoted_bytes), to_f64(sums.demoted_bytes)],
            busy_ns: sums.moving_ns,
        };
        match assumed.corrected(&tally).filter(|_| plans < plan::PLANS_MAX) {
            Some(corrected) => assumed = corrected,
            None => return Ok(outcome),
        }
    }
}

/// The same facts with a layer for each op.
fn one_op_per_layer(profile: &Profile) -> Profile {
    let number = |index: usize| u32::try_from(index).unwrap_or(u32::MAX);
    let mut apart = profile.clone();
    for (index, op) in apart.ops.iter_mut().enumerate() {
        op.layer = number(index);
    }
    let layer = |(index, op): (usize, &profile::OpFacts)| LayerFacts {
        first_op: number(index),
        last_op: number(index),
        time_ns: op.time_ns,
    };
    apart.layers = profile.ops.iter().enumerate().map(layer).collect();
    for facts in &mut apart.buffers {
        facts.layers = facts.uses.iter().map(|used| used.op).collect();
        if matches!(facts.class, Class::ShortLived | Class::LongLived) {
            facts.layers.insert(0, facts.birth_op);
            facts.layers.dedup();
            facts.class = if facts.birth_op == facts.death_op { Class::ShortLived } else { Class::LongLived };
        }
    }
    apart
}
