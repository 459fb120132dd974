//! `sentinel doctor`: what this machine has for tiering, what is in the way, and the commands that clear it away.

mod facts;
mod machine;
mod print;
mod problems;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::Serialize;

use facts::Facts;
use problems::Problem;

use crate::output;

/// What the command line asks for.
pub struct Order {
    /// Print one JSON object.
    pub json: bool,
    /// Leave out what takes seconds: measuring memory.
    pub quick: bool,
    /// Write a machine profile here.
    pub profile: Option<PathBuf>,
    /// The interpreter to look at, instead of the first good one in PATH.
    pub python: Option<PathBuf>,
}

/// What was found; the field names are the keys of the JSON object.
#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    facts: Facts,
    problems: Vec<Problem>,
    /// Nothing is in the way of tiering on this machine's own memory.
    ready: bool,
}

/// Looks, measures, judges and prints. The exit code is 0 when nothing is in the way.
pub fn run(order: &Order, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    order.profile.iter().try_for_each(|path| output::check("--measure", path))?;
    let mut facts = facts::gather(Path::new("/"), order.python.as_deref())?;
    if !order.quick {
        facts.measure();
    }
    let problems = problems::of(&facts);
    let ready = problems.iter().all(|problem| problem.weight != problems::Weight::Blocks);
    let report = Report { facts, problems, ready };
    if order.json {
        writeln!(out, "{}", serde_json::to_string(&report)?)?;
    } else {
        print::report(&report, out)?;
    }
    if let Some(path) = &order.profile {
        // Last, so that what was found is printed even when it makes no profile.
        write_profile(&report.facts, path)?;
        if !order.json {
            writeln!(out, "\n{}", use_of_profile(path, &report.facts))?;
        }
    }
    Ok(if ready { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Who takes the profile: the runtime takes one for swap, and measures moves between nodes itself.
fn use_of_profile(path: &Path, facts: &Facts) -> String {
    let path = path.display();
    let run = match facts.slow_node {
        None => format!("a training: sentinel run --slow swap:{path} -- python train.py"),
        Some(slow) => format!("a training with --slow node:{slow} takes none: it measures its moves when it begins"),
    };
    format!("machine profile written: give sentinel plan or sim --machine {path}; {run}")
}

fn write_profile(facts: &Facts, path: &Path) -> anyhow::Result<()> {
    let named = |why: &dyn std::fmt::Display| anyhow::anyhow!("--measure = {}: {why}", path.display());
    let profile = machine::profile(facts).map_err(|why| named(&why))?;
    std::fs::write(path, profile).map_err(|error| named(&format!("cannot be written: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_use_of_a_profile_fits_the_machine() {
        let path = Path::new("m.toml");
        assert!(use_of_profile(path, &Facts::default()).contains("--slow swap:m.toml"));
        let two = Facts { slow_node: Some(1), ..Facts::default() };
        let text = use_of_profile(path, &two);
        assert!(text.contains("--machine m.toml") && text.contains("--slow node:1 takes none"), "{text}");
    }
}
