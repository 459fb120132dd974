//! The heap against models: blocks never overlap, the fit is the best one, every byte is accounted for.

use place::Heap;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// Random numbers that are the same in every run (xorshift64*).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 8
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// Sizes as a training step has them: many small ones, some large ones, every now and then zero.
fn random_size(random: &mut Random) -> u64 {
    let bits = random.below(18);
    random.below(1 << bits)
}

/// What the heap is believed to hold.
#[derive(Default)]
struct Model {
    /// Block length and requested size by offset.
    live: BTreeMap<u64, (u64, u64)>,
    offsets: Vec<u64>,
    used: u64,
    peak: u64,
    high_water: u64,
}

impl Model {
    fn born(&mut self, offset: u64, size: u64, align: u64, heap_len: u64) {
        let len = size.max(1).next_multiple_of(64);
        assert_eq!(offset % align.max(64), 0, "offset {offset} is not aligned to {align}");
        assert!(offset + len <= heap_len, "block {offset}+{len} leaves the heap");
        if let Some((below, (below_len, _))) = self.live.range(..=offset).next_back() {
            assert!(below + below_len <= offset, "{offset} overlaps {below}+{below_len}");
        }
        if let Some((above, _)) = self.live.range(offset..).next() {
            assert!(offset + len <= *above, "{offset}+{len} overlaps {above}");
        }
        self.live.insert(offset, (len, size));
        self.offsets.push(offset);
        self.used += len;
        self.peak = self.peak.max(self.used);
        self.high_water = self.high_water.max(offset + len);
    }

    fn die(&mut self, which: u64) -> (u64, u64) {
        let index = usize::try_from(which).unwrap() % self.offsets.len();
        let offset = self.offsets.swap_remove(index);
        let (len, _) = self.live.remove(&offset).unwrap();
        self.used -= len;
        (offset, len)
    }

    fn agrees_with(&self, heap: &Heap) {
        assert_eq!(heap.used_bytes(), self.used);
        assert_eq!(heap.peak_bytes(), self.peak);
        assert_eq!(heap.high_water_bytes(), self.high_water);
        assert_eq!(heap.live_blocks(), self.live.len());
    }
}

#[test]
fn survives_a_million_random_operations() {
    const LEN: u64 = 8 << 20;
    let mut heap = Heap::new(LEN);
    let mut model = Model::default();
    let mut random = Random(0x5EED_0001);
    let mut refused = 0;
    for step in 0..1_000_000u64 {
        // The wanted fill rises and falls, so that the heap is exhausted and nearly emptied many times.
        let wanted = if step / 50_000 % 2 == 0 { 12 } else { 4 };
        if model.offsets.is_empty() || random.below(16) < wanted {
            let size = random_size(&mut random);
            let align = 1 << random.below(if step % 64 == 0 { 13 } else { 7 });
            match heap.alloc(size, align) {
                Some(offset) => {
                    model.born(offset, size, align, LEN);
                    assert_eq!(heap.size_of(offset), Some(size));
                }
                None => refused += 1,
            }
        } else {
            let (offset, len) = model.die(random.next());
            assert_eq!(heap.free(offset), Some(len));
            assert_eq!(heap.free(offset), None, "a second free of {offset} was accepted");
            assert_eq!(heap.size_of(offset), None);
        }
        model.agrees_with(&heap);
    }
    assert!(refused > 0, "the heap was never full");
    while !model.offsets.is_empty() {
        let (offset, len) = model.die(random.next());
        assert_eq!(heap.free(offset), Some(len));
    }
    assert_eq!((heap.used_bytes(), heap.live_blocks()), (0, 0));
    assert_eq!(heap.alloc(LEN, 64), Some(0), "the free chunks did not merge into one");
}

#[test]
fn gives_out_every_byte_and_then_refuses() {
    let mut heap = Heap::new(64 * 1000 + 63);
    assert_eq!(heap.len_bytes(), 64_000);
    let offsets: Vec<u64> = std::iter::from_fn(|| heap.alloc(64, 64)).collect();
    assert_eq!(offsets, (0..1000).map(|block| block * 64).collect::<Vec<u64>>());
    assert_eq!((heap.used_bytes(), heap.high_water_bytes()), (64_000, 64_000));
    assert_eq!(heap.alloc(0, 1), None);
    assert_eq!(heap.free(64 * 500), Some(64));
    assert_eq!(heap.alloc(65, 64), None);
    assert_eq!(heap.alloc(1, 64), Some(64 * 500));
    for offset in offsets {
        assert_eq!(heap.free(offset), Some(64));
    }
    assert_eq!(heap.alloc(64_000, 64), Some(0));
}

