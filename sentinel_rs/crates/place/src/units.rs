//! Units of pages that move as one, and the single word that says where each of them is.
//!
//! The word packs an epoch, the number of live tensors and the tier, so that births, deaths and finished moves agree on
//! the budget without a lock: whoever changes the word owns the consequence.

use crate::{Budget, PageTiers};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicU8, Ordering};
use std::time::{Duration, Instant};
use trace::Tier;

/// Nothing lives in the unit.
const ABSENT: u8 = u8::MAX;
/// Nothing lives in the unit, and its pages are being dropped: a newcomer's contents would go with them.
const DRAINING: u8 = u8::MAX - 1;
const LIVE_BITS: u32 = 24;
const LIVE_MASK: u32 = (1 << LIVE_BITS) - 1;

/// The unpacked word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Word {
    epoch: u32,
    live: u32,
    tier: u8,
}

impl Word {
    fn unpack(bits: u64) -> Word {
        let [t, a, b, c, e0, e1, e2, e3] = bits.to_le_bytes();
        Word { epoch: u32::from_le_bytes([e0, e1, e2, e3]), live: u32::from_le_bytes([a, b, c, 0]), tier: t }
    }

    /// Something lives there, in a tier.
    fn resides(self) -> bool {
        self.tier < DRAINING
    }

    fn pack(self) -> u64 {
        (u64::from(self.epoch) << 32) | (u64::from(self.live & LIVE_MASK) << 8) | u64::from(self.tier)
    }
}

/// What a birth in a unit found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entered {
    /// The unit was occupied; the newcomer shares its tier.
    Shared,
    /// The first tensor: the unit begins in this tier.
    First {
        /// Tier the pages should come from.
        tier: Tier,
        /// True when fast memory was wanted and the budget had none.
        overflowed: bool,
    },
    /// The unit's old pages are being dropped; nobody may live there now.
    Draining,
}

/// A claim to move a unit, valid for one life of the unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MoveTicket {
    epoch: u32,
    /// The unit counts as fast all the while: only pages that left it come back.
    mends: bool,
}

/// What a unit says to a wish to move it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MoveStart {
    /// Go: the destination's bytes are reserved.
    Go(MoveTicket),
    /// Nothing lives there, or it is in that tier already.
    Needless,
    /// The budget has no room now.
    NoRoom,
}

/// A run of whole pages that moves as one.
#[derive(Debug)]
pub struct UnitState {
    range: Range<usize>,
    birth_tier: Tier,
    word: AtomicU64,
    /// The tier that was asked for last; a move to another one is stale.
    desired: AtomicU8,
    /// It counts as fast, and some of its pages have left: an eviction was not carried to its end.
    torn: AtomicBool,
    /// Moves under way. Whoever drops the pages waits for them, so that no move touches pages of the next owner.
    moving: AtomicU32,
}

impl UnitState {
    /// A unit of the arena, in which nothing lives yet.
    #[must_use]
    pub fn empty(range: Range<usize>, birth_tier: Tier) -> UnitState {
        UnitState::with(range, birth_tier, Word { epoch: 0, live: 0, tier: ABSENT })
    }

    /// A unit around a buffer that lives in `tier` already, and whose fast bytes the budget knows.
    #[must_use]
    pub fn occupied(range: Range<usize>, tier: Tier) -> UnitState {
        UnitState::with(range, tier, Word { epoch: 1, live: 1, tier: tier.0 })
    }

    fn with(range: Range<usize>, birth_tier: Tier, word: Word) -> UnitState {
        let (desired, moving) = (AtomicU8::new(birth_tier.0), AtomicU32::new(0));
        UnitState {
            range,
            birth_tier,
            word: AtomicU64::new(word.pack()),
            desired,
            torn: AtomicBool::new(false),
            moving,
        }
    }

    /// Notes the tier that is wanted from now on; an earlier wish for another tier is void.
    pub fn desire(&self, tier: Tier) {
        self.desired.store(tier.0, Ordering::Release);
    }

    /// The tier that was wanted last.
    #[must_use]
    pub fn desired(&self) -> Tier {
        Tier(self.desired.load(Ordering::Acquire))
    }

