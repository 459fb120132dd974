//! The plan: plain data that `place` carries out and that the simulator can carry out as well.

use profile::SlotKey;
use trace::Tier;

/// Where every recurring buffer of a step lives and what moves when.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Fast bytes the plan was made for.
    pub fast_budget_bytes: u64,
    /// Least fast bytes with which the policy can keep its promises. Of `hpca21`: the short-lived peak plus the largest
    /// long-lived unit, plus what is left to the small heap. Of `gap`, which places everything else as the budget allows:
    /// the smallest buffers, plus what is left to the small heap. With less, some of it lives in slow memory.
    pub fast_needed_bytes: u64,
    /// Part of the budget left to what has no planned address: allocations without a slot, those that outlive the step,
    /// and persistent buffers below a page. At most a quarter of the budget.
    pub unplanned_bytes: u64,
    /// Address space of the plan: the short-lived pool at offset 0, then the units.
    pub arena_bytes: u64,
    /// Largest extent of the pool over all intervals.
    pub pool_bytes: u64,
    /// When the pool holds fast memory.
    pub pool_rule: PoolRule,
    /// Recurring allocations, sorted by key.
    pub slots: Vec<Slot>,
    /// What moves as one.
    pub units: Vec<Unit>,
    /// First op index of each layer, and so the layer of each op.
    pub layer_first_op: Vec<u32>,
    /// Migration intervals in order; they cover all layers.
    pub intervals: Vec<Interval>,
    /// True when some interval's promotions cannot be done in the time of the interval before it, so that the runtime
    /// has a choice to try: wait for them, or leave the rest in slow memory.
    pub may_be_late: bool,
}

impl Plan {
    /// The interval that the layer is in; `None` for a layer that the plan does not have.
    #[must_use]
    pub fn interval_of(&self, layer: u32) -> Option<&Interval> {
        self.intervals.iter().find(|interval| (interval.first_layer..=interval.last_layer).contains(&layer))
    }
}

/// When the pool holds fast memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolRule {
    /// What an interval says, from the interval's begin to its end.
    Reserved,
    /// What its tensors need, and what they leave behind until somebody else needs it.
    OnDemand,
}

/// One recurring allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Kernel and ordinal.
    pub key: SlotKey,
    /// Exact size of the request that this slot serves.
    pub size_bytes: u64,
    /// Where it goes.
    pub place: Place,
    /// Layer of its birth.
    pub birth_layer: u32,
}

/// Where a slot goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// At this offset of the short-lived pool.
    Pool {
        /// From the arena's begin, aligned to `PACK_ALIGN_BYTES`.
        offset_bytes: u64,
    },
    /// In units: in one, together with others, or in several that lie one after the other, alone.
    Units {
        /// Index into `Plan::units` of the first.
        first: u32,
        /// How many.
        count: u32,
        /// From the arena's begin, aligned to `PACK_ALIGN_BYTES`.
        offset_bytes: u64,
    },
    /// On the heap, in this tier when it has room: it outlives the step, or the pool has no room for it.
    Heap {
        /// Wanted tier.
        tier: Tier,
    },
}

/// A run of whole pages that moves as one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// Where its pages are.
    pub home: UnitHome,
    /// Length in whole pages.
    pub len_bytes: u64,
    /// Tier in which it begins: at its first birth in the step, or for a persistent one at the step's begin.
    pub birth_tier: Tier,
    /// Ascending layers in which it is used.
    pub layers: Vec<u32>,
    /// Accesses per step, reads and writes.
    pub accesses: u64,
}

/// Where a unit's pages are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnitHome {
    /// In the plan's arena.
    Arena {
        /// Page-aligned offset.
        offset_bytes: u64,
    },
    /// Whole pages of a persistent buffer that existed before the plan.
    Persistent {
        /// Buffer index of the trace.
        buffer: u32,
        /// Of the unit's begin, from the buffer's begin.
        offset_bytes: u64,
    },
}

/// A migration interval: `MIL` layers whose moves are issued together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interval {
    /// First layer.
    pub first_layer: u32,
    /// Last layer.
    pub last_layer: u32,
    /// Bytes from the arena's begin that the short-lived pool may hold in fast memory during this interval.
    pub pool_bytes: u64,
    /// Moves, each issued when its layer begins, in order of urgency within a layer.
    pub moves: Vec<Move>,
}

/// One unit to one tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// Layer at whose begin it is issued.
    pub issue_layer: u32,
    /// Layer at whose begin it should be done: the unit's next use for a promotion, and for an eviction the layer from
    /// which its space is counted on. Not above `issue_layer`: that layer of the next step.
    pub due_layer: u32,
    /// Index into `Plan::units`.
    pub unit: u32,
    /// Destination.
    pub to: Tier,
}

/// What occupies a part of the arena over a stretch of time; used to check that nothing live overlaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArenaUse {
    /// From the arena's begin.
    pub offset_bytes: u64,
    /// Length.
    pub len_bytes: u64,
    /// First op index.
    pub first_op: u32,
    /// Last op index.
    pub last_op: u32,
}

/// Why no plan could be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The profile has no op.
    #[error("the profiled step has no operation")]
    Empty,
    /// The budget is zero.
    #[error("fast_bytes = 0: a plan needs a budget above 0")]
    NoBudget,
}
