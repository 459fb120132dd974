//! First touch: Linux's default memory policy (`MPOL_DEFAULT`, Documentation/admin-guide/mm/numa_memory_policy.rst): a page
//! comes from the local node while that has room, then from the next.
//!
//! Simplified: a freed buffer's pages go back to the system at once, as large blocks of malloc do, so every buffer is
//! touched afresh. Persistent buffers are touched first, in the order of their first use. Pages never move.

use crate::online::{Blocks, Decide, Online};
use crate::{Workload, World};

/// The decision.
#[derive(Debug)]
pub struct FirstTouch;

impl Decide for FirstTouch {
    fn birth_bytes(&mut self, world: &World, buffer: u32) -> u64 {
        world.workload.size_bytes(buffer)
    }

    fn look(&mut self, _world: &mut World, _blocks: &Blocks) {}
}

/// The policy.
#[must_use]
pub fn first_touch(workload: &Workload) -> Online<FirstTouch> {
    Online::new(workload, FirstTouch)
}