    /// An eviction took some of its pages away and leaves the others: a promotion finds something to do, although the unit
    /// counts as fast. To be told before the move ends.
    pub fn tear(&self) {
        self.torn.store(true, Ordering::Release);
    }

    /// True while the life that the ticket was given for goes on and still wants that tier.
    #[must_use]
    pub fn wants(&self, ticket: MoveTicket, to: Tier) -> bool {
        let word = self.load();
        word.epoch == ticket.epoch && word.resides() && self.desired() == to
    }

    /// Records the tier of the pages, again when the unit's fate changed meanwhile.
    fn record(&self, pages: &PageTiers, mut tier: u8) {
        loop {
            pages.set(self.range(), Tier(tier));
            let now = self.load();
            if !now.resides() || now.tier == tier {
                return;
            }
            tier = now.tier;
        }
    }

    /// Whether it is planned to begin in fast memory.
    #[must_use]
    pub fn is_born_fast(&self) -> bool {
        self.birth_tier == Tier::FAST
    }

    /// Its pages.
    #[must_use]
    pub fn range(&self) -> Range<usize> {
        self.range.clone()
    }

    /// Its length.
    #[must_use]
    pub fn len_bytes(&self) -> u64 {
        self.range.len() as u64
    }

    /// Tensors that live there.
    #[must_use]
    pub fn live(&self) -> u32 {
        self.load().live
    }

    /// The tier it is in; `None` when nothing lives there.
    #[must_use]
    pub fn tier(&self) -> Option<Tier> {
        let word = self.load();
        word.resides().then_some(Tier(word.tier))
    }

    fn load(&self) -> Word {
        Word::unpack(self.word.load(Ordering::Acquire))
    }

    fn swap(&self, old: Word, new: Word) -> bool {
        self.word.compare_exchange(old.pack(), new.pack(), Ordering::SeqCst, Ordering::Acquire).is_ok()
    }

    /// A tensor is born in the unit. The first one decides the tier: the planned one when the budget has room.
    pub fn enter(&self, budget: &Budget, pages: &PageTiers) -> Entered {
        loop {
            let old = self.load();
            if old.live > 0 {
                if self.swap(old, Word { live: old.live + 1, ..old }) {
                    return Entered::Shared;
                }
                continue;
            }
            if old.tier == DRAINING {
                return Entered::Draining;
            }
            let reserved = self.birth_tier == Tier::FAST && budget.try_reserve(self.len_bytes());
            let overflowed = self.birth_tier == Tier::FAST && !reserved;
            let tier = if overflowed { Tier::SLOW } else { self.birth_tier };
            if self.swap(old, Word { epoch: old.epoch.wrapping_add(1), live: 1, tier: tier.0 }) {
                self.desire(self.birth_tier);
                self.torn.store(false, Ordering::Release);
                self.record(pages, tier.0);
                return Entered::First { tier, overflowed };
            }
            if reserved {
                budget.release(self.len_bytes());
            }
        }
    }

    /// A tensor dies in the unit. When it was the last one: how long it waited until no move touches its pages any more. They
    /// hold nothing of worth then: the caller may drop them, and says [`UnitState::drained`] when that is done. Until then
    /// nobody can enter.
    pub fn leave(&self, budget: &Budget) -> Option<Duration> {
        loop {
            let old = self.load();
            if old.live == 0 {
                return None;
            }
            let last = old.live == 1;
            let tier = if last { DRAINING } else { old.tier };
            if self.swap(old, Word { live: old.live - 1, tier, ..old }) {
                if last && old.tier == Tier::FAST.0 {
                    budget.release(self.len_bytes());
                }
                return last.then(|| self.await_move());
            }
        }
    }

    /// A mover looks at the unit again after each small piece, so this is short.
    fn await_move(&self) -> Duration {
        if self.moving.load(Ordering::SeqCst) == 0 {
            return Duration::ZERO;
        }
        let began = Instant::now();
        while self.moving.load(Ordering::SeqCst) > 0 {
            std::thread::yield_now();
        }
        began.elapsed()
    }

    /// The pages of the last life are dropped; the unit can be entered again.
    pub fn drained(&self) {
        let old = self.load();
        if old.tier == DRAINING {
            self.swap(old, Word { tier: ABSENT, ..old });
        }
    }