#[test]
fn refuses_what_it_cannot_do_and_stays_as_it_was() {
    let mut heap = Heap::new(1 << 16);
    let block = heap.alloc(100, 64).unwrap();
    for (size, align) in [(64, 0), (64, 3), (64, 96), (u64::MAX, 64), (u64::MAX - 63, 1), ((1 << 16) - 64, 64)] {
        assert_eq!(heap.alloc(size, align), None, "{size} bytes at {align}");
    }
    assert_eq!(heap.alloc(64, 1 << 63), None, "only offset 0 is so well aligned, and it is taken");
    for offset in [block + 1, block + 64, 128, 1 << 16, u64::MAX] {
        assert_eq!(heap.free(offset), None, "{offset} is no live block");
    }
    assert_eq!((heap.used_bytes(), heap.live_blocks(), heap.size_of(block)), (128, 1, Some(100)));
    assert_eq!(Heap::new(63).alloc(1, 1), None);
}

#[test]
fn blocks_of_size_zero_are_distinct() {
    let mut heap = Heap::new(1 << 12);
    let first = heap.alloc(0, 64).unwrap();
    let second = heap.alloc(0, 64).unwrap();
    assert_ne!(first, second);
    assert_eq!(heap.size_of(first), Some(0));
    assert_eq!(heap.used_bytes(), 128);
}

#[test]
fn many_badly_aligned_chunks_do_not_hide_the_last_that_fits() {
    let mut heap = Heap::new((300 << 12) + 192);
    let (pages, tail) = (0..300).map(|page| page << 12).partition::<Vec<u64>, _>(|&page| page < 299 << 12);
    // Every page but the last gets a block at its begin, so what is free in it holds 3 KiB but no aligned 3 KiB.
    for &page in &pages {
        assert_eq!(heap.alloc(64, 4096), Some(page));
    }
    assert_eq!(heap.alloc(3072, 4096), Some(tail[0]), "the chunk that holds it wherever it begins is far up");
    assert_eq!(heap.alloc(3072, 4096), None);
    assert_eq!(heap.free(pages[200]), Some(64));
    assert_eq!(heap.alloc(3072, 4096), Some(pages[200]), "the only chunk that fits is not among the shortest");
    assert_eq!(heap.alloc(3072, 64), Some(64), "without the alignment the first chunk will do");
}

/// Where best fit puts a block, found by looking at every gap between the live blocks.
fn best_fit_by_hand(live: &BTreeMap<u64, (u64, u64)>, heap_len: u64, size: u64, align: u64) -> Option<u64> {
    let len = size.max(1).next_multiple_of(64);
    let begins = std::iter::once(0).chain(live.iter().map(|(offset, (len, _))| offset + len));
    let ends = live.keys().copied().chain(std::iter::once(heap_len));
    begins
        .zip(ends)
        .filter_map(|(begin, end)| {
            let offset = begin.next_multiple_of(align.max(64));
            (offset + len <= end).then_some((end - begin, begin, offset))
        })
        .min()
        .map(|(_, _, offset)| offset)
}

proptest! {
    #[test]
    fn takes_the_best_fit_at_the_lowest_address(
        operations in prop::collection::vec((any::<bool>(), 0u64..3000, 0u32..11, any::<u32>()), 1..120),
    ) {
        const LEN: u64 = 1 << 16;
        let mut heap = Heap::new(LEN);
        let mut model = Model::default();
        for (is_alloc, size, align_bits, which) in operations {
            if is_alloc || model.offsets.is_empty() {
                let align = 1 << align_bits;
                let expected = best_fit_by_hand(&model.live, LEN, size, align);
                prop_assert_eq!(heap.alloc(size, align), expected);
                if let Some(offset) = expected {
                    model.born(offset, size, align, LEN);
                }
            } else {
                let (offset, len) = model.die(u64::from(which));
                prop_assert_eq!(heap.free(offset), Some(len));
            }
            model.agrees_with(&heap);
        }
    }
}
