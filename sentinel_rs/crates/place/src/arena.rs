//! A plan at an address: the slots an allocation is looked up in, without a lock and without a hash.

use crate::pool::PoolSize;
use crate::seats::Seats;
use crate::{Budget, ClaimMap, Entered, MoveStart, PageTiers, UnitState};
use plan::{KernelRole, Place, Plan, PoolRule, Slot, UnitHome};
use std::ops::Range;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::Arc;
use std::time::Duration;
use trace::{page_ceil, Tier, PAGE_BYTES};

/// The accounts that an arena works on, and how its owner drops pages whose contents nobody needs.
#[derive(Clone, Copy)]
pub struct Ground<'a> {
    /// Fast bytes.
    pub budget: &'a Budget,
    /// Tier of every page.
    pub pages: &'a PageTiers,
    /// Gives pages back to the system; the tier is the one from which they come when they are used again.
    pub drop_pages: &'a dyn Fn(Range<usize>, Tier),
    /// Is told of fast pages that the pool takes and that are about to be written.
    pub take_pages: &'a dyn Fn(Range<usize>),
    /// Is told how long a death waited for a piece of a move, which may be no time.
    pub death_waited: &'a dyn Fn(Duration),
    /// Is asked to wait a little until the budget has room for so many bytes, which a birth lacks; it may return without.
    pub await_room: &'a dyn Fn(u64),
}

impl<'a> Ground<'a> {
    /// These accounts, and an owner to whom nothing needs to be told.
    #[must_use]
    pub fn new(budget: &'a Budget, pages: &'a PageTiers) -> Ground<'a> {
        Ground {
            budget,
            pages,
            drop_pages: &|_, _| {},
            take_pages: &|_| {},
            death_waited: &|_| {},
            await_room: &|_| {},
        }
    }
}

/// What an allocation that asks for its slot gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// Its planned address, in the pool.
    Pool {
        /// Address.
        addr: usize,
    },
    /// Its planned address, in units.
    Units {
        /// Address.
        addr: usize,
        /// Index of the first unit.
        first: u32,
        /// How many units it covers.
        count: u32,
    },
    /// The plan wants it on the heap, in this tier.
    Heap(Tier),
    /// The pool holds less fast memory now than the slot needs.
    PoolShort,
    /// Another tensor is still there.
    Busy,
    /// The plan knows the kernel, but no slot of that size is left.
    Size,
    /// The plan does not know the kernel, or it allocates more often than in the profiled step.
    Unknown,
    /// One of the many small temporaries that the plan leaves to the heap of small blocks.
    Scratch,
}

/// The slots of one kernel.
#[derive(Debug)]
struct KernelSlots {
    first: u32,
    count: u32,
    scratch_max_bytes: u64,
    /// Step tag in the upper half, allocations of that step in the lower.
    ordinal: AtomicU64,
    layer: u32,
}

/// A plan bound to an address range.
#[derive(Debug)]
pub struct Arena {
    base: usize,
    plan: Plan,
    kernel_index: Vec<u32>,
    kernels: Vec<KernelSlots>,
    claims: ClaimMap,
    /// Distinct begins of slots, and the slot that lives there now.
    seats: Seats,
    owners: Vec<AtomicU32>,
    /// By slot, its seat; the largest number for a slot on the heap.
    seat_of_slot: Vec<u32>,
    units: Vec<Arc<UnitState>>,
    pool: PoolSize,
}

