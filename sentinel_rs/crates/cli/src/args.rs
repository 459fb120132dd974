//! Arguments in two stages: what was typed, and what it means.

use std::ffi::OsString;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};
use plan::{in_range, Machine, Policy, GBPS_RANGE};
use sim::MemoryTime;

use crate::amount::Budget;
use crate::bench::planning::{Case, BUFFERS};
use crate::doctor;
use crate::planning;
use crate::run;
use crate::simulate::{parse_budgets, parse_policies, Migration, Question};

/// Migration speeds of `--mhat`: from none that a step notices to all that it could use.
const M_HAT_RANGE: RangeInclusive<f64> = 1e-6..=1e6;

/// Steps of `--step-seconds`: from a microsecond to eleven days.
const STEP_SECONDS_RANGE: RangeInclusive<f64> = 1e-6..=1e6;

/// What was typed.
#[derive(Parser)]
#[command(name = "sentinel", version, about = "Runs training on fast and slow memory, and explains what happens there")]
#[command(arg_required_else_help = false)]
struct Typed {
    #[command(subcommand)]
    command: TypedCommand,
}

#[derive(Subcommand)]
enum TypedCommand {
    /// Run a command under Sentinel, and say at its end what Sentinel did
    Run(TypedRun),
    /// Say what this machine has for tiering, what is in the way, and how to clear it away
    Doctor {
        /// Print one JSON object
        #[arg(long)]
        json: bool,
        /// Do not measure memory
        #[arg(long, conflicts_with = "measure")]
        quick: bool,
        /// Write what was measured as a machine profile, for --machine of plan and sim
        #[arg(long, value_name = "FILE")]
        measure: Option<PathBuf>,
        /// Python to look at, instead of the best one in PATH
        #[arg(long, value_name = "PROGRAM")]
        python: Option<PathBuf>,
    },
    /// Read a trace of one training step, or make that of another batch
    #[command(arg_required_else_help = false)]
    Trace {
        #[command(subcommand)]
        command: TypedTrace,
    },
    /// Measure the planner; the last line printed is one JSON object
    #[command(arg_required_else_help = false)]
    Bench {
        #[command(subcommand)]
        command: TypedBench,
    },
    /// Run policies on a traced step in the simulator, beside the lower bound on its time
    ///
    /// Without an option all of the step's time is memory time (--memory-share 1), the hardest case for placement, and moves
    /// are as fast as the machine profile says; --slow-ratio or --memory-share, and --mhat or --migration-gbps, say otherwise.
    Sim {
        /// Trace file, as written for SENTINEL_TRACE
        file: PathBuf,
        #[command(flatten)]
        options: TypedSim,
    },
    /// Print what a policy would do with a traced step: what is where, and what moves when
    Plan {
        /// Trace file, as written for SENTINEL_TRACE
        file: PathBuf,
        /// Fast memory: a share of the step's peak such as 20%, or bytes such as 512M or 2G (powers of 1024)
        #[arg(long, value_name = "AMOUNT", allow_hyphen_values = true)]
        fast: String,
        /// Policy that plans the moves: gap or hpca21
        #[arg(long, value_name = "NAME", default_value = Policy::DEFAULT.name())]
        policy: String,
        /// Machine profile: optane, cxl, hbm-ddr, swap-nvme, hbm-ddr-cxl or the path of a .toml file
        #[arg(long, value_name = "MACHINE", default_value = "optane")]
        machine: String,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
}

#[derive(clap::Args)]
struct TypedRun {
    /// Fast memory: bytes such as 512M or 2G (powers of 1024), or a share of the profiled step's peak such as 20%
    #[arg(long, value_name = "AMOUNT")]
    fast: Option<String>,
    /// Slow memory: numa, node:1, swap, swap:MACHINE or emulated:MACHINE
    #[arg(long, value_name = "TIER")]
    slow: Option<String>,
    /// Who decides: hpca21, gap, first_touch, fast_only or slow_only
    #[arg(long, value_name = "NAME")]
    policy: Option<String>,
    /// Who counts accesses in the profiled step: auto, op, kernel, kernel:tlb_miss or kernel:exact
    #[arg(long, value_name = "NAME")]
    profiler: Option<String>,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

#[derive(Subcommand)]
enum TypedTrace {
    /// List the operations of a step, one per line
    Show {
        /// Trace file, as written for SENTINEL_TRACE
        file: PathBuf,
        /// Print at most this many lines of the list
        #[arg(long, value_name = "N")]
        limit: Option<usize>,
        /// List the buffers instead of the operations
        #[arg(long)]
        buffers: bool,
    },
    /// Say whether a file is a well-formed trace, and if not, why
    Check {
        /// Trace file, as written for SENTINEL_TRACE
        file: PathBuf,
    },
    /// Write the step that another batch would make, from two recorded batches of one graph
    Scale {
        /// Trace of the first batch
        first: PathBuf,
        /// Trace of the second batch
        second: PathBuf,
        /// Examples per step in the two traces, in their order, such as 64,128
        #[arg(long, value_name = "A,B")]
        batches: String,
        /// Examples per step that are wanted
        #[arg(long, value_name = "K", allow_negative_numbers = true)]
        batch: u32,
        /// Where to write the scaled trace
        #[arg(short, long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Sum up a step: layers, buffers by class, peak, traffic, largest buffers
    Stats {
        /// Trace file, as written for SENTINEL_TRACE
        file: PathBuf,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
}

#[derive(clap::Args)]
struct TypedSim {
    /// Policies separated by commas: fast_only, gap, gap_at_ops, hpca21, layer_prefetch, static_optimum, hotness, ial,
    /// memory_mode, interleave, first_touch, slow_only; or all
    #[arg(long, value_name = "NAMES", default_value = "all")]
    policy: String,
    /// Fast memory: amounts such as 20% or 512M separated by commas, or a range of shares of the peak such as 5%..100%, in
    /// steps of five points
    #[arg(long, value_name = "AMOUNTS", default_value = "20%", allow_hyphen_values = true)]
    fast: String,
    /// Machine profile: optane, cxl, hbm-ddr, swap-nvme, hbm-ddr-cxl or the path of a .toml file
    #[arg(long, value_name = "MACHINE", default_value = "optane")]
    machine: String,
    /// Migration speed: peaks that each direction can move in one all-fast step, instead of what the machine profile says
    #[arg(long, value_name = "M", conflicts_with = "migration_gbps", allow_negative_numbers = true)]
    mhat: Option<f64>,
    /// Migration speed of each direction in GB/s of the machine, instead of what its profile says
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    migration_gbps: Option<f64>,
    /// Share of the all-fast step that is memory time, 0 to 1; without it 1, the hardest case for placement
    #[arg(long, value_name = "S", conflicts_with = "slow_ratio", allow_negative_numbers = true)]
    memory_share: Option<f64>,
    /// Set the memory share so that slow-only is this many times slower than all-fast
    #[arg(long, value_name = "R", allow_negative_numbers = true)]
    slow_ratio: Option<f64>,
    /// Count memory time as the emulated slow tier of the live runtime does
    #[arg(long, conflicts_with_all = ["memory_share", "slow_ratio"])]
    emulated: bool,
    /// Seconds of a step all fast, as measured in training: with it, predicts the step times of a live run
    #[arg(long, value_name = "S", requires = "emulated", conflicts_with = "mhat", allow_negative_numbers = true)]
    step_seconds: Option<f64>,
    /// Leave out the bound on any policy's throughput, which takes seconds for each budget
    #[arg(long)]
    no_bound: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Draw every policy's curve and the bound into this SVG file
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
}

#[derive(Subcommand)]
enum TypedBench {
    /// Every policy on every recorded model: calibration on published figures, comparison, robustness
    Policies {
        /// Folder with recorded steps, <model>.trace
        #[arg(long, value_name = "DIR", default_value = "sentinel_rs/testdata")]
        data: PathBuf,
        /// Folder with the published figures
        #[arg(long, value_name = "DIR", default_value = "bench/data/hpca21")]
        published: PathBuf,
        /// Folder for the full table
        #[arg(long, value_name = "DIR", default_value = "bench/results")]
        results: PathBuf,
        /// Leave out the full table; the comparison's figures are worked out all the same
        #[arg(long)]
        brief: bool,
    },
    /// Pack published instances and recorded steps at every effort: height over largest load, CPU seconds
    Packing {
        /// Traces to pack besides those in the folder
        traces: Vec<PathBuf>,
        /// Folder with packing/*.csv and *.trace
        #[arg(long, value_name = "DIR", default_value = "sentinel_rs/testdata")]
        data: PathBuf,
        /// Seconds for each exact search
        #[arg(long, value_name = "S", default_value_t = 60, value_parser = clap::value_parser!(u64).range(..=86_400))]
        exact_seconds: u64,
    },
    /// Plan synthetic steps of growing size with every policy that plans: CPU seconds, memory, how they grow
    Planning {
        /// Buffers of each step, separated by commas; a tenth as many ops
        #[arg(
            long,
            value_name = "N",
            value_delimiter = ',',
            default_value = "1000,10000,100000,1000000",
            allow_negative_numbers = true
        )]
        buffers: Vec<u32>,
        /// Measure one POLICY:BUFFERS in this process, and print that only
        #[arg(long, value_name = "CASE", hide = true)]
        case: Option<String>,
    },
}

/// What to do.
pub enum Command {
    /// Run a command.
    Run(run::Order),
    /// Look at the machine.
    Doctor(doctor::Order),
    /// Simulate.
    Sim { file: PathBuf, question: Box<Question>, json: bool, plot: Option<PathBuf> },
    /// Measure policies.
    BenchPolicies { data: PathBuf, published: PathBuf, results: PathBuf, brief: bool },
    /// List ops or buffers.
    Show { file: PathBuf, limit: usize, buffers: bool },
    /// Look for damage and broken rules.
    Check { file: PathBuf },
    /// Make a step for another batch from two steps with their batches.
    Scale { steps: [(PathBuf, u32); 2], batch: u32, out: PathBuf },
    /// Sum up.
    Stats { file: PathBuf, json: bool },
    /// Measure packing.
    BenchPacking { data: PathBuf, traces: Vec<PathBuf>, exact_limit: Duration },
    /// Measure planning at these numbers of buffers.
    BenchPlanning { buffers: Vec<u32> },
    /// Measure planning in this process.
    BenchPlanningCase(Case),
    /// Plan.
    Plan { file: PathBuf, fast: Budget, policy: Policy, machine: Machine, json: bool },
}

/// What the command line asks for.
pub enum Parsed {
    /// A command.
    Command(Command),
    /// Help or the version, printed already.
    Answered,
    /// Nothing that can be done, and why.
    Wrong(String),
}

/// Reads the process's arguments.
pub fn parse() -> Parsed {
    match Typed::try_parse() {
        Ok(typed) => match understand(typed.command) {
            Ok(command) => Parsed::Command(command),
            Err(message) => Parsed::Wrong(message),
        },
        Err(answer) if !answer.use_stderr() => {
            // A reader of the help that has gone away has seen enough.
            let _ = answer.print();
            Parsed::Answered
        }
        Err(error) => {
            let text = error.render().to_string();
            Parsed::Wrong(text.strip_prefix("error: ").unwrap_or(&text).to_owned())
        }
    }
}

fn understand(typed: TypedCommand) -> Result<Command, String> {
    Ok(match typed {
        TypedCommand::Run(TypedRun { fast, slow, policy, profiler, command }) => {
            Command::Run(run::order(fast, slow, policy, profiler, command)?)
        }
        TypedCommand::Trace { command: TypedTrace::Show { file, limit, buffers } } => {
            Command::Show { file, limit: limit.unwrap_or(usize::MAX), buffers }
        }
        TypedCommand::Trace { command: TypedTrace::Check { file } } => Command::Check { file },
        TypedCommand::Trace { command: TypedTrace::Stats { file, json } } => Command::Stats { file, json },
        TypedCommand::Trace { command: TypedTrace::Scale { first, second, batches, batch, out } } => {
            let (first_batch, second_batch) = two_batches(&batches)?;
            Command::Scale { steps: [(first, first_batch), (second, second_batch)], batch, out }
        }
        TypedCommand::Sim { file, options } => {
            let (json, plot) = (options.json, options.plot.clone());
            Command::Sim { file, question: Box::new(question(options)?), json, plot }
        }
        TypedCommand::Doctor { json, quick, measure, python } => {
            Command::Doctor(doctor::Order { json, quick, profile: measure, python })
        }
        TypedCommand::Bench { command: TypedBench::Policies { data, published, results, brief } } => {
            Command::BenchPolicies { data, published, results, brief }
        }
        TypedCommand::Bench { command: TypedBench::Packing { traces, data, exact_seconds } } => {
            Command::BenchPacking { data, traces, exact_limit: Duration::from_secs(exact_seconds) }
        }
        TypedCommand::Bench { command: TypedBench::Planning { case: Some(case), .. } } => {
            Command::BenchPlanningCase(planning_case(&case).map_err(|why| format!("--case = {case}: {why}"))?)
        }
        TypedCommand::Bench { command: TypedBench::Planning { buffers, case: None } } => {
            buffers
                .iter()
                .try_for_each(|&count| measurable(count).map_err(|why| format!("--buffers = {count}: {why}")))?;
            Command::BenchPlanning { buffers }
        }
        TypedCommand::Plan { file, fast, policy, machine, json } => Command::Plan {
            file,
            policy: Policy::by_name(&policy)
                .filter(|policy| policy.plans())
                .ok_or_else(|| planning::unplanned(&policy))?,
            fast: fast.parse().map_err(|why| format!("--fast = {fast}: {why}"))?,
            machine: Machine::by_name(&machine).map_err(|error| format!("--machine = {machine}: {error}"))?,
            json,
        },
    })
}

/// `POLICY:BUFFERS`.
fn planning_case(text: &str) -> Result<Case, String> {
    let accepted = "accepted is POLICY:BUFFERS, such as hpca21:1000";
    let (policy, buffers) = text.split_once(':').ok_or(accepted)?;
    let case =
        Case { policy: Policy::by_name(policy).ok_or(accepted)?, buffers: buffers.parse().map_err(|_| accepted)? };
    measurable(case.buffers)?;
    Ok(case)
}

fn measurable(buffers: u32) -> Result<(), String> {
    if !BUFFERS.contains(&buffers) {
        return Err(format!("accepted are numbers from {} to {}", BUFFERS.start(), BUFFERS.end()));
    }
    Ok(())
}

fn two_batches(text: &str) -> Result<(u32, u32), String> {
    let read = |number: &str| number.trim().parse::<u32>().ok().filter(|&batch| batch > 0);
    let parts = text.split_once(',').and_then(|(first, second)| Some((read(first)?, read(second)?)));
    parts.ok_or_else(|| format!("--batches = {text}: accepted are two whole numbers above 0, such as 64,128"))
}

fn question(typed: TypedSim) -> Result<Question, String> {
    let within = |name: &str, value: f64, range: RangeInclusive<f64>| {
        in_range(value, &range).map_err(|accepted| format!("{name} = {value}: {accepted}"))
    };
    let migration = match (typed.mhat, typed.migration_gbps) {
        (Some(m_hat), _) => Migration::MHat(within("--mhat", m_hat, M_HAT_RANGE)?),
        (None, Some(gbps)) => Migration::Gbps(within("--migration-gbps", gbps, GBPS_RANGE)?),
        (None, None) => Migration::AsMachine,
    };
    let memory = match (typed.memory_share, typed.slow_ratio) {
        (Some(share), _) if !(0.0..=1.0).contains(&share) => {
            return Err(format!("--memory-share = {share}: accepted is 0 to 1"))
        }
        (_, Some(ratio)) if !(ratio.is_finite() && ratio >= 1.0) => {
            return Err(format!("--slow-ratio = {ratio}: accepted is a finite number of at least 1"))
        }
        (Some(share), _) => MemoryTime::Share(share),
        (None, Some(ratio)) => MemoryTime::SlowRatio(ratio),
        (None, None) if typed.emulated => MemoryTime::Emulated,
        (None, None) => MemoryTime::Share(1.0),
    };
    let step_seconds = typed.step_seconds.map(|own| within("--step-seconds", own, STEP_SECONDS_RANGE)).transpose()?;
    Ok(Question {
        policies: parse_policies(&typed.policy).map_err(|why| format!("--policy = {}: {why}", typed.policy))?,
        budgets: parse_budgets(&typed.fast).map_err(|why| format!("--fast = {}: {why}", typed.fast))?,
        machine: Machine::by_name(&typed.machine).map_err(|e| format!("--machine = {}: {e}", typed.machine))?,
        migration,
        memory,
        step_ns: step_seconds.map(|seconds| seconds * 1e9),
        bound: !typed.no_bound,
    })
}
