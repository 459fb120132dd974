//! The claim map: nobody owns what another owns, a claim that fails leaves nothing behind, the count is exact.

use place::{ClaimMap, GRANULE_BYTES};
use proptest::prelude::*;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

const G: u64 = GRANULE_BYTES;

#[test]
fn a_claim_is_all_or_nothing() {
    let map = ClaimMap::new(1000 * G);
    assert!(map.claim(200 * G, G));
    assert!(!map.claim(0, 201 * G), "granule 200 is taken");
    assert!(map.is_free(0, 200 * G), "the failed claim left something behind");
    assert_eq!(map.claimed_bytes(), G);
    assert!(map.claim(0, 200 * G));
    assert!(map.claim(201 * G, 799 * G));
    assert_eq!(map.claimed_bytes(), 1000 * G);
    map.release(200 * G, G);
    assert!(map.is_free(200 * G, G) && !map.is_free(199 * G, 2 * G));
    map.release(0, 200 * G);
    map.release(201 * G, 799 * G);
    assert_eq!(map.claimed_bytes(), 0);
    assert!(map.claim(0, 1000 * G), "all of it is free again");
}

#[test]
fn a_small_claim_far_into_the_map_is_seen_by_a_large_one() {
    const PLACE: u64 = 64 * 64; // granules of one word of the maps of whole words
    let map = ClaimMap::new(3 * PLACE * G);
    for granule in [PLACE + 65, 2 * PLACE + 4095] {
        assert!(map.claim(granule * G, G));
        assert!(!map.claim(granule / PLACE * PLACE * G, PLACE * G), "granule {granule} is taken");
        map.release(granule * G, G);
        assert!(map.claim(granule / PLACE * PLACE * G, PLACE * G));
        assert!(!map.claim(granule * G, G), "all of it is taken");
    }
}

/// Words that nobody has ever taken in part are where a large claim does not look, so each word is new in each race.
#[test]
fn of_a_first_small_claim_and_a_large_one_at_the_same_time_one_fails() {
    const WORDS: u64 = 2000;
    const ROUNDS: usize = 8;
    let mut met = [0; 3];
    for _ in 0..ROUNDS {
        let map = ClaimMap::new(WORDS * 64 * G);
        let arrived = AtomicU64::new(0);
        let race = |me: u64| {
            let meet = |word: u64| {
                arrived.fetch_add(1, Ordering::SeqCst);
                while arrived.load(Ordering::SeqCst) < 2 * (word + 1) {
                    std::thread::yield_now();
                }
                let (granule, granules) = if me == 0 { (word * 64 + 7, 1) } else { (word * 64, 64) };
                map.claim(granule * G, granules * G)
            };
            (0..WORDS).map(meet).collect::<Vec<bool>>()
        };
        let (small, large) = std::thread::scope(|scope| {
            let small = scope.spawn(|| race(0));
            (race(1), small.join().expect("no thread fails"))
        });
        for (small, large) in small.into_iter().zip(large) {
            assert!(!(small && large), "both own it");
            met[usize::from(small) + 2 * usize::from(large)] += 1;
        }
    }
    assert!(met[1] > 0 && met[2] > 0, "either may win: {met:?}");
}

#[test]
fn bytes_take_the_granules_that_they_touch() {
    let map = ClaimMap::new(8 * G + 1);
    assert!(map.claim(G - 1, 2));
    assert_eq!(map.claimed_bytes(), 2 * G);
    assert!(!map.is_free(0, 1) && !map.is_free(2 * G - 1, 1) && map.is_free(2 * G, 1));
    assert!(map.claim(8 * G, 1), "a length that is no multiple is rounded up");
    assert!(!map.claim(9 * G, 1) && !map.is_free(9 * G, 1), "outside");
    assert!(!map.claim(u64::MAX, 2) && !map.is_free(u64::MAX, 2), "past the end of the numbers");
    map.release(9 * G, 1);
    assert!(map.claim(0, 0) && map.is_free(0, 0), "nothing is always free");
    assert_eq!(map.claimed_bytes(), 3 * G);
}

