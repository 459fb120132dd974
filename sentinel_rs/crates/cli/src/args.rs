//! Arguments in two stages: what was typed, and what it means.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use plan::Machine;

use crate::amount::Budget;

/// What was typed.
#[derive(Parser)]
#[command(name = "sentinel", version, about = "Reads traces of training steps and plans where their tensors live")]
#[command(arg_required_else_help = false)]
struct Typed {
    #[command(subcommand)]
    command: TypedCommand,
}

#[derive(Subcommand)]
enum TypedCommand {
    /// Read a trace of one training step
    #[command(arg_required_else_help = false)]
    Trace {
        #[command(subcommand)]
        command: TypedTrace,
    },
    /// Print what the hpca21 policy would do with a traced step
    Plan {
        /// Trace file, as written for SENTINEL_TRACE
        file: PathBuf,
        /// Fast memory: a share of the step's peak such as 20%, or bytes such as 512M or 2G (powers of 1024)
        #[arg(long, value_name = "AMOUNT")]
        fast: String,
        /// Machine profile: a built-in name or the path of a .toml file
        #[arg(long, value_name = "MACHINE", default_value = "optane")]
        machine: String,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
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
    /// Sum up a step: layers, buffers by class, peak, traffic, largest buffers
    Stats {
        /// Trace file, as written for SENTINEL_TRACE
        file: PathBuf,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
}

/// What to do.
pub enum Command {
    /// List ops or buffers.
    Show { file: PathBuf, limit: usize, buffers: bool },
    /// Look for damage and broken rules.
    Check { file: PathBuf },
    /// Sum up.
    Stats { file: PathBuf, json: bool },
    /// Plan with the published policy.
    Plan { file: PathBuf, fast: Budget, machine: Machine, json: bool },
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
        TypedCommand::Trace { command: TypedTrace::Show { file, limit, buffers } } => {
            Command::Show { file, limit: limit.unwrap_or(usize::MAX), buffers }
        }
        TypedCommand::Trace { command: TypedTrace::Check { file } } => Command::Check { file },
        TypedCommand::Trace { command: TypedTrace::Stats { file, json } } => Command::Stats { file, json },
        TypedCommand::Plan { file, fast, machine, json } => Command::Plan {
            file,
            fast: fast.parse().map_err(|why| format!("--fast = {fast}: {why}"))?,
            machine: Machine::by_name(&machine).map_err(|error| format!("--machine = {machine}: {error}"))?,
            json,
        },
    })
}
