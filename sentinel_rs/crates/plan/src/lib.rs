//! Facts, a budget and a machine in; a plan out.
//!
//! May use the trace's vocabulary and the profile; must not know addresses, threads or the running process. Offsets are
//! relative to the plan's arena, and everything here is deterministic: the same input gives the same plan.

#![forbid(unsafe_code)]

mod all_fast;
mod check;
mod costs;
mod gap;
mod hpca21;
mod layout;
mod machine;
mod pack;
mod plan;
mod random;
mod roles;
#[cfg(test)]
mod testing;

use profile::Profile;

pub use all_fast::{all_fast, all_fast_load_bytes};
pub use costs::{Costs, Demand, MemoryTime, ModelError, OpCost, TierCost, MIGRATION_SHARE_MAX};
pub use gap::{
    gap, gap_choice, GapChoice, GapEffort, GapMove, GapProblem, GapTensor, GapUse, Issue, Migration, MoveTally, Way,
    PLANS_MAX,
};
pub use hpca21::hpca21;
pub use machine::{in_range, Machine, MachineError, TierSpec, GBPS_RANGE};
pub use pack::{load_bytes, pack, pack_ceil, pack_lifetimes, Effort, Item, Packing, PACK_ALIGN_BYTES};
pub use plan::{ArenaUse, Interval, Move, Place, Plan, PlanError, PoolRule, Slot, Unit, UnitHome};
pub use random::SplitMix;
pub use roles::{kernel_roles, KernelRole};

/// The policies that can be asked for by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// The published Sentinel.
    Hpca21,
    /// Sentinel's own: moves are decided per idle gap of each tensor.
    Gap,
    /// Fast memory to whoever asks first, no moves.
    FirstTouch,
    /// Everything in fast memory, no budget: the ceiling.
    FastOnly,
    /// Everything in slow memory: the floor.
    SlowOnly,
}

impl Policy {
    /// The policy of whoever asks for none.
    pub const DEFAULT: Policy = Policy::Gap;

    /// Every policy with its name, in the order in which lists print them.
    pub const NAMES: [(&'static str, Policy); 5] = [
        ("hpca21", Policy::Hpca21),
        ("gap", Policy::Gap),
        ("first_touch", Policy::FirstTouch),
        ("fast_only", Policy::FastOnly),
        ("slow_only", Policy::SlowOnly),
    ];

    /// Plans a step for `fast_budget_bytes` of fast memory on the machine that recorded it, whose memory is like `machine`'s;
    /// `None` for a policy that makes no plan.
    #[must_use]
    pub fn plan(self, profile: &Profile, fast_budget_bytes: u64, machine: &Machine) -> Option<Result<Plan, PlanError>> {
        match self {
            Policy::Hpca21 => Some(hpca21(profile, fast_budget_bytes, machine)),
            Policy::Gap => {
                let costs = Costs::as_emulated(profile, machine);
                Some(gap(profile, fast_budget_bytes, &costs, Migration::of(machine)))
            }
            Policy::FirstTouch | Policy::FastOnly | Policy::SlowOnly => None,
        }
    }

    /// The policy of that name.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Policy> {
        Self::NAMES.iter().find(|(known, _)| *known == name).map(|&(_, policy)| policy)
    }

    /// Whether it makes plans.
    #[must_use]
    pub fn plans(self) -> bool {
        matches!(self, Policy::Hpca21 | Policy::Gap)
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|&&(_, policy)| policy == self).map_or("", |&(name, _)| name)
    }
}
