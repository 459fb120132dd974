//! Freed blocks of the fast heap: where fast bytes are limited, their pages must not stay on the fast node unaccounted.

use place::{Moved, TierError, Tiers};
use rt::memory::{Freed, Memory};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use trace::Tier;

/// Reserved address space that nobody touches, and a list of what was dropped.
#[derive(Default)]
struct Dropped(Mutex<Vec<(usize, usize, Tier)>>);

impl Dropped {
    fn list(&self) -> Vec<(usize, usize, Tier)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Tiers for Dropped {
    fn kind(&self) -> &'static str {
        "test"
    }

    fn slow_name(&self) -> &str {
        "test"
    }

    fn reserve(&self, len_bytes: usize, _: Tier) -> Result<Range<usize>, TierError> {
        Ok((1 << 30)..(1 << 30) + len_bytes)
    }

    fn place(&self, _: Range<usize>, _: Tier) -> Result<(), TierError> {
        Ok(())
    }

    fn migrate(&self, _: Range<usize>, _: Tier) -> Result<Moved, TierError> {
        Ok(Moved::default())
    }

    fn discard(&self, range: Range<usize>, next: Tier) -> Result<(), TierError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((range.start, range.len(), next));
        Ok(())
    }
}

fn memory(fast_bytes: u64) -> (Memory, Arc<Dropped>) {
    let dropped = Arc::<Dropped>::default();
    let memory = Memory::reserve(Arc::<Dropped>::clone(&dropped), 1 << 30, fast_bytes).expect("address space");
    (memory, dropped)
}

/// A block is made and freed; returns what was dropped, relative to its address.
fn dropped_by(fast_bytes: u64, size_bytes: u64, tier: Tier) -> Vec<(usize, usize, Tier)> {
    let (memory, dropped) = memory(fast_bytes);
    let addr = memory.alloc_heap(size_bytes, 64, tier).expect("there is room");
    assert!(matches!(memory.free(addr), Freed::Block { .. }));
    assert_eq!(memory.budget.used(), 0);
    dropped.list().into_iter().map(|(begin, len, tier)| (begin - addr, len, tier)).collect()
}

#[test]
fn large_fast_blocks_leave_no_pages_behind_where_fast_bytes_are_limited() {
    assert_eq!(dropped_by(1 << 20, 100_000, Tier::FAST), [(0, 102_400, Tier::FAST)]);
}

#[test]
fn other_blocks_cost_no_system_call() {
    assert_eq!(dropped_by(1 << 20, 40_000, Tier::FAST), [], "small");
    assert_eq!(dropped_by(1 << 20, 100_000, Tier::SLOW), [], "slow memory is not limited");
    assert_eq!(dropped_by(u64::MAX, 100_000, Tier::FAST), [], "fast memory is not limited");
}
