//! Best fit with coalescing over an abstract range of offsets.
//!
//! Chunks tile the range without gaps and are linked to their neighbours by index, so that a freed block finds what it can
//! merge with in constant time. Free chunks lie in bins by length; a bin is ordered by (length, offset), and bins are
//! ordered by length, so the first chunk found is the best fit, the lowest in address among equals.

use crate::bin::Bin;
use rustc_hash::FxHashMap;

/// Every offset and every block length is a multiple of this.
const GRANULE_BYTES: u64 = 64;

/// Each doubling of the length is divided into this many bins.
const BINS_PER_DOUBLING: u64 = 8;

/// Bins for every length that 64 bits can express.
const BIN_COUNT: usize = 448;

/// Words of the bitmap that says which bins hold a chunk.
const BIN_WORDS: usize = BIN_COUNT / 64;

/// How many badly aligned chunks a search for a block of an alignment above 64 looks at before it settles for a longer one.
const MISALIGNED_PROBES: usize = 64;

/// Stands for "no chunk" in links.
const NO_CHUNK: usize = usize::MAX;

/// A piece of the range, free or live.
#[derive(Clone, Copy, Debug)]
struct Chunk {
    offset: u64,
    len: u64,
    /// What the caller asked for; meaningful while the chunk is live.
    requested: u64,
    /// The chunk that ends where this one begins.
    below: usize,
    /// The chunk that begins where this one ends.
    above: usize,
    live: bool,
}

/// A best-fit heap over the offsets `0..len_bytes`. It never touches memory: the caller adds its own base address, which
/// has to be aligned to the largest alignment that it will ask for.
#[derive(Debug)]
pub struct Heap {
    len: u64,
    chunks: Vec<Chunk>,
    /// Indices of `chunks` that hold no chunk at the moment.
    spare: Vec<usize>,
    /// Live blocks by offset.
    live: FxHashMap<u64, usize>,
    bins: Vec<Bin>,
    /// Bit `b % 64` of word `b / 64` is set when bin `b` is not empty.
    occupied: [u64; BIN_WORDS],
    used: u64,
    peak: u64,
    high_water: u64,
}

impl Heap {
    /// A heap over `len_bytes`, rounded down to a multiple of 64; all of it is free.
    #[must_use]
    pub fn new(len_bytes: u64) -> Self {
        let len = len_bytes / GRANULE_BYTES * GRANULE_BYTES;
        let mut heap = Heap {
            len,
            chunks: Vec::new(),
            spare: Vec::new(),
            live: FxHashMap::default(),
            bins: vec![Bin::default(); BIN_COUNT],
            occupied: [0; BIN_WORDS],
            used: 0,
            peak: 0,
            high_water: 0,
        };
        if len > 0 {
            heap.chunks.push(Chunk { offset: 0, len, requested: 0, below: NO_CHUNK, above: NO_CHUNK, live: false });
            heap.bin_insert(0);
        }
        heap
    }

    /// The offset of a new block of at least `size_bytes` at a multiple of `align_bytes`, which has to be a power of two.
    /// Blocks are multiples of 64 bytes, and a size of zero takes 64 bytes too, so that all live offsets differ. `None`
    /// when no free chunk is large enough or the alignment is not a power of two.
    ///
    /// The block comes from the shortest free chunk that holds it, the lowest among equals. With an alignment above 64 the
    /// search for the shortest ends after 64 chunks that are long enough but badly aligned: it goes on with chunks that
    /// hold the block wherever they begin, and only when there are none with all others.
    pub fn alloc(&mut self, size_bytes: u64, align_bytes: u64) -> Option<u64> {
        if !align_bytes.is_power_of_two() {
            return None;
        }
        let len = size_bytes.max(1).checked_next_multiple_of(GRANULE_BYTES)?;
        let (index, offset) = if align_bytes <= GRANULE_BYTES {
            let index = self.take_best_fit(len)?;
            (index, self.chunks[index].offset)
        } else {
            let (index, offset) = self.aligned_best_fit(len, align_bytes)?;
            self.bin_remove(index);
            (index, offset)
        };
        let front = offset - self.chunks[index].offset;
        if front > 0 {
            self.split_front(index, front);
        }
        if self.chunks[index].len > len {
            self.split_back(index, len);
        }
        let chunk = &mut self.chunks[index];
        chunk.live = true;
        chunk.requested = size_bytes;
        self.live.insert(offset, index);
        self.used += len;
        self.peak = self.peak.max(self.used);
        self.high_water = self.high_water.max(offset + len);
        Some(offset)
    }

