//! One plan being followed: layer by layer, through the steps of one graph.

use crate::buckets::LateChoice;
use crate::feedback::Feedback;
use crate::memory::Memory;
use crate::mover::{Job, Mover, Outstanding, BATCH_AT_MOST, NO_DEADLINE};
use crate::runtime::nanos;
use crate::stats::Counters;
use place::Arena;
use plan::Migration;
use std::cell::Cell;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use trace::{LayerSource, Tier};

/// The first steps find persistent tensors where they were before the plan; they say nothing about late promotions.
const SETTLING_STEPS: u64 = 2;
/// So many operations may run before their layer without pulling the step forward.
const EARLY_OPS: u32 = 8;
/// Late promotions are waited for this many times as long as the plan says that they take.
const PATIENCE: f64 = 2.0;
/// Whatever the plan says, no operation waits longer.
const LONGEST_STALL: Duration = Duration::from_secs(5);

/// A bound plan and how far training is in it.
#[derive(Debug)]
pub struct Managed {
    /// The plan at its address.
    pub arena: Arc<Arena>,
    /// Where its layers come from.
    pub layer_source: LayerSource,
    /// Whether the speeds it assumes are right; `None` for a policy that does not ask.
    pub feedback: Option<Feedback>,
    /// Speed of moves that the plan counts on.
    assumed: Migration,
    layers: u32,
    /// Moves in order of their layers, from all intervals.
    moves: Vec<plan::Move>,
    /// Steps that were begun with this plan.
    steps: AtomicU64,
    /// The layer of the current step, plus one; 0 before its first operation.
    reached: AtomicU32,
    /// Operations of later layers that ran before their turn since the last boundary.
    early: AtomicU32,
    /// Nanoseconds that operations of the current step waited for promotions, and births for room.
    stalled_ns: AtomicU64,
    /// Number of the step in which a birth waited for room as long as it may and got none, counted as `steps` does.
    waited_in_vain: AtomicU64,
    late: Mutex<LateChoice>,
    /// Only one thread walks over a layer boundary.
    boundary: Mutex<()>,
}

/// How long a birth has waited for room.
#[derive(Debug)]
pub struct Patience {
    birth_bytes: u64,
    spent: Cell<Duration>,
}

impl Patience {
    /// Of a birth of so many bytes that has not waited yet.
    #[must_use]
    pub fn of(birth_bytes: u64) -> Patience {
        Patience { birth_bytes, spent: Cell::new(Duration::ZERO) }
    }
}

