//! From a session's options to the process's one runtime.

mod nodes;

use crate::limit::{self, Limit};
use crate::memory::Memory;
use crate::options::{self, Failure, FastBudget, OptionError, Options, SlowTier};
use crate::placement::Placement;
use crate::profiler::{self, PageProfiler};
use crate::runtime::Runtime;
use crate::tiers::emulated::EmulatedTiers;
use crate::tiers::numa::{NumaTiers, SystemCalls};
use crate::tiers::single::SingleTier;
use crate::tiers::swap::{SwapTiers, SystemSwap};
use place::Tiers;
use plan::{Machine, Policy};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use sys::host::Footprint;

/// Machine profile whose memory the planner assumes for NUMA tiers; the speed of moves is measured.
const NUMA_MACHINE: &str = "optane";

static RUNTIME: OnceLock<Arc<Runtime>> = OnceLock::new();
static SETUP: Mutex<()> = Mutex::new(());
static ADVICE: Mutex<Option<String>> = Mutex::new(None);

/// Why a session cannot have what it asked for.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// An option cannot be accepted.
    #[error(transparent)]
    Option(#[from] OptionError),
    /// A second session wants something else than the first.
    #[error(
        "sentinel: {option} = {wanted}: the process already runs with {option} = {running}; accepted in one process is one \
         set of options"
    )]
    Differs {
        /// The field.
        option: &'static str,
        /// What this session wants.
        wanted: String,
        /// What the first one chose.
        running: String,
    },
    /// A resource cannot be had.
    #[error("sentinel: {option} = {value}: {reason}")]
    Resource {
        /// The field that asked for it.
        option: &'static str,
        /// Its value.
        value: String,
        /// What is missing, and what would do.
        reason: String,
    },
}

/// The process's runtime, when a session has set it up.
#[must_use]
pub fn runtime() -> Option<&'static Arc<Runtime>> {
    RUNTIME.get()
}

/// The latest advice of a set-up that stepped down.
#[must_use]
pub fn advice() -> Option<String> {
    ADVICE.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Sets Sentinel up for a session with this serialized `ConfigProto`. `None`: the session runs without it.
///
/// # Errors
/// When an option cannot be accepted, when it differs from the running set-up's, or, with `STRICT`, when a resource
/// cannot be had.
pub fn configure(config: &[u8]) -> Result<Option<&'static Arc<Runtime>>, SetupError> {
    let variables: Vec<(String, String)> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.to_string_lossy().into_owned())))
        .collect();
    start_log();
    let Some(options) = options::parse(config, &variables)? else { return Ok(None) };
    let _alone = SETUP.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(runtime) = RUNTIME.get() {
        same_options(&runtime.options, &options)?;
        return Ok(Some(runtime));
    }
    if let Some(path) = &options.trace_path {
        writable(path)?;
    }
    let page_profiler = choose_profiler(&options)?;
    sys::process::watch_forks();
    let failure = options.failure;
    match build(options) {
        Ok(mut runtime) => {
            runtime.page_profiler = page_profiler;
            Ok(Some(RUNTIME.get_or_init(|| Arc::new(runtime))))
        }
        Err(error) if failure == Failure::Strict => Err(error),
        Err(error) => {
            step_down(&error);
            Ok(None)
        }
    }
}

fn start_log() {
    let environment = env_logger::Env::new().filter_or("SENTINEL_LOG", "warn");
    // A second session finds the logger in place.
    if env_logger::Builder::from_env(environment).format_target(false).try_init().is_ok() {
        log::debug!("sentinel {}", env!("CARGO_PKG_VERSION"));
    }
}

fn step_down(error: &SetupError) {
    let text = format!("{error}; training goes on without Sentinel");
    let mut advice = ADVICE.lock().unwrap_or_else(PoisonError::into_inner);
    if advice.as_ref() != Some(&text) {
        log::warn!("{text}");
        *advice = Some(text);
    }
}

