//! What moves and operations really took, against what their plan assumed: a plan whose speeds or times were wrong is made
//! again from the same profile, and the next step follows the new one.

use crate::buckets::Phase;
use crate::managed::Managed;
use crate::runtime::Runtime;
use crate::steps::Steps;
use crate::timing::OpTimes;
use plan::{Migration, MoveTally, PLANS_MAX};
use profile::Profile;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use trace::{LayerSource, StepTrace};

/// The first steps of a plan find persistent tensors where they were before it, and are not measured.
const SETTLING_STEPS: u64 = 2;
/// Times of operations are judged after so many steps of a plan. In the first, its addresses are touched for the first time.
const TIMED_STEPS: u64 = 3;
/// A speed is judged from moves of this time or more. Emulated moves are up to 20 ms early or late, because what a sleep
/// took too long is taken off the next ones; in a window of this length that stays below what counts as wrong.
const WINDOW_NS: f64 = 100e6;

/// What a profile's plans are made from.
#[derive(Debug)]
pub struct Basis {
    /// The profiled step.
    pub profile: Profile,
    /// Address of each buffer of the profile, by buffer index.
    pub addresses: Vec<usize>,
    /// Where the layers come from.
    pub layer_source: LayerSource,
    /// The step as it was recorded, when the user wants it as a file.
    pub trace: Option<StepTrace>,
}

/// What a plan should have assumed.
#[derive(Clone, Debug)]
pub struct Correction {
    /// Speeds of moves.
    pub migration: Migration,
    /// Times by operation; `None` when those that were assumed are right.
    pub op_times: Option<Vec<u64>>,
}

/// Whether the speeds and times that one plan assumed turn out to be right.
#[derive(Debug)]
pub struct Feedback {
    /// What operations take.
    pub op_times: OpTimes,
    /// For another plan.
    pub basis: Arc<Basis>,
    /// Plans of the profile, this one included.
    pub plans: u32,
    /// The speeds that the plan assumes.
    pub assumed: Migration,
    learnt: Mutex<Learnt>,
    /// A thread is making another plan.
    planning: AtomicBool,
    /// The better plan, which replaces this one between two steps.
    successor: Mutex<Option<Arc<Managed>>>,
}

#[derive(Debug, Default)]
struct Learnt {
    /// Steps that followed the plan.
    steps: u64,
    /// All moves of the process up to the last of them.
    seen: MoveTally,
    /// By direction.
    ways: [Way; 2],
    /// Another plan is asked for, which happens once.
    asked: bool,
}

/// Bytes that arrived in one direction, and nanoseconds in which a move was under way.
type Moves = (f64, f64);

#[derive(Clone, Copy, Debug, Default)]
struct Way {
    /// Since the last judgement.
    window: Moves,
    /// The judged window before, when its speed was wrong.
    off: Option<Moves>,
}

impl Way {
    /// The speed's last two windows were wrong, and so are both together.
    fn judge(&mut self, is_off: impl Fn(Moves) -> bool) -> Option<Moves> {
        if self.window.1 < WINDOW_NS {
            return None;
        }
        let window = std::mem::take(&mut self.window);
        let before = self.off.take();
        if !is_off(window) {
            return None;
        }
        self.off = Some(window);
        before.map(|before| sum(before, window)).filter(|&both| is_off(both))
    }

    /// What is known when the other direction is found wrong.
    fn known(&self) -> Moves {
        let known = sum(self.off.unwrap_or_default(), self.window);
        if known.1 < WINDOW_NS {
            Moves::default()
        } else {
            known
        }
    }
}

impl Learnt {
    /// As [`Feedback::step_ends`], for the speeds that the plan assumed.
    fn step_ends(&mut self, assumed: Migration, total: MoveTally) -> Option<Migration> {
        let before = std::mem::replace(&mut self.seen, total);
        self.steps += 1;
        if self.steps <= SETTLING_STEPS {
            return None;
        }
        for (at, way) in self.ways.iter_mut().enumerate() {
            let new = (total.moved_bytes[at] - before.moved_bytes[at], total.busy_ns[at] - before.busy_ns[at]);
            way.window = sum(way.window, new);
        }
        let is_off = |at: usize, moves: Moves| {
            let mut ways = [Moves::default(); 2];
            ways[at] = moves;
            assumed.corrected(&tally(ways)).is_some()
        };
        let wrong = [0, 1].map(|at| self.ways[at].judge(|moves| is_off(at, moves)));
        if wrong == [None, None] {
            return None;
        }
        assumed.corrected(&tally([0, 1].map(|at| wrong[at].unwrap_or_else(|| self.ways[at].known()))))
    }
}

fn sum(a: Moves, b: Moves) -> Moves {
    (a.0 + b.0, a.1 + b.1)
}

