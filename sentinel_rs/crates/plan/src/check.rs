//! What a plan promises, worked out from the plan alone, so that tests and tools can hold it to that.

use crate::{ArenaUse, Move, Place, Plan, UnitHome};
use profile::{BufferFacts, Profile, SlotKey};
use std::collections::HashMap;
use trace::Tier;

impl Plan {
    /// Per layer, the fast bytes that the plan answers for: the pool's share of the layer's interval, and each unit from
    /// its birth in fast memory or the issue of its promotion to the layer at which its eviction is due, or its death.
    #[must_use]
    pub fn fast_bytes_by_layer(&self, profile: &Profile) -> Vec<u64> {
        let mut bytes = vec![0; self.layer_first_op.len()];
        for interval in &self.intervals {
            for layer in interval.first_layer..=interval.last_layer {
                bytes[layer as usize] += interval.pool_bytes;
            }
        }
        let deaths = self.death_layers(profile);
        let mut moves: Vec<Vec<&Move>> = vec![Vec::new(); self.units.len()];
        for step in self.intervals.iter().flat_map(|interval| &interval.moves) {
            moves[step.unit as usize].push(step);
        }
        for (index, unit) in self.units.iter().enumerate() {
            let (first, last) = match unit.home {
                UnitHome::Arena { .. } => (unit.layers.first().copied().unwrap_or(0), deaths[index]),
                UnitHome::Persistent { .. } => (0, u32::try_from(bytes.len()).unwrap_or(u32::MAX) - 1),
            };
            // An eviction that is due in the next step leaves its bytes in fast memory when the step begins.
            let leaving = |step: &&Move| step.to != Tier::FAST && step.due_layer <= step.issue_layer;
            let mut fast = unit.birth_tier == Tier::FAST || moves[index].iter().any(leaving);
            for layer in first..=last {
                let leaves = moves[index].iter().any(|step| step.to != Tier::FAST && step.due_layer == layer);
                let comes = moves[index].iter().any(|step| step.to == Tier::FAST && step.issue_layer == layer);
                fast = (fast && !leaves) || comes;
                bytes[layer as usize] += if fast { unit.len_bytes } else { 0 };
            }
        }
        bytes
    }

    /// Last layer in which something in each unit is alive.
    fn death_layers(&self, profile: &Profile) -> Vec<u32> {
        let buffers = by_key(profile);
        let mut deaths = vec![0; self.units.len()];
        for slot in &self.slots {
            if let (Place::Units { first, count, .. }, Some(buffer)) = (slot.place, buffers.get(&slot.key)) {
                for death in &mut deaths[first as usize..(first + count) as usize] {
                    *death = profile.ops[buffer.death_op as usize].layer.max(*death);
                }
            }
        }
        deaths
    }

    /// What lies in the arena and when, as the profiled step had it: one use per slot in the pool or in a unit.
    #[must_use]
    pub fn arena_uses(&self, profile: &Profile) -> Vec<ArenaUse> {
        let buffers = by_key(profile);
        let mut uses = Vec::new();
        for slot in &self.slots {
            let (Place::Pool { offset_bytes } | Place::Units { offset_bytes, .. }) = slot.place else {
                continue;
            };
            let Some(buffer) = buffers.get(&slot.key) else { continue };
            uses.push(ArenaUse {
                offset_bytes,
                len_bytes: slot.size_bytes,
                first_op: buffer.birth_op,
                last_op: buffer.death_op,
            });
        }
        uses
    }

    /// Bytes that the plan moves in one step: to fast memory, and out of it.
    #[must_use]
    pub fn moved_bytes(&self) -> (u64, u64) {
        let mut moved = (0, 0);
        for step in self.intervals.iter().flat_map(|interval| &interval.moves) {
            let len_bytes = self.units[step.unit as usize].len_bytes;
            if step.to == Tier::FAST {
                moved.0 += len_bytes;
            } else {
                moved.1 += len_bytes;
            }
        }
        moved
    }
}

fn by_key(profile: &Profile) -> HashMap<SlotKey, &BufferFacts> {
    profile.buffers.iter().filter_map(|buffer| buffer.key.map(|key| (key, buffer))).collect()
}
