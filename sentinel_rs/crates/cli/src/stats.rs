//! `sentinel trace stats`: one step in a page of numbers.

use std::collections::BTreeMap;
use std::io::{self, Write};

use profile::{BufferFacts, Class, Profile};
use serde::Serialize;
use trace::{LayerSource, Origin, StepTrace};

use crate::amount::{millis, Bytes};
use crate::table::{Align, Table};

/// How many of the largest buffers are named.
const TOP: usize = 10;

/// Classes with their names, in the order in which they are printed.
const CLASSES: [(Class, &str); 6] = [
    (Class::ShortLived, "short_lived"),
    (Class::LongLived, "long_lived"),
    (Class::Persistent, "persistent"),
    (Class::Escaping, "escaping"),
    (Class::Scratch, "scratch"),
    (Class::External, "external"),
];

/// A step summed up. The field names are the keys of the JSON object.
#[derive(Serialize)]
pub struct Stats {
    tensorflow_version: String,
    step_number: u64,
    intra_op_threads: u32,
    inter_op_threads: u32,
    ops: usize,
    buffers: usize,
    layers: usize,
    layer_source: &'static str,
    /// From the step's begin to the end of the op that ended last.
    step_ns: u64,
    /// Sum of the ops' durations; more than `step_ns` when ops ran at the same time.
    op_ns: u64,
    peak_live_bytes: u64,
    persistent_bytes: u64,
    /// Largest sum of live scratch.
    scratch_peak_bytes: u64,
    read_bytes: u64,
    written_bytes: u64,
    classes: BTreeMap<&'static str, Sum>,
    /// Buffers that ops of this step allocated, whatever their class.
    allocated: Sum,
    /// Those of `allocated` that were freed in the layer of their birth, whatever their class.
    dead_within_layer: Sum,
    largest: Vec<Largest>,
}

/// Some buffers together.
#[derive(Clone, Copy, Default, Serialize)]
struct Sum {
    buffers: u64,
    bytes: u64,
}

impl Sum {
    fn of<'a>(buffers: impl Iterator<Item = &'a BufferFacts>) -> Sum {
        buffers
            .fold(Sum::default(), |sum, buffer| Sum { buffers: sum.buffers + 1, bytes: sum.bytes + buffer.size_bytes })
    }
}

/// A buffer that takes much memory for a long time.
#[derive(Serialize)]
struct Largest {
    buffer: usize,
    class: &'static str,
    size_bytes: u64,
    /// From the begin of the op of its birth to the end of the last op that had begun when it died; the whole step for
    /// a persistent one.
    lifetime_ns: u64,
    byte_seconds: f64,
    /// Name of the op that allocated it.
    allocated_by: Option<String>,
}

impl Stats {
    /// Sums up `step`, of which `profile` holds the facts.
    pub fn of(step: &StepTrace, profile: &Profile) -> Stats {
        let all = || profile.buffers.iter();
        let of_class = |class| Sum::of(all().filter(move |buffer| buffer.class == class));
        let layer_of = |op: u32| profile.ops[op as usize].layer;
        let born_here = || step.buffers.iter().zip(all()).filter(|(b, _)| matches!(b.origin, Origin::Step { .. }));
        let dead_within_layer = born_here()
            .filter(|(buffer, facts)| buffer.death_op.is_some_and(|op| layer_of(op) == layer_of(facts.birth_op)));
        Stats {
            tensorflow_version: step.tensorflow_version.clone(),
            step_number: step.step_number,
            intra_op_threads: step.intra_op_threads,
            inter_op_threads: step.inter_op_threads,
            ops: step.ops.len(),
            buffers: step.buffers.len(),
            layers: profile.layers.len(),
            layer_source: match step.layer_source {
                LayerSource::Inferred => "inferred",
                LayerSource::Marked => "marked",
            },
            step_ns: step_ns(step),
            op_ns: profile.ops.iter().map(|op| op.time_ns).sum(),
            peak_live_bytes: profile.peak_live_bytes,
            persistent_bytes: profile.persistent_bytes,
            scratch_peak_bytes: profile.unplanned_peak_bytes,
            read_bytes: all().map(|buffer| buffer.read_bytes).sum(),
            written_bytes: all().map(|buffer| buffer.written_bytes).sum(),
            classes: CLASSES.iter().map(|&(class, name)| (name, of_class(class))).collect(),
            allocated: Sum::of(born_here().map(|(_, facts)| facts)),
            dead_within_layer: Sum::of(dead_within_layer.map(|(_, facts)| facts)),
            largest: largest(step, profile),
        }
    }

