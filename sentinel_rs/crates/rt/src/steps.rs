//! The state machine of steps: warm-up, the profiled step, planning beside training, managed steps, and again when the
//! graph or its shapes change.

use crate::buckets::{Bucket, Graph, Phase};
use crate::graph::GraphEdges;
use crate::managed::Managed;
use crate::recorder::{Circumstances, Recorder};
use crate::runtime::Runtime;
use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Instant;

/// Graphs with fewer nodes are never profiled: initializers, readers of one variable, the profile marks themselves.
const MIN_NODES: usize = 8;

/// The one step at a time that is profiled or follows a plan.
#[derive(Debug)]
pub struct Active {
    /// TensorFlow's number of the step; shared by the parts of a graph on several devices.
    pub step_id: i64,
    /// Sentinel's number of the step, never 0.
    pub tag: u32,
    /// What is done with it.
    pub mode: Mode,
}

/// What is done with the active step.
#[derive(Debug)]
pub enum Mode {
    /// It is recorded.
    Profiling(Box<Recorder>),
    /// It follows a plan.
    Managed(Arc<Managed>),
}

/// The parts of the active step that its operations need not see.
#[derive(Debug)]
struct Running {
    graph: u64,
    signature: u64,
    parts: u32,
    began: Instant,
    counts: SlotCounts,
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
    /// Where they came from.
    pub layer_source: Option<trace::LayerSource>,
    /// For `stats()`.
    pub state: &'static str,
    /// Least fast bytes of the latest plan.
    pub needed_bytes: u64,
    /// Largest peak of live bytes of the profiled steps.
    pub peak_bytes: u64,
    /// Why the trace could not be written.
    pub trace_error: Option<String>,
    /// The latest advice to the user.
    pub message: Option<String>,
    /// Why no further step may run, when the user asked for strictness.
    pub(crate) stop: Option<String>,
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
        steps.graphs.insert(number, Graph::new(edges));
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

    /// `start_profile()` and `end_profile()`: whether the next step of a graph is profiled without further warm-up.
    pub fn ask_profile(&self, wanted: bool) {
        self.lock_steps().profile_asked = wanted;
    }

    /// A step of `graph` begins, with inputs of a shape that hashes to `signature`.
    pub fn step_begins(&self, graph: u64, step_id: i64, signature: u64) -> StepStart {
        let mut steps = self.lock_steps();
        let steps = &mut *steps;
        if let Some(reason) = &steps.stop {
            return StepStart { stop: Some(reason.clone()), ..StepStart::default() };
        }
        if let (Some(running), Some(active)) = (&mut steps.running, self.active.load().as_deref()) {
            if active.step_id == step_id {
                running.parts += 1;
                let serial = matches!(active.mode, Mode::Profiling(_));
                return StepStart { tag: active.tag, serial, stop: None };
            }
            self.counters.steps_seen.count();
            self.counters.steps_unmanaged.count();
            return StepStart::default();
        }
        self.counters.steps_seen.count();
        if self.home.is_forked_child() {
            self.counters.steps_unmanaged.count();
            return StepStart::default();
        }
        let asked = steps.profile_asked;
        let mode = steps.graphs.get_mut(&graph).and_then(|graph| {
            let large = graph.edges.node_count() >= MIN_NODES;
            let bucket = graph.bucket(signature)?;
            let mode = next_mode(bucket, large, self.options.warmup_steps, asked);
            bucket.steps += 1;
            mode
        });
        let Some(mode) = mode else {
            self.counters.steps_unmanaged.count();
            return StepStart::default();
        };
        self.activate(steps, graph, signature, step_id, mode)
    }

    fn activate(&self, steps: &mut Steps, graph: u64, signature: u64, step_id: i64, mode: Mode) -> StepStart {
        steps.next_tag = steps.next_tag.wrapping_add(1).max(1);
        let tag = steps.next_tag;
        let serial = match &mode {
            Mode::Profiling(_) => {
                steps.profile_asked = false;
                steps.state = "profiling";
                true
            }
            Mode::Managed(managed) => {
                self.follow(steps, managed);
                false
            }
        };
        steps.running = Some(Running { graph, signature, parts: 1, began: Instant::now(), counts: self.slot_counts() });
        self.active.store(Some(Arc::new(Active { step_id, tag, mode })));
        StepStart { tag, serial, stop: None }
    }

    fn follow(&self, steps: &mut Steps, managed: &Arc<Managed>) {
        if !steps.followed.as_ref().is_some_and(|followed| Arc::ptr_eq(followed, managed)) {
            self.mover.drop_all();
            if let Some(before) = steps.followed.replace(Arc::clone(managed)) {
                before.rest(&self.memory);
            }
        }
        steps.state = "managed";
        steps.layers = managed.layers();
        steps.layer_source = Some(managed.layer_source);
        managed.step_begins(&self.memory, &self.mover, &self.counters);
    }

