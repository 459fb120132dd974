//! The fold itself: one pass over ops, one over buffers, one sweep over time for the peaks.

use crate::{counted, infer_layers, BufferFacts, BufferUse, Class, LayerFacts, OpFacts, Profile, SlotKey};
use crate::{SCRATCH_MAX_BYTES, SCRATCH_MIN_COUNT};
use std::collections::BTreeSet;
use trace::{Buffer, LayerSource, Origin, StepTrace, SLOT_MIN_BYTES};

/// Why a trace has no profile.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FoldError {
    /// The step ran nothing.
    #[error("the trace has no operation, so there is nothing to plan")]
    Empty,
    /// The trace breaks rules of well-formed traces.
    #[error("the trace is malformed in {count} places, first: {first}")]
    Malformed {
        /// How many rules are broken.
        count: usize,
        /// The first of them, with its place.
        first: String,
    },
    /// The buffers up to this one are more than a step can be.
    #[error(
        "buffers[{buffer}].size_bytes = {size_bytes}: with it the step's buffers take more than {} bytes in all",
        STEP_BYTES_MAX
    )]
    TooLarge {
        /// Index of the buffer.
        buffer: usize,
        /// Its size.
        size_bytes: u64,
    },
    /// The accesses up to this buffer's are more than can be counted exactly.
    #[error("buffers[{buffer}].accesses: with them the step touches more than {} bytes in all", TOUCHED_BYTES_MAX)]
    TouchesTooMuch {
        /// Index of the buffer.
        buffer: usize,
    },
}

/// Most bytes of all buffers of a step, alive together or not, without memory that Sentinel does not own: 16 TiB. A plan may give each
/// of them addresses of its own, and keeps a record per page of them.
pub const STEP_BYTES_MAX: u64 = 1 << 44;

/// Most bytes that the accesses of a step may add up to: what a double counts exactly.
pub const TOUCHED_BYTES_MAX: u64 = 1 << 53;

/// Facts of a step.
///
/// # Errors
/// When the trace has no op, breaks a rule of [`StepTrace::violations`], names two allocations alike, or is of more bytes than
/// [`STEP_BYTES_MAX`] and [`TOUCHED_BYTES_MAX`] allow.
pub fn fold(trace: &StepTrace) -> Result<Profile, FoldError> {
    if trace.ops.is_empty() {
        return Err(FoldError::Empty);
    }
    let violations = trace.violations();
    if let Some(first) = violations.first() {
        return Err(FoldError::Malformed { count: violations.len(), first: first.0.clone() });
    }
    check_sums(&trace.buffers)?;
    let ops = fold_ops(trace);
    let scratch_kernels = scratch_kernels(trace);
    let keys = slot_keys(trace, &scratch_kernels)?;
    let mut buffers: Vec<BufferFacts> =
        trace.buffers.iter().zip(keys).map(|(buffer, key)| fold_buffer(buffer, key, &ops)).collect();
    counted::replace_accesses(trace, &mut buffers);
    Ok(Profile {
        layers: fold_layers(&ops),
        peak_live_bytes: peak_bytes(ops.len(), &buffers, |buffer| buffer.class != Class::External),
        persistent_bytes: buffers.iter().filter(|b| b.class == Class::Persistent).map(|b| b.size_bytes).sum(),
        unplanned_peak_bytes: peak_bytes(ops.len(), &buffers, |buffer| buffer.class == Class::Scratch),
        intra_op_threads: trace.intra_op_threads,
        inter_op_threads: trace.inter_op_threads,
        scratch_kernels: scratch_kernels.into_iter().collect(),
        ops,
        buffers,
    })
}

