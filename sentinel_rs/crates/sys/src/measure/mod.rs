//! Measures memory: bandwidth, latency, and how fast pages move between nodes or to swap.
//!
//! Every measurement works on a mapping of its own, which is gone afterwards. Results are the best of several passes: other
//! programs can only make memory look slower than it is.

mod mapping;
mod moving;
mod streaming;
mod swapping;

pub use moving::{move_speed, MoveSpeed};
pub use streaming::{bandwidth, latency_ns, Bandwidth};
pub use swapping::{swap_speed, SwapSpeed};

use std::time::Duration;

/// 10^9 bytes per second; bytes and nanoseconds cancel out to it.
#[allow(clippy::cast_precision_loss)] // a rate; exact to 2^53 bytes
fn gbps(bytes: usize, elapsed: Duration) -> f64 {
    bytes as f64 / elapsed.as_nanos().max(1) as f64
}

/// Restricts the calling thread to one CPU. A refusal leaves it free, which makes a measurement noisier and not wrong.
fn pin(cpu: u32) {
    let cpu = cpu as usize;
    if cpu >= 8 * size_of::<libc::cpu_set_t>() {
        return;
    }
    // SAFETY: all zeroes is an empty set of CPUs; `cpu` is within the set, and the set lives through the call.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set);
    }
}

/// CPUs that this thread may run on, ascending; empty when the system does not say.
#[must_use]
pub fn allowed_cpus() -> Vec<u32> {
    // SAFETY: all zeroes is an empty set of CPUs, which the call fills.
    let set = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        if libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set) != 0 {
            return Vec::new();
        }
        set
    };
    let bits = 0..8 * size_of::<libc::cpu_set_t>();
    // SAFETY: the numbers are within the set.
    let allowed = bits.filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &set) });
    allowed.filter_map(|cpu| u32::try_from(cpu).ok()).collect()
}
