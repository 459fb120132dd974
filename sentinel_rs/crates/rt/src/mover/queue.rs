//! What one direction has to move: most urgent first, one job per unit.

use place::{Arena, UnitState};
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use trace::Tier;

/// Who waits for a queue looks again after so long at the latest: what it waits for may change without the queue.
const MOMENT: Duration = Duration::from_millis(1);

/// The due layer of a move that is never too late.
pub const NO_DEADLINE: u64 = u64::MAX;

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

/// Jobs by due layer; among equals, first come first served.
#[derive(Debug, Default)]
pub(super) struct Queue {
    jobs: VecDeque<Job>,
    /// The jobs that are travelling, by the number of their thread.
    pub(super) travelling: Vec<(usize, Job)>,
    /// The first job found no room in the budget when it was last tried.
    pub(super) starved: bool,
    /// The layer that training has reached.
    pub(super) layer: u64,
}

impl Queue {
    pub(super) fn is_idle(&self) -> bool {
        self.jobs.is_empty() && self.travelling.is_empty()
    }

    /// Takes a job behind those that are as urgent. An older job of the same unit is void: the plan has asked anew, and so a
    /// mover that lags behind has at most one job per unit before it.
    pub(super) fn put(&mut self, job: Job) {
        self.jobs.retain(|old| !Arc::ptr_eq(&old.unit, &job.unit));
        let place = self.jobs.partition_point(|old| old.due <= job.due);
        self.jobs.insert(place, job);
    }

    /// Gives a job back that cannot begin yet: it stays before those that are as urgent.
    pub(super) fn put_back(&mut self, job: Job) {
        if self.jobs.iter().any(|newer| Arc::ptr_eq(&newer.unit, &job.unit)) {
            return;
        }
        let place = self.jobs.partition_point(|old| old.due < job.due);
        self.jobs.insert(place, job);
    }

    /// The first job whose unit is not travelling already: two threads must not carry the same pages.
    pub(super) fn take(&mut self) -> Option<Job> {
        let travels = |job: &Job| self.travelling.iter().any(|(_, other)| Arc::ptr_eq(&other.unit, &job.unit));
        let at = self.jobs.iter().position(|job| !travels(job))?;
        self.jobs.remove(at)
    }

    /// Jobs that wait or travel.
    pub(super) fn all(&self) -> impl Iterator<Item = &Job> {
        self.jobs.iter().chain(self.travelling.iter().map(|(_, job)| job))
    }

    /// Drops waiting jobs that `keep` refuses; returns how many.
    pub(super) fn retain(&mut self, keep: impl Fn(&Job) -> bool) -> u64 {
        let before = self.jobs.len();
        self.jobs.retain(keep);
        self.starved = false;
        (before - self.jobs.len()) as u64
    }

    /// The thread's job has ended, however it did.
    pub(super) fn arrived(&mut self, thread: usize) {
        self.travelling.retain(|(other, _)| *other != thread);
    }
}

/// One direction's queue, and the bell for those who wait for it.
#[derive(Debug, Default)]
pub(super) struct Direction {
    queue: Mutex<Queue>,
    pub(super) changed: Condvar,
}

impl Direction {
    pub(super) fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets others at the queue until it changes, but no longer than a moment or `at_most`.
    pub(super) fn pause<'a>(&self, queue: MutexGuard<'a, Queue>, at_most: Duration) -> MutexGuard<'a, Queue> {
        self.changed.wait_timeout(queue, at_most.min(MOMENT)).unwrap_or_else(PoisonError::into_inner).0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::empty_arena;

    fn unit(page: usize) -> Arc<UnitState> {
        Arc::new(UnitState::occupied(page * 4096..(page + 1) * 4096, Tier::SLOW))
    }

    fn job(unit: &Arc<UnitState>, due: u64) -> Job {
        Job { unit: Arc::clone(unit), arena: empty_arena(), to: Tier::FAST, due }
    }

    #[test]
    fn the_most_urgent_goes_first_and_equals_in_their_order() {
        let (units, mut queue) = ([unit(0), unit(1), unit(2), unit(3)], Queue::default());
        for (unit, due) in units.iter().zip([NO_DEADLINE, 7, 5, 7]) {
            queue.put(job(unit, due));
        }
        let first = queue.take().expect("four jobs wait");
        assert!(Arc::ptr_eq(&first.unit, &units[2]));
        let second = queue.take().expect("three jobs wait");
        assert!(Arc::ptr_eq(&second.unit, &units[1]), "came before the other one of layer 7");
        queue.put_back(second);
        let order: Vec<usize> = std::iter::from_fn(|| queue.take()).map(|job| job.unit.range().start / 4096).collect();
        assert_eq!(order, [1, 3, 0]);
        assert!(queue.is_idle());
    }

    #[test]
    fn a_unit_travels_with_one_thread_at_a_time() {
        let (units, mut queue) = ([unit(0), unit(1)], Queue::default());
        queue.put(job(&units[0], 1));
        let travelling = queue.take().expect("one waits");
        queue.travelling.push((0, travelling));
        // The plan asks anew for what still travels, and for something else.
        queue.put(job(&units[0], 2));
        queue.put(job(&units[1], 3));
        assert!(Arc::ptr_eq(&queue.take().expect("the other unit may go").unit, &units[1]));
        assert!(queue.take().is_none(), "it has to wait for the first thread");
        queue.arrived(0);
        assert_eq!(queue.take().map(|job| job.due), Some(2));
    }

    #[test]
    fn a_mover_that_lags_has_one_job_per_unit() {
        let (unit, mut queue) = (unit(0), Queue::default());
        for step in 0..1000 {
            queue.put(job(&unit, step));
        }
        assert_eq!(queue.all().count(), 1);
        let taken = queue.take().expect("one waits");
        assert_eq!(taken.due, 999);
        queue.put(job(&unit, 1000));
        queue.put_back(taken);
        assert_eq!(queue.all().map(|job| job.due).collect::<Vec<_>>(), [1000], "the plan has asked anew meanwhile");
        assert_eq!((queue.retain(|job| job.due > 1000), queue.is_idle()), (1, true));
    }
}
