//! The cost model that planners, the simulator and the lower bound share; `docs/policy.md`, section Model, says why.
//!
//! Time is counted in nanoseconds of the *recording*. A recording machine is not the machine that is simulated, so one
//! number per workload, the time scale κ, says how many recorded nanoseconds one nanosecond of the simulated machine is.

use crate::machine::bytes_f64;
use crate::Machine;
use profile::{Class, Profile};
use trace::Tier;

/// Migration takes at most this part of a device's time from an op that wants it: two clients share evenly.
pub const MIGRATION_SHARE_MAX: f64 = 0.5;

/// The one free number of a workload on a machine: how much of its time is memory time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MemoryTime {
    /// This share of the all-fast step is memory time, 0 to 1.
    Share(f64),
    /// The share that makes everything in the slowest tier this many times slower than everything in the fastest.
    SlowRatio(f64),
    /// Recorded nanoseconds per nanosecond of the machine.
    Scale(f64),
    /// As the emulated slow tier of the live runtime does it: the machine's memory time as it is, with the threads of the
    /// recording; an op lasts until its memory time is over, and moves do not slow it down.
    Emulated,
}

/// Why a workload has no such memory time.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum ModelError {
    /// No share of memory time gives so slow a slow tier.
    #[error("slow-only ÷ fast-only = {wanted}: this machine gives this step at most {most:.3}")]
    Beyond {
        /// What was asked for.
        wanted: f64,
        /// What the machine gives when every op is memory-bound.
        most: f64,
    },
}

/// Time per byte in one tier, in nanoseconds of the machine.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TierCost {
    /// An op's waiting per byte read: transfer and latency.
    pub read_ns: f64,
    /// An op's waiting per byte written.
    pub write_ns: f64,
    /// The device's time per byte read: transfer only.
    pub busy_read_ns: f64,
    /// The device's time per byte written.
    pub busy_write_ns: f64,
}

/// What an op costs beyond its all-fast time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OpCost {
    /// All-fast time.
    pub base_ns: f64,
    /// Recorded nanoseconds per nanosecond of the machine's memory time, at most κ.
    pub scale: f64,
    /// Memory time when everything is in the fastest tier, in recorded nanoseconds.
    pub fast_ns: f64,
    /// Memory time that hides behind compute: this much extra memory time is free. 0 on a machine with a tier that is
    /// reached by page faults, because a thread does nothing else while it waits for one.
    pub slack_ns: f64,
}

/// The model of one workload on one machine.
#[derive(Clone, Debug, PartialEq)]
pub struct Costs {
    /// By tier rank.
    pub tiers: Vec<TierCost>,
    /// By op index.
    pub ops: Vec<OpCost>,
    /// Recorded nanoseconds per nanosecond of the machine, averaged over memory time: what turns GB/s into bytes per
    /// recorded nanosecond.
    pub time_scale: f64,
    /// Share of the all-fast step that is memory time.
    pub memory_share: f64,
    /// Whether migration slows ops down.
    pub contends: bool,
    /// Whether a tier is reached by page faults, which no compute hides.
    pub page_faults: bool,
}

/// What an op's accesses ask of the tiers, given where its buffers are.
#[derive(Clone, Debug, PartialEq)]
pub struct Demand {
    /// Extra waiting over all-fast, in recorded nanoseconds.
    pub extra_ns: f64,
    /// Device time by tier rank, in recorded nanoseconds.
    pub busy_ns: Vec<f64>,
}

impl Costs {
    /// The model of a step on `machine`.
    ///
    /// # Errors
    /// When a ratio is asked for that the machine cannot give this workload.
    pub fn new(profile: &Profile, machine: &Machine, memory: MemoryTime) -> Result<Costs, ModelError> {
        if memory == MemoryTime::Emulated {
            return Ok(Costs::as_emulated(profile, machine));
        }
        let times = Times::new(profile, machine, machine.threads.unwrap_or(profile.intra_op_threads));
        let Times { base, fast, slow, .. } = &times;
        let kappa = match memory {
            MemoryTime::Scale(kappa) => kappa,
            MemoryTime::Emulated => 1.0,
            MemoryTime::Share(share) if share >= 1.0 => f64::INFINITY,
            MemoryTime::Share(share) => solve(|kappa| memory_share(base, fast, kappa), share),
            MemoryTime::SlowRatio(wanted) => {
                let ratio = |kappa: f64| slow_ratio([base, fast, slow], times.page_faults, kappa);
                let most = ratio(f64::INFINITY);
                if wanted > most {
                    return Err(ModelError::Beyond { wanted, most });
                }
                solve(ratio, wanted)
            }
        };
        Ok(times.costs(|base_ns, fast_ns| scale_of(base_ns, fast_ns, kappa), true))
    }

