//! What the user chose: the typed field of the session's `ConfigProto`, overridden by `SENTINEL_*` variables.
//!
//! A mistyped name or value is an error here, before training: a run must never train unmanaged because of a typo.

use crate::handover;
use plan::{in_range, Policy, GBPS_RANGE};
use protobuf::{CodedInputStream, Enum, Message};
use std::path::PathBuf;
use sys::topology::NodeList;
use trace::proto::sentinel::{sentinel_options, SentinelOptions};
use trace::CountMode;

/// Field numbers of `ConfigProto.experimental` and of `sentinel` in it.
const CONFIG_EXPERIMENTAL: u32 = 16;
const EXPERIMENTAL_SENTINEL: u32 = 200;
const PUBLISHED_WARMUP_STEPS: u64 = 10;

/// Machine profile whose speeds the planner assumes for swap, unless another one is named.
const SWAP_MACHINE: &str = "swap-nvme";

/// The variable that has the system asked where pages are.
const CHECK_PLACEMENT: &str = "SENTINEL_CHECK_PLACEMENT";

/// Every variable that Sentinel or its tools read.
const VARIABLES: [&str; 17] = [
    "SENTINEL",
    "SENTINEL_FAST",
    "SENTINEL_POLICY",
    "SENTINEL_SLOW",
    "SENTINEL_FAST_NODES",
    "SENTINEL_MIGRATION_GBPS",
    "SENTINEL_WARMUP_STEPS",
    "SENTINEL_FAILURE",
    "SENTINEL_MOVER_THREADS",
    "SENTINEL_PROFILER",
    "SENTINEL_TRACE",
    "SENTINEL_STATS",
    CHECK_PLACEMENT,
    "SENTINEL_LOG",
    "SENTINEL_PYTHON",
    "SENTINEL_CACHE",
    "SENTINEL_EARLY_LOAD",
];

/// The fast memory that tensors may use.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum FastBudget {
    /// This many bytes.
    Bytes(u64),
    /// This share of the profiled step's peak.
    Fraction(f64),
    /// What the memory limit leaves to tensors: that of the control group, else the machine's memory.
    MemoryLimit,
    /// As much as they like.
    Unlimited,
}

impl std::fmt::Display for FastBudget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            FastBudget::Bytes(bytes) => write!(f, "{bytes} bytes"),
            FastBudget::Fraction(share) => write!(f, "{}% of the peak", 100.0 * share),
            FastBudget::MemoryLimit => f.write_str("what the memory limit leaves"),
            FastBudget::Unlimited => f.write_str("no limit"),
        }
    }
}

/// Where slow memory comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SlowTier {
    /// One node; slowness is added by delay, after this machine profile.
    Emulated(String),
    /// Swap; the planner assumes the speeds of this machine profile.
    Swap(String),
    /// NUMA nodes; `None` picks the CPU-less ones.
    Nodes(Option<NodeList>),
}

impl std::fmt::Display for SlowTier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            SlowTier::Emulated(machine) => write!(f, "emulated:{machine}"),
            SlowTier::Swap(machine) if machine == SWAP_MACHINE => f.write_str("swap"),
            SlowTier::Swap(machine) => write!(f, "swap:{machine}"),
            SlowTier::Nodes(Some(list)) => write!(f, "node:{list}"),
            SlowTier::Nodes(None) => f.write_str("numa"),
        }
    }
}

/// Who counts accesses in the profiled step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profiler {
    /// The kernel where it can, else operations.
    Auto,
    /// The kernel, or the session is refused.
    Kernel(CountMode),
    /// Operations.
    Op,
}

impl std::fmt::Display for Profiler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Profiler::Auto => "auto",
            Profiler::Kernel(mode) => mode.profiler_name(),
            Profiler::Op => "op",
        })
    }
}

/// What to do when a resource cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Train on without Sentinel, say so once, count it.
    Advisory,
    /// Stop with an error.
    Strict,
}

