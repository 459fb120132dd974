//! Background threads that carry out moves: one per direction, so that evictions make room while promotions travel.

use crate::memory::Memory;
use crate::stats::Counters;
use place::{MoveStart, UnitState};
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use trace::Tier;

/// How long a promotion that found no room waits before it asks again; evictions are under way meanwhile.
const ROOM_RETRY: Duration = Duration::from_micros(200);
/// No training thread waits longer than this for late promotions.
const LONGEST_STALL: Duration = Duration::from_secs(5);

/// One unit to one tier, by a layer of the endless sequence of layers that steps make.
#[derive(Clone, Debug)]
pub struct Job {
    /// What moves.
    pub unit: Arc<UnitState>,
    /// Where to.
    pub to: Tier,
    /// Layer, counted over all steps of the plan, by whose begin it should have arrived.
    pub due: u64,
}

#[derive(Debug, Default)]
struct Queue {
    jobs: VecDeque<Job>,
    /// The job that is travelling.
    travelling: Option<Job>,
    /// The first job found no room in the budget when it was last tried.
    starved: bool,
    /// The layer that training has reached.
    layer: u64,
}

impl Queue {
    fn is_idle(&self) -> bool {
        self.jobs.is_empty() && self.travelling.is_none()
    }
}

/// One direction's queue and the thread that serves it.
#[derive(Debug, Default)]
struct Direction {
    queue: Mutex<Queue>,
    changed: Condvar,
}

impl Direction {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The movers of one process.
#[derive(Debug)]
pub struct Mover {
    promotions: Arc<Direction>,
    demotions: Arc<Direction>,
}

impl Mover {
    /// Starts the threads.
    ///
    /// # Errors
    /// When the system has no thread to give.
    pub fn start(memory: &Arc<Memory>, counters: &Arc<Counters>) -> std::io::Result<Mover> {
        let mover = Mover { promotions: Arc::default(), demotions: Arc::default() };
        for (name, direction, to) in
            [("sentinel-promote", &mover.promotions, Tier::FAST), ("sentinel-demote", &mover.demotions, Tier::SLOW)]
        {
            let (direction, memory, counters) = (Arc::clone(direction), Arc::clone(memory), Arc::clone(counters));
            std::thread::Builder::new()
                .name(name.to_owned())
                .spawn(move || serve(&direction, to, &memory, &counters))?;
        }
        Ok(mover)
    }

    fn direction(&self, to: Tier) -> &Direction {
        if to == Tier::FAST {
            &self.promotions
        } else {
            &self.demotions
        }
    }

    /// Takes the moves of a layer, most urgent first, and learns that training has reached `layer`.
    pub fn advance(&self, layer: u64, jobs: impl Iterator<Item = Job>) {
        for job in jobs {
            self.direction(job.to).queue().jobs.push_back(job);
        }
        for direction in [&self.demotions, &self.promotions] {
            direction.queue().layer = layer;
            direction.changed.notify_all();
        }
    }

    /// Waits until no promotion due by `layer` is outstanding, or until waiting is of no use because fast memory is full and
    /// nothing is on its way out; returns how long that took.
    pub fn await_promotions(&self, layer: u64) -> Duration {
        let began = Instant::now();
        let mut queue = self.promotions.queue();
        while queue.jobs.iter().chain(&queue.travelling).any(|job| job.due <= layer) && began.elapsed() < LONGEST_STALL
        {
            if queue.starved && self.demotions.queue().is_idle() {
                break;
            }
            let (next, _) = self
                .promotions
                .changed
                .wait_timeout(queue, Duration::from_millis(1))
                .unwrap_or_else(PoisonError::into_inner);
            queue = next;
        }
        began.elapsed()
    }

    /// Drops promotions due by `layer` that have not begun; returns how many there were.
    pub fn drop_late(&self, layer: u64) -> u64 {
        let mut queue = self.promotions.queue();
        let before = queue.jobs.len();
        queue.jobs.retain(|job| job.due > layer);
        (before - queue.jobs.len()) as u64
    }

    /// Drops everything that has not begun: the plan is no longer followed.
    pub fn drop_all(&self) {
        for direction in [&self.promotions, &self.demotions] {
            direction.queue().jobs.clear();
        }
    }
}

fn serve(direction: &Direction, to: Tier, memory: &Memory, counters: &Counters) {
    let mut queue = direction.queue();
    loop {
        let Some(job) = queue.jobs.pop_front() else {
            queue = direction.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
            continue;
        };
        match job.unit.begin_move(to, &memory.budget) {
            MoveStart::Needless => queue.starved = false,
            MoveStart::NoRoom => {
                queue.starved = true;
                // Past its due layer plus one the tensor has been used from slow memory already.
                if job.due >= queue.layer {
                    queue.jobs.push_front(job);
                    (queue, _) =
                        direction.changed.wait_timeout(queue, ROOM_RETRY).unwrap_or_else(PoisonError::into_inner);
                } else {
                    counters.late_promotions.count();
                }
                continue;
            }
            MoveStart::Go(ticket) => {
                queue.starved = false;
                queue.travelling = Some(job.clone());
                drop(queue);
                let arrived = carry(&job, memory, counters);
                if job.unit.end_move(ticket, to, arrived, &memory.budget, &memory.pages) {
                    let moved = if to == Tier::FAST { &counters.promoted_bytes } else { &counters.demoted_bytes };
                    moved.add(job.unit.len_bytes());
                }
                queue = direction.queue();
                queue.travelling = None;
            }
        }
        direction.changed.notify_all();
    }
}

/// Moves the pages; true when all of them arrived.
fn carry(job: &Job, memory: &Memory, counters: &Counters) -> bool {
    let asked = if job.to == Tier::FAST { &counters.promote_asked_bytes } else { &counters.demote_asked_bytes };
    asked.add(job.unit.len_bytes());
    match memory.tiers.migrate(job.unit.range(), job.to) {
        Ok(moved) => {
            if moved.failed_bytes > 0 {
                counters.failed(moved.errno);
            }
            moved.failed_bytes == 0
        }
        Err(error) => {
            counters.failed(error.errno);
            log::debug!("{error}");
            false
        }
    }
}
