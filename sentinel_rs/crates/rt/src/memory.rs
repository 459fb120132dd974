//! The process's tensor memory: one heap per tier, one for small blocks, address space for plans, and their accounts.

use crate::blocks::{Blocks as SmallBlocks, LARGEST_BYTES};
use crate::placement::Placement;
use crate::waits::DeathWaits;
use arc_swap::ArcSwapOption;
use place::{Arena, Budget, Ground, Heap, PageTiers, TierError, Tiers, UnitState};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;
use trace::{page_ceil, Tier, PAGE_BYTES, SLOT_MIN_BYTES};

const GIB: u64 = 1 << 30;
/// Shards of the heap of small blocks; a thread keeps to one of them.
const SMALL_SHARDS: usize = 8;
const SMALL_SHARD_BYTES: u64 = 8 * GIB;
/// How often a thread looks whether a lock is free, and the longest that it pauses between two looks, in turns of a waiting
/// loop: together 700 turns, of 10 to 50 ns on most processors.
const LOOKS_BEFORE_SLEEP: u32 = 16;
const PAUSE_AT_MOST: u32 = 64;
/// TensorFlow's own alignment of tensors.
const MIN_ALIGN_BYTES: u64 = 64;
/// Freed blocks from here on are worth a system call: the fast node would hold them while the budget believes them gone.
const DROPPED_MIN_BYTES: u64 = 64 << 10;

/// A heap over a range of addresses whose pages come from one tier unless they were moved.
#[derive(Debug)]
struct Area {
    range: Range<usize>,
    tier: Tier,
    blocks: Mutex<Blocks>,
}

/// The blocks of an area. One lock for both, so that a block cannot die while a unit is put around it.
#[derive(Debug)]
struct Blocks {
    heap: Heap,
    /// Units in persistent buffers, by address; every plan finds the same units in the same buffer.
    units: BTreeMap<usize, Arc<UnitState>>,
}

impl Area {
    fn new(range: Range<usize>, tier: Tier) -> Area {
        let blocks = Mutex::new(Blocks { heap: Heap::new(range.len() as u64), units: BTreeMap::new() });
        Area { range, tier, blocks }
    }

    /// The blocks, alone. Mostly they are held for less time than it takes to put a thread to sleep and to wake it, so
    /// whoever finds them taken looks again for a while first, and ever less often: each look takes the lock's cache line
    /// from its holder.
    fn blocks(&self) -> MutexGuard<'_, Blocks> {
        let mut pause = 1;
        for _ in 0..LOOKS_BEFORE_SLEEP {
            match self.blocks.try_lock() {
                Ok(blocks) => return blocks,
                Err(TryLockError::Poisoned(poisoned)) => return poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => (0..pause).for_each(|_| std::hint::spin_loop()),
            }
            pause = (2 * pause).min(PAUSE_AT_MOST);
        }
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn alloc(&self, size_bytes: u64, align_bytes: u64) -> Option<usize> {
        let offset = self.blocks().heap.alloc(size_bytes, align_bytes)?;
        Some(self.range.start + usize::try_from(offset).ok()?)
    }

    fn size_of(&self, addr: usize) -> Option<u64> {
        let offset = addr.checked_sub(self.range.start)? as u64;
        self.blocks().heap.size_of(offset)
    }

    /// Fast bytes that the blocks of this area account for.
    fn fast_bytes(&self) -> u64 {
        let blocks = self.blocks();
        let away = |unit: &&Arc<UnitState>| unit.tier().is_some_and(|tier| tier != self.tier);
        let moved: u64 = blocks.units.values().filter(away).map(|unit| unit.len_bytes()).sum();
        if self.tier == Tier::FAST {
            blocks.heap.used_bytes() - moved
        } else {
            moved
        }
    }
}

/// What was released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freed {
    /// A block of this size, in this tier at the time.
    Block {
        /// Requested size, rounded as the heap rounds.
        size_bytes: u64,
        /// Of these, bytes in slow pages at the time.
        slow_bytes: u64,
    },
    /// Not a live block of Sentinel's.
    NotOurs,
}

