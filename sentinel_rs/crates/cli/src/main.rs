//! The binary `sentinel`: what people read about traces and plans.
//!
//! May use every crate but `ffi`; nothing may use it. Each command reads a file, asks the stage that knows, and prints.

#![forbid(unsafe_code)]

mod amount;
mod args;
mod bench;
mod chart;
mod check;
mod cores;
mod doctor;
mod output;
mod planning;
mod python;
mod run;
mod scaling;
mod show;
mod simulate;
mod stats;
mod table;

use std::io::{self, BufWriter, ErrorKind, Write};
use std::process::ExitCode;

use args::{Command, Parsed};

fn main() -> ExitCode {
    let command = match args::parse() {
        Parsed::Command(command) => command,
        Parsed::Answered => return ExitCode::SUCCESS,
        Parsed::Wrong(message) => return complain(&message, 2),
    };
    let mut out = BufWriter::new(io::stdout().lock());
    let done = run(command, &mut out).and_then(|code| Ok(out.flush().map(|()| code)?));
    let error = match done {
        Ok(code) => return code,
        Err(error) => error,
    };
    // The stages wrap what the system tells them or say what it is about; a bare error of the system is about the output.
    let bare = error.chain().len() == 1;
    match error.downcast_ref::<io::Error>().filter(|_| bare).map(io::Error::kind) {
        // Whoever reads the output, such as `head`, has seen enough.
        Some(ErrorKind::BrokenPipe) => ExitCode::SUCCESS,
        Some(_) => complain(&format!("cannot write the output: {error}"), 1),
        None => complain(&format!("{error:#}"), 1),
    }
}

/// Carries the command out; the exit code tells more than success in the commands that have an answer of their own.
fn run(command: Command, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let done = match command {
        Command::Run(order) => return run::run(&order),
        Command::Doctor(order) => return doctor::run(&order, out),
        Command::Show { file, limit, buffers } => {
            let step = trace::read(file)?;
            Ok(if buffers { show::buffers(&step, limit, out) } else { show::ops(&step, limit, out) }?)
        }
        Command::Check { file } => Ok(writeln!(out, "{}", check::check(&file)?)?),
        Command::Stats { file, json } => {
            let step = trace::read(file)?;
            let stats = stats::Stats::of(&step, &profile::fold(&step)?);
            Ok(if json { print_json(&stats, out) } else { stats.print(out) }?)
        }
        Command::Scale { steps, batch, out: file } => {
            output::check("--out", &file)?;
            Ok(writeln!(out, "{}", scaling::scale(&steps, batch, &file)?)?)
        }
        Command::BenchPacking { data, traces, exact_limit } => bench::packing::run(&data, &traces, exact_limit, out),
        Command::BenchPlanning { buffers } => bench::planning::run(&buffers, out),
        Command::BenchPlanningCase(case) => bench::planning::measure(case, out),
        Command::Sim { file, question, json, plot } => {
            plot.iter().try_for_each(|plot| output::check("--plot", plot))?;
            let name = file.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
            let report = simulate::Report::of(&name, &trace::read(&file)?, &question)?;
            if let Some(plot) = plot {
                let why = |error| anyhow::anyhow!("cannot write {}: {error}", plot.display());
                std::fs::write(&plot, chart::svg(&report)).map_err(why)?;
            }
            Ok(if json { print_json(&report, out) } else { report.print(out) }?)
        }
        Command::BenchPolicies { data, published, results, brief } => {
            bench::policies::run(&data, &published, &results, brief, out)
        }
        Command::Plan { file, fast, policy, machine, json } => {
            let profile = profile::fold(&trace::read(file)?)?;
            let Some(plan) = policy.plan(&profile, fast.asked_of(profile.peak_live_bytes)?, &machine) else {
                anyhow::bail!("--policy = {}: it makes no plan", policy.name())
            };
            let report = planning::Report::of(&profile, &plan?, policy, &machine);
            Ok(if json { print_json(&report, out) } else { report.print(out) }?)
        }
    };
    done.map(|()| ExitCode::SUCCESS)
}

fn print_json(value: &impl serde::Serialize, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "{}", serde_json::to_string(value)?)
}

fn complain(message: &str, code: u8) -> ExitCode {
    let mut err = io::stderr().lock();
    for line in message.lines().filter(|line| !line.is_empty()) {
        // When nobody reads the complaint, the exit code still tells.
        let _ = writeln!(err, "sentinel: {}", table::printable(line));
    }
    ExitCode::from(code)
}
