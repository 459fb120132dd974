//! What becomes of moves that the system refuses: a direction that is refused again and again rests for a while, the user
//! is told once, and a training that asked for strictness stops.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use sys::errno::{EBUSY, ENOMEM};
use trace::Tier;

/// So many refusals in a row make a direction rest.
const REFUSALS: u32 = 3;
/// So many moves in a row of which pages stayed because the kernel was using them are more than bad luck.
const BUSY_MOVES: u32 = 16;
/// How long a direction rests before it tries once more: a node may come back, another process may end.
const REST: Duration = Duration::from_secs(1);

/// One direction's troubles.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    in_a_row: AtomicU32,
    until: Mutex<Option<Instant>>,
}

impl Trouble {
    /// A move arrived whole.
    pub(super) fn over(&self) {
        self.in_a_row.store(0, Ordering::Relaxed);
    }

    /// A move failed with this error number. Says whether the user should hear of it: pages that the kernel is using at the
    /// moment are normal, everything else is not.
    pub(super) fn failed(&self, errno: i32) -> bool {
        let in_a_row = self.in_a_row.fetch_add(1, Ordering::Relaxed) + 1;
        let patience = if errno == EBUSY { BUSY_MOVES } else { REFUSALS };
        if in_a_row >= patience {
            *self.until.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + REST);
        }
        errno != EBUSY || in_a_row >= patience
    }

    /// True while the direction rests: its moves are dropped and nobody waits for them.
    pub(super) fn rests(&self) -> bool {
        if self.in_a_row.load(Ordering::Relaxed) < REFUSALS {
            return false;
        }
        let until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| Instant::now() < until)
    }
}

/// What failed, for people: the option that asked for it, the operation, the reason and what would help.
fn told(slow_name: &str, operation: &str, tier: Tier, errno: i32, instead: &str) -> String {
    let name = if tier == Tier::FAST { "fast" } else { "slow" };
    let help = match errno {
        ENOMEM => "it is full",
        EBUSY => "the kernel is using the pages all the time",
        _ => "does a container or a missing node forbid it? `sentinel doctor` tells",
    };
    let reason = sys::errno_text(errno);
    format!("sentinel: slow = {slow_name}: {operation} {name} memory failed: {reason}; {instead}; {help}")
}

/// Of pages that stayed where they were.
pub(super) fn explain(slow_name: &str, to: Tier, errno: i32) -> String {
    told(slow_name, "moving pages to", to, errno, "tensors stay where they are")
}

/// Of new pages, which come from where the kernel likes.
pub(crate) fn explain_new(slow_name: &str, tier: Tier, errno: i32) -> String {
    told(slow_name, "taking new pages from", tier, errno, "they come from where the kernel has some")
}

#[cfg(test)]
mod tests {
    use super::*;
    use sys::errno::EPERM;

    #[test]
    fn refusals_in_a_row_make_a_direction_rest_and_one_success_ends_it() {
        let trouble = Trouble::default();
        assert!(trouble.failed(EPERM) && trouble.failed(EPERM) && !trouble.rests());
        assert!(trouble.failed(EPERM) && trouble.rests());
        trouble.over();
        assert!(!trouble.rests());
    }

    #[test]
    fn busy_pages_are_normal_until_they_are_a_storm() {
        let trouble = Trouble::default();
        for _ in 1..BUSY_MOVES {
            assert!(!trouble.failed(EBUSY) && !trouble.rests());
        }
        assert!(trouble.failed(EBUSY) && trouble.rests());
    }

    #[test]
    fn explanations_name_option_operation_and_reason() {
        let text = explain("node:1", Tier::SLOW, ENOMEM);
        for part in ["slow = node:1", "moving pages to slow memory", "ENOMEM", "full"] {
            assert!(text.contains(part), "{text:?} does not say {part:?}");
        }
        let text = explain_new("node:1", Tier::FAST, EPERM);
        for part in ["slow = node:1", "taking new pages from fast memory", "EPERM", "come from where", "container"] {
            assert!(text.contains(part), "{text:?} does not say {part:?}");
        }
    }
}
