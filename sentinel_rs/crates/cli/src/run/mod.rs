//! `sentinel run`: a command under Sentinel, as `numactl` runs one, and five lines at its end about what Sentinel did.

mod summary;

use std::ffi::OsString;
use std::fs::DirBuilder;
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::SystemTime;

use plan::{Machine, Policy};
use sys::child::{self, End};
use sys::topology::NodeList;

use crate::amount::Budget;
use crate::python;
use summary::Handed;

/// The runtime's variable for the folder of statistics.
const STATS: &str = "SENTINEL_STATS";

/// What `--profiler` takes; whether this kernel has one, the runtime says itself.
const PROFILERS: [&str; 5] = ["auto", "op", "kernel", "kernel:tlb_miss", "kernel:exact"];

/// What the command line asks for, checked.
pub struct Order {
    /// Variables for the command, over those that it inherits.
    pub variables: Vec<(&'static str, String)>,
    /// Program and arguments; at least one.
    pub command: Vec<OsString>,
}

/// Checks the options and turns them into variables.
pub fn order(
    fast: Option<String>,
    slow: Option<String>,
    policy: Option<String>,
    profiler: Option<String>,
    command: Vec<OsString>,
) -> Result<Order, String> {
    let mut variables = Vec::new();
    if let Some(fast) = fast {
        fast.parse::<Budget>().map_err(|why| format!("--fast = {fast}: {why}"))?;
        variables.push(("SENTINEL_FAST", fast));
    }
    if let Some(slow) = slow {
        check_slow(&slow).map_err(|why| format!("--slow = {slow}: {why}"))?;
        variables.push(("SENTINEL_SLOW", slow));
    }
    if let Some(policy) = policy {
        if Policy::by_name(&policy).is_none() {
            let names: Vec<&str> = Policy::NAMES.iter().map(|&(name, _)| name).collect();
            return Err(format!("--policy = {policy}: no such policy; accepted are {}", names.join(", ")));
        }
        variables.push(("SENTINEL_POLICY", policy));
    }
    if let Some(profiler) = profiler {
        if !PROFILERS.contains(&profiler.as_str()) {
            return Err(format!("--profiler = {profiler}: no such profiler; accepted are {}", PROFILERS.join(", ")));
        }
        variables.push(("SENTINEL_PROFILER", profiler));
    }
    let program = command[0].to_string_lossy();
    if program.starts_with('-') {
        return Err(format!(
            "{program}: no such option; accepted are --fast, --slow, --policy and --profiler, before the program to run"
        ));
    }
    Ok(Order { variables, command })
}

/// Whether there can be such a slow tier. What this machine lacks, the runtime says itself.
fn check_slow(slow: &str) -> Result<(), String> {
    const ACCEPTED: &str = "accepted are numa, node:LIST as numactl writes it, swap, swap:MACHINE and emulated:MACHINE";
    match slow.split_once(':') {
        None if slow == "numa" || slow == "swap" => Ok(()),
        Some(("node", list)) => NodeList::parse(list).map(drop).map_err(|error| format!("{error}; {ACCEPTED}")),
        Some(("emulated" | "swap", machine)) => Machine::by_name(machine).map(drop).map_err(|error| error.to_string()),
        _ => Err(format!("no such slow tier; {ACCEPTED}")),
    }
}

/// Runs the command and ends as it ended.
pub fn run(order: &Order) -> anyhow::Result<ExitCode> {
    let folder = StatsFolder::open()?;
    let mut command = Command::new(&order.command[0]);
    command.args(&order.command[1..]).env(STATS, folder.path());
    command.envs(order.variables.iter().map(|(name, value)| (name, value)));
    let end = match child::run(command) {
        Ok(end) => end,
        Err(error @ sys::Error::Start { errno, .. }) => {
            eprintln!("sentinel: {error}");
            // As the shell says it.
            return Ok(ExitCode::from(if child::is_not_found(errno) { 127 } else { 126 }));
        }
        Err(error) => return Err(error.into()),
    };
    let lines = match folder.read() {
        Ok(handed) if handed.is_empty() => why_nothing(order),
        Ok(handed) => summary::lines(&handed),
        // The command has run: its end is what the caller asks for.
        Err(error) => vec![format!("what it did cannot be told: {error:#}")],
    };
    drop(folder);
    let mut err = io::stderr().lock();
    for line in lines {
        // The command's own end matters more than who reads this.
        let _ = writeln!(err, "sentinel: {}", crate::table::printable(&line));
    }
    Ok(end_as(end))
}

fn end_as(end: End) -> ExitCode {
    match end {
        End::Exited(status) => ExitCode::from(u8::try_from(status & 0xff).unwrap_or(1)),
        End::Killed(signal) => {
            child::die_by(signal);
            ExitCode::from(u8::try_from(128 + signal).unwrap_or(1))
        }
    }
}

/// What can be said when no process handed statistics over.
fn why_nothing(order: &Order) -> Vec<String> {
    let mut lines = vec!["was not on: no process of this command loaded TensorFlow with Sentinel".to_owned()];
    if std::env::var_os("SENTINEL").is_some_and(|value| value == "0") {
        lines.push("SENTINEL=0 is set, which keeps the library from being loaded; unset it".to_owned());
    } else if let Some(program) = python::interpreter(&order.command[0]) {
        lines.push(match python::installed(&program) {
            Ok(found) => found.in_words(),
            Err(why) => format!("{} cannot be asked about its packages: {why}", program.display()),
        });
    }
    lines
}

/// Where the processes of the command leave their statistics: a folder of our own, or the one that the user chose.
struct StatsFolder {
    path: PathBuf,
    own: bool,
    began: SystemTime,
}

impl StatsFolder {
    fn open() -> anyhow::Result<StatsFolder> {
        if let Some(path) = std::env::var_os(STATS) {
            return Ok(StatsFolder { path: PathBuf::from(path), own: false, began: SystemTime::now() });
        }
        let base = std::env::temp_dir();
        for attempt in 0..100 {
            let path = base.join(format!("sentinel-run-{}-{attempt}", std::process::id()));
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(StatsFolder { path, own: true, began: SystemTime::UNIX_EPOCH }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => anyhow::bail!("no folder for statistics can be made in {}: {error}", base.display()),
            }
        }
        anyhow::bail!("no folder for statistics can be made in {}: 100 names are taken", base.display())
    }