/// Refuses sums that would not be exact, or that nothing can be planned for.
fn check_sums(buffers: &[Buffer]) -> Result<(), FoldError> {
    let (mut size_sum, mut touched_sum) = (0_u64, 0_u64);
    for (index, buffer) in buffers.iter().enumerate() {
        if buffer.origin != Origin::External {
            size_sum = size_sum.saturating_add(buffer.size_bytes);
        }
        if size_sum > STEP_BYTES_MAX {
            return Err(FoldError::TooLarge { buffer: index, size_bytes: buffer.size_bytes });
        }
        touched_sum = buffer.accesses.iter().fold(touched_sum, |sum, access| sum.saturating_add(access.bytes));
        if touched_sum > TOUCHED_BYTES_MAX {
            return Err(FoldError::TouchesTooMuch { buffer: index });
        }
    }
    Ok(())
}

/// An index as the 32-bit number that traces use; traces with more ops or buffers cannot be written.
pub(crate) fn index32(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

/// Numbers without gaps, in the same order; the input never falls.
pub(crate) fn compact(layers: &[u32]) -> Vec<u32> {
    let mut next = 0;
    let mut compacted = Vec::with_capacity(layers.len());
    for (index, &layer) in layers.iter().enumerate() {
        if index > 0 && layer != layers[index - 1] {
            next += 1;
        }
        compacted.push(next);
    }
    compacted
}

fn fold_ops(trace: &StepTrace) -> Vec<OpFacts> {
    let layers = match trace.layer_source {
        LayerSource::Inferred => infer_layers(trace),
        LayerSource::Marked => compact(&trace.ops.iter().map(|op| op.layer).collect::<Vec<_>>()),
    };
    let facts = |(op, layer): (&trace::Op, u32)| OpFacts {
        kernel: op.kernel,
        layer,
        time_ns: op.end_ns - op.start_ns,
        predecessors: op.predecessors.clone(),
    };
    trace.ops.iter().zip(layers).map(facts).collect()
}

fn fold_layers(ops: &[OpFacts]) -> Vec<LayerFacts> {
    let mut layers: Vec<LayerFacts> = Vec::new();
    for (index, op) in ops.iter().enumerate() {
        let index = index32(index);
        if op.layer as usize == layers.len() {
            layers.push(LayerFacts { first_op: index, last_op: index, time_ns: 0 });
        }
        let layer = &mut layers[op.layer as usize];
        layer.last_op = index;
        layer.time_ns += op.time_ns;
    }
    layers
}

/// Kernels of which some execution makes more temporaries of scratch size than `SCRATCH_MIN_COUNT`.
fn scratch_kernels(trace: &StepTrace) -> BTreeSet<u32> {
    let mut counts = vec![0; trace.ops.len()];
    for buffer in &trace.buffers {
        if let Origin::Step { op, .. } = buffer.origin {
            if buffer.temporary && (SLOT_MIN_BYTES..=SCRATCH_MAX_BYTES).contains(&buffer.size_bytes) {
                counts[op as usize] += 1;
            }
        }
    }
    let crowded = trace.ops.iter().zip(counts).filter(|&(_, count)| count > SCRATCH_MIN_COUNT);
    crowded.map(|(op, _)| op.kernel).collect()
}

/// The key of each buffer that has a slot. An allocation's ordinal falls by the number of scratch allocations that the
/// kernel made before it, because a managed step does not count those.
fn slot_keys(trace: &StepTrace, scratch_kernels: &BTreeSet<u32>) -> Result<Vec<Option<SlotKey>>, FoldError> {
    let mut allocations: Vec<(u32, u32, usize)> = Vec::with_capacity(trace.buffers.len());
    for (index, buffer) in trace.buffers.iter().enumerate() {
        if let Origin::Step { op, ordinal } = buffer.origin {
            if buffer.size_bytes >= SLOT_MIN_BYTES {
                allocations.push((trace.ops[op as usize].kernel, ordinal, index));
            }
        }
    }
    allocations.sort_unstable();
    if let Some(pair) = allocations.windows(2).find(|pair| (pair[0].0, pair[0].1) == (pair[1].0, pair[1].1)) {
        let ((kernel, ordinal, first), second) = (pair[0], pair[1].2);
        let first = format!("buffers[{second}]: allocation {ordinal} of kernel {kernel} is buffers[{first}] already");
        return Err(FoldError::Malformed { count: 1, first });
    }
    let mut keys = vec![None; trace.buffers.len()];
    for of_kernel in allocations.chunk_by(|one, next| one.0 == next.0) {
        let mut skipped = 0;
        for &(kernel, ordinal, index) in of_kernel {
            if scratch_kernels.contains(&kernel) && trace.buffers[index].size_bytes <= SCRATCH_MAX_BYTES {
                skipped += 1;
            } else {
                keys[index] = Some(SlotKey { kernel, ordinal: ordinal - skipped });
            }
        }
    }
    Ok(keys)
}

fn fold_buffer(buffer: &Buffer, key: Option<SlotKey>, ops: &[OpFacts]) -> BufferFacts {
    let last_op = index32(ops.len() - 1);
    let (birth_op, death_op) = match buffer.origin {
        Origin::Step { op, .. } => (op, buffer.death_op.unwrap_or(last_op)),
        Origin::Persistent | Origin::External => (0, last_op),
    };
    let layer_of = |op: u32| ops[op as usize].layer;
    let class = match buffer.origin {
        Origin::External => Class::External,
        Origin::Persistent => Class::Persistent,
        Origin::Step { .. } if key.is_none() => Class::Scratch,
        Origin::Step { .. } if buffer.death_op.is_none() => Class::Escaping,
        Origin::Step { .. } if layer_of(birth_op) == layer_of(death_op) => Class::ShortLived,
        Origin::Step { .. } => Class::LongLived,
    };
    let uses = uses_of(buffer);
    let birth = matches!(buffer.origin, Origin::Step { .. }).then_some(birth_op);
    let mut layers = Vec::with_capacity(uses.len() + 1);
    layers.extend(birth.into_iter().chain(uses.iter().map(|used| used.op)).map(layer_of));
    layers.dedup();
    let sum = |bytes: fn(&BufferUse) -> u64| uses.iter().map(bytes).sum();
    let writes = buffer.accesses.iter().filter(|access| access.write).count() as u64;
    BufferFacts {
        size_bytes: buffer.size_bytes,
        class,
        key,
        birth_op,
        death_op,
        layers,
        reads: buffer.accesses.len() as u64 - writes,
        writes,
        read_bytes: sum(|used| used.read_bytes),
        written_bytes: sum(|used| used.written_bytes),
        uses,
    }
}

fn uses_of(buffer: &Buffer) -> Vec<BufferUse> {
    let mut uses: Vec<BufferUse> = Vec::new();
    for access in &buffer.accesses {
        if uses.last().is_none_or(|last| last.op != access.op) {
            uses.push(BufferUse { op: access.op, read_bytes: 0, written_bytes: 0 });
        }
        if let Some(last) = uses.last_mut() {
            let bytes = if access.write { &mut last.written_bytes } else { &mut last.read_bytes };
            *bytes += access.bytes;
        }
    }
    uses
}

/// By op, the sum of the sizes of the live buffers that `counts` picks.
#[must_use]
pub fn live_bytes(op_count: usize, buffers: &[BufferFacts], counts: impl Fn(&BufferFacts) -> bool) -> Vec<u64> {
    let mut born = vec![0; op_count + 1];
    let mut died = vec![0; op_count + 1];
    for buffer in buffers.iter().filter(|&buffer| counts(buffer)) {
        born[buffer.birth_op as usize] += buffer.size_bytes;
        died[buffer.death_op as usize + 1] += buffer.size_bytes;
    }
    let mut live = 0;
    let after = |(born, died): (u64, u64)| {
        live = live + born - died;
        live
    };
    born.into_iter().zip(died).take(op_count).map(after).collect()
}

/// Largest sum at any of `op_count` ops of the sizes of the live buffers that `counts` picks.
#[must_use]
pub fn peak_bytes(op_count: usize, buffers: &[BufferFacts], counts: impl Fn(&BufferFacts) -> bool) -> u64 {
    live_bytes(op_count, buffers, counts).into_iter().max().unwrap_or(0)
}
