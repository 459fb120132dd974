//! Every policy at many points of model, budget and migration speed, each solved once, on all cores.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context;
use plan::Machine;
use sim::{Named, Setting};

use super::policies::{budget, Model};
use crate::cores::on_all_cores;
use crate::simulate::{bound, one, PolicyResult};

/// Where policies are compared.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Index of the model.
    pub model: usize,
    /// Fast memory in percent of the peak.
    pub percent: u32,
    /// Peaks that each direction can move in one all-fast step.
    pub m_hat: f64,
}

/// What came out at a point.
pub struct Solved {
    /// Where.
    pub point: Point,
    /// The most that any policy could reach; nothing where it was not asked for.
    pub bound: Option<f64>,
    /// Every policy, in the order of `Named::ALL`.
    pub results: Vec<(Named, PolicyResult)>,
}

impl Solved {
    /// Throughput of a policy relative to all-fast; nothing when it cannot run.
    pub fn throughput(&self, policy: Named) -> Option<f64> {
        self.results.iter().find(|(own, _)| *own == policy).and_then(|(_, result)| result.throughput)
    }
}

/// A piece of work: the policies that move nothing, which are the same at every speed of migration, or those that do.
#[derive(Clone, Copy, PartialEq)]
enum Task {
    Still { model: usize, percent: u32 },
    Moving(Point),
}

/// Whether the bound is worked out at a point: it takes longer than all policies together.
type Bounded = fn(Point) -> bool;

type Results = Vec<(Named, PolicyResult)>;

/// Solves all points.
pub fn solve(models: &[Model], machine: &Machine, points: &[Point], bounded: Bounded) -> anyhow::Result<Vec<Solved>> {
    let mut tasks: Vec<Task> = Vec::new();
    for &Point { model, percent, .. } in points {
        let still = Task::Still { model, percent };
        if !tasks.contains(&still) {
            tasks.push(still);
        }
    }
    let stills = tasks.len();
    tasks.extend(points.iter().copied().map(Task::Moving));
    let mut done: Vec<(Option<f64>, Results)> =
        on_all_cores("points", tasks.len(), |index| run(models, machine, tasks[index], bounded))?;
    let moved = done.split_off(stills);
    let solved = points.iter().zip(moved).map(|(&point, (bound, mut results))| {
        let own = Task::Still { model: point.model, percent: point.percent };
        let still = tasks.iter().zip(&done).find(|(task, _)| **task == own);
        results.extend(still.into_iter().flat_map(|(_, (_, results))| results.clone()));
        let place = |policy: Named| Named::ALL.iter().position(|(_, known)| *known == policy);
        results.sort_by_key(|(policy, _)| place(*policy));
        Solved { point, bound, results }
    });
    Ok(solved.collect())
}

fn run(models: &[Model], machine: &Machine, task: Task, bounded: Bounded) -> anyhow::Result<(Option<f64>, Results)> {
    let (point, moves) = match task {
        // Any speed will do.
        Task::Still { model, percent } => (Point { model, percent, m_hat: 1.0 }, false),
        Task::Moving(point) => (point, true),
    };
    let model = &models[point.model];
    let setting = Setting::with_m_hat(&model.workload, budget(model, point.percent), point.m_hat);
    let mut results = Vec::new();
    for (_, policy) in Named::ALL.into_iter().filter(|(_, policy)| policy.migrates() == moves) {
        results.push((policy, one(policy, &model.workload, &model.costs, &setting, machine)?));
    }
    let bound =
        (moves && bounded(point)).then(|| bound(&model.workload, model.workload.step_ns, &model.costs, &setting));
    Ok((bound, results))
}

/// Writes models × budgets × m̂ × policies as CSV. Nothing in it depends on the machine that worked it out.
pub fn write(models: &[Model], solved: &[Solved], path: &Path) -> anyhow::Result<()> {
    let mut text = "model,fast_percent,m_hat,policy,throughput,promoted_bytes,demoted_bytes,settled,note\n".to_owned();
    for cell in solved {
        rows(models[cell.point.model].name, cell, &mut text)?;
    }
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// The rows of a point.
fn rows(model: &str, Solved { point, bound, results }: &Solved, text: &mut String) -> std::fmt::Result {
    let head = format!("{model},{},{}", point.percent, point.m_hat);
    if let Some(bound) = bound {
        writeln!(text, "{head},bound,{bound:.4},,,,")?;
    }
    for (policy, result) in results {
        let value = result.throughput.map_or_else(String::new, |value| format!("{value:.4}"));
        let (up, down) = (result.promoted_bytes, result.demoted_bytes);
        let note = quoted(result.infeasible.as_deref().unwrap_or_default());
        writeln!(text, "{head},{},{value},{up},{down},{},{note}", policy.name(), result.settled)?;
    }
    Ok(())
}

/// A cell of a CSV file, quoted when it must be (RFC 4180).
fn quoted(cell: &str) -> Cow<'_, str> {
    if cell.contains([',', '"', '\n', '\r']) {
        Cow::Owned(format!("\"{}\"", cell.replace('"', "\"\"")))
    } else {
        Cow::Borrowed(cell)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sim::SimError;

    #[test]
    fn a_cell_is_quoted_when_it_must_be() {
        for (cell, expected) in
            [("plain", "plain"), ("a, b", "\"a, b\""), ("say \"no\"", "\"say \"\"no\"\"\""), ("a\nb", "\"a\nb\"")]
        {
            assert_eq!(quoted(cell), expected);
        }
    }

    #[test]
    fn a_row_has_as_many_cells_as_the_heading_whatever_the_note_says() {
        let infeasible = Err(SimError::Infeasible { needed_bytes: 4096 });
        let mut result = PolicyResult::of(Named::MemoryMode, infeasible, 1.0).unwrap();
        result.infeasible = result.infeasible.map(|why| format!("{why}, \"or more\""));
        let point = Point { model: 0, percent: 5, m_hat: 0.5 };
        let mut text = String::new();
        rows("lstm", &Solved { point, bound: Some(0.75), results: vec![(Named::MemoryMode, result)] }, &mut text)
            .unwrap();
        let (bound, policy) = text.split_once('\n').unwrap();
        assert_eq!(bound, "lstm,5,0.5,bound,0.7500,,,,");
        let note = policy.trim_end().strip_prefix("lstm,5,0.5,memory_mode,,0,0,true,").unwrap();
        assert!(note.starts_with('"') && note.ends_with("\"\"or more\"\"\""), "{note}");
    }
}
