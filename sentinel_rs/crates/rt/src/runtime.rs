//! The process's one runtime: allocations, releases and operations, as TensorFlow's threads bring them.
//!
//! What runs here runs for every operation: no lock is taken and nothing is allocated unless the step is profiled, but for
//! what a thread keeps from its first operation on.

use crate::active::{Active, ActiveStep, Mode};
use crate::current::{self, Current, NO_KERNEL};
use crate::kernels::Kernels;
use crate::limit::Limit;
use crate::memory::{Freed, Memory};
use crate::mover::{explain_new, Mover};
use crate::options::{Failure, FastBudget, Options};
use crate::profiler::PageProfiler;
use crate::recorder::Touch;
use crate::stats::{Counters, Report};
use crate::steps::Steps;
use crate::tiers::emulated::EmulatedTiers;
use place::{Entered, Ground, Taken, UnitState};
use plan::Policy;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;
use trace::{page_ceil, Tier, SLOT_MIN_BYTES};

/// Kernels share this many accounts of temporaries; two that run at the same time rarely meet in one.
const TEMPORARY_ACCOUNTS: usize = 4096;

/// Bytes of temporaries that operations freed before they ended.
#[derive(Debug, Default)]
struct Temporaries {
    fast_bytes: AtomicU64,
    slow_bytes: AtomicU64,
}

/// The runtime of one process.
pub struct Runtime {
    /// What the first session chose.
    pub options: Options,
    /// Tensor memory.
    pub memory: Arc<Memory>,
    /// Kernels by number.
    pub kernels: Kernels,
    /// Counters.
    pub counters: Arc<Counters>,
    pub(crate) mover: Mover,
    pub(crate) machine: plan::Machine,
    pub(crate) active: ActiveStep,
    pub(crate) steps: Mutex<Steps>,
    /// Threads inside an operation, of the latest device.
    pub(crate) intra_op_threads: AtomicU32,
    /// Operations at the same time, of the latest device.
    pub(crate) inter_op_threads: AtomicU32,
    /// The memory limit that the budget is held against.
    pub(crate) limit: Option<Limit>,
    /// The kernel's profiler, when it counts in profiled steps.
    pub page_profiler: Option<PageProfiler>,
    emulated: Option<Arc<EmulatedTiers>>,
    temporaries: Vec<Temporaries>,
}

impl std::fmt::Debug for Runtime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runtime").field("options", &self.options).field("memory", &self.memory).finish_non_exhaustive()
    }
}

/// An operation on a thread, from its begin to its end.
#[derive(Clone, Copy, Debug)]
pub struct OpScope {
    /// What the thread works for from the operation's begin on.
    pub own: Current,
    /// What it worked for before.
    pub previous: Current,
    /// When the kernel began; `None` when nobody wants to know.
    pub began: Option<Instant>,
}

/// What became of an operation of which nothing is known but its kernel's address.
#[derive(Clone, Copy, Debug)]
pub enum KnownOp {
    /// It has begun.
    Begun(OpScope),
    /// What this kernel touches matters: [`Runtime::op_begins`] is the way.
    Touches(u32),
    /// The thread has not met the kernel: [`Kernels::look_up`] and [`Runtime::op_begins`] are the way.
    Unmet,
}

impl Runtime {
    /// A runtime over memory in any tiers; operations are delayed where they are emulated ones. `configure` makes the one of
    /// a process.
    ///
    /// # Errors
    /// When the system has no thread for the movers.
    pub fn assemble(
        options: Options,
        memory: Arc<Memory>,
        machine: plan::Machine,
        emulated: Option<Arc<EmulatedTiers>>,
    ) -> std::io::Result<Runtime> {
        let counters = Arc::new(Counters::default());
        Ok(Runtime {
            mover: Mover::start(&memory, &counters, options.mover_threads.unwrap_or(1))?,
            kernels: Kernels::default(),
            active: ActiveStep::default(),
            steps: Mutex::new(Steps::default()),
            intra_op_threads: AtomicU32::new(1),
            inter_op_threads: AtomicU32::new(1),
            temporaries: std::iter::repeat_with(Temporaries::default).take(TEMPORARY_ACCOUNTS).collect(),
            options,
            memory,
            machine,
            limit: None,
            page_profiler: None,
            emulated,
            counters,
        })
    }

    /// True when operations are delayed by what slow memory would cost.
    fn delays(&self) -> bool {
        self.emulated.is_some() && self.options.policy != Policy::FastOnly
    }