fn tally(ways: [Moves; 2]) -> MoveTally {
    MoveTally { moved_bytes: ways.map(|way| way.0), busy_ns: ways.map(|way| way.1) }
}

impl Feedback {
    /// For a plan that assumes these speeds; `plans` counts the profile's plans with this one.
    #[must_use]
    pub fn new(basis: Arc<Basis>, plans: u32, assumed: Migration) -> Feedback {
        let op_times = OpTimes::new(&basis.profile);
        let (learnt, planning, successor) = (Mutex::default(), AtomicBool::new(false), Mutex::default());
        Feedback { op_times, basis, plans, assumed, learnt, planning, successor }
    }

    /// A step that followed the plan is over, and moves came to `total` since the process began. Returns what to plan with,
    /// when what the plan assumed is wrong for long enough and the profile may have another plan.
    pub fn step_ends(&self, total: MoveTally) -> Option<Correction> {
        let mut learnt = self.learnt.lock().unwrap_or_else(PoisonError::into_inner);
        if learnt.asked || self.plans >= PLANS_MAX {
            return None;
        }
        let migration = learnt.step_ends(self.assumed, total);
        let op_times = if learnt.steps >= TIMED_STEPS { self.op_times.corrected() } else { None };
        learnt.asked = migration.is_some() || op_times.is_some();
        learnt.asked.then(|| Correction { migration: migration.unwrap_or(self.assumed), op_times })
    }

    /// The plan that replaces this one, once there is one.
    pub fn take_successor(&self) -> Option<Arc<Managed>> {
        self.successor.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Puts the plan in place that replaces this one; returns the one that was to do so until now.
    pub fn offer_successor(&self, after: Arc<Managed>) -> Option<Arc<Managed>> {
        self.successor.lock().unwrap_or_else(PoisonError::into_inner).replace(after)
    }

    /// True while a thread makes another plan.
    #[must_use]
    pub fn is_planning(&self) -> bool {
        self.planning.load(Ordering::Acquire)
    }

    /// True for the one who may make another plan now, and who says [`Feedback::planning_ends`] afterwards.
    #[must_use]
    pub fn planning_begins(&self) -> bool {
        !self.planning.swap(true, Ordering::AcqRel)
    }

    /// The next one may make a plan.
    pub fn planning_ends(&self) {
        self.planning.store(false, Ordering::Release);
    }
}

impl Runtime {
    /// A step that followed `managed` is over: when its moves or operations took another time than assumed, the plan is made
    /// again, on a thread of its own.
    pub(crate) fn learn(self: &Arc<Self>, managed: &Arc<Managed>, graph: u64, signature: u64) {
        let known = managed.feedback.as_ref().filter(|known| !known.is_planning());
        let corrected = known.and_then(|known| known.step_ends(self.counters.moves()));
        let Some(correction) = corrected else { return };
        self.plan_again_aside(managed, (graph, signature), |_| correction);
    }

    /// Makes another plan on a thread of its own, unless one is making one for `before` already; `correction` runs there.
    pub(crate) fn plan_again_aside(
        self: &Arc<Self>,
        before: &Arc<Managed>,
        bucket: (u64, u64),
        correction: impl FnOnce(&Runtime) -> Correction + Send + 'static,
    ) {
        let Some(feedback) = before.feedback.as_ref().filter(|feedback| feedback.planning_begins()) else { return };
        let (runtime, replaced) = (Arc::clone(self), Arc::clone(before));
        let spawned = std::thread::Builder::new().name("sentinel-plan".to_owned()).spawn(move || {
            let plan = || {
                if let Some(after) = runtime.plan_again(&replaced, correction(&runtime)) {
                    runtime.succeed(&mut runtime.lock_steps(), bucket, &replaced, after);
                }
            };
            if catch_unwind(AssertUnwindSafe(plan)).is_err() {
                runtime.counters.panics_caught.count();
            }
            if let Some(feedback) = &replaced.feedback {
                feedback.planning_ends();
            }
        });
        if let Err(error) = spawned {
            feedback.planning_ends();
            log::info!("sentinel: no thread for planning: {error}; the plan stays as it is");
        }
    }

