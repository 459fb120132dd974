//! Records one step: which operations ran, which buffers were born, touched and freed.
//!
//! Only the profiled step pays for this; its events go into one list under a lock, and are made into a trace when the
//! step is over.

use crate::graph::GraphEdges;
use crate::kernels::Kernels;
use crate::memory::Memory;
use crate::profiler::{Counting, Split};
use profile::SCRATCH_MAX_BYTES;
use rustc_hash::FxHashMap;
use std::sync::{Mutex, PoisonError};
use sys::profiler::ProfilerError;
use sys::ticks::Ticks;
use trace::{page_ceil, Access, Buffer, LayerSource, Op, Origin, StepTrace, SLOT_MIN_BYTES};

/// One use of one buffer by one operation, as the device sees it, and as C lays it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Touch {
    /// Begin of the buffer.
    pub addr: usize,
    /// Bytes of the tensor.
    pub bytes: u64,
    /// True for a write.
    pub write: bool,
}

#[derive(Debug)]
struct RunOp {
    kernel: u32,
    start_ticks: u64,
    end_ticks: u64,
}

/// An access in as few bytes as it takes, because a profiled step touches all of them for the first time.
#[derive(Debug)]
struct LoggedAccess {
    bytes: u64,
    buffer: u32,
    /// The operation, times two, and one more when it writes.
    op_and_write: u32,
}

impl LoggedAccess {
    fn new(buffer: u32, op: u32, write: bool, bytes: u64) -> LoggedAccess {
        LoggedAccess { bytes, buffer, op_and_write: op << 1 | u32::from(write) }
    }

    fn access(&self) -> Access {
        Access { op: self.op_and_write >> 1, write: self.op_and_write & 1 == 1, bytes: self.bytes }
    }
}

#[derive(Debug, Default)]
struct Log {
    ops: Vec<RunOp>,
    buffers: Vec<Buffer>,
    addresses: Vec<usize>,
    /// What touched which buffer, in order; each buffer gets its own when the step is over.
    accesses: Vec<LoggedAccess>,
    live: FxHashMap<usize, u32>,
    ordinals: FxHashMap<u32, u32>,
    /// Temporaries that are dead already, by execution and size.
    idle: FxHashMap<(u32, u64), Vec<u32>>,
    live_bytes: u64,
    peak_live_bytes: u64,
    persistent_bytes: u64,
    /// While the kernel counts.
    counting: Option<Counting>,
    /// When it has counted.
    counted: Option<Counting>,
}

/// The recorder of one step.
#[derive(Debug)]
pub struct Recorder {
    clock: Ticks,
    log: Mutex<Log>,
    own_pages: bool,
}

/// A finished recording.
#[derive(Debug)]
pub struct Recording {
    /// The step.
    pub trace: StepTrace,
    /// Address of each buffer, by buffer index.
    pub addresses: Vec<usize>,
    /// Largest sum of live bytes at any moment, persistent buffers included. The trace knows lives by whole operations only,
    /// so a sum made from it is a little larger: temporaries of different sizes in one operation seem to meet.
    pub peak_live_bytes: u64,
    /// What the kernel's profiler refused.
    pub refusal: Option<ProfilerError>,
}

/// What the recorder cannot know by itself.
#[derive(Clone, Debug)]
pub struct Circumstances {
    /// Version of TensorFlow.
    pub tensorflow_version: String,
    /// Steps of this graph before the profiled one.
    pub step_number: u64,
    /// Threads inside an operation.
    pub intra_op_threads: u32,
    /// Operations at the same time.
    pub inter_op_threads: u32,
}

impl Default for Recorder {
    fn default() -> Recorder {
        Recorder { clock: Ticks::start(), log: Mutex::new(Log::default()), own_pages: false }
    }
}

impl Recorder {
    /// A recorder for a step whose accesses the kernel counts.
    #[must_use]
    pub fn counted(counting: Counting) -> Recorder {
        let log = Log { counting: Some(counting), ..Log::default() };
        Recorder { clock: Ticks::start(), log: Mutex::new(log), own_pages: true }
    }

    /// Whether each tensor has its pages to itself, because the kernel counts.
    #[must_use]
    pub fn own_pages(&self) -> bool {
        self.own_pages
    }

    /// Bytes to allocate for a tensor of this size: whole pages, so that no other shares them, while the kernel counts.
    #[must_use]
    pub fn room_for(&self, size_bytes: u64) -> u64 {
        if self.own_pages {
            page_ceil(size_bytes.max(1))
        } else {
            size_bytes
        }
    }