/// Everything the user chose, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Fast memory.
    pub fast: FastBudget,
    /// Policy.
    pub policy: Policy,
    /// Slow tier.
    pub slow: SlowTier,
    /// Fast nodes of a NUMA machine.
    pub fast_nodes: NodeList,
    /// Migration bandwidth per direction of the emulated tier, in 10^9 bytes per second; `None` for the machine's own.
    pub migration_gbps: Option<f64>,
    /// Steps of a graph before the profiled one.
    pub warmup_steps: u64,
    /// Who counts accesses in the profiled step.
    pub profiler: Profiler,
    /// What to do when a resource cannot be had.
    pub failure: Failure,
    /// Where the trace of the profiled step goes.
    pub trace_path: Option<PathBuf>,
    /// Threads that move pages in each direction; `None` for as many as the topology calls for.
    pub mover_threads: Option<u32>,
    /// Layer boundaries from one check of where pages are to the next; 0 for none.
    pub check_placement: u64,
}

/// An option that cannot be accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("sentinel: {option} = {value}: {accepted}")]
pub struct OptionError {
    /// The field or variable.
    pub option: String,
    /// What it was set to.
    pub value: String,
    /// Why not, and what is accepted.
    pub accepted: String,
}

fn refuse(option: &str, value: impl std::fmt::Display, accepted: impl Into<String>) -> OptionError {
    OptionError { option: option.to_owned(), value: value.to_string(), accepted: accepted.into() }
}

/// Reads the options of one session. `None` means that this session is not Sentinel's: nothing asked for it.
///
/// # Errors
/// The first option that is unknown or out of range.
pub fn parse(config: &[u8], variables: &[(String, String)]) -> Result<Option<Options>, OptionError> {
    let mut message = sentinel_field(config)?;
    if let Some(number) = message.special_fields.unknown_fields().iter().map(|(number, _)| number).next() {
        return Err(refuse(
            "config.experimental.sentinel",
            format!("field {number}"),
            "no such field in SentinelOptions",
        ));
    }
    let (fast_variable, from) = apply_variables(&mut message, variables)?;
    if variables.iter().any(|(name, value)| name == "SENTINEL" && value == "0") {
        return Ok(None);
    }
    let failure = match message.failure.enum_value() {
        Ok(sentinel_options::Failure::ADVISORY) => Failure::Advisory,
        Ok(sentinel_options::Failure::STRICT) => Failure::Strict,
        Ok(sentinel_options::Failure::OFF) => return Ok(None),
        Err(number) => return Err(refuse("failure", number, "accepted are ADVISORY, STRICT and OFF")),
    };
    let policy = policy_of(from.name("policy"), &message.policy)?;
    let slow = slow_of(from.name("slow"), &message.slow)?;
    let fast_nodes = match message.fast_nodes.as_str() {
        "" => NodeList::single(0),
        text => nodes_of(from.name("fast_nodes"), text)?,
    };
    let migration_gbps = migration_of(from.name("migration_gbps"), message.migration_gbps)?;
    let profiler = profiler_of(from.name("profiler"), &message.profiler)?;
    let Some(fast) = fast_of(&message, fast_variable, policy, &slow, &from)? else {
        return match without_budget(&message) {
            Some((field, value)) => Err(refuse(from.name(field), value, NEEDS_BUDGET)),
            None => Ok(None),
        };
    };
    Ok(Some(Options {
        fast,
        policy,
        slow,
        fast_nodes,
        migration_gbps,
        warmup_steps: match message.warmup_steps {
            0 => PUBLISHED_WARMUP_STEPS,
            steps => u64::try_from(steps).unwrap_or(0),
        },
        profiler,
        failure,
        trace_path: (!message.trace_path.is_empty()).then(|| PathBuf::from(&message.trace_path)),
        mover_threads: mover_threads_of(from.name("mover_threads"), message.mover_threads)?,
        check_placement: check_placement_of(variables)?,
    }))
}

const NEEDS_BUDGET: &str = "this needs a budget; set fast_bytes, fast_fraction or SENTINEL_FAST";

