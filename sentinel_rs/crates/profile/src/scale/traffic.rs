//! Bytes of every access for the wanted batch.
//!
//! An access is paired with one by the same operation in the same direction: to the paired buffer when there is one, and
//! otherwise by size among those that are left. As every tensor that goes into or comes out of an operation is an access,
//! both steps must have as many of them, whoever owns the memory.

use super::pairs::{op_text, Pairs};
use super::ScaleError;
use std::collections::BTreeMap;
use trace::StepTrace;

/// An op of the other step, and whether it writes.
type Side = (u32, bool);

/// An access of the base that waits for a partner: its bytes, buffer and place among the buffer's accesses.
type Waiting = (u64, usize, usize);

/// By buffer and access of the base, the fitted bytes; nothing for temporaries. `fit` takes a figure of the base and one of
/// the other step.
///
/// # Errors
/// [`ScaleError::Different`] when an operation reads or writes another number of tensors in the other step.
pub(super) fn fitted(
    base: &StepTrace,
    other: &StepTrace,
    pairs: &Pairs,
    fit: impl Fn(u64, u64) -> u64,
) -> Result<Vec<Vec<u64>>, ScaleError> {
    let mut theirs = by_side(other);
    let mut result: Vec<Vec<u64>> = base.buffers.iter().map(|buffer| vec![0; buffer.accesses.len()]).collect();
    let mut left: BTreeMap<Side, (u32, Vec<Waiting>)> = BTreeMap::new();
    for (index, buffer) in base.buffers.iter().enumerate().filter(|(_, buffer)| !buffer.temporary) {
        for (place, access) in buffer.accesses.iter().enumerate() {
            let side = (pairs.ops[access.op as usize], access.write);
            let same_buffer = |&(_, buffer): &(u64, usize)| Some(buffer) == pairs.buffers[index];
            let found = theirs.get_mut(&side).and_then(|all| Some(all.swap_remove(all.iter().position(same_buffer)?)));
            match found {
                Some((bytes, _)) => result[index][place] = fit(access.bytes, bytes),
                None => left.entry(side).or_insert((access.op, Vec::new())).1.push((access.bytes, index, place)),
            }
        }
    }
    theirs.retain(|_, all| !all.is_empty());
    for (side, (op, mut waiting)) in left {
        let mut found = theirs.remove(&side).unwrap_or_default();
        if found.len() != waiting.len() {
            return Err(different(base, op, other, side, waiting.len(), found.len()));
        }
        waiting.sort_unstable();
        found.sort_unstable();
        for ((ours, index, place), (bytes, _)) in waiting.into_iter().zip(found) {
            result[index][place] = fit(ours, bytes);
        }
    }
    match theirs.first_key_value() {
        Some((&side, found)) => {
            let op = pairs.ops.iter().zip(0..).find(|&(&op, _)| op == side.0).map_or(0, |(_, op)| op);
            Err(different(base, op, other, side, 0, found.len()))
        }
        None => Ok(result),
    }
}

/// Bytes and buffers of the accesses of a step, temporaries left out.
fn by_side(step: &StepTrace) -> BTreeMap<Side, Vec<(u64, usize)>> {
    let mut sides: BTreeMap<Side, Vec<(u64, usize)>> = BTreeMap::new();
    for (index, buffer) in step.buffers.iter().enumerate().filter(|(_, buffer)| !buffer.temporary) {
        for access in &buffer.accesses {
            sides.entry((access.op, access.write)).or_default().push((access.bytes, index));
        }
    }
    sides
}

fn different(base: &StepTrace, op: u32, other: &StepTrace, side: Side, ours: usize, theirs: usize) -> ScaleError {
    let verb = if side.1 { "writes" } else { "reads" };
    let text = |name: String, count| format!("{name} {verb} {count} tensors that the other has no partner for");
    ScaleError::different(text(op_text(base, op), ours), text(op_text(other, side.0), theirs))
}
