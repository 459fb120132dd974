//! The page record: what was set is what is read, and slow bytes are counted to the byte.

use place::PageTiers;
use proptest::prelude::*;
use trace::Tier;

const PAGE: usize = 4096;
const GIB: usize = 1 << 30;
const BASE: usize = 0x7000_0000_0000;

#[test]
fn nothing_is_known_until_it_is_set() {
    let record = PageTiers::new(BASE, 10 * PAGE);
    assert_eq!(record.get(BASE), None);
    assert_eq!(record.slow_bytes(BASE, 10 * PAGE), 0);
    record.set(BASE + PAGE..BASE + 2 * PAGE, Tier::SLOW);
    assert_eq!(record.get(BASE + PAGE), Some(Tier::SLOW));
    assert_eq!(record.get(BASE + 2 * PAGE - 1), Some(Tier::SLOW));
    assert_eq!(record.get(BASE + 2 * PAGE), None);
    assert_eq!(record.slow_bytes(BASE, 10 * PAGE), 4096);
}

#[test]
fn parts_outside_are_ignored() {
    let record = PageTiers::new(BASE, 10 * PAGE);
    record.set(BASE - 5 * PAGE..BASE + 50 * PAGE, Tier::SLOW);
    for outside in [0, BASE - 1, BASE + 10 * PAGE, usize::MAX] {
        assert_eq!(record.get(outside), None, "{outside:#x}");
    }
    assert_eq!(record.slow_bytes(0, usize::MAX), 40_960);
    assert_eq!(record.slow_bytes(BASE - PAGE, PAGE), 0);
    assert_eq!(record.slow_bytes(BASE + 10 * PAGE, usize::MAX), 0);
    record.set(BASE + 20 * PAGE..BASE + 21 * PAGE, Tier::FAST);
    assert_eq!(record.slow_bytes(BASE, 10 * PAGE), 40_960);
    assert_eq!(PageTiers::new(BASE, 0).get(BASE), None);
}

#[test]
fn pages_that_are_covered_in_part_count_in_part() {
    let record = PageTiers::new(BASE, 10 * PAGE);
    record.set(BASE..BASE + 10 * PAGE, Tier::SLOW);
    assert_eq!(record.slow_bytes(BASE + 100, 50), 50);
    assert_eq!(record.slow_bytes(BASE + 4000, 200), 200);
    assert_eq!(record.slow_bytes(BASE + 4000, 0), 0);
    record.set(BASE + 1..BASE + 2, Tier::FAST);
    assert_eq!(record.get(BASE), Some(Tier::FAST), "setting a part of a page sets the page");
    assert_eq!(record.slow_bytes(BASE + 4000, 200), 104);
    record.set(BASE + PAGE..BASE + PAGE, Tier(3));
    assert_eq!(record.get(BASE + PAGE), Some(Tier::SLOW), "an empty range sets nothing");
}

#[test]
fn tebibytes_cost_little_and_gibibytes_can_differ() {
    let record = PageTiers::new(BASE, 4 << 40);
    record.set(BASE..BASE + (4 << 40), Tier::SLOW);
    assert_eq!(record.slow_bytes(BASE + 1, 3 << 40), 3 << 40);
    let middle = BASE + 7 * GIB - PAGE;
    record.set(middle..middle + 2 * PAGE, Tier::FAST);
    assert_eq!(record.get(middle - 1), Some(Tier::SLOW));
    assert_eq!(record.get(middle), Some(Tier::FAST));
    assert_eq!(record.get(middle + 2 * PAGE), Some(Tier::SLOW));
    assert_eq!(record.slow_bytes(middle - PAGE, 4 * PAGE), 8192);
    record.set(BASE..BASE + 8 * GIB, Tier::FAST);
    assert_eq!(record.slow_bytes(BASE, 9 * GIB), 1 << 30);
}

#[test]
fn long_ranges_are_exact_when_long_runs_share_a_tier() {
    const MIB: usize = 1 << 20;
    let record = PageTiers::new(BASE, 64 * MIB);
    record.set(BASE..BASE + 64 * MIB, Tier::FAST);
    record.set(BASE + 3 * MIB + 5 * PAGE..BASE + 21 * MIB + 7 * PAGE, Tier::SLOW);
    let expected = 18 * (1 << 20) + 2 * 4096;
    assert_eq!(record.slow_bytes(BASE, 64 * MIB), expected);
    assert_eq!(record.slow_bytes(BASE + 123, 63 * MIB), expected);
}

#[test]
fn threads_that_set_different_pages_do_not_lose_one_another() {
    const PAGES: usize = 1 << 18;
    let record = PageTiers::new(BASE, PAGES * PAGE);
    std::thread::scope(|scope| {
        for thread in 0..4usize {
            let record = &record;
            scope.spawn(move || {
                for page in (thread..2048).step_by(4) {
                    let addr = BASE + page * PAGE;
                    record.set(addr..addr + PAGE, if page % 3 == 0 { Tier::FAST } else { Tier::SLOW });
                    assert!(record.get(addr).is_some());
                }
            });
        }
    });
    for page in 0..2048 {
        let expected = if page % 3 == 0 { Tier::FAST } else { Tier::SLOW };
        assert_eq!(record.get(BASE + page * PAGE), Some(expected));
    }
    assert_eq!(record.get(BASE + 2048 * PAGE), None);
}

proptest! {
    #[test]
    fn agrees_with_a_plain_list_of_pages(
        sets in prop::collection::vec((0usize..300 * PAGE, 0usize..80 * PAGE, 0u8..4), 0..40),
        asked in prop::collection::vec((0usize..260 * PAGE, 0usize..250 * PAGE), 1..20),
    ) {
        const PAGES: usize = 256;
        let base = BASE + GIB - 100 * PAGE;
        let record = PageTiers::new(base, PAGES * PAGE);
        let mut model = [None; PAGES];
        for (offset, len, rank) in sets {
            record.set(base + offset..base + offset + len, Tier(rank));
            let end = if len == 0 { offset / PAGE } else { (offset + len).div_ceil(PAGE) };
            for page in (offset / PAGE..end).filter(|&page| page < PAGES) {
                model[page] = Some(Tier(rank));
            }
        }
        for (page, &tier) in model.iter().enumerate() {
            prop_assert_eq!(record.get(base + page * PAGE), tier);
        }
        for (offset, len) in asked {
            let slow = |page: usize| model[page].is_some_and(|tier| tier != Tier::FAST);
            let in_page = |page: usize| ((page + 1) * PAGE).min(offset + len).saturating_sub((page * PAGE).max(offset));
            let expected: usize = (0..PAGES).filter(|&page| slow(page)).map(in_page).sum();
            prop_assert_eq!(record.slow_bytes(base + offset, len), expected as u64);
        }
    }
}