fn same_options(running: &Options, wanted: &Options) -> Result<(), SetupError> {
    let number = |gbps: Option<f64>| gbps.map_or_else(|| "the machine's own".to_owned(), |gbps| gbps.to_string());
    let path = |path: Option<&PathBuf>| path.map_or_else(|| "none".to_owned(), |path| path.display().to_string());
    let threads = |options: &Options| options.mover_threads.unwrap_or(0).to_string();
    let pairs: [(&'static str, String, String); 10] = [
        ("fast", running.fast.to_string(), wanted.fast.to_string()),
        ("policy", running.policy.name().to_owned(), wanted.policy.name().to_owned()),
        ("slow", running.slow.to_string(), wanted.slow.to_string()),
        ("fast_nodes", running.fast_nodes.to_string(), wanted.fast_nodes.to_string()),
        ("migration_gbps", number(running.migration_gbps), number(wanted.migration_gbps)),
        ("warmup_steps", running.warmup_steps.to_string(), wanted.warmup_steps.to_string()),
        ("profiler", running.profiler.to_string(), wanted.profiler.to_string()),
        ("failure", format!("{:?}", running.failure), format!("{:?}", wanted.failure)),
        // A session that does not say takes what there is.
        ("mover_threads", threads(running), threads(if wanted.mover_threads.is_some() { wanted } else { running })),
        ("trace_path", path(running.trace_path.as_ref()), path(wanted.trace_path.as_ref())),
    ];
    match pairs.into_iter().find(|(_, running, wanted)| running != wanted) {
        Some((option, running, wanted)) => Err(SetupError::Differs { option, wanted, running }),
        None => Ok(()),
    }
}

/// A trace path that cannot be written is a mistake to find before training, not after the profiled step.
fn writable(path: &Path) -> Result<(), SetupError> {
    let refused = |why: String| {
        SetupError::Option(OptionError {
            option: "trace_path".to_owned(),
            value: path.display().to_string(),
            accepted: format!("{why}; accepted is a file in a folder that can be written"),
        })
    };
    // Looked at before it is opened: opening a pipe would wait for its reader.
    let existed = path.exists();
    if existed && !path.is_file() {
        return Err(refused("is there and is not a regular file".to_owned()));
    }
    match std::fs::OpenOptions::new().append(true).create(true).open(path) {
        Ok(_) => {
            if !existed {
                // The empty probe is of no use to anybody; if it cannot go, the trace replaces it.
                drop(std::fs::remove_file(path));
            }
            Ok(())
        }
        Err(error) => Err(refused(format!("cannot be written ({error})"))),
    }
}

/// The kernel's profiler as asked for. An option that insists on it is refused where there is none, however lenient the user
/// is with other resources: stepping down is what `auto` is for.
fn choose_profiler(options: &Options) -> Result<Option<PageProfiler>, OptionError> {
    PageProfiler::choose(options.profiler, profiler::open_device).map_err(|error| OptionError {
        option: "profiler".to_owned(),
        value: options.profiler.to_string(),
        accepted: format!("{error}; accepted here are auto and op"),
    })
}

fn build(mut options: Options) -> Result<Runtime, SetupError> {
    let ram_bytes = sys::topology::total_ram_bytes().map_err(|error| resource(&options, &error))?;
    let limit = matches!(options.fast, FastBudget::MemoryLimit).then(|| Limit::find(Path::new("/")));
    let mut fast_bytes = match options.fast {
        FastBudget::Bytes(bytes) => bytes,
        FastBudget::Fraction(_) => 0,
        FastBudget::Unlimited => u64::MAX,
        FastBudget::MemoryLimit => {
            limit.as_ref().and_then(|limit| limit.for_tensors(Footprint::default())).unwrap_or(u64::MAX)
        }
    };
    let (tiers, emulated, machine): (Arc<dyn Tiers>, _, Machine) = match &options.slow {
        SlowTier::Emulated(name) => {
            let mut machine = Machine::by_name(name).map_err(|error| resource(&options, &error))?;
            if let Some(gbps) = options.migration_gbps {
                (machine.promote_gbps, machine.demote_gbps) = (gbps, gbps);
            }
            let tiers = Arc::new(EmulatedTiers::new(machine.clone(), format!("emulated:{name}")));
            (Arc::clone(&tiers) as Arc<dyn Tiers>, Some(tiers), machine)
        }
        SlowTier::Swap(name) => {
            let machine = Machine::by_name(name).map_err(|error| resource(&options, &error))?;
            let areas =
                limit::swap_in_words(&sys::host::swaps(Path::new("/"))).map_err(|why| resource(&options, &why))?;
            limit::may_swap(Path::new("/")).map_err(|why| resource(&options, &why))?;
            let tiers = SwapTiers::new(SystemSwap, areas).map_err(|error| resource(&options, &error))?;
            (Arc::new(tiers), None, machine)
        }
        SlowTier::Nodes(None) if options.policy == Policy::FastOnly && nodes::is_single(Path::new("/"), &options)? => {
            let machine = Machine::by_name(NUMA_MACHINE).map_err(|error| resource(&options, &error))?;
            (Arc::new(SingleTier), None, machine)
        }
        SlowTier::Nodes(list) => {
            let chosen = nodes::choose(Path::new("/"), &options, list.as_ref())?;
            chosen.announce(Path::new("/"));
            fast_bytes = chosen.fitting(fast_bytes, &options)?;
            options.mover_threads.get_or_insert(chosen.mover_threads());
            let machine = Machine::by_name(NUMA_MACHINE).map_err(|error| resource(&options, &error))?;
            let machine = chosen.as_fast_as_it_is(machine);
            (Arc::new(NumaTiers::new(SystemCalls, chosen.fast, chosen.slow)), None, machine)
        }
    };
    let mut memory = Memory::reserve(tiers, 2 * ram_bytes, fast_bytes).map_err(|error| {
        let hint =
            "this reserves address space, not memory; is there a limit, such as `ulimit -v`, or strict overcommit?";
        resource(&options, &format!("{error}; {hint}"))
    })?;
    memory.placement = Placement::every(options.check_placement);
    let shown = options.clone();
    let mut runtime = Runtime::assemble(options, Arc::new(memory), machine, emulated);
    if let Ok(runtime) = &mut runtime {
        runtime.limit = limit;
    }
    runtime.map_err(|error| resource(&shown, &error))
}

fn resource(options: &Options, reason: &dyn std::fmt::Display) -> SetupError {
    SetupError::Resource { option: "slow", value: options.slow.to_string(), reason: reason.to_string() }
}
