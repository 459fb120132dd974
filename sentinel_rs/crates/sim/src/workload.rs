//! A traced step as the simulator runs it: ops in order, each with its time and the bytes it takes from each buffer.

use profile::{fold, BufferUse, Class, FoldError, Profile};
use trace::StepTrace;

/// What one op reads and writes of one buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Use {
    /// Buffer index of the trace.
    pub buffer: u32,
    /// Bytes read, summed over the op's accesses.
    pub read_bytes: u64,
    /// Bytes written, summed over the op's accesses.
    pub written_bytes: u64,
}

/// One op.
#[derive(Clone, Debug, PartialEq)]
pub struct OpUse {
    /// Duration with everything in the fastest tier, in nanoseconds.
    pub base_ns: f64,
    /// One entry per buffer that it touches, without memory that Sentinel does not own.
    pub uses: Vec<Use>,
    /// Step buffers that it allocates.
    pub births: Vec<u32>,
    /// Step buffers that are gone when it ends.
    pub deaths: Vec<u32>,
}

/// A step of one model at one batch size.
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    /// For people, such as `resnet32`.
    pub name: String,
    /// Facts per op, layer and buffer.
    pub profile: Profile,
    /// Ops in order.
    pub ops: Vec<OpUse>,
    /// Time of a step with everything in the fastest tier: the sum of the ops' times.
    pub step_ns: f64,
}

impl Workload {
    /// The step of a trace.
    ///
    /// # Errors
    /// When the trace has no op or breaks a rule of well-formed traces.
    pub fn of(name: &str, trace: &StepTrace) -> Result<Workload, FoldError> {
        // The simulated machine runs one op after the other, however many the recording one ran at a time.
        let profile = Profile { inter_op_threads: 1, ..fold(trace)? };
        let mut ops: Vec<OpUse> = profile
            .ops
            .iter()
            .map(|op| OpUse { base_ns: to_f64(op.time_ns), uses: vec![], births: vec![], deaths: vec![] })
            .collect();
        for (index, facts) in profile.buffers.iter().enumerate() {
            let index = u32::try_from(index).unwrap_or(u32::MAX);
            if facts.class == Class::External {
                continue;
            }
            if facts.class != Class::Persistent {
                ops[facts.birth_op as usize].births.push(index);
                ops[facts.death_op as usize].deaths.push(index);
            }
            for &BufferUse { op, read_bytes, written_bytes } in &facts.uses {
                ops[op as usize].uses.push(Use { buffer: index, read_bytes, written_bytes });
            }
        }
        let step_ns = ops.iter().map(|op| op.base_ns).sum();
        Ok(Workload { name: name.to_owned(), profile, ops, step_ns })
    }

    /// Buffers that exist across steps in memory that Sentinel owns.
    pub fn persistent(&self) -> impl Iterator<Item = u32> + '_ {
        let is = |(_, facts): &(usize, &profile::BufferFacts)| facts.class == Class::Persistent;
        self.profile.buffers.iter().enumerate().filter(is).map(|(index, _)| u32::try_from(index).unwrap_or(u32::MAX))
    }

    /// Size of a buffer.
    #[must_use]
    pub fn size_bytes(&self, buffer: u32) -> u64 {
        self.profile.buffers[buffer as usize].size_bytes
    }
}

/// A number of bytes or nanoseconds as a float; exact up to 2^53, which is 9 petabytes or 104 days.
#[allow(clippy::cast_precision_loss)]
pub(crate) fn to_f64(number: u64) -> f64 {
    number as f64
}
