//! The budget: what is allowed is never exceeded, by any number of threads.

use place::Budget;
use std::sync::atomic::{AtomicU64, Ordering};

#[test]
fn reserves_up_to_what_is_allowed() {
    let budget = Budget::new(100);
    assert!(budget.try_reserve(60) && budget.try_reserve(40));
    assert!(!budget.try_reserve(1));
    assert!(budget.try_reserve(0), "nothing always fits");
    budget.release(50);
    assert_eq!((budget.used(), budget.peak(), budget.allowed()), (50, 100, 100));
    assert!(!budget.try_reserve(51) && budget.try_reserve(50));
}

#[test]
fn lowering_below_what_is_used_takes_nothing_back() {
    let budget = Budget::new(100);
    assert!(budget.try_reserve(80));
    budget.set_allowed(50);
    assert_eq!((budget.used(), budget.allowed()), (80, 50));
    assert!(!budget.try_reserve(1));
    assert!(budget.try_reserve(0));
    budget.release(40);
    assert!(budget.try_reserve(10) && !budget.try_reserve(1));
    budget.set_allowed(200);
    assert!(budget.try_reserve(150));
    assert_eq!(budget.peak(), 200);
}

#[test]
fn unlimited_still_counts_and_never_wraps_round() {
    let budget = Budget::new(u64::MAX);
    assert!(budget.try_reserve(u64::MAX - 1));
    assert!(!budget.try_reserve(2));
    assert_eq!((budget.used(), budget.peak()), (u64::MAX - 1, u64::MAX - 1));
}

#[test]
fn threads_never_hold_more_than_is_allowed() {
    const ALLOWED: u64 = 1000;
    let budget = Budget::new(ALLOWED);
    let held = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for thread in 1..=4u64 {
            let (budget, held) = (&budget, &held);
            scope.spawn(move || {
                for round in 0..500_000u64 {
                    let bytes = (round * 7919 + thread * 104_729) % 600;
                    if !budget.try_reserve(bytes) {
                        continue;
                    }
                    // Counted after the reservation and given up before the release, so it never overstates.
                    let now = held.fetch_add(bytes, Ordering::SeqCst) + bytes;
                    assert!(now <= ALLOWED, "{now} bytes are held");
                    held.fetch_sub(bytes, Ordering::SeqCst);
                    budget.release(bytes);
                }
            });
        }
    });
    assert_eq!(budget.used(), 0);
    assert!(budget.peak() <= ALLOWED);
}