    /// The step is over: the kernel stops counting, and what is still alive gets its counts.
    pub fn stop(&self) {
        let mut log = self.log();
        let Some(mut counting) = log.counting.take() else { return };
        counting.stop();
        for (&addr, &index) in &log.live {
            counting.died(index, addr, log.buffers[index as usize].size_bytes);
        }
        log.counted = Some(counting);
    }

    /// The step is of no use: nothing is left of its counting.
    pub fn abandon(&self) {
        self.stop();
        let counted = self.log().counted.take();
        if let Some(counting) = counted {
            counting.finish(0).1.collapse();
        }
        // A thread that remembers the step may outlive it by long.
        *self.log() = Log::default();
    }

    fn log(&self) -> std::sync::MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An operation begins, with these buffers as inputs; returns the index of its execution. Inputs are noted before the
    /// kernel runs, because it may free one and allocate another buffer at its address.
    pub fn op_begins(&self, kernel: u32, inputs: &[Touch], memory: &Memory) -> u32 {
        let mut log = self.log();
        log.ops.push(RunOp { kernel, start_ticks: 0, end_ticks: 0 });
        let execution = last_index(log.ops.len());
        for touch in inputs {
            log.touch(execution, *touch, memory);
        }
        if let Some(counting) = &mut log.counting {
            counting.op_begins();
        }
        let now = self.clock.now();
        if let Some(op) = log.ops.last_mut() {
            (op.start_ticks, op.end_ticks) = (now, now);
        }
        execution
    }

    /// The execution ends, having written these buffers.
    pub fn op_ends(&self, execution: u32, outputs: &[Touch], memory: &Memory) {
        let now = self.clock.now();
        let mut log = self.log();
        if let Some(op) = log.ops.get_mut(execution as usize) {
            op.end_ticks = now.max(op.start_ticks);
        }
        for touch in outputs {
            log.touch(execution, *touch, memory);
        }
    }

    /// A block was allocated by the execution.
    pub fn born(&self, kernel: u32, execution: u32, addr: usize, size_bytes: u64) {
        let mut log = self.log();
        let ordinal = if size_bytes >= SLOT_MIN_BYTES {
            let next = log.ordinals.entry(kernel).or_insert(0);
            *next += 1;
            *next - 1
        } else {
            0
        };
        // Temporaries of an operation that follow each other are one buffer: they can live at one address, and never met.
        let idle = if size_bytes > SCRATCH_MAX_BYTES { log.idle.get_mut(&(execution, size_bytes)) } else { None };
        let index = match idle.and_then(Vec::pop) {
            Some(index) => log.revive(index, addr),
            None => log.add(addr, size_bytes, Origin::Step { op: execution, ordinal }),
        };
        if let Some(counting) = &mut log.counting {
            counting.born(index, addr, size_bytes);
        }
        log.live.insert(addr, index);
        log.live_bytes += size_bytes;
        log.peak_live_bytes = log.peak_live_bytes.max(log.live_bytes);
    }

    /// A block was freed; `running` names the execution inside which that happened.
    pub fn died(&self, addr: usize, running: Option<u32>) {
        let mut log = self.log();
        let Some(index) = log.live.remove(&addr) else { return };
        let Log { counting, buffers, .. } = &mut *log;
        if let Some(counting) = counting {
            counting.died(index, addr, buffers[index as usize].size_bytes);
        }
        let last = last_index(log.ops.len());
        let buffer = &mut log.buffers[index as usize];
        if let Origin::Step { op, .. } = buffer.origin {
            buffer.death_op = Some(last.max(op));
            buffer.temporary = Some(op) == running;
            if buffer.temporary {
                // Nobody tells what an operation does with its temporaries. Written once and read once is the least that
                // they are good for, and what the emulated slow tier charges.
                let bytes = buffer.size_bytes;
                log.accesses.extend([true, false].map(|write| LoggedAccess::new(index, op, write, bytes)));
                if bytes > SCRATCH_MAX_BYTES {
                    log.idle.entry((op, bytes)).or_default().push(index);
                }
            }
            log.live_bytes -= log.buffers[index as usize].size_bytes;
        } else if buffer.origin == Origin::Persistent {
            // It came from before the step but does not outlast it: a batch of input, or the value that an assignment
            // replaces. Its address means nothing in the next step.
            buffer.origin = Origin::External;
            log.persistent_bytes -= log.buffers[index as usize].size_bytes;
        }
    }

