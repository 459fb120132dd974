//! CPU time, by which benches measure because other work shares the machine.

use std::hint::black_box;
use std::time::Duration;

use anyhow::{anyhow, Context};

/// Rounds of the calibration loop, each a dependent multiplication.
const CALIBRATION_ROUNDS: u64 = 200_000_000;

/// CPU time of a loop that depends on nothing but the core's speed.
pub fn calibrate() -> anyhow::Result<f64> {
    let before = cpu_seconds()?;
    let mut state = 1_u64;
    for round in 0..CALIBRATION_ROUNDS {
        state = (state ^ round).wrapping_mul(6_364_136_223_846_793_005);
    }
    black_box(state);
    Ok(cpu_seconds()? - before)
}

/// Time that this thread has spent on a core.
pub fn cpu_seconds() -> anyhow::Result<f64> {
    const FILE: &str = "/proc/thread-self/schedstat";
    // The kernel adds a running thread's time up at ticks and when the thread yields; without this, milliseconds are lost.
    std::thread::yield_now();
    let text = std::fs::read_to_string(FILE).map_err(|error| anyhow!("cannot read {FILE}: {error}"))?;
    let nanoseconds: u64 =
        text.split(' ').next().unwrap_or_default().parse().with_context(|| format!("{FILE}: {text:?}"))?;
    Ok(Duration::from_nanos(nanoseconds).as_secs_f64())
}
