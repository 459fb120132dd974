//! A step for a batch that was never recorded, from two recorded ones of the same graph.
//!
//! Every size, count of temporaries, traffic and duration is taken to be a + b · batch, with a and b of its own; two
//! recordings give both. What does not depend on the batch, as weights, thereby stays as it is without being told apart.
//! Order, lifetimes, layers and the threads' number are those of the recording whose batch is nearer. The method, its
//! limits and measured errors are in docs/scaling.md.
//!
//! It belongs to this crate because it folds events of several steps into facts about the graph: what is the same
//! allocation in every step is known here, and the trace crate must not know how a step is interpreted.

mod fit;
mod pairs;
mod temporaries;
#[cfg(test)]
mod tests;
mod traffic;

use fit::Line;
use pairs::Pairs;
use std::collections::{BTreeMap, HashMap};
use temporaries::Fate;
use trace::{Access, Buffer, Op, Origin, StepTrace, SLOT_MIN_BYTES};

/// A recorded step and how many examples it trained on.
#[derive(Clone, Copy, Debug)]
pub struct Recorded<'a> {
    /// The step.
    pub step: &'a StepTrace,
    /// Examples in its batch, at least 1.
    pub batch: u32,
}

/// Most buffers and accesses of a scaled step, counted together: about a gigabyte of memory on the way to the file.
pub const SCALED_EVENTS_MAX: u64 = 10_000_000;

/// Why two steps say nothing about a third.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScaleError {
    /// A batch is empty.
    #[error("{field} = 0: accepted is a batch of at least 1")]
    EmptyBatch {
        /// Which batch.
        field: &'static str,
    },
    /// The batch makes a step of too many buffers and accesses.
    #[error(
        "batch = {batch}: its step would have {events} buffers and accesses, accepted are batches whose step has at most {}",
        SCALED_EVENTS_MAX
    )]
    TooLarge {
        /// The batch that was wanted.
        batch: u32,
        /// Buffers and accesses of its step.
        events: u64,
    },
    /// Both steps have the same batch.
    #[error("both steps have a batch of {batch}: two different ones are needed to tell what grows with it")]
    SameBatch {
        /// That batch.
        batch: u32,
    },
    /// A step, recorded or scaled, breaks rules of well-formed traces.
    #[error("the {which} step is malformed in {count} places, first: {first}")]
    Malformed {
        /// Which step.
        which: &'static str,
        /// How many rules are broken.
        count: usize,
        /// The first of them, with its place.
        first: String,
    },
    /// The two steps were recorded under different circumstances.
    #[error("the steps are not comparable: {field} is {first} in the first and {second} in the second")]
    Circumstances {
        /// Name of the field.
        field: &'static str,
        /// Its value in the first step.
        first: String,
        /// Its value in the second step.
        second: String,
    },
    /// The two steps are not of one graph.
    #[error("the steps are not of one graph; first difference: {first} in the first, {second} in the second")]
    Different {
        /// What the first step has.
        first: String,
        /// What the second step has.
        second: String,
    },
}

impl ScaleError {
    fn different(first: String, second: String) -> ScaleError {
        ScaleError::Different { first, second }
    }

    /// The same error told by someone who was given the steps the other way round.
    fn swapped(self) -> ScaleError {
        match self {
            ScaleError::Different { first, second } => ScaleError::Different { first: second, second: first },
            other => other,
        }
    }
}

/// The step that a batch of `batch` examples would make, from two recorded steps of one graph.
///
/// # Errors
/// When a batch is 0, when both are the same, when a step is malformed or so large that its scaled form is, when the scaled
/// step has more than [`SCALED_EVENTS_MAX`] buffers and accesses, and when the steps differ in threads, TensorFlow's version,
/// source of layers or graph.
pub fn scale(first: Recorded, second: Recorded, batch: u32) -> Result<StepTrace, ScaleError> {
    for (field, value) in [("first batch", first.batch), ("second batch", second.batch), ("batch", batch)] {
        if value == 0 {
            return Err(ScaleError::EmptyBatch { field });
        }
    }
    if first.batch == second.batch {
        return Err(ScaleError::SameBatch { batch: first.batch });
    }
    check_rules("first", first.step)?;
    check_rules("second", second.step)?;
    check_circumstances(first.step, second.step)?;
    let near_first = first.batch.abs_diff(batch) < second.batch.abs_diff(batch);
    let (base, other) = if near_first { (first, second) } else { (second, first) };
    let pairs = Pairs::of(base.step, other.step).map_err(|error| if near_first { error } else { error.swapped() })?;
    let line = Line::new(base.batch.min(other.batch), base.batch.max(other.batch), batch);
    let base_is_low = base.batch < other.batch;
    let scaling = Scaling { base: base.step, other: other.step, pairs, line, batch, base_is_low };
    let scaled = scaling.step().map_err(|error| if near_first { error } else { error.swapped() })?;
    check_rules("scaled", &scaled)?;
    Ok(scaled)
}