    /// Makes the trace of what was recorded so far, and forgets it.
    #[must_use]
    pub fn finish(&self, kernels: &Kernels, edges: &GraphEdges, about: Circumstances) -> Recording {
        let log = std::mem::take(&mut *self.log());
        let tick_ns = self.clock.tick_ns();
        let names: Vec<_> = log.ops.iter().map(|op| kernels.name(op.kernel)).collect();
        let predecessors = edges.predecessors(names.iter().map(|name| name.as_ref().map_or("", |name| &name.name)));
        let mut layer = 0;
        let mut marked = false;
        let ops = log
            .ops
            .iter()
            .zip(names)
            .zip(predecessors)
            .map(|((op, name), predecessors)| {
                let (name, kind) = name.map_or_else(Default::default, |name| (name.name, name.kind));
                let mark = kind == MARK_KIND;
                marked |= mark;
                let own_layer = layer;
                layer += u32::from(mark);
                let (start_ns, end_ns) = (in_ns(op.start_ticks, tick_ns), in_ns(op.end_ticks, tick_ns));
                Op { kernel: op.kernel, name, kind, layer: own_layer, start_ns, end_ns, predecessors }
            })
            .collect();
        let mut buffers = log.buffers;
        for logged in log.accesses {
            buffers[logged.buffer as usize].accesses.push(logged.access());
        }
        for buffer in &mut buffers {
            buffer.accesses.sort_by_key(|access| access.op);
        }
        let (counts, split, refusal) = match log.counted {
            Some(counting) => {
                let (counts, split, refusal) = counting.finish(buffers.len());
                (Some(counts), Some(split), refusal)
            }
            None => (None, None, None),
        };
        split.as_ref().map(Split::collapse);
        let trace = StepTrace {
            counts,
            tensorflow_version: about.tensorflow_version,
            step_number: about.step_number,
            intra_op_threads: about.intra_op_threads,
            inter_op_threads: about.inter_op_threads,
            layer_source: if marked { LayerSource::Marked } else { LayerSource::Inferred },
            ops,
            buffers,
        };
        let peak_live_bytes = log.peak_live_bytes + log.persistent_bytes;
        Recording { trace, addresses: log.addresses, peak_live_bytes, refusal }
    }
}

/// The operation that `add_layer` puts into the graph.
const MARK_KIND: &str = "SentinelAddLayer";

impl Log {
    fn add(&mut self, addr: usize, size_bytes: u64, origin: Origin) -> u32 {
        self.buffers.push(Buffer { size_bytes, origin, death_op: None, temporary: false, accesses: Vec::new() });
        self.addresses.push(addr);
        last_index(self.buffers.len())
    }

    /// The dead temporary lives again, at this address.
    fn revive(&mut self, index: u32, addr: usize) -> u32 {
        self.buffers[index as usize].death_op = None;
        self.buffers[index as usize].temporary = false;
        self.addresses[index as usize] = addr;
        index
    }

    fn touch(&mut self, op: u32, touch: Touch, memory: &Memory) {
        if touch.bytes == 0 {
            return;
        }
        let index = match self.live.get(&touch.addr) {
            Some(&index) => index,
            None => {
                let (size, origin) = match memory.size_of(touch.addr) {
                    Some(size) => (size, Origin::Persistent),
                    None => (touch.bytes, Origin::External),
                };
                if origin == Origin::Persistent {
                    self.persistent_bytes += size;
                }
                let index = self.add(touch.addr, size, origin);
                self.live.insert(touch.addr, index);
                index
            }
        };
        let buffer = &mut self.buffers[index as usize];
        let bytes = touch.bytes.min(buffer.size_bytes);
        // An asynchronous receive begins before the tensor it will hand on is born.
        let birth = match buffer.origin {
            Origin::Step { op, .. } => op,
            Origin::Persistent | Origin::External => 0,
        };
        self.accesses.push(LoggedAccess::new(index, op.max(birth), touch.write, bytes));
    }
}

/// Ticks as whole nanoseconds.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)] // times of a step
fn in_ns(ticks: u64, tick_ns: f64) -> u64 {
    (ticks as f64 * tick_ns) as u64
}

fn last_index(len: usize) -> u32 {
    u32::try_from(len.saturating_sub(1)).unwrap_or(u32::MAX)
}
