//! The virtual machine's state: a clock, an account per tier, and two servers that move bytes.

use crate::setting::Setting;
use crate::workload::{to_f64, Workload};
use plan::Costs;
use std::collections::VecDeque;
use trace::Tier;

/// Bytes of a transfer that are too few to tell from rounding: it has arrived.
const ARRIVED_BYTES: f64 = 1e-3;

/// Why a run cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SimError {
    /// The policy cannot run with this budget.
    #[error("infeasible: needs {needed_bytes} fast bytes")]
    Infeasible {
        /// The least that it could run with, as far as it can tell.
        needed_bytes: u64,
    },
    /// The policy put more into a tier than the budget allows: a defect of the policy.
    #[error("{used_bytes} bytes in {tier} at op {op} of step {step}, the budget is {budget_bytes}")]
    OverBudget {
        /// Which tier.
        tier: Tier,
        /// Bytes there.
        used_bytes: u64,
        /// Bytes allowed.
        budget_bytes: u64,
        /// When.
        op: u32,
        /// When.
        step: u64,
    },
    /// The policy's plan does not belong to this step: a defect of the policy.
    #[error("{0}")]
    Malformed(String),
}

/// A wish to move something. What it is, only the policy knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Job {
    /// The policy's name for the thing.
    pub thing: u32,
    /// Which life of the thing is meant.
    pub life: u64,
    /// Bytes that travel.
    pub len_bytes: u64,
    /// Where it is.
    pub from: Tier,
    /// Where it goes.
    pub to: Tier,
    /// When it should have arrived, in the policy's own count: of ops or of layers over all steps.
    pub due: u64,
}

/// What a policy says to a job whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Go; the policy has reserved the destination's bytes. The bytes travel from this tier.
    Go(Tier),
    /// There is no need any more, or it is too late.
    Drop,
    /// There is no room at the destination now: ask again after something has changed.
    Wait,
}

/// A move under way.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Transfer {
    /// What.
    pub job: Job,
    /// Bytes that have not arrived.
    pub left_bytes: f64,
}

/// One direction's server.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Server {
    /// First issued, first served.
    pub queue: VecDeque<Job>,
    /// What is travelling.
    pub current: Option<Transfer>,
}

/// Sums over one step.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StepSums {
    /// Duration in recorded nanoseconds.
    pub step_ns: f64,
    /// Part of it in which ops waited for moves.
    pub stall_ns: f64,
    /// Bytes that arrived in a faster tier.
    pub promoted_bytes: u64,
    /// Bytes that arrived in a slower tier.
    pub demoted_bytes: u64,
    /// Time in which something travelled: towards faster tiers, and towards slower ones.
    pub moving_ns: [f64; 2],
    /// Bytes that wanted to be born in the fastest tier and found no room.
    pub overflow_bytes: u64,
    /// Promotions dropped because their op had begun.
    pub late_promotions: u64,
    /// Most bytes in the fastest tier at once.
    pub fast_peak_bytes: u64,
}

/// The virtual machine.
#[derive(Debug)]
pub struct World<'a> {
    /// What runs.
    pub workload: &'a Workload,
    /// What it costs.
    pub costs: &'a Costs,
    /// Budgets and migration speed.
    pub setting: &'a Setting,
    /// Op index of now.
    pub op: u32,
    /// Step of now, from 0.
    pub step: u64,
    /// Time since the step's begin.
    pub clock_ns: f64,
    /// Of this step so far.
    pub sums: StepSums,
    /// By op: waiting for moves before it, and memory time beyond all-fast, in the latest step in which it ran.
    pub waits: Vec<(f64, f64)>,
    used: Vec<u64>,
    pub(crate) promotions: Server,
    pub(crate) demotions: Server,
}

impl<'a> World<'a> {
    /// A machine in which nothing has happened.
    #[must_use]
    pub fn new(workload: &'a Workload, costs: &'a Costs, setting: &'a Setting) -> World<'a> {
        World {
            workload,
            costs,
            setting,
            op: 0,
            step: 0,
            clock_ns: 0.0,
            sums: StepSums::default(),
            waits: vec![(0.0, 0.0); workload.ops.len()],
            used: vec![0; costs.tiers.len()],
            promotions: Server::default(),
            demotions: Server::default(),
        }
    }

    /// The slowest tier.
    #[must_use]
    pub fn slowest(&self) -> Tier {
        Tier(u8::try_from(self.costs.tiers.len() - 1).unwrap_or(u8::MAX))
    }

    /// Bytes in a tier, with destinations of moves under way.
    #[must_use]
    pub fn used(&self, tier: Tier) -> u64 {
        self.used[usize::from(tier.0)]
    }

    /// Bytes that a tier can still take.
    #[must_use]
    pub fn room(&self, tier: Tier) -> u64 {
        match self.setting.budget_bytes.get(usize::from(tier.0)) {
            Some(&budget) if tier < self.slowest() => budget.saturating_sub(self.used(tier)),
            _ => u64::MAX / 2,
        }
    }

    /// Bytes come to a tier.
    ///
    /// # Errors
    /// When the tier's budget does not hold them.
    pub fn fill(&mut self, tier: Tier, bytes: u64) -> Result<(), SimError> {
        if bytes > self.room(tier) {
            let budget_bytes = self.setting.budget_bytes[usize::from(tier.0)];
            let used_bytes = self.used(tier) + bytes;
            return Err(SimError::OverBudget { tier, used_bytes, budget_bytes, op: self.op, step: self.step });
        }
        self.used[usize::from(tier.0)] += bytes;
        self.sums.fast_peak_bytes = self.sums.fast_peak_bytes.max(self.used[0]);
        Ok(())
    }

    /// Bytes leave a tier.
    ///
    /// # Errors
    /// When there are fewer.
    pub fn drain(&mut self, tier: Tier, bytes: u64) -> Result<(), SimError> {
        let used = &mut self.used[usize::from(tier.0)];
        *used = used
            .checked_sub(bytes)
            .ok_or_else(|| SimError::Malformed(format!("{bytes} bytes leave {tier}, which holds fewer")))?;
        Ok(())
    }

    /// Op index counted over all steps.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.step * self.ops() + u64::from(self.op)
    }

