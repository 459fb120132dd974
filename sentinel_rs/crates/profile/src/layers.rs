//! Layers of a graph that has no marks: from name scopes where they say something, else equal slices of time.

use crate::fold::{compact, index32};
use std::collections::{BTreeSet, HashSet};
use trace::StepTrace;

/// With fewer layers than this, moves have nowhere to be issued.
const LAYERS_MIN: usize = 8;

/// Slices of time when scopes say nothing.
const SLICES: u64 = 32;

/// A layer shorter than the step's time divided by this joins its neighbour: a boundary costs more than it tells.
const SHORTEST_SHARE: u64 = 64;

/// A layer of several ops longer than the step's time divided by this says that scopes hide the step's structure, as the
/// body of a loop does.
const LONGEST_SHARE: u64 = 4;

/// One layer number per op, never falling in op order, without gaps.
///
/// A layer opens where a name scope appears for the first time. The scope of an op is its name up to the last `/`; a
/// gradient op takes that of its forward op with `gradients` before it, so that the backward pass mirrors the forward
/// one; the optimizer's ops open no layer while gradients are still being made, and are one layer at the end. Layers
/// shorter than 1/64 of the step are joined with the next. When fewer than 8 layers are left, or one of several ops holds
/// more than a quarter of the step, the order is cut into 32 slices of equal time instead.
#[must_use]
pub fn infer_layers(trace: &StepTrace) -> Vec<u32> {
    let times = op_times(trace);
    let scoped = join_short(&scope_layers(trace), &times);
    if is_useful(&scoped, &times) {
        scoped
    } else {
        time_slices(&times)
    }
}

/// Durations; one each when the trace's clock has told none.
fn op_times(trace: &StepTrace) -> Vec<u64> {
    let times: Vec<u64> = trace.ops.iter().map(|op| op.end_ns.saturating_sub(op.start_ns)).collect();
    if times.iter().all(|&time| time == 0) {
        return vec![1; times.len()];
    }
    times
}

fn scope_layers(trace: &StepTrace) -> Vec<u32> {
    let optimizers = optimizer_scopes(trace);
    let is_optimizer =
        |name: &str| optimizers.iter().any(|scope| name.strip_prefix(scope).is_some_and(|rest| rest.starts_with('/')));
    let mut seen = HashSet::new();
    let mut layers = Vec::with_capacity(trace.ops.len());
    let mut layer = 0;
    let mut last_opening = 0;
    for (index, op) in trace.ops.iter().enumerate() {
        if !is_optimizer(&op.name) && seen.insert(scope_of(&op.name)) && index > 0 {
            layer += 1;
            last_opening = index;
        }
        layers.push(layer);
    }
    let tail = trace.ops.iter().skip(last_opening).position(|op| is_optimizer(&op.name));
    if let Some(offset) = tail.filter(|&offset| offset > 0) {
        layers[last_opening + offset..].fill(layer + 1);
    }
    layers
}

/// Name scopes of optimizers. Their update ops are called `<scope>/update_<variable>/Apply...`.
fn optimizer_scopes(trace: &StepTrace) -> BTreeSet<&str> {
    let applies = trace.ops.iter().filter(|op| {
        let kind = op.kind.strip_prefix("Resource").unwrap_or(&op.kind);
        let kind = kind.strip_prefix("Sparse").unwrap_or(kind);
        kind.starts_with("Apply")
    });
    applies.filter_map(|op| op.name.find("/update_").map(|end| &op.name[..end])).collect()
}

/// Text up to the last `/`, or nothing.
fn parent(name: &str) -> &str {
    name.rfind('/').map_or("", |end| &name[..end])
}

/// Whether `tf.gradients` makes ops in this top scope: `gradients`, and `gradients_1` for a second call.
fn is_gradients(top: &str) -> bool {
    top.strip_prefix("gradients").is_some_and(|rest| {
        rest.is_empty() || rest.strip_prefix('_').is_some_and(|n| n.chars().all(|c| c.is_ascii_digit()))
    })
}

/// The scope by which an op belongs to a layer: whether it is a gradient op, and the scope of the forward op.
fn scope_of(name: &str) -> (bool, &str) {
    let Some((_, rest)) = name.split_once('/').filter(|(top, _)| is_gradients(top)) else {
        return (false, parent(name));
    };
    let mut end = 0;
    for part in rest.split('/') {
        end += part.len();
        if part.ends_with("_grad") {
            return (true, parent(&rest[..end]));
        }
        end += 1;
    }
    (true, parent(rest))
}

/// Joins each layer that is too short with the next one, and the last with the one before it.
fn join_short(layers: &[u32], times: &[u64]) -> Vec<u32> {
    let total: u64 = times.iter().sum();
    let mut starts = Vec::new();
    let mut start = 0;
    let mut time = 0;
    for (index, &op_time) in times.iter().enumerate() {
        time += op_time;
        let closes = index + 1 == layers.len() || layers[index + 1] != layers[index];
        if closes && time.saturating_mul(SHORTEST_SHARE) >= total {
            starts.push(start);
            start = index + 1;
            time = 0;
        }
    }
    let mut joined = vec![0; layers.len()];
    for (number, &start) in starts.iter().enumerate() {
        joined[start..].fill(index32(number));
    }
    joined
}

fn is_useful(layers: &[u32], times: &[u64]) -> bool {
    let total: u64 = times.iter().sum();
    let count = layers.last().map_or(0, |&last| last as usize + 1);
    let mut spans = vec![(0_u64, 0_u64); count];
    for (&layer, &time) in layers.iter().zip(times) {
        spans[layer as usize].0 += time;
        spans[layer as usize].1 += 1;
    }
    let coarse = |&(time, ops): &(u64, u64)| ops > 1 && time.saturating_mul(LONGEST_SHARE) > total;
    count >= LAYERS_MIN && !spans.iter().any(coarse)
}

/// Slices of equal time; an op belongs to the slice in which it begins.
fn time_slices(times: &[u64]) -> Vec<u32> {
    let total = u128::from(times.iter().sum::<u64>()).max(1);
    let mut before = 0_u64;
    let mut slices = Vec::with_capacity(times.len());
    for &time in times {
        let slice = u128::from(before) * u128::from(SLICES) / total;
        slices.push(u32::try_from(slice).unwrap_or(u32::MAX));
        before += time;
    }
    compact(&slices)
}
