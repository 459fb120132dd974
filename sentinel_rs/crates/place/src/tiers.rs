//! The whole outside world of placement: the few things that a set of memory tiers can be asked to do.

use std::collections::BTreeMap;
use std::ops::Range;
use trace::Tier;

/// What a migration achieved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Bytes that are in the wanted tier now and were not before.
    pub moved_bytes: u64,
    /// Of these, bytes that the system copied; the others had no pages yet, and get them from the tier.
    pub copied_bytes: u64,
    /// Bytes that stayed where they were.
    pub failed_bytes: u64,
    /// The errno of the first page that stayed, 0 when there is none.
    pub errno: i32,
}

/// Where the touched pages of a range were found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Located {
    /// Bytes in the tier that was asked about.
    pub there_bytes: u64,
    /// Bytes anywhere else.
    pub elsewhere_bytes: u64,
}

/// What the system refused so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refusals {
    /// Pages that did not move in spite of every try, by error number.
    pub pages: BTreeMap<i32, u64>,
    /// Calls that were refused as a whole, by error number.
    pub calls: BTreeMap<i32, u64>,
    /// Pages that were tried again because the system was using them.
    pub retried_pages: u64,
}

/// Why an operation on tiers failed as a whole.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{operation} of {len_bytes} bytes at {addr:#x} failed: {reason} (errno {errno})")]
pub struct TierError {
    /// Which operation, such as `mbind`.
    pub operation: &'static str,
    /// Begin of the range.
    pub addr: usize,
    /// Length of the range.
    pub len_bytes: usize,
    /// The system's error number.
    pub errno: i32,
    /// The system's text for it.
    pub reason: String,
}

/// Memory in two or more tiers. All ranges are whole pages inside a region that `reserve` returned. Calls may come from
/// several threads at once.
pub trait Tiers: Send + Sync {
    /// `numa`, `swap` or `emulated`: printed wherever results are printed.
    fn kind(&self) -> &'static str;

    /// What the slow tier is, for people: `emulated:optane`, `node:1`.
    fn slow_name(&self) -> &str;

    /// Address space of this length whose untouched pages will come from `home`. Never given back.
    ///
    /// # Errors
    /// When the system has no address space or refuses the tier.
    fn reserve(&self, len_bytes: usize, home: Tier) -> Result<Range<usize>, TierError>;

    /// Makes pages of the range that have not been touched yet come from `tier`.
    ///
    /// # Errors
    /// When the system refuses.
    fn place(&self, range: Range<usize>, tier: Tier) -> Result<(), TierError>;

    /// All of the range is about to be written: pages that it lacks may as well come at once as one by one.
    fn populate(&self, _range: Range<usize>) {}

    /// Moves the range's pages to `tier`, and returns when they are there. Their contents stay readable and writable all
    /// the while.
    ///
    /// # Errors
    /// When nothing could be tried; pages that stayed are not an error but counted in [`Moved`].
    fn migrate(&self, range: Range<usize>, to: Tier) -> Result<Moved, TierError>;

    /// The contents of the range are not needed any more; the next touch takes pages from `next`.
    ///
    /// # Errors
    /// When the system refuses.
    fn discard(&self, range: Range<usize>, next: Tier) -> Result<(), TierError>;

    /// Training is at a layer boundary, and waits for the answer.
    fn boundary(&self) {}

    /// Asks the system where the touched pages of the range are; `None` when it does not say, or when these tiers are not
    /// different places.
    fn located(&self, _range: Range<usize>, _tier: Tier) -> Option<Located> {
        None
    }

    /// Bytes of the range that the system holds in the tier's memory, whoever wanted them there; `None` when it does not say.
    fn held_bytes(&self, _range: Range<usize>, _tier: Tier) -> Option<u64> {
        None
    }

    /// Whether huge pages are welcome in the range, which then has to move as a whole. Nothing happens where the system has
    /// none.
    fn welcome_huge_pages(&self, _range: Range<usize>, _welcome: bool) {}

    /// Whether what is born in slow memory takes fast memory until it has been moved: then a birth that finds no room does
    /// better to wait for an eviction under way.
    fn births_take_memory(&self) -> bool {
        false
    }

    /// The error number that new pages of so many bytes would meet if they insisted on the tier; `None` when it has room for
    /// them, or when the system does not tell. They come from elsewhere otherwise, and nobody says so.
    fn shortage(&self, _bytes: u64, _tier: Tier) -> Option<i32> {
        None
    }

    /// Bytes that were born in slow memory, took fast memory at first, and were moved out later, without a mover.
    fn newborn_demoted_bytes(&self) -> u64 {
        0
    }

    /// Whether there are different places between which bytes move. Where there are none, blocks need no pages of their own.
    fn moves(&self) -> bool {
        true
    }

    /// What the system refused so far; nothing where nothing can be refused.
    fn refusals(&self) -> Refusals {
        Refusals::default()
    }
}