    /// Lets the next step go over from one plan to another, unless the first was given up meanwhile.
    fn succeed(&self, steps: &mut Steps, bucket: (u64, u64), before: &Arc<Managed>, after: Arc<Managed>) {
        let phase = steps.bucket_mut(bucket.0, bucket.1).map(|bucket| &bucket.phase);
        let stays = matches!(phase, Some(Phase::Managed(current)) if Arc::ptr_eq(current, before));
        let refused = match before.feedback.as_ref().filter(|_| stays) {
            Some(feedback) => {
                steps.needed_bytes = after.arena.plan().fast_needed_bytes;
                // One that no step has gone over to yet will never be followed.
                feedback.offer_successor(after)
            }
            None => Some(after),
        };
        if let Some(refused) = refused {
            self.give_up(steps, &refused);
            self.sweep(steps);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{empty_arena, profile};

    /// A plan of nothing, with a basis for others.
    fn managed() -> Arc<Managed> {
        let basis = Basis { profile: profile(), addresses: Vec::new(), layer_source: LayerSource::Marked, trace: None };
        let feedback = Feedback::new(Arc::new(basis), 1, ASSUMED);
        Arc::new(Managed::new(empty_arena(), LayerSource::Marked, Some(feedback), ASSUMED))
    }

    #[test]
    fn one_makes_a_plan_at_a_time_and_a_plan_that_was_never_followed_is_handed_back() {
        let before = managed();
        let feedback = before.feedback.as_ref().unwrap();
        assert!(!feedback.is_planning() && feedback.planning_begins() && feedback.is_planning());
        assert!(!feedback.planning_begins(), "another one is at it");
        feedback.planning_ends();
        assert!(feedback.planning_begins());
        let (first, second) = (managed(), managed());
        assert!(feedback.offer_successor(Arc::clone(&first)).is_none());
        let handed_back = feedback.offer_successor(Arc::clone(&second)).expect("its address space must be given back");
        assert!(Arc::ptr_eq(&handed_back, &first));
        assert!(feedback.take_successor().is_some_and(|taken| Arc::ptr_eq(&taken, &second)));
    }

    const ASSUMED: Migration = Migration { promote_rate: 2.0, demote_rate: 1.0 };

    /// Steps with moves of so many milliseconds and at such speeds in each direction, from the first that counts on; the
    /// number of the step after which another plan is due, and its speeds.
    fn due_after(steps: impl Iterator<Item = [(f64, f64); 2]>) -> Option<(usize, Migration)> {
        let (mut learnt, mut total) = (Learnt::default(), MoveTally::default());
        let settling = std::iter::repeat_n([(1000.0, 0.01); 2], usize::try_from(SETTLING_STEPS).unwrap());
        settling.chain(steps).enumerate().find_map(|(number, ways)| {
            for (at, (ms, speed)) in ways.into_iter().enumerate() {
                total.busy_ns[at] += ms * 1e6;
                total.moved_bytes[at] += ms * 1e6 * speed;
            }
            Some((number + 1, learnt.step_ends(ASSUMED, total)?))
        })
    }

    fn is_about(found: Migration, promote_rate: f64, demote_rate: f64) -> bool {
        (found.promote_rate / promote_rate - 1.0).abs() < 1e-6 && (found.demote_rate / demote_rate - 1.0).abs() < 1e-6
    }

    #[test]
    fn speeds_as_assumed_are_never_due_and_neither_is_a_slow_begin() {
        assert_eq!(due_after(std::iter::repeat_n([(60.0, 2.1), (30.0, 0.9)], 1000)), None);
    }

    #[test]
    fn speeds_that_stay_wrong_are_due_after_two_windows_in_both_directions() {
        let (after, found) = due_after(std::iter::repeat([(50.0, 0.5), (30.0, 3.0)])).unwrap();
        assert_eq!(after, 2 + 4, "two windows of 100 ms at 50 ms in a step");
        assert!(is_about(found, 0.5, 3.0), "{found:?}");
    }

    #[test]
    fn a_direction_with_few_moves_stays_as_assumed() {
        let (after, found) = due_after(std::iter::repeat([(5.0, 0.1), (100.0, 0.5)])).unwrap();
        assert_eq!(after, 2 + 2);
        assert!(is_about(found, 2.0, 0.5), "{found:?}");
    }

    #[test]
    fn one_wrong_window_is_forgotten_and_opposite_ones_make_up_for_each_other() {
        let speeds = [0.5, 2.0, 2.0, 0.5, 2.0].into_iter().cycle().take(1000);
        assert_eq!(due_after(speeds.map(|speed| [(100.0, speed), (0.0, 0.0)])), None);
        let speeds = [1.5, 2.5].into_iter().cycle().take(1000);
        assert_eq!(due_after(speeds.map(|speed| [(100.0, speed), (0.0, 0.0)])), None);
    }

    #[test]
    fn right_windows_of_one_direction_do_not_excuse_the_other() {
        let ways = [[(100.0, 0.5), (0.0, 0.0)], [(0.0, 0.0), (100.0, 1.0)]];
        let (after, found) = due_after(ways.into_iter().cycle()).unwrap();
        assert_eq!(after, 2 + 3);
        assert!(is_about(found, 0.5, 1.0), "{found:?}");
    }
}
