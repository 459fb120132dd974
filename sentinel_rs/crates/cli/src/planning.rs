//! `sentinel plan`: what a policy that plans moves would do with a step.

use std::io::{self, Write};

use plan::{Interval, Machine, Place, Plan, Policy, UnitHome};
use profile::Profile;
use serde::Serialize;
use trace::Tier;

use crate::amount::Bytes;
use crate::table::{printable, Align, Table};

/// Why `sentinel plan` has nothing to print for a policy.
pub fn unplanned(policy: &str) -> String {
    let why = if policy == sim::Named::GapAtOps.name() {
        "moves issued at every op are an option of the simulator only (sentinel sim --policy); "
    } else {
        ""
    };
    format!("--policy = {policy}: {why}accepted are gap and hpca21")
}

/// A plan summed up. The field names are the keys of the JSON object.
#[derive(Serialize)]
pub struct Report {
    policy: &'static str,
    machine: String,
    peak_live_bytes: u64,
    fast_budget_bytes: u64,
    /// Least fast bytes with which the policy keeps its promises; not what would be enough to be fastest.
    fast_needed_bytes: u64,
    /// Part of the budget left to allocations without a slot.
    unplanned_bytes: u64,
    /// Largest extent of the short-lived pool.
    pool_bytes: u64,
    arena_bytes: u64,
    slots: Slots,
    units: Units,
    layers: usize,
    intervals: Vec<IntervalReport>,
    /// Bytes that one step moves to faster memory.
    promoted_bytes: u64,
    /// Bytes that one step moves to slower memory.
    demoted_bytes: u64,
    may_be_late: bool,
}

/// Recurring allocations by where they go.
#[derive(Default, Serialize)]
struct Slots {
    pool: u64,
    unit: u64,
    heap_fast: u64,
    heap_slow: u64,
}

/// Units of long-lived tensors by where they are.
#[derive(Default, Serialize)]
struct Units {
    arena: u64,
    arena_bytes: u64,
    persistent: u64,
    persistent_bytes: u64,
    /// Of both kinds, those that begin in slow memory.
    born_slow: u64,
}

#[derive(Serialize)]
struct IntervalReport {
    first_layer: u32,
    last_layer: u32,
    pool_bytes: u64,
    promoted_bytes: u64,
    demoted_bytes: u64,
}

impl Report {
    /// Sums up `plan`, made by `policy` from `profile` for `machine`.
    pub fn of(profile: &Profile, plan: &Plan, policy: Policy, machine: &Machine) -> Report {
        let intervals: Vec<IntervalReport> = plan.intervals.iter().map(|i| IntervalReport::of(i, plan)).collect();
        Report {
            policy: policy.name(),
            machine: machine.name.clone(),
            peak_live_bytes: profile.peak_live_bytes,
            fast_budget_bytes: plan.fast_budget_bytes,
            fast_needed_bytes: plan.fast_needed_bytes,
            unplanned_bytes: plan.unplanned_bytes,
            pool_bytes: plan.pool_bytes,
            arena_bytes: plan.arena_bytes,
            slots: Slots::of(plan),
            units: Units::of(plan),
            layers: plan.layer_first_op.len(),
            promoted_bytes: intervals.iter().map(|interval| interval.promoted_bytes).sum(),
            demoted_bytes: intervals.iter().map(|interval| interval.demoted_bytes).sum(),
            intervals,
            may_be_late: plan.may_be_late,
        }
    }

