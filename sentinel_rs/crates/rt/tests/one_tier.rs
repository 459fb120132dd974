//! Where there is one kind of memory: freed blocks wait for their like, and what waits costs nothing.

use rt::memory::{Freed, Memory};
use rt::tiers::single::SingleTier;
use std::sync::Arc;
use trace::Tier;

const MIB: u64 = 1 << 20;

fn memory(fast_bytes: u64) -> Memory {
    Memory::reserve(Arc::new(SingleTier), 1 << 30, fast_bytes).expect("address space")
}

fn blocks(memory: &Memory, count: usize, size_bytes: u64) -> Vec<usize> {
    let block = || memory.alloc_heap(size_bytes, 64, Tier::FAST).expect("there is room");
    std::iter::repeat_with(block).take(count).collect()
}

fn free(memory: &Memory, blocks: &[usize]) {
    for &addr in blocks {
        assert!(matches!(memory.free(addr), Freed::Block { .. }), "{addr:#x}");
    }
}

/// The end of what the fast heap has used so far.
fn high_water(memory: &Memory) -> usize {
    memory.ranges_in_use(Tier::FAST, |_| 0)[0].end
}

#[test]
fn a_block_of_the_same_length_is_the_one_that_was_freed_last() {
    let memory = memory(u64::MAX);
    let all = blocks(&memory, 2, MIB);
    free(&memory, &all[..1]);
    assert_eq!(memory.free(all[0]), Freed::NotOurs, "it is dead already");
    assert_eq!(blocks(&memory, 1, MIB), all[..1]);
    assert_eq!(memory.size_of(all[0]), Some(MIB));
    free(&memory, &all);
    memory.trim();
    assert_eq!(memory.free(all[0]), Freed::NotOurs, "also when the heap has it back");
    assert_eq!(memory.budget.used(), 0);
}

#[test]
fn the_heap_does_not_grow_while_blocks_wait_that_could_join() {
    let memory = memory(u64::MAX);
    free(&memory, &blocks(&memory, 8, MIB));
    let before = high_water(&memory);
    free(&memory, &blocks(&memory, 1, 8 * MIB));
    assert_eq!(high_water(&memory), before);
    free(&memory, &blocks(&memory, 1, 8 * MIB + 64));
    assert!(high_water(&memory) > before, "or the line above says nothing");
}

#[test]
fn what_waits_makes_room_in_a_limited_budget() {
    let memory = memory(u64::MAX);
    free(&memory, &blocks(&memory, 8, MIB));
    assert_eq!(memory.budget.used(), 8 * MIB, "they are still counted");
    memory.budget.set_allowed(8 * MIB);
    let all = blocks(&memory, 4, 2 * MIB);
    assert_eq!(memory.alloc_heap(MIB, 64, Tier::FAST), None);
    free(&memory, &all);
    assert_eq!(memory.budget.used(), 0, "and nothing waits under a limit");
}
