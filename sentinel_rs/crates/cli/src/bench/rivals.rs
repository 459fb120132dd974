//! Whether our policy is ever below another that obeys the same budget.

use std::io::{self, Write};

use serde::Serialize;
use sim::EQUAL;

/// What was seen over all points.
#[derive(Clone, Debug, Serialize)]
pub struct Rivals {
    /// Points of model, budget and migration speed that were looked at.
    points: usize,
    /// Points at which some other policy was faster.
    below: usize,
    /// The least ratio of our throughput to that of the best other policy.
    worst_ratio: f64,
    /// Which point and which policy that was.
    worst: String,
    /// Every point at which some other policy was faster, with its ratio and that policy.
    offenders: Vec<String>,
}

impl Default for Rivals {
    fn default() -> Rivals {
        Rivals { points: 0, below: 0, worst_ratio: f64::INFINITY, worst: String::new(), offenders: Vec::new() }
    }
}

impl Rivals {
    /// Our throughput at a point beside those of others.
    pub fn see(&mut self, point: &str, ours: f64, others: impl IntoIterator<Item = (&'static str, f64)>) {
        self.points += 1;
        let Some((name, best)) = others.into_iter().max_by(|a, b| a.1.total_cmp(&b.1)) else { return };
        let ratio = ours / best;
        if ratio < EQUAL {
            self.below += 1;
            self.offenders.push(format!("{point}: {ratio:.4} of {name}"));
        }
        if ratio < self.worst_ratio {
            (self.worst_ratio, self.worst) = (ratio, format!("{point}, {name}"));
        }
    }

    /// The least ratio.
    pub fn worst_ratio(&self) -> f64 {
        self.worst_ratio
    }

    /// For people.
    pub fn print(&self, out: &mut impl Write) -> io::Result<()> {
        let Rivals { points, below, worst_ratio, worst, offenders } = self;
        writeln!(
            out,
            "\ngap is below another policy of the same budget at {below} of {points} points; least ratio {worst_ratio:.4} ({worst})"
        )?;
        offenders.iter().try_for_each(|offender| writeln!(out, "    {offender}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_counts_points_at_which_another_is_faster() {
        let mut rivals = Rivals::default();
        rivals.see("a", 0.9, [("x", 0.5), ("y", 0.9)]);
        rivals.see("b", 0.8, [("x", 1.0), ("y", 0.2)]);
        rivals.see("c", 1.0, []);
        assert_eq!((rivals.points, rivals.below), (3, 1));
        assert!((rivals.worst_ratio - 0.8).abs() < 1e-12);
        assert_eq!(rivals.worst, "b, x");
        assert_eq!(rivals.offenders, ["b: 0.8000 of x"]);
    }
}