    /// True when operations must report the buffers they touch: in a profiled step, and wherever slowness is emulated.
    #[must_use]
    pub fn observes(&self) -> bool {
        self.delays() || self.active.profiles()
    }

    /// The kernel at `address` is about to run on the calling thread; the operation begins unless more has to be known of it.
    pub fn op_begins_known(&self, address: usize, step_id: i64) -> KnownOp {
        let Some(kernel) = self.kernels.cached(address) else { return KnownOp::Unmet };
        if self.delays() {
            return KnownOp::Touches(kernel);
        }
        self.active.with(|active| match active {
            Some(Active { mode: Mode::Profiling(_), .. }) => KnownOp::Touches(kernel),
            _ => KnownOp::Begun(self.enter(active, kernel, step_id, &[])),
        })
    }

    /// The kernel of [`Runtime::op_begins_known`] is done, on the thread on which it began.
    pub fn op_ends_known(&self, scope: &OpScope) {
        if scope.began.is_some() {
            self.op_ends(scope, &[], &[], true);
        } else {
            current::swap(scope.previous);
        }
    }

    /// A kernel is about to run on the calling thread.
    pub fn op_begins(&self, kernel: u32, step_id: i64, inputs: &[Touch]) -> OpScope {
        self.active.with(|active| self.enter(active, kernel, step_id, inputs))
    }