impl Managed {
    /// A plan that no step has followed yet.
    #[must_use]
    pub fn new(
        arena: Arc<Arena>,
        layer_source: LayerSource,
        feedback: Option<Feedback>,
        assumed: Migration,
    ) -> Managed {
        let plan = arena.plan();
        let layers = u32::try_from(plan.layer_first_op.len()).unwrap_or(u32::MAX).max(1);
        let mut moves: Vec<plan::Move> = plan.intervals.iter().flat_map(|interval| interval.moves.clone()).collect();
        moves.sort_by_key(|step| step.issue_layer);
        Managed {
            layer_source,
            feedback,
            assumed,
            layers,
            moves,
            steps: AtomicU64::new(0),
            reached: AtomicU32::new(0),
            early: AtomicU32::new(0),
            stalled_ns: AtomicU64::new(0),
            waited_in_vain: AtomicU64::new(u64::MAX),
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

    /// Bytes that the plan moves in a step, both directions together.
    #[must_use]
    pub fn move_bytes(&self) -> u64 {
        self.moves.iter().map(|step| self.arena.plan().units[step.unit as usize].len_bytes).sum()
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
        self.stalled_ns.store(0, Ordering::Relaxed);
        if resumed {
            let plan = self.arena.plan();
            let base = step * u64::from(self.layers);
            // They go when there is time, and are never too late.
            let homes = plan.units.iter().zip(self.arena.units()).filter_map(|(unit, state)| {
                let persistent = matches!(unit.home, plan::UnitHome::Persistent { .. });
                let arena = Arc::clone(&self.arena);
                persistent.then(|| Job { unit: Arc::clone(state), arena, to: unit.birth_tier, due: NO_DEADLINE })
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
        if memory.placement.is_due() {
            let now = self.steps.load(Ordering::Relaxed).saturating_sub(1) * u64::from(self.layers) + u64::from(layer);
            memory.placement.at_boundary(self.arena.units(), &*memory.tiers, |unit| mover.may_take_its_time(unit, now));
            memory.placement.weigh(memory.whole(), &*memory.tiers, &memory.budget);
        }
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
            let unit = Arc::clone(&self.arena.units()[m.unit as usize]);
            Job { unit, arena: Arc::clone(&self.arena), to: m.to, due }
        });
        let interval = plan.interval_of(layer);
        if let Some(interval) = interval {
            // Before the moves, which find less room when the pool may hold more.
            self.arena.expect_pool(interval.pool_bytes);
        }
        mover.advance(now, jobs);
        memory.tiers.boundary();
        let Some(interval) = interval else { return };
        if interval.first_layer == layer {
            let late = mover.outstanding(now);
            self.note_late(late.promotions);
            if self.late_choice().waits() {
                self.stall(now, late, mover, counters);
            } else {
                counters.late_promotions.add(mover.drop_late(now));
            }
        }
        memory.on_ground(|ground| self.arena.size_pool(interval.pool_bytes, ground));
    }

    /// Waits for promotions that are late, but not longer than the plan itself would have them take.
    fn stall(&self, now: u64, late: Outstanding, mover: &Mover, counters: &Counters) {
        if late.promotions == 0 {
            return;
        }
        let at_most = self.stall_bound(late);
        let took = mover.await_promotions(now, at_most);
        self.stalled(took, at_most, counters);
    }

    /// An operation waited for so long, and would have waited no longer than `at_most`.
    fn stalled(&self, took: Duration, at_most: Duration, counters: &Counters) {
        counters.stalled(took, took >= at_most);
        self.stalled_ns.fetch_add(nanos(took), Ordering::Relaxed);
    }

    /// A part of a birth lacks room for so many bytes: where it would take memory anyway, it waits for evictions under way. All
    /// parts of a birth together, of which `patience` knows, wait no longer than the plan would have its bytes take; and when
    /// that was in vain, nothing else is waited for in the step.
    pub fn await_room(&self, bytes: u64, patience: &Patience, memory: &Memory, mover: &Mover, counters: &Counters) {
        let step = self.steps.load(Ordering::Relaxed);
        if !memory.tiers.births_take_memory() || self.waited_in_vain.load(Ordering::Relaxed) == step {
            return;
        }
        let whole = Outstanding { demote_bytes: patience.birth_bytes, ..Outstanding::default() };
        let at_most = self.stall_bound(whole).saturating_sub(patience.spent.get());
        if let Some(took) = mover.await_room(bytes, &memory.budget, at_most) {
            patience.spent.set(patience.spent.get() + took);
            if took >= at_most {
                self.waited_in_vain.store(step, Ordering::Relaxed);
            }
            self.stalled(took, at_most, counters);
        }
    }

    /// The longest that an operation may wait for these moves: twice what they take at the speeds that the plan counts on,
    /// and one batch, which cannot be broken off. The evictions count because a promotion may need the room of all of them.
    fn stall_bound(&self, late: Outstanding) -> Duration {
        #[allow(clippy::cast_precision_loss)] // bytes of memory, exact up to 2^53
        let ns = |bytes: u64, rate: f64| bytes as f64 / rate;
        let by_plan_ns =
            ns(late.promote_bytes, self.assumed.promote_rate) + ns(late.demote_bytes, self.assumed.demote_rate);
        let patience = Duration::try_from_secs_f64(PATIENCE * by_plan_ns / 1e9).unwrap_or(LONGEST_STALL);
        (patience + BATCH_AT_MOST).min(LONGEST_STALL)
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

    /// An operation took so long; `None` when nobody looked.
    pub fn note_time(&self, kernel: u32, took: Option<Duration>) {
        if let (Some(feedback), Some(took)) = (&self.feedback, took) {
            feedback.op_times.note(kernel, crate::runtime::nanos(took));
        }
    }

    /// A step is over.
    pub fn step_ends(&self, took: Duration, memory: &Memory, counters: &Counters) {
        let waits = memory.waits.take();
        counters.deaths_waited(waits);
        counters.step_stalled(Duration::from_nanos(self.stalled_ns.load(Ordering::Relaxed)) + waits.sum);
        let mut late = self.late.lock().unwrap_or_else(PoisonError::into_inner);
        *late = late.after(took);
    }

    /// No step follows the plan now: the pool's fast bytes are released, but for those under tensors that still live.
    pub fn rest(&self, memory: &Memory) {
        let _alone = self.boundary.lock().unwrap_or_else(PoisonError::into_inner);
        memory.on_ground(|ground| self.arena.size_pool(0, ground));
    }
}