    /// Ops of a step.
    #[must_use]
    pub fn ops(&self) -> u64 {
        self.workload.ops.len() as u64
    }

    /// The absolute op index of an op at or after now: an op that is over in this step is meant in the next.
    #[must_use]
    pub fn next_time(&self, op: u32) -> u64 {
        self.step * self.ops() + u64::from(op) + if op <= self.op { self.ops() } else { 0 }
    }

    /// Puts a move into its direction's queue.
    pub fn issue(&mut self, job: Job) {
        self.server_mut(job.to < job.from).queue.push_back(job);
    }

    /// Moves of a direction that wait or travel.
    pub fn pending(&self, promotion: bool) -> impl Iterator<Item = &Job> {
        let server = self.server(promotion);
        server.current.iter().map(|transfer| &transfer.job).chain(&server.queue)
    }

    /// Drops waiting moves that `keep` refuses; returns how many.
    pub fn retain(&mut self, promotion: bool, keep: impl Fn(&Job) -> bool) -> u64 {
        let queue = &mut self.server_mut(promotion).queue;
        let before = queue.len();
        queue.retain(keep);
        (before - queue.len()) as u64
    }

    /// Ends a transfer under way without arrival, when `is` says that it is the one.
    pub fn cancel(&mut self, is: impl Fn(&Job) -> bool) -> Option<Job> {
        for promotion in [true, false] {
            let current = &mut self.server_mut(promotion).current;
            if let Some(transfer) = current.take_if(|transfer| is(&transfer.job)) {
                return Some(transfer.job);
            }
        }
        None
    }

    pub(crate) fn server(&self, promotion: bool) -> &Server {
        if promotion {
            &self.promotions
        } else {
            &self.demotions
        }
    }

    pub(crate) fn server_mut(&mut self, promotion: bool) -> &mut Server {
        if promotion {
            &mut self.promotions
        } else {
            &mut self.demotions
        }
    }

    fn rate(&self, promotion: bool) -> f64 {
        if promotion {
            self.setting.promote_rate
        } else {
            self.setting.demote_rate
        }
    }

    /// Parts of the devices' time that moves under way take.
    pub(crate) fn taken(&self) -> Vec<f64> {
        let mut taken = vec![0.0; self.costs.tiers.len()];
        for promotion in [true, false] {
            if let Some(transfer) = &self.server(promotion).current {
                self.costs.add_move(&mut taken, self.rate(promotion), transfer.job.from, transfer.job.to);
            }
        }
        taken
    }

    /// Time until the next move arrives, if one is under way.
    pub(crate) fn next_arrival_ns(&self) -> Option<f64> {
        let left = |promotion: bool| {
            self.server(promotion).current.as_ref().map(|transfer| transfer.left_bytes / self.rate(promotion))
        };
        match (left(true), left(false)) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Lets time pass; returns moves that arrived, evictions first.
    pub(crate) fn pass(&mut self, duration_ns: f64) -> Vec<Job> {
        self.clock_ns += duration_ns;
        let mut arrived = Vec::new();
        for promotion in [false, true] {
            let moved = duration_ns * self.rate(promotion);
            if self.server(promotion).current.is_some() {
                self.sums.moving_ns[usize::from(!promotion)] += duration_ns;
            }
            let current = &mut self.server_mut(promotion).current;
            if let Some(transfer) = current {
                transfer.left_bytes -= moved;
                if transfer.left_bytes <= ARRIVED_BYTES {
                    arrived.push(transfer.job);
                    *current = None;
                }
            }
        }
        arrived
    }

    pub(crate) fn depart(&mut self, promotion: bool, job: Job) {
        self.server_mut(promotion).current = Some(Transfer { job, left_bytes: to_f64(job.len_bytes) });
    }

    pub(crate) fn count_arrival(&mut self, job: &Job) {
        if job.to < job.from {
            self.sums.promoted_bytes += job.len_bytes;
        } else {
            self.sums.demoted_bytes += job.len_bytes;
        }
    }
}