    /// The model of [`MemoryTime::Emulated`], which every step has.
    #[must_use]
    pub fn as_emulated(profile: &Profile, machine: &Machine) -> Costs {
        Times::new(profile, machine, profile.intra_op_threads).costs(|_, _| 1.0, false)
    }

    /// Extra recorded nanoseconds per byte that op `op` reads from `tier` instead of the fastest.
    #[must_use]
    pub fn extra_read_ns(&self, op: usize, tier: Tier) -> f64 {
        self.ops[op].scale * (self.tier(tier).read_ns - self.tiers[0].read_ns)
    }

    /// Extra recorded nanoseconds per byte that op `op` writes to `tier` instead of the fastest.
    #[must_use]
    pub fn extra_write_ns(&self, op: usize, tier: Tier) -> f64 {
        self.ops[op].scale * (self.tier(tier).write_ns - self.tiers[0].write_ns)
    }

    /// Costs of a tier; a rank below the last counts as the last.
    #[must_use]
    pub fn tier(&self, tier: Tier) -> TierCost {
        self.tiers[usize::from(tier.0).min(self.tiers.len() - 1)]
    }

    /// Nothing asked for yet.
    #[must_use]
    pub fn no_demand(&self) -> Demand {
        Demand { extra_ns: 0.0, busy_ns: vec![0.0; self.tiers.len()] }
    }

    /// Adds bytes that op `op` reads and writes in `tier` to its demand.
    pub fn add(&self, demand: &mut Demand, op: usize, tier: Tier, read_bytes: f64, written_bytes: f64) {
        let cost = self.tier(tier);
        demand.extra_ns += read_bytes * self.extra_read_ns(op, tier) + written_bytes * self.extra_write_ns(op, tier);
        let rank = usize::from(tier.0).min(self.tiers.len() - 1);
        demand.busy_ns[rank] +=
            self.ops[op].scale * (read_bytes * cost.busy_read_ns + written_bytes * cost.busy_write_ns);
    }

    /// Time of op `op` with these demands while migration takes `taken[tier]` of each device's time:
    /// `max(base + max(0, extra - slack), max over tiers of busy / (1 - min(taken, 1/2)))`, and never below the base.
    #[must_use]
    pub fn op_time_ns(&self, op: usize, demand: &Demand, taken: &[f64]) -> f64 {
        let cost = self.ops[op];
        let alone = cost.base_ns + (demand.extra_ns - cost.slack_ns).max(0.0);
        let devices = demand.busy_ns.iter().zip(taken).map(|(&busy, &share)| {
            if share > 0.0 && self.contends {
                busy / (1.0 - share.min(MIGRATION_SHARE_MAX))
            } else {
                0.0
            }
        });
        devices.fold(alone, f64::max)
    }

    /// Part of each device's time that a move of `rate` bytes per recorded nanosecond takes, added to `taken`.
    pub fn add_move(&self, taken: &mut [f64], rate: f64, from: Tier, to: Tier) {
        let (from, to) = (usize::from(from.0), usize::from(to.0));
        taken[from] += rate * self.tiers[from].busy_read_ns * self.time_scale;
        taken[to] += rate * self.tiers[to].busy_write_ns * self.time_scale;
    }

    /// Time of a step with everything in one tier, without migration.
    #[must_use]
    pub fn step_in_tier_ns(&self, profile: &Profile, tier: Tier) -> f64 {
        let idle = vec![0.0; self.tiers.len()];
        let per_op = |(op, [read, written]): (usize, [f64; 2])| {
            let mut demand = self.no_demand();
            self.add(&mut demand, op, tier, read, written);
            self.op_time_ns(op, &demand, &idle)
        };
        traffic_by_op(profile).into_iter().enumerate().map(per_op).sum()
    }
}

/// Times of the ops of a step.
struct Times {
    tiers: Vec<TierCost>,
    /// As recorded.
    base: Vec<f64>,
    /// Memory time of the machine when everything is in the fastest tier, and in the slowest.
    fast: Vec<f64>,
    slow: Vec<f64>,
    page_faults: bool,
}