fn check_rules(which: &'static str, step: &StepTrace) -> Result<(), ScaleError> {
    let violations = step.violations();
    match violations.first() {
        Some(first) => Err(ScaleError::Malformed { which, count: violations.len(), first: first.0.clone() }),
        None => Ok(()),
    }
}

fn check_circumstances(first: &StepTrace, second: &StepTrace) -> Result<(), ScaleError> {
    let facts = |step: &StepTrace| {
        [
            ("tensorflow_version", step.tensorflow_version.clone()),
            ("intra_op_threads", step.intra_op_threads.to_string()),
            ("inter_op_threads", step.inter_op_threads.to_string()),
            ("layer_source", format!("{:?}", step.layer_source).to_lowercase()),
        ]
    };
    for ((field, first), (_, second)) in facts(first).into_iter().zip(facts(second)) {
        if first != second {
            return Err(ScaleError::Circumstances { field, first, second });
        }
    }
    Ok(())
}

/// Two paired steps and the line between them.
struct Scaling<'a> {
    base: &'a StepTrace,
    other: &'a StepTrace,
    pairs: Pairs,
    line: Line,
    batch: u32,
    base_is_low: bool,
}

/// What becomes of a temporary, and of its uses.
struct Temporary {
    fate: Fate,
    /// Accesses of each that is like it.
    accesses: u64,
}

impl Scaling<'_> {
    /// A figure for the wanted batch, from that of the base and that of the other step.
    fn fit(&self, base: u64, other: u64) -> u64 {
        if self.base_is_low {
            self.line.at(base, other)
        } else {
            self.line.at(other, base)
        }
    }

    fn step(&self) -> Result<StepTrace, ScaleError> {
        let traffic = traffic::fitted(self.base, self.other, &self.pairs, |base, other| self.fit(base, other))?;
        Ok(StepTrace { ops: self.ops(), buffers: self.buffers(&traffic)?, counts: None, ..self.base.clone() })
    }

    /// The base's operations with fitted durations. The pauses between them stay: they are the executor's.
    fn ops(&self) -> Vec<Op> {
        let duration = |op: &Op| op.end_ns - op.start_ns;
        let durations: Vec<u64> = self
            .base
            .ops
            .iter()
            .zip(&self.pairs.ops)
            .map(|(op, &other)| self.fit(duration(op), duration(&self.other.ops[other as usize])))
            .collect();
        let mut by_end: Vec<usize> = (0..durations.len()).collect();
        by_end.sort_by_key(|&op| self.base.ops[op].end_ns);
        let mut ended = by_end.into_iter().peekable();
        // By how much later, in nanoseconds, an operation begins because those that ended before it take longer.
        let mut later_ns = 0_i128;
        let mut start_ns = 0;
        let mut ops = Vec::with_capacity(durations.len());
        for (op, &duration_ns) in self.base.ops.iter().zip(&durations) {
            while let Some(before) = ended.next_if(|&before| self.base.ops[before].end_ns <= op.start_ns) {
                later_ns += i128::from(durations[before]) - i128::from(duration(&self.base.ops[before]));
            }
            let shifted = u64::try_from((i128::from(op.start_ns) + later_ns).max(0)).unwrap_or(u64::MAX);
            // Operations that overlapped may shrink unequally; their order stays.
            start_ns = shifted.max(start_ns);
            ops.push(Op { start_ns, end_ns: start_ns.saturating_add(duration_ns), ..op.clone() });
        }
        ops
    }

    fn buffers(&self, traffic: &[Vec<u64>]) -> Result<Vec<Buffer>, ScaleError> {
        let temporaries = self.temporaries();
        let events = |(index, buffer): (usize, &Buffer)| match temporaries.get(&index) {
            Some(Temporary { fate, accesses }) => fate.count.saturating_mul(accesses.saturating_add(1)),
            None => 1 + buffer.accesses.len() as u64,
        };
        let events = self.base.buffers.iter().enumerate().map(events).fold(0, u64::saturating_add);
        if events > SCALED_EVENTS_MAX {
            return Err(ScaleError::TooLarge { batch: self.batch, events });
        }
        let mut buffers = Vec::new();
        for (index, buffer) in self.base.buffers.iter().enumerate() {
            match temporaries.get(&index) {
                Some(temporary) => buffers.extend((0..temporary.fate.count).map(|_| resized(buffer, temporary))),
                None => buffers.push(self.lasting(index, &traffic[index])),
            }
        }
        number(&mut buffers, &self.base.ops);
        Ok(buffers)
    }

    /// What becomes of each temporary, by buffer index of the base. Temporaries that follow each other are one buffer, and there may
    /// be one per image: what all of an operation's read and write is fitted, and tells how often each is used.
    fn temporaries(&self) -> HashMap<usize, Temporary> {
        let (ours, mut theirs) = (temporaries_by_op(self.base), temporaries_by_op(self.other));
        let sizes = |step: &StepTrace, all: &[usize]| -> Vec<u64> {
            all.iter().map(|&buffer| step.buffers[buffer].size_bytes).collect()
        };
        let mut all = HashMap::new();
        for (op, indices) in ours {
            let found = theirs.remove(&self.pairs.ops[op as usize]).unwrap_or_default();
            let (base, other) = (sizes(self.base, &indices), sizes(self.other, &found));
            let fates = temporaries::fit(&base, &other, |a, b| self.fit(a, b));
            let plain = |(&index, fate): (&usize, &Fate)| {
                let uses = self.base.buffers[index].accesses.len() as u64;
                fate.size_bytes.saturating_mul(uses).saturating_mul(fate.count)
            };
            let plain = indices.iter().zip(&fates).map(plain).fold(0, u64::saturating_add);
            let wanted = self.fit(traffic_of(self.base, &indices), traffic_of(self.other, &found));
            #[allow(clippy::cast_precision_loss)] // a ratio
            let more = if plain > 0 { wanted as f64 / plain as f64 } else { 1.0 };
            all.extend(indices.into_iter().zip(fates).map(|(index, fate)| {
                let recorded = self.base.buffers[index].accesses.len() as u64;
                (index, Temporary { fate, accesses: accesses_for(recorded, more) })
            }));
        }
        all
    }

    /// A buffer that is no temporary, with the fitted bytes of its accesses.
    fn lasting(&self, index: usize, traffic: &[u64]) -> Buffer {
        let buffer = &self.base.buffers[index];
        let size_bytes = match self.pairs.buffers[index] {
            Some(other) => self.fit(buffer.size_bytes, self.other.buffers[other].size_bytes),
            None => {
                // What lives in it tells how it grows.
                let largest = buffer.accesses.iter().map(|access| access.bytes).zip(traffic).max();
                largest.map_or(buffer.size_bytes, |(old, &new)| share(buffer.size_bytes, old, new))
            }
        };
        let accesses = buffer.accesses.iter().zip(traffic);
        let accesses = accesses.map(|(access, &bytes)| Access { bytes: bytes.min(size_bytes), ..*access }).collect();
        Buffer { size_bytes, accesses, ..buffer.clone() }
    }
}