/// Address space, heaps and accounts of one process.
pub struct Memory {
    /// The tiers that back it.
    pub tiers: Arc<dyn Tiers>,
    /// Fast bytes.
    pub budget: Budget,
    /// Tier of every page.
    pub pages: PageTiers,
    /// The witness of where pages are; asked nothing unless somebody wants it.
    pub placement: Placement,
    /// How long deaths waited for movers.
    pub waits: DeathWaits,
    /// Whether bytes move between places.
    moves: bool,
    whole: Range<usize>,
    fast: Area,
    slow: Area,
    /// Where bytes move: small blocks one by one accounted.
    small: Vec<Area>,
    /// Where nothing moves: small blocks that threads keep.
    kept: Option<Arc<SmallBlocks>>,
    plans: Range<usize>,
    plan_space: Mutex<Heap>,
    /// The arena in each GiB of `plans`.
    arenas: Vec<ArcSwapOption<Arena>>,
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Memory").field("tiers", &self.tiers.kind()).field("whole", &self.whole).finish_non_exhaustive()
    }
}

thread_local! {
    static SHARD: usize = {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        NEXT.fetch_add(1, Ordering::Relaxed) % SMALL_SHARDS
    };
}

impl Memory {
    /// Reserves address space for heaps of `capacity_bytes` per tier.
    ///
    /// # Errors
    /// When the address space or a tier cannot be had.
    pub fn reserve(tiers: Arc<dyn Tiers>, capacity_bytes: u64, fast_bytes: u64) -> Result<Memory, TierError> {
        let heap_bytes = capacity_bytes.div_ceil(GIB) * GIB;
        let small_bytes = SMALL_SHARD_BYTES * SMALL_SHARDS as u64;
        let plan_bytes = 4 * heap_bytes;
        let total = usize_of(2 * heap_bytes + small_bytes + plan_bytes);
        let whole = tiers.reserve(total, Tier::SLOW)?;
        let mut at = whole.start;
        let mut carve = |bytes: u64| {
            let range = at..at + usize_of(bytes);
            at = range.end;
            range
        };
        let (fast, slow, small, plans) = (carve(heap_bytes), carve(heap_bytes), carve(small_bytes), carve(plan_bytes));
        tiers.welcome_huge_pages(whole.clone(), false);
        let moves = tiers.moves();
        if !moves {
            tiers.welcome_huge_pages(fast.clone(), true);
        }
        tiers.place(fast.clone(), Tier::FAST)?;
        tiers.place(small.clone(), Tier::FAST)?;
        let pages = PageTiers::new(whole.start, whole.len());
        pages.set(whole.clone(), Tier::SLOW);
        pages.set(fast.clone(), Tier::FAST);
        pages.set(small.clone(), Tier::FAST);
        let kept = (!moves).then(|| SmallBlocks::new(small.clone()));
        let shard = usize_of(SMALL_SHARD_BYTES);
        let small = (0..if moves { SMALL_SHARDS } else { 0 })
            .map(|i| Area::new(small.start + i * shard..small.start + (i + 1) * shard, Tier::FAST))
            .collect();
        Ok(Memory {
            budget: Budget::new(fast_bytes),
            placement: Placement::default(),
            waits: DeathWaits::default(),
            pages,
            fast: Area::new(fast, Tier::FAST),
            slow: Area::new(slow, Tier::SLOW),
            small,
            plan_space: Mutex::new(Heap::new(plan_bytes)),
            arenas: (0..plan_bytes / GIB).map(|_| ArcSwapOption::empty()).collect(),
            plans,
            moves,
            kept,
            whole,
            tiers,
        })
    }

    /// Sentinel's address space.
    #[must_use]
    pub fn whole(&self) -> Range<usize> {
        self.whole.clone()
    }

    /// True for addresses in Sentinel's address space.
    #[must_use]
    pub fn owns(&self, addr: usize) -> bool {
        self.whole.contains(&addr)
    }

