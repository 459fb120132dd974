//! `sentinel bench planning`: the time from a step's trace to its plan, by the size of the step, and the memory it takes.
//!
//! Every measurement is a process of its own, so that its peak memory is that of one plan.

use std::io::{self, Write};
use std::ops::RangeInclusive;
use std::process::Command;

use anyhow::{anyhow, bail, Context};
use plan::{Machine, Plan, Policy};
use profile::Profile;
use serde::{Deserialize, Serialize};

use super::clock::{calibrate, cpu_seconds};
use super::step::synthetic;
use crate::table::{Align, Table};

/// Of the synthetic steps.
const SEED: u64 = 1;

/// The policies that plan moves.
const POLICIES: [Policy; 2] = [Policy::Hpca21, Policy::Gap];

/// Plans are made this often and the fastest counts, but none is begun after so many seconds.
const ROUNDS: u32 = 5;
const ROUNDS_END_SECONDS: f64 = 10.0;

/// The size for which the summary has a key of its own.
const HEADLINE_BUFFERS: u32 = 100_000;

/// Share of the step's peak that is fast.
const FAST_SHARE: u64 = 5;

/// Numbers of buffers that a synthetic step may have; a step of the most takes gigabytes.
pub const BUFFERS: RangeInclusive<u32> = 1000..=10_000_000;

/// What is measured in one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case {
    /// The policy that plans.
    pub policy: Policy,
    /// Buffers of the step.
    pub buffers: u32,
}

/// One measurement.
#[derive(Serialize, Deserialize)]
struct Measured {
    /// CPU time of the fold, layer inference included.
    fold_cpu_seconds: f64,
    /// CPU time of the policy.
    plan_cpu_seconds: f64,
    /// Largest resident memory of the process, the trace included.
    peak_bytes: u64,
}

impl Measured {
    fn cpu_seconds(&self) -> f64 {
        self.fold_cpu_seconds + self.plan_cpu_seconds
    }
}

#[derive(Serialize)]
struct Row {
    policy: &'static str,
    buffers: u32,
    ops: u32,
    cpu_seconds: f64,
    #[serde(flatten)]
    measured: Measured,
}

/// The last line of the output. What has no policy in its name is the default policy's.
#[derive(Serialize)]
struct Summary {
    policy: &'static str,
    /// CPU time for 100,000 buffers; nothing when that size was not asked for.
    seconds_100k: Option<f64>,
    /// Peak memory of the same.
    peak_bytes_100k: Option<u64>,
    /// Exponent of time ÷ (n log n) against n; nothing when there are fewer than two sizes.
    fitted_exponent: Option<f64>,
    fitted_exponent_hpca21: Option<f64>,
    fitted_exponent_gap: Option<f64>,
    /// CPU time of a fixed loop, to compare machines by.
    calibration_cpu_seconds: f64,
    seed: u64,
    rows: Vec<Row>,
}

/// Measures every policy at every size, each in a child process.
pub fn run(sizes: &[u32], out: &mut impl Write) -> anyhow::Result<()> {
    let calibration_cpu_seconds = calibrate();
    let mut rows = Vec::new();
    for policy in POLICIES {
        for &buffers in sizes {
            let measured = in_a_child(policy, buffers)?;
            let cpu_seconds = measured.cpu_seconds();
            rows.push(Row { policy: policy.name(), buffers, ops: buffers / 10, cpu_seconds, measured });
        }
    }
    print(&rows, out)?;
    let summary = summary(rows, calibration_cpu_seconds);
    for (policy, exponent) in [("hpca21", summary.fitted_exponent_hpca21), ("gap", summary.fitted_exponent_gap)] {
        if let Some(exponent) = exponent {
            writeln!(out, "{policy}: time ÷ (n log n) grows as n to the power of {exponent:.3}")?;
        }
    }
    writeln!(out, "calibration loop: {calibration_cpu_seconds:.3} CPU s")?;
    writeln!(out, "{}", serde_json::to_string(&summary)?)?;
    Ok(())
}

fn in_a_child(policy: Policy, buffers: u32) -> anyhow::Result<Measured> {
    let program = std::env::current_exe().context("cannot find this program to start it again")?;
    let case = format!("{}:{buffers}", policy.name());
    let done = Command::new(program).args(["bench", "planning", "--case", &case]).output();
    let done = done.with_context(|| format!("cannot start the measurement of {case}"))?;
    if !done.status.success() {
        bail!("measuring {case}: {}", String::from_utf8_lossy(&done.stderr).trim());
    }
    serde_json::from_slice(&done.stdout).with_context(|| format!("measuring {case}: unexpected output"))
}