fn temporaries_by_op(step: &StepTrace) -> BTreeMap<u32, Vec<usize>> {
    let mut by_op: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    for (index, buffer) in step.buffers.iter().enumerate() {
        if let (Origin::Step { op, .. }, true) = (buffer.origin, buffer.temporary) {
            by_op.entry(op).or_default().push(index);
        }
    }
    by_op
}

/// Bytes that these buffers' accesses read and write.
fn traffic_of(step: &StepTrace, buffers: &[usize]) -> u64 {
    let accesses = buffers.iter().flat_map(|&index| &step.buffers[index].accesses);
    accesses.fold(0, |sum, access| sum.saturating_add(access.bytes))
}

/// Accesses of a temporary that is used `more` times as often as its `recorded` ones say, at least once; uses come in pairs of
/// a write and a read.
fn accesses_for(recorded: u64, more: f64) -> u64 {
    if recorded == 0 {
        return 0;
    }
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)] // a count
    let lives = ((recorded / 2) as f64 * more).round() as u64;
    lives.max(1).saturating_mul(2)
}

/// `part` of `whole` bytes, in the same share of `new_whole` bytes.
fn share(part: u64, whole: u64, new_whole: u64) -> u64 {
    let exact = u128::from(part) * u128::from(new_whole) / u128::from(whole.max(1));
    u64::try_from(exact).unwrap_or(u64::MAX)
}

/// A temporary of another size, written and read in turn.
fn resized(buffer: &Buffer, temporary: &Temporary) -> Buffer {
    let size_bytes = temporary.fate.size_bytes;
    let accesses = buffer.accesses.first().map_or_else(Vec::new, |first| {
        let bytes = share(first.bytes, buffer.size_bytes, size_bytes);
        let of = |nth: u64| Access { write: nth % 2 == 0, bytes, ..*first };
        (0..temporary.accesses).map(of).collect()
    });
    Buffer { size_bytes, accesses, ..buffer.clone() }
}

/// Numbers each kernel's allocations of slot size anew, in the order of their births.
fn number(buffers: &mut [Buffer], ops: &[Op]) {
    let mut next: HashMap<u32, u32> = HashMap::new();
    for buffer in buffers {
        if let Origin::Step { op, ordinal } = &mut buffer.origin {
            *ordinal = 0;
            if buffer.size_bytes >= SLOT_MIN_BYTES {
                let next = next.entry(ops[*op as usize].kernel).or_default();
                *ordinal = *next;
                *next += 1;
            }
        }
    }
}
