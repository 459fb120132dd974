//! `sentinel trace show`: a step line by line.

use std::io::{self, Write};

use trace::{Buffer, Origin, StepTrace};

use crate::amount::{micros, millis, Bytes};
use crate::table::{Align, Table};

/// Prints the first `limit` ops with what they allocate and how many bytes are live when they are done.
pub fn ops(step: &StepTrace, limit: usize, out: &mut impl Write) -> io::Result<()> {
    use Align::{Left, Right};
    let mut table = Table::new(&[
        ("op", Right),
        ("layer", Right),
        ("start ms", Right),
        ("µs", Right),
        ("kind", Left),
        ("name", Left),
        ("born", Right),
        ("live after", Right),
    ]);
    let memory = memory_by_op(step);
    for (index, (op, memory)) in step.ops.iter().zip(memory).enumerate().take(limit) {
        table.push([
            index.to_string(),
            op.layer.to_string(),
            format!("{:.3}", millis(op.start_ns)),
            format!("{:.1}", micros(op.end_ns - op.start_ns)),
            op.kind.clone(),
            op.name.clone(),
            Bytes(memory.born_bytes).to_string(),
            Bytes(memory.live_after_bytes).to_string(),
        ]);
    }
    table.print(out)?;
    say_hidden(step.ops.len(), limit, "ops", out)
}

/// Prints the first `limit` buffers.
pub fn buffers(step: &StepTrace, limit: usize, out: &mut impl Write) -> io::Result<()> {
    use Align::{Left, Right};
    let mut table = Table::new(&[
        ("buffer", Right),
        ("origin", Left),
        ("size", Right),
        ("born", Right),
        ("dies", Right),
        ("temporary", Left),
        ("reads", Right),
        ("writes", Right),
        ("read", Right),
        ("written", Right),
        ("allocated by", Left),
    ]);
    for (index, buffer) in step.buffers.iter().enumerate().take(limit) {
        let bytes =
            |write| buffer.accesses.iter().filter(move |access| access.write == write).map(|access| access.bytes);
        let birth = match buffer.origin {
            Origin::Step { op, .. } => Some(op),
            Origin::Persistent | Origin::External => None,
        };
        table.push([
            index.to_string(),
            origin_name(buffer.origin).to_owned(),
            Bytes(buffer.size_bytes).to_string(),
            birth.map_or_else(|| "before".to_owned(), |op| op.to_string()),
            buffer.death_op.map_or_else(|| "after".to_owned(), |op| op.to_string()),
            if buffer.temporary { "yes" } else { "no" }.to_owned(),
            bytes(false).count().to_string(),
            bytes(true).count().to_string(),
            Bytes(bytes(false).sum()).to_string(),
            Bytes(bytes(true).sum()).to_string(),
            birth.map_or_else(|| "-".to_owned(), |op| step.ops[op as usize].name.clone()),
        ]);
    }
    table.print(out)?;
    say_hidden(step.buffers.len(), limit, "buffers", out)
}

fn origin_name(origin: Origin) -> &'static str {
    match origin {
        Origin::Step { .. } => "step",
        Origin::Persistent => "persistent",
        Origin::External => "external",
    }
}

fn say_hidden(count: usize, limit: usize, what: &str, out: &mut impl Write) -> io::Result<()> {
    match count.checked_sub(limit) {
        None | Some(0) => Ok(()),
        Some(hidden) => writeln!(out, "... {hidden} more {what}"),
    }
}

/// What one op does to memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct OpMemory {
    /// Bytes it allocates.
    born_bytes: u64,
    /// Bytes alive after it and everything that is freed before the next op begins, without external memory.
    live_after_bytes: u64,
}

/// The memory of each op. The step must be well-formed.
fn memory_by_op(step: &StepTrace) -> Vec<OpMemory> {
    let mut born = vec![0; step.ops.len()];
    let mut died = vec![0; step.ops.len()];
    let is_ours = |buffer: &&Buffer| buffer.origin != Origin::External;
    let mut live = 0;
    for buffer in step.buffers.iter().filter(is_ours) {
        match buffer.origin {
            Origin::Step { op, .. } => born[op as usize] += buffer.size_bytes,
            Origin::Persistent | Origin::External => live += buffer.size_bytes,
        }
        if let Some(op) = buffer.death_op {
            died[op as usize] += buffer.size_bytes;
        }
    }
    let memory = born.into_iter().zip(died).map(|(born_bytes, died_bytes)| {
        live = live + born_bytes - died_bytes;
        OpMemory { born_bytes, live_after_bytes: live }
    });
    memory.collect()
}
