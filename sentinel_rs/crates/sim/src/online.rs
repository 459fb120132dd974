//! What operating systems do: place a buffer when it appears, look at accesses now and then, move without a plan.

use crate::engine::{Policy, Ready};
use crate::workload::{to_f64, Workload};
use crate::world::{Job, SimError, Start, World};
use plan::Demand;
use profile::Class;
use trace::{Tier, PAGE_BYTES};

/// Where the bytes of each buffer are. Two tiers: the fastest and the one below.
#[derive(Clone, Debug, Default)]
pub struct Blocks {
    /// By buffer.
    pub blocks: Vec<Block>,
    /// Live buffers, the oldest first.
    pub live: Vec<u32>,
}

/// One buffer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Block {
    /// Its size.
    pub size_bytes: u64,
    /// Bytes of it in the fastest tier.
    pub fast_bytes: u64,
    /// Which life this is; a life begins at an odd number and ends at an even one.
    pub life: u64,
    /// Bytes travelling, and where to.
    pub moving: Option<(Tier, u64)>,
}

impl Block {
    /// Whether it exists now.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.life % 2 == 1
    }
}

/// What tells one such policy from another.
pub trait Decide {
    /// Bytes of a newborn that should be fast, at most its size. What finds no room is slow.
    fn birth_bytes(&mut self, world: &World, buffer: u32) -> u64;

    /// An op begins and its newborn are placed; moves may be issued with [`Blocks::ask`].
    fn look(&mut self, world: &mut World, blocks: &Blocks);
}

impl Blocks {
    /// Asks for a buffer to move as a whole.
    pub fn ask(&self, world: &mut World, buffer: u32, to: Tier) {
        let block = self.blocks[buffer as usize];
        let from = if to == Tier::FAST { Tier::SLOW } else { Tier::FAST };
        let len_bytes = if to == Tier::FAST { block.size_bytes - block.fast_bytes } else { block.fast_bytes };
        if len_bytes > 0 && block.is_live() {
            world.issue(Job { thing: buffer, life: block.life, len_bytes, from, to, due: u64::MAX });
        }
    }
}

/// A policy made of decisions as one goes.
#[derive(Debug)]
pub struct Online<D> {
    decide: D,
    blocks: Blocks,
    first_touched: Vec<u32>,
}

impl<D: Decide> Online<D> {
    /// The policy for this workload.
    #[must_use]
    pub fn new(workload: &Workload, decide: D) -> Online<D> {
        let block = |facts: &profile::BufferFacts| Block { size_bytes: facts.size_bytes, ..Block::default() };
        let blocks = Blocks { blocks: workload.profile.buffers.iter().map(block).collect(), live: vec![] };
        let mut first_touched: Vec<u32> = workload.persistent().collect();
        let first_use = |&buffer: &u32| {
            let uses = &workload.profile.buffers[buffer as usize].uses;
            (uses.first().map_or(u32::MAX, |used| used.op), buffer)
        };
        first_touched.sort_by_key(first_use);
        Online { decide, blocks, first_touched }
    }

    fn bear(&mut self, world: &mut World, buffer: u32) -> Result<(), SimError> {
        let size_bytes = world.workload.size_bytes(buffer);
        let wanted = self.decide.birth_bytes(world, buffer).min(size_bytes);
        let room = world.room(Tier::FAST);
        let fast_bytes = if wanted <= room { wanted } else { room / PAGE_BYTES * PAGE_BYTES };
        world.sums.overflow_bytes += wanted - fast_bytes;
        world.fill(Tier::FAST, fast_bytes)?;
        world.fill(Tier::SLOW, size_bytes - fast_bytes)?;
        let life = self.blocks.blocks[buffer as usize].life + 1;
        self.blocks.blocks[buffer as usize] = Block { size_bytes, fast_bytes, life, moving: None };
        self.blocks.live.push(buffer);
        Ok(())
    }
}

