//! The state machine of steps: warm-up, the profiled step, planning beside training, managed steps, and again when the
//! graph or its shapes change.

use crate::active::{Active, Mode};
use crate::buckets::{Bucket, Graph, Phase};
use crate::feedback::Feedback;
use crate::graph::GraphEdges;
use crate::limit::Limit;
use crate::managed::Managed;
use crate::order::{Outcome, StepOrder};
use crate::recorder::Circumstances;
use crate::runtime::Runtime;
use plan::Policy;
use std::collections::HashMap;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use sys::host::Footprint;

/// A step that keeps others from being managed may pause for so long between two operations.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// The parts of the active step that its operations need not see.
#[derive(Debug)]
struct Running {
    graph: u64,
    signature: u64,
    parts: u32,
    /// Steps of this graph and shape before this one.
    steps_before: u64,
    began: Instant,
    counts: SlotCounts,
    /// How many operations had begun when another step first found this one in its way, and when that was.
    watched: Option<(u64, Instant)>,
}

/// Allocations that asked for a slot before the step.
#[derive(Clone, Copy, Debug)]
struct SlotCounts {
    asked: u64,
    strangers: u64,
}

/// All graphs and the state of the active step.
#[derive(Debug, Default)]
pub struct Steps {
    graphs: HashMap<u64, Graph>,
    next_graph: u64,
    next_tag: u32,
    running: Option<Running>,
    profile_asked: bool,
    /// The plan that the latest managed step followed.
    pub followed: Option<Arc<Managed>>,
    /// Plans given up whose tensors are not all dead yet.
    retiring: Vec<Arc<Managed>>,
    /// Layers of the latest managed step.
    pub layers: u32,
    /// Bytes that its plan moves in a step, both directions together.
    pub planned_move_bytes: u64,
    /// Where they came from.
    pub layer_source: Option<trace::LayerSource>,
    /// How far the choice of an order is, of the latest step; empty where there is none.
    pub op_order: &'static str,
    /// Steps with an order that have not ended.
    ordered_running: u32,
    /// Whether the latest of them began beside another one.
    disturbed: bool,
    /// What became of late promotions under the latest managed step's plan.
    pub late_choice: &'static str,
    /// Which profiler made the latest profile; empty before the first one.
    pub profiler: &'static str,
    /// For `stats()`; empty before the first step.
    pub state: &'static str,
    /// Least fast bytes of the latest plan.
    pub needed_bytes: u64,
    /// Largest peak of live bytes of the profiled steps.
    pub peak_bytes: u64,
    /// Height of the latest plan's arena when all memory is fast.
    pub arena_bytes: u64,
    /// Least that such an arena needs.
    pub arena_load_bytes: u64,
    /// Why the trace could not be written.
    pub trace_error: Option<String>,
    /// The latest advice to the user.
    pub message: Option<String>,
    /// Why no further step may run, when the user asked for strictness.
    pub(crate) stop: Option<String>,
    told_of_trouble: bool,
}

/// What the executor must do with a step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepStart {
    /// Sentinel's number of the step; 0 when it takes no part.
    pub tag: u32,
    /// Run one operation at a time: the step is profiled.
    pub serial: bool,
    /// Do not run the step: the reason.
    pub stop: Option<String>,
    /// The order of its operations, where it is Sentinel's to choose; the step's end must be told then.
    pub order: Option<StepOrder>,
}

impl Runtime {
    pub(crate) fn lock_steps(&self) -> MutexGuard<'_, Steps> {
        self.steps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An executor has been made for a graph; returns the graph's number.
    pub fn graph_opens(&self, edges: GraphEdges) -> u64 {
        let mut steps = self.lock_steps();
        steps.next_graph += 1;
        let number = steps.next_graph;
        let several = self.inter_op_threads.load(Ordering::Relaxed) > 1;
        steps.graphs.insert(number, Graph::new(edges, several));
        number
    }

    /// The graph's executor is gone, and its plans with it.
    pub fn graph_closes(&self, graph: u64) {
        let mut steps = self.lock_steps();
        if let Some(graph) = steps.graphs.remove(&graph) {
            for managed in graph.plans() {
                self.give_up(&mut steps, &managed);
            }
        }
        self.sweep(&mut steps);
    }

