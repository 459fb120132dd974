//! `sentinel sim`: every policy on one traced step, over a range of budgets, beside the lower bound.

use std::collections::BTreeSet;
use std::io::{self, Write};

use plan::Machine;
use serde::Serialize;
use sim::{step_bound, BoundEffort, Costs, LiveStep, MemoryTime, Named, Outcome, Setting, SimError, Workload};
use trace::StepTrace;

use crate::amount::{Budget, Bytes};
use crate::cores::on_all_cores;
use crate::table::{printable, Align, Table};

/// How fast moves are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Migration {
    /// As the machine profile says, in GB/s of the machine.
    AsMachine,
    /// These GB/s in both directions.
    Gbps(f64),
    /// So many peaks per direction in one all-fast step.
    MHat(f64),
}

impl Migration {
    /// The setting for a budget.
    pub fn setting(self, workload: &Workload, costs: &Costs, machine: &Machine, fast_bytes: u64) -> Setting {
        match self {
            Migration::MHat(m_hat) => Setting::with_m_hat(workload, fast_bytes, m_hat),
            Migration::Gbps(gbps) => Setting::with_gbps(costs, fast_bytes, gbps, gbps),
            Migration::AsMachine => Setting::with_gbps(costs, fast_bytes, machine.promote_gbps, machine.demote_gbps),
        }
    }
}

/// What is to be run.
pub struct Question {
    /// In the order in which they are printed.
    pub policies: Vec<Named>,
    /// In any order.
    pub budgets: Vec<Budget>,
    /// Tiers.
    pub machine: Machine,
    /// Speed of moves.
    pub migration: Migration,
    /// How much of the step is memory time.
    pub memory: MemoryTime,
    /// All-fast time of a live step in nanoseconds, for the emulated tier; `None` for that of the recording.
    pub step_ns: Option<f64>,
    /// Whether the lower bound is worked out.
    pub bound: bool,
}

/// Results. The field names are the keys of the JSON object.
#[derive(Serialize)]
pub struct Report {
    pub workload: String,
    pub machine: String,
    pub peak_live_bytes: u64,
    /// All-fast time of the step.
    pub step_ns: f64,
    pub memory_share: f64,
    pub slow_over_fast: f64,
    pub m_hat: f64,
    /// Why there is no bound although one was asked for.
    pub no_bound_because: Option<&'static str>,
    pub points: Vec<Point>,
}

/// Results at one budget.
#[derive(Serialize)]
pub struct Point {
    pub fast_bytes: u64,
    pub fast_share: f64,
    /// The most that any policy could reach.
    pub bound: Option<f64>,
    pub results: Vec<PolicyResult>,
}

/// One policy at one budget.
#[derive(Clone, Serialize)]
pub struct PolicyResult {
    pub policy: &'static str,
    /// Throughput relative to all-fast; `None` when it cannot run.
    pub throughput: Option<f64>,
    /// Why it cannot run.
    pub infeasible: Option<String>,
    /// Time of a step; of the emulated tier, with as many ops at a time as the recording session had threads for them.
    pub step_seconds: Option<f64>,
    /// What the bytes in slower tiers cost more than in the fastest; a part of it hides behind work.
    pub slow_memory_seconds: Option<f64>,
    pub stall_ns: f64,
    pub promoted_bytes: u64,
    pub demoted_bytes: u64,
    pub overflow_bytes: u64,
    /// Two steps in a row were the same.
    pub settled: bool,
}

impl Report {
    /// Runs everything.
    pub fn of(name: &str, trace: &StepTrace, question: &Question) -> anyhow::Result<Report> {
        let emulated = question.memory == MemoryTime::Emulated;
        let live = emulated.then(|| LiveStep::of(name, trace, question.step_ns)).transpose()?;
        let (workload, step_ns) = match &live {
            Some(live) if live.workload.step_ns <= 0.0 => {
                anyhow::bail!("--emulated: the recorded ops take no time at all, so that nothing is known of a step's")
            }
            Some(live) => (live.workload.clone(), live.all_fast_ns),
            None => {
                let workload = Workload::of(name, trace)?;
                let step_ns = workload.step_ns;
                (workload, step_ns)
            }
        };
        let workload = &workload;
        let costs = Costs::new(&workload.profile, &question.machine, question.memory)?;
        let slowest = trace::Tier(u8::try_from(costs.tiers.len() - 1).unwrap_or(u8::MAX));
        let peak = workload.profile.peak_live_bytes;
        let asked = live.as_ref().filter(|_| question.bound);
        let no_bound_because = asked.and_then(|live| live.unbounded(&question.machine));
        let with_bound = question.bound && no_bound_because.is_none();
        // A curve goes from left to right, and through no point twice, however the amounts were listed.
        let fast_bytes: BTreeSet<u64> =
            question.budgets.iter().map(|budget| budget.asked_of(peak)).collect::<anyhow::Result<_>>()?;
        let setting = |fast_bytes| question.migration.setting(workload, &costs, &question.machine, fast_bytes);
        let settings: Vec<Setting> = fast_bytes.into_iter().map(setting).collect();
        let m_hat = settings.last().map_or(0.0, |setting| setting.m_hat(workload));
        let step = Step { workload, live: live.as_ref(), all_fast_ns: step_ns, costs: &costs };
        let points = points(&step, question, &settings, with_bound)?;
        Ok(Report {
            workload: workload.name.clone(),
            machine: question.machine.name.clone(),
            peak_live_bytes: peak,
            step_ns,
            memory_share: costs.memory_share,
            slow_over_fast: costs.step_in_tier_ns(&workload.profile, slowest) / workload.step_ns.max(1.0),
            m_hat,
            no_bound_because,
            points,
        })
    }