    /// Prints the page for people.
    pub fn print(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "TensorFlow {}, step {}", self.tensorflow_version, self.step_number)?;
        writeln!(out, "threads          {} intra-op, {} inter-op", self.intra_op_threads, self.inter_op_threads)?;
        writeln!(out, "ops              {}", self.ops)?;
        writeln!(out, "layers           {} ({})", self.layers, self.layer_source)?;
        writeln!(out, "step time        {:.3} ms, ops {:.3} ms", millis(self.step_ns), millis(self.op_ns))?;
        writeln!(out, "peak live        {}", Bytes(self.peak_live_bytes))?;
        writeln!(out, "persistent       {}", Bytes(self.persistent_bytes))?;
        writeln!(out, "scratch peak     {}", Bytes(self.scratch_peak_bytes))?;
        writeln!(out, "bytes read       {}", Bytes(self.read_bytes))?;
        writeln!(out, "bytes written    {}", Bytes(self.written_bytes))?;
        writeln!(
            out,
            "dead in a layer  {} of the {} buffers that the step allocates, {} of their bytes",
            percent(self.dead_within_layer.buffers, self.allocated.buffers),
            self.allocated.buffers,
            percent(self.dead_within_layer.bytes, self.allocated.bytes),
        )?;
        writeln!(out)?;
        self.print_classes(out)?;
        writeln!(out)?;
        self.print_largest(out)
    }

    fn print_classes(&self, out: &mut impl Write) -> io::Result<()> {
        let mut table = Table::new(&[("class", Align::Left), ("buffers", Align::Right), ("bytes", Align::Right)]);
        let mut push = |name: &str, sum: Sum| {
            table.push([name.replace('_', "-"), sum.buffers.to_string(), Bytes(sum.bytes).to_string()]);
        };
        let mut total = Sum::default();
        for (_, name) in CLASSES {
            let sum = self.classes[name];
            push(name, sum);
            total = Sum { buffers: total.buffers + sum.buffers, bytes: total.bytes + sum.bytes };
        }
        push("total", total);
        table.print(out)
    }

    fn print_largest(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "largest by size × lifetime, without external memory")?;
        let mut table = Table::new(&[
            ("buffer", Align::Right),
            ("class", Align::Left),
            ("size", Align::Right),
            ("lifetime ms", Align::Right),
            ("MiB × ms", Align::Right),
            ("allocated by", Align::Left),
        ]);
        for row in &self.largest {
            table.push([
                row.buffer.to_string(),
                row.class.replace('_', "-"),
                Bytes(row.size_bytes).to_string(),
                format!("{:.3}", millis(row.lifetime_ns)),
                format!("{:.1}", row.byte_seconds * 1e3 / f64::from(1 << 20)),
                row.allocated_by.clone().unwrap_or_else(|| "-".to_owned()),
            ]);
        }
        table.print(out)
    }
}

fn step_ns(step: &StepTrace) -> u64 {
    step.ops.iter().map(|op| op.end_ns).max().unwrap_or(0)
}

fn class_name(class: Class) -> &'static str {
    CLASSES.iter().find(|(known, _)| *known == class).map_or("", |&(_, name)| name)
}

fn percent(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "none".to_owned();
    }
    format!("{:.1}%", part as f64 * 100.0 / whole as f64)
}

/// The buffers with the largest product of size and lifetime, the largest first.
fn largest(step: &StepTrace, profile: &Profile) -> Vec<Largest> {
    let ours = profile.buffers.iter().enumerate().filter(|(_, facts)| facts.class != Class::External);
    let mut ranked: Vec<(u128, usize, u64)> = ours
        .map(|(index, facts)| {
            let lifetime_ns = lifetime_ns(step, index, facts);
            (u128::from(facts.size_bytes) * u128::from(lifetime_ns), index, lifetime_ns)
        })
        .collect();
    ranked.sort_by_key(|&(product, index, _)| (std::cmp::Reverse(product), index));
    ranked.truncate(TOP);
    let row = |(product, index, lifetime_ns): (u128, usize, u64)| Largest {
        buffer: index,
        class: class_name(profile.buffers[index].class),
        size_bytes: profile.buffers[index].size_bytes,
        lifetime_ns,
        byte_seconds: product as f64 / 1e9,
        allocated_by: match step.buffers[index].origin {
            Origin::Step { op, .. } => Some(step.ops[op as usize].name.clone()),
            Origin::Persistent | Origin::External => None,
        },
    };
    ranked.into_iter().map(row).collect()
}

fn lifetime_ns(step: &StepTrace, index: usize, facts: &BufferFacts) -> u64 {
    let buffer = &step.buffers[index];
    let begin_ns = match buffer.origin {
        Origin::Step { .. } => step.ops[facts.birth_op as usize].start_ns,
        Origin::Persistent | Origin::External => 0,
    };
    let end_ns = buffer.death_op.map_or_else(|| step_ns(step), |op| step.ops[op as usize].end_ns);
    // Ops that run at the same time may end in any order.
    end_ns.saturating_sub(begin_ns)
}