    /// `start_profile()` and `end_profile()`: whether the next step of a graph of some size is profiled, without further
    /// warm-up and in spite of a plan that it may have.
    pub fn ask_profile(&self, wanted: bool) {
        if sys::process::is_forked_child() {
            return;
        }
        self.lock_steps().profile_asked = wanted;
    }

    /// A step of `graph` begins, with inputs of a shape that hashes to `signature`.
    pub fn step_begins(&self, graph: u64, step_id: i64, signature: u64) -> StepStart {
        let (start, managed, first) = {
            let mut steps = self.lock_steps();
            if let Some(trouble) = self.counters.first_trouble() {
                if self.strict() {
                    steps.stop.get_or_insert(trouble);
                } else {
                    steps.advise_of_trouble(trouble);
                }
            }
            if let Some(reason) = &steps.stop {
                return StepStart { stop: Some(reason.clone()), ..StepStart::default() };
            }
            if let Some(start) = self.join(&mut steps, step_id) {
                return start;
            }
            self.counters.steps_seen.count();
            let free = !sys::process::is_forked_child() && self.may_activate(&mut steps);
            let first =
                free && steps.graphs.get_mut(&graph).is_some_and(|graph| graph.is_large() && graph.first_step());
            let mode = free.then(|| self.mode_of(&mut steps, graph, signature)).flatten();
            let (mut start, managed) = match mode {
                Some(mode) => self.activate(&mut steps, graph, signature, step_id, mode),
                None => {
                    self.counters.steps_unmanaged.count();
                    (StepStart::default(), None)
                }
            };
            start.order = self.order_of(&mut steps, graph, signature, start.serial);
            (start, managed, first)
        };
        if first {
            // What it took to make and to improve the graph is free now, and the step is about to need memory.
            sys::process::give_back_free_memory();
        }
        // Outside the lock, because the first layer may wait for promotions.
        if let Some((managed, resumed)) = managed {
            managed.step_begins(resumed, &self.memory, &self.mover, &self.counters);
        }
        start
    }

    /// Where nothing moves and several operations run at a time, their order decides how much is alive at once. Elsewhere
    /// it is the session's, which is deterministic with one thread.
    fn order_of(&self, steps: &mut Steps, graph: u64, signature: u64, profiled: bool) -> Option<StepOrder> {
        steps.op_order = "";
        if self.options.policy != Policy::FastOnly || sys::process::is_forked_child() {
            return None;
        }
        let known = steps.graphs.get_mut(&graph).filter(|graph| graph.is_large() && graph.any_order)?;
        let bucket = known.bucket(signature)?;
        let room_bytes = || {
            let free = Limit::find(Path::new("/")).for_tensors(Footprint::default());
            free.unwrap_or(u64::MAX).min(self.memory.budget.room())
        };
        let order = bucket.order.next(steps.ordered_running == 0, profiled, room_bytes);
        steps.op_order = bucket.order.name();
        steps.disturbed = steps.ordered_running > 0;
        steps.ordered_running += 1;
        Some(order)
    }

    /// Operations of the graph may wait for each other on their threads: they begin in the session's order.
    pub fn order_is_the_sessions(&self, graph: u64) {
        if let Some(graph) = self.lock_steps().graphs.get_mut(&graph) {
            graph.any_order = false;
        }
    }

    /// A step is over that [`Runtime::step_begins`] gave an order: a `trial`, or any other.
    pub fn ordered_step_ends(&self, graph: u64, signature: u64, trial: bool, outcome: Outcome) {
        let mut steps = self.lock_steps();
        steps.ordered_running = steps.ordered_running.saturating_sub(1);
        let outcome = match outcome {
            Outcome::OutOfMemory => outcome,
            _ if steps.disturbed => Outcome::Nothing,
            _ => outcome,
        };
        if !trial && !matches!(outcome, Outcome::TooMuch | Outcome::OutOfMemory) {
            return;
        }
        if let Some(bucket) = steps.bucket_mut(graph, signature) {
            bucket.order = if trial { bucket.order.after(outcome) } else { bucket.order.after_too_much() };
            let name = bucket.order.name();
            log::debug!("sentinel: order of operations of graph {graph}: {outcome:?}, so {name}");
            steps.op_order = name;
        }
    }