    fn path(&self) -> &Path {
        &self.path
    }

    /// What processes of this command handed over, each once.
    fn read(&self) -> anyhow::Result<Vec<Handed>> {
        let mut handed = Vec::new();
        let entries = match std::fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(handed),
            Err(error) => anyhow::bail!("{STATS} = {}: {error}", self.path.display()),
        };
        for entry in entries {
            let entry = entry.map_err(|error| anyhow::anyhow!("{STATS} = {}: {error}", self.path.display()))?;
            let path = entry.path();
            let is_old = || entry.metadata().and_then(|data| data.modified()).is_ok_and(|time| time < self.began);
            if !is_handed_over(&path) || (!self.own && is_old()) {
                continue;
            }
            let wrong = |error: &dyn std::fmt::Display| anyhow::anyhow!("{}: {error}", path.display());
            let text = std::fs::read_to_string(&path).map_err(|error| wrong(&error))?;
            handed.push(serde_json::from_str(&text).map_err(|error| wrong(&error))?);
        }
        Ok(handed)
    }
}

/// Whether a file is named as the runtime names what a process hands over: `PID.json`.
fn is_handed_over(path: &Path) -> bool {
    let number = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    path.extension().is_some_and(|extension| extension == "json") && number.parse::<u32>().is_ok()
}

impl Drop for StatsFolder {
    fn drop(&mut self) {
        if self.own {
            // What is left in the folder for temporary files is the system's to clean.
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ordered(fast: &str, slow: &str, policy: &str) -> Result<Order, String> {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        order(some(fast), some(slow), some(policy), None, vec!["true".into()])
    }

    #[test]
    fn the_profiler_becomes_a_variable_or_is_refused() {
        let with = |name: &str| order(None, None, None, Some(name.to_owned()), vec!["true".into()]);
        for name in PROFILERS {
            assert_eq!(with(name).unwrap().variables, [("SENTINEL_PROFILER", name.to_owned())]);
        }
        let Err(message) = with("perf") else { panic!("perf must be refused") };
        assert!(["--profiler = perf", "kernel:exact"].iter().all(|part| message.contains(part)), "{message}");
    }

    #[test]
    fn an_option_that_there_is_not_is_no_program() {
        let Err(message) = order(None, None, None, None, vec!["--slwo".into(), "swap".into()]) else {
            panic!("--slwo must be refused")
        };
        assert!(message.starts_with("--slwo: no such option; accepted are --fast, --slow"), "{message}");
    }

    #[test]
    fn files_of_others_are_not_statistics() {
        assert!(is_handed_over(Path::new("/x/4711.json")));
        assert!(["/x/notes.json", "/x/4711", "/x/4711.json.partial", "/x/.json"]
            .iter()
            .all(|p| !is_handed_over(Path::new(p))));
    }

    #[test]
    fn options_become_variables() {
        let order = ordered("2G", "node:1-2", "hpca21").unwrap();
        let expected = [("SENTINEL_FAST", "2G"), ("SENTINEL_SLOW", "node:1-2"), ("SENTINEL_POLICY", "hpca21")];
        assert_eq!(order.variables, expected.map(|(name, value)| (name, value.to_owned())));
        assert!(ordered("", "", "").unwrap().variables.is_empty());
        for slow in ["numa", "swap", "swap:swap-nvme", "node:0,2", "emulated:cxl"] {
            assert!(ordered("20%", slow, "").is_ok(), "{slow}");
        }
    }

    #[test]
    fn refusals_name_option_value_and_what_is_accepted() {
        for (fast, slow, policy, parts) in [
            ("lots", "", "", ["--fast", "lots", "20%"]),
            ("120%", "", "", ["--fast", "120%", "at most 100%"]),
            ("1G", "tape", "", ["--slow", "tape", "node:LIST"]),
            ("1G", "node:x", "", ["--slow", "node:x", "emulated:MACHINE"]),
            ("1G", "emulated:abacus", "", ["--slow", "abacus", "optane"]),
            ("1G", "", "best", ["--policy", "best", "hpca21"]),
        ] {
            let Err(message) = ordered(fast, slow, policy) else { panic!("{fast} {slow} {policy} must be refused") };
            assert!(parts.iter().all(|part| message.contains(part)), "{message}");
        }
    }
}
