//! The account of fast bytes: nothing goes into fast memory without a reservation here.

use std::sync::atomic::{AtomicU64, Ordering};

/// How many bytes may be in fast memory at once, and how many are. All methods may be called from several threads at once.
///
/// Reservations use acquire and release ordering: who reserves bytes that another thread has released sees what that
/// thread did before, such as moving the pages away.
#[derive(Debug)]
pub struct Budget {
    allowed: AtomicU64,
    used: AtomicU64,
    peak: AtomicU64,
}

impl Budget {
    /// An account over `allowed` bytes with nothing reserved; `u64::MAX` means unlimited.
    #[must_use]
    pub fn new(allowed: u64) -> Self {
        Budget { allowed: AtomicU64::new(allowed), used: AtomicU64::new(0), peak: AtomicU64::new(0) }
    }

    /// Reserves `bytes` when they fit; otherwise nothing changes and the answer is `false`. Zero bytes always fit.
    pub fn try_reserve(&self, bytes: u64) -> bool {
        self.try_reserve_beside(bytes, 0)
    }

    /// As [`Budget::try_reserve`], when `spared_bytes` more would fit as well.
    pub fn try_reserve_beside(&self, bytes: u64, spared_bytes: u64) -> bool {
        if bytes == 0 {
            return true;
        }
        let allowed = self.allowed().saturating_sub(spared_bytes);
        let fits = |used: u64| used.checked_add(bytes).filter(|&sum| sum <= allowed);
        match self.used.fetch_update(Ordering::AcqRel, Ordering::Relaxed, fits) {
            Ok(before) => {
                // A locked instruction only where there is something to write.
                if before + bytes > self.peak.load(Ordering::Relaxed) {
                    self.peak.fetch_max(before + bytes, Ordering::Relaxed);
                }
                true
            }
            Err(_) => false,
        }
    }

    /// Gives back `bytes` that were reserved. Giving back more than is reserved is the caller's mistake; the account then
    /// stays at zero.
    pub fn release(&self, bytes: u64) {
        let before =
            self.used.fetch_update(Ordering::AcqRel, Ordering::Relaxed, |used| Some(used.saturating_sub(bytes)));
        debug_assert!(before.is_ok_and(|used| used >= bytes), "released {bytes} bytes of {before:?}");
    }

    /// Bytes reserved now.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Acquire)
    }

    /// Bytes that could be reserved now.
    #[must_use]
    pub fn room(&self) -> u64 {
        self.allowed().saturating_sub(self.used())
    }

    /// The most bytes that were ever reserved at once.
    #[must_use]
    pub fn peak(&self) -> u64 {
        self.peak.load(Ordering::Relaxed)
    }

    /// Bytes that may be reserved in all.
    #[must_use]
    pub fn allowed(&self) -> u64 {
        self.allowed.load(Ordering::Relaxed)
    }

    /// Sets the allowed bytes. Below what is used, nothing is taken back, but nothing more fits until enough is released.
    /// A reservation under way at the same time may still be judged by the old figure.
    pub fn set_allowed(&self, allowed: u64) {
        self.allowed.store(allowed, Ordering::Relaxed);
    }
}
