//! Improvement of an assignment: a few tensors around an op that loses time give back what they took and choose again, in
//! another order; what does not shorten the step is undone. (Large neighbourhood search, after Shaw, CP 1998.)

use super::search::Search;
use super::state::Taken;
use crate::SplitMix;

/// Routes that may be looked for, times the ops and uses that each looks at: about a second.
const WORK: u64 = 60_000_000;
/// Tries in a row, per tensor, that may shorten nothing before the search gives up.
const IDLE_TRIES: usize = 4;
/// Tensors that choose again at once, at most.
const RUIN_MAX: u64 = 12;
/// The same input gives the same plan.
const SEED: u64 = 0x5EED;

/// A place in a list of this length, 0 for an empty one.
fn index(draws: &mut SplitMix, len: usize) -> usize {
    usize::try_from(draws.below(len.max(1) as u64)).unwrap_or(0)
}

impl Search<'_> {
    /// Shortens the step until the work is done, no op loses time, or nothing helps any more.
    pub(super) fn improve(&mut self) {
        let mut draws = SplitMix::new(SEED);
        let mut work = 0;
        let mut total_ns = self.total_ns();
        let mut idle = 0;
        while work < WORK && idle < IDLE_TRIES * self.taken.len() {
            let Some(op) = self.losing_op(&mut draws) else { return };
            let chosen = self.ruin(op, &mut draws);
            work += self.state.ops() as u64 + self.taken.len() as u64;
            let before: Vec<(usize, Taken)> = chosen.iter().map(|&index| (index, self.taken[index].clone())).collect();
            for &index in &chosen {
                self.release(index);
            }
            for &index in &chosen {
                self.take_best(index, None);
                let tensor = &self.state.problem.tensors[index];
                work += u64::from(tensor.death_op - tensor.birth_op) + 50 * tensor.uses.len() as u64;
            }
            let now_ns = self.total_ns();
            idle = if now_ns < total_ns - 1.0 { 0 } else { idle + 1 };
            if now_ns <= total_ns {
                total_ns = now_ns;
            } else {
                for (index, taken) in before {
                    self.release(index);
                    self.take(index, taken);
                }
            }
        }
    }

    /// An op that loses time, with a probability that rises with what it loses.
    fn losing_op(&self, draws: &mut SplitMix) -> Option<u32> {
        let problem = self.state.problem;
        let lost = |op: usize| (self.state.memory_ns[op] - problem.base_ns[op]).max(0.0);
        let total: f64 = (0..problem.base_ns.len()).map(lost).sum();
        if total < 1.0 {
            return None;
        }
        let mut rest = total * draws.next_share();
        for op in 0..problem.base_ns.len() {
            rest -= lost(op);
            if rest <= 0.0 {
                return u32::try_from(op).ok();
            }
        }
        None
    }

    /// Some tensors that are alive at the op, in a random order, among them one that it uses slowly.
    fn ruin(&self, op: u32, draws: &mut SplitMix) -> Vec<usize> {
        let tensors = &self.state.problem.tensors;
        let slow = |index: usize| self.taken[index].slow.iter().any(|slow| slow.0 == op);
        let mut near: Vec<usize> = Vec::new();
        let mut slow_here: Vec<usize> = Vec::new();
        for (index, tensor) in tensors.iter().enumerate() {
            if tensor.persistent || (tensor.birth_op..=tensor.death_op).contains(&op) {
                if slow(index) {
                    slow_here.push(index);
                } else {
                    near.push(index);
                }
            }
        }
        let mut chosen = Vec::new();
        for (pool, most) in [(&mut slow_here, 1 + draws.below(RUIN_MAX / 2)), (&mut near, draws.below(RUIN_MAX))] {
            for _ in 0..most {
                if !pool.is_empty() {
                    chosen.push(pool.swap_remove(index(draws, pool.len())));
                }
            }
        }
        // Those that lose at this op choose first as often as last.
        if draws.below(2) == 0 {
            chosen.reverse();
        }
        chosen
    }
}
