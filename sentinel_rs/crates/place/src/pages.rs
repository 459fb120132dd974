//! The runtime's own record of which tier each page is in: one byte per page, read by every operation.

use std::ops::Range;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use trace::{Tier, PAGE_BYTES};

/// Pages of one chunk, which is 1 GiB of addresses.
const CHUNK_PAGES: usize = 1 << 18;

/// Distance in pages between the samples of a long range.
const STRIDE_PAGES: usize = 32;

/// Ranges of up to this many pages (1 MiB) are counted page by page.
const EXACT_PAGES: usize = 256;

/// The mark of a page whose tier was never set.
const NEVER: u8 = u8::MAX;

/// 1 GiB of addresses.
#[derive(Debug)]
struct Chunk {
    /// The tier of every page while `pages` does not exist.
    all: AtomicU8,
    pages: OnceLock<Box<[AtomicU8]>>,
}

/// The tier of each 4 KiB page of an address range, which may be TiBs: memory is used only for the GiBs of it whose pages
/// are in different tiers, 256 KiB for each of them.
///
/// Reading never waits. Writing waits only when a GiB gets its record. It is a record, not a lock: accesses are relaxed,
/// and a reader that races with a writer sees the tier before or after.
#[derive(Debug)]
pub struct PageTiers {
    first_page: usize,
    page_count: usize,
    chunks: Box<[Chunk]>,
    growing: Mutex<()>,
}

impl PageTiers {
    /// A record of the pages that `base..base + len_bytes` touches, none of them set.
    #[must_use]
    pub fn new(base: usize, len_bytes: usize) -> Self {
        let pages = pages_of(base, len_bytes);
        let chunk = || Chunk { all: AtomicU8::new(NEVER), pages: OnceLock::new() };
        PageTiers {
            first_page: pages.start,
            page_count: pages.len(),
            chunks: (0..pages.len().div_ceil(CHUNK_PAGES)).map(|_| chunk()).collect(),
            growing: Mutex::new(()),
        }
    }

    /// Records `tier` for every page that the address range touches; parts outside are ignored. Rank 255 cannot be
    /// recorded: it marks pages as never set.
    pub fn set(&self, range: Range<usize>, tier: Tier) {
        let pages = self.inside(pages_of(range.start, range.len()));
        let pages = if range.is_empty() { 0..0 } else { pages };
        for (chunk, part) in by_chunk(pages) {
            match self.chunks[chunk].pages.get() {
                Some(tiers) => store(&tiers[part], tier),
                None => self.set_unsplit(chunk, part, tier),
            }
        }
    }

    /// The tier of the page at an address; `None` outside the range, or when it was never set.
    #[must_use]
    pub fn get(&self, addr: usize) -> Option<Tier> {
        let page = page_of(addr).checked_sub(self.first_page).filter(|&page| page < self.page_count)?;
        known(self.rank(page))
    }

    /// How many of the bytes `addr..addr + len_bytes` are on pages whose recorded tier is not [`Tier::FAST`]. Pages outside
    /// the range or never set count as none: nothing is known of them.
    ///
    /// Exact up to 1 MiB. In longer ranges one page in 32 is looked at, and the pages between two of these only when their
    /// tiers differ: pages in another tier are missed when fewer than 32 of them lie between two looked-at pages of one
    /// tier, so ranges that were placed or moved as a whole are still counted exactly.
    #[must_use]
    pub fn slow_bytes(&self, addr: usize, len_bytes: usize) -> u64 {
        if len_bytes == 0 {
            return 0;
        }
        let end = addr.saturating_add(len_bytes);
        let pages = self.inside(pages_of(addr, end - addr));
        if pages.is_empty() {
            return 0;
        }
        let mut slow_pages: u64 = 0;
        for (chunk, part) in by_chunk(pages.clone()) {
            slow_pages += self.slow_pages(chunk, part);
        }
        let mut bytes = slow_pages * PAGE_BYTES;
        // The first and the last page may be covered in part only.
        let first_addr = address(self.first_page + pages.start);
        if first_addr < addr && is_slow(self.rank(pages.start)) {
            bytes = bytes.saturating_sub(count(addr - first_addr));
        }
        let last_end = address(self.first_page + pages.end);
        if last_end > end && is_slow(self.rank(pages.end - 1)) {
            bytes = bytes.saturating_sub(count(last_end - end));
        }
        bytes
    }

