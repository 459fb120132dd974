//! Background threads that carry out moves: some per direction, so that evictions make room while promotions travel.
//!
//! `queue` says what goes first, `pace` how much one batch may carry, `trouble` what becomes of refusals; `work` is what a
//! thread does.

mod pace;
mod queue;
mod trouble;
mod work;

pub use pace::BATCH_AT_MOST;
pub use queue::{Job, NO_DEADLINE};
pub(crate) use trouble::explain_new;

use crate::memory::Memory;
use crate::stats::Counters;
use pace::Pace;
use place::{Budget, UnitState};
use queue::Direction;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};
use trace::Tier;
use trouble::Trouble;
use work::Worker;

/// One direction: what waits, how fast it goes, and what keeps it from going.
#[derive(Debug, Default)]
struct Way {
    direction: Direction,
    pace: Pace,
    trouble: Trouble,
}

/// The movers of one process.
#[derive(Debug)]
pub struct Mover {
    promotions: Arc<Way>,
    demotions: Arc<Way>,
    /// Bytes that births wait for, which promotions must not take.
    births: Arc<AtomicU64>,
}

/// Moves that should have arrived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outstanding {
    /// Promotions.
    pub promotions: usize,
    /// Their bytes.
    pub promote_bytes: u64,
    /// Bytes of evictions that may have to go first: all that wait or travel.
    pub demote_bytes: u64,
}

impl Mover {
    /// Starts so many threads for each direction.
    ///
    /// # Errors
    /// When the system has no thread to give.
    pub fn start(memory: &Arc<Memory>, counters: &Arc<Counters>, threads: u32) -> std::io::Result<Mover> {
        let mover = Mover { promotions: Arc::default(), demotions: Arc::default(), births: Arc::default() };
        let ways = [
            ("sentinel-promote", &mover.promotions, &mover.demotions),
            ("sentinel-demote", &mover.demotions, &mover.promotions),
        ];
        for (name, own, other) in ways {
            for number in 0..threads.max(1) as usize {
                let (own, other) = (Arc::clone(own), Arc::clone(other));
                let (memory, counters) = (Arc::clone(memory), Arc::clone(counters));
                let births = Arc::clone(&mover.births);
                let work = move || loop {
                    let (own, other, births) = (&*own, &*other, &*births);
                    let worker = Worker { number, own, other, births, memory: &memory, counters: &counters };
                    // An internal error costs the move it happened in, not the mover.
                    if catch_unwind(AssertUnwindSafe(|| worker.serve())).is_err() {
                        counters.mover_panicked();
                        own.direction.queue().arrived(number);
                        own.direction.changed.notify_all();
                    }
                };
                std::thread::Builder::new().name(name.to_owned()).spawn(work)?;
            }
        }
        Ok(mover)
    }

    fn way(&self, to: Tier) -> &Way {
        if to == Tier::FAST {
            &self.promotions
        } else {
            &self.demotions
        }
    }

    /// Takes the moves of a layer, and learns that training has reached `layer`.
    pub fn advance(&self, layer: u64, jobs: impl Iterator<Item = Job>) {
        for job in jobs {
            job.unit.desire(job.to);
            self.way(job.to).direction.queue().put(job);
        }
        for way in [&self.demotions, &self.promotions] {
            let mut queue = way.direction.queue();
            queue.layer = layer;
            // Waking a thread that has nothing to do costs more than all else here.
            if !queue.is_idle() {
                way.direction.changed.notify_all();
            }
        }
    }

    /// Promotions due by `layer` that have not arrived, and what stands before them.
    pub fn outstanding(&self, layer: u64) -> Outstanding {
        let (mut promotions, mut promote_bytes) = (0, 0);
        for job in self.promotions.direction.queue().all().filter(|job| job.due <= layer) {
            promotions += 1;
            promote_bytes += job.unit.len_bytes();
        }
        let demote_bytes = self.demotions.direction.queue().all().map(|job| job.unit.len_bytes()).sum();
        Outstanding { promotions, promote_bytes, demote_bytes }
    }

    /// True when the unit has a move that is not due by `layer`.
    pub fn may_take_its_time(&self, unit: &Arc<UnitState>, layer: u64) -> bool {
        let later = |job: &Job| job.due > layer && Arc::ptr_eq(&job.unit, unit);
        [&self.promotions, &self.demotions].into_iter().any(|way| way.direction.queue().all().any(later))
    }

    /// Waits until no promotion due by `layer` is outstanding, until waiting is of no use because fast memory is full and
    /// nothing is on its way out, or until `at_most` is over; returns how long that took.
    pub fn await_promotions(&self, layer: u64, at_most: Duration) -> Duration {
        let began = Instant::now();
        let mut queue = self.promotions.direction.queue();
        while queue.all().any(|job| job.due <= layer) {
            let left = at_most.saturating_sub(began.elapsed());
            if left.is_zero() || queue.starved && self.demotions.direction.queue().is_idle() {
                break;
            }
            queue = self.promotions.direction.pause(queue, left);
        }
        began.elapsed()
    }

    /// Waits until the budget has room for `bytes`, until nothing is on its way out, or until `at_most` is over; returns how
    /// long that took, `None` when there was nothing to wait for.
    pub fn await_room(&self, bytes: u64, budget: &Budget, at_most: Duration) -> Option<Duration> {
        let began = Instant::now();
        let demotions = &self.demotions.direction;
        let mut queue = demotions.queue();
        if queue.is_idle() {
            return None;
        }
        self.births.fetch_add(bytes, Ordering::Relaxed);
        while budget.room() < bytes && !queue.is_idle() {
            let left = at_most.saturating_sub(began.elapsed());
            if left.is_zero() {
                break;
            }
            queue = demotions.pause(queue, left);
        }
        self.births.fetch_sub(bytes, Ordering::Relaxed);
        Some(began.elapsed())
    }

    /// Drops promotions due by `layer` that have not begun; returns how many there were.
    pub fn drop_late(&self, layer: u64) -> u64 {
        self.promotions.direction.queue().retain(|job| job.due > layer)
    }

    /// Drops everything that has not begun: the plan is no longer followed.
    pub fn drop_all(&self) {
        for way in [&self.promotions, &self.demotions] {
            way.direction.queue().retain(|_| false);
        }
    }
}
