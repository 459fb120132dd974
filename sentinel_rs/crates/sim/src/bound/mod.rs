//! A lower bound on the time of a step: no schedule that keeps the model's rules is faster.
//!
//! A linear relaxation, whose every constraint `docs/policy.md` (section Lower bound) derives from the model. What is
//! returned is not the solver's objective but the value of the dual function at the solver's multipliers, which is a lower
//! bound by weak duality however far the solver was from the optimum.

mod chains;
mod linear;

use chains::Relaxation;
use plan::GapProblem;

/// How finely time is cut.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BoundEffort {
    /// Windows over which bandwidth is accounted for, at most.
    pub windows: usize,
    /// Tensors are left out, the smallest first, while those left out at any op add up to at most this share of the budget.
    pub neglected_share: f64,
}

impl Default for BoundEffort {
    fn default() -> BoundEffort {
        BoundEffort { windows: 200, neglected_share: 0.001 }
    }
}

/// The bound and how it came about.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bound {
    /// No step is shorter, in nanoseconds.
    pub step_ns: f64,
    /// The solver's own objective: above `step_ns` by what its tolerance costs, or by chance below.
    pub solver_ns: f64,
    /// Unknowns of the linear program.
    pub unknowns: usize,
    /// Constraints of the linear program, bounds of unknowns apart.
    pub constraints: usize,
}

/// The lower bound of a step.
#[must_use]
pub fn lower_bound(problem: &GapProblem, effort: BoundEffort) -> Bound {
    let base_ns: f64 = problem.base_ns.iter().sum();
    let relaxation = Relaxation::new(problem, effort);
    let solved = relaxation.program.solve();
    Bound {
        step_ns: base_ns + solved.bound.max(0.0) * relaxation.unit_ns,
        solver_ns: base_ns + solved.objective * relaxation.unit_ns,
        unknowns: relaxation.program.unknowns(),
        constraints: relaxation.program.constraints(),
    }
}
