//! From a recording to a plan that steps can follow: fold, budget, policy, address.

use crate::buckets::Phase;
use crate::feedback::{Basis, Correction, Feedback};
use crate::managed::Managed;
use crate::memory::usize_of;
use crate::options::FastBudget;
use crate::recorder::Recording;
use crate::runtime::Runtime;
use crate::timing::with_times;
use place::{Arena, UnitState};
use plan::{Machine, Migration, Plan, PlanError, Policy, Unit, UnitHome};
use profile::Profile;
use std::sync::Arc;
use trace::{LayerSource, StepTrace, Tier};

/// Graphs whose step allocates less at its peak are left alone: there is nothing to gain.
const MIN_STEP_BYTES: u64 = 1 << 20;

impl Runtime {
    pub(crate) fn plan_from(&self, mut recording: Recording) -> Phase {
        if recording.trace.layer_source == LayerSource::Inferred {
            let layers = profile::infer_layers(&recording.trace);
            for (op, layer) in recording.trace.ops.iter_mut().zip(layers) {
                op.layer = layer;
            }
        }
        self.note_profiler(&recording.trace, recording.refusal.as_ref());
        self.write_trace(&recording.trace);
        let profile = match profile::fold(&recording.trace) {
            Ok(profile) => profile,
            Err(error) => {
                self.lock_steps().advise(format!("sentinel: the profiled step cannot be used: {error}"));
                return Phase::Unmanaged("its profile cannot be used");
            }
        };
        {
            let mut steps = self.lock_steps();
            steps.peak_bytes = steps.peak_bytes.max(recording.peak_live_bytes);
            if let FastBudget::Fraction(share) = self.options.fast {
                self.memory.budget.set_allowed(share_of(steps.peak_bytes, share));
            }
        }
        self.memory.trim();
        self.measure_budget();
        if profile.peak_live_bytes - profile.persistent_bytes < MIN_STEP_BYTES {
            return Phase::Unmanaged("it allocates too little");
        }
        let allowed = self.memory.budget.allowed();
        match self.first_plan(&profile, allowed) {
            None => Phase::Unmanaged("its policy makes no plan"),
            Some(Ok(plan)) => {
                if !self.fits(&plan, allowed) {
                    return Phase::Unmanaged("its budget is too small, and strictness was asked for");
                }
                let (addresses, layer_source) = (recording.addresses, recording.trace.layer_source);
                let trace = self.options.trace_path.is_some().then_some(recording.trace);
                let basis = Arc::new(Basis { profile, addresses, layer_source, trace });
                let Some(managed) = self.bind(plan, basis, 1, Migration::of(&self.machine)) else {
                    self.lock_steps().advise("sentinel: no address space is left for another plan".to_owned());
                    return Phase::Unmanaged("no address space was left");
                };
                self.counters.plans_made.count();
                Phase::Managed(managed)
            }
            Some(Err(error)) => {
                self.lock_steps().advise(format!("sentinel: no plan: {error}"));
                Phase::Unmanaged("no plan could be made")
            }
        }
    }

    /// `None` for a policy that makes no plan.
    fn first_plan(&self, profile: &Profile, allowed: u64) -> Option<Result<Plan, PlanError>> {
        if self.options.policy != Policy::FastOnly {
            return self.options.policy.plan(profile, allowed, &self.machine);
        }
        // With several operations at a time, steps take another order than the profiled one. What then finds its place taken
        // needs memory beside the arena, and both together are more than a heap that fits every order.
        if profile.inter_op_threads > 1 {
            return None;
        }
        let plan = plan::all_fast(profile);
        if let Ok(plan) = &plan {
            let mut steps = self.lock_steps();
            (steps.arena_bytes, steps.arena_load_bytes) = (plan.arena_bytes, plan::all_fast_load_bytes(profile));
        }
        Some(plan)
    }

    fn write_trace(&self, recorded: &StepTrace) {
        let Some(path) = &self.options.trace_path else { return };
        let outcome = trace::write(path, recorded);
        let mut steps = self.lock_steps();
        steps.trace_error = outcome.err().map(|error| error.to_string());
        if let Some(error) = steps.trace_error.clone() {
            steps.advise(format!("sentinel: {error}"));
        }
    }

