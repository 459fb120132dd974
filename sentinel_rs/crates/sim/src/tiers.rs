//! Virtual tiers: addresses without memory behind them, and a record of which page is where.

use place::{Moved, PageTiers, TierError, Tiers};
use std::ops::Range;
use std::sync::Mutex;
use trace::Tier;

/// Where the virtual address space begins: far from zero, so that a forgotten base shows.
pub(crate) const BASE: usize = 1 << 40;

/// The simulator's side of [`Tiers`]. Moves are instant here: the engine calls it when their time has come.
#[derive(Debug)]
pub struct VirtualTiers {
    next: Mutex<usize>,
    pages: PageTiers,
}

impl VirtualTiers {
    /// Tiers over this much address space.
    #[must_use]
    pub fn new(len_bytes: usize) -> VirtualTiers {
        VirtualTiers { next: Mutex::new(BASE), pages: PageTiers::new(BASE, len_bytes) }
    }

    /// Of the bytes from `addr`, those in slow pages.
    #[must_use]
    pub fn slow_bytes(&self, addr: usize, len_bytes: usize) -> u64 {
        self.pages.slow_bytes(addr, len_bytes)
    }
}

impl Tiers for VirtualTiers {
    fn kind(&self) -> &'static str {
        "simulated"
    }

    fn slow_name(&self) -> &str {
        "simulated"
    }

    fn reserve(&self, len_bytes: usize, home: Tier) -> Result<Range<usize>, TierError> {
        let mut next = self.next.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let range = *next..*next + len_bytes;
        *next = range.end;
        self.pages.set(range.clone(), home);
        Ok(range)
    }

    fn place(&self, range: Range<usize>, tier: Tier) -> Result<(), TierError> {
        self.pages.set(range, tier);
        Ok(())
    }

    fn migrate(&self, range: Range<usize>, to: Tier) -> Result<Moved, TierError> {
        let moved_bytes = range.len() as u64;
        self.pages.set(range, to);
        Ok(Moved { moved_bytes, copied_bytes: moved_bytes, ..Moved::default() })
    }

    fn discard(&self, range: Range<usize>, next: Tier) -> Result<(), TierError> {
        self.place(range, next)
    }
}
