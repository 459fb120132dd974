//! How much of an arena's pool is fast memory at the moment.
//!
//! A pool that is *reserved* is given its size at layer boundaries. One *on demand* grows when a tensor is born above its
//! end, and gives its free top back when somebody else needs the room; its account is what it holds of fast pages, alive or
//! not, so that it is true of real memory. What it may still grow to in the interval is kept from promotions, which begin as
//! soon as they find room and would take what a tensor needs that is born later.

use crate::Budget;
use std::ops::Range;
use std::sync::atomic::{fence, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The smallest piece by which the pool grows when the budget cannot give all at once.
const POOL_STEP_BYTES: u64 = 64 << 10;

/// The fast bytes of a pool, from its begin.
#[derive(Debug, Default)]
pub(crate) struct PoolSize {
    now_bytes: AtomicU64,
    /// What it may hold in the interval that runs.
    planned_bytes: AtomicU64,
    /// One thread at a time changes the size.
    sizing: Mutex<()>,
}

impl PoolSize {
    /// Fast bytes now.
    pub(crate) fn now(&self) -> u64 {
        self.now_bytes.load(Ordering::SeqCst)
    }

    /// From now on it may hold so much.
    pub(crate) fn plan_for(&self, bytes: u64) {
        self.planned_bytes.store(bytes, Ordering::Relaxed);
    }

    /// What it may hold in the interval that runs.
    pub(crate) fn planned(&self) -> u64 {
        self.planned_bytes.load(Ordering::Relaxed)
    }

    /// What it may still grow by.
    pub(crate) fn growth_left(&self) -> u64 {
        self.planned().saturating_sub(self.now())
    }

    fn alone(&self) -> MutexGuard<'_, ()> {
        self.sizing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Grows up to `end_bytes` when the budget has the room; the offsets that are new, none when it reaches that far already.
    /// `None` when there is no room.
    pub(crate) fn grow_to(&self, end_bytes: u64, budget: &Budget) -> Option<Range<u64>> {
        let _alone = self.alone();
        let now = self.now();
        if now < end_bytes {
            if !budget.try_reserve(end_bytes - now) {
                return None;
            }
            self.now_bytes.store(end_bytes, Ordering::SeqCst);
        }
        Some(now..end_bytes.max(now))
    }

    /// Grows towards `wanted_bytes` as far as the budget goes.
    pub(crate) fn grow_towards(&self, wanted_bytes: u64, budget: &Budget) {
        let _alone = self.alone();
        let mut grown = self.now();
        let mut piece = wanted_bytes.saturating_sub(grown);
        while piece > 0 && grown < wanted_bytes {
            let ask = piece.min(wanted_bytes - grown);
            if budget.try_reserve(ask) {
                grown += ask;
            } else if piece > POOL_STEP_BYTES {
                piece /= 2;
            } else {
                break;
            }
        }
        self.now_bytes.fetch_max(grown, Ordering::SeqCst);
    }

    /// Shrinks by what is above `keep_bytes(now)`, but not below what `claimed_end(now)` says is alive; `drop_pages` is told of
    /// the offsets that are given back.
    pub(crate) fn shrink(
        &self,
        keep_bytes: impl FnOnce(u64) -> u64,
        claimed_end: impl FnOnce(u64) -> u64,
        budget: &Budget,
        drop_pages: impl FnOnce(Range<u64>),
    ) {
        let _alone = self.alone();
        let now = self.now();
        let wanted = keep_bytes(now);
        if wanted >= now {
            return;
        }
        // First forbid, then look at who is there, then release: see `Arena::claim`.
        self.now_bytes.store(wanted, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        let kept = wanted.max(claimed_end(now)).min(now);
        self.now_bytes.store(kept, Ordering::SeqCst);
        drop_pages(kept..now);
        budget.release(now - kept);
    }
}
