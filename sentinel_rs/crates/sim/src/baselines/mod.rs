//! Policies to compare with, on equal terms: the same step, costs, budget and migration speed.
//!
//! Each file says where its policy comes from and what was simplified. Knobs that a source leaves open were chosen once,
//! before any result was seen, and are constants of the file.

mod first_touch;
mod hotness;
mod ial;
mod interleave;
mod layer_prefetch;
mod memory_mode;
mod static_optimum;

pub use first_touch::first_touch;
pub use hotness::hotness;
pub use ial::ial;
pub use interleave::interleave;
pub use layer_prefetch::layer_prefetch;
pub use memory_mode::MemoryMode;
pub use static_optimum::static_optimum;

/// How often in an all-fast step the policies that watch accesses look at what they have seen. Their sources name periods
/// of seconds on other machines; a step of a large model is seconds long.
const LOOKS_PER_STEP: f64 = 16.0;
