//! A linear program over a box, solved by an interior point method, with a bound that does not trust the solver.

use clarabel::algebra::CscMatrix;
use clarabel::solver::{DefaultSettingsBuilder, DefaultSolver, IPSolver, NonnegativeConeT};

/// Minimize `cost · x` over `0 <= x <= limit` where each row of `rows` is at most its `most`.
#[derive(Clone, Debug, Default)]
pub(super) struct Program {
    cost: Vec<f64>,
    limit: Vec<f64>,
    most: Vec<f64>,
    entries: Vec<(usize, usize, f64)>,
}

/// What the solver found.
pub(super) struct Solved {
    /// Its objective.
    pub(super) objective: f64,
    /// The dual function at its multipliers.
    pub(super) bound: f64,
}

impl Program {
    /// A new unknown between 0 and `limit`.
    pub(super) fn unknown(&mut self, cost: f64, limit: f64) -> usize {
        self.cost.push(cost);
        self.limit.push(limit);
        self.cost.len() - 1
    }

    /// A new constraint: the sum of the terms is at most `most`.
    pub(super) fn constrain(&mut self, terms: impl IntoIterator<Item = (usize, f64)>, most: f64) {
        let row = self.most.len();
        self.most.push(most);
        self.entries.extend(terms.into_iter().map(|(unknown, factor)| (row, unknown, factor)));
    }

    pub(super) fn unknowns(&self) -> usize {
        self.cost.len()
    }

    pub(super) fn constraints(&self) -> usize {
        self.most.len()
    }

    /// Solves; an empty program has objective 0.
    pub(super) fn solve(&self) -> Solved {
        let (n, m) = (self.unknowns(), self.constraints());
        if n == 0 {
            return Solved { objective: 0.0, bound: 0.0 };
        }
        let mut rows: Vec<usize> = self.entries.iter().map(|entry| entry.0).collect();
        let mut columns: Vec<usize> = self.entries.iter().map(|entry| entry.1).collect();
        let mut values: Vec<f64> = self.entries.iter().map(|entry| entry.2).collect();
        let mut most = self.most.clone();
        for unknown in 0..n {
            rows.extend([m + 2 * unknown, m + 2 * unknown + 1]);
            columns.extend([unknown, unknown]);
            values.extend([1.0, -1.0]);
            most.extend([self.limit[unknown], 0.0]);
        }
        let matrix = CscMatrix::new_from_triplets(m + 2 * n, n, rows, columns, values);
        let quadratic = CscMatrix::zeros((n, n));
        let settings = DefaultSettingsBuilder::default().verbose(false).max_iter(200).build().unwrap_or_default();
        let cones = [NonnegativeConeT(m + 2 * n)];
        match DefaultSolver::new(&quadratic, &self.cost, &matrix, &most, &cones, settings) {
            Ok(mut solver) => {
                solver.solve();
                let bound = self.dual_value(&solver.solution.z[..m]);
                Solved { objective: solver.solution.obj_val, bound }
            }
            Err(_) => Solved { objective: f64::NAN, bound: self.dual_value(&vec![0.0; m]) },
        }
    }

    /// The least of `cost · x + multipliers · (rows x - most)` over the box: for multipliers that are not negative, no more
    /// than the optimum.
    fn dual_value(&self, multipliers: &[f64]) -> f64 {
        let sound = |value: f64| if value.is_finite() { value.max(0.0) } else { 0.0 };
        let mut reduced = self.cost.clone();
        for &(row, unknown, factor) in &self.entries {
            reduced[unknown] += sound(multipliers[row]) * factor;
        }
        let constant: f64 = multipliers.iter().zip(&self.most).map(|(&z, most)| sound(z) * most).sum();
        reduced.iter().zip(&self.limit).map(|(&cost, limit)| cost.min(0.0) * limit).sum::<f64>() - constant
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_meets_the_optimum_of_a_small_program() {
        // Two of value 3 and 2 share one place; half of the second may have it beside the first's half.
        let mut program = Program::default();
        let a = program.unknown(-3.0, 1.0);
        let b = program.unknown(-2.0, 1.0);
        program.constrain([(a, 2.0), (b, 1.0)], 2.0);
        let solved = program.solve();
        assert!((solved.objective + 3.5).abs() < 1e-6, "{}", solved.objective);
        assert!((solved.bound + 3.5).abs() < 1e-6 && solved.bound <= solved.objective + 1e-9);
    }

    #[test]
    fn wrong_multipliers_only_weaken_the_bound() {
        let mut program = Program::default();
        let a = program.unknown(-1.0, 5.0);
        program.constrain([(a, 1.0)], 2.0);
        for (multiplier, bound) in [(0.0, -5.0), (1.0, -2.0), (3.0, -6.0), (-1.0, -5.0), (f64::NAN, -5.0)] {
            assert!((program.dual_value(&[multiplier]) - bound).abs() < 1e-12);
        }
    }
}