    /// Prints the page for people.
    pub fn print(&self, out: &mut impl Write) -> io::Result<()> {
        let Slots { pool, unit, heap_fast, heap_slow } = self.slots;
        let units = &self.units;
        writeln!(out, "policy           {} for machine {}", self.policy, printable(&self.machine))?;
        writeln!(out, "peak live        {}", Bytes(self.peak_live_bytes))?;
        writeln!(out, "fast budget      {}", Bytes(self.fast_budget_bytes))?;
        writeln!(out, "fast needed      {} at least{}", Bytes(self.fast_needed_bytes), self.shortage())?;
        writeln!(out, "without a slot   {}", Bytes(self.unplanned_bytes))?;
        writeln!(out, "short-lived pool {}", Bytes(self.pool_bytes))?;
        writeln!(out, "arena            {}", Bytes(self.arena_bytes))?;
        writeln!(out, "slots            {pool} pool, {unit} unit, {heap_fast} heap fast, {heap_slow} heap slow")?;
        writeln!(out, "arena units      {} of {}", units.arena, Bytes(units.arena_bytes))?;
        writeln!(out, "persistent units {} of {}", units.persistent, Bytes(units.persistent_bytes))?;
        writeln!(out, "born slow        {} units", units.born_slow)?;
        writeln!(out, "intervals        {} over {} layers", self.intervals.len(), self.layers)?;
        writeln!(
            out,
            "moved per step   {} promoted, {} demoted",
            Bytes(self.promoted_bytes),
            Bytes(self.demoted_bytes)
        )?;
        writeln!(out, "may be late      {}", if self.may_be_late { "yes: the runtime tries both ways" } else { "no" })?;
        writeln!(out)?;
        self.print_intervals(out)
    }

    fn shortage(&self) -> String {
        match self.fast_needed_bytes.checked_sub(self.fast_budget_bytes) {
            None | Some(0) if self.policy == Policy::Gap.name() => {
                ": all else is fast as far as the budget goes".to_owned()
            }
            None | Some(0) => String::new(),
            Some(missing) => format!(", {} more than the budget: the overflow lives in slow memory", Bytes(missing)),
        }
    }

    fn print_intervals(&self, out: &mut impl Write) -> io::Result<()> {
        let columns = ["interval", "layers", "pool", "promoted", "demoted"].map(|heading| (heading, Align::Right));
        let mut table = Table::new(&columns);
        for (index, interval) in self.intervals.iter().enumerate() {
            table.push([
                index.to_string(),
                format!("{}-{}", interval.first_layer, interval.last_layer),
                Bytes(interval.pool_bytes).to_string(),
                Bytes(interval.promoted_bytes).to_string(),
                Bytes(interval.demoted_bytes).to_string(),
            ]);
        }
        table.print(out)
    }
}

impl Slots {
    fn of(plan: &Plan) -> Slots {
        let mut slots = Slots::default();
        for slot in &plan.slots {
            match slot.place {
                Place::Pool { .. } => slots.pool += 1,
                Place::Units { .. } => slots.unit += 1,
                Place::Heap { tier: Tier::FAST } => slots.heap_fast += 1,
                Place::Heap { .. } => slots.heap_slow += 1,
            }
        }
        slots
    }
}

impl Units {
    fn of(plan: &Plan) -> Units {
        let mut units = Units::default();
        for unit in &plan.units {
            match unit.home {
                UnitHome::Arena { .. } => {
                    units.arena += 1;
                    units.arena_bytes += unit.len_bytes;
                }
                UnitHome::Persistent { .. } => {
                    units.persistent += 1;
                    units.persistent_bytes += unit.len_bytes;
                }
            }
            units.born_slow += u64::from(unit.birth_tier != Tier::FAST);
        }
        units
    }
}

impl IntervalReport {
    fn of(interval: &Interval, plan: &Plan) -> IntervalReport {
        let mut report = IntervalReport {
            first_layer: interval.first_layer,
            last_layer: interval.last_layer,
            pool_bytes: interval.pool_bytes,
            promoted_bytes: 0,
            demoted_bytes: 0,
        };
        for planned in &interval.moves {
            let len_bytes = plan.units[planned.unit as usize].len_bytes;
            if planned.to == Tier::FAST {
                report.promoted_bytes += len_bytes;
            } else {
                report.demoted_bytes += len_bytes;
            }
        }
        report
    }
}