    /// Asks to move the unit. A promotion reserves its bytes first, so that the budget holds while pages travel, and leaves
    /// `spared_bytes` of it to others.
    pub fn begin_move(&self, to: Tier, budget: &Budget, spared_bytes: u64) -> MoveStart {
        // Announced before the look, so that a last death either is seen here or waits for the move's end.
        self.moving.fetch_add(1, Ordering::SeqCst);
        let word = Word::unpack(self.word.load(Ordering::SeqCst));
        let mends = to == Tier::FAST && word.tier == to.0 && self.torn.load(Ordering::Acquire);
        if !word.resides() || word.tier == to.0 && !mends || self.desired() != to {
            self.moving.fetch_sub(1, Ordering::SeqCst);
            return MoveStart::Needless;
        }
        if to == Tier::FAST && !mends && !budget.try_reserve_beside(self.len_bytes(), spared_bytes) {
            self.moving.fetch_sub(1, Ordering::SeqCst);
            return MoveStart::NoRoom;
        }
        MoveStart::Go(MoveTicket { epoch: word.epoch, mends })
    }

    /// The pages have arrived, or have not. Settles the account; true when the unit is in the new tier now, false when
    /// the move failed or the unit died meanwhile. Ends what [`UnitState::begin_move`] began.
    pub fn end_move(&self, ticket: MoveTicket, to: Tier, arrived: bool, budget: &Budget, pages: &PageTiers) -> bool {
        let settled = self.settle(ticket, to, arrived, budget, pages);
        self.moving.fetch_sub(1, Ordering::SeqCst);
        settled
    }

