//! Memory Mode: DRAM as a direct-mapped, write-back cache of the slow memory, managed by hardware (Intel Optane DC Persistent
//! Memory, Memory Mode; Izraelevitz et al., "Basic Performance Measurements of the Intel Optane DC Persistent Memory
//! Module", arXiv 1903.05714).
//!
//! Simplified: lines of 4 KiB instead of 64 B, since ops stream whole buffers (longer ones for steps of more than 64 GiB or that touch
//! more than 256 GiB, so that memory and time are bounded); physical addresses are those of a best-fit
//! heap, which is kinder than the scattered frames of a long-running system. A miss costs what slow memory costs; filling
//! a line on a write and writing back a dirty one cost the op slow reads and writes.

use crate::engine::{Policy, Ready};
use crate::workload::to_f64;
use crate::world::{Job, SimError, Start, World};
use crate::Workload;
use place::Heap;
use plan::Demand;
use profile::{BufferFacts, Class};
use trace::{page_ceil, Tier, PAGE_BYTES};

/// Lines that the address space of a step has at most, and times that a step touches one.
const LINES_MAX: u64 = 1 << 24;
const TOUCHES_MAX: u64 = 1 << 26;

/// One line: which line of the address space it holds, plus one, and whether it was written.
#[derive(Clone, Copy, Debug, Default)]
struct Line {
    tag: u64,
    dirty: bool,
}

/// The policy.
#[derive(Debug)]
pub struct MemoryMode {
    line_bytes: u64,
    lines: Vec<Line>,
    heap: Heap,
    offsets: Vec<u64>,
    settled: bool,
}

/// Bytes that one op's accesses moved.
#[derive(Clone, Copy, Debug, Default)]
struct Traffic {
    hit_read: f64,
    hit_written: f64,
    miss_read: f64,
    written_back: f64,
}

impl MemoryMode {
    /// A cache of `fast_budget_bytes`.
    ///
    /// # Errors
    /// When that is less than a line.
    pub fn new(workload: &Workload, fast_budget_bytes: u64) -> Result<MemoryMode, SimError> {
        let whole: u64 = owned(workload).map(|facts| page_ceil(facts.size_bytes)).sum();
        let touched: u64 = owned(workload).map(|facts| facts.read_bytes + facts.written_bytes).sum();
        let mut line_bytes = PAGE_BYTES;
        while whole / line_bytes > LINES_MAX || touched / line_bytes > TOUCHES_MAX {
            line_bytes *= 2;
        }
        let address_space = whole + PAGE_BYTES;
        // With a line for all that has an address nothing is ever evicted; further ones would stay empty.
        let lines = (fast_budget_bytes / line_bytes).min(address_space.div_ceil(line_bytes));
        if lines == 0 {
            return Err(SimError::Infeasible { needed_bytes: line_bytes });
        }
        Ok(MemoryMode {
            line_bytes,
            lines: vec![Line::default(); usize::try_from(lines).unwrap_or(usize::MAX)],
            heap: Heap::new(address_space),
            offsets: vec![0; workload.profile.buffers.len()],
            settled: false,
        })
    }

    fn bear(&mut self, workload: &Workload, buffer: u32) -> Result<(), SimError> {
        let size = page_ceil(workload.size_bytes(buffer).max(1));
        let offset = self.heap.alloc(size, PAGE_BYTES);
        self.offsets[buffer as usize] =
            offset.ok_or_else(|| SimError::Malformed(format!("no address for buffer {buffer}")))?;
        Ok(())
    }

    /// Touches the first `bytes` of a buffer, line by line.
    fn touch(&mut self, buffer: u32, bytes: u64, write: bool, traffic: &mut Traffic) {
        let first = self.offsets[buffer as usize] / self.line_bytes;
        let lines = self.lines.len() as u64;
        let mut left = bytes;
        let mut address = first;
        while left > 0 {
            let piece = left.min(self.line_bytes);
            let line = &mut self.lines[usize::try_from(address % lines).unwrap_or(0)];
            if line.tag != address + 1 {
                traffic.written_back += if line.dirty { to_f64(self.line_bytes) } else { 0.0 };
                traffic.miss_read += to_f64(piece);
                *line = Line { tag: address + 1, dirty: false };
                traffic.hit_written += if write { to_f64(piece) } else { 0.0 };
            } else if write {
                traffic.hit_written += to_f64(piece);
            } else {
                traffic.hit_read += to_f64(piece);
            }
            line.dirty |= write;
            left -= piece;
            address += 1;
        }
    }
}

/// Buffers that get an address.
fn owned(workload: &Workload) -> impl Iterator<Item = &BufferFacts> {
    workload.profile.buffers.iter().filter(|facts| facts.class != Class::External)
}

impl Policy for MemoryMode {
    fn before_op(&mut self, world: &mut World, _last_call: bool) -> Result<Ready, SimError> {
        let workload = world.workload;
        if !self.settled {
            self.settled = true;
            world.fill(Tier::FAST, self.lines.len() as u64 * self.line_bytes)?;
            for buffer in workload.persistent() {
                self.bear(workload, buffer)?;
            }
        }
        for &buffer in &workload.ops[world.op as usize].births {
            self.bear(workload, buffer)?;
        }
        Ok(Ready::Yes)
    }

    fn demand(&mut self, world: &World) -> Result<Demand, SimError> {
        let op = world.op as usize;
        let mut traffic = Traffic::default();
        for used in &world.workload.ops[op].uses {
            let size = world.workload.size_bytes(used.buffer);
            for (mut bytes, write) in [(used.read_bytes, false), (used.written_bytes, true)] {
                // An op that reads a buffer twice walks over it twice.
                while bytes > 0 {
                    let pass = bytes.min(size.max(1));
                    self.touch(used.buffer, pass, write, &mut traffic);
                    bytes -= pass;
                }
            }
        }
        let mut demand = world.costs.no_demand();
        world.costs.add(&mut demand, op, Tier::FAST, traffic.hit_read, traffic.hit_written);
        world.costs.add(&mut demand, op, Tier::SLOW, traffic.miss_read, traffic.written_back);
        Ok(demand)
    }

    fn after_op(&mut self, world: &mut World) -> Result<(), SimError> {
        for &buffer in &world.workload.ops[world.op as usize].deaths {
            self.heap.free(self.offsets[buffer as usize]);
        }
        Ok(())
    }

    fn start(&mut self, _world: &mut World, _job: &Job) -> Result<Start, SimError> {
        Ok(Start::Drop)
    }

    fn arrived(&mut self, _world: &mut World, _job: &Job) -> Result<bool, SimError> {
        Ok(false)
    }
}