    /// Bytes of live tensors and scratch, without the small blocks that threads keep.
    #[must_use]
    pub fn live_bytes(&self) -> u64 {
        self.memory.budget.used().saturating_sub(self.memory.kept_bytes())
    }

    /// The step is another part of the active one.
    fn join(&self, steps: &mut Steps, step_id: i64) -> Option<StepStart> {
        let (running, active) = (steps.running.as_mut()?, self.active.get()?);
        if active.step_id != step_id {
            return None;
        }
        running.parts += 1;
        Some(StepStart { tag: active.tag, serial: matches!(active.mode, Mode::Profiling(_)), ..StepStart::default() })
    }

    /// True when no step is active. One in which nothing has run for long, such as a step that waits for room in a queue, is
    /// put aside, and its graph stays without a plan.
    fn may_activate(&self, steps: &mut Steps) -> bool {
        let (Some(running), Some(active)) = (steps.running.as_mut(), self.active.get()) else { return true };
        let ops = active.ops.load(Ordering::Relaxed);
        match running.watched {
            Some((seen, since)) if seen == ops && since.elapsed() > LONGEST_PAUSE => {}
            Some((seen, _)) if seen == ops => return false,
            _ => {
                running.watched = Some((ops, Instant::now()));
                return false;
            }
        }
        let (graph, signature) = (running.graph, running.signature);
        if let Mode::Profiling(recorder) = &active.mode {
            recorder.abandon();
        }
        self.active.end();
        steps.running = None;
        if let Some(bucket) = steps.bucket_mut(graph, signature) {
            let before = std::mem::replace(&mut bucket.phase, Phase::Unmanaged("its steps wait for other steps"));
            if let Phase::Managed(managed) = before {
                self.give_up(steps, &managed);
            }
        }
        true
    }

    /// What is to be done with the next step of the graph; `None` for nothing.
    fn mode_of(&self, steps: &mut Steps, graph: u64, signature: u64) -> Option<Mode> {
        let asked = steps.profile_asked;
        let known = steps.graphs.get_mut(&graph)?;
        let large = known.is_large();
        let bucket = known.bucket(signature)?;
        bucket.steps += 1;
        let outdated = if large && asked { bucket.profile_again() } else { None };
        let replaced = bucket.go_over();
        let used_up = large && asked && bucket.profiles_used_up();
        let mode = if large && bucket.wants_profile(self.options.warmup_steps, asked) {
            bucket.profile_begins();
            Some(Mode::Profiling(Box::new(self.new_recorder())))
        } else if let Phase::Managed(managed) = &bucket.phase {
            Some(Mode::Managed(Arc::clone(managed)))
        } else {
            None
        };
        for managed in outdated.into_iter().chain(replaced) {
            self.give_up(steps, &managed);
        }
        if used_up {
            steps.advise(
                "sentinel: start_profile() was called so often that it is ignored now; once is enough".to_owned(),
            );
        }
        mode
    }

    fn activate(
        &self,
        steps: &mut Steps,
        graph: u64,
        signature: u64,
        step_id: i64,
        mode: Mode,
    ) -> (StepStart, Option<(Arc<Managed>, bool)>) {
        steps.next_tag = steps.next_tag.wrapping_add(1).max(1);
        let tag = steps.next_tag;
        let managed = match &mode {
            Mode::Profiling(_) => {
                steps.profile_asked = false;
                steps.state = "profiling";
                if self.profiled_tier() != trace::Tier::FAST {
                    // The profiled step allocates on the other heap.
                    self.memory.trim();
                }
                None
            }
            Mode::Managed(managed) => Some((Arc::clone(managed), self.follow(steps, managed))),
        };
        let steps_before = steps.graphs.get(&graph).map_or(0, |graph| graph.steps_of(signature)).saturating_sub(1);
        let (began, counts) = (Instant::now(), self.slot_counts());
        steps.running = Some(Running { graph, signature, parts: 1, steps_before, began, counts, watched: None });
        self.active.begin(Active { step_id, tag, ops: AtomicU64::new(0), mode });
        (StepStart { tag, serial: managed.is_none(), ..StepStart::default() }, managed)
    }

