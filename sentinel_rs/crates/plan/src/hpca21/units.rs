//! Co-allocation of long-lived buffers: who shares pages with whom, and where.
//!
//! 1. Short-lived buffers share pages with each other: that is the pool, which is not here.
//! 2. Long-lived buffers that the same set of layers uses form a unit, the most accessed first.
//! 3. Buffers of different layer sets never share a page: a unit is whole pages.
//! 4. Long-lived and short-lived buffers never share a page: units begin on a page after the pool.
//!
//! Each unit has its own range of the arena, so that nothing but its own buffers is ever at its addresses.

use crate::pack::pack_ceil;
use crate::{Place, Unit, UnitHome};
use profile::{Class, Profile};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use trace::{page_ceil, Tier, PAGE_BYTES};

/// Units and who is in them.
pub(crate) struct Coallocation {
    /// Their birth tier is slow until the schedule says otherwise.
    pub(crate) units: Vec<Unit>,
    /// What the schedule needs of each unit.
    pub(crate) spans: Vec<Span>,
    /// By buffer index; `None` for buffers that are in no unit, and for persistent ones, whose address is not planned.
    pub(crate) places: Vec<Option<Place>>,
}

/// When a unit exists and is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    /// Whole pages.
    pub(crate) len_bytes: u64,
    /// Ascending layers of use; for a unit of the arena the first is that of its birth.
    pub(crate) layers: Vec<u32>,
    /// Accesses per step.
    pub(crate) accesses: u64,
    /// Exists across steps.
    pub(crate) persistent: bool,
    /// Last layer in which it is alive.
    pub(crate) death_layer: u32,
}

/// Units in the order of their layer sets, then persistent buffers of at least a page, each a unit of its own.
///
/// The published rules pack persistent tensors as well; here each already has its address, so each moves alone, and
/// those below a page stay where they are.
pub(crate) fn coallocate(profile: &Profile, arena_begin: u64) -> Coallocation {
    let mut groups: BTreeMap<&[u32], Vec<usize>> = BTreeMap::new();
    let mut persistent = Vec::new();
    for (index, buffer) in profile.buffers.iter().enumerate() {
        match buffer.class {
            Class::LongLived => groups.entry(&buffer.layers).or_default().push(index),
            Class::Persistent if buffer.size_bytes >= PAGE_BYTES => persistent.push(index),
            _ => {}
        }
    }
    let mut result = Coallocation { units: Vec::new(), spans: Vec::new(), places: vec![None; profile.buffers.len()] };
    let mut begin = arena_begin;
    for (layers, mut members) in groups {
        members.sort_by_key(|&index| (Reverse(profile.buffers[index].access_count()), index));
        let unit = u32::try_from(result.units.len()).unwrap_or(u32::MAX);
        let mut end = begin;
        let mut accesses = 0;
        let mut death_op = 0;
        for index in members {
            let buffer = &profile.buffers[index];
            result.places[index] = Some(Place::Units { first: unit, count: 1, offset_bytes: end });
            end += pack_ceil(buffer.size_bytes);
            accesses += buffer.access_count();
            death_op = death_op.max(buffer.death_op);
        }
        let len_bytes = page_ceil(end - begin);
        let death_layer = profile.ops[death_op as usize].layer;
        let span = Span { len_bytes, layers: layers.to_vec(), accesses, persistent: false, death_layer };
        result.push(UnitHome::Arena { offset_bytes: begin }, span);
        begin += len_bytes;
    }
    let last_layer = u32::try_from(profile.layers.len()).unwrap_or(u32::MAX).saturating_sub(1);
    for index in persistent {
        let facts = &profile.buffers[index];
        let span = Span {
            len_bytes: page_ceil(facts.size_bytes),
            layers: facts.layers.clone(),
            accesses: facts.access_count(),
            persistent: true,
            death_layer: last_layer,
        };
        let buffer = u32::try_from(index).unwrap_or(u32::MAX);
        result.push(UnitHome::Persistent { buffer, offset_bytes: 0 }, span);
    }
    result
}

impl Coallocation {
    fn push(&mut self, home: UnitHome, span: Span) {
        let layers = span.layers.clone();
        let (len_bytes, accesses) = (span.len_bytes, span.accesses);
        self.units.push(Unit { home, len_bytes, birth_tier: Tier::SLOW, layers, accesses });
        self.spans.push(span);
    }
}
