//! The line through two recorded figures, and how far it is believed.

/// Two recorded batches and the one wanted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line {
    low: i128,
    high: i128,
    wanted: i128,
}

impl Line {
    /// A line for `wanted` examples through figures recorded with `low` and with `high` > `low` examples.
    pub(super) fn new(low: u32, high: u32, wanted: u32) -> Line {
        Line { low: low.into(), high: high.into(), wanted: wanted.into() }
    }

    /// The figure for the wanted batch, given those of the two recorded ones, rounded to the nearest whole number.
    ///
    /// Between the two batches it is on the straight line. Beyond them it starts from the nearer recorded figure, and
    /// grows by at least nothing and at most in proportion to the batch: a + b · batch with neither a nor b negative.
    /// Without these limits a noisy duration of a short operation would become negative a few batches on.
    pub(super) fn at(&self, at_low: u64, at_high: u64) -> u64 {
        let (from, figure) =
            if self.wanted > self.high { (self.high, i128::from(at_high)) } else { (self.low, i128::from(at_low)) };
        // The slope, as a numerator over a denominator.
        let (rise, run) = (i128::from(at_high) - i128::from(at_low), self.high - self.low);
        let inside = (self.low..=self.high).contains(&self.wanted);
        let (rise, run) = if inside || (rise >= 0 && rise * from <= figure * run) {
            (rise, run)
        } else if rise < 0 {
            (0, 1)
        } else {
            (figure, from)
        };
        let exact = figure * run + rise * (self.wanted - from);
        u64::try_from((2 * exact + run).div_euclid(2 * run)).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::Line;
    use proptest::prelude::*;

    #[test]
    fn straight_between_and_beyond() {
        // 100 + 3 · batch.
        for (wanted, expected) in [(32, 196), (64, 292), (96, 388), (128, 484), (512, 1636)] {
            assert_eq!(Line::new(64, 128, wanted).at(292, 484), expected);
        }
    }

    #[test]
    fn what_does_not_depend_on_the_batch_stays_exactly() {
        for wanted in [1, 64, 100, 128, 100_000] {
            assert_eq!(Line::new(64, 128, wanted).at(1 << 60, 1 << 60), 1 << 60);
        }
    }

    #[test]
    fn beyond_both_batches_neither_coefficient_is_negative() {
        // Falling: constant from the nearer one.
        assert_eq!(Line::new(64, 128, 256).at(900, 700), 700);
        assert_eq!(Line::new(64, 128, 32).at(900, 700), 900);
        // Steeper than in proportion: in proportion from the nearer one.
        assert_eq!(Line::new(64, 128, 256).at(100, 1000), 2000);
        assert_eq!(Line::new(64, 128, 32).at(100, 1000), 50);
        // Between them it is what the two say.
        assert_eq!(Line::new(64, 128, 96).at(900, 700), 800);
        assert_eq!(Line::new(64, 128, 96).at(100, 1000), 550);
    }

    #[test]
    fn halves_round_up() {
        assert_eq!(Line::new(1, 3, 2).at(0, 1), 1);
        assert_eq!(Line::new(1, 3, 2).at(1, 0), 1);
    }

    proptest! {
        #[test]
        fn recorded_figures_come_back_and_more_examples_never_cost_less_beyond(
            low in 1u32..1000, more in 1u32..1000, at_low in 0u64..1 << 50, at_high in 0u64..1 << 50, far in 0u32..10_000,
        ) {
            let high = low + more;
            prop_assert_eq!(Line::new(low, high, low).at(at_low, at_high), at_low);
            prop_assert_eq!(Line::new(low, high, high).at(at_low, at_high), at_high);
            let beyond = |wanted| Line::new(low, high, wanted).at(at_low, at_high);
            prop_assert!(beyond(high + far) >= at_high);
            prop_assert!(u128::from(beyond(high + far)) * u128::from(high) <= u128::from(at_high) * u128::from(high + far) + u128::from(high));
            let below = 1 + far % low;
            prop_assert!(beyond(below) <= at_low);
        }
    }
}