    /// Whether threads keep freed blocks of this size, so that [`Memory::alloc_small`] is the fastest way to one.
    #[must_use]
    pub fn threads_keep(&self, size_bytes: u64) -> bool {
        self.kept.is_some() && size_bytes <= LARGEST_BYTES
    }

    /// A block below slot size, of scratch, or of a size that threads keep; fast while the budget has room, else `None`.
    pub fn alloc_small(&self, size_bytes: u64, align_bytes: u64) -> Option<usize> {
        if let Some(kept) = &self.kept {
            let found = if align_bytes <= MIN_ALIGN_BYTES { kept.alloc(size_bytes, &self.budget) } else { None };
            return found.or_else(|| self.alloc_heap(size_bytes, align_bytes, Tier::FAST));
        }
        let (size, align) = (size_bytes.max(1).next_multiple_of(MIN_ALIGN_BYTES), align_bytes.max(MIN_ALIGN_BYTES));
        if !self.budget.try_reserve(size) {
            return None;
        }
        let shard = &self.small[SHARD.with(|&shard| shard)];
        let addr = shard.alloc(size, align);
        if addr.is_none() {
            self.budget.release(size);
        }
        addr
    }

    /// A block on the heap of `tier`. A fast one needs room in the budget; `None` when there is none. Blocks of a page
    /// and more have their pages to themselves, so that they can move.
    pub fn alloc_heap(&self, size_bytes: u64, align_bytes: u64, tier: Tier) -> Option<usize> {
        let whole_pages = size_bytes >= SLOT_MIN_BYTES && self.moves;
        let size =
            if whole_pages { page_ceil(size_bytes) } else { size_bytes.max(1).next_multiple_of(MIN_ALIGN_BYTES) };
        let align = align_bytes.max(if whole_pages { PAGE_BYTES } else { MIN_ALIGN_BYTES });
        if tier != Tier::FAST {
            return self.slow.alloc(size, align);
        }
        if !self.budget.try_reserve(size) {
            return None;
        }
        let addr = self.fast.alloc(size, align);
        if addr.is_none() {
            self.budget.release(size);
        }
        addr
    }

    /// What the heaps of the two tiers have used so far, in whole pages, and beyond it in the heap of `tier` as much as
    /// `room` says of the sum.
    pub fn ranges_in_use(&self, tier: Tier, room: impl FnOnce(u64) -> u64) -> Vec<Range<usize>> {
        let used = [&self.fast, &self.slow].map(|area| page_ceil(area.blocks().heap.high_water_bytes()));
        let room_bytes = room(used[0] + used[1]);
        let range = |(area, used): (&Area, u64)| {
            let len = if area.tier == tier { used + room_bytes } else { used };
            area.range.start..area.range.start + usize_of(len).min(area.range.len())
        };
        let ranges = [&self.fast, &self.slow].into_iter().zip(used).map(range);
        ranges.filter(|range| !range.is_empty()).collect()
    }

    /// Most bytes that blocks of the fast heap took at a time, and the largest offset at which one of them ever ended.
    #[must_use]
    pub fn heap_peak_and_reach_bytes(&self) -> (u64, u64) {
        let blocks = self.fast.blocks();
        (blocks.heap.peak_bytes(), blocks.heap.high_water_bytes())
    }

    /// Bytes of the small blocks that threads keep where nothing moves, live and free ones.
    #[must_use]
    pub fn kept_bytes(&self) -> u64 {
        self.kept.as_ref().map_or(0, |kept| kept.held_bytes())
    }

    /// Of the bytes from `addr`, those in slow pages.
    #[must_use]
    pub fn slow_bytes(&self, addr: usize, len_bytes: u64) -> u64 {
        if !self.owns(addr) {
            return 0;
        }
        self.pages.slow_bytes(addr, usize_of(len_bytes))
    }