    fn settle(&self, ticket: MoveTicket, to: Tier, arrived: bool, budget: &Budget, pages: &PageTiers) -> bool {
        if ticket.mends {
            if arrived {
                self.torn.store(false, Ordering::Release);
            }
            return false;
        }
        loop {
            let old = self.load();
            let same_life = old.epoch == ticket.epoch && old.resides() && old.tier != to.0;
            if !arrived || !same_life {
                if to == Tier::FAST {
                    budget.release(self.len_bytes());
                }
                return false;
            }
            if self.swap(old, Word { tier: to.0, ..old }) {
                self.torn.store(false, Ordering::Release);
                self.record(pages, to.0);
                if old.tier == Tier::FAST.0 {
                    budget.release(self.len_bytes());
                }
                return true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    const BASE: usize = 1 << 30;

    fn world(allowed: u64) -> (Budget, PageTiers) {
        (Budget::new(allowed), PageTiers::new(BASE, 1 << 20))
    }

    #[test]
    fn the_word_survives_packing() {
        for word in [
            Word { epoch: 0, live: 0, tier: ABSENT },
            Word { epoch: u32::MAX, live: LIVE_MASK, tier: 1 },
            Word { epoch: 7, live: 65_537, tier: 0 },
        ] {
            assert_eq!(Word::unpack(word.pack()), word);
        }
    }

    #[test]
    fn the_first_birth_reserves_and_the_last_death_releases() {
        let (budget, pages) = world(8192);
        let unit = UnitState::empty(BASE..BASE + 8192, Tier::FAST);
        assert_eq!(unit.enter(&budget, &pages), Entered::First { tier: Tier::FAST, overflowed: false });
        assert_eq!(unit.enter(&budget, &pages), Entered::Shared);
        assert_eq!(budget.used(), 8192);
        assert_eq!(unit.leave(&budget), None);
        assert_eq!(unit.leave(&budget), Some(Duration::ZERO));
        assert_eq!(budget.used(), 0);
        assert_eq!(unit.leave(&budget), None);
        assert_eq!(unit.enter(&budget, &pages), Entered::Draining);
        unit.drained();
        assert_eq!(unit.enter(&budget, &pages), Entered::First { tier: Tier::FAST, overflowed: false });
    }

    #[test]
    fn a_birth_without_room_overflows_to_the_slow_tier() {
        let (budget, pages) = world(4096);
        let unit = UnitState::empty(BASE..BASE + 8192, Tier::FAST);
        assert_eq!(unit.enter(&budget, &pages), Entered::First { tier: Tier::SLOW, overflowed: true });
        unit.desire(Tier::FAST);
        assert_eq!(unit.begin_move(Tier::FAST, &budget, 0), MoveStart::NoRoom);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn a_death_waits_for_the_move_and_the_account_is_settled() {
        let (budget, pages) = world(8192);
        let unit = UnitState::empty(BASE..BASE + 8192, Tier::SLOW);
        unit.enter(&budget, &pages);
        unit.desire(Tier::FAST);
        let MoveStart::Go(ticket) = unit.begin_move(Tier::FAST, &budget, 0) else { panic!("the budget has room") };
        assert_eq!(budget.used(), 8192);
        std::thread::scope(|scope| {
            let death = scope.spawn(|| unit.leave(&budget));
            while unit.wants(ticket, Tier::FAST) {
                std::thread::yield_now();
            }
            assert!(!death.is_finished(), "pages are still travelling");
            assert!(!unit.end_move(ticket, Tier::FAST, true, &budget, &pages));
            let waited = death.join().expect("no panic");
            assert!(waited.is_some_and(|waited| waited > Duration::ZERO), "{waited:?}");
        });
        unit.drained();
        assert_eq!(budget.used(), 0);
        assert_eq!(unit.tier(), None);
    }

    #[test]
    fn the_last_wish_counts() {
        let (budget, pages) = world(8192);
        let unit = UnitState::empty(BASE..BASE + 8192, Tier::SLOW);
        unit.enter(&budget, &pages);
        unit.desire(Tier::FAST);
        unit.desire(Tier::SLOW);
        assert_eq!(unit.begin_move(Tier::FAST, &budget, 0), MoveStart::Needless);
        unit.leave(&budget);
        unit.drained();
        unit.desire(Tier::FAST);
        unit.enter(&budget, &pages);
        assert_eq!(
            unit.begin_move(Tier::FAST, &budget, 0),
            MoveStart::Needless,
            "a wish ends with the life it was for"
        );
    }

    #[test]
    fn what_left_a_torn_unit_comes_back_without_a_reservation() {
        let (budget, pages) = world(8192);
        let unit = UnitState::empty(BASE..BASE + 8192, Tier::FAST);
        unit.enter(&budget, &pages);
        unit.desire(Tier::SLOW);
        let MoveStart::Go(out) = unit.begin_move(Tier::SLOW, &budget, 0) else { panic!("it is fast") };
        unit.tear();
        assert!(!unit.end_move(out, Tier::SLOW, false, &budget, &pages));
        assert_eq!((unit.tier(), budget.used()), (Some(Tier::FAST), 8192), "it counts as fast");
        unit.desire(Tier::FAST);
        let MoveStart::Go(back) = unit.begin_move(Tier::FAST, &budget, 0) else { panic!("pages are away") };
        assert!(unit.wants(back, Tier::FAST));
        unit.end_move(back, Tier::FAST, true, &budget, &pages);
        assert_eq!((unit.tier(), budget.used()), (Some(Tier::FAST), 8192));
        assert_eq!(unit.begin_move(Tier::FAST, &budget, 0), MoveStart::Needless, "all of it is there");
    }

    #[test]
    fn threads_that_live_die_and_move_leave_a_clean_account() {
        let (budget, pages) = world(8192);
        let world = Arc::new((budget, pages, UnitState::empty(BASE..BASE + 8192, Tier::FAST)));
        let threads: Vec<_> = (0..4)
            .map(|thread| {
                let world = Arc::clone(&world);
                std::thread::spawn(move || {
                    let (budget, pages, unit) = &*world;
                    for _ in 0..20_000 {
                        if thread % 2 == 0 {
                            if unit.enter(budget, pages) != Entered::Draining && unit.leave(budget).is_some() {
                                unit.drained();
                            }
                        } else {
                            let to = if thread == 1 { Tier::SLOW } else { Tier::FAST };
                            unit.desire(to);
                            if let MoveStart::Go(ticket) = unit.begin_move(to, budget, 0) {
                                unit.end_move(ticket, to, true, budget, pages);
                            }
                        }
                        assert!(budget.used() <= 8192);
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().expect("no thread may fail");
        }
        assert_eq!((world.0.used(), world.2.tier()), (0, None));
    }
}