    /// For people: a row per budget, a column per policy.
    pub fn print(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "workload      {}, peak live {}", printable(&self.workload), Bytes(self.peak_live_bytes))?;
        writeln!(out, "machine       {}, slow-only {:.2} times slower", printable(&self.machine), self.slow_over_fast)?;
        writeln!(out, "memory share  {:.0}% of the all-fast step", self.memory_share * 100.0)?;
        writeln!(out, "migration     m̂ = {:.2} peaks per all-fast step and direction", self.m_hat)?;
        if let Some(why) = self.no_bound_because {
            writeln!(out, "bound         none: {why}")?;
        }
        writeln!(
            out,
            "throughput relative to all-fast; * marks runs whose steps never became equal (mean of the last)\n"
        )?;
        let mut columns = vec![("fast", Align::Right)];
        let with_bound = self.points.iter().any(|point| point.bound.is_some());
        if with_bound {
            columns.push(("bound", Align::Right));
        }
        let names = self.points.first().map(|point| point.results.iter().map(|r| r.policy).collect::<Vec<_>>());
        columns.extend(names.unwrap_or_default().into_iter().map(|name| (name, Align::Right)));
        let mut table = Table::new(&columns);
        for point in &self.points {
            let mut row = vec![format!("{:.1}%", point.fast_share * 100.0)];
            row.extend(point.bound.map(|bound| format!("{bound:.3}")));
            row.extend(point.results.iter().map(PolicyResult::cell));
            table.push(row);
        }
        table.print(out)
    }
}

impl PolicyResult {
    /// What came of a run of `policy`, beside a step of `all_fast_ns`.
    pub fn of(policy: Named, ran: Result<Outcome, SimError>, all_fast_ns: f64) -> anyhow::Result<PolicyResult> {
        let empty = PolicyResult {
            policy: policy.name(),
            throughput: None,
            infeasible: None,
            step_seconds: None,
            slow_memory_seconds: None,
            stall_ns: 0.0,
            promoted_bytes: 0,
            demoted_bytes: 0,
            overflow_bytes: 0,
            settled: true,
        };
        match ran {
            Ok(outcome) => Ok(PolicyResult {
                throughput: Some(outcome.relative(all_fast_ns)),
                step_seconds: Some(outcome.sums.step_ns / 1e9),
                slow_memory_seconds: Some(outcome.waits.iter().map(|(_, extra_ns)| extra_ns / 1e9).sum()),
                stall_ns: outcome.sums.stall_ns,
                promoted_bytes: outcome.sums.promoted_bytes,
                demoted_bytes: outcome.sums.demoted_bytes,
                overflow_bytes: outcome.sums.overflow_bytes,
                settled: outcome.settled,
                ..empty
            }),
            Err(error @ SimError::Infeasible { .. }) => {
                Ok(PolicyResult { infeasible: Some(error.to_string()), ..empty })
            }
            Err(error) => Err(anyhow::anyhow!("policy {}: {error}", policy.name())),
        }
    }

    fn cell(&self) -> String {
        match (self.throughput, &self.infeasible) {
            (Some(throughput), _) => format!("{throughput:.3}{}", if self.settled { "" } else { "*" }),
            (None, Some(why)) => why.clone(),
            (None, None) => "-".to_owned(),
        }
    }
}

/// What is simulated.
struct Step<'a> {
    workload: &'a Workload,
    live: Option<&'a LiveStep>,
    all_fast_ns: f64,
    costs: &'a Costs,
}

/// A piece of work that needs no other one, and what came of it.
enum Cell {
    Bound(f64),
    Policy(PolicyResult),
}