    /// Ends the block at `offset` and merges it with its free neighbours. Returns the block's length in bytes, or `None`
    /// when no live block begins there; nothing has changed then.
    pub fn free(&mut self, offset: u64) -> Option<u64> {
        let mut index = self.live.remove(&offset)?;
        let len = self.chunks[index].len;
        self.used -= len;
        self.chunks[index].live = false;
        let above = self.chunks[index].above;
        if self.is_free(above) {
            self.bin_remove(above);
            self.absorb_above(index);
        }
        let below = self.chunks[index].below;
        if self.is_free(below) {
            self.bin_remove(below);
            self.absorb_above(below);
            index = below;
        }
        self.bin_insert(index);
        Some(len)
    }

    /// The size in bytes that the live block at `offset` was asked for, `None` when no live block begins there.
    #[must_use]
    pub fn size_of(&self, offset: u64) -> Option<u64> {
        self.live.get(&offset).map(|&index| self.chunks[index].requested)
    }

    /// Bytes in live blocks, counted in whole blocks of multiples of 64.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.used
    }

    /// The largest `used_bytes` so far.
    #[must_use]
    pub fn peak_bytes(&self) -> u64 {
        self.peak
    }

    /// The largest end offset that any block has had.
    #[must_use]
    pub fn high_water_bytes(&self) -> u64 {
        self.high_water
    }

    /// How many blocks are live.
    #[must_use]
    pub fn live_blocks(&self) -> usize {
        self.live.len()
    }

    /// Free ranges (offset, length) that were used before: where pages may be left that nobody needs.
    pub fn stale_ranges(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let free = self.bins.iter().flat_map(|bin| bin.from(0));
        free.filter_map(|(len, offset, _)| {
            let end = (offset + len).min(self.high_water);
            (offset < end).then(|| (offset, end - offset))
        })
    }

    /// Bytes of the whole range.
    #[must_use]
    pub fn len_bytes(&self) -> u64 {
        self.len
    }

    /// Takes the chunk for a block of `len` bytes, which may begin wherever chunks do, out of its bin.
    fn take_best_fit(&mut self, len: u64) -> Option<usize> {
        let first = bin_of(len);
        // Only the first bin can hold chunks that are too short.
        let (bin, found) = match self.bins[first].take_from(len) {
            Some(index) => (first, index),
            None => {
                let bin = self.occupied_from(first + 1)?;
                (bin, self.bins[bin].take_from(0)?)
            }
        };
        self.note_whether_empty(bin);
        Some(found)
    }

    /// The chunk for a block of `len` bytes at a multiple of `align`, and the offset of the block in it.
    fn aligned_best_fit(&self, len: u64, align: u64) -> Option<(usize, u64)> {
        let fits = |(chunk_len, chunk_offset, index): (u64, u64, usize)| {
            let offset = chunk_offset.checked_next_multiple_of(align)?;
            let front = offset - chunk_offset;
            (chunk_len - len >= front).then_some((index, offset))
        };
        self.free_from(len)
            .take(MISALIGNED_PROBES)
            .find_map(fits)
            .or_else(|| self.free_from(len.checked_add(align - GRANULE_BYTES)?).find_map(fits))
            .or_else(|| self.free_from(len).skip(MISALIGNED_PROBES).find_map(fits))
    }

    /// Length, offset and index of the free chunks of at least `len` bytes, ascending by length, then by offset.
    fn free_from(&self, len: u64) -> impl Iterator<Item = (u64, u64, usize)> + '_ {
        let first = bin_of(len);
        let higher = std::iter::successors(self.occupied_from(first + 1), |bin| self.occupied_from(bin + 1));
        // Only the first bin can hold chunks that are too short.
        self.bins[first].from(len).chain(higher.flat_map(|bin| self.bins[bin].from(0)))
    }

    /// The first bin from `bin` upwards that holds a chunk.
    fn occupied_from(&self, bin: usize) -> Option<usize> {
        let mut word = bin / 64;
        let mut bits = self.occupied.get(word)? & (u64::MAX << (bin % 64));
        loop {
            if bits != 0 {
                return Some(word * 64 + bits.trailing_zeros() as usize);
            }
            word += 1;
            bits = *self.occupied.get(word)?;
        }
    }

    fn is_free(&self, index: usize) -> bool {
        self.chunks.get(index).is_some_and(|chunk| !chunk.live)
    }

    /// Makes the first `front` bytes of a chunk, which is in no bin, a free chunk of their own; `index` keeps the rest.
    fn split_front(&mut self, index: usize, front: u64) {
        let Chunk { offset, below, .. } = self.chunks[index];
        let new = self.new_chunk(Chunk { offset, len: front, requested: 0, below, above: index, live: false });
        if let Some(chunk) = self.chunks.get_mut(below) {
            chunk.above = new;
        }
        let chunk = &mut self.chunks[index];
        chunk.below = new;
        chunk.offset += front;
        chunk.len -= front;
        self.bin_insert(new);
    }

    /// Keeps the first `len` bytes of a chunk, which is in no bin, and makes what follows a free chunk.
    fn split_back(&mut self, index: usize, len: u64) {
        let Chunk { offset, len: whole, above, .. } = self.chunks[index];
        let rest = Chunk { offset: offset + len, len: whole - len, requested: 0, below: index, above, live: false };
        let new = self.new_chunk(rest);
        if let Some(chunk) = self.chunks.get_mut(above) {
            chunk.below = new;
        }
        let chunk = &mut self.chunks[index];
        chunk.above = new;
        chunk.len = len;
        self.bin_insert(new);
    }

    /// Makes a chunk and the one above it one chunk; neither is in a bin.
    fn absorb_above(&mut self, index: usize) {
        let gone = self.chunks[index].above;
        let Chunk { len, above, .. } = self.chunks[gone];
        let chunk = &mut self.chunks[index];
        chunk.len += len;
        chunk.above = above;
        if let Some(chunk) = self.chunks.get_mut(above) {
            chunk.below = index;
        }
        self.spare.push(gone);
    }

    fn new_chunk(&mut self, chunk: Chunk) -> usize {
        if let Some(index) = self.spare.pop() {
            self.chunks[index] = chunk;
            return index;
        }
        self.chunks.push(chunk);
        self.chunks.len() - 1
    }

    fn bin_insert(&mut self, index: usize) {
        let Chunk { offset, len, .. } = self.chunks[index];
        let bin = bin_of(len);
        self.bins[bin].insert(len, offset, index);
        self.occupied[bin / 64] |= 1 << (bin % 64);
    }

    fn bin_remove(&mut self, index: usize) {
        let Chunk { offset, len, .. } = self.chunks[index];
        let bin = bin_of(len);
        self.bins[bin].remove(len, offset);
        self.note_whether_empty(bin);
    }

    /// A chunk was taken out of this bin.
    fn note_whether_empty(&mut self, bin: usize) {
        if self.bins[bin].is_empty() {
            self.occupied[bin / 64] &= !(1 << (bin % 64));
        }
    }
}

