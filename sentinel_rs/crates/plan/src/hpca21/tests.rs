//! The published rules one by one, on steps small enough to follow by hand. One op per layer; sizes in pages.

use super::hpca21;
use super::intervals::Cuts;
use super::schedule::{schedule, Schedule};
use super::units::Span;
use crate::testing::{add, step, PAGE};
use crate::{Machine, Move, Place, Plan, PlanError, UnitHome};
use profile::{BufferUse, Class, LayerFacts, Profile};
use trace::Tier;

/// A machine that moves a page per microsecond in either direction.
fn page_per_us() -> Machine {
    let gbps = 4.096;
    Machine { promote_gbps: gbps, demote_gbps: gbps, ..Machine::by_name("optane").unwrap() }
}

fn place_of(plan: &Plan, profile: &Profile, buffer: usize) -> Place {
    let key = profile.buffers[buffer].key.unwrap();
    plan.slots.iter().find(|slot| slot.key == key).unwrap().place
}

fn unit_of(plan: &Plan, profile: &Profile, buffer: usize) -> (u32, u64) {
    match place_of(plan, profile, buffer) {
        Place::Units { first, offset_bytes, .. } => (first, offset_bytes),
        other => panic!("{other:?}"),
    }
}

#[test]
fn rule_1_short_lived_buffers_of_a_layer_share_pages_and_those_of_different_layers_addresses() {
    let mut profile = step(&[1000; 2]);
    let a = add(&mut profile, Class::ShortLived, 5000, &[0], 0);
    let b = add(&mut profile, Class::ShortLived, 5000, &[0], 0);
    let c = add(&mut profile, Class::ShortLived, 9000, &[1], 1);
    let plan = hpca21(&profile, 100 * PAGE, &page_per_us()).unwrap();
    let mut offsets = [a, b, c].map(|buffer| place_of(&plan, &profile, buffer));
    offsets[..2].sort_by_key(|place| format!("{place:?}"));
    let pool = |offset_bytes| Place::Pool { offset_bytes };
    assert_eq!(offsets, [pool(0), pool(5120), pool(0)]);
    assert_eq!(plan.pool_bytes, 3 * PAGE);
}

#[test]
fn rule_2_buffers_with_the_same_layers_form_a_unit_the_most_accessed_first() {
    let mut profile = step(&[1000; 6]);
    let rare = add(&mut profile, Class::LongLived, 5000, &[0, 1, 4], 4);
    let often = add(&mut profile, Class::LongLived, 5000, &[0, 1, 4], 4);
    profile.buffers[often].reads = 9;
    let plan = hpca21(&profile, 100 * PAGE, &page_per_us()).unwrap();
    assert_eq!(unit_of(&plan, &profile, often), (0, 0));
    assert_eq!(unit_of(&plan, &profile, rare), (0, 5120));
    assert_eq!((plan.units[0].len_bytes, plan.units[0].accesses), (3 * PAGE, 12));
    assert_eq!(plan.units[0].layers, [0, 1, 4]);
}

#[test]
fn rule_3_buffers_with_different_layers_never_share_a_page() {
    let mut profile = step(&[1000; 6]);
    let a = add(&mut profile, Class::LongLived, 5000, &[0, 1, 4], 4);
    let b = add(&mut profile, Class::LongLived, 5000, &[0, 4], 4);
    let plan = hpca21(&profile, 100 * PAGE, &page_per_us()).unwrap();
    assert_eq!(unit_of(&plan, &profile, a), (0, 0));
    assert_eq!(unit_of(&plan, &profile, b), (1, 2 * PAGE));
}

#[test]
fn rule_4_long_and_short_lived_buffers_never_share_a_page() {
    let mut profile = step(&[1000; 3]);
    add(&mut profile, Class::ShortLived, 4608, &[1], 1);
    let long = add(&mut profile, Class::LongLived, 5000, &[0, 2], 2);
    let plan = hpca21(&profile, 100 * PAGE, &page_per_us()).unwrap();
    assert_eq!(plan.pool_bytes, 2 * PAGE);
    assert_eq!(unit_of(&plan, &profile, long), (0, 2 * PAGE));
}

