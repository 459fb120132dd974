//! Hotness histogram: after Lee et al., "MEMTIS: Efficient Memory Tiering with Dynamic Page Classification and Page Size
//! Determination", SOSP 2023. Sampled accesses are counted per page and halved now and then; a histogram over powers of two
//! gives the threshold above which the hottest pages just fill fast memory; those are promoted, the rest makes room.
//!
//! Simplified: counts are exact instead of sampled and per buffer; pages are not split or joined. Looks happen
//! `LOOKS_PER_STEP` times per all-fast step, and counts are halved once per step.

use super::LOOKS_PER_STEP;
use crate::online::{is_movable, Blocks, Decide, Online};
use crate::workload::to_f64;
use crate::{Workload, World};
use trace::Tier;

/// Bins of the histogram: powers of two of accesses.
const BINS: usize = 32;

/// The decision.
#[derive(Debug)]
pub struct Hotness {
    /// Life and accesses per byte, in whole passes over the buffer.
    counts: Vec<(u64, f64)>,
    since_look_ns: f64,
}

impl Hotness {
    fn bin(&self, buffer: u32, life: u64) -> usize {
        let (known, count) = self.counts[buffer as usize];
        let mut bin = 0;
        let mut edge = 0.25;
        while known == life && count >= edge && bin + 1 < BINS {
            bin += 1;
            edge *= 2.0;
        }
        bin
    }

    fn note(&mut self, world: &World, blocks: &Blocks) {
        for used in &world.workload.ops[world.op as usize].uses {
            let block = blocks.blocks[used.buffer as usize];
            let (life, count) = &mut self.counts[used.buffer as usize];
            if *life != block.life {
                (*life, *count) = (block.life, 0.0);
            }
            *count += to_f64(used.read_bytes + used.written_bytes) / to_f64(block.size_bytes).max(1.0);
        }
    }

    fn migrate(&mut self, world: &mut World, blocks: &Blocks) {
        let movable: Vec<(usize, u32)> = blocks
            .live
            .iter()
            .filter(|&&buffer| is_movable(world.workload, buffer))
            .map(|&buffer| (self.bin(buffer, blocks.blocks[buffer as usize].life), buffer))
            .collect();
        let mut bytes = [0_u64; BINS];
        for &(bin, buffer) in &movable {
            bytes[bin] += blocks.blocks[buffer as usize].size_bytes;
        }
        let mut threshold = BINS;
        let mut hot_bytes = 0;
        while threshold > 0 && hot_bytes + bytes[threshold - 1] <= world.setting.fast_budget_bytes() {
            threshold -= 1;
            hot_bytes += bytes[threshold];
        }
        world.retain(true, |_| false);
        world.retain(false, |_| false);
        let needed: u64 = movable
            .iter()
            .filter(|&&(bin, _)| bin >= threshold)
            .map(|&(_, buffer)| blocks.blocks[buffer as usize])
            .map(|block| block.size_bytes - block.fast_bytes)
            .sum();
        let mut room = world.room(Tier::FAST);
        let mut by_heat = movable;
        by_heat.sort_by_key(|&(bin, buffer)| (bin, buffer));
        for &(bin, buffer) in &by_heat {
            let fast_bytes = blocks.blocks[buffer as usize].fast_bytes;
            if bin < threshold && fast_bytes > 0 && room < needed {
                room += fast_bytes;
                blocks.ask(world, buffer, Tier::SLOW);
            }
        }
        for &(bin, buffer) in by_heat.iter().rev() {
            if bin >= threshold {
                blocks.ask(world, buffer, Tier::FAST);
            }
        }
    }
}

impl Decide for Hotness {
    fn birth_bytes(&mut self, world: &World, buffer: u32) -> u64 {
        world.workload.size_bytes(buffer)
    }

    fn look(&mut self, world: &mut World, blocks: &Blocks) {
        self.note(world, blocks);
        if world.op == 0 {
            for (_, count) in &mut self.counts {
                *count *= 0.5;
            }
        }
        self.since_look_ns += world.workload.ops[world.op as usize].base_ns;
        if self.since_look_ns >= world.workload.step_ns / LOOKS_PER_STEP {
            self.since_look_ns = 0.0;
            self.migrate(world, blocks);
        }
    }
}

/// The policy.
#[must_use]
pub fn hotness(workload: &Workload) -> Online<Hotness> {
    let counts = vec![(0, 0.0); workload.profile.buffers.len()];
    Online::new(workload, Hotness { counts, since_look_ns: 0.0 })
}
