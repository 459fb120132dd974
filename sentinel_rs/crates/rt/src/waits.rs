//! How long what dies waits for movers: counted where it happens, and taken over by the counters at a step's end.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Waits of tensors that died while a piece of their move was under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waits {
    /// Altogether.
    pub sum: Duration,
    /// The longest.
    pub longest: Duration,
    /// How many.
    pub count: u64,
}

/// Where deaths note that they waited.
#[derive(Debug, Default)]
pub struct DeathWaits(Mutex<Waits>);

impl DeathWaits {
    /// One waited for so long; nothing happens when it did not wait.
    pub fn note(&self, took: Duration) {
        if took.is_zero() {
            return;
        }
        let mut waits = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *waits = Waits { sum: waits.sum + took, longest: waits.longest.max(took), count: waits.count + 1 };
    }

    /// The waits since the last call.
    #[must_use]
    pub fn take(&self) -> Waits {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_summed_until_they_are_taken() {
        let (waits, ms) = (DeathWaits::default(), Duration::from_millis);
        for took in [ms(3), Duration::ZERO, ms(5)] {
            waits.note(took);
        }
        assert_eq!(waits.take(), Waits { sum: ms(8), longest: ms(5), count: 2 });
        assert_eq!(waits.take(), Waits::default());
    }
}