/// Every policy of the question in every setting, on all cores.
fn points(step: &Step<'_>, question: &Question, settings: &[Setting], with_bound: bool) -> anyhow::Result<Vec<Point>> {
    let Step { workload, live, all_fast_ns, costs } = *step;
    let columns = question.policies.len() + usize::from(with_bound);
    let cell = |index: usize| {
        let setting = &settings[index / columns];
        let Some(&policy) = question.policies.get(index % columns) else {
            return Ok(Cell::Bound(bound(workload, all_fast_ns, costs, setting)));
        };
        let machine = &question.machine;
        let result = match live {
            Some(live) => {
                let ran = live.run(policy, &setting.machine_for_planning(machine), setting.fast_budget_bytes());
                PolicyResult::of(policy, ran, all_fast_ns)
            }
            None => one(policy, workload, costs, setting, machine),
        };
        Ok(Cell::Policy(result?))
    };
    let mut cells = on_all_cores("policies and bounds", settings.len() * columns, cell)?.into_iter();
    let point = |setting: &Setting| {
        let mut point = Point {
            fast_bytes: setting.fast_budget_bytes(),
            fast_share: setting.fast_budget_bytes() as f64 / workload.profile.peak_live_bytes.max(1) as f64,
            bound: None,
            results: Vec::with_capacity(question.policies.len()),
        };
        for cell in cells.by_ref().take(columns) {
            match cell {
                Cell::Bound(bound) => point.bound = Some(bound),
                Cell::Policy(result) => point.results.push(result),
            }
        }
        point
    };
    Ok(settings.iter().map(point).collect())
}

/// Uses of a step above which the bound is worked out with fewer windows and without the smallest tensors: it stays a bound,
/// and takes seconds instead of minutes.
const LARGE_STEP_USES: usize = 8_000;

/// The most that any policy could reach of the throughput of a step that takes `all_fast_ns`.
pub fn bound(workload: &Workload, all_fast_ns: f64, costs: &Costs, setting: &Setting) -> f64 {
    let uses: usize = workload.ops.iter().map(|op| op.uses.len()).sum();
    let effort = if uses > LARGE_STEP_USES {
        BoundEffort { windows: 30, neglected_share: 0.01 }
    } else {
        BoundEffort::default()
    };
    (all_fast_ns / step_bound(workload, costs, setting, effort).step_ns).min(1.0)
}

/// One policy at one budget. A policy that breaks its budget is an error; one that cannot run says so.
pub fn one(
    policy: Named,
    workload: &Workload,
    costs: &Costs,
    setting: &Setting,
    machine: &Machine,
) -> anyhow::Result<PolicyResult> {
    PolicyResult::of(policy, policy.run(workload, costs, setting, machine), workload.step_ns)
}

/// Policies by name, separated by commas, each once; `all` for all of them.
pub fn parse_policies(text: &str) -> Result<Vec<Named>, String> {
    if text == "all" {
        return Ok(Named::ALL.iter().map(|&(_, named)| named).collect());
    }
    let known = || Named::ALL.iter().map(|&(name, _)| name).collect::<Vec<_>>().join(", ");
    let mut policies = Vec::new();
    for name in text.split(',') {
        let named = Named::by_name(name);
        let named = named.ok_or_else(|| format!("unknown policy {name:?}: accepted are all, {}", known()))?;
        if !policies.contains(&named) {
            policies.push(named);
        }
    }
    Ok(policies)
}

/// Budgets separated by commas, or a range `5%..100%` in steps of five percentage points.
pub fn parse_budgets(text: &str) -> Result<Vec<Budget>, String> {
    const STEP: u32 = 50_000;
    let one = |text: &str| text.parse::<Budget>().map_err(str::to_owned);
    let Some((from, to)) = text.split_once("..") else { return text.split(',').map(one).collect() };
    match (one(from)?, one(to)?) {
        (Budget::Share(from), Budget::Share(to)) if from <= to => {
            let inner = (from / STEP + 1..).map(|step| step * STEP).take_while(|&share| share < to);
            let mut shares: Vec<u32> = std::iter::once(from).chain(inner).collect();
            if to > from {
                shares.push(to);
            }
            Ok(shares.into_iter().map(Budget::Share).collect())
        }
        _ => Err("a range is two shares, the smaller first, such as 5%..100%".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_goes_in_steps_of_five_points_and_keeps_its_ends() {
        let shares = |text: &str| -> Vec<u32> {
            let of = |budget: Budget| if let Budget::Share(share) = budget { share / 10_000 } else { 0 };
            parse_budgets(text).unwrap().into_iter().map(of).collect()
        };
        assert_eq!(shares("5%..20%"), [5, 10, 15, 20]);
        assert_eq!(shares("3%..11%"), [3, 5, 10, 11]);
        assert_eq!(shares("7%..7%"), [7]);
        assert_eq!(shares("20%,10%"), [20, 10]);
        assert!(parse_budgets("20%..10%").is_err());
        assert!(parse_budgets("1G..2G").is_err());
    }

    #[test]
    fn policies_are_known_by_name() {
        assert_eq!(parse_policies("all").unwrap().len(), Named::ALL.len());
        assert_eq!(parse_policies("ial,hpca21").unwrap(), [Named::Ial, Named::Hpca21]);
        assert_eq!(parse_policies("ial,hpca21,ial").unwrap(), [Named::Ial, Named::Hpca21]);
        assert!(parse_policies("ial,lru").unwrap_err().contains("\"lru\""));
    }
}
