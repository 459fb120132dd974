//! Which operation and which buffer of one recorded step is which of another.
//!
//! Operations are the same when they have the same name and are the same execution under that name; the executor may have
//! run them in another order. Buffers are the same when the same operation made them as the same one of its lasting
//! allocations, or, for those that were there before the step, when the same operations use them in the same way.
//!
//! Two kinds are left without a partner. The number of temporaries is not a property of the graph. And whether an operation
//! makes an output or writes over an input depends on who else still needs the input at that moment, and so on the order.

use super::ScaleError;
use crate::fold::index32;
use std::collections::{BTreeMap, HashMap};
use trace::{Buffer, Origin, StepTrace};

/// What of the other step belongs to what of the base.
pub(super) struct Pairs {
    /// The other step's op index, by the base's.
    pub(super) ops: Vec<u32>,
    /// The other step's buffer index, by the base's; `None` where there is no partner.
    pub(super) buffers: Vec<Option<usize>>,
}

impl Pairs {
    /// Pairs of everything in two steps of one graph.
    ///
    /// # Errors
    /// [`ScaleError::Different`] with the first thing in which the graphs differ.
    pub(super) fn of(base: &StepTrace, other: &StepTrace) -> Result<Pairs, ScaleError> {
        let ops = pair_ops(base, other)?;
        let mut buffers = vec![None; base.buffers.len()];
        pair_lasting(base, other, &ops, &mut buffers);
        pair_older(base, other, &ops, &mut buffers)?;
        Ok(Pairs { ops, buffers })
    }
}

/// Text that names an op to a person.
pub(super) fn op_text(step: &StepTrace, op: u32) -> String {
    let op_record = &step.ops[op as usize];
    format!("ops[{op}] {} ({})", op_record.name, op_record.kind)
}

fn pair_ops(base: &StepTrace, other: &StepTrace) -> Result<Vec<u32>, ScaleError> {
    let mut by_name: HashMap<&str, Vec<u32>> = HashMap::new();
    for (index, op) in other.ops.iter().enumerate() {
        by_name.entry(&op.name).or_default().push(index32(index));
    }
    let mut used: HashMap<&str, usize> = HashMap::new();
    let mut pairs = Vec::with_capacity(base.ops.len());
    for (index, op) in base.ops.iter().enumerate() {
        let index = index32(index);
        let execution = used.entry(&op.name).or_default();
        let found = by_name.get(op.name.as_str()).and_then(|all| all.get(*execution));
        let Some(&found) = found else {
            return Err(ScaleError::different(op_text(base, index), "no such operation".to_owned()));
        };
        *execution += 1;
        if other.ops[found as usize].kind != op.kind {
            return Err(ScaleError::different(op_text(base, index), op_text(other, found)));
        }
        pairs.push(found);
    }
    let extra = other.ops.iter().enumerate().find(|(index, op)| {
        let executions = by_name[op.name.as_str()].iter().position(|&found| found == index32(*index));
        executions >= Some(used.get(op.name.as_str()).copied().unwrap_or(0))
    });
    if let Some((index, _)) = extra {
        return Err(ScaleError::different("no such operation".to_owned(), op_text(other, index32(index))));
    }
    check_edges(base, other, &pairs)?;
    Ok(pairs)
}

fn check_edges(base: &StepTrace, other: &StepTrace, pairs: &[u32]) -> Result<(), ScaleError> {
    for (index, op) in base.ops.iter().enumerate() {
        let mut expected: Vec<u32> = op.predecessors.iter().map(|&p| pairs[p as usize]).collect();
        let mut found = other.ops[pairs[index] as usize].predecessors.clone();
        expected.sort_unstable();
        found.sort_unstable();
        if expected != found {
            let text = |step, op, waits: &[u32]| format!("{} waits for {} operations", op_text(step, op), waits.len());
            let base_text = text(base, index32(index), &op.predecessors);
            return Err(ScaleError::different(base_text, text(other, pairs[index], &found)));
        }
    }
    Ok(())
}

/// Indices of the buffers that each op made and that outlived it, in the order of their births.
fn lasting(step: &StepTrace) -> Vec<Vec<usize>> {
    let mut by_op = vec![Vec::new(); step.ops.len()];
    for (index, buffer) in step.buffers.iter().enumerate() {
        if let (Origin::Step { op, .. }, false) = (buffer.origin, buffer.temporary) {
            by_op[op as usize].push(index);
        }
    }
    by_op
}

fn pair_lasting(base: &StepTrace, other: &StepTrace, ops: &[u32], pairs: &mut [Option<usize>]) {
    let theirs = lasting(other);
    for (made, &op) in lasting(base).into_iter().zip(ops) {
        let found = &theirs[op as usize];
        if found.len() == made.len() {
            for (buffer, &found) in made.into_iter().zip(found) {
                pairs[buffer] = Some(found);
            }
        }
    }
}

/// By whom and how a buffer from before the step is used: ops of the other step, and whether they write.
type Use = (bool, Vec<(u32, bool)>);

fn use_of(buffer: &Buffer, op_of: impl Fn(u32) -> u32) -> Use {
    let mut accesses: Vec<(u32, bool)> = buffer.accesses.iter().map(|a| (op_of(a.op), a.write)).collect();
    accesses.sort_unstable();
    (buffer.origin == Origin::Persistent, accesses)
}

fn pair_older(base: &StepTrace, other: &StepTrace, ops: &[u32], pairs: &mut [Option<usize>]) -> Result<(), ScaleError> {
    let is_older = |buffer: &Buffer| !matches!(buffer.origin, Origin::Step { .. });
    let mut theirs: BTreeMap<Use, Vec<usize>> = BTreeMap::new();
    for (index, buffer) in other.buffers.iter().enumerate().rev().filter(|(_, buffer)| is_older(buffer)) {
        theirs.entry(use_of(buffer, |op| op)).or_default().push(index);
    }
    for (index, buffer) in base.buffers.iter().enumerate().filter(|(_, buffer)| is_older(buffer)) {
        let found = theirs.get_mut(&use_of(buffer, |op| ops[op as usize])).and_then(Vec::pop);
        if found.is_none() {
            return Err(ScaleError::different(older_text(base, index), "no buffer used alike".to_owned()));
        }
        pairs[index] = found;
    }
    match theirs.values().flatten().min() {
        Some(&index) => Err(ScaleError::different("no buffer used alike".to_owned(), older_text(other, index))),
        None => Ok(()),
    }
}

fn older_text(step: &StepTrace, index: usize) -> String {
    let buffer = &step.buffers[index];
    let user = buffer.accesses.first().map_or_else(|| "nobody".to_owned(), |access| op_text(step, access.op));
    format!(
        "buffers[{index}], {} bytes from before the step, used {} times, first by {user}",
        buffer.size_bytes,
        buffer.accesses.len()
    )
}
