//! IAL, "improved active list": Yan et al., "Nimble Page Management for Tiered Memory Systems", ASPLOS 2019, as Ren et al.,
//! HPCA 2021, compare with it. Two lists in the order of arrival; what is referenced again while inactive becomes active,
//! what is not referenced while active becomes inactive; active pages in slow memory are promoted, the oldest inactive
//! ones in fast memory make room.
//!
//! Simplified: all pages of a buffer are referenced together, so lists hold buffers; the lists are scanned
//! `LOOKS_PER_STEP` times per all-fast step, and a scan asks for no more than can be moved until the next one.

use super::LOOKS_PER_STEP;
use crate::online::{is_movable, Blocks, Decide, Online};
use crate::workload::to_f64;
use crate::{Workload, World};
use std::cmp::Reverse;
use trace::Tier;

/// What is known of one buffer.
#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    life: u64,
    active: bool,
    referenced: bool,
    /// When it came to its list.
    arrival: u64,
}

/// The decision.
#[derive(Debug)]
pub struct Ial {
    entries: Vec<Entry>,
    arrivals: u64,
    since_scan_ns: f64,
}

impl Ial {
    fn note(&mut self, world: &World, blocks: &Blocks) {
        for used in &world.workload.ops[world.op as usize].uses {
            let entry = &mut self.entries[used.buffer as usize];
            let life = blocks.blocks[used.buffer as usize].life;
            if entry.life != life {
                self.arrivals += 1;
                *entry = Entry { life, active: false, referenced: false, arrival: self.arrivals };
            } else if entry.referenced && !entry.active {
                // Referenced twice while inactive.
                self.arrivals += 1;
                (entry.active, entry.arrival) = (true, self.arrivals);
            }
            entry.referenced = true;
        }
    }

    fn scan(&mut self, world: &mut World, blocks: &Blocks, period_ns: f64) {
        let mut hot = Vec::new();
        let mut cold = Vec::new();
        for &buffer in blocks.live.iter().filter(|&&buffer| is_movable(world.workload, buffer)) {
            let block = blocks.blocks[buffer as usize];
            let entry = &mut self.entries[buffer as usize];
            if entry.active && !entry.referenced {
                self.arrivals += 1;
                (entry.active, entry.arrival) = (false, self.arrivals);
            }
            entry.referenced = false;
            if entry.active && block.fast_bytes < block.size_bytes {
                hot.push((Reverse(entry.arrival), buffer));
            } else if !entry.active && block.fast_bytes > 0 {
                cold.push((entry.arrival, buffer));
            }
        }
        hot.sort_unstable();
        cold.sort_unstable();
        let mut can_move = world.setting.promote_rate.min(world.setting.demote_rate) * period_ns;
        let mut room = to_f64(world.room(Tier::FAST));
        let mut cold = cold.into_iter();
        world.retain(true, |_| false);
        world.retain(false, |_| false);
        for (_, buffer) in hot {
            let block = blocks.blocks[buffer as usize];
            let bytes = to_f64(block.size_bytes - block.fast_bytes);
            if can_move <= 0.0 {
                break;
            }
            while room < bytes {
                let Some((_, victim)) = cold.next() else { return };
                room += to_f64(blocks.blocks[victim as usize].fast_bytes);
                blocks.ask(world, victim, Tier::SLOW);
            }
            room -= bytes;
            can_move -= bytes;
            blocks.ask(world, buffer, Tier::FAST);
        }
    }
}

impl Decide for Ial {
    fn birth_bytes(&mut self, world: &World, buffer: u32) -> u64 {
        world.workload.size_bytes(buffer)
    }

    fn look(&mut self, world: &mut World, blocks: &Blocks) {
        self.note(world, blocks);
        let period_ns = world.workload.step_ns / LOOKS_PER_STEP;
        self.since_scan_ns += world.workload.ops[world.op as usize].base_ns;
        if self.since_scan_ns >= period_ns {
            self.since_scan_ns = 0.0;
            self.scan(world, blocks, period_ns);
        }
    }
}

/// The policy.
#[must_use]
pub fn ial(workload: &Workload) -> Online<Ial> {
    let entries = vec![Entry::default(); workload.profile.buffers.len()];
    Online::new(workload, Ial { entries, arrivals: 0, since_scan_ns: 0.0 })
}
