//! Weighted interleave: Linux 6.9's `MPOL_WEIGHTED_INTERLEAVE`, pages spread over nodes in proportion to their bandwidth
//! (Documentation/ABI/testing/sysfs-kernel-mm-mempolicy-weighted-interleave).
//!
//! Simplified: the weight is exact instead of a ratio of small integers, and the order of pages plays no part: of every
//! buffer the same share is fast, while there is room.

use crate::online::{Blocks, Decide, Online};
use crate::workload::to_f64;
use crate::{Costs, Workload, World};

/// The decision.
#[derive(Debug)]
pub struct Interleave {
    fast_share: f64,
}

impl Decide for Interleave {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // a share of a size
    fn birth_bytes(&mut self, world: &World, buffer: u32) -> u64 {
        (to_f64(world.workload.size_bytes(buffer)) * self.fast_share) as u64
    }

    fn look(&mut self, _world: &mut World, _blocks: &Blocks) {}
}

/// The policy, with weights from the tiers' read bandwidth.
#[must_use]
pub fn interleave(workload: &Workload, costs: &Costs) -> Online<Interleave> {
    let bandwidth = |rank: usize| 1.0 / costs.tiers[rank].busy_read_ns;
    Online::new(workload, Interleave { fast_share: bandwidth(0) / (bandwidth(0) + bandwidth(1)) })
}