    /// Requested size of the live block that begins at `addr`, rounded as the heap rounds.
    #[must_use]
    pub fn size_of(&self, addr: usize) -> Option<u64> {
        if let Some(arena) = self.arena_at(addr) {
            return arena.size_of(addr);
        }
        if let Some(kept) = self.kept_at(addr) {
            return kept.size_of(addr);
        }
        self.area_of(addr)?.size_of(addr)
    }

    fn kept_at(&self, addr: usize) -> Option<&Arc<SmallBlocks>> {
        self.kept.as_ref().filter(|kept| kept.owns(addr))
    }

    fn area_of(&self, addr: usize) -> Option<&Area> {
        [&self.fast, &self.slow].into_iter().chain(&self.small).find(|area| area.range.contains(&addr))
    }

    fn arena_at(&self, addr: usize) -> Option<Arc<Arena>> {
        if !self.plans.contains(&addr) {
            return None;
        }
        self.arenas.get((addr - self.plans.start) >> GIB.trailing_zeros())?.load_full()
    }

    /// True for addresses in the space of plans.
    #[must_use]
    pub fn in_plan(&self, addr: usize) -> bool {
        self.plans.contains(&addr)
    }

    /// Releases the block at `addr`.
    pub fn free(&self, addr: usize) -> Freed {
        if self.plans.contains(&addr) {
            return self.free_planned(addr);
        }
        if let Some(kept) = self.kept_at(addr) {
            let block = |size_bytes| Freed::Block { size_bytes, slow_bytes: 0 };
            return kept.free(addr).map_or(Freed::NotOurs, block);
        }
        let Some(area) = self.area_of(addr) else { return Freed::NotOurs };
        let mut blocks = area.blocks();
        if !blocks.units.is_empty() {
            let len = usize_of(blocks.heap.size_of((addr - area.range.start) as u64).unwrap_or(0));
            if blocks.units.range(addr..addr + len).next().is_some() {
                return self.free_persistent(area, &mut blocks, addr);
            }
        }
        let offset = (addr - area.range.start) as u64;
        self.drop_before_freed(area, &blocks, offset);
        let Some(size_bytes) = blocks.heap.free(offset) else { return Freed::NotOurs };
        drop(blocks);
        if area.tier == Tier::FAST {
            self.budget.release(size_bytes);
        }
        let slow_bytes = if area.tier == Tier::FAST { 0 } else { size_bytes };
        Freed::Block { size_bytes, slow_bytes }
    }

    /// Where fast bytes are limited, a large block's pages go with it: the budget gives its room to somebody else.
    fn drop_before_freed(&self, area: &Area, blocks: &Blocks, offset: u64) {
        if area.tier != Tier::FAST || self.budget.allowed() == u64::MAX {
            return;
        }
        let len_bytes = blocks.heap.size_of(offset).unwrap_or(0);
        if len_bytes >= DROPPED_MIN_BYTES {
            let (begin, end) = (page_ceil(offset), (offset + len_bytes) / PAGE_BYTES * PAGE_BYTES);
            self.discard(area.range.start + usize_of(begin)..area.range.start + usize_of(end), area.tier);
        }
    }

    fn free_planned(&self, addr: usize) -> Freed {
        let guard = self.arenas[(addr - self.plans.start) >> GIB.trailing_zeros()].load();
        guard.as_ref().map_or(Freed::NotOurs, |arena| self.free_in(arena, addr))
    }

    /// As [`Memory::free`], of a block in this arena's range.
    pub fn free_in(&self, arena: &Arena, addr: usize) -> Freed {
        // Units of one block may be in different tiers.
        let size_bytes = if arena.units().is_empty() { None } else { arena.size_of(addr) };
        let slow_bytes = size_bytes.map_or(0, |size_bytes| self.slow_bytes(addr, size_bytes).min(size_bytes));
        match self.on_ground(|ground| arena.give_back(addr, ground)) {
            Some(size_bytes) => Freed::Block { size_bytes, slow_bytes },
            None => Freed::NotOurs,
        }
    }