impl<D: Decide> Policy for Online<D> {
    fn before_op(&mut self, world: &mut World, _last_call: bool) -> Result<Ready, SimError> {
        if world.now() == 0 {
            for buffer in std::mem::take(&mut self.first_touched) {
                self.bear(world, buffer)?;
            }
        }
        let workload = world.workload;
        for &buffer in &workload.ops[world.op as usize].births {
            self.bear(world, buffer)?;
        }
        self.decide.look(world, &self.blocks);
        Ok(Ready::Yes)
    }

    fn demand(&mut self, world: &World) -> Result<Demand, SimError> {
        let op = world.op as usize;
        let mut demand = world.costs.no_demand();
        for used in &world.workload.ops[op].uses {
            let block = self.blocks.blocks[used.buffer as usize];
            if !block.is_live() {
                return Err(SimError::Malformed(format!("op {op} uses buffer {}, which is nowhere", used.buffer)));
            }
            let fast = to_f64(block.fast_bytes) / to_f64(block.size_bytes).max(1.0);
            for (tier, share) in [(Tier::FAST, fast), (Tier::SLOW, 1.0 - fast)] {
                let (read, written) = (to_f64(used.read_bytes) * share, to_f64(used.written_bytes) * share);
                world.costs.add(&mut demand, op, tier, read, written);
            }
        }
        Ok(demand)
    }

    fn after_op(&mut self, world: &mut World) -> Result<(), SimError> {
        for &buffer in &world.workload.ops[world.op as usize].deaths {
            let block = &mut self.blocks.blocks[buffer as usize];
            world.drain(Tier::FAST, block.fast_bytes)?;
            world.drain(Tier::SLOW, block.size_bytes - block.fast_bytes)?;
            if let Some((to, bytes)) = block.moving.take() {
                world.cancel(|job| job.thing == buffer);
                world.drain(to, bytes)?;
            }
            block.life += 1;
        }
        let Blocks { blocks, live } = &mut self.blocks;
        if !world.workload.ops[world.op as usize].deaths.is_empty() {
            live.retain(|&buffer| blocks[buffer as usize].is_live());
        }
        Ok(())
    }

    fn start(&mut self, world: &mut World, job: &Job) -> Result<Start, SimError> {
        let block = self.blocks.blocks[job.thing as usize];
        let there = if job.to == Tier::FAST { block.size_bytes - block.fast_bytes } else { block.fast_bytes };
        if block.life != job.life || block.moving.is_some() || there != job.len_bytes {
            return Ok(Start::Drop);
        }
        if is_newborn(world, job.thing) {
            // As in every schedule, nothing moves beside the op that makes it.
            return Ok(Start::Wait);
        }
        if job.len_bytes > world.room(job.to) {
            // Evictions under way may make the room; nothing else will.
            let hope = world.pending(false).next().is_some();
            return Ok(if hope { Start::Wait } else { Start::Drop });
        }
        world.fill(job.to, job.len_bytes)?;
        self.blocks.blocks[job.thing as usize].moving = Some((job.to, job.len_bytes));
        Ok(Start::Go(job.from))
    }

    fn arrived(&mut self, world: &mut World, job: &Job) -> Result<bool, SimError> {
        world.drain(job.from, job.len_bytes)?;
        let block = &mut self.blocks.blocks[job.thing as usize];
        block.fast_bytes = if job.to == Tier::FAST { block.size_bytes } else { 0 };
        block.moving = None;
        Ok(true)
    }
}

/// Whether the op that runs has made the buffer.
fn is_newborn(world: &World, buffer: u32) -> bool {
    let facts = &world.workload.profile.buffers[buffer as usize];
    facts.class != Class::Persistent && facts.birth_op == world.op
}

/// Buffers that are worth a look: a page or more.
#[must_use]
pub fn is_movable(workload: &Workload, buffer: u32) -> bool {
    let facts = &workload.profile.buffers[buffer as usize];
    facts.size_bytes >= PAGE_BYTES && facts.class != Class::External
}