    /// Makes the plan the one that is followed; true when it was not.
    fn follow(&self, steps: &mut Steps, managed: &Arc<Managed>) -> bool {
        let resumed = !steps.followed.as_ref().is_some_and(|followed| Arc::ptr_eq(followed, managed));
        if resumed {
            self.mover.drop_all();
            if let Some(before) = steps.followed.replace(Arc::clone(managed)) {
                before.rest(&self.memory);
            }
            // Steps that ran while the plan was made have used the heaps again.
            self.memory.trim();
        }
        steps.state = "managed";
        steps.layers = managed.layers();
        steps.planned_move_bytes = managed.move_bytes();
        steps.layer_source = Some(managed.layer_source);
        resumed
    }

    /// A part of the step `tag` is over; the last part ends it. `ok` is false when the step failed.
    pub fn step_ends(self: &Arc<Self>, tag: u32, ok: bool) {
        let mut steps = self.lock_steps();
        if self.active.get().is_none_or(|active| active.tag != tag) {
            return;
        }
        let Some(running) = &mut steps.running else { return };
        running.parts -= 1;
        if running.parts > 0 {
            return;
        }
        let Some(running) = steps.running.take() else { return };
        let Some(active) = self.active.end() else { return };
        if matches!(self.options.slow, crate::options::SlowTier::Swap(_)) {
            self.counters.swapped_out_bytes_peak.raise(sys::swap::swapped_out_bytes().unwrap_or(0));
        }
        match &active.mode {
            Mode::Managed(managed) => {
                if ok {
                    managed.step_ends(running.began.elapsed(), &self.memory, &self.counters);
                }
                steps.late_choice = managed.late_choice().name();
                self.counters.steps_managed.count();
                self.judge(&mut steps, &running);
                self.sweep(&mut steps);
                if ok {
                    self.learn(managed, running.graph, running.signature);
                    self.heed_limit(&mut steps, managed, running.graph, running.signature);
                }
            }
            Mode::Profiling(recorder) if ok => {
                recorder.stop();
                self.counters.steps_profiled.count();
                steps.state = "planning";
                drop(steps);
                self.plan_aside(active, &running);
            }
            Mode::Profiling(recorder) => {
                recorder.abandon();
                steps.state = "warmup";
                if let Some(bucket) = steps.bucket_mut(running.graph, running.signature) {
                    bucket.profile_failed();
                }
            }
        }
    }

    /// Looks whether the step still was the one that was profiled.
    fn judge(&self, steps: &mut Steps, running: &Running) {
        let now = self.slot_counts();
        let (asked, strangers) = (now.asked - running.counts.asked, now.strangers - running.counts.strangers);
        let Some(bucket) = steps.bucket_mut(running.graph, running.signature) else { return };
        if let Some(managed) = bucket.managed_step_over(asked, strangers) {
            log::info!("sentinel: {strangers} of {asked} allocations were not in the profile; profiling again");
            steps.state = "warmup";
            self.give_up(steps, &managed);
        }
    }

    fn slot_counts(&self) -> SlotCounts {
        let counters = &self.counters;
        let strangers = counters.slot_misses_unknown.get() + counters.slot_misses_size.get();
        SlotCounts {
            asked: counters.slot_hits.get()
                + counters.slot_misses_busy.get()
                + counters.slot_misses_short.get()
                + strangers,
            strangers,
        }
    }

    /// The plan is not followed any more, and neither is the one that was to replace it.
    pub(crate) fn give_up(&self, steps: &mut Steps, managed: &Arc<Managed>) {
        if steps.followed.as_ref().is_some_and(|followed| Arc::ptr_eq(followed, managed)) {
            steps.followed = None;
            self.mover.drop_all();
        }
        managed.rest(&self.memory);
        steps.retiring.push(Arc::clone(managed));
        steps.retiring.extend(managed.feedback.as_ref().and_then(Feedback::take_successor));
    }

