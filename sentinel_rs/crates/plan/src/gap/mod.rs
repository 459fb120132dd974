//! The policy `gap`: for each idle gap of each tensor between two uses, whether the tensor stays, leaves, comes or bounces.
//!
//! May use the profile and the vocabulary of plans; must not know how a plan is carried out.

mod improve;
mod placed;
mod prices;
mod problem;
mod replay;
mod room;
mod route;
mod search;
mod state;
#[cfg(test)]
mod tests;

pub use placed::gap;
pub use problem::{GapProblem, GapTensor, GapUse, Issue, Migration, MoveTally, PLANS_MAX};
pub use state::Way;

use crate::machine::bytes_f64;
use replay::Stage;
use search::Search;

/// A move that the search decided on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GapMove {
    /// Index into `GapProblem::tensors`.
    pub tensor: u32,
    /// Direction.
    pub way: Way,
    /// Op during which it begins to travel, in the search's account.
    pub first_op: u32,
    /// Op during which it arrives, in the search's account; below `first_op` when that is in the next step.
    pub last_op: u32,
    /// Op at whose begin it must have arrived: the next use of a promoted tensor, and the op after `last_op` otherwise.
    pub due_op: u32,
}

/// What the search decided.
#[derive(Clone, Debug, PartialEq)]
pub struct GapChoice {
    /// Per tensor, whether it begins in fast memory: at its birth, or for a persistent one at the begin of op 0.
    pub born_fast: Vec<bool>,
    /// Moves by the op during which they begin.
    pub moves: Vec<GapMove>,
    /// Time of the step when the moves are carried out one after the other, in nanoseconds.
    pub step_ns: f64,
}

/// Rounds of bidding.
const ROUNDS: u32 = 60;

/// Turns per track: each finds prices, assigns every tensor, and carries the result out.
const TURNS: u32 = 3;

/// A way of looking.
#[derive(Clone, Copy)]
struct Track {
    /// The part of what was seen in the next assumption about op times; the rest is the account's own. With 1 the search counts on
    /// the time that delays give it, which pays when moves are plenty and hurts when they are scarce.
    trust: f64,
    /// Whether the account counts the room of what comes from the moment when its move is issued, and what moves take from ops. What
    /// is first in its queue begins at once, so that what is born meanwhile finds no room; where many queue up, that counts too much.
    careful: bool,
}
const TRACKS: [Track; 3] =
    [Track { trust: 0.5, careful: true }, Track { trust: 1.0, careful: false }, Track { trust: 0.5, careful: false }];

/// A step of more tensors and uses than this is searched with less work, so that planning stays within about a second. An op counts
/// for several, because prices are found for each.
const LARGE: usize = 100_000;
const OP_WORK: usize = 4;
/// Time that a search takes per tensor, use and part of an op, about: 70 µs. Training goes on without a plan meanwhile, so the search
/// is cut short when it would take longer than so many steps.
const WORK_NS: f64 = 70e3;
const WORTH_STEPS: f64 = 5.0;
/// Turns and rounds of bidding then.
const LARGE_TURNS: u32 = 1;
const LARGE_ROUNDS: u32 = 16;

/// What takes longer than this times the best before improvement is not improved.
const HOPELESS: f64 = 1.02;

/// How much work a choice is worth.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum GapEffort {
    /// Prices and assignment.
    Fast,
    /// Then improvement, up to a fixed amount of work, if the step takes at most so many nanoseconds by then: about a second.
    Good {
        /// Longest time of the step.
        worth_ns: f64,
    },
}

/// The best that was seen, and how to go on from there.
struct Found<'a> {
    stage: &'a Stage<'a>,
    choice: GapChoice,
    search: Search<'a>,
}