    fn enter(&self, active: Option<&Active>, kernel: u32, step_id: i64, inputs: &[Touch]) -> OpScope {
        let mut own = Current { kernel, execution: 0, step_tag: 0 };
        let mut timed = false;
        if let Some(active) = active.filter(|active| active.step_id == step_id) {
            own.step_tag = active.tag;
            // Threads may overwrite each other's count: it only has to change while operations run.
            active.ops.store(active.ops.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
            match &active.mode {
                Mode::Profiling(recorder) => own.execution = recorder.op_begins(kernel, inputs, &self.memory),
                Mode::Managed(managed) => {
                    timed = managed.feedback.is_some();
                    if let Some(layer) = managed.arena.layer_of(kernel) {
                        managed.reach(layer, &self.memory, &self.mover, &self.counters);
                    }
                }
            }
        }
        let began = (timed || self.emulated.is_some()).then(Instant::now);
        OpScope { own, previous: current::swap(own), began }
    }

    /// The kernel is done. The scope may end on another thread than it began on, when the kernel is asynchronous; then
    /// `delay` is false, because no thread was busy with it.
    pub fn op_ends(&self, scope: &OpScope, inputs: &[Touch], outputs: &[Touch], delay: bool) {
        let elapsed = scope.began.map(|began| began.elapsed());
        if scope.own.step_tag != 0 {
            self.active.with(|active| match active.filter(|active| active.tag == scope.own.step_tag) {
                Some(Active { mode: Mode::Profiling(recorder), .. }) => {
                    recorder.op_ends(scope.own.execution, outputs, &self.memory);
                }
                Some(Active { mode: Mode::Managed(managed), .. }) if delay => {
                    managed.note_time(scope.own.kernel, elapsed);
                }
                _ => {}
            });
        }
        if delay {
            current::swap(scope.previous);
            if let Some(emulated) = &self.emulated {
                let elapsed_ns = elapsed.map_or(0.0, |elapsed| elapsed.as_secs_f64() * 1e9);
                self.charge(emulated, scope.own.kernel, inputs, outputs, elapsed_ns);
            }
        }
    }

    /// Delays the thread by what the operation's slow bytes would have cost more than fast ones. What the operation took
    /// longer than its bytes take in fast memory hides as much of that: such an operation works meanwhile.
    fn charge(&self, tiers: &EmulatedTiers, kernel: u32, inputs: &[Touch], outputs: &[Touch], elapsed_ns: f64) {
        let (mut fast, mut slow) = ([0_u64; 2], [0_u64; 2]);
        for (side, touches) in [inputs, outputs].into_iter().enumerate() {
            for touch in touches {
                let in_slow = self.memory.slow_bytes(touch.addr, touch.bytes).min(touch.bytes);
                slow[side] += in_slow;
                fast[side] += touch.bytes - in_slow;
            }
        }
        let account = &self.temporaries[kernel as usize % TEMPORARY_ACCOUNTS];
        // A temporary is written once and read once at least.
        for (sums, bytes) in [(&mut fast, &account.fast_bytes), (&mut slow, &account.slow_bytes)] {
            let bytes = if bytes.load(Ordering::Relaxed) > 0 { bytes.swap(0, Ordering::Relaxed) } else { 0 };
            sums[0] += bytes;
            sums[1] += bytes;
        }
        if slow == [0, 0] {
            return;
        }
        let threads = self.intra_op_threads.load(Ordering::Relaxed);
        let time_ns = |tier: Tier, bytes: [u64; 2]| tiers.memory_time_ns(tier, bytes[0], bytes[1], threads);
        let slow_as_fast_ns = time_ns(Tier::FAST, slow);
        let extra_ns = time_ns(Tier::SLOW, slow) - slow_as_fast_ns;
        self.counters.slow_memory_ns.add(nanos(std::time::Duration::from_secs_f64(extra_ns.max(0.0) / 1e9)));
        let hidden_ns = (elapsed_ns - time_ns(Tier::FAST, fast) - slow_as_fast_ns).max(0.0);
        if extra_ns > hidden_ns {
            let delay = std::time::Duration::from_secs_f64((extra_ns - hidden_ns) / 1e9);
            let began = Instant::now();
            while began.elapsed() < delay {
                std::hint::spin_loop();
            }
            self.counters.emulated_delay_ns.add(nanos(began.elapsed()));
        }
    }

    /// Memory for a tensor or for scratch; `None` when there is none, and in a forked child, where a thread that no longer
    /// exists may have held a lock for ever.
    pub fn alloc(&self, align_bytes: u64, size_bytes: u64) -> Option<usize> {
        if sys::process::is_forked_child() {
            return None;
        }
        let own = current::get();
        // Small blocks have no slots: only a profiled step looks at them.
        let unseen = size_bytes < SLOT_MIN_BYTES && !self.active.profiles();
        if own.step_tag == 0 || unseen {
            return self.alloc_unplanned(align_bytes, size_bytes);
        }
        self.active.with(|active| match active.filter(|active| active.tag == own.step_tag).map(|active| &active.mode) {
            Some(Mode::Profiling(recorder)) => {
                let room_bytes = recorder.room_for(size_bytes);
                let tier = self.profiled_tier();
                // The kernel counts in the heaps only.
                let from_threads = tier == Tier::FAST && !recorder.own_pages() && self.memory.threads_keep(room_bytes);
                let addr = if from_threads {
                    self.memory.alloc_small(room_bytes, align_bytes)
                } else {
                    self.memory.alloc_heap(room_bytes, align_bytes, tier)
                }?;
                recorder.born(own.kernel, own.execution, addr, size_bytes);
                Some(addr)
            }
            Some(Mode::Managed(managed)) if size_bytes >= SLOT_MIN_BYTES => {
                self.alloc_slot(managed, own, align_bytes, size_bytes)
            }
            _ => self.alloc_unplanned(align_bytes, size_bytes),
        })
    }

    fn alloc_slot(
        &self,
        managed: &crate::managed::Managed,
        own: Current,
        align_bytes: u64,
        size_bytes: u64,
    ) -> Option<usize> {
        let (memory, counters) = (&self.memory, &self.counters);
        let arena = &managed.arena;
        let mut begun = |unit: &UnitState, entered: Entered| {
            if let Entered::First { tier, overflowed } = entered {
                if overflowed {
                    counters.overflow_bytes.add(unit.len_bytes());
                }
                if let Err(error) = memory.tiers.place(unit.range(), tier) {
                    counters.failed(error.errno);
                    // A plan may move nothing and still need its tensors to be born in the right place.
                    counters.trouble(|| explain_new(memory.tiers.slow_name(), tier, error.errno));
                }
                if tier == Tier::FAST {
                    memory.tiers.populate(unit.range());
                } else if let Some(errno) = memory.tiers.shortage(unit.len_bytes(), tier) {
                    counters.births_elsewhere_bytes.add(unit.len_bytes());
                    counters.failed(errno);
                    counters.trouble(|| explain_new(memory.tiers.slow_name(), tier, errno));
                }
            }
        };
        let patience = crate::managed::Patience::of(size_bytes);
        let await_room = |bytes| managed.await_room(bytes, &patience, memory, &self.mover, counters);
        let taken = memory.on_ground(|ground| {
            let ground = Ground { await_room: &await_room, ..ground };
            arena.take(own.kernel, size_bytes, own.step_tag, ground, &mut begun)
        });
        match taken {
            Taken::Pool { addr } => {
                counters.slot_hits.count();
                Some(addr)
            }
            Taken::Units { addr, .. } => {
                counters.slot_hits.count();
                Some(addr)
            }
            Taken::Heap(tier) => {
                if tier == Tier::FAST {
                    self.alloc_unplanned(align_bytes, size_bytes)
                } else {
                    counters.heap_allocations.count();
                    memory.alloc_heap(size_bytes, align_bytes, tier)
                }
            }
            Taken::PoolShort => {
                counters.slot_misses_short.count();
                self.overflow(align_bytes, size_bytes)
            }
            Taken::Scratch => self.alloc_without_slot(align_bytes, size_bytes, true),
            Taken::Busy => {
                counters.slot_misses_busy.count();
                self.alloc_unplanned(align_bytes, size_bytes)
            }
            Taken::Size => {
                counters.slot_misses_size.count();
                self.alloc_unplanned(align_bytes, size_bytes)
            }
            Taken::Unknown => {
                counters.slot_misses_unknown.count();
                self.alloc_unplanned(align_bytes, size_bytes)
            }
        }
    }

    fn overflow(&self, align_bytes: u64, size_bytes: u64) -> Option<usize> {
        self.counters.overflow_bytes.add(size_bytes);
        self.memory.alloc_heap(size_bytes, align_bytes, Tier::SLOW)
    }

    /// Fast memory while the budget has room, then slow memory.
    fn alloc_unplanned(&self, align_bytes: u64, size_bytes: u64) -> Option<usize> {
        self.alloc_without_slot(align_bytes, size_bytes, size_bytes < SLOT_MIN_BYTES)
    }

    /// As [`Runtime::alloc_unplanned`], from the heap of small blocks or from the fast heap.
    fn alloc_without_slot(&self, align_bytes: u64, size_bytes: u64, small: bool) -> Option<usize> {
        let fast = || {
            if small || self.memory.threads_keep(size_bytes) {
                self.memory.alloc_small(size_bytes, align_bytes)
            } else {
                self.memory.alloc_heap(size_bytes, align_bytes, Tier::FAST)
            }
        };
        if small { &self.counters.small_allocations } else { &self.counters.heap_allocations }.count();
        fast()
            .or_else(|| self.make_room(size_bytes).and_then(|()| fast()))
            .or_else(|| self.overflow(align_bytes, size_bytes))
    }

    /// Takes from the pool of the plan that is followed what it holds and does not use; `None` when no plan is followed.
    /// Between two steps the pool stays as it was, and blocks that are asked for then may need its room as well.
    fn make_room(&self, size_bytes: u64) -> Option<()> {
        let active = self.active.get();
        let followed = match active.as_deref().map(|active| &active.mode) {
            Some(Mode::Managed(managed)) => Arc::clone(managed),
            // Whoever holds the lock is about to begin or to end a step, and is not waited for.
            _ => self.steps.try_lock().ok()?.followed.clone()?,
        };
        self.memory.on_ground(|ground| followed.arena.make_room(page_ceil(size_bytes), ground));
        Some(())
    }

    /// A tensor or scratch is dead; false for an address that is not Sentinel's.
    pub fn free(&self, addr: usize) -> bool {
        if !self.memory.owns(addr) {
            return false;
        }
        if sys::process::is_forked_child() {
            return true;
        }
        if self.active.profiles() {
            self.note_death(addr);
        }
        match self.release(addr) {
            Freed::Block { size_bytes, slow_bytes } => {
                if self.emulated.is_some() {
                    self.note_temporary(size_bytes - slow_bytes, slow_bytes);
                }
            }
            Freed::NotOurs => {
                self.counters.foreign_frees.count();
                log::error!("sentinel: release of {addr:#x}, which is no live block; ignored");
            }
        }
        true
    }

    /// Gives the block at `addr` back, nearly always to the arena of the plan that is followed.
    fn release(&self, addr: usize) -> Freed {
        if !self.memory.in_plan(addr) {
            return self.memory.free(addr);
        }
        self.active.with(|active| match active.map(|active| &active.mode) {
            Some(Mode::Managed(managed)) if managed.arena.range().contains(&addr) => {
                self.memory.free_in(&managed.arena, addr)
            }
            _ => self.memory.free(addr),
        })
    }

    fn note_death(&self, addr: usize) {
        self.active.with(|active| {
            if let Some(Active { mode: Mode::Profiling(recorder), .. }) = active {
                let own = current::get();
                recorder.died(addr, (own.kernel != NO_KERNEL && own.step_tag != 0).then_some(own.execution));
            }
        });
    }

    fn note_temporary(&self, fast_bytes: u64, slow_bytes: u64) {
        let kernel = current::get().kernel;
        if kernel != NO_KERNEL {
            let account = &self.temporaries[kernel as usize % TEMPORARY_ACCOUNTS];
            account.fast_bytes.fetch_add(fast_bytes, Ordering::Relaxed);
            account.slow_bytes.fetch_add(slow_bytes, Ordering::Relaxed);
        }
    }

    /// Until a step has been profiled, a share of the peak is a share of nothing.
    fn waits_for_peak(&self, peak_bytes: u64) -> Option<String> {
        match self.options.fast {
            FastBudget::Fraction(share) if peak_bytes == 0 => Some(format!(
                "sentinel: fast_fraction = {share}: the peak is not known before a step of a graph has been profiled, and \
                 until then nothing is fast; eager operations have no steps: give them fast_bytes"
            )),
            _ => None,
        }
    }

    /// The fast bytes in use, summed up from what lives where; see [`Memory::audited_fast_bytes`].
    #[must_use]
    pub fn audited_fast_bytes(&self) -> u64 {
        let pools = self.lock_steps().pool_bytes();
        self.memory.audited_fast_bytes(pools)
    }

    /// The device's threads, for the cost model and the plan.
    pub fn set_threads(&self, intra_op: u32, inter_op: u32) {
        self.intra_op_threads.store(intra_op.max(1), Ordering::Relaxed);
        self.inter_op_threads.store(inter_op.max(1), Ordering::Relaxed);
    }

    /// What `tf.sentinel.stats()` tells.
    #[must_use]
    pub fn report(&self) -> Report {
        if sys::process::is_forked_child() {
            // A thread of the parent may have held any lock when this process was made, and nobody will release it.
            let message = "sentinel: this process was forked off from one that has Sentinel, and has no part in it";
            return Report { state: "forked".to_owned(), message: Some(message.to_owned()), ..Report::default() };
        }
        let budget = &self.memory.budget;
        let refusals = self.memory.tiers.refusals();
        let (heap_bytes_peak, heap_bytes_reach) = self.memory.heap_peak_and_reach_bytes();
        let steps = self.lock_steps();
        Report {
            active: true,
            tiers: self.memory.tiers.kind().to_owned(),
            slow_tier: self.memory.tiers.slow_name().to_owned(),
            policy: self.options.policy.name().to_owned(),
            state: if steps.state.is_empty() { "warmup" } else { steps.state }.to_owned(),
            fast_bytes_allowed: (budget.allowed() != u64::MAX).then(|| budget.allowed()),
            fast_bytes_peak: budget.peak(),
            fast_bytes_used: budget.used(),
            fast_bytes_needed: steps.needed_bytes,
            peak_bytes: steps.peak_bytes,
            arena_bytes: steps.arena_bytes,
            arena_load_bytes: steps.arena_load_bytes,
            heap_bytes_peak,
            heap_bytes_reach,
            kept_bytes: self.memory.kept_bytes(),
            planned_move_bytes: steps.planned_move_bytes,
            placement_samples: self.memory.placement.samples.get(),
            placement_due_bytes: self.memory.placement.due_bytes.get(),
            placement_there_bytes: self.memory.placement.there_bytes.get(),
            placement_late_bytes: self.memory.placement.late_bytes.get(),
            placement_held_bytes_max: self.memory.placement.held_bytes_max.get(),
            placement_held_over_bytes: self.memory.placement.held_over_bytes.get(),
            newborn_demoted_bytes: self.memory.tiers.newborn_demoted_bytes(),
            mover_threads: self.options.mover_threads.unwrap_or(1),
            page_errors_by_errno: refusals.pages,
            call_errors_by_errno: refusals.calls,
            pages_retried: refusals.retried_pages,
            layers: u64::from(steps.layers),
            layer_source: steps.layer_source.map_or("", source_name).to_owned(),
            op_order: steps.op_order.to_owned(),
            late_choice: steps.late_choice.to_owned(),
            swapped_out_bytes: sys::swap::swapped_out_bytes().unwrap_or(0),
            swapped_out_bytes_peak: self.counters.swapped_out_bytes_peak.get(),
            major_faults: sys::swap::major_faults(),
            memory_limit_bytes: self.limit.as_ref().map(Limit::now_bytes),
            profiler: steps.profiler.to_owned(),
            trace_error: steps.trace_error.clone(),
            message: steps.message.clone().or_else(|| self.waits_for_peak(steps.peak_bytes)),
            ..Report::from_counters(&self.counters)
        }
    }

    /// True when a resource that cannot be had must stop training.
    pub(crate) fn strict(&self) -> bool {
        self.options.failure == Failure::Strict
    }
}

fn source_name(source: trace::LayerSource) -> &'static str {
    match source {
        trace::LayerSource::Marked => "marked",
        trace::LayerSource::Inferred => "inferred",
    }
}

pub(crate) fn nanos(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
