//! The live runtime: TensorFlow's allocations, operations and steps in, planned addresses and moves out.
//!
//! From bottom to top: `options`, `current` and `busy` stand alone; `kernels`, `graph` and `stats` count and name; `memory` owns
//! addresses, `limit` says how many bytes of it there may be, `waits` who waited for movers, `mover` moves pages, `recorder`
//! watches one step, `profiler` has the kernel count its accesses; `managed` follows a plan, `active` is the step
//! that does or is recorded, `order` the order of its operations, `buckets` and `steps` decide
//! which step does what, `planning` makes plans, `timing` and `feedback` say when one has to be made again; `runtime` is what
//! TensorFlow's threads enter, `setup` makes it; `handover` leaves its statistics to whoever started the process.
//! Nothing here dereferences an address; system calls are behind `sys`, TensorFlow is behind `ffi`.

#![forbid(unsafe_code)]

mod active;
mod blocks;
mod buckets;
mod busy;
pub mod current;
mod feedback;
pub mod graph;
pub mod handover;
pub mod kernels;
pub mod limit;
mod managed;
pub mod memory;
mod mover;
pub mod options;
pub mod order;
pub mod placement;
mod planning;
mod profiled;
pub mod profiler;
pub mod recorder;
pub mod runtime;
pub mod setup;
pub mod stats;
pub mod steps;
#[cfg(test)]
mod testing;
pub mod tiers;
mod timing;
pub mod waits;
