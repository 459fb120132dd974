//! `sentinel trace check`: is this file a well-formed trace, and if not, what is wrong with all of it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use trace::{Defect, TraceError, Violation};

use crate::table::printable;

/// Rules that a file's contents break, one per line.
#[derive(Debug, thiserror::Error)]
#[error("{}", one_per_line(path, violations))]
pub struct BrokenRules {
    path: PathBuf,
    violations: Vec<Violation>,
}

/// The sentence for a well-formed trace.
pub fn check(file: &Path) -> anyhow::Result<String> {
    match trace::read(file) {
        Ok(step) => {
            let layers: BTreeSet<u32> = step.ops.iter().map(|op| op.layer).collect();
            let counts = (step.ops.len(), step.buffers.len(), layers.len());
            Ok(format!("well-formed: {} ops, {} buffers, {} layers", counts.0, counts.1, counts.2))
        }
        Err(TraceError::Defective { path, defect: Defect::Rules(violations) }) => {
            Err(BrokenRules { path, violations }.into())
        }
        Err(other) => Err(other.into()),
    }
}

fn one_per_line(path: &Path, violations: &[Violation]) -> String {
    let path = path.display();
    let lines = violations.iter().map(|violation| format!("{path}: {}\n", printable(&violation.0)));
    format!("{path}: not well-formed: {} broken rules\n{}", violations.len(), lines.collect::<String>())
}
