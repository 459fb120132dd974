//! The vocabulary of Sentinel and the trace file.
//!
//! A [`StepTrace`] is what the live runtime observed during one training step, and all that the later stages know
//! about it. This crate may use nothing of the other stages; it must not know how a step is planned or run.

#![forbid(unsafe_code)]

mod counts;
mod file;
mod step;
mod wire;

pub use counts::{pages_of, CountMode, PageCount, PageCounts};
pub use file::{from_bytes, read, to_bytes, write, Defect, TraceError};
pub use step::{Access, Buffer, LayerSource, Op, Origin, StepTrace, Violation};

/// The generated messages of `tensorflow/core/protobuf/sentinel.proto`.
#[allow(missing_docs, clippy::all, clippy::pedantic, clippy::undocumented_unsafe_blocks)]
pub mod proto {
    include!(concat!(env!("OUT_DIR"), "/proto/mod.rs"));
}

/// Bytes in a page: the unit in which memory changes its tier.
pub const PAGE_BYTES: u64 = 4096;

/// Smallest allocation that gets a slot of its own in a plan; smaller ones share the heap of small blocks.
pub const SLOT_MIN_BYTES: u64 = 4096;

/// `bytes` rounded up to whole pages.
#[must_use]
pub const fn page_ceil(bytes: u64) -> u64 {
    bytes.div_ceil(PAGE_BYTES) * PAGE_BYTES
}

/// A memory tier by rank: 0 is the fastest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tier(pub u8);

impl Tier {
    /// The fastest tier.
    pub const FAST: Tier = Tier(0);
    /// The tier below the fastest.
    pub const SLOW: Tier = Tier(1);
}

impl std::fmt::Display for Tier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {
            Tier::FAST => f.write_str("fast"),
            Tier::SLOW => f.write_str("slow"),
            Tier(rank) => write!(f, "tier{rank}"),
        }
    }
}