/// The bin of a chunk length, which is a multiple of 64 and not zero. Larger lengths never have a smaller bin.
fn bin_of(len: u64) -> usize {
    let granules = len / GRANULE_BYTES;
    let bin = if granules < BINS_PER_DOUBLING {
        granules
    } else {
        let doublings = u64::from(granules.ilog2() - BINS_PER_DOUBLING.ilog2());
        // The bits right after the leading one say which part of the doubling it is.
        (doublings + 1) * BINS_PER_DOUBLING + ((granules >> doublings) - BINS_PER_DOUBLING)
    };
    usize::try_from(bin).unwrap_or(BIN_COUNT - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_grow_with_the_length_and_stay_in_range() {
        let lengths = (1..100_000u64).map(|granules| granules * GRANULE_BYTES);
        let mut last = 0;
        for len in lengths.chain((23..64).map(|bits| 1 << bits)).chain([u64::MAX / 64 * 64]) {
            let bin = bin_of(len);
            assert!(bin >= last && bin < BIN_COUNT, "{len}: {bin} after {last}");
            last = bin;
        }
        assert_eq!(last, BIN_COUNT - 1, "no bin is out of reach");
    }

    #[test]
    fn chunk_records_are_used_again() {
        let mut heap = Heap::new(1 << 20);
        for _ in 0..1000 {
            let offsets: Vec<u64> = (0..10).map(|_| heap.alloc(100, 64).unwrap()).collect();
            for offset in offsets {
                heap.free(offset).unwrap();
            }
        }
        assert!(heap.chunks.len() <= 11, "{}", heap.chunks.len());
    }
}
