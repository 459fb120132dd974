//! A plan as addresses, and the numbers that keep it honest: heaps, claims, budget, page records, slots.
//!
//! Everything here is arithmetic on addresses; nothing is dereferenced and no system call is made. The world that really
//! holds memory is behind [`Tiers`]. May use the trace's vocabulary and the plan; must not know TensorFlow.

#![forbid(unsafe_code)]

mod arena;
mod bin;
mod budget;
mod claims;
mod heap;
mod pages;
mod pool;
mod seats;
mod tiers;
mod units;

pub use arena::{Arena, Ground, Taken};
pub use budget::Budget;
pub use claims::{ClaimMap, GRANULE_BYTES};
pub use heap::Heap;
pub use pages::PageTiers;
pub use tiers::{Located, Moved, Refusals, TierError, Tiers};
pub use units::{Entered, MoveStart, MoveTicket, UnitState};
