//! Memory of one kind: everything is fast, and nothing ever moves.

use super::numa::tier_error;
use place::{Moved, TierError, Tiers};
use std::ops::Range;
use trace::Tier;

/// The memory of a machine with one node, all of it fast.
#[derive(Clone, Copy, Debug)]
pub struct SingleTier;

impl Tiers for SingleTier {
    fn kind(&self) -> &'static str {
        "single"
    }

    fn slow_name(&self) -> &str {
        "none"
    }

    fn reserve(&self, len_bytes: usize, _home: Tier) -> Result<Range<usize>, TierError> {
        sys::memory::reserve(len_bytes).map_err(|error| tier_error(&error, &(0..len_bytes)))
    }

    /// Does nothing: there is one place.
    fn place(&self, _range: Range<usize>, _tier: Tier) -> Result<(), TierError> {
        Ok(())
    }

    /// Moves nothing: every page is where it can be.
    fn migrate(&self, _range: Range<usize>, _to: Tier) -> Result<Moved, TierError> {
        Ok(Moved::default())
    }

    fn discard(&self, range: Range<usize>, _next: Tier) -> Result<(), TierError> {
        sys::memory::discard(&range).map_err(|error| tier_error(&error, &range))
    }

    fn welcome_huge_pages(&self, range: Range<usize>, welcome: bool) {
        if !range.is_empty() {
            let advise = if welcome { sys::memory::advise_huge_pages } else { sys::memory::advise_base_pages };
            // A kernel without huge pages refuses, and nothing is lost.
            drop(advise(&range));
        }
    }

    fn moves(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_given_back_and_never_move() {
        let tier = SingleTier;
        let range = tier.reserve(4 << 20, Tier::FAST).expect("address space");
        tier.welcome_huge_pages(range.clone(), true);
        tier.discard(range.clone(), Tier::FAST).expect("reserved pages can be dropped");
        assert_eq!(tier.migrate(range.clone(), Tier::SLOW), Ok(Moved::default()));
        assert!(!tier.moves());
        let beyond = range.start..range.end + (1 << 30);
        assert!(tier.discard(beyond, Tier::FAST).is_err(), "memory of others is not dropped");
    }
}
