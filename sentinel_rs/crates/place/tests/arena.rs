//! A pool on demand beside promotions, and births that find no room.

use place::{Arena, Budget, Ground, MoveStart, PageTiers, Taken, UnitState};
use plan::{Interval, KernelRole, Place, Plan, PoolRule, Slot, Unit, UnitHome};
use profile::SlotKey;
use std::cell::RefCell;
use std::sync::Arc;
use trace::{Tier, PAGE_BYTES};

/// Pages of the one tensor of the pool, of the one unit, and of the budget: both do not fit.
const POOLED: u64 = 12;
const UNIT: u64 = 6;
const BUDGET: u64 = 16;
const BASE: usize = 1 << 30;

/// A plan of one layer whose pool grows to one tensor, beside a persistent unit in slow memory.
fn plan() -> Plan {
    let home = UnitHome::Persistent { buffer: 0, offset_bytes: 0 };
    let pool_bytes = POOLED * PAGE_BYTES;
    Plan {
        fast_budget_bytes: BUDGET * PAGE_BYTES,
        fast_needed_bytes: 0,
        unplanned_bytes: 0,
        arena_bytes: pool_bytes,
        pool_bytes,
        pool_rule: PoolRule::OnDemand,
        slots: vec![Slot {
            key: SlotKey { kernel: 0, ordinal: 0 },
            size_bytes: pool_bytes,
            place: Place::Pool { offset_bytes: 0 },
            birth_layer: 0,
        }],
        units: vec![Unit { home, len_bytes: UNIT * PAGE_BYTES, birth_tier: Tier::SLOW, layers: vec![0], accesses: 1 }],
        layer_first_op: vec![0],
        intervals: vec![Interval { first_layer: 0, last_layer: 0, pool_bytes, moves: Vec::new() }],
        may_be_late: false,
    }
}

struct World {
    budget: Budget,
    pages: PageTiers,
    arena: Arena,
}

impl World {
    fn new() -> World {
        let len = usize::try_from((POOLED + UNIT) * PAGE_BYTES).unwrap_or(0);
        let unit = BASE + usize::try_from(POOLED * PAGE_BYTES).unwrap_or(0)..BASE + len;
        let roles = [KernelRole { kernel: 0, layer: 0, scratch_max_bytes: 0 }];
        let arena = Arena::bind(plan(), BASE, &roles, |_| Arc::new(UnitState::occupied(unit.clone(), Tier::SLOW)));
        World { budget: Budget::new(BUDGET * PAGE_BYTES), pages: PageTiers::new(BASE, len), arena }
    }

    fn ground(&self) -> Ground<'_> {
        Ground::new(&self.budget, &self.pages)
    }

    fn promote(&self) -> MoveStart {
        self.arena.units()[0].desire(Tier::FAST);
        self.arena.begin_move(&self.arena.units()[0], Tier::FAST, 0, self.ground())
    }

    fn bear(&self, step_tag: u32) -> Taken {
        self.arena.take(0, POOLED * PAGE_BYTES, step_tag, self.ground(), &mut |_, _| {})
    }
}

#[test]
fn a_promotion_leaves_the_pool_what_it_will_grow_to() {
    let world = World::new();
    world.arena.expect_pool(POOLED * PAGE_BYTES);
    assert_eq!(world.promote(), MoveStart::NoRoom, "{} pages are kept", POOLED);
    assert_eq!(world.bear(1), Taken::Pool { addr: BASE });
    assert_eq!(world.promote(), MoveStart::NoRoom, "the tensor of the pool lives");
    assert_eq!(world.budget.used(), POOLED * PAGE_BYTES);
}

#[test]
fn a_promotion_takes_what_the_pool_holds_above_its_share() {
    let world = World::new();
    assert_eq!(world.bear(1), Taken::Pool { addr: BASE });
    assert_eq!(world.arena.give_back(BASE, world.ground()), Some(POOLED * PAGE_BYTES));
    assert_eq!(world.arena.pool_now_bytes(), POOLED * PAGE_BYTES, "nobody needed the room yet");
    world.arena.expect_pool(POOLED * PAGE_BYTES);
    assert_eq!(world.promote(), MoveStart::NoRoom, "the interval may use all of the pool again");
    let share = (BUDGET - UNIT) * PAGE_BYTES;
    world.arena.expect_pool(share);
    assert!(matches!(world.promote(), MoveStart::Go(_)));
    assert_eq!((world.arena.pool_now_bytes(), world.budget.used()), (share, BUDGET * PAGE_BYTES));
}

#[test]
fn nothing_is_kept_for_a_plan_that_nobody_follows() {
    let world = World::new();
    world.arena.expect_pool(POOLED * PAGE_BYTES);
    world.arena.size_pool(0, world.ground());
    assert!(matches!(world.promote(), MoveStart::Go(_)));
}

#[test]
fn a_birth_that_finds_no_room_waits_once_and_takes_what_came_with_its_pages() {
    let (world, asked, taken) = (World::new(), RefCell::new(Vec::new()), RefCell::new(Vec::new()));
    assert!(world.budget.try_reserve(UNIT * PAGE_BYTES));
    let never = |bytes| asked.borrow_mut().push(bytes);
    let evicted = |bytes| {
        asked.borrow_mut().push(bytes);
        world.budget.release(UNIT * PAGE_BYTES);
    };
    let take_pages = |range| taken.borrow_mut().push(range);
    let ground = Ground { take_pages: &take_pages, await_room: &never, ..world.ground() };
    let bear = |ground| world.arena.take(0, POOLED * PAGE_BYTES, 1, ground, &mut |_, _| {});
    assert_eq!(bear(ground), Taken::PoolShort);
    assert_eq!((asked.borrow().as_slice(), taken.borrow().len()), (&[POOLED * PAGE_BYTES][..], 0));
    assert_eq!(bear(Ground { await_room: &evicted, ..ground }), Taken::Pool { addr: BASE });
    assert_eq!(asked.borrow().len(), 2);
    let whole = BASE..BASE + usize::try_from(POOLED * PAGE_BYTES).unwrap();
    assert_eq!(*taken.borrow(), [whole]);
}

#[test]
fn a_promotion_leaves_births_that_wait_their_room() {
    let world = World::new();
    let unit = &world.arena.units()[0];
    unit.desire(Tier::FAST);
    let begin = |births: u64| world.arena.begin_move(unit, Tier::FAST, births * PAGE_BYTES, world.ground());
    assert_eq!(begin(BUDGET - UNIT + 1), MoveStart::NoRoom);
    assert!(matches!(begin(BUDGET - UNIT), MoveStart::Go(_)));
}
