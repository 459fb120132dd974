//! Counters: what was asked, what was done, what failed. They are the truth that every report prints.

use crate::busy::BusyCounter;
use crate::runtime::nanos;
use crate::waits::Waits;
use plan::MoveTally;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use trace::Tier;

/// A counter that any thread may add to.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds.
    pub fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    /// Adds one.
    pub fn count(&self) {
        self.add(1);
    }

    /// Becomes `amount` where that is more.
    pub fn raise(&self, amount: u64) {
        self.0.fetch_max(amount, Ordering::Relaxed);
    }

    /// The sum so far.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The counters of one process.
#[derive(Debug, Default)]
#[allow(missing_docs)] // Each is named after the key of `tf.sentinel.stats()` that documents it.
pub struct Counters {
    pub promoted_bytes: Counter,
    pub demoted_bytes: Counter,
    pub promote_asked_bytes: Counter,
    pub demote_asked_bytes: Counter,
    pub promoted_pages: Counter,
    pub demoted_pages: Counter,
    pub moves_cancelled: Counter,
    pub moves_given_up: Counter,
    pub moves_partial: Counter,
    pub stranded_bytes: Counter,
    pub births_elsewhere_bytes: Counter,
    pub move_batches: Counter,
    pub move_batches_slow: Counter,
    pub late_promotions: Counter,
    pub slot_hits: BusyCounter,
    pub slot_misses_busy: Counter,
    pub slot_misses_unknown: Counter,
    pub slot_misses_size: Counter,
    pub slot_misses_short: Counter,
    pub small_allocations: BusyCounter,
    pub heap_allocations: BusyCounter,
    pub overflow_bytes: Counter,
    pub foreign_frees: Counter,
    pub stall_ns: Counter,
    pub slow_memory_ns: Counter,
    pub stalls: Counter,
    pub stalls_cut: Counter,
    pub emulated_delay_ns: Counter,
    pub steps_seen: Counter,
    pub steps_profiled: Counter,
    pub steps_managed: Counter,
    pub steps_unmanaged: Counter,
    pub plans_made: Counter,
    pub plans_for_op_times: Counter,
    pub panics_caught: Counter,
    pub memory_limit_changes: Counter,
    pub swapped_out_bytes_peak: Counter,
    errors_by_errno: Mutex<BTreeMap<i32, u64>>,
    /// One lock for bytes and times, so that speeds made from them are right; movers take it once per piece of a move.
    moves: Mutex<MoveTally>,
    longest: Mutex<Longest>,
    trouble: Mutex<Option<String>>,
}

/// What took longest so far, and what the latest step waited.
#[derive(Clone, Copy, Debug, Default)]
struct Longest {
    batch: Duration,
    stall: Duration,
    stall_of_step: Duration,
    stall_of_last_step: Duration,
}

impl Counters {
    /// Counts a failed system call or page by its errno.
    pub fn failed(&self, errno: i32) {
        let mut errors = self.errors_by_errno.lock().unwrap_or_else(PoisonError::into_inner);
        *errors.entry(errno).or_insert(0) += 1;
    }