/// An option that was set although there is no budget for it to work on.
fn without_budget(message: &SentinelOptions) -> Option<(&'static str, String)> {
    let set = [
        ("policy", message.policy.clone()),
        ("slow", message.slow.clone()),
        ("fast_nodes", message.fast_nodes.clone()),
        ("trace_path", message.trace_path.clone()),
        ("mover_threads", if message.mover_threads == 0 { String::new() } else { message.mover_threads.to_string() }),
        ("profiler", message.profiler.clone()),
        ("warmup_steps", if message.warmup_steps == 0 { String::new() } else { message.warmup_steps.to_string() }),
        (
            "migration_gbps",
            if message.migration_gbps == 0.0 { String::new() } else { message.migration_gbps.to_string() },
        ),
    ];
    set.into_iter().find(|(_, value)| !value.is_empty())
}

/// Which options came from variables, so that an error names what the user wrote.
#[derive(Debug, Default)]
struct Source(Vec<(&'static str, &'static str)>);

impl Source {
    fn name(&self, field: &'static str) -> &'static str {
        self.0.iter().find(|(known, _)| *known == field).map_or(field, |&(_, variable)| variable)
    }
}

/// Variables that replace a field.
const REPLACES: [(&str, &str); 9] = [
    ("policy", "SENTINEL_POLICY"),
    ("slow", "SENTINEL_SLOW"),
    ("fast_nodes", "SENTINEL_FAST_NODES"),
    ("trace_path", "SENTINEL_TRACE"),
    ("profiler", "SENTINEL_PROFILER"),
    ("migration_gbps", "SENTINEL_MIGRATION_GBPS"),
    ("warmup_steps", "SENTINEL_WARMUP_STEPS"),
    ("failure", "SENTINEL_FAILURE"),
    ("mover_threads", "SENTINEL_MOVER_THREADS"),
];

/// The bytes of field 200 of field 16 of a serialized `ConfigProto`; repeated ones merge, as the wire format says.
fn sentinel_field(config: &[u8]) -> Result<SentinelOptions, OptionError> {
    let broken =
        |error: protobuf::Error| refuse("config.experimental.sentinel", error, "not a SentinelOptions message");
    let mut options = SentinelOptions::new();
    for experimental in submessages(config, CONFIG_EXPERIMENTAL).map_err(broken)? {
        for field in submessages(&experimental, EXPERIMENTAL_SENTINEL).map_err(broken)? {
            options.merge_from_bytes(&field).map_err(broken)?;
        }
    }
    Ok(options)
}

fn submessages(message: &[u8], wanted: u32) -> Result<Vec<Vec<u8>>, protobuf::Error> {
    const LENGTH_DELIMITED: u32 = 2;
    let mut found = Vec::new();
    let mut input = CodedInputStream::from_bytes(message);
    while let Some(tag) = input.read_raw_tag_or_eof()? {
        if tag == (wanted << 3) | LENGTH_DELIMITED {
            found.push(input.read_bytes()?);
            continue;
        }
        match tag & 7 {
            0 => drop(input.read_raw_varint64()?),
            1 => drop(input.read_fixed64()?),
            2 => drop(input.read_bytes()?),
            _ => drop(input.read_fixed32()?),
        }
    }
    Ok(found)
}

/// A budget that came as text, with the variable's spelling of it.
type FastText = Option<(FastBudget, String)>;

fn apply_variables(
    message: &mut SentinelOptions,
    variables: &[(String, String)],
) -> Result<(FastText, Source), OptionError> {
    let mut fast = None;
    let mut from = Source::default();
    for (name, value) in variables {
        if !name.starts_with("SENTINEL_") && name != "SENTINEL" {
            continue;
        }
        if !VARIABLES.contains(&name.as_str()) {
            return Err(refuse(name, value, format!("no such variable; accepted are {}", VARIABLES.join(", "))));
        }
        from.0.extend(REPLACES.iter().find(|(_, variable)| variable == name));
        match name.as_str() {
            "SENTINEL" if value != "0" && value != "1" => return Err(refuse(name, value, "accepted are 0 and 1")),
            "SENTINEL_FAST" => fast = Some((parse_fast(name, value)?, value.clone())),
            "SENTINEL_POLICY" => message.policy.clone_from(value),
            "SENTINEL_SLOW" => message.slow.clone_from(value),
            "SENTINEL_FAST_NODES" => message.fast_nodes.clone_from(value),
            handover::VARIABLE => handover::check(value)?,
            "SENTINEL_TRACE" => message.trace_path.clone_from(value),
            "SENTINEL_PROFILER" => message.profiler.clone_from(value),
            "SENTINEL_MIGRATION_GBPS" => {
                // Zero, which is what an unset field says, is no speed here.
                let gbps = value.parse().unwrap_or(f64::NAN);
                message.migration_gbps = gbps_of(gbps).map_err(|accepted| refuse(name, value, accepted))?;
            }
            "SENTINEL_WARMUP_STEPS" => {
                let steps: i32 = value
                    .parse()
                    .ok()
                    .filter(|&steps| steps >= 0)
                    .ok_or_else(|| refuse(name, value, "accepted is a whole number of steps from 0"))?;
                message.warmup_steps = if steps == 0 { -1 } else { steps };
            }
            "SENTINEL_MOVER_THREADS" => {
                let threads: Option<i32> = value.parse().ok().filter(|&threads| threads > 0);
                message.mover_threads = threads.ok_or_else(|| refuse(name, value, MOVER_THREADS_ACCEPTED))?;
            }
            "SENTINEL_FAILURE" => {
                message.failure = sentinel_options::Failure::from_str(&value.to_ascii_uppercase())
                    .ok_or_else(|| refuse(name, value, "accepted are advisory, strict and off"))?
                    .into();
            }
            _ => {}
        }
    }
    Ok((fast, from))
}

/// `2G`, `512M`, `64k`, `1000000` or `20%`.
fn parse_fast(option: &str, text: &str) -> Result<FastBudget, OptionError> {
    let accepted =
        "accepted are bytes with an optional K, M, G or T (powers of 1024), or a share of the peak such as 20%";
    let refused = || refuse(option, text, accepted);
    let trimmed = text.trim();
    if let Some(percent) = trimmed.strip_suffix('%') {
        let percent: f64 = percent.trim().parse().map_err(|_| refused())?;
        return if percent > 0.0 && percent <= 100.0 {
            Ok(FastBudget::Fraction(percent / 100.0))
        } else {
            Err(refuse(option, text, "a share of the peak must be above 0% and at most 100%"))
        };
    }
    let (digits, shift) = match trimmed.char_indices().last() {
        Some((at, unit)) if unit.is_ascii_alphabetic() => {
            let shift = match unit.to_ascii_uppercase() {
                'K' => 10,
                'M' => 20,
                'G' => 30,
                'T' => 40,
                _ => return Err(refused()),
            };
            (&trimmed[..at], shift)
        }
        _ => (trimmed, 0),
    };
    let number: u64 = digits.trim().parse().map_err(|_| refused())?;
    match number.checked_mul(1 << shift) {
        Some(bytes) if bytes > 0 => Ok(FastBudget::Bytes(bytes)),
        _ => Err(refused()),
    }
}

fn fast_of(
    message: &SentinelOptions,
    text: FastText,
    policy: Policy,
    slow: &SlowTier,
    from: &Source,
) -> Result<Option<FastBudget>, OptionError> {
    if message.fast_bytes < 0 {
        return Err(refuse("fast_bytes", message.fast_bytes, "accepted is a number of bytes above 0"));
    }
    let share = message.fast_fraction;
    if share != 0.0 && !(share > 0.0 && share <= 1.0) {
        return Err(refuse("fast_fraction", share, "accepted is a share of the peak above 0 and at most 1"));
    }
    if message.fast_bytes > 0 && share > 0.0 && text.is_none() {
        let both = format!("{} with fast_bytes = {}", share, message.fast_bytes);
        return Err(refuse("fast_fraction", both, "set one of the two"));
    }
    Ok(match policy {
        Policy::FastOnly => Some(FastBudget::Unlimited),
        Policy::SlowOnly => Some(FastBudget::Bytes(0)),
        Policy::Hpca21 | Policy::Gap | Policy::FirstTouch => match (text, message.fast_bytes) {
            (Some((fast, _)), _) => Some(fast),
            (None, 0) if share > 0.0 => Some(FastBudget::Fraction(share)),
            (None, 0) if matches!(slow, SlowTier::Swap(_)) => Some(FastBudget::MemoryLimit),
            (None, 0) if !message.policy.is_empty() => {
                return Err(refuse(from.name("policy"), policy.name(), NEEDS_BUDGET));
            }
            (None, 0) => None,
            (None, bytes) => Some(FastBudget::Bytes(u64::try_from(bytes).unwrap_or(0))),
        },
    })
}

fn check_placement_of(variables: &[(String, String)]) -> Result<u64, OptionError> {
    let Some((name, value)) = variables.iter().find(|(name, _)| name == CHECK_PLACEMENT) else { return Ok(0) };
    let every = value.parse().ok().filter(|&every: &u64| every > 0);
    every.ok_or_else(|| refuse(name, value, "accepted is a whole number of layer boundaries from 1"))
}

/// More threads than this only get into each other's way: they share one channel to memory.
const MOVER_THREADS_MAX: u32 = 16;
const MOVER_THREADS_ACCEPTED: &str = "accepted is a number of threads per direction from 1 to 16";

fn mover_threads_of(option: &str, threads: i32) -> Result<Option<u32>, OptionError> {
    match u32::try_from(threads) {
        Ok(0) => Ok(None),
        Ok(threads) if threads <= MOVER_THREADS_MAX => Ok(Some(threads)),
        _ => Err(refuse(option, threads, MOVER_THREADS_ACCEPTED)),
    }
}

fn policy_of(option: &str, name: &str) -> Result<Policy, OptionError> {
    if name.is_empty() {
        return Ok(Policy::DEFAULT);
    }
    Policy::by_name(name).ok_or_else(|| {
        let names: Vec<&str> = Policy::NAMES.iter().map(|&(name, _)| name).collect();
        refuse(option, name, format!("no such policy; accepted are {}", names.join(", ")))
    })
}

fn profiler_of(option: &str, text: &str) -> Result<Profiler, OptionError> {
    match text {
        "" | "auto" => Ok(Profiler::Auto),
        "op" => Ok(Profiler::Op),
        "kernel" | "kernel:tlb_miss" => Ok(Profiler::Kernel(CountMode::TlbMiss)),
        "kernel:exact" => Ok(Profiler::Kernel(CountMode::Exact)),
        _ => Err(refuse(option, text, "accepted are auto, op, kernel, kernel:tlb_miss and kernel:exact")),
    }
}

fn slow_of(option: &str, text: &str) -> Result<SlowTier, OptionError> {
    let known = |machine: &str| match plan::Machine::by_name(machine) {
        Ok(_) => Ok(machine.to_owned()),
        Err(error) => Err(refuse(option, text, error.to_string())),
    };
    match text {
        "" | "numa" => Ok(SlowTier::Nodes(None)),
        "swap" => Ok(SlowTier::Swap(SWAP_MACHINE.to_owned())),
        _ => match text.split_once(':') {
            Some(("emulated", machine)) => Ok(SlowTier::Emulated(known(machine)?)),
            Some(("swap", machine)) => Ok(SlowTier::Swap(known(machine)?)),
            Some(("node", _)) => Ok(SlowTier::Nodes(Some(nodes_of(option, text)?))),
            _ => Err(refuse(
                option,
                text,
                "no such slow tier; accepted are numa, node:LIST, swap, swap:MACHINE and emulated:MACHINE",
            )),
        },
    }
}

fn nodes_of(option: &str, text: &str) -> Result<NodeList, OptionError> {
    let list = text.strip_prefix("node:").unwrap_or(text);
    NodeList::parse(list).map_err(|error| refuse(option, text, format!("{error}; accepted is node:N or node:N-M,...")))
}

fn migration_of(option: &str, gbps: f64) -> Result<Option<f64>, OptionError> {
    if gbps == 0.0 {
        return Ok(None);
    }
    gbps_of(gbps).map(Some).map_err(|accepted| refuse(option, gbps, accepted))
}

/// The speeds that a machine profile may have, and `--migration-gbps` of `sentinel sim`.
fn gbps_of(gbps: f64) -> Result<f64, String> {
    in_range(gbps, &GBPS_RANGE).map_err(|accepted| format!("{accepted} (10^9 bytes per second)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config_with(options: &SentinelOptions) -> Vec<u8> {
        let wrap = |field: u32, inner: &[u8]| {
            let mut bytes = Vec::new();
            let mut out = protobuf::CodedOutputStream::vec(&mut bytes);
            out.write_bytes(field, inner).and_then(|()| out.flush()).expect("a vector takes bytes");
            drop(out);
            bytes
        };
        wrap(
            CONFIG_EXPERIMENTAL,
            &wrap(EXPERIMENTAL_SENTINEL, &options.write_to_bytes().expect("a message serializes")),
        )
    }

    fn variables(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    fn refusal(pairs: &[(&str, &str)]) -> String {
        parse(&[], &variables(pairs)).expect_err("must be refused").to_string()
    }

    #[test]
    fn nothing_asked_is_nothing_done() {
        assert_eq!(parse(&[], &[]), Ok(None));
        assert_eq!(parse(&[], &variables(&[("SENTINEL", "0"), ("SENTINEL_FAST", "1G")])), Ok(None));
        assert_eq!(parse(&[], &variables(&[("SENTINEL_FAST", "1G"), ("SENTINEL_FAILURE", "off")])), Ok(None));
    }

    #[test]
    fn the_typed_field_is_read_and_variables_win() {
        let mut message = SentinelOptions::new();
        message.fast_bytes = 1 << 20;
        message.slow = "emulated:optane".into();
        message.warmup_steps = 3;
        let config = config_with(&message);
        let options = parse(&config, &[]).expect("good options").expect("a budget");
        assert_eq!(options.fast, FastBudget::Bytes(1 << 20));
        assert_eq!((options.warmup_steps, options.policy), (3, Policy::DEFAULT));
        let options = parse(&config, &variables(&[("SENTINEL_FAST", "20%"), ("SENTINEL_WARMUP_STEPS", "0")]))
            .expect("good options")
            .expect("a budget");
        assert_eq!((options.fast, options.warmup_steps), (FastBudget::Fraction(0.2), 0));
    }

    #[test]
    fn swap_needs_no_figure_because_the_memory_limit_is_one() {
        let options =
            parse(&[], &variables(&[("SENTINEL_SLOW", "swap")])).expect("good options").expect("swap is enough");
        assert_eq!((options.fast, options.slow.to_string()), (FastBudget::MemoryLimit, "swap".to_owned()));
        let given = parse(&[], &variables(&[("SENTINEL_SLOW", "swap:optane"), ("SENTINEL_FAST", "1G")]));
        let options = given.expect("good options").expect("a budget");
        assert_eq!((options.fast, options.slow.to_string()), (FastBudget::Bytes(1 << 30), "swap:optane".to_owned()));
        assert!(refusal(&[("SENTINEL_SLOW", "swap:abacus")]).contains("abacus"));
    }

    #[test]
    fn the_migration_speed_is_one_that_a_machine_may_have() {
        let with = |gbps: f64| {
            let mut message = SentinelOptions::new();
            message.fast_bytes = 1 << 20;
            message.migration_gbps = gbps;
            parse(&config_with(&message), &[])
        };
        for (gbps, expected) in [(0.0, None), (1e-4, Some(1e-4)), (2.15, Some(2.15)), (1e6, Some(1e6))] {
            assert_eq!(with(gbps).expect("good options").expect("a budget").migration_gbps, expected);
        }
        for gbps in [-1.0, 1e-5, 1.1e6, f64::INFINITY, f64::NAN] {
            let text = with(gbps).expect_err("must be refused").to_string();
            assert!(
                text.starts_with(&format!("sentinel: migration_gbps = {gbps}: accepted is 0.0001 to 1000000")),
                "{text}"
            );
        }
    }

    #[test]
    fn bytes_are_spelled_as_people_do() {
        for (text, bytes) in [("2G", 2 << 30), ("512M", 512 << 20), ("64k", 64 << 10), ("1000", 1000), ("1T", 1 << 40)]
        {
            assert_eq!(parse_fast("SENTINEL_FAST", text), Ok(FastBudget::Bytes(bytes)), "{text}");
        }
        for text in ["", "G", "1X", "-1", "0", "1.5G", "0%", "101%", "x%", "99999999999T", "ééé"] {
            assert!(parse_fast("SENTINEL_FAST", text).is_err(), "{text}");
        }
    }

    #[test]
    fn refusals_name_the_option_the_value_and_what_is_accepted() {
        let fast = ("SENTINEL_FAST", "1G");
        for (pair, parts) in [
            (("SENTINEL_POLICY", "hpca22"), ["SENTINEL_POLICY", "hpca22", "first_touch"]),
            (("SENTINEL_SLOW", "tape"), ["SENTINEL_SLOW", "tape", "emulated:MACHINE"]),
            (("SENTINEL_SLOW", "emulated:abacus"), ["SENTINEL_SLOW", "abacus", "optane"]),
            (("SENTINEL_SLOW", "node:x"), ["SENTINEL_SLOW", "node:x", "node:N"]),
            (("SENTINEL_FAILURE", "loud"), ["SENTINEL_FAILURE", "loud", "advisory"]),
            (("SENTINEL_WARMUP_STEPS", "-3"), ["SENTINEL_WARMUP_STEPS", "-3", "from 0"]),
            (("SENTINEL_CHECK_PLACEMENT", "0"), ["SENTINEL_CHECK_PLACEMENT", "0", "from 1"]),
            (("SENTINEL_MOVER_THREADS", "0"), ["SENTINEL_MOVER_THREADS", "0", "from 1 to 16"]),
            (("SENTINEL_MOVER_THREADS", "17"), ["SENTINEL_MOVER_THREADS", "17", "from 1 to 16"]),
            (("SENTINEL_PROFILER", "perf"), ["SENTINEL_PROFILER", "perf", "kernel:tlb_miss"]),
            (("SENTINEL_FSAT", "1G"), ["SENTINEL_FSAT", "1G", "SENTINEL_FAST"]),
            (("SENTINEL_MIGRATION_GBPS", "NaN"), ["SENTINEL_MIGRATION_GBPS", "NaN", "0.0001 to 1000000"]),
            (("SENTINEL_MIGRATION_GBPS", "1e7"), ["SENTINEL_MIGRATION_GBPS", "1e7", "0.0001 to 1000000"]),
            (("SENTINEL_MIGRATION_GBPS", "0"), ["SENTINEL_MIGRATION_GBPS = 0", "10^9 bytes", "0.0001 to 1000000"]),
            (("SENTINEL_MIGRATION_GBPS", "fast"), ["SENTINEL_MIGRATION_GBPS", "fast", "0.0001 to 1000000"]),
        ] {
            let text = refusal(&[fast, pair]);
            for part in parts {
                assert!(text.contains(part), "{text:?} does not say {part:?}");
            }
        }
        assert!(refusal(&[("SENTINEL_POLICY", "first_touch")]).contains("needs a budget"));
        for (name, value) in
            [("SENTINEL_SLOW", "emulated:optane"), ("SENTINEL_TRACE", "x"), ("SENTINEL_WARMUP_STEPS", "3")]
        {
            let text = refusal(&[(name, value)]);
            assert!(text.contains(name) && text.contains("needs a budget"), "{text}");
        }
    }

    #[test]
    fn damaged_and_unknown_fields_are_refused() {
        let mut options = SentinelOptions::new();
        options.fast_fraction = 1.5;
        assert!(parse(&config_with(&options), &[]).is_err());
        options.fast_fraction = 0.5;
        options.fast_bytes = 5;
        assert!(parse(&config_with(&options), &[]).is_err());
        let mut unknown = SentinelOptions::new();
        unknown.special_fields.mut_unknown_fields().add_varint(77, 1);
        assert!(parse(&config_with(&unknown), &[]).expect_err("unknown field").to_string().contains("77"));
        assert!(parse(&[0x82, 0x01, 0x7f, 1], &[]).is_err());
    }
}