    /// Gives back the address space of plans in which nothing lives any more.
    pub(crate) fn sweep(&self, steps: &mut Steps) {
        steps.retiring.retain(|managed| {
            managed.rest(&self.memory);
            !self.memory.retire(&managed.arena)
        });
    }

    /// Makes the plan on a thread of its own, so that training goes on.
    fn plan_aside(self: &Arc<Self>, active: Arc<Active>, running: &Running) {
        let (graph, signature, steps_before) = (running.graph, running.signature, running.steps_before);
        let (runtime, own) = (Arc::clone(self), Arc::clone(&active));
        let spawned = std::thread::Builder::new().name("sentinel-plan".to_owned()).spawn(move || {
            let planned = catch_unwind(AssertUnwindSafe(|| runtime.plan(&active, graph, steps_before)));
            let phase = planned.unwrap_or_else(|_| {
                runtime.counters.panics_caught.count();
                Phase::Unmanaged("planning met an internal error")
            });
            active.forget();
            let mut steps = runtime.lock_steps();
            steps.state = match &phase {
                Phase::Managed(_) => "planned",
                _ => "unmanaged",
            };
            if let Phase::Unmanaged(reason) = &phase {
                let text = format!("sentinel: a graph runs without a plan: {reason}");
                log::info!("{text}");
                steps.message.get_or_insert(text);
            }
            match steps.bucket_mut(graph, signature) {
                Some(bucket) => bucket.phase = phase,
                None => {
                    if let Phase::Managed(managed) = phase {
                        runtime.give_up(&mut steps, &managed);
                        runtime.sweep(&mut steps);
                    }
                }
            }
            drop(steps);
            // What recording and planning took is free now.
            sys::process::give_back_free_memory();
        });
        if let Err(error) = spawned {
            own.forget();
            let mut steps = self.lock_steps();
            steps.advise(format!("sentinel: no thread for planning: {error}; training goes on without a plan"));
            if let Some(bucket) = steps.bucket_mut(graph, signature) {
                bucket.phase = Phase::Unmanaged("no thread for planning");
            }
        }
    }

    fn plan(&self, active: &Active, graph: u64, step_number: u64) -> Phase {
        let Mode::Profiling(recorder) = &active.mode else { return Phase::Unmanaged("it was not profiled") };
        let edges = match self.lock_steps().graphs.get(&graph) {
            Some(graph) => Arc::clone(&graph.edges),
            None => return Phase::Unmanaged("its graph is gone"),
        };
        let about = Circumstances {
            tensorflow_version: "1.13.1".to_owned(),
            step_number,
            intra_op_threads: self.intra_op_threads.load(Ordering::Relaxed),
            inter_op_threads: self.inter_op_threads.load(Ordering::Relaxed),
        };
        self.plan_from(recorder.finish(&self.kernels, &edges, about))
    }
}

impl Steps {
    pub(crate) fn bucket_mut(&mut self, graph: u64, signature: u64) -> Option<&mut Bucket> {
        self.graphs.get_mut(&graph)?.bucket(signature)
    }

    /// Fast bytes that short-lived pools hold: of the plan that is followed, and of those given up.
    pub(crate) fn pool_bytes(&self) -> u64 {
        self.followed.iter().chain(&self.retiring).map(|managed| managed.arena.pool_now_bytes()).sum()
    }

    /// Says once what failed; later advice may take its place in `stats()`.
    fn advise_of_trouble(&mut self, trouble: String) {
        if !std::mem::replace(&mut self.told_of_trouble, true) {
            self.advise(trouble);
        }
    }

    /// Says something to the user once, and keeps it for `stats()`.
    pub(crate) fn advise(&mut self, text: String) {
        if self.message.as_ref() != Some(&text) {
            log::warn!("{text}");
            self.message = Some(text);
        }
    }
}