    /// Sets pages of a chunk that has no record of its pages yet.
    fn set_unsplit(&self, chunk: usize, part: Range<usize>, tier: Tier) {
        let growing = self.growing.lock().unwrap_or_else(PoisonError::into_inner);
        let Chunk { all, pages } = &self.chunks[chunk];
        if pages.get().is_none() {
            let chunk_pages = (self.page_count - chunk * CHUNK_PAGES).min(CHUNK_PAGES);
            if part.len() == chunk_pages {
                all.store(tier.0, Ordering::Relaxed);
                return;
            }
            let rank = all.load(Ordering::Relaxed);
            if rank == tier.0 {
                return;
            }
            pages.get_or_init(|| (0..chunk_pages).map(|_| AtomicU8::new(rank)).collect());
        }
        drop(growing);
        if let Some(tiers) = pages.get() {
            store(&tiers[part], tier);
        }
    }

    /// How many of the pages of one chunk are slow.
    fn slow_pages(&self, chunk: usize, part: Range<usize>) -> u64 {
        let Chunk { all, pages } = &self.chunks[chunk];
        match pages.get() {
            Some(tiers) => slow_pages_of(&tiers[part]),
            None if is_slow(all.load(Ordering::Relaxed)) => count(part.len()),
            None => 0,
        }
    }

    /// The stored rank of a page, counted from the first page.
    fn rank(&self, page: usize) -> u8 {
        let Chunk { all, pages } = &self.chunks[page / CHUNK_PAGES];
        pages.get().map_or(all, |tiers| &tiers[page % CHUNK_PAGES]).load(Ordering::Relaxed)
    }

    /// Pages as numbers counted from the first page, cut to the record.
    fn inside(&self, pages: Range<usize>) -> Range<usize> {
        let from = |page: usize| page.saturating_sub(self.first_page).min(self.page_count);
        from(pages.start)..from(pages.end)
    }
}

/// How many of these pages are slow, with samples when they are many.
fn slow_pages_of(tiers: &[AtomicU8]) -> u64 {
    let is_slow_at = |page: usize| is_slow(tiers[page].load(Ordering::Relaxed));
    let exactly = |range: Range<usize>| count(range.filter(|&page| is_slow_at(page)).count());
    if tiers.len() <= EXACT_PAGES {
        return exactly(0..tiers.len());
    }
    let last = tiers.len() - 1;
    let mut slow_pages = u64::from(is_slow_at(last));
    let mut page = 0;
    let mut slow = is_slow_at(0);
    while page < last {
        let next = (page + STRIDE_PAGES).min(last);
        let next_slow = is_slow_at(next);
        slow_pages += match (slow, next_slow) {
            (false, false) => 0,
            (true, true) => count(next - page),
            _ => exactly(page..next),
        };
        (page, slow) = (next, next_slow);
    }
    slow_pages
}

/// Page numbers as pieces that lie in one chunk each: the chunk, and the numbers inside it.
fn by_chunk(pages: Range<usize>) -> impl Iterator<Item = (usize, Range<usize>)> {
    let chunks = if pages.is_empty() { 0..0 } else { pages.start / CHUNK_PAGES..pages.end.div_ceil(CHUNK_PAGES) };
    chunks.map(move |chunk| {
        let begin = chunk * CHUNK_PAGES;
        (chunk, pages.start.saturating_sub(begin)..(pages.end - begin).min(CHUNK_PAGES))
    })
}

fn store(tiers: &[AtomicU8], tier: Tier) {
    for page in tiers {
        page.store(tier.0, Ordering::Relaxed);
    }
}

fn is_slow(rank: u8) -> bool {
    rank != NEVER && rank != Tier::FAST.0
}

fn known(rank: u8) -> Option<Tier> {
    (rank != NEVER).then_some(Tier(rank))
}

/// The numbers of the pages that the bytes touch.
fn pages_of(addr: usize, len_bytes: usize) -> Range<usize> {
    let end = addr.saturating_add(len_bytes);
    page_of(addr)..end.div_ceil(PAGE).max(page_of(addr))
}

fn page_of(addr: usize) -> usize {
    addr / PAGE
}

fn address(page: usize) -> usize {
    page.saturating_mul(PAGE)
}

/// A count of pages or bytes in memory as a number of 64 bits, which holds every address on all supported machines.
fn count(number: usize) -> u64 {
    number as u64
}

/// [`PAGE_BYTES`] as an address difference; the conversion is of a small constant.
#[allow(clippy::cast_possible_truncation)]
const PAGE: usize = PAGE_BYTES as usize;
