//! Static optimum: the best placement without moves, after the static variant of Hildebrand et al., "AutoTM: Automatic Tensor
//! Movement in Heterogeneous Memory Systems using Integer Linear Programming", ASPLOS 2020.
//!
//! Simplified, to its favour: AutoTM places whole tensors with an integer program; here a buffer may be split at a page, so
//! that the linear program's optimum is reached but for rounding to pages. Solved by the interior point solver Clarabel.

use crate::schedule::{Piece, Schedule};
use crate::workload::to_f64;
use crate::{Costs, Workload};
use clarabel::algebra::CscMatrix;
use clarabel::solver::{DefaultSettingsBuilder, DefaultSolver, IPSolver, NonnegativeConeT};
use profile::Class;
use trace::{Tier, PAGE_BYTES};

/// Part of the budget that is kept from the solver, for what its tolerance may take too much.
const TOLERANCE: f64 = 2e-6;

/// The linear program: columns are fast shares of buffers, then one excess time per op that has slack.
struct Program {
    cost: Vec<f64>,
    rows: Vec<usize>,
    columns: Vec<usize>,
    values: Vec<f64>,
    most: Vec<f64>,
}

impl Program {
    fn row(&mut self, most: f64, terms: impl IntoIterator<Item = (usize, f64)>) {
        let row = self.most.len();
        for (column, value) in terms {
            self.rows.push(row);
            self.columns.push(column);
            self.values.push(value);
        }
        self.most.push(most);
    }

    fn solve(self) -> Option<Vec<f64>> {
        let (rows, columns) = (self.most.len(), self.cost.len());
        if columns == 0 {
            // The solver does not take a program without unknowns.
            return Some(vec![]);
        }
        let matrix = CscMatrix::new_from_triplets(rows, columns, self.rows, self.columns, self.values);
        let settings = DefaultSettingsBuilder::default().verbose(false).build().ok()?;
        let cones = [NonnegativeConeT(rows)];
        let quadratic = CscMatrix::zeros((columns, columns));
        let mut solver = DefaultSolver::new(&quadratic, &self.cost, &matrix, &self.most, &cones, settings).ok()?;
        solver.solve();
        solver.solution.x.iter().all(|value| value.is_finite()).then(|| solver.solution.x.clone())
    }
}

/// The schedule: everything slow if the solver fails.
#[must_use]
pub fn static_optimum(workload: &Workload, costs: &Costs, fast_budget_bytes: u64) -> Schedule {
    let movable: Vec<u32> = (0_u32..)
        .zip(&workload.profile.buffers)
        .filter(|(_, facts)| facts.class != Class::External && !facts.uses.is_empty() && facts.size_bytes > 0)
        .map(|(index, _)| index)
        .collect();
    let mut column_of = vec![usize::MAX; workload.profile.buffers.len()];
    for (column, &buffer) in movable.iter().enumerate() {
        column_of[buffer as usize] = column;
    }
    let mut program =
        Program { cost: vec![0.0; movable.len()], rows: vec![], columns: vec![], values: vec![], most: vec![] };
    add_times(&mut program, workload, costs, &column_of);
    let budget = to_f64(fast_budget_bytes) * (1.0 - TOLERANCE);
    add_capacity(&mut program, workload, &movable, budget);
    for column in 0..program.cost.len() {
        program.row(0.0, [(column, -1.0)]);
        if column < movable.len() {
            program.row(1.0, [(column, 1.0)]);
        }
    }
    let shares = program.solve();
    split(workload, |buffer| {
        let column = column_of[buffer as usize];
        shares.as_ref().and_then(|shares| shares.get(column)).copied().unwrap_or(0.0)
    })
}

/// An op's time: what slow buffers add beyond its slack, in milliseconds.
fn add_times(program: &mut Program, workload: &Workload, costs: &Costs, column_of: &[usize]) {
    for (index, op) in workload.ops.iter().enumerate() {
        let terms: Vec<(usize, f64)> = op
            .uses
            .iter()
            .map(|u| {
                let extra_ns = to_f64(u.read_bytes) * costs.extra_read_ns(index, Tier::SLOW)
                    + to_f64(u.written_bytes) * costs.extra_write_ns(index, Tier::SLOW);
                (column_of[u.buffer as usize], extra_ns / 1e6)
            })
            .filter(|&(column, extra)| column != usize::MAX && extra > 0.0)
            .collect();
        let slack = costs.ops[index].slack_ns / 1e6;
        let all: f64 = terms.iter().map(|term| term.1).sum();
        if slack <= 0.0 {
            for (column, extra) in terms {
                program.cost[column] -= extra;
            }
        } else if all > slack {
            // excess >= sum of extra * (1 - share) - slack
            let excess = program.cost.len();
            program.cost.push(1.0);
            let terms = terms.into_iter().map(|(column, extra)| (column, -extra)).chain([(excess, -1.0)]);
            program.row(slack - all, terms);
        }
    }
}

/// One row for each op after which something dies, which covers all ops since the one before.
fn add_capacity(program: &mut Program, workload: &Workload, movable: &[u32], budget: f64) {
    let unit = to_f64(PAGE_BYTES);
    let buffers = &workload.profile.buffers;
    let mut born: Vec<Vec<usize>> = vec![Vec::new(); workload.ops.len()];
    for (column, &buffer) in movable.iter().enumerate() {
        born[buffers[buffer as usize].birth_op as usize].push(column);
    }
    let mut live: Vec<usize> = Vec::new();
    let mut grown = false;
    for (op, born) in born.into_iter().enumerate() {
        grown |= !born.is_empty();
        live.extend(born);
        let dies = |column: &usize| buffers[movable[*column] as usize].death_op as usize == op;
        if live.iter().any(dies) {
            if grown {
                let size = |&column: &usize| (column, to_f64(buffers[movable[column] as usize].size_bytes) / unit);
                program.row(budget / unit, live.iter().map(size));
                grown = false;
            }
            live.retain(|column| !dies(column));
        }
    }
}

/// Buffers cut at a page by their fast share.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // a share of a size
fn split(workload: &Workload, share: impl Fn(u32) -> f64) -> Schedule {
    let mut schedule = Schedule::default();
    for (buffer, facts) in (0_u32..).zip(&workload.profile.buffers) {
        if facts.class == Class::External {
            continue;
        }
        let share = share(buffer);
        let fast_bytes = if share > 1.0 - 1e-5 {
            facts.size_bytes
        } else {
            (to_f64(facts.size_bytes) * share.max(0.0)) as u64 / PAGE_BYTES * PAGE_BYTES
        };
        for (len_bytes, birth_tier) in [(fast_bytes, Tier::FAST), (facts.size_bytes - fast_bytes, Tier::SLOW)] {
            if len_bytes > 0 || (birth_tier == Tier::SLOW && facts.size_bytes == 0) {
                schedule.pieces.push(Piece { buffer, len_bytes, birth_tier });
            }
        }
    }
    schedule
}
