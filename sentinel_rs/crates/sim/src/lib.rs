//! A virtual machine with a virtual clock: what a step costs under any policy, on any machine, exactly and repeatably.
//!
//! May use trace, profile, plan and place, and carries plans out with the code of `place`; must not know the running
//! process, real time or the system. The same input gives the same result to the last bit.

#![forbid(unsafe_code)]

mod baselines;
mod bound;
mod carry;
mod engine;
mod follow;
mod gap;
mod live;
mod named;
mod online;
mod parallel;
mod perturb;
mod schedule;
mod setting;
mod tiers;
mod workload;
mod world;

pub use baselines::{first_touch, hotness, ial, interleave, layer_prefetch, static_optimum, MemoryMode};
pub use bound::{lower_bound, Bound, BoundEffort};
pub use carry::Carrier;
pub use engine::{run, run_step, Outcome, Policy, Ready, STEPS_MAX};
pub use follow::Follower;
pub use gap::{gap, gap_at_ops, gap_plan, gap_with_feedback, step_bound};
pub use live::LiveStep;
pub use named::{Named, EQUAL};
pub use online::{is_movable, Block, Blocks, Decide, Online};
pub use parallel::{parallel_step_ns, OpLoad};
pub use perturb::{enlarged, jittered, reordered, slowed};
pub use plan::SplitMix;
pub use plan::{Costs, Demand, MemoryTime, ModelError, OpCost, TierCost, MIGRATION_SHARE_MAX};
pub use schedule::{Piece, PieceMove, Schedule};
pub use setting::Setting;
pub use tiers::VirtualTiers;
pub use workload::{OpUse, Use, Workload};
pub use world::{Job, Server, SimError, Start, StepSums, Transfer, World};