impl<'a> Found<'a> {
    fn new(problem: &'a GapProblem, stage: &'a Stage<'a>) -> Found<'a> {
        let search = Search::new(problem, &problem.base_ns, false);
        Found { stage, choice: stage.seen(search.choice()).0, search }
    }

    /// Takes an assignment if it is better; returns the time of each op as it was seen.
    fn offer(&mut self, search: Search<'a>) -> Vec<f64> {
        let (choice, seen_ns) = self.stage.seen(search.choice());
        if choice.step_ns < self.choice.step_ns {
            (self.choice, self.search) = (choice, search);
        }
        seen_ns
    }

    /// What improvement makes of it.
    fn improved(self) -> GapChoice {
        let Found { stage, choice, mut search } = self;
        search.improve();
        let improved = stage.seen(search.choice()).0;
        if improved.step_ns < choice.step_ns {
            improved
        } else {
            choice
        }
    }

    /// Assigns turn by turn at prices; op times are assumed, seen, and assumed better.
    fn follow(&mut self, problem: &'a GapProblem, track: Track, turns: u32, rounds: u32) {
        let mut clock_ns = problem.base_ns.clone();
        for turn in 0..turns {
            let mut search = Search::new(problem, &clock_ns, track.careful);
            search.assign(&clock_ns, rounds);
            let account_ns = search.state.op_ns.clone();
            let seen_ns = self.offer(search);
            for ((clock, seen), account) in clock_ns.iter_mut().zip(seen_ns).zip(account_ns) {
                let time = track.trust * seen + (1.0 - track.trust) * account;
                *clock += (time - *clock) / (1.5 + f64::from(turn));
            }
        }
    }
}

/// Looks for a good choice.
///
/// How long ops take depends on the choice, and how much can travel beside them depends on how long they take. So the
/// search takes turns: it assumes times, assigns, carries the assignment out, and moves the assumption towards what it
/// saw. The best that was seen is the result, or what improvement makes of it.
#[must_use]
pub fn gap_choice(problem: &GapProblem, effort: GapEffort) -> GapChoice {
    let stage = Stage::new(problem);
    let large = problem.is_large();
    let (tracks, turns, rounds) =
        if large { (&TRACKS[..1], LARGE_TURNS, LARGE_ROUNDS) } else { (&TRACKS[..], TURNS, ROUNDS) };
    let [mut densest, mut priced] = [Found::new(problem, &stage), Found::new(problem, &stage)];
    for &track in tracks {
        let mut search = Search::new(problem, &problem.base_ns, track.careful);
        search.assign_densest_first();
        densest.offer(search);
        priced.follow(problem, track, turns, rounds);
    }
    let least_ns = densest.choice.step_ns.min(priced.choice.step_ns);
    let mut best: Option<GapChoice> = None;
    for found in [densest, priced] {
        let worth = matches!(effort, GapEffort::Good { worth_ns } if found.choice.step_ns <= worth_ns);
        let hopeless = found.choice.step_ns > least_ns * HOPELESS;
        let choice = if worth && !large && !hopeless { found.improved() } else { found.choice };
        if best.as_ref().is_none_or(|best| choice.step_ns < best.step_ns) {
            best = Some(choice);
        }
    }
    best.unwrap_or_else(|| stage.seen(Search::new(problem, &problem.base_ns, false).choice()).0)
}

impl GapProblem {
    fn is_large(&self) -> bool {
        let uses: usize = self.tensors.iter().map(|tensor| tensor.uses.len()).sum();
        let work = self.tensors.len() + uses + OP_WORK * self.base_ns.len();
        let step_ns: f64 = self.base_ns.iter().sum();
        work > LARGE || bytes_f64(work as u64) * WORK_NS > WORTH_STEPS * step_ns
    }
}

impl Stage<'_> {
    /// The choice with its time when it is carried out, and the time of each op then.
    fn seen(&self, choice: GapChoice) -> (GapChoice, Vec<f64>) {
        let replayed = self.replay(&choice);
        (GapChoice { step_ns: replayed.step_ns, ..choice }, replayed.op_ns)
    }
}
