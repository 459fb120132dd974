//! Steps that differ from the recorded one: what a plan meets when the next step is not the profiled step.
//!
//! Buffer indices stay, so that a plan made for the recorded step can be followed. Everything is a function of the seed.

use crate::workload::to_f64;
use plan::SplitMix;
use std::collections::HashSet;
use trace::{Origin, StepTrace};

/// Every op's time changed by a factor between `1 - spread` and `1 + spread`.
#[must_use]
pub fn jittered(trace: &StepTrace, spread: f64, seed: u64) -> StepTrace {
    let mut random = SplitMix::new(seed);
    let mut changed = trace.clone();
    let times: Vec<u64> = trace
        .ops
        .iter()
        .map(|op| scaled(op.end_ns - op.start_ns, 1.0 + spread * (2.0 * random.next_share() - 1.0)))
        .collect();
    serialize(&mut changed, &times);
    changed
}

/// Every op's time changed by this factor.
#[must_use]
pub fn slowed(trace: &StepTrace, factor: f64) -> StepTrace {
    let mut changed = trace.clone();
    let times: Vec<u64> = trace.ops.iter().map(|op| scaled(op.end_ns - op.start_ns, factor)).collect();
    serialize(&mut changed, &times);
    changed
}

/// About this share of the ops changes places with the op after it, where nothing stands against it: same layer, and the
/// later one neither waits for the earlier one nor uses what it allocates.
#[must_use]
pub fn reordered(trace: &StepTrace, share: f64, seed: u64) -> StepTrace {
    let mut random = SplitMix::new(seed);
    let mut fed: HashSet<(usize, usize)> = HashSet::new();
    for buffer in &trace.buffers {
        if let Origin::Step { op, .. } = buffer.origin {
            fed.extend(buffer.accesses.iter().map(|access| (op as usize, access.op as usize)));
        }
    }
    let mut order: Vec<usize> = (0..trace.ops.len()).collect();
    let mut at = 0;
    while at + 1 < order.len() {
        let (one, next) = (order[at], order[at + 1]);
        let waits = trace.ops[next].predecessors.iter().any(|&p| p as usize == one) || fed.contains(&(one, next));
        let free = trace.ops[one].layer == trace.ops[next].layer && !waits;
        // Each change of places moves two ops.
        if random.next_share() < share / 2.0 && free {
            order.swap(at, at + 1);
            at += 1;
        }
        at += 1;
    }
    permuted(trace, &order)
}

/// Step buffers, accesses to them and op times, larger by this factor; persistent buffers stay as they are.
#[must_use]
pub fn enlarged(trace: &StepTrace, factor: f64) -> StepTrace {
    let mut changed = trace.clone();
    // The kernel counted pages of the buffers as they were.
    changed.counts = None;
    for buffer in &mut changed.buffers {
        if matches!(buffer.origin, Origin::Step { .. }) {
            buffer.size_bytes = scaled(buffer.size_bytes, factor);
            for access in &mut buffer.accesses {
                access.bytes = scaled(access.bytes, factor).min(buffer.size_bytes);
            }
        }
    }
    let times: Vec<u64> = trace.ops.iter().map(|op| scaled(op.end_ns - op.start_ns, factor)).collect();
    serialize(&mut changed, &times);
    changed
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // a size times a factor near one
fn scaled(number: u64, factor: f64) -> u64 {
    (to_f64(number) * factor).round() as u64
}

/// Gives the ops these durations, one after the other.
fn serialize(trace: &mut StepTrace, times: &[u64]) {
    let mut clock = 0;
    for (op, time) in trace.ops.iter_mut().zip(times) {
        (op.start_ns, op.end_ns) = (clock, clock + time);
        clock += time;
    }
}

/// The ops in another order, which must respect their predecessors.
fn permuted(trace: &StepTrace, order: &[usize]) -> StepTrace {
    let mut place = vec![0_u32; order.len()];
    for (new, &old) in order.iter().enumerate() {
        place[old] = u32::try_from(new).unwrap_or(u32::MAX);
    }
    let mut changed = trace.clone();
    changed.ops = order.iter().map(|&old| trace.ops[old].clone()).collect();
    for op in &mut changed.ops {
        for predecessor in &mut op.predecessors {
            *predecessor = place[*predecessor as usize];
        }
    }
    for buffer in &mut changed.buffers {
        for access in &mut buffer.accesses {
            access.op = place[access.op as usize];
        }
        buffer.accesses.sort_by_key(|access| access.op);
        let mut last = buffer.accesses.last().map_or(0, |access| access.op);
        if let Origin::Step { op, .. } = &mut buffer.origin {
            *op = place[*op as usize];
            last = last.max(*op);
        }
        buffer.death_op = buffer.death_op.map(|death| place[death as usize].max(last));
    }
    let times: Vec<u64> = changed.ops.iter().map(|op| op.end_ns - op.start_ns).collect();
    serialize(&mut changed, &times);
    changed
}