impl Arena {
    /// Binds `plan` to the range that begins at `base`. `roles` names every kernel of the step; `persistent` gives the
    /// state of a unit in a persistent buffer.
    pub fn bind(
        plan: Plan,
        base: usize,
        roles: &[KernelRole],
        mut persistent: impl FnMut(&plan::Unit) -> Arc<UnitState>,
    ) -> Arena {
        let top = roles.iter().map(|role| role.kernel as usize + 1).max().unwrap_or(0);
        let mut kernel_index = vec![u32::MAX; top];
        let mut kernels = Vec::with_capacity(roles.len());
        for role in roles {
            let first = plan.slots.partition_point(|slot| slot.key.kernel < role.kernel);
            let count = plan.slots[first..].partition_point(|slot| slot.key.kernel == role.kernel);
            kernel_index[role.kernel as usize] = index_u32(kernels.len());
            kernels.push(KernelSlots {
                first: index_u32(first),
                count: index_u32(count),
                scratch_max_bytes: role.scratch_max_bytes,
                ordinal: AtomicU64::new(0),
                layer: role.layer,
            });
        }
        let seats = Seats::new(plan.slots.iter().filter_map(offset_of).collect());
        let seat_of = |slot| offset_of(slot).and_then(|offset| seats.find(offset)).map_or(u32::MAX, index_u32);
        let seat_of_slot = plan.slots.iter().map(seat_of).collect();
        let owners = (0..seats.count()).map(|_| AtomicU32::new(u32::MAX)).collect();
        let units = plan
            .units
            .iter()
            .map(|unit| match unit.home {
                UnitHome::Arena { offset_bytes } => {
                    let begin = base + usize_of(offset_bytes);
                    Arc::new(UnitState::empty(begin..begin + usize_of(unit.len_bytes), unit.birth_tier))
                }
                UnitHome::Persistent { .. } => persistent(unit),
            })
            .collect();
        let claims = ClaimMap::new(plan.arena_bytes);
        Arena {
            base,
            plan,
            kernel_index,
            kernels,
            claims,
            seats,
            owners,
            seat_of_slot,
            units,
            pool: PoolSize::default(),
        }
    }

    /// The plan.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Its address range.
    #[must_use]
    pub fn range(&self) -> std::ops::Range<usize> {
        self.base..self.base + usize_of(self.plan.arena_bytes)
    }

    /// The units, in the plan's order.
    #[must_use]
    pub fn units(&self) -> &[Arc<UnitState>] {
        &self.units
    }