#[test]
fn persistent_buffers_are_units_of_their_own_from_a_page_on() {
    let mut profile = step(&[1000; 3]);
    add(&mut profile, Class::Persistent, PAGE - 1, &[0], 2);
    let weights = add(&mut profile, Class::Persistent, PAGE + 1, &[0, 2], 2);
    add(&mut profile, Class::External, 9 * PAGE, &[0], 2);
    let plan = hpca21(&profile, 100 * PAGE, &page_per_us()).unwrap();
    assert_eq!(plan.units.len(), 1);
    let buffer = u32::try_from(weights).unwrap();
    assert_eq!(plan.units[0].home, UnitHome::Persistent { buffer, offset_bytes: 0 });
    assert_eq!((plan.units[0].len_bytes, plan.arena_bytes), (2 * PAGE, 0));
    assert_eq!(plan.unplanned_bytes, PAGE - 1);
}

#[test]
fn what_outlives_the_step_goes_to_the_fast_heap_and_scratch_has_no_slot() {
    let mut profile = step(&[1000; 3]);
    let fetched = add(&mut profile, Class::Escaping, 5000, &[1], 2);
    let scratch = add(&mut profile, Class::Scratch, 8000, &[1], 1);
    profile.buffers[scratch].key = None;
    profile.unplanned_peak_bytes = 8000;
    let plan = hpca21(&profile, 100 * PAGE, &page_per_us()).unwrap();
    assert_eq!(place_of(&plan, &profile, fetched), Place::Heap { tier: Tier::FAST });
    assert_eq!(plan.slots.len(), 1);
    assert_eq!(plan.unplanned_bytes, 8000 + 800 + 5000);
}

#[test]
fn a_budget_that_is_too_small_leaves_the_rest_slow_and_says_what_is_needed() {
    let mut profile = step(&[1000; 4]);
    let cold = add(&mut profile, Class::ShortLived, 3 * PAGE, &[1], 1);
    let hot = add(&mut profile, Class::ShortLived, 3 * PAGE, &[1], 1);
    profile.buffers[hot].reads = 5;
    let long = add(&mut profile, Class::LongLived, 2 * PAGE, &[2, 3], 3);
    profile.unplanned_peak_bytes = 40 * PAGE;
    let plan = hpca21(&profile, 6 * PAGE, &page_per_us()).unwrap();
    assert_eq!(plan.unplanned_bytes, 6 * PAGE / 4, "at most a quarter");
    assert_eq!(plan.fast_needed_bytes, 6 * PAGE + 2 * PAGE + 44 * PAGE);
    assert_eq!(place_of(&plan, &profile, hot), Place::Pool { offset_bytes: 0 });
    assert_eq!(place_of(&plan, &profile, cold), Place::Heap { tier: Tier::SLOW });
    let (unit, _) = unit_of(&plan, &profile, long);
    assert_eq!(plan.units[unit as usize].birth_tier, Tier::FAST, "layers 0 and 3 need no pool");
    let plan = hpca21(&profile, 1, &page_per_us()).unwrap();
    assert_eq!(place_of(&plan, &profile, hot), Place::Heap { tier: Tier::SLOW });
    assert_eq!(plan.units[unit as usize].birth_tier, Tier::SLOW);
}

#[test]
fn the_largest_budget_that_can_be_written_is_a_budget_like_any_other() {
    let profile = step(&[5, 5, 5, 5]);
    let plan = hpca21(&profile, u64::MAX, &page_per_us()).unwrap();
    assert!(plan.fast_needed_bytes <= plan.fast_budget_bytes);
}

#[test]
fn a_step_without_ops_and_a_budget_of_nothing_are_errors() {
    assert_eq!(hpca21(&step(&[]), PAGE, &page_per_us()), Err(PlanError::Empty));
    let message = hpca21(&step(&[5]), 0, &page_per_us()).unwrap_err().to_string();
    assert_eq!(message, "fast_bytes = 0: a plan needs a budget above 0");
}

