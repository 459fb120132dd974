//! Every policy by its name, run on equal terms.

use crate::baselines::{first_touch, hotness, ial, interleave, layer_prefetch, static_optimum, MemoryMode};
use crate::engine::{run, Outcome};
use crate::{gap, gap_at_ops, Carrier, Costs, Follower, Schedule, Setting, SimError, Workload};
use plan::Machine;
use trace::Tier;

/// Ratios of throughputs above this are equal: what is printed has three digits.
pub const EQUAL: f64 = 0.999;

/// A policy that the simulator can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// Everything in the fastest tier, whatever the budget: the ceiling.
    FastOnly,
    /// Moves decided per idle gap, issued at layers: ours.
    Gap,
    /// The same, issued at ops.
    GapAtOps,
    /// The published Sentinel.
    Hpca21,
    /// Layers fetched ahead, after TierTrain.
    LayerPrefetch,
    /// The best placement without moves, after AutoTM.
    StaticOptimum,
    /// Hottest buffers fast, after MEMTIS.
    Hotness,
    /// Active and inactive lists, after Nimble.
    Ial,
    /// Fast memory as a hardware cache.
    MemoryMode,
    /// A share of every buffer.
    Interleave,
    /// Fast memory to whoever comes first.
    FirstTouch,
    /// Everything in the slowest tier: the floor.
    SlowOnly,
}

impl Named {
    /// All of them, in the order in which tables print them.
    pub const ALL: [(&'static str, Named); 12] = [
        ("fast_only", Named::FastOnly),
        ("gap", Named::Gap),
        ("gap_at_ops", Named::GapAtOps),
        ("hpca21", Named::Hpca21),
        ("layer_prefetch", Named::LayerPrefetch),
        ("static_optimum", Named::StaticOptimum),
        ("hotness", Named::Hotness),
        ("ial", Named::Ial),
        ("memory_mode", Named::MemoryMode),
        ("interleave", Named::Interleave),
        ("first_touch", Named::FirstTouch),
        ("slow_only", Named::SlowOnly),
    ];

    /// The policy of that name.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Named> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|&(_, named)| named)
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|&&(_, named)| named == self).map_or("", |&(name, _)| name)
    }

    /// Whether it is one to compare ours with: neither ours, nor the ceiling, which has no budget.
    #[must_use]
    pub fn is_rival(self) -> bool {
        !matches!(self, Named::Gap | Named::GapAtOps | Named::FastOnly)
    }

    /// Whether the result depends on the speed of migration.
    #[must_use]
    pub fn migrates(self) -> bool {
        matches!(
            self,
            Named::Gap | Named::GapAtOps | Named::Hpca21 | Named::LayerPrefetch | Named::Hotness | Named::Ial
        )
    }

    /// Plans, when the policy is one that plans, and runs to the steady state.
    ///
    /// # Errors
    /// When the policy cannot run with this budget, or breaks it.
    pub fn run(
        self,
        workload: &Workload,
        costs: &Costs,
        setting: &Setting,
        machine: &Machine,
    ) -> Result<Outcome, SimError> {
        let budget = setting.fast_budget_bytes();
        let follow = |setting: &Setting, schedule: Schedule| {
            run(workload, costs, setting, &mut Follower::new(workload, schedule)?)
        };
        match self {
            Named::FastOnly => {
                let unlimited = Setting { budget_bytes: vec![u64::MAX / 2; costs.tiers.len() - 1], ..setting.clone() };
                follow(&unlimited, Schedule::fixed(workload, |_| Tier::FAST))
            }
            Named::SlowOnly => {
                let slowest = Tier(u8::try_from(costs.tiers.len() - 1).unwrap_or(u8::MAX));
                follow(setting, Schedule::fixed(workload, |_| slowest))
            }
            Named::Gap => gap(workload, costs, setting),
            Named::GapAtOps => gap_at_ops(workload, costs, setting),
            Named::LayerPrefetch => follow(setting, layer_prefetch(workload, budget)),
            Named::StaticOptimum => follow(setting, static_optimum(workload, costs, budget)),
            Named::Hotness => run(workload, costs, setting, &mut hotness(workload)),
            Named::Ial => run(workload, costs, setting, &mut ial(workload)),
            Named::Interleave => run(workload, costs, setting, &mut interleave(workload, costs)),
            Named::FirstTouch => run(workload, costs, setting, &mut first_touch(workload)),
            Named::MemoryMode => run(workload, costs, setting, &mut MemoryMode::new(workload, budget)?),
            Named::Hpca21 => hpca21(workload, costs, setting, machine),
        }
    }
}

/// The published policy with its test-and-trial: when a plan's promotions may be late, both ways are tried, and the better
/// one stays.
fn hpca21(workload: &Workload, costs: &Costs, setting: &Setting, machine: &Machine) -> Result<Outcome, SimError> {
    let machine = setting.machine_for_planning(machine);
    let plan = plan::hpca21(&workload.profile, setting.fast_budget_bytes(), &machine)
        .map_err(|error| SimError::Malformed(error.to_string()))?;
    let waiting = run(workload, costs, setting, &mut Carrier::new(workload, plan.clone(), true)?)?;
    if !plan.may_be_late {
        return Ok(waiting);
    }
    let dropping = run(workload, costs, setting, &mut Carrier::new(workload, plan, false)?)?;
    Ok(if dropping.sums.step_ns < waiting.sums.step_ns { dropping } else { waiting })
}