impl Times {
    fn new(profile: &Profile, machine: &Machine, threads: u32) -> Times {
        let tiers = tier_costs(machine, threads);
        let traffic = traffic_by_op(profile);
        let memory_ns = |cost: &TierCost| -> Vec<f64> {
            traffic.iter().map(|[read, written]| read * cost.read_ns + written * cost.write_ns).collect()
        };
        let (fast, slow) = (memory_ns(&tiers[0]), memory_ns(&tiers[tiers.len() - 1]));
        let base = profile.ops.iter().map(|op| bytes_f64(op.time_ns)).collect();
        Times { base, tiers, fast, slow, page_faults: machine.has_page_faults() }
    }

    fn costs(self, scale: impl Fn(f64, f64) -> f64, contends: bool) -> Costs {
        let Times { tiers, base, fast, page_faults, .. } = self;
        let cost = |(&base_ns, &fast_ns): (&f64, &f64)| {
            let scale = scale(base_ns, fast_ns);
            let slack_ns = if page_faults { 0.0 } else { (base_ns - scale * fast_ns).max(0.0) };
            OpCost { base_ns, scale, fast_ns: scale * fast_ns, slack_ns }
        };
        let ops: Vec<OpCost> = base.iter().zip(&fast).map(cost).collect();
        let step_ns: f64 = base.iter().sum();
        let total: f64 = fast.iter().sum();
        let scaled: f64 = ops.iter().zip(&fast).map(|(op, &fast_ns)| op.scale * fast_ns).sum();
        let time_scale = if total > 0.0 && scaled > 0.0 { scaled / total } else { 1.0 };
        let memory_share = if step_ns > 0.0 { scaled / step_ns } else { 0.0 };
        Costs { tiers, ops, time_scale, memory_share, contends, page_faults }
    }
}

/// Bytes that each op reads and writes in memory that Sentinel owns.
fn traffic_by_op(profile: &Profile) -> Vec<[f64; 2]> {
    let mut traffic = vec![[0.0; 2]; profile.ops.len()];
    for facts in profile.buffers.iter().filter(|facts| facts.class != Class::External) {
        for used in &facts.uses {
            let [read, written] = &mut traffic[used.op as usize];
            *read += bytes_f64(used.read_bytes);
            *written += bytes_f64(used.written_bytes);
        }
    }
    traffic
}

fn tier_costs(machine: &Machine, threads: u32) -> Vec<TierCost> {
    let ranks = (0..machine.tiers.len()).map(|rank| Tier(u8::try_from(rank).unwrap_or(u8::MAX)));
    let per_byte = |tier: Tier, read: u64, write: u64| {
        // Per mebibyte, so that the whole formula stays in one place.
        machine.memory_time_ns(tier, read << 20, write << 20, threads) / bytes_f64(1 << 20)
    };
    ranks
        .zip(&machine.tiers)
        .map(|(tier, spec)| TierCost {
            read_ns: per_byte(tier, 1, 0),
            write_ns: per_byte(tier, 0, 1),
            busy_read_ns: 1.0 / spec.read_gbps,
            busy_write_ns: 1.0 / spec.write_gbps,
        })
        .collect()
}

/// κ, but never so much that memory time exceeds the op's time.
fn scale_of(base_ns: f64, fast_ns: f64, kappa: f64) -> f64 {
    if fast_ns > 0.0 {
        kappa.min(base_ns / fast_ns)
    } else {
        0.0
    }
}

fn memory_share(base: &[f64], fast: &[f64], kappa: f64) -> f64 {
    let memory: f64 = base.iter().zip(fast).map(|(&b, &f)| scale_of(b, f, kappa) * f).sum();
    memory / base.iter().sum::<f64>().max(1.0)
}

fn slow_ratio([base, fast, slow]: [&[f64]; 3], page_faults: bool, kappa: f64) -> f64 {
    let ops = base.iter().zip(fast).zip(slow);
    let time: f64 = ops
        .map(|((&b, &f), &s)| {
            let scale = scale_of(b, f, kappa);
            if page_faults {
                b + scale * (s - f)
            } else {
                b.max(scale * s)
            }
        })
        .sum();
    time / base.iter().sum::<f64>().max(1.0)
}

/// The κ at which a rising function has this value, by bisection of its logarithm's range in fixed steps.
fn solve(value: impl Fn(f64) -> f64, wanted: f64) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    while value(high) < wanted && high < 1e18 {
        high *= 2.0;
    }
    for _ in 0..200 {
        let middle = 0.5 * (low + high);
        if value(middle) < wanted {
            low = middle;
        } else {
            high = middle;
        }
    }
    high
}
