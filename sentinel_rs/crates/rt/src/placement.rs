//! Checks that pages are where the plan wants them, by asking the system at every so many layer boundaries.
//!
//! Everything else in this crate believes its own accounts. This is the witness from outside, for tests and for people who
//! want proof: `SENTINEL_CHECK_PLACEMENT` turns it on, and training waits for the answers.

use crate::stats::Counter;
use place::{Budget, Tiers, UnitState};
use std::ops::Range;
use std::sync::Arc;
use trace::Tier;

/// What the checks found so far.
#[derive(Debug, Default)]
pub struct Placement {
    /// Boundaries from one check to the next; 0 for none.
    every: u64,
    boundaries: Counter,
    /// Boundaries at which something was found to ask about.
    pub samples: Counter,
    /// Touched bytes of units whose moves were due, and that therefore should have been in the tier that was wanted last.
    pub due_bytes: Counter,
    /// Of these, the bytes that the system found there.
    pub there_bytes: Counter,
    /// Of the others, the bytes of which our own account says so too: their move is late, or there was no room for them.
    pub late_bytes: Counter,
    /// The most bytes of ours that the system was ever found to have on the fast nodes.
    pub held_bytes_max: Counter,
    /// By how much that was above the allowed bytes at worst.
    pub held_over_bytes: Counter,
}

impl Placement {
    /// Checks at one of `every` boundaries; at none when 0.
    #[must_use]
    pub fn every(every: u64) -> Placement {
        Placement { every, ..Placement::default() }
    }

    /// Whether this boundary is one of those at which the system is asked.
    pub fn is_due(&self) -> bool {
        if self.every == 0 {
            return false;
        }
        self.boundaries.count();
        self.boundaries.get() % self.every == 0
    }

    /// Compares what the system has on the fast nodes, whoever put it there, with what is allowed there.
    pub fn weigh(&self, whole: Range<usize>, tiers: &dyn Tiers, budget: &Budget) {
        if let Some(held) = tiers.held_bytes(whole, Tier::FAST) {
            self.held_bytes_max.raise(held);
            self.held_over_bytes.raise(held.saturating_sub(budget.allowed()));
        }
    }

    /// Training is at a layer boundary. Of `units`, those of which `travels` says that their move is not due yet may be
    /// anywhere.
    pub fn at_boundary(&self, units: &[Arc<UnitState>], tiers: &dyn Tiers, travels: impl Fn(&Arc<UnitState>) -> bool) {
        let mut due_bytes = 0;
        for unit in units.iter().filter(|unit| unit.tier().is_some()) {
            let (wanted, accounted) = (unit.desired(), unit.tier());
            if travels(unit) {
                continue;
            }
            let Some(found) = tiers.located(unit.range(), wanted) else { continue };
            // What died or was wanted elsewhere meanwhile was not where the question was about.
            if unit.tier().is_some() && unit.desired() == wanted {
                due_bytes += found.there_bytes + found.elsewhere_bytes;
                self.there_bytes.add(found.there_bytes);
                if accounted != Some(wanted) {
                    self.late_bytes.add(found.elsewhere_bytes);
                }
            }
        }
        self.due_bytes.add(due_bytes);
        if due_bytes > 0 {
            self.samples.count();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use place::{Located, Moved, TierError};
    use std::ops::Range;
    use trace::Tier;

    /// Memory in which every page is fast, whatever anybody wants.
    struct AllFast;

    impl Tiers for AllFast {
        fn kind(&self) -> &'static str {
            "test"
        }

        fn slow_name(&self) -> &str {
            "test"
        }

        fn reserve(&self, len_bytes: usize, _: Tier) -> Result<Range<usize>, TierError> {
            Ok(0..len_bytes)
        }

        fn place(&self, _: Range<usize>, _: Tier) -> Result<(), TierError> {
            Ok(())
        }

        fn migrate(&self, _: Range<usize>, _: Tier) -> Result<Moved, TierError> {
            Ok(Moved::default())
        }

        fn discard(&self, _: Range<usize>, _: Tier) -> Result<(), TierError> {
            Ok(())
        }

        fn held_bytes(&self, range: Range<usize>, tier: Tier) -> Option<u64> {
            (tier == Tier::FAST).then_some(range.len() as u64)
        }

        fn located(&self, range: Range<usize>, tier: Tier) -> Option<Located> {
            let bytes = range.len() as u64;
            Some(if tier == Tier::FAST {
                Located { there_bytes: bytes, elsewhere_bytes: 0 }
            } else {
                Located { there_bytes: 0, elsewhere_bytes: bytes }
            })
        }
    }

    fn units() -> Vec<Arc<UnitState>> {
        let occupied = |page: usize, tier| UnitState::occupied(page * 4096..(page + 1) * 4096, tier);
        let empty = UnitState::empty(3 * 4096..4 * 4096, Tier::SLOW);
        [occupied(0, Tier::FAST), occupied(1, Tier::SLOW), occupied(2, Tier::SLOW), empty].map(Arc::new).into()
    }

    fn found(placement: &Placement) -> [u64; 4] {
        let Placement { samples, due_bytes, there_bytes, late_bytes, .. } = placement;
        [samples, due_bytes, there_bytes, late_bytes].map(Counter::get)
    }

    #[test]
    fn pages_elsewhere_are_found_out() {
        let placement = Placement::every(2);
        let units = units();
        let travels = |unit: &Arc<UnitState>| Arc::ptr_eq(unit, &units[2]);
        let sample = || placement.at_boundary(&units, &AllFast, travels);
        assert_eq!(found(&placement), [0, 0, 0, 0]);
        sample();
        // The first is where it is wanted, the second is not, the third travels, nothing lives in the fourth.
        assert_eq!(found(&placement), [1, 8192, 4096, 0]);
        units[1].desire(Tier::FAST);
        sample();
        assert_eq!(found(&placement), [2, 16384, 12288, 0], "what is wanted counts, not what the account says");
        units[0].desire(Tier::SLOW);
        units[1].desire(Tier::SLOW);
        sample();
        assert_eq!(found(&placement), [3, 24576, 12288, 4096], "of the first, the account knows that it is late");
    }

    #[test]
    fn one_boundary_of_so_many_is_looked_at_and_none_without_the_wish() {
        let looks = |placement: Placement| (0..6).map(|_| placement.is_due()).collect::<Vec<bool>>();
        assert_eq!(looks(Placement::every(3)), [false, false, true, false, false, true]);
        assert_eq!(looks(Placement::default()), [false; 6]);
    }

    #[test]
    fn what_the_system_holds_is_weighed_against_the_allowed_bytes() {
        let (placement, budget) = (Placement::every(1), Budget::new(10_000));
        for (bytes, most, over) in [(8_000, 8_000, 0), (10_050, 10_050, 50), (9_000, 10_050, 50)] {
            placement.weigh(0..bytes, &AllFast, &budget);
            assert_eq!((placement.held_bytes_max.get(), placement.held_over_bytes.get()), (most, over));
        }
    }
}
