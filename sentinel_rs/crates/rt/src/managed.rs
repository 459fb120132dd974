//! One plan being followed: layer by layer, through the steps of one graph.

use crate::buckets::LateChoice;
use crate::memory::{usize_of, Memory};
use crate::mover::{Job, Mover};
use crate::stats::Counters;
use place::Arena;
use std::sync::atomic::{fence, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use trace::{page_ceil, LayerSource, Tier, PAGE_BYTES};

/// The smallest piece by which the pool grows when the budget cannot give all at once.
const POOL_STEP_BYTES: u64 = 64 << 10;

/// The first steps find persistent tensors where they were before the plan; they say nothing about late promotions.
const SETTLING_STEPS: u64 = 2;
/// So many operations may run before their layer without pulling the step forward.
const EARLY_OPS: u32 = 8;

/// A bound plan and how far training is in it.
#[derive(Debug)]
pub struct Managed {
    /// The plan at its address.
    pub arena: Arc<Arena>,
    /// Where its layers come from.
    pub layer_source: LayerSource,
    layers: u32,
    /// Moves in order of their layers, from all intervals.
    moves: Vec<plan::Move>,
    /// Steps that were begun with this plan.
    steps: AtomicU64,
    /// The layer of the current step, plus one; 0 before its first operation.
    reached: AtomicU32,
    /// Fast bytes that the pool holds now.
    pool_now_bytes: AtomicU64,
    /// Operations of later layers that ran before their turn since the last boundary.
    early: AtomicU32,
    late: Mutex<LateChoice>,
    /// Only one thread walks over a layer boundary.
    boundary: Mutex<()>,
}

impl Managed {
    /// A plan that no step has followed yet.
    #[must_use]
    pub fn new(arena: Arc<Arena>, layer_source: LayerSource) -> Managed {
        let plan = arena.plan();
        let layers = u32::try_from(plan.layer_first_op.len()).unwrap_or(u32::MAX).max(1);
        let mut moves: Vec<plan::Move> = plan.intervals.iter().flat_map(|interval| interval.moves.clone()).collect();
        moves.sort_by_key(|step| step.issue_layer);
        Managed {
            layer_source,
            layers,
            moves,
            steps: AtomicU64::new(0),
            reached: AtomicU32::new(0),
            pool_now_bytes: AtomicU64::new(0),
            early: AtomicU32::new(0),
            late: Mutex::new(LateChoice::Untried),
            boundary: Mutex::new(()),
            arena,
        }
    }

    /// Layers in a step.
    #[must_use]
    pub fn layers(&self) -> u32 {
        self.layers
    }

    /// Fast bytes that the short-lived pool holds now.
    #[must_use]
    pub fn pool_now_bytes(&self) -> u64 {
        self.pool_now_bytes.load(Ordering::SeqCst)
    }

    /// True when a step has followed the plan.
    #[must_use]
    pub fn was_followed(&self) -> bool {
        self.steps.load(Ordering::Relaxed) > 0
    }

    /// What became of late promotions.
    #[must_use]
    pub fn late_choice(&self) -> LateChoice {
        *self.late.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A step begins. When the step before did not follow this plan, persistent units are sent where the plan begins.
    pub fn step_begins(&self, resumed: bool, memory: &Memory, mover: &Mover, counters: &Counters) {
        let step = self.steps.fetch_add(1, Ordering::Relaxed);
        self.reached.store(0, Ordering::Release);
        if resumed {
            let plan = self.arena.plan();
            let base = step * u64::from(self.layers);
            let homes = plan.units.iter().zip(self.arena.units()).filter_map(|(unit, state)| {
                let persistent = matches!(unit.home, plan::UnitHome::Persistent { .. });
                persistent.then(|| Job { unit: Arc::clone(state), to: unit.birth_tier, due: base })
            });
            mover.advance(base, homes);
        }
        self.reach(0, memory, mover, counters);
    }

    /// An operation of `layer` begins; the first one carries the step over the boundary.
    pub fn reach(&self, layer: u32, memory: &Memory, mover: &Mover, counters: &Counters) {
        let reached = self.reached.load(Ordering::Acquire);
        if layer < reached {
            return;
        }
        // With several inter-op threads an operation with few inputs may run long before its layer. That says nothing about
        // where the step is, until more than a few do.
        if layer > reached && self.early.fetch_add(1, Ordering::Relaxed) < EARLY_OPS {
            return;
        }
        self.early.store(0, Ordering::Relaxed);
        let _alone = self.boundary.lock().unwrap_or_else(PoisonError::into_inner);
        for entered in self.reached.load(Ordering::Acquire)..=layer {
            self.enter_layer(entered, memory, mover, counters);
            self.reached.store(entered + 1, Ordering::Release);
        }
        let now = self.steps.load(Ordering::Relaxed).saturating_sub(1) * u64::from(self.layers) + u64::from(layer);
        memory.placement.at_boundary(self.arena.units(), &*memory.tiers, |unit| mover.may_take_its_time(unit, now));
    }

    fn enter_layer(&self, layer: u32, memory: &Memory, mover: &Mover, counters: &Counters) {
        let plan = self.arena.plan();
        let step = self.steps.load(Ordering::Relaxed).saturating_sub(1);
        let now = step * u64::from(self.layers) + u64::from(layer);
        let first = self.moves.partition_point(|m| m.issue_layer < layer);
        let due_now = self.moves[first..].iter().take_while(|m| m.issue_layer == layer);
        let jobs = due_now.map(|m| {
            // A move that is due in an earlier layer than it is issued in is due in the next step.
            let later = if m.due_layer < m.issue_layer || m.due_layer == layer && m.to == Tier::FAST {
                u64::from(self.layers)
            } else {
                0
            };
            let due = step * u64::from(self.layers) + u64::from(m.due_layer) + later;
            Job { unit: Arc::clone(&self.arena.units()[m.unit as usize]), to: m.to, due }
        });
        mover.advance(now, jobs);
        let Some(interval) = plan.intervals.iter().find(|i| i.first_layer <= layer && layer <= i.last_layer) else {
            return;
        };
        if interval.first_layer == layer {
            self.note_late(mover.outstanding(now));
            if self.late_choice().waits() {
                let stalled = mover.await_promotions(now);
                counters.stall_ns.add(u64::try_from(stalled.as_nanos()).unwrap_or(u64::MAX));
            } else {
                counters.late_promotions.add(mover.drop_late(now));
            }
        }
        self.size_pool(interval.pool_bytes, memory);
    }

    /// The first late promotion starts the trial.
    fn note_late(&self, outstanding: usize) {
        if outstanding > 0 && self.steps.load(Ordering::Relaxed) > SETTLING_STEPS {
            let mut late = self.late.lock().unwrap_or_else(PoisonError::into_inner);
            if *late == LateChoice::Untried {
                *late = LateChoice::TryWaiting;
            }
        }
    }

    /// Sizes the pool's fast part: shrinks to what is still alive at most, grows as far as the budget goes.
    fn size_pool(&self, wanted_bytes: u64, memory: &Memory) {
        let now = self.pool_now_bytes.load(Ordering::Relaxed);
        if wanted_bytes < now {
            // First forbid, then look at who is there, then release.
            self.pool_now_bytes.store(wanted_bytes, Ordering::SeqCst);
            fence(Ordering::SeqCst);
            let kept = wanted_bytes.max(self.arena.pool_claimed_end()).min(now);
            self.pool_now_bytes.store(kept, Ordering::SeqCst);
            self.drop_pool_pages(kept, now, memory);
            memory.budget.release(now - kept);
            return;
        }
        let mut grown = now;
        let mut piece = wanted_bytes - now;
        while piece > 0 && grown < wanted_bytes {
            let ask = piece.min(wanted_bytes - grown);
            if memory.budget.try_reserve(ask) {
                grown += ask;
            } else if piece > POOL_STEP_BYTES {
                piece /= 2;
            } else {
                break;
            }
        }
        self.pool_now_bytes.store(grown, Ordering::SeqCst);
    }

    /// The pool's pages between two sizes go back to the system, so that they are no longer fast memory in use.
    fn drop_pool_pages(&self, kept_bytes: u64, until_bytes: u64, memory: &Memory) {
        let base = self.arena.range().start;
        let begin = base + usize_of(page_ceil(kept_bytes));
        let end = base + usize_of(until_bytes / PAGE_BYTES * PAGE_BYTES);
        if begin < end {
            memory.discard(begin..end, Tier::FAST);
        }
    }

    /// A step is over.
    pub fn step_ends(&self, took: Duration) {
        let mut late = self.late.lock().unwrap_or_else(PoisonError::into_inner);
        *late = late.after(took);
    }

    /// No step follows the plan now: the pool's fast bytes are released, but for those under tensors that still live.
    pub fn rest(&self, memory: &Memory) {
        let _alone = self.boundary.lock().unwrap_or_else(PoisonError::into_inner);
        self.size_pool(0, memory);
    }
}