    /// True when no tensor lives in the arena.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.claims.is_free(0, self.plan.arena_bytes)
    }

    /// Fast bytes that the pool holds now.
    #[must_use]
    pub fn pool_now_bytes(&self) -> u64 {
        self.pool.now()
    }

    /// The pool may hold so much from now on: so much is kept from promotions, when it is a pool on demand.
    pub fn expect_pool(&self, bytes: u64) {
        if self.plan.pool_rule == PoolRule::OnDemand {
            self.pool.plan_for(bytes);
        }
    }

    /// An interval begins in which the pool may hold `wanted_bytes`: a reserved pool grows to that, as far as the budget goes,
    /// or shrinks to it, or to what is still alive. A pool on demand only shrinks, and only to nothing: when nobody follows the
    /// plan any more.
    pub fn size_pool(&self, wanted_bytes: u64, ground: Ground<'_>) {
        self.expect_pool(wanted_bytes);
        match self.plan.pool_rule {
            PoolRule::OnDemand if wanted_bytes > 0 => {}
            PoolRule::Reserved if wanted_bytes >= self.pool.now() => {
                self.pool.grow_towards(wanted_bytes, ground.budget);
            }
            PoolRule::Reserved | PoolRule::OnDemand => self.shrink_pool(|_| wanted_bytes, ground),
        }
    }

    /// Makes room for `bytes` more in the budget, when a pool on demand holds pages above its last live tensor.
    pub fn make_room(&self, bytes: u64, ground: Ground<'_>) {
        self.make_room_above(0, bytes, ground);
    }

    /// As [`Arena::make_room`], of what the pool holds above `keep_bytes`.
    fn make_room_above(&self, keep_bytes: u64, bytes: u64, ground: Ground<'_>) {
        let lacking = bytes.saturating_sub(ground.budget.room());
        if lacking > 0 && self.plan.pool_rule == PoolRule::OnDemand {
            self.shrink_pool(|now| now.saturating_sub(page_ceil(lacking)).max(keep_bytes.min(now)), ground);
        }
    }

    /// Asks a unit of the arena to move. A promotion leaves the pool what it may hold in the interval that runs, and takes what it
    /// holds above that; and it leaves `births_bytes` to those who wait to be born.
    pub fn begin_move(&self, unit: &UnitState, to: Tier, births_bytes: u64, ground: Ground<'_>) -> MoveStart {
        let begin = || unit.begin_move(to, ground.budget, self.pool.growth_left() + births_bytes);
        let start = begin();
        if start != MoveStart::NoRoom {
            return start;
        }
        self.make_room_above(self.pool.planned(), unit.len_bytes() + births_bytes, ground);
        begin()
    }

    fn shrink_pool(&self, keep_bytes: impl FnOnce(u64) -> u64, ground: Ground<'_>) {
        let claimed_end = |now: u64| page_ceil(self.claims.highest_claimed_end(now));
        self.pool.shrink(keep_bytes, claimed_end, ground.budget, |offsets| {
            let begin = self.base + usize_of(page_ceil(offsets.start));
            let end = self.base + usize_of(offsets.end / PAGE_BYTES * PAGE_BYTES);
            if begin < end {
                (ground.drop_pages)(begin..end, Tier::FAST);
            }
        });
    }

    fn kernel(&self, kernel: u32) -> Option<&KernelSlots> {
        let index = *self.kernel_index.get(kernel as usize)?;
        self.kernels.get(index as usize)
    }

    /// Layer in which the kernel first runs.
    #[must_use]
    pub fn layer_of(&self, kernel: u32) -> Option<u32> {
        self.kernel(kernel).map(|slots| slots.layer)
    }

    /// The slot for the next allocation of `kernel` in the step `step_tag`. `begun` is told of each unit whose life begins
    /// with this birth.
    pub fn take(
        &self,
        kernel: u32,
        size_bytes: u64,
        step_tag: u32,
        ground: Ground<'_>,
        begun: &mut dyn FnMut(&UnitState, Entered),
    ) -> Taken {
        let Some(own) = self.kernel(kernel) else { return Taken::Unknown };
        if size_bytes <= own.scratch_max_bytes {
            return Taken::Scratch;
        }
        let slots = &self.plan.slots[own.first as usize..(own.first + own.count) as usize];
        let mut outcome = if slots.is_empty() { Taken::Unknown } else { Taken::Size };
        // Worker threads of one op race for their ordinals, so a neighbour of the right size is as good as the own one; and a
        // kernel with one slot has no neighbours.
        let ordinal = if slots.len() > 1 { next_ordinal(&own.ordinal, step_tag) } else { 0 };
        let by_ordinal = || slots.binary_search_by_key(&ordinal, |slot| slot.key.ordinal).ok();
        let direct = slots.get(ordinal as usize).is_some_and(|slot| slot.key.ordinal == ordinal);
        let own_first = if direct { Some(ordinal as usize) } else { by_ordinal() };
        let others = (0..slots.len()).filter(|&index| Some(index) != own_first);
        for index in own_first.into_iter().chain(others) {
            if slots[index].size_bytes != size_bytes {
                continue;
            }
            outcome = self.claim(own.first as usize + index, ground, begun);
            if !matches!(outcome, Taken::Busy) {
                break;
            }
        }
        outcome
    }

    fn claim(&self, index: usize, ground: Ground<'_>, begun: &mut dyn FnMut(&UnitState, Entered)) -> Taken {
        let slot = &self.plan.slots[index];
        match slot.place {
            Place::Heap { tier } => Taken::Heap(tier),
            Place::Pool { offset_bytes } => {
                let end_bytes = offset_bytes + slot.size_bytes;
                let mut grown = 0..0;
                if end_bytes > self.pool.now() {
                    match self.grow_pool(page_ceil(end_bytes), ground) {
                        Some(offsets) => grown = offsets,
                        None => return Taken::PoolShort,
                    }
                }
                if !self.seat(index, offset_bytes, slot.size_bytes) {
                    return Taken::Busy;
                }
                // The pool may have shrunk between the look and the claim; whoever shrinks it looks for claims afterwards. Both
                // the claim and this look are sequentially consistent.
                if end_bytes > self.pool.now() {
                    self.unseat(index);
                    self.claims.release(offset_bytes, slot.size_bytes);
                    return Taken::PoolShort;
                }
                // Only now: pages of a pool that shrinks again would belong to nobody.
                let fresh = grown.start.max(offset_bytes / PAGE_BYTES * PAGE_BYTES)..grown.end;
                if !fresh.is_empty() {
                    (ground.take_pages)(self.base + usize_of(fresh.start)..self.base + usize_of(fresh.end));
                }
                Taken::Pool { addr: self.base + usize_of(offset_bytes) }
            }
            Place::Units { first, count, offset_bytes } => {
                if !self.seat(index, offset_bytes, slot.size_bytes) {
                    return Taken::Busy;
                }
                let units = &self.units[first as usize..(first + count) as usize];
                for (place, unit) in units.iter().enumerate() {
                    if unit.is_born_fast() && unit.live() == 0 {
                        self.make_room(unit.len_bytes(), ground);
                        if ground.budget.room() < unit.len_bytes() {
                            (ground.await_room)(unit.len_bytes());
                        }
                    }
                    match unit.enter(ground.budget, ground.pages) {
                        Entered::Shared => {}
                        Entered::Draining => {
                            leave(&units[..place], ground);
                            self.unseat(index);
                            self.claims.release(offset_bytes, slot.size_bytes);
                            return if unit.is_born_fast() { Taken::Busy } else { Taken::Heap(Tier::SLOW) };
                        }
                        entered @ Entered::First { .. } => begun(unit, entered),
                    }
                }
                Taken::Units { addr: self.base + usize_of(offset_bytes), first, count }
            }
        }
    }

    /// Has a pool on demand reach up to `end_bytes`; the offsets that are new, `None` when there is no room.
    fn grow_pool(&self, end_bytes: u64, ground: Ground<'_>) -> Option<Range<u64>> {
        if self.plan.pool_rule == PoolRule::Reserved {
            return None;
        }
        self.pool.grow_to(end_bytes, ground.budget).or_else(|| {
            (ground.await_room)(end_bytes.saturating_sub(self.pool.now()));
            self.pool.grow_to(end_bytes, ground.budget)
        })
    }

    fn owner_of(&self, slot: usize) -> Option<&AtomicU32> {
        self.owners.get(self.seat_of_slot[slot] as usize)
    }

    fn unseat(&self, index: usize) {
        if let Some(owner) = self.owner_of(index) {
            owner.store(u32::MAX, Ordering::Release);
        }
    }

    fn seat(&self, index: usize, offset_bytes: u64, size_bytes: u64) -> bool {
        if !self.claims.claim(offset_bytes, size_bytes) {
            return false;
        }
        if let Some(owner) = self.owner_of(index) {
            owner.store(index_u32(index), Ordering::Release);
        }
        true
    }

    /// The slot that lives at `addr`.
    fn owner(&self, addr: usize) -> Option<(usize, &Slot)> {
        let offset_bytes = u64::try_from(addr.checked_sub(self.base)?).ok()?;
        let seat = self.seats.find(offset_bytes)?;
        let slot = self.plan.slots.get(self.owners[seat].load(Ordering::Acquire) as usize)?;
        Some((seat, slot))
    }

    /// Size of the tensor that lives at `addr`.
    #[must_use]
    pub fn size_of(&self, addr: usize) -> Option<u64> {
        self.owner(addr).map(|(_, slot)| slot.size_bytes)
    }

    /// The tensor at `addr` is dead; returns its size, or `None` for `addr` that no slot owns. The pages of units in which
    /// nothing lives any more are dropped before anybody else can live there.
    pub fn give_back(&self, addr: usize, ground: Ground<'_>) -> Option<u64> {
        let (seat, slot) = self.owner(addr)?;
        let slot = *slot;
        let offset_bytes = offset_of(&slot)?;
        // The owner leaves before the claim does: after the claim a new owner may sit down at once.
        self.owners[seat].store(u32::MAX, Ordering::Release);
        if let Place::Units { first, count, .. } = slot.place {
            leave(&self.units[first as usize..(first + count) as usize], ground);
        }
        self.claims.release(offset_bytes, slot.size_bytes);
        Some(slot.size_bytes)
    }
}