    /// A part of the step `tag` is over; the last part ends it. `ok` is false when the step failed.
    pub fn step_ends(self: &Arc<Self>, tag: u32, ok: bool) {
        let mut steps = self.lock_steps();
        if self.active.load().as_deref().is_none_or(|active| active.tag != tag) {
            return;
        }
        let Some(running) = &mut steps.running else { return };
        running.parts -= 1;
        if running.parts > 0 {
            return;
        }
        let Some(running) = steps.running.take() else { return };
        let Some(active) = self.active.swap(None) else { return };
        match &active.mode {
            Mode::Managed(managed) => {
                if ok {
                    managed.step_ends(running.began.elapsed());
                }
                self.counters.steps_managed.count();
                self.judge(&mut steps, &running);
            }
            Mode::Profiling(_) if ok => {
                self.counters.steps_profiled.count();
                steps.state = "planning";
                drop(steps);
                self.plan_aside(active, &running);
            }
            Mode::Profiling(_) => {
                steps.state = "warmup";
                if let Some(bucket) = steps.bucket_mut(running.graph, running.signature) {
                    bucket.phase = Phase::Warmup;
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
            self.sweep(steps);
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

    fn give_up(&self, steps: &mut Steps, managed: &Arc<Managed>) {
        if steps.followed.as_ref().is_some_and(|followed| Arc::ptr_eq(followed, managed)) {
            steps.followed = None;
            self.mover.drop_all();
        }
        managed.rest(&self.memory);
        steps.retiring.push(Arc::clone(managed));
    }

    /// Gives back the address space of plans in which nothing lives any more.
    fn sweep(&self, steps: &mut Steps) {
        steps.retiring.retain(|managed| !self.memory.retire(&managed.arena));
    }

    /// Makes the plan on a thread of its own, so that training goes on.
    fn plan_aside(self: &Arc<Self>, active: Arc<Active>, running: &Running) {
        let (graph, signature) = (running.graph, running.signature);
        let runtime = Arc::clone(self);
        let spawned = std::thread::Builder::new().name("sentinel-plan".to_owned()).spawn(move || {
            let phase = runtime.plan(active, graph, signature);
            let mut steps = runtime.lock_steps();
            steps.state = match &phase {
                Phase::Managed(_) => "managed",
                _ => "unmanaged",
            };
            if let Phase::Unmanaged(reason) = &phase {
                log::info!("sentinel: a graph runs without a plan: {reason}");
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
        });
        if let Err(error) = spawned {
            let mut steps = self.lock_steps();
            steps.advise(format!("sentinel: no thread for planning: {error}; training goes on without a plan"));
            if let Some(bucket) = steps.bucket_mut(graph, signature) {
                bucket.phase = Phase::Unmanaged("no thread for planning");
            }
        }
    }

    fn plan(&self, active: Arc<Active>, graph: u64, signature: u64) -> Phase {
        // Operations let go of the active step within moments of its end.
        let mut active = active;
        let active = loop {
            match Arc::try_unwrap(active) {
                Ok(active) => break active,
                Err(shared) => active = shared,
            }
            std::thread::yield_now();
        };
        let Mode::Profiling(recorder) = active.mode else { return Phase::Unmanaged("it was not profiled") };
        let (edges, step_number) = {
            let steps = self.lock_steps();
            let Some(graph) = steps.graphs.get(&graph) else { return Phase::Unmanaged("its graph is gone") };
            (Arc::clone(&graph.edges), graph.steps_of(signature))
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

/// What the bucket does with its next step; `None` for nothing.
fn next_mode(bucket: &mut Bucket, large: bool, warmup_steps: u64, asked: bool) -> Option<Mode> {
    if large && bucket.wants_profile(warmup_steps, asked) {
        bucket.profile_begins();
        return Some(Mode::Profiling(Box::default()));
    }
    match &bucket.phase {
        Phase::Managed(managed) => Some(Mode::Managed(Arc::clone(managed))),
        _ => None,
    }
}

impl Steps {
    fn bucket_mut(&mut self, graph: u64, signature: u64) -> Option<&mut Bucket> {
        self.graphs.get_mut(&graph)?.bucket(signature)
    }

    /// Says something to the user once, and keeps it for `stats()`.
    pub(crate) fn advise(&mut self, text: String) {
        if self.message.as_ref() != Some(&text) {
            log::warn!("{text}");
            self.message = Some(text);
        }
    }
}
