//! Events to facts: what one training step tells about each buffer and each layer.
//!
//! May use the trace; must not know about plans, tiers or the running process.

#![forbid(unsafe_code)]

mod counted;
mod fold;
mod layers;
mod scale;
#[cfg(test)]
mod tests;

pub use fold::{fold, live_bytes, peak_bytes, FoldError, STEP_BYTES_MAX, TOUCHED_BYTES_MAX};
pub use layers::infer_layers;
pub use scale::{scale, Recorded, ScaleError, SCALED_EVENTS_MAX};

/// Largest temporary of a scratch kernel that is left to the heap of small blocks.
///
/// Broadcasting operations evaluate block by block and make thousands of temporaries of 16 to 28 KB, as many as the
/// threads happen to take blocks. A slot for each would fill a plan with names that the next step does not repeat; 64 KiB
/// is above those blocks and below the scratch space of convolutions, which is worth planning.
pub const SCRATCH_MAX_BYTES: u64 = 64 << 10;

/// An execution that allocates more temporaries of slot size up to `SCRATCH_MAX_BYTES` than this makes its kernel a
/// scratch kernel. Operations that allocate a fixed set of temporaries make a handful.
pub const SCRATCH_MIN_COUNT: usize = 32;

/// What one step says, folded once and read by every policy.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    /// Layers in order; index = layer number, compacted so that none is empty.
    pub layers: Vec<LayerFacts>,
    /// Executions in order; index = op index of the trace.
    pub ops: Vec<OpFacts>,
    /// Buffers; index = buffer index of the trace.
    pub buffers: Vec<BufferFacts>,
    /// Largest sum of live bytes at any op: step buffers and persistent ones, without external memory.
    pub peak_live_bytes: u64,
    /// Bytes of persistent buffers.
    pub persistent_bytes: u64,
    /// Largest sum at any op of live step buffers smaller than `SLOT_MIN_BYTES` or marked as scratch: what the plan
    /// must leave to the heap of small blocks.
    pub unplanned_peak_bytes: u64,
    /// Threads inside an op when the step was recorded.
    pub intra_op_threads: u32,
    /// Inter-op threads the step is planned for.
    pub inter_op_threads: u32,
    /// Kernels whose allocations of at most `SCRATCH_MAX_BYTES` have no slot and no ordinal; ascending.
    pub scratch_kernels: Vec<u32>,
}

/// One layer: a contiguous run of ops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerFacts {
    /// First op index.
    pub first_op: u32,
    /// Last op index.
    pub last_op: u32,
    /// Sum of the ops' durations.
    pub time_ns: u64,
}

/// One execution of one operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpFacts {
    /// The kernel's number in the recording process.
    pub kernel: u32,
    /// Compacted layer number.
    pub layer: u32,
    /// Duration.
    pub time_ns: u64,
    /// Op indices this one waited for.
    pub predecessors: Vec<u32>,
}

/// How a buffer takes part in planning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Born and dead within one layer.
    ShortLived,
    /// Born in one layer, dead in a later one.
    LongLived,
    /// Exists across steps, in memory that Sentinel owns.
    Persistent,
    /// Born in the step, alive after it: fetched, or kept by a resource. Stays where the heap puts it.
    Escaping,
    /// One of very many small temporaries of one op, or below `SLOT_MIN_BYTES`: left to the heap of small blocks.
    Scratch,
    /// Memory that Sentinel does not own.
    External,
}

/// One buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BufferFacts {
    /// Requested size.
    pub size_bytes: u64,
    /// How it takes part in planning.
    pub class: Class,
    /// Kernel and ordinal that identify its allocation in every step; `None` for buffers that were there before the
    /// step, that Sentinel does not own, or that are scratch.
    pub key: Option<SlotKey>,
    /// First op index at which it is alive (0 for persistent and external ones).
    pub birth_op: u32,
    /// Last op index at which it is alive (the last op for those that outlive the step).
    pub death_op: u32,
    /// Layers in which an op reads or writes it, ascending, without repeats; a step buffer's birth layer is among them.
    pub layers: Vec<u32>,
    /// Read accesses: by operations, or, where the kernel counted the step's pages, of an average page.
    pub reads: u64,
    /// Write accesses, counted alike.
    pub writes: u64,
    /// Bytes read, summed over accesses.
    pub read_bytes: u64,
    /// Bytes written, summed over accesses.
    pub written_bytes: u64,
    /// Its accesses, one entry per op, ascending by op.
    pub uses: Vec<BufferUse>,
}

/// What one op does with one buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BufferUse {
    /// Op index.
    pub op: u32,
    /// Bytes read, summed over the op's accesses.
    pub read_bytes: u64,
    /// Bytes written, summed over the op's accesses.
    pub written_bytes: u64,
}

/// What names an allocation in every step of one graph: the kernel, and which of its slot-sized allocations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotKey {
    /// The kernel's number in this process.
    pub kernel: u32,
    /// Of the kernel's allocations of at least `SLOT_MIN_BYTES` in a step, which one, from 0; a scratch kernel's
    /// allocations of at most `SCRATCH_MAX_BYTES` are not counted.
    pub ordinal: u32,
}

impl BufferFacts {
    /// Accesses of either kind.
    #[must_use]
    pub fn access_count(&self) -> u64 {
        self.reads + self.writes
    }
}
