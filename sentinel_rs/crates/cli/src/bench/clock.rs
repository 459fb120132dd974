//! CPU time, by which benches measure because other work shares the machine.

use std::hint::black_box;
use std::time::Duration;

/// Rounds of the calibration loop, each a dependent multiplication.
const CALIBRATION_ROUNDS: u64 = 200_000_000;

/// CPU time of a loop that depends on nothing but the core's speed.
pub fn calibrate() -> f64 {
    let before = cpu_seconds();
    let mut state = 1_u64;
    for round in 0..CALIBRATION_ROUNDS {
        state = (state ^ round).wrapping_mul(6_364_136_223_846_793_005);
    }
    black_box(state);
    cpu_seconds() - before
}

/// Time that this thread has spent on a core.
pub fn cpu_seconds() -> f64 {
    Duration::from_nanos(sys::process::thread_cpu_ns()).as_secs_f64()
}
