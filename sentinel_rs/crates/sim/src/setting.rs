//! What a run varies: the fast budget and the speed of migration.

use crate::workload::{to_f64, Workload};
use plan::{Costs, Machine};

/// Budget and migration speed: what a run varies.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting {
    /// Bytes that may be in each tier but the last, by rank; the first is the fast budget.
    pub budget_bytes: Vec<u64>,
    /// Speed of moves towards faster tiers, in bytes per recorded nanosecond.
    pub promote_rate: f64,
    /// Speed of moves towards slower tiers, in bytes per recorded nanosecond.
    pub demote_rate: f64,
}

impl Setting {
    /// A fast budget, and migration that can move `m_hat` times the step's peak per direction in one all-fast step.
    #[must_use]
    pub fn with_m_hat(workload: &Workload, fast_budget_bytes: u64, m_hat: f64) -> Setting {
        let rate = m_hat * to_f64(workload.profile.peak_live_bytes) / workload.step_ns.max(1.0);
        Setting { budget_bytes: vec![fast_budget_bytes], promote_rate: rate, demote_rate: rate }
    }

    /// A fast budget, and migration at these 10^9 bytes per second of the simulated machine.
    #[must_use]
    pub fn with_gbps(costs: &Costs, fast_budget_bytes: u64, promote_gbps: f64, demote_gbps: f64) -> Setting {
        Setting {
            budget_bytes: vec![fast_budget_bytes],
            promote_rate: promote_gbps / costs.time_scale,
            demote_rate: demote_gbps / costs.time_scale,
        }
    }

    /// Bytes that may be in the fastest tier.
    #[must_use]
    pub fn fast_budget_bytes(&self) -> u64 {
        self.budget_bytes[0]
    }

    /// The speed of moves, for planners that count in recorded nanoseconds.
    #[must_use]
    pub fn migration(&self) -> plan::Migration {
        plan::Migration { promote_rate: self.promote_rate, demote_rate: self.demote_rate }
    }

    /// m̂ of the slower direction: migration rate × all-fast step time ÷ peak.
    #[must_use]
    pub fn m_hat(&self, workload: &Workload) -> f64 {
        let peak = to_f64(workload.profile.peak_live_bytes).max(1.0);
        self.promote_rate.min(self.demote_rate) * workload.step_ns / peak
    }

    /// The machine whose migration speed is this setting's, for planners that count in recorded nanoseconds.
    #[must_use]
    pub fn machine_for_planning(&self, machine: &Machine) -> Machine {
        Machine { promote_gbps: self.promote_rate, demote_gbps: self.demote_rate, ..machine.clone() }
    }
}
