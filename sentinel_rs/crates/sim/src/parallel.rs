//! How long a step takes when several ops run at a time, as TensorFlow's inter-op threads run them.
//!
//! A thread takes the op that became ready first in the recorded order, and stays with it until it is done. Ops that work
//! share the cores evenly; an op that waits for slow memory keeps one core busy, as the emulated tier's thread does.

use profile::OpFacts;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// What one op takes, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct OpLoad {
    /// Waiting for moves before it begins, which takes no core.
    pub stall_ns: f64,
    /// Its work when it has all cores for itself and everything is in the fastest tier.
    pub work_ns: f64,
    /// Memory time when everything is in the fastest tier.
    pub fast_ns: f64,
    /// Memory time beyond that, for what is in slower tiers.
    pub extra_ns: f64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Stalls,
    Works,
    Spins,
}

struct Running {
    op: usize,
    phase: Phase,
    left_ns: f64,
    worked_ns: f64,
}

impl Running {
    /// Goes on to the next phase that takes time; false when the op is done.
    fn advance(&mut self, load: &OpLoad) -> bool {
        while self.left_ns <= 0.0 {
            (self.phase, self.left_ns) = match self.phase {
                Phase::Stalls => (Phase::Works, load.work_ns),
                // What the op took longer than its fast memory time hides slow memory time, whatever it was spent on.
                Phase::Works => (Phase::Spins, (load.extra_ns - (self.worked_ns - load.fast_ns).max(0.0)).max(0.0)),
                Phase::Spins => return false,
            };
        }
        true
    }
}

/// Time of a step whose ops wait for their predecessors, with `threads` of them at a time on `cores` cores. With one thread,
/// it is the sum of what the ops take.
#[must_use]
pub fn parallel_step_ns(ops: &[OpFacts], loads: &[OpLoad], threads: u32, cores: u32) -> f64 {
    let mut waits_for: Vec<usize> = ops.iter().map(|op| op.predecessors.len()).collect();
    let mut successors: Vec<Vec<usize>> = vec![Vec::new(); ops.len()];
    for (index, op) in ops.iter().enumerate() {
        for &predecessor in &op.predecessors {
            successors[predecessor as usize].push(index);
        }
    }
    let mut ready: BinaryHeap<Reverse<usize>> = (0..ops.len()).filter(|&op| waits_for[op] == 0).map(Reverse).collect();
    let mut running: Vec<Running> = Vec::new();
    let mut clock_ns = 0.0;
    loop {
        while running.len() < threads.max(1) as usize {
            let Some(Reverse(op)) = ready.pop() else { break };
            let stall_ns = loads[op].stall_ns;
            running.push(Running { op, phase: Phase::Stalls, left_ns: stall_ns, worked_ns: 0.0 });
        }
        let mut done = Vec::new();
        running.retain_mut(|own| {
            let goes_on = own.advance(&loads[own.op]);
            if !goes_on {
                done.push(own.op);
            }
            goes_on
        });
        for next in done.iter().flat_map(|&op| &successors[op]) {
            waits_for[*next] -= 1;
            if waits_for[*next] == 0 {
                ready.push(Reverse(*next));
            }
        }
        if !done.is_empty() {
            continue;
        }
        if running.is_empty() {
            return clock_ns;
        }
        clock_ns += pass(&mut running, cores);
    }
}

/// Lets time pass until the first running op ends its phase; returns how much.
fn pass(running: &mut [Running], cores: u32) -> f64 {
    let count = |phase: Phase| {
        u32::try_from(running.iter().filter(|own| own.phase == phase).count()).map_or(f64::INFINITY, f64::from)
    };
    let (working, spinning, cores) = (count(Phase::Works), count(Phase::Spins), f64::from(cores.max(1)));
    // Where there are fewer cores than threads that want one, all get the same.
    let free = (cores - spinning).max(cores * working / (working + spinning).max(1.0));
    let speed = if working > 0.0 { (free / working / cores).min(1.0) } else { 1.0 };
    let speed_of = |phase: Phase| if phase == Phase::Works { speed } else { 1.0 };
    let passed_ns = running.iter().map(|own| own.left_ns / speed_of(own.phase)).fold(f64::INFINITY, f64::min);
    for own in running {
        own.left_ns -= passed_ns * speed_of(own.phase);
        if own.left_ns < 1e-6 {
            own.left_ns = 0.0;
        }
        own.worked_ns += if own.phase == Phase::Works { passed_ns } else { 0.0 };
    }
    passed_ns
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ops by what they wait for.
    fn ops(predecessors: &[&[u32]]) -> Vec<OpFacts> {
        let op = |own: &&[u32]| OpFacts { kernel: 0, layer: 0, time_ns: 0, predecessors: own.to_vec() };
        predecessors.iter().map(op).collect()
    }

    fn load(work_ns: f64, extra_ns: f64) -> OpLoad {
        OpLoad { work_ns, extra_ns, ..OpLoad::default() }
    }

    fn is(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-3, "{found} instead of {expected}");
    }

    #[test]
    fn one_thread_takes_the_sum_and_slow_memory_hides_behind_work() {
        let loads = [
            OpLoad { stall_ns: 5.0, ..load(100.0, 150.0) },
            load(100.0, 40.0),
            OpLoad { fast_ns: 80.0, ..load(100.0, 40.0) },
            // All of it counts where the fast memory time is longer than the op.
            OpLoad { fast_ns: 200.0, ..load(100.0, 40.0) },
        ];
        is(parallel_step_ns(&ops(&[&[], &[], &[], &[]]), &loads, 1, 2), 155.0 + 100.0 + 120.0 + 140.0);
    }

    #[test]
    fn ops_that_work_share_the_cores_and_hide_each_others_slow_memory() {
        let independent = ops(&[&[], &[]]);
        is(parallel_step_ns(&independent, &[load(100.0, 0.0); 2], 2, 2), 200.0);
        // Alone, each would wait for 50 more; side by side, both have worked for 200 when they are done.
        is(parallel_step_ns(&independent, &[load(100.0, 150.0); 2], 2, 2), 200.0);
        is(parallel_step_ns(&independent, &[load(100.0, 150.0); 2], 1, 2), 300.0);
    }

    #[test]
    fn an_op_that_waits_for_memory_keeps_one_core() {
        // 200 for the work of both, of which the first ends at 20 and spins for 80 on one core of two.
        let loads = [load(10.0, 100.0), load(190.0, 0.0)];
        is(parallel_step_ns(&ops(&[&[], &[]]), &loads, 2, 2), 20.0 + 80.0 + (190.0 - 10.0 - 40.0));
        // Three ops and two cores: two spin, and the third gets a third of the cores.
        let loads = [load(0.0, 60.0), load(0.0, 60.0), load(40.0, 0.0)];
        is(parallel_step_ns(&ops(&[&[], &[], &[]]), &loads, 3, 2), 60.0 + 40.0 - 20.0);
    }

    #[test]
    fn an_op_begins_when_all_that_it_waits_for_is_done() {
        let chain = ops(&[&[], &[0], &[0], &[1, 2]]);
        is(parallel_step_ns(&chain, &[load(0.0, 10.0); 4], 2, 4), 30.0);
        is(parallel_step_ns(&chain, &[load(0.0, 10.0); 4], 1, 4), 40.0);
    }
}
