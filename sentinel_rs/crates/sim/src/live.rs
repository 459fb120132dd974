//! What a step of the live runtime takes on its emulated tier: the plan that the runtime makes from the same recording,
//! carried out, with as many ops at a time as the recording session had threads for them.

use crate::engine::{run, Outcome};
use crate::parallel::{parallel_step_ns, OpLoad};
use crate::workload::to_f64;
use crate::{slowed, Carrier, Named, Setting, SimError, Workload};
use plan::{Costs, Machine, Policy};
use profile::{fold, FoldError, Profile};
use trace::StepTrace;

/// A recorded step and the time that it takes all fast.
#[derive(Clone, Debug)]
pub struct LiveStep {
    /// As recorded: what the runtime plans from.
    planned_from: Profile,
    /// What runs: the same step with op times that add up to the all-fast step.
    pub workload: Workload,
    /// Time of a step with everything in the fastest tier.
    pub all_fast_ns: f64,
}

impl LiveStep {
    /// The step of a trace. `all_fast_ns` is what a step takes all fast in training: one recorded step, in which ops run
    /// alone, says how the time is divided among ops, and not how long it is. Without it, op times stay as recorded.
    ///
    /// # Errors
    /// When the trace has no op or breaks a rule of well-formed traces.
    pub fn of(name: &str, trace: &StepTrace, all_fast_ns: Option<f64>) -> Result<LiveStep, FoldError> {
        let planned_from = fold(trace)?;
        let as_recorded = Workload::of(name, trace)?;
        let recorded_ns = all_fast_ns_of(&planned_from, &as_recorded);
        let all_fast_ns = all_fast_ns.unwrap_or(recorded_ns);
        let workload = Workload::of(name, &slowed(trace, all_fast_ns / recorded_ns.max(1.0)))?;
        Ok(LiveStep { planned_from, workload, all_fast_ns })
    }

    /// Why [`step_bound`](crate::step_bound) of this step and [`Costs::as_emulated`] says nothing about what [`LiveStep::run`] gives; `None`
    /// when it bounds that.
    #[must_use]
    pub fn unbounded(&self, machine: &Machine) -> Option<&'static str> {
        if self.planned_from.inter_op_threads > 1 {
            Some("the step was recorded with several ops at a time, and the bound is of ops one after another")
        } else if machine.has_page_faults() {
            Some("slow memory is emulated beside an op's work, and the bound is of page faults, beside which nothing works")
        } else {
            None
        }
    }

    /// Runs a policy to its steady step, whose duration is that of ops that run side by side. The speed of moves is the
    /// machine's.
    ///
    /// # Errors
    /// When the policy cannot run with this budget, or breaks it.
    pub fn run(&self, policy: Named, machine: &Machine, fast_bytes: u64) -> Result<Outcome, SimError> {
        let costs = Costs::as_emulated(&self.workload.profile, machine);
        let setting = Setting::with_gbps(&costs, fast_bytes, machine.promote_gbps, machine.demote_gbps);
        let carry = |own: Policy, waits: bool| {
            let plan = own.plan(&self.planned_from, fast_bytes, machine);
            let plan = plan.ok_or_else(|| SimError::Malformed(format!("{}: it makes no plan", own.name())))?;
            let plan = plan.map_err(|error| SimError::Malformed(error.to_string()))?;
            let may_be_late = plan.may_be_late;
            let outcome = run(&self.workload, &costs, &setting, &mut Carrier::new(&self.workload, plan, waits)?)?;
            Ok((self.beside(outcome, &costs), may_be_late))
        };
        match policy {
            Named::Gap => Ok(carry(Policy::Gap, false)?.0),
            // Test and trial, as the runtime does it: both ways are timed when a promotion may be late.
            Named::Hpca21 => match carry(Policy::Hpca21, true)? {
                (waiting, false) => Ok(waiting),
                (waiting, true) => {
                    let (dropping, _) = carry(Policy::Hpca21, false)?;
                    Ok(if dropping.sums.step_ns < waiting.sums.step_ns { dropping } else { waiting })
                }
            },
            other => Ok(self.beside(other.run(&self.workload, &costs, &setting, machine)?, &costs)),
        }
    }

    /// The outcome with the duration of a step whose ops run side by side.
    fn beside(&self, mut outcome: Outcome, costs: &Costs) -> Outcome {
        let load = |(op, &(stall_ns, extra_ns)): (&plan::OpCost, &(f64, f64))| OpLoad {
            stall_ns,
            work_ns: op.base_ns,
            fast_ns: op.fast_ns,
            extra_ns,
        };
        let loads: Vec<OpLoad> = costs.ops.iter().zip(&outcome.waits).map(load).collect();
        let Profile { ops, inter_op_threads, intra_op_threads, .. } = &self.planned_from;
        outcome.sums.step_ns = parallel_step_ns(ops, &loads, *inter_op_threads, *intra_op_threads);
        outcome
    }
}

/// The recorded ops side by side, with everything in the fastest tier.
fn all_fast_ns_of(profile: &Profile, workload: &Workload) -> f64 {
    let load = |op: &crate::OpUse| OpLoad { work_ns: op.base_ns, ..OpLoad::default() };
    let loads: Vec<OpLoad> = workload.ops.iter().map(load).collect();
    let step_ns = parallel_step_ns(&profile.ops, &loads, profile.inter_op_threads, profile.intra_op_threads);
    if step_ns > 0.0 {
        step_ns
    } else {
        to_f64(1)
    }
}
