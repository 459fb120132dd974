//! One training step as plain data, and the rules that every well-formed step obeys.

use crate::PageCounts;

/// Where the layer numbers of a trace come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerSource {
    /// From name scopes or equal slices of time, because the graph has no marks.
    Inferred,
    /// From `add_layer` marks.
    Marked,
}

/// One training step: which operations ran, which buffers they made, who touched them when.
#[derive(Clone, Debug, PartialEq)]
pub struct StepTrace {
    /// Version of TensorFlow the step ran under, such as `1.13.1`.
    pub tensorflow_version: String,
    /// How many steps of this graph had run before this one.
    pub step_number: u64,
    /// Threads inside an operation.
    pub intra_op_threads: u32,
    /// Operations at the same time.
    pub inter_op_threads: u32,
    /// Where the layer numbers come from.
    pub layer_source: LayerSource,
    /// Executions of operations in the order in which they began; an *op index* is an index into this.
    pub ops: Vec<Op>,
    /// Buffers in the order in which they were first seen; a *buffer index* is an index into this.
    pub buffers: Vec<Buffer>,
    /// Accesses per page as the kernel counted them; `None` when they are accounted per operation only.
    pub counts: Option<PageCounts>,
}

/// One execution of one operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Op {
    /// The kernel's number in the recording process; equal for executions of one kernel.
    pub kernel: u32,
    /// The node's name, such as `gradients/conv1_grad/Conv2DBackpropFilter`.
    pub name: String,
    /// The operation's type, such as `Conv2D`.
    pub kind: String,
    /// Layer number, never smaller than that of an earlier op of the step.
    pub layer: u32,
    /// Begin, in nanoseconds from the step's begin.
    pub start_ns: u64,
    /// End, in nanoseconds from the step's begin.
    pub end_ns: u64,
    /// Op indices, all smaller than this op's own, whose outputs or control edges this one waited for.
    pub predecessors: Vec<u32>,
}

/// One buffer: memory from one allocation to its release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Buffer {
    /// Requested size.
    pub size_bytes: u64,
    /// Where it came from.
    pub origin: Origin,
    /// The last op that had begun when it was freed; `None` when it outlived the step.
    pub death_op: Option<u32>,
    /// Freed while the op that allocated it was still running.
    pub temporary: bool,
    /// Reads and writes in op order, the allocating op's write included when it produced an output.
    pub accesses: Vec<Access>,
}

/// Where a buffer came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Allocated by an op of this step.
    Step {
        /// Op index of the execution that allocated it.
        op: u32,
        /// Of the kernel's allocations of at least `SLOT_MIN_BYTES` in this step, which one, from 0.
        ordinal: u32,
    },
    /// Allocated before the step in memory that Sentinel owns: weights, optimizer slots.
    Persistent,
    /// Memory that Sentinel does not own.
    External,
}

/// One op's use of one buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Op index.
    pub op: u32,
    /// True for a write; an op that updates in place has a read and a write.
    pub write: bool,
    /// Bytes of the tensor that the op saw; a view may be smaller than its buffer.
    pub bytes: u64,
}

/// A rule of well-formed traces that a trace breaks, said so that a person can find the place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation(pub String);

/// Largest sum of sizes, of accessed bytes and of times that a step may have, so that later stages can add and round up
/// in `u64` without a thought for overflow, however strange the file was.
const TOTAL_MAX: u64 = i64::MAX as u64;

impl StepTrace {
    /// Every rule that this trace breaks, in order of place; empty for a well-formed trace.
    #[must_use]
    pub fn violations(&self) -> Vec<Violation> {
        let mut found = Vec::new();
        self.check_ops(&mut found);
        for (index, buffer) in self.buffers.iter().enumerate() {
            buffer.check(index, self.ops.len(), &mut found);
        }
        self.check_totals(&mut found);
        self.check_counts(&mut found);
        found
    }

    fn check_ops(&self, found: &mut Vec<Violation>) {
        let mut say = |text: String| found.push(Violation(text));
        let mut layer = 0;
        for (index, op) in self.ops.iter().enumerate() {
            if op.end_ns < op.start_ns {
                say(format!("ops[{index}] {}: end_ns {} before start_ns {}", op.name, op.end_ns, op.start_ns));
            }
            if op.end_ns > TOTAL_MAX {
                say(format!("ops[{index}] {}: end_ns {} is more than {TOTAL_MAX}", op.name, op.end_ns));
            }
            if op.layer < layer {
                say(format!("ops[{index}] {}: layer {} after layer {layer}", op.name, op.layer));
            }
            layer = layer.max(op.layer);
            if let Some(&p) = op.predecessors.iter().find(|&&p| p as usize >= index) {
                say(format!("ops[{index}] {}: predecessor {p} is not an earlier op", op.name));
            }
        }
    }

    fn check_totals(&self, found: &mut Vec<Violation>) {
        let accesses = self.buffers.iter().flat_map(|buffer| &buffer.accesses);
        let totals = [
            ("ops: durations in ns", total(self.ops.iter().map(|op| op.end_ns.saturating_sub(op.start_ns)))),
            ("buffers: sizes in bytes", total(self.buffers.iter().map(|buffer| buffer.size_bytes))),
            ("buffers: bytes of all accesses", total(accesses.map(|access| access.bytes))),
        ];
        for (what, sum) in totals {
            if sum > TOTAL_MAX {
                found.push(Violation(format!("{what} add up to more than {TOTAL_MAX}")));
            }
        }
    }
}

/// Sum that stays at its largest value where it would wrap.
fn total(values: impl Iterator<Item = u64>) -> u64 {
    values.fold(0, u64::saturating_add)
}

impl Buffer {
    fn check(&self, index: usize, op_count: usize, found: &mut Vec<Violation>) {
        let mut say = |text: String| found.push(Violation(format!("buffers[{index}]: {text}")));
        let birth = match self.origin {
            Origin::Step { op, .. } => op,
            Origin::Persistent | Origin::External => 0,
        };
        if matches!(self.origin, Origin::Step { .. }) && birth as usize >= op_count {
            say(format!("birth_op {birth}, but the step has {op_count} ops"));
        }
        if let Some(death) = self.death_op {
            if death as usize >= op_count || death < birth {
                say(format!("death_op {death} outside {birth}..{op_count}"));
            }
        }
        for access in &self.accesses {
            if access.op as usize >= op_count || access.op < birth {
                say(format!("access by op {} outside {birth}..{op_count}", access.op));
            }
            if self.death_op.is_some_and(|death| access.op > death) {
                say(format!("access by op {} after its death", access.op));
            }
            if access.bytes > self.size_bytes {
                say(format!("access of {} bytes to a buffer of {}", access.bytes, self.size_bytes));
            }
        }
        if self.accesses.windows(2).any(|pair| pair[0].op > pair[1].op) {
            say("accesses are not in op order".to_owned());
        }
    }
}