    /// A plan for other speeds or times from the profile that `before` was made from; `None` when there is none to be had,
    /// and `before` stays.
    pub(crate) fn plan_again(&self, before: &Managed, correction: Correction) -> Option<Arc<Managed>> {
        let feedback = before.feedback.as_ref()?;
        let Correction { migration, op_times } = correction;
        log::info!(
            "sentinel: moves run at {:.2} GB/s to fast memory and at {:.2} GB/s to slow memory{}; planning again",
            migration.promote_rate,
            migration.demote_rate,
            if op_times.is_some() { ", operations take less time than in the profiled step" } else { "" }
        );
        let (promote_gbps, demote_gbps) = (migration.promote_rate, migration.demote_rate);
        let machine = Machine { promote_gbps, demote_gbps, ..self.machine.clone() };
        let basis = match &op_times {
            Some(times) => self.retimed(&feedback.basis, times),
            None => Arc::clone(&feedback.basis),
        };
        let allowed = self.memory.budget.allowed();
        let after = match self.options.policy.plan(&basis.profile, allowed, &machine)? {
            // Strictness asked for a plan that fits, and training has one.
            Ok(plan) if self.strict() && plan.fast_needed_bytes > allowed => None,
            Ok(plan) => self.bind(plan, basis, feedback.plans + 1, migration),
            Err(error) => {
                log::info!("sentinel: no plan: {error}; the one before stays");
                None
            }
        };
        if after.is_some() {
            self.counters.plans_made.count();
            self.counters.plans_for_op_times.add(u64::from(op_times.is_some()));
        }
        after
    }

    /// The same profile with other times by operation; whoever wanted the step as a file gets one with these times.
    fn retimed(&self, basis: &Basis, times: &[u64]) -> Arc<Basis> {
        let mut trace = basis.trace.clone();
        if let Some(trace) = &mut trace {
            for (op, time_ns) in trace.ops.iter_mut().zip(times) {
                op.end_ns = op.start_ns + time_ns;
            }
            self.write_trace(trace);
        }
        let (addresses, layer_source) = (basis.addresses.clone(), basis.layer_source);
        Arc::new(Basis { profile: with_times(&basis.profile, times), addresses, layer_source, trace })
    }

    /// Gives the plan addresses; `None` when none are left. It is plan number `plans` of its profile.
    fn bind(&self, plan: Plan, basis: Arc<Basis>, plans: u32, assumed: Migration) -> Option<Arc<Managed>> {
        let base = self.memory.plan_range(plan.arena_bytes)?;
        let profile = &basis.profile;
        let roles = plan::kernel_roles(profile);
        let persistent = |unit: &Unit| -> Arc<UnitState> {
            let UnitHome::Persistent { buffer, offset_bytes } = unit.home else {
                return Arc::new(UnitState::empty(0..0, Tier::SLOW));
            };
            let addr = basis.addresses[buffer as usize];
            let begin = addr + usize_of(offset_bytes);
            let len_bytes = profile.buffers[buffer as usize].size_bytes;
            self.memory.persistent_unit(addr, len_bytes, begin..begin + usize_of(unit.len_bytes))
        };
        let arena = Arc::new(Arena::bind(plan, base, &roles, persistent));
        self.memory.trim();
        self.memory.install(&arena);
        let plan = arena.plan();
        log::info!(
            "sentinel: plan of {} slots and {} units in {} intervals; {} of {} fast bytes needed",
            plan.slots.len(),
            plan.units.len(),
            plan.intervals.len(),
            plan.fast_needed_bytes,
            plan.fast_budget_bytes
        );
        let layer_source = basis.layer_source;
        // The published policy meets wrong speeds by test-and-trial alone.
        let asks = self.options.policy == Policy::Gap;
        let feedback = asks.then(|| Feedback::new(basis, plans, assumed));
        Some(Arc::new(Managed::new(arena, layer_source, feedback, assumed)))
    }

    /// Says when the budget is below what the policy needs; false when that must stop training.
    fn fits(&self, plan: &Plan, allowed: u64) -> bool {
        let mut steps = self.lock_steps();
        steps.needed_bytes = plan.fast_needed_bytes;
        if plan.fast_needed_bytes <= allowed {
            return true;
        }
        let asked = match self.options.fast {
            FastBudget::Fraction(share) => format!("fast_fraction = {share} (fast_bytes = {allowed})"),
            FastBudget::MemoryLimit => format!("the memory limit leaves {allowed} bytes to tensors"),
            FastBudget::Bytes(_) | FastBudget::Unlimited => format!("fast_bytes = {allowed}"),
        };
        let text = format!(
            "sentinel: {asked}: this graph needs at least {} bytes (short-lived tensors, the largest \
             long-lived one, and small blocks)",
            plan.fast_needed_bytes
        );
        if self.strict() {
            steps.stop = Some(text);
            return false;
        }
        steps.advise(format!("{text}; what does not fit lives in slow memory"));
        true
    }
}

/// A share of a peak in whole bytes.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)] // 0 < share <= 1
fn share_of(peak_bytes: u64, share: f64) -> u64 {
    (peak_bytes as f64 * share) as u64
}