    /// Lets an arena work on the accounts of this memory.
    pub fn on_ground<T>(&self, work: impl FnOnce(Ground<'_>) -> T) -> T {
        let drop_pages = |range: Range<usize>, next: Tier| self.discard(range, next);
        let take_pages = |range: Range<usize>| self.tiers.populate(range);
        let death_waited = |took: Duration| self.waits.note(took);
        work(Ground {
            drop_pages: &drop_pages,
            take_pages: &take_pages,
            death_waited: &death_waited,
            ..Ground::new(&self.budget, &self.pages)
        })
    }

    /// Drops contents that nobody needs. A refusal leaves old pages in place, which costs memory but no correctness.
    pub fn discard(&self, range: Range<usize>, next: Tier) {
        if let Err(error) = self.tiers.discard(range, next) {
            log::debug!("{error}");
        }
    }

    /// A persistent buffer may have moved: its unit settles the account, and its pages go back to their area's tier before
    /// the heap can give them to somebody else.
    fn free_persistent(&self, area: &Area, blocks: &mut Blocks, addr: usize) -> Freed {
        let offset = (addr - area.range.start) as u64;
        let len = usize_of(blocks.heap.size_of(offset).unwrap_or(0));
        let own: Vec<usize> = blocks.units.range(addr..addr + len).map(|(&begin, _)| begin).collect();
        let slow_bytes = self.slow_bytes(addr, len as u64);
        for unit in own.iter().filter_map(|begin| blocks.units.remove(begin)) {
            self.waits.note(unit.leave(&self.budget).unwrap_or_default());
            self.pages.set(unit.range(), area.tier);
            self.discard(unit.range(), area.tier);
        }
        match blocks.heap.free(offset) {
            Some(size_bytes) => Freed::Block { size_bytes, slow_bytes },
            None => Freed::NotOurs,
        }
    }

    /// The unit of `range` in the persistent buffer of `len_bytes` at `addr`. When no such block lives there any more, its
    /// pages are not its own, or another plan knows other units there, the unit is one in which nothing lives, and which
    /// therefore never moves.
    pub fn persistent_unit(&self, addr: usize, len_bytes: u64, range: Range<usize>) -> Arc<UnitState> {
        let nobody = || Arc::new(UnitState::empty(range.clone(), Tier::SLOW));
        let Some(area) = [&self.fast, &self.slow].into_iter().find(|area| area.range.contains(&addr)) else {
            return nobody();
        };
        let mut blocks = area.blocks();
        let len = blocks.heap.size_of((addr - area.range.start) as u64);
        let whole_pages = addr as u64 % PAGE_BYTES == 0 && len == Some(page_ceil(len_bytes));
        if !whole_pages {
            return nobody();
        }
        let own = || Arc::new(UnitState::occupied(range.clone(), area.tier));
        let unit = blocks.units.entry(range.start).or_insert_with(own);
        if unit.range() == range {
            Arc::clone(unit)
        } else {
            nobody()
        }
    }

    /// Gives pages of free blocks of the heaps back to the system, now that a plan or its profile wants that memory.
    pub fn trim(&self) {
        for area in [&self.fast, &self.slow] {
            let blocks = area.blocks();
            for (offset, len) in blocks.heap.stale_ranges() {
                let begin = offset.next_multiple_of(PAGE_BYTES);
                let end = (offset + len) / PAGE_BYTES * PAGE_BYTES;
                if begin < end {
                    self.discard(area.range.start + usize_of(begin)..area.range.start + usize_of(end), area.tier);
                }
            }
        }
    }

    /// The address space that all of this lies in.
    #[must_use]
    pub fn range(&self) -> Range<usize> {
        self.whole.clone()
    }

    /// The fast bytes in use, summed over what lives where: blocks, units, and the pools that `pools` counts. While nothing
    /// is allocated, freed or moved, it equals what the budget says.
    #[must_use]
    pub fn audited_fast_bytes(&self, pools: u64) -> u64 {
        let areas = [&self.fast, &self.slow].into_iter().chain(&self.small).map(Area::fast_bytes).sum::<u64>();
        let mut arenas: Vec<Arc<Arena>> = self.arenas.iter().filter_map(ArcSwapOption::load_full).collect();
        arenas.dedup_by(|a, b| Arc::ptr_eq(a, b));
        let own = |arena: &Arc<Arena>| {
            let inside = arena.range();
            let fast = arena.units().iter().filter(|unit| unit.tier() == Some(Tier::FAST));
            fast.filter(|unit| inside.contains(&unit.range().start)).map(|unit| unit.len_bytes()).sum::<u64>()
        };
        let kept = self.kept.as_ref().map_or(0, |kept| kept.held_bytes());
        areas + kept + arenas.iter().map(own).sum::<u64>() + pools
    }

    /// Address space for a plan; `None` when there is none left.
    pub fn plan_range(&self, len_bytes: u64) -> Option<usize> {
        let mut space = self.plan_space.lock().unwrap_or_else(PoisonError::into_inner);
        let offset = space.alloc(len_bytes.max(1).div_ceil(GIB) * GIB, GIB)?;
        Some(self.plans.start + usize_of(offset))
    }

    /// From now on, releases in the arena's range go to it.
    pub fn install(&self, arena: &Arc<Arena>) {
        let range = arena.range();
        let pool = range.start..range.start + usize_of(page_ceil(arena.plan().pool_bytes));
        self.welcome_huge_pages(arena);
        self.pages.set(pool.clone(), Tier::FAST);
        if let Err(error) = self.tiers.place(pool, Tier::FAST) {
            log::debug!("{error}");
        }
        for entry in self.entries(arena) {
            entry.store(Some(Arc::clone(arena)));
        }
    }

    /// Where nothing moves, huge pages are welcome as far as they fill up. Elsewhere a huge page moves as a whole and is taken as a whole. So units may have some, and nothing else: in a heap or in the pool
    /// it would hold more bytes than the account says, and where two units meet it would move both.
    fn welcome_huge_pages(&self, arena: &Arena) {
        let own = arena.range();
        if !self.moves {
            self.tiers.welcome_huge_pages(whole_huge_pages(&own), true);
            return;
        }
        self.tiers.welcome_huge_pages(own.clone(), false);
        for unit in arena.units().iter().filter(|unit| own.contains(&unit.range().start)) {
            self.tiers.welcome_huge_pages(whole_huge_pages(&unit.range()), true);
        }
    }

    fn entries(&self, arena: &Arena) -> &[ArcSwapOption<Arena>] {
        let range = arena.range();
        let first = (range.start - self.plans.start) >> GIB.trailing_zeros();
        let count = range.len().max(1).div_ceil(usize_of(GIB));
        &self.arenas[first..first + count]
    }

    /// Gives the address space of an arena back in which nothing lives; false when something does.
    pub fn retire(&self, arena: &Arc<Arena>) -> bool {
        // A tensor of the pool may have died after the pool was sized for the last time.
        self.on_ground(|ground| arena.size_pool(0, ground));
        if arena.pool_now_bytes() > 0 || !arena.is_empty() {
            return false;
        }
        for entry in self.entries(arena) {
            entry.store(None);
        }
        self.discard(arena.range(), Tier::SLOW);
        let offset = (arena.range().start - self.plans.start) as u64;
        self.plan_space.lock().unwrap_or_else(PoisonError::into_inner).free(offset).is_some()
    }
}

/// The part of a range that huge pages can fill.
fn whole_huge_pages(range: &Range<usize>) -> Range<usize> {
    let begin = range.start.next_multiple_of(sys::memory::HUGE_PAGE_BYTES);
    begin..(range.end / sys::memory::HUGE_PAGE_BYTES * sys::memory::HUGE_PAGE_BYTES).max(begin)
}

/// Lengths of address space fit a `usize` on every machine TensorFlow 1.13.1 runs on.
#[must_use]
pub fn usize_of(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
