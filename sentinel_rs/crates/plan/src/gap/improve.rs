//! Improvement of an assignment: a few tensors around an op that loses time give back what they took and choose again, in
//! another order; what does not shorten the step is undone. (Large neighbourhood search, after Shaw, CP 1998.)

use super::search::Search;
use super::state::Taken;
use crate::SplitMix;

/// Routes that may be looked for, times the ops and uses that each looks at: about a second.
const WORK: u64 = 100_000_000;
/// Tries in a row, per tensor, that may shorten nothing before the search gives up.
const IDLE_TRIES: usize = 4;
/// Tensors that choose again at once, at most.
const RUIN_MAX: u64 = 12;
/// Where time is lost is looked at once in so many tries.
const LOSSES_TRIES: u32 = 16;
/// The same input gives the same plan.
const SEED: u64 = 0x5EED;

/// A place in a list of this length, 0 for an empty one.
fn index(draws: &mut SplitMix, len: usize) -> usize {
    usize::try_from(draws.below(len.max(1) as u64)).unwrap_or(0)
}

/// An op that loses time, with a probability that rises with what it loses; nothing when no time is lost.
fn losing_op(losses: &[f64], draws: &mut SplitMix) -> Option<u32> {
    let total = losses.last().copied().filter(|&total| total >= 1.0)?;
    let lot = total * draws.next_share();
    u32::try_from(losses.partition_point(|&lost| lost <= lot).min(losses.len() - 1)).ok()
}

impl Search<'_> {
    /// Shortens the step until the work is done, no op loses time, or nothing helps any more.
    pub(super) fn improve(&mut self) {
        let mut draws = SplitMix::new(SEED);
        let mut work = 0;
        let mut total_ns = self.state.total_ns;
        let mut idle = 0;
        let mut losses = Vec::new();
        let mut tries = 0_u32;
        while work < WORK && idle < IDLE_TRIES * self.taken.len() {
            if tries % LOSSES_TRIES == 0 {
                losses = self.losses();
                work += self.state.ops() as u64;
            }
            tries += 1;
            let Some(op) = losing_op(&losses, &mut draws) else { return };
            let chosen = self.ruin(op, &mut draws);
            work += self.taken.len() as u64 / 2;
            let before: Vec<(usize, Taken)> = chosen.iter().map(|&index| (index, self.taken[index].clone())).collect();
            for &index in &chosen {
                self.release(index);
            }
            for &index in &chosen {
                self.take_best(index, None);
                let tensor = &self.state.problem.tensors[index];
                work += u64::from(tensor.death_op - tensor.birth_op) + 50 * tensor.uses.len() as u64;
            }
            let now_ns = self.state.total_ns;
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

    /// By op, what this one and those before it lose together.
    fn losses(&self) -> Vec<f64> {
        let mut lost = 0.0;
        let of = |(now, base): (&f64, &f64)| {
            lost += (now - base).max(0.0);
            lost
        };
        self.state.op_ns.iter().zip(&self.state.problem.base_ns).map(of).collect()
    }

    /// Some tensors that are alive at the op, in a random order, among them one that it uses slowly.
    fn ruin(&self, op: u32, draws: &mut SplitMix) -> Vec<usize> {
        let tensors = &self.state.problem.tensors;
        let slow = |index: usize| self.taken[index].slow.binary_search_by_key(&op, |slow| slow.op).is_ok();
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
