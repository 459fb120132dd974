//! What a mover's thread does with one job: reserve, carry in bounded batches, settle.

use super::pace::Pace;
use super::queue::{Direction, Job};
use super::trouble::explain;
use super::{Way, BATCH_AT_MOST};
use crate::memory::Memory;
use crate::stats::Counters;
use place::{MoveStart, MoveTicket, Moved};
use std::ops::Range;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::PoisonError;
use std::time::{Duration, Instant};
use sys::errno::EBUSY;
use trace::Tier;

/// How long a promotion that found no room waits before it asks again; evictions are under way meanwhile.
const ROOM_RETRY: Duration = Duration::from_micros(200);

/// One thread of one direction.
pub(super) struct Worker<'a> {
    pub(super) number: usize,
    pub(super) own: &'a Way,
    pub(super) other: &'a Way,
    /// Bytes that births wait for.
    pub(super) births: &'a AtomicU64,
    pub(super) memory: &'a Memory,
    pub(super) counters: &'a Counters,
}

impl Worker<'_> {
    /// Serves the direction's queue for ever.
    pub(super) fn serve(&self) {
        let direction: &Direction = &self.own.direction;
        let mut queue = direction.queue();
        loop {
            let Some(job) = queue.take() else {
                queue = direction.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            if self.own.trouble.rests() {
                self.counters.moves_given_up.count();
                direction.changed.notify_all();
                continue;
            }
            match self.begin(&job) {
                MoveStart::Needless => queue.starved = false,
                // Past its due layer plus one, a tensor has been used from slow memory already.
                MoveStart::NoRoom if job.due >= queue.layer => {
                    queue.starved = true;
                    queue.put_back(job);
                    (queue, _) =
                        direction.changed.wait_timeout(queue, ROOM_RETRY).unwrap_or_else(PoisonError::into_inner);
                    continue;
                }
                MoveStart::NoRoom => {
                    queue.starved = false;
                    self.counters.late_promotions.count();
                }
                MoveStart::Go(ticket) => {
                    queue.starved = false;
                    queue.travelling.push((self.number, job.clone()));
                    drop(queue);
                    self.travel(job, ticket);
                    queue = direction.queue();
                    queue.arrived(self.number);
                }
            }
            direction.changed.notify_all();
        }
    }

    /// Asks the unit to move.
    fn begin(&self, job: &Job) -> MoveStart {
        let births_bytes = self.births.load(Ordering::Relaxed);
        self.memory.on_ground(|ground| job.arena.begin_move(&job.unit, job.to, births_bytes, ground))
    }

    fn travel(&self, job: Job, ticket: MoveTicket) {
        // Whatever happens, the move must end: a dying tensor waits for that.
        let carried = catch_unwind(AssertUnwindSafe(|| self.carry(&job, ticket)));
        let arrived = carried.unwrap_or_else(|_| {
            self.counters.mover_panicked();
            false
        });
        let settled = job.unit.end_move(ticket, job.to, arrived, &self.memory.budget, &self.memory.pages);
        if settled {
            let counters = self.counters;
            let moved = if job.to == Tier::FAST { &counters.promoted_bytes } else { &counters.demoted_bytes };
            moved.add(job.unit.len_bytes());
        }
        let desired = job.unit.desired();
        let left = settled || job.to != Tier::FAST;
        if desired != job.to && left && job.unit.tier().is_some() {
            // The opposite wish came while a batch travelled, and found nothing to do.
            self.other.direction.queue().put(Job { to: desired, ..job });
            self.other.direction.changed.notify_all();
        }
    }

    /// Moves the pages in batches, and gives up between two of them when the unit dies or is wanted elsewhere. True when the unit
    /// counts as arrived.
    fn carry(&self, job: &Job, ticket: MoveTicket) -> bool {
        let counters = self.counters;
        let asked = if job.to == Tier::FAST { &counters.promote_asked_bytes } else { &counters.demote_asked_bytes };
        asked.add(job.unit.len_bytes());
        let whole = job.unit.range();
        let mut left = whole.clone();
        let (mut stayed_bytes, mut errno) = (0, 0);
        while !left.is_empty() {
            if !job.unit.wants(ticket, job.to) {
                counters.moves_cancelled.count();
                return self.keep_part(job, false, whole.start..left.start);
            }
            let batch = self.own.pace.batch(&left);
            left.start = batch.end;
            let moved = self.migrate(batch, self.own, job.to);
            if moved.failed_bytes > 0 {
                (stayed_bytes, errno) = (stayed_bytes + moved.failed_bytes, moved.errno);
                if moved.moved_bytes == 0 {
                    stayed_bytes += left.len() as u64;
                    break;
                }
            }
        }
        if stayed_bytes == 0 {
            self.own.trouble.over();
            return true;
        }
        let kept = stayed_bytes < job.unit.len_bytes() && (job.to != Tier::FAST || is_most(job, stayed_bytes));
        // That the kernel is using some pages is no reason to let the others rest.
        if errno != EBUSY || !kept {
            self.failed(job.to, errno);
        }
        self.keep_part(job, kept, whole.start..left.start)
    }

    /// Some pages of the unit stayed. The account may say that more of it is fast than is, never less. So what left fast memory
    /// is gone and the unit still counts as fast, until a promotion brings it back or an eviction takes the rest; what came
    /// there stays when it is most of the unit, which then counts as fast, and is sent back otherwise. True when the unit
    /// counts as arrived.
    fn keep_part(&self, job: &Job, kept: bool, tried: Range<usize>) -> bool {
        if kept {
            self.counters.moves_partial.count();
        }
        if job.to != Tier::FAST {
            job.unit.tear();
        } else if !kept {
            self.send_back(job, tried);
        }
        kept && job.to == Tier::FAST
    }

    /// Returns to slow memory what had arrived, unless it is dead.
    fn send_back(&self, job: &Job, mut left: Range<usize>) {
        while !left.is_empty() && job.unit.tier().is_some() {
            let batch = self.other.pace.batch(&left);
            left.start = batch.end;
            let moved = self.migrate(batch, self.other, Tier::SLOW);
            self.counters.stranded_bytes.add(moved.failed_bytes);
        }
    }

    fn failed(&self, to: Tier, errno: i32) {
        if self.own.trouble.failed(errno) {
            self.counters.trouble(|| explain(self.memory.tiers.slow_name(), to, errno));
        }
    }

    /// Moves one batch and counts what became of it; all of it failed when nothing could be tried.
    fn migrate(&self, batch: Range<usize>, way: &Way, to: Tier) -> Moved {
        let (len_bytes, began) = (batch.len() as u64, Instant::now());
        let moved = self.memory.tiers.migrate(batch, to).unwrap_or_else(|error| {
            log::debug!("{error}");
            Moved { failed_bytes: len_bytes, errno: error.errno, ..Moved::default() }
        });
        let took = began.elapsed();
        if moved.failed_bytes > 0 {
            self.counters.failed(moved.errno);
        }
        self.counters.batch(took, took > BATCH_AT_MOST);
        // Pages that need not travel say nothing about speed, and only slowness is to be learnt from a few.
        if 2 * moved.copied_bytes >= len_bytes || Pace::is_slow(took) {
            way.pace.learn(len_bytes, took);
        }
        if moved.copied_bytes > 0 {
            let pages = if to == Tier::FAST { &self.counters.promoted_pages } else { &self.counters.demoted_pages };
            pages.add(moved.copied_bytes / trace::PAGE_BYTES);
            self.counters.moved(to, moved.copied_bytes, took);
        }
        moved
    }
}

/// Whether most of the unit has moved when so many bytes stayed.
fn is_most(job: &Job, stayed_bytes: u64) -> bool {
    2 * stayed_bytes <= job.unit.len_bytes()
}
