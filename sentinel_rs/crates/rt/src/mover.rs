//! Background threads that carry out moves: one per direction, so that evictions make room while promotions travel.

use crate::memory::Memory;
use crate::stats::Counters;
use place::{Arena, MoveStart, MoveTicket, Moved, UnitState};
use std::collections::VecDeque;
use std::ops::Range;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use trace::Tier;

/// How long a promotion that found no room waits before it asks again; evictions are under way meanwhile.
const ROOM_RETRY: Duration = Duration::from_micros(200);
/// Pages of a unit travel in pieces of this size; a tensor that dies waits for one of them at most.
const PIECE_BYTES: usize = 2 << 20;
/// The due layer of a move that is never too late.
pub const NO_DEADLINE: u64 = u64::MAX;
/// No training thread waits longer than this for late promotions.
const LONGEST_STALL: Duration = Duration::from_secs(5);

/// One unit to one tier, by a layer of the endless sequence of layers that steps make.
#[derive(Clone, Debug)]
pub struct Job {
    /// What moves.
    pub unit: Arc<UnitState>,
    /// Whose pool may make room for it.
    pub arena: Arc<Arena>,
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
        let ways = [
            ("sentinel-promote", &mover.promotions, &mover.demotions, Tier::FAST),
            ("sentinel-demote", &mover.demotions, &mover.promotions, Tier::SLOW),
        ];
        for (name, own, other, to) in ways {
            let (own, other) = (Arc::clone(own), Arc::clone(other));
            let (memory, counters) = (Arc::clone(memory), Arc::clone(counters));
            let work = move || loop {
                // An internal error costs the move it happened in, not the mover.
                if catch_unwind(AssertUnwindSafe(|| serve(&own, &other, to, &memory, &counters))).is_err() {
                    counters.panics_caught.count();
                    own.queue().travelling = None;
                }
            };
            std::thread::Builder::new().name(name.to_owned()).spawn(work)?;
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
            job.unit.desire(job.to);
            self.direction(job.to).queue().jobs.push_back(job);
        }
        for direction in [&self.demotions, &self.promotions] {
            direction.queue().layer = layer;
            direction.changed.notify_all();
        }
    }

    /// Promotions due by `layer` that have not arrived.
    pub fn outstanding(&self, layer: u64) -> usize {
        let queue = self.promotions.queue();
        queue.jobs.iter().chain(&queue.travelling).filter(|job| job.due <= layer).count()
    }

    /// True when the unit has a move that is not due by `layer`.
    pub fn may_take_its_time(&self, unit: &Arc<UnitState>, layer: u64) -> bool {
        let later = |job: &Job| job.due > layer && Arc::ptr_eq(&job.unit, unit);
        [&self.promotions, &self.demotions].into_iter().any(|direction| {
            let queue = direction.queue();
            queue.jobs.iter().chain(&queue.travelling).any(later)
        })
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
        queue.starved = false;
        (before - queue.jobs.len()) as u64
    }

    /// Drops everything that has not begun: the plan is no longer followed.
    pub fn drop_all(&self) {
        for direction in [&self.promotions, &self.demotions] {
            let mut queue = direction.queue();
            queue.jobs.clear();
            queue.starved = false;
        }
    }
}

fn serve(direction: &Direction, other: &Direction, to: Tier, memory: &Memory, counters: &Counters) {
    let mut queue = direction.queue();
    loop {
        let Some(job) = queue.jobs.pop_front() else {
            queue = direction.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
            continue;
        };
        match begin(&job, memory) {
            MoveStart::Needless => queue.starved = false,
            MoveStart::NoRoom => {
                queue.starved = true;
                // What has no deadline lets others pass. Past its due layer plus one a tensor has been used from slow
                // memory already.
                if job.due == NO_DEADLINE && queue.jobs.iter().any(|other| other.due != NO_DEADLINE) {
                    queue.jobs.push_back(job);
                } else if job.due >= queue.layer {
                    queue.jobs.push_front(job);
                    (queue, _) =
                        direction.changed.wait_timeout(queue, ROOM_RETRY).unwrap_or_else(PoisonError::into_inner);
                } else {
                    queue.starved = false;
                    counters.late_promotions.count();
                }
                continue;
            }
            MoveStart::Go(ticket) => {
                queue.starved = false;
                queue.travelling = Some(job.clone());
                drop(queue);
                // Whatever happens, the move must end: a dying tensor waits for that.
                let carried = catch_unwind(AssertUnwindSafe(|| carry(&job, ticket, memory, counters)));
                let arrived = carried.unwrap_or_else(|_| {
                    counters.panics_caught.count();
                    false
                });
                if job.unit.end_move(ticket, to, arrived, &memory.budget, &memory.pages) {
                    let moved = if to == Tier::FAST { &counters.promoted_bytes } else { &counters.demoted_bytes };
                    moved.add(job.unit.len_bytes());
                    let desired = job.unit.desired();
                    if desired != to {
                        // The opposite wish came while the last piece travelled, and found nothing to do.
                        other.queue().jobs.push_back(Job { to: desired, ..job });
                        other.changed.notify_all();
                    }
                }
                queue = direction.queue();
                queue.travelling = None;
            }
        }
        direction.changed.notify_all();
    }
}

/// Asks the unit to move; where that needs room, the pool may have some.
fn begin(job: &Job, memory: &Memory) -> MoveStart {
    match job.unit.begin_move(job.to, &memory.budget) {
        MoveStart::NoRoom => {
            memory.on_ground(|ground| job.arena.make_room(job.unit.len_bytes(), ground));
            job.unit.begin_move(job.to, &memory.budget)
        }
        start => start,
    }
}

/// Moves the pages in small pieces, and gives up between two of them when the unit dies or is wanted elsewhere. True when
/// all of them arrived; otherwise those that did are sent back.
fn carry(job: &Job, ticket: MoveTicket, memory: &Memory, counters: &Counters) -> bool {
    let asked = if job.to == Tier::FAST { &counters.promote_asked_bytes } else { &counters.demote_asked_bytes };
    asked.add(job.unit.len_bytes());
    let range = job.unit.range();
    for begin in range.clone().step_by(PIECE_BYTES) {
        let piece = begin..range.end.min(begin + PIECE_BYTES);
        let arrived = job.unit.wants(ticket, job.to) && measured(piece, job.to, memory, counters);
        if !arrived {
            if begin > range.start && job.unit.tier().is_some() {
                let back = if job.to == Tier::FAST { Tier::SLOW } else { Tier::FAST };
                migrate(range.start..begin, back, memory, counters);
            }
            return false;
        }
    }
    true
}

/// Migrates, and adds to what is known of the speed of moves. Pages that need not travel say nothing about it.
fn measured(range: Range<usize>, to: Tier, memory: &Memory, counters: &Counters) -> bool {
    let began = Instant::now();
    let moved = migrate(range, to, memory, counters);
    if moved.moved_bytes > 0 {
        counters.moved(to, moved.moved_bytes, began.elapsed());
    }
    moved.failed_bytes == 0
}

/// What became of the range; all of it failed when nothing could be tried.
fn migrate(range: Range<usize>, to: Tier, memory: &Memory, counters: &Counters) -> Moved {
    let len_bytes = range.len() as u64;
    let moved = memory.tiers.migrate(range, to).unwrap_or_else(|error| {
        log::debug!("{error}");
        Moved { moved_bytes: 0, failed_bytes: len_bytes, errno: error.errno }
    });
    if moved.failed_bytes > 0 {
        counters.failed(moved.errno);
    }
    moved
}