/// Measures one case in this process and prints one JSON object.
pub fn measure(case: Case, out: &mut impl Write) -> anyhow::Result<()> {
    let machine = Machine::by_name("optane")?;
    let trace = synthetic(case.buffers, SEED);
    let mut best: Option<Measured> = None;
    let begin = cpu_seconds();
    for _ in 0..ROUNDS {
        let before = cpu_seconds();
        let profile = profile::fold(&trace)?;
        let folded = cpu_seconds();
        let Some(plan) = case.policy.plan(&profile, profile.peak_live_bytes / FAST_SHARE, &machine) else {
            bail!("--case: {} plans nothing; accepted are hpca21 and gap", case.policy.name())
        };
        let plan = plan?;
        let planned = cpu_seconds();
        check(&profile, &plan)?;
        let seconds = planned - before;
        let peak_bytes = match &best {
            // Later rounds add the holes that earlier ones left.
            Some(best) => best.peak_bytes,
            None => peak_bytes()?,
        };
        if best.as_ref().is_none_or(|best| seconds < best.cpu_seconds()) {
            let (fold_cpu_seconds, plan_cpu_seconds) = (folded - before, planned - folded);
            best = Some(Measured { fold_cpu_seconds, plan_cpu_seconds, peak_bytes });
        }
        if planned - begin > ROUNDS_END_SECONDS {
            break;
        }
    }
    writeln!(out, "{}", serde_json::to_string(&best)?)?;
    Ok(())
}

/// Refuses a plan that cannot have been one of this step.
fn check(profile: &Profile, plan: &Plan) -> anyhow::Result<()> {
    let keyed = profile.buffers.iter().filter(|buffer| buffer.key.is_some()).count();
    if plan.slots.len() != keyed || plan.pool_bytes > plan.fast_budget_bytes {
        let (slots, pool_bytes) = (plan.slots.len(), plan.pool_bytes);
        bail!(
            "the plan has {slots} slots of {keyed} and a pool that takes {pool_bytes} bytes; this is a defect of the planner"
        );
    }
    Ok(())
}

/// Largest resident memory of this process so far.
fn peak_bytes() -> anyhow::Result<u64> {
    const FILE: &str = "/proc/self/status";
    let text = std::fs::read_to_string(FILE).map_err(|error| anyhow!("cannot read {FILE}: {error}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")).and_then(|number| number.parse::<u64>().ok());
    kilobytes.map(|kilobytes| kilobytes << 10).ok_or_else(|| anyhow!("{FILE} does not tell VmHWM"))
}

fn print(rows: &[Row], out: &mut impl Write) -> io::Result<()> {
    let columns = ["policy", "buffers", "ops", "CPU s", "of it fold", "of it plan", "ns ÷ (n log2 n)", "peak MB"];
    let mut table = Table::new(&columns.map(|name| (name, Align::Right)));
    for row in rows {
        let n = f64::from(row.buffers);
        table.push([
            row.policy.to_owned(),
            row.buffers.to_string(),
            row.ops.to_string(),
            format!("{:.4}", row.cpu_seconds),
            format!("{:.4}", row.measured.fold_cpu_seconds),
            format!("{:.4}", row.measured.plan_cpu_seconds),
            format!("{:.0}", row.cpu_seconds * 1e9 / (n * n.log2())),
            (row.measured.peak_bytes / 1_000_000).to_string(),
        ]);
    }
    table.print(out)
}

fn summary(rows: Vec<Row>, calibration_cpu_seconds: f64) -> Summary {
    let of = |policy: Policy| rows.iter().filter(move |row| row.policy == policy.name());
    let exponent = |policy| {
        let points: Vec<(f64, f64)> = of(policy).map(|row| (f64::from(row.buffers), row.cpu_seconds)).collect();
        exponent_above_n_log_n(&points)
    };
    let headline = || of(Policy::DEFAULT).find(|row| row.buffers == HEADLINE_BUFFERS);
    Summary {
        policy: Policy::DEFAULT.name(),
        seconds_100k: headline().map(|row| row.cpu_seconds),
        peak_bytes_100k: headline().map(|row| row.measured.peak_bytes),
        fitted_exponent: exponent(Policy::DEFAULT),
        fitted_exponent_hpca21: exponent(Policy::Hpca21),
        fitted_exponent_gap: exponent(Policy::Gap),
        calibration_cpu_seconds,
        seed: SEED,
        rows,
    }
}

/// Slope of the line of least squares through `ln(time ÷ (n ln n))` against `ln n`, for points (n, time).
fn exponent_above_n_log_n(points: &[(f64, f64)]) -> Option<f64> {
    let logs: Vec<(f64, f64)> = points.iter().map(|&(n, time)| (n.ln(), (time / (n * n.ln())).ln())).collect();
    let count = f64::from(u32::try_from(logs.len()).ok()?);
    let mean_x = logs.iter().map(|&(x, _)| x).sum::<f64>() / count;
    let mean_y = logs.iter().map(|&(_, y)| y).sum::<f64>() / count;
    let spread: f64 = logs.iter().map(|&(x, _)| (x - mean_x).powi(2)).sum();
    let together: f64 = logs.iter().map(|&(x, y)| (x - mean_x) * (y - mean_y)).sum();
    (spread > 0.0).then(|| together / spread)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exponent_is_what_is_above_n_log_n() {
        let points = |power: i32| [1e3, 1e4, 1e5].map(|n: f64| (n, 3.0 * n.ln() * n.powi(power)));
        for (power, exponent) in [(1, 0.0), (2, 1.0)] {
            let fitted = exponent_above_n_log_n(&points(power)).unwrap();
            assert!((fitted - exponent).abs() < 1e-9, "n^{power} log n: {fitted}");
        }
        assert_eq!(exponent_above_n_log_n(&points(1)[..1]), None);
    }
}
