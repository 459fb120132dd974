//! What operations take in managed steps. A profiled step is one sample, taken while memory is cold and everything else
//! on the machine goes on; a plan that believes it hides slow memory behind work that is not there.

use profile::{LayerFacts, Profile};
use std::sync::atomic::{AtomicU64, Ordering};

/// The kernel runs more than once in a step, or never: its executions cannot be told apart.
const UNTIMED: u32 = u32::MAX;
/// Operations that take less than this part of what the plan assumed call for another plan.
const OFF_SHARE: f64 = 0.9;

/// The least time that each operation has taken, in the profiled step and since.
#[derive(Debug)]
pub struct OpTimes {
    /// By kernel number, the index of its only execution, or [`UNTIMED`].
    op_of: Vec<u32>,
    /// By operation.
    least_ns: Vec<AtomicU64>,
    assumed_ns: u64,
}

impl OpTimes {
    /// Of a plan made from `profile`.
    #[must_use]
    pub fn new(profile: &Profile) -> OpTimes {
        let kernels = profile.ops.iter().map(|op| op.kernel as usize + 1).max().unwrap_or(0);
        let mut op_of = vec![UNTIMED; kernels];
        let mut met = vec![false; kernels];
        for (index, op) in (0_u32..).zip(&profile.ops) {
            let again = std::mem::replace(&mut met[op.kernel as usize], true);
            op_of[op.kernel as usize] = if again { UNTIMED } else { index };
        }
        let least_ns = profile.ops.iter().map(|op| AtomicU64::new(op.time_ns)).collect();
        OpTimes { op_of, least_ns, assumed_ns: profile.ops.iter().map(|op| op.time_ns).sum() }
    }

    /// The kernel took this long.
    pub fn note(&self, kernel: u32, took_ns: u64) {
        let op = self.op_of.get(kernel as usize).filter(|&&op| op != UNTIMED);
        if let Some(least_ns) = op.and_then(|&op| self.least_ns.get(op as usize)) {
            least_ns.fetch_min(took_ns, Ordering::Relaxed);
        }
    }

    /// The times by operation, when they are that much less than the plan assumed.
    #[must_use]
    pub fn corrected(&self) -> Option<Vec<u64>> {
        let times: Vec<u64> = self.least_ns.iter().map(|time| time.load(Ordering::Relaxed)).collect();
        #[allow(clippy::cast_precision_loss)] // sums of nanoseconds of a step
        let off = (times.iter().sum::<u64>() as f64) < OFF_SHARE * self.assumed_ns as f64;
        off.then_some(times)
    }
}

/// The profile with these times, by operation.
#[must_use]
pub fn with_times(profile: &Profile, times: &[u64]) -> Profile {
    let mut timed = profile.clone();
    for (op, &time_ns) in timed.ops.iter_mut().zip(times) {
        op.time_ns = time_ns;
    }
    for LayerFacts { first_op, last_op, time_ns } in &mut timed.layers {
        *time_ns = timed.ops[*first_op as usize..=*last_op as usize].iter().map(|op| op.time_ns).sum();
    }
    timed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::profile;

    #[test]
    fn the_least_time_counts_and_only_much_less_is_worth_a_plan() {
        let times = OpTimes::new(&profile());
        times.note(1, 700);
        times.note(1, 5000);
        times.note(99, 1);
        assert_eq!(times.corrected(), None, "3.7 of 4 microseconds");
        times.note(2, 500);
        assert_eq!(times.corrected(), Some(vec![1000, 700, 1000, 500]));
    }

    #[test]
    fn a_kernel_that_runs_twice_keeps_its_recorded_times() {
        let times = OpTimes::new(&profile());
        times.note(0, 1);
        assert_eq!(times.corrected(), None);
    }

    #[test]
    fn layers_take_what_their_operations_take() {
        let timed = with_times(&profile(), &[100, 200, 300, 400]);
        assert_eq!(timed.layers.iter().map(|layer| layer.time_ns).collect::<Vec<_>>(), [300, 700]);
        assert_eq!(timed.ops[3].time_ns, 400);
    }
}