#[test]
fn the_highest_claim_below_a_limit_is_found() {
    let map = ClaimMap::new(1000 * G);
    assert_eq!(map.highest_claimed_end(u64::MAX), 0);
    for granule in [0, 63, 64, 500, 999] {
        assert!(map.claim(granule * G, G));
    }
    let ends =
        [(0, 0), (1, 1), (63, 1), (64, 64), (65, 65), (500, 65), (501, 501), (999, 501), (1000, 1000), (5000, 1000)];
    for (below, end) in ends {
        assert_eq!(map.highest_claimed_end(below * G), end * G, "below granule {below}");
    }
    assert_eq!(map.highest_claimed_end(500 * G + 1), 501 * G, "granule 500 begins below");
    assert_eq!(ClaimMap::new(0).highest_claimed_end(G), 0);
}

/// Claims and releases random ranges; every granule has an owner's number in `owners`, which only its owner may change.
fn contend(map: &ClaimMap, owners: &[AtomicU32], me: u32, rounds: u32, claimed: &AtomicU64) {
    let granules = owners.len() as u64;
    let mut seed = 0x9E37_79B9 ^ (u64::from(me) << 32);
    let mut random = |limit: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed >> 11) % limit
    };
    let mut held: Vec<(u64, u64)> = Vec::new();
    for _ in 0..rounds {
        if held.len() < 3 {
            let first = random(granules);
            let count = 1 + random((granules - first).min(300));
            if map.claim(first * G, count * G) {
                for owner in &owners[usize::try_from(first).unwrap()..][..usize::try_from(count).unwrap()] {
                    // Relaxed on purpose: the claim itself has to make the owner before us visible.
                    assert_eq!(owner.load(Ordering::Relaxed), 0, "claimed by two");
                    owner.store(me, Ordering::Relaxed);
                }
                claimed.fetch_add(1, Ordering::Relaxed);
                held.push((first, count));
            }
        } else {
            let (first, count) = held.swap_remove(usize::try_from(random(3)).unwrap());
            give_back(map, owners, me, first, count);
        }
    }
    for (first, count) in held {
        give_back(map, owners, me, first, count);
    }
}

fn give_back(map: &ClaimMap, owners: &[AtomicU32], me: u32, first: u64, count: u64) {
    for owner in &owners[usize::try_from(first).unwrap()..][..usize::try_from(count).unwrap()] {
        assert_eq!(owner.load(Ordering::Relaxed), me, "another thread took what is ours");
        owner.store(0, Ordering::Relaxed);
    }
    map.release(first * G, count * G);
}

#[test]
fn threads_exclude_one_another() {
    const GRANULES: u64 = 1000;
    let map = ClaimMap::new(GRANULES * G);
    let owners: Vec<AtomicU32> = (0..GRANULES).map(|_| AtomicU32::new(0)).collect();
    let claimed = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for me in 1..=4 {
            let (map, owners, claimed) = (&map, &owners, &claimed);
            scope.spawn(move || contend(map, owners, me, 300_000, claimed));
        }
    });
    assert!(claimed.load(Ordering::Relaxed) > 1000);
    assert_eq!(map.claimed_bytes(), 0);
    assert!(map.is_free(0, GRANULES * G), "something stayed claimed");
}

proptest! {
    #[test]
    fn agrees_with_a_plain_list_of_bytes(
        operations in prop::collection::vec((any::<bool>(), 0u64..720, 0u64..450), 1..120),
    ) {
        const GRANULES: u64 = 700;
        let map = ClaimMap::new(GRANULES * G);
        let mut taken = [false; 700];
        let mut held: Vec<(u64, u64)> = Vec::new();
        for (is_claim, first, count) in operations {
            let part = |first: u64, count: u64| usize::try_from(first).unwrap()..usize::try_from(first + count).unwrap();
            if is_claim {
                let inside = first + count <= GRANULES;
                let free = inside && taken[part(first, count)].iter().all(|&granule| !granule);
                prop_assert_eq!(map.is_free(first * G, count * G), free);
                prop_assert_eq!(map.claim(first * G, count * G), free);
                if free {
                    taken[part(first, count)].fill(true);
                    held.push((first, count));
                }
            } else if !held.is_empty() {
                let (first, count) = held.swap_remove(usize::try_from(first).unwrap() % held.len());
                map.release(first * G, count * G);
                taken[part(first, count)].fill(false);
            }
            let claimed = taken.iter().filter(|&&granule| granule).count() as u64;
            prop_assert_eq!(map.claimed_bytes(), claimed * G);
            let highest = taken[..first.min(GRANULES).try_into().unwrap()].iter().rposition(|&granule| granule);
            prop_assert_eq!(map.highest_claimed_end(first * G), highest.map_or(0, |granule| (granule as u64 + 1) * G));
        }
    }
}