#[test]
fn with_several_threads_buffers_share_an_address_only_when_one_is_known_to_be_dead() {
    let mut profile = step(&[10]);
    let op = profile.ops[0].clone();
    profile.ops = (0..60).map(|_| op.clone()).collect();
    profile.layers[0].last_op = 59;
    for birth in [0, 1, 50] {
        let buffer = add(&mut profile, Class::ShortLived, PAGE, &[0], birth);
        profile.buffers[buffer].birth_op = birth;
        profile.buffers[buffer].uses = vec![BufferUse { op: birth, read_bytes: PAGE, written_bytes: 0 }];
    }
    let pool = |profile: &Profile| hpca21(profile, 100 * PAGE, &page_per_us()).unwrap().pool_bytes / PAGE;
    assert_eq!(pool(&profile), 1, "one op at a time");
    profile.inter_op_threads = 2;
    assert_eq!(pool(&profile), 2, "op 50 is far enough from both, ops 0 and 1 are not ordered");
    profile.ops[1].predecessors = vec![0];
    assert_eq!(pool(&profile), 1);
}

/// Schedules units on layers of 10 us in intervals of `mil` layers; moving a page takes 1 us.
fn run(layer_count: usize, mil: u32, space_pages: u64, spans: &[Span]) -> Schedule {
    let layers = vec![LayerFacts { first_op: 0, last_op: 0, time_ns: 10_000 }; layer_count];
    let cuts = Cuts::new(mil, &vec![0; layer_count]);
    schedule(&layers, spans, &cuts, space_pages * PAGE, &page_per_us())
}

fn arena(pages: u64, layers: &[u32], death_layer: u32) -> Span {
    Span { len_bytes: pages * PAGE, layers: layers.to_vec(), accesses: 1, persistent: false, death_layer }
}

fn weights(pages: u64, layers: &[u32], accesses: u64) -> Span {
    Span { len_bytes: pages * PAGE, layers: layers.to_vec(), accesses, persistent: true, death_layer: 0 }
}

fn moves(schedule: &Schedule) -> Vec<(u32, u32, u32, Tier)> {
    let all = schedule.moves_by_interval.iter().flatten();
    all.map(|&Move { issue_layer, due_layer, unit, to }| (issue_layer, due_layer, unit, to)).collect()
}

#[test]
fn an_activation_is_evicted_right_after_its_last_forward_use_and_fetched_an_interval_ahead() {
    let plan = run(8, 1, 4, &[arena(2, &[0, 1, 6], 6)]);
    assert_eq!(plan.birth_tiers, [Tier::FAST]);
    assert_eq!(moves(&plan), [(2, 3, 0, Tier::SLOW), (5, 6, 0, Tier::FAST)]);
    // Intervals of two layers: the fetch is issued when the interval of layers 4 and 5 begins.
    let plan = run(8, 2, 4, &[arena(2, &[0, 1, 6], 6)]);
    assert_eq!(moves(&plan), [(2, 3, 0, Tier::SLOW), (4, 6, 0, Tier::FAST)]);
}

#[test]
fn a_unit_whose_next_use_is_in_the_next_interval_stays() {
    assert_eq!(moves(&run(8, 2, 4, &[arena(2, &[0, 3, 5, 6], 7)])), []);
}

#[test]
fn an_eviction_that_takes_longer_than_the_gap_is_not_made() {
    // 25 pages take 25 us: from layer 1 that is until layer 4 begins, which is when the fetch for layer 5 is issued.
    let plan = run(8, 1, 30, &[arena(25, &[0, 5], 5)]);
    assert_eq!(moves(&plan), [(1, 4, 0, Tier::SLOW), (4, 5, 0, Tier::FAST)]);
    assert_eq!(moves(&run(8, 1, 30, &[arena(25, &[0, 4], 4)])), []);
    // Two evictions share the link: with the first one's 15 us, the second has only part of layer 2 and layer 3.
    let plan = run(8, 1, 60, &[arena(15, &[0, 7], 7), arena(15, &[0, 7], 7)]);
    assert_eq!(moves(&plan)[..2], [(1, 3, 0, Tier::SLOW), (1, 4, 1, Tier::SLOW)]);
}