    /// The failures so far.
    #[must_use]
    pub fn errors_by_errno(&self) -> BTreeMap<i32, u64> {
        self.errors_by_errno.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A piece of a move arrived.
    #[allow(clippy::cast_precision_loss)] // sums of bytes and nanoseconds, exact up to 2^53
    pub fn moved(&self, to: Tier, bytes: u64, took: Duration) {
        let way = usize::from(to != Tier::FAST);
        let mut moves = self.moves.lock().unwrap_or_else(PoisonError::into_inner);
        moves.moved_bytes[way] += bytes as f64;
        moves.busy_ns[way] += took.as_secs_f64() * 1e9;
    }

    /// One call of the system moved pages.
    pub fn batch(&self, took: Duration, slow: bool) {
        self.move_batches.count();
        if slow {
            self.move_batches_slow.count();
        }
        let mut longest = self.longest();
        longest.batch = longest.batch.max(took);
    }

    /// An operation waited for promotions; `cut` when the time that it may wait was over first.
    pub fn stalled(&self, took: Duration, cut: bool) {
        self.stall_ns.add(nanos(took));
        self.stalls.count();
        if cut {
            self.stalls_cut.count();
        }
        let mut longest = self.longest();
        longest.stall = longest.stall.max(took);
    }

    /// Operations waited for batches that carried what died.
    pub fn deaths_waited(&self, waits: Waits) {
        self.stall_ns.add(nanos(waits.sum));
        self.stalls.add(waits.count);
        let mut longest = self.longest();
        longest.stall = longest.stall.max(waits.longest);
    }

    /// A step is over in which operations waited for so long altogether.
    pub fn step_stalled(&self, took: Duration) {
        let mut longest = self.longest();
        longest.stall_of_step = longest.stall_of_step.max(took);
        longest.stall_of_last_step = took;
    }

    fn longest(&self) -> MutexGuard<'_, Longest> {
        self.longest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something failed that the user should hear of; the first such thing is kept.
    pub fn trouble(&self, text: impl FnOnce() -> String) {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        trouble.get_or_insert_with(text);
    }

    /// A mover met an internal error; the move that it worked on failed.
    pub fn mover_panicked(&self) {
        self.panics_caught.count();
        self.trouble(|| "sentinel: a mover met an internal error; the move failed, and the mover goes on".to_owned());
    }

    /// The first failure that the user should hear of.
    #[must_use]
    pub fn first_trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// All moves so far.
    #[must_use]
    pub fn moves(&self) -> MoveTally {
        *self.moves.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Slot hits as a share of the allocations that asked for a slot; `None` before the first one.
    #[must_use]
    pub fn slot_hit_rate(&self) -> Option<f64> {
        let hits = self.slot_hits.get();
        let misses = self.slot_misses_busy.get()
            + self.slot_misses_unknown.get()
            + self.slot_misses_size.get()
            + self.slot_misses_short.get();
        let asked = hits + misses;
        #[allow(clippy::cast_precision_loss)] // a rate
        (asked > 0).then(|| hits as f64 / asked as f64)
    }
}

/// What `tf.sentinel.stats()` returns; the field names are its keys.
#[derive(Debug, Default, Serialize)]
#[allow(missing_docs)] // Documented for users in `tf.sentinel.stats`.
pub struct Report {
    pub active: bool,
    pub tiers: String,
    pub slow_tier: String,
    pub policy: String,
    pub state: String,
    pub fast_bytes_allowed: Option<u64>,
    pub fast_bytes_peak: u64,
    pub fast_bytes_used: u64,
    pub fast_bytes_needed: u64,
    pub peak_bytes: u64,
    pub arena_bytes: u64,
    pub arena_load_bytes: u64,
    pub heap_bytes_peak: u64,
    pub heap_bytes_reach: u64,
    pub kept_bytes: u64,
    pub promoted_bytes: u64,
    pub demoted_bytes: u64,
    pub promote_asked_bytes: u64,
    pub demote_asked_bytes: u64,
    pub promote_gbps_measured: Option<f64>,
    pub demote_gbps_measured: Option<f64>,
    pub promoted_pages: u64,
    pub demoted_pages: u64,
    pub moves_cancelled: u64,
    pub moves_given_up: u64,
    pub moves_partial: u64,
    pub stranded_bytes: u64,
    pub births_elsewhere_bytes: u64,
    pub newborn_demoted_bytes: u64,
    pub mover_threads: u32,
    pub move_batches: u64,
    pub move_batches_slow: u64,
    pub move_batch_ns_max: u64,
    pub late_promotions: u64,
    pub slot_hits: u64,
    pub slot_misses_busy: u64,
    pub slot_misses_unknown: u64,
    pub slot_misses_size: u64,
    pub slot_misses_short: u64,
    pub slot_hit_rate: Option<f64>,
    pub small_allocations: u64,
    pub heap_allocations: u64,
    pub overflow_bytes: u64,
    pub foreign_frees: u64,
    pub stall_ns: u64,
    pub slow_memory_ns: u64,
    pub stalls: u64,
    pub stalls_cut: u64,
    pub stall_ns_max: u64,
    pub stall_ns_last_step: u64,
    pub stall_ns_step_max: u64,
    pub emulated_delay_ns: u64,
    pub steps_seen: u64,
    pub steps_profiled: u64,
    pub steps_managed: u64,
    pub steps_unmanaged: u64,
    pub plans_made: u64,
    pub plans_for_op_times: u64,
    pub planned_move_bytes: u64,
    pub panics_caught: u64,
    pub swapped_out_bytes: u64,
    pub swapped_out_bytes_peak: u64,
    pub major_faults: u64,
    pub memory_limit_bytes: Option<u64>,
    pub memory_limit_changes: u64,
    pub placement_samples: u64,
    pub placement_due_bytes: u64,
    pub placement_there_bytes: u64,
    pub placement_late_bytes: u64,
    pub placement_held_bytes_max: u64,
    pub placement_held_over_bytes: u64,
    pub layers: u64,
    pub layer_source: String,
    pub op_order: String,
    pub late_choice: String,
    pub profiler: String,
    pub errors_by_errno: BTreeMap<i32, u64>,
    pub page_errors_by_errno: BTreeMap<i32, u64>,
    pub call_errors_by_errno: BTreeMap<i32, u64>,
    pub pages_retried: u64,
    pub trace_error: Option<String>,
    pub message: Option<String>,
}

impl Report {
    /// A report with the counters filled in.
    #[must_use]
    pub fn from_counters(counters: &Counters) -> Report {
        let (moves, longest) = (counters.moves(), *counters.longest());
        let gbps = |way: usize| (moves.busy_ns[way] > 0.0).then(|| moves.moved_bytes[way] / moves.busy_ns[way]);
        Report {
            promoted_bytes: counters.promoted_bytes.get(),
            demoted_bytes: counters.demoted_bytes.get(),
            promote_asked_bytes: counters.promote_asked_bytes.get(),
            demote_asked_bytes: counters.demote_asked_bytes.get(),
            promote_gbps_measured: gbps(0),
            demote_gbps_measured: gbps(1),
            promoted_pages: counters.promoted_pages.get(),
            demoted_pages: counters.demoted_pages.get(),
            moves_cancelled: counters.moves_cancelled.get(),
            moves_given_up: counters.moves_given_up.get(),
            moves_partial: counters.moves_partial.get(),
            stranded_bytes: counters.stranded_bytes.get(),
            births_elsewhere_bytes: counters.births_elsewhere_bytes.get(),
            move_batches: counters.move_batches.get(),
            move_batches_slow: counters.move_batches_slow.get(),
            move_batch_ns_max: nanos(longest.batch),
            late_promotions: counters.late_promotions.get(),
            slot_hits: counters.slot_hits.get(),
            slot_misses_busy: counters.slot_misses_busy.get(),
            slot_misses_unknown: counters.slot_misses_unknown.get(),
            slot_misses_size: counters.slot_misses_size.get(),
            slot_misses_short: counters.slot_misses_short.get(),
            slot_hit_rate: counters.slot_hit_rate(),
            small_allocations: counters.small_allocations.get(),
            heap_allocations: counters.heap_allocations.get(),
            overflow_bytes: counters.overflow_bytes.get(),
            foreign_frees: counters.foreign_frees.get(),
            stall_ns: counters.stall_ns.get(),
            slow_memory_ns: counters.slow_memory_ns.get(),
            stalls: counters.stalls.get(),
            stalls_cut: counters.stalls_cut.get(),
            stall_ns_max: nanos(longest.stall),
            stall_ns_last_step: nanos(longest.stall_of_last_step),
            stall_ns_step_max: nanos(longest.stall_of_step),
            emulated_delay_ns: counters.emulated_delay_ns.get(),
            steps_seen: counters.steps_seen.get(),
            steps_profiled: counters.steps_profiled.get(),
            steps_managed: counters.steps_managed.get(),
            steps_unmanaged: counters.steps_unmanaged.get(),
            plans_for_op_times: counters.plans_for_op_times.get(),
            plans_made: counters.plans_made.get(),
            panics_caught: counters.panics_caught.get(),
            memory_limit_changes: counters.memory_limit_changes.get(),
            errors_by_errno: counters.errors_by_errno(),
            ..Report::default()
        }
    }

    /// As one line of JSON.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_else(|_| "{}".to_owned())
    }
}