/// A tensor leaves its units.
fn leave(units: &[Arc<UnitState>], ground: Ground<'_>) {
    for unit in units {
        let tier = unit.tier().unwrap_or(Tier::SLOW);
        if let Some(waited) = unit.leave(ground.budget) {
            (ground.death_waited)(waited);
            (ground.drop_pages)(unit.range(), tier);
            unit.drained();
        }
    }
}

fn offset_of(slot: &Slot) -> Option<u64> {
    match slot.place {
        Place::Pool { offset_bytes } | Place::Units { offset_bytes, .. } => Some(offset_bytes),
        Place::Heap { .. } => None,
    }
}

/// How many allocations the kernel had in this step before; a new step begins at 0.
fn next_ordinal(word: &AtomicU64, step_tag: u32) -> u32 {
    let mut old = word.load(Ordering::Relaxed);
    loop {
        let (tag, count) = split(old);
        let count = if tag == step_tag { count } else { 0 };
        let new = (u64::from(step_tag) << 32) | u64::from(count.wrapping_add(1));
        match word.compare_exchange_weak(old, new, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => return count,
            Err(current) => old = current,
        }
    }
}

fn split(word: u64) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = word.to_be_bytes();
    (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]))
}

/// Indices of slots, kernels and units fit 32 bits by the trace's own numbering.
fn index_u32(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

/// Offsets inside address space that was reserved fit a `usize`.
fn usize_of(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