#[test]
fn what_has_no_next_use_is_evicted_unless_it_dies_soon() {
    assert_eq!(moves(&run(8, 1, 4, &[arena(2, &[0, 1], 7)])), [(2, 3, 0, Tier::SLOW)]);
    assert_eq!(moves(&run(8, 1, 4, &[arena(2, &[0, 1], 2)])), []);
}

#[test]
fn the_most_accessed_is_fetched_first_and_the_other_stays_slow() {
    let plan = run(8, 1, 3, &[weights(2, &[4], 1), weights(2, &[4], 7)]);
    assert_eq!(plan.birth_tiers, [Tier::SLOW, Tier::SLOW]);
    assert_eq!(moves(&plan), [(3, 4, 1, Tier::FAST), (5, 6, 1, Tier::SLOW)]);
}

#[test]
fn a_fetch_without_room_at_the_begin_of_its_interval_waits_for_an_eviction() {
    // The first unit's space is free again from layer 3 on, in the interval of layers 2 and 3.
    let plan = run(8, 2, 3, &[arena(2, &[0, 1], 7), weights(2, &[4], 1)]);
    assert_eq!(moves(&plan)[..2], [(2, 3, 0, Tier::SLOW), (3, 4, 1, Tier::FAST)]);
}

#[test]
fn weights_of_the_first_layers_are_fetched_at_the_end_of_the_step_before() {
    let plan = run(8, 1, 4, &[weights(2, &[0], 1)]);
    assert_eq!(plan.birth_tiers, [Tier::FAST]);
    assert_eq!(moves(&plan), [(1, 2, 0, Tier::SLOW), (7, 0, 0, Tier::FAST)]);
}

#[test]
fn weights_of_the_last_layer_are_evicted_when_the_next_step_begins() {
    let plan = run(8, 1, 4, &[weights(2, &[4, 7], 2)]);
    assert_eq!(plan.birth_tiers, [Tier::FAST]);
    let expected = [(0, 1, 0, Tier::SLOW), (3, 4, 0, Tier::FAST), (5, 6, 0, Tier::SLOW), (6, 7, 0, Tier::FAST)];
    assert_eq!(moves(&plan), expected);
    // An optimizer's slot that the last and the first layer use stays over the edge.
    let plan = run(8, 1, 4, &[weights(2, &[0, 7], 2)]);
    assert_eq!(plan.birth_tiers, [Tier::FAST]);
    assert_eq!(moves(&plan), [(1, 2, 0, Tier::SLOW), (6, 7, 0, Tier::FAST)]);
}

#[test]
fn weights_that_every_interval_uses_never_move() {
    let plan = run(4, 1, 4, &[weights(2, &[0, 1, 2, 3], 4), weights(3, &[0, 1, 2, 3], 3)]);
    assert_eq!((plan.birth_tiers.as_slice(), moves(&plan)), ([Tier::FAST, Tier::SLOW].as_slice(), vec![]));
}

#[test]
fn what_is_born_slow_can_be_fetched_for_a_later_use() {
    // The unit of five pages is used until layer 2, so the other is born slow.
    let plan = run(8, 1, 6, &[arena(5, &[0, 1, 2], 3), arena(2, &[1, 6], 6)]);
    assert_eq!(plan.birth_tiers, [Tier::FAST, Tier::SLOW]);
    assert_eq!(moves(&plan), [(5, 6, 1, Tier::FAST)]);
}

#[test]
fn more_to_fetch_than_an_interval_has_time_for_is_said() {
    let late = |layer_ns| {
        let mut profile = step(&[layer_ns; 8]);
        add(&mut profile, Class::LongLived, 8 * PAGE, &[0, 6], 6);
        for layer in 1..6 {
            add(&mut profile, Class::LongLived, 8 * PAGE, &[layer, layer + 1], layer + 1);
        }
        let plan = hpca21(&profile, 24 * PAGE, &page_per_us()).unwrap();
        assert_eq!(plan.moved_bytes(), (8 * PAGE, 8 * PAGE));
        plan.may_be_late
    };
    assert!(late(7_999));
    assert!(!late(8_000));
}
