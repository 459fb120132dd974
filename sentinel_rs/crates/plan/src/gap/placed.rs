//! The policy as a [`Plan`]: what the search decides about each buffer, given addresses.
//!
//! Buffers that stay fast all their life share the pool, those that stay slow share one region that never moves, and
//! what moves has pages of its own, in units small enough that a transfer blocks neither its server nor its room for long.

use super::{gap_choice, GapChoice, GapEffort, GapProblem, GapTensor, GapUse, Migration, Way};
use crate::hpca21::pool::Pool;
use crate::layout::{large_scratch, slots, unplanned_by_layer, Scratch, Space};
use crate::machine::bytes_f64;
use crate::{Costs, Interval, Move, Place, Plan, PlanError, PoolRule, Unit, UnitHome};
use profile::{peak_bytes, BufferFacts, Class, Profile};
use trace::{page_ceil, Tier, PAGE_BYTES};

/// A unit is at most the planned fast bytes divided by this.
const GRAINS: u64 = 64;
/// And by this where that makes no more than so many units.
const FINE_GRAINS: u64 = 128;
const FINE_UNITS_MAX: u64 = 12_000;
/// Units are no shorter than this: records of which page is where look at every 32nd page of a long range.
const GRAIN_MIN_BYTES: u64 = 32 * PAGE_BYTES;
/// They are exact in a buffer up to this size, whose units are no shorter than that.
const EXACT_BYTES: u64 = 1 << 20;
const EXACT_GRAIN_BYTES: u64 = 16 * PAGE_BYTES;
/// Persistent buffers have units of this size in every plan, because a plan finds them where another one left them.
const PERSISTENT_GRAIN_BYTES: u64 = 2 << 20;
/// The pool of buffers that are not decided about is at most the planned fast bytes divided by this.
const SMALL_POOL_SHARE: u64 = 4;
/// Step buffers about which the search decides, at most.
const DECIDED_MAX: usize = 2000;
/// A pool with which the step takes longer than this times the best before improvement is not improved.
const HOPELESS: f64 = 1.05;
/// Scratch of an op is decided about when it takes more than the budget divided by this.
const SCRATCH_GRAINS: u64 = 256;
/// Parts of an op's scratch, at most.
const SCRATCH_PARTS_MAX: u64 = 16;
/// Of the tiers below the fastest, the one in which plans put things, however many there are.
const SLOW: usize = Tier::SLOW.0 as usize;
/// Units of one buffer, at most.
const PARTS_MAX: u64 = 4096;
/// Where slow memory is reached by page faults, a buffer with pages of its own gets fresh ones at each birth: what the kernel
/// takes for one, and for taking it back.
const FRESH_PAGE_NS: f64 = 500.0;
/// The smallest buffers are fast without being asked, as long as they take at most this part of the planned fast bytes.
const SMALL_SHARE: u64 = 50;

/// Plans a step for `fast_budget_bytes` of fast memory.
///
/// # Errors
/// When the profile has no op or the budget is zero.
pub fn gap(profile: &Profile, fast_budget_bytes: u64, costs: &Costs, migration: Migration) -> Result<Plan, PlanError> {
    let space = Space::new(profile, fast_budget_bytes)?;
    let scratch = large_scratch(profile, fast_budget_bytes / SCRATCH_GRAINS);
    let unplanned = unplanned_by_layer(profile, fast_budget_bytes, &scratch);
    let most_bytes = fast_budget_bytes - unplanned.iter().copied().min().unwrap_or(0);
    let planned_bytes = most_bytes / PAGE_BYTES * PAGE_BYTES;
    let rooms: Vec<i64> = unplanned.into_iter().map(|bytes| signed(fast_budget_bytes - bytes)).collect();
    let (small_pool, small, left) = small_buffers(profile, planned_bytes);
    let small_bytes = small_pool.extent_by_layer.iter().copied().max().unwrap_or(0);
    let grain_bytes = grain_bytes(profile, planned_bytes);
    let planner = Planner { profile, costs, migration, rooms, grain_bytes, left: &left, scratch: &scratch };
    // Who stays fast for life is known only after a first search. Sharing addresses saves address space and costs the room that a
    // packing wastes; whether that pays is known only when all is decided anew.
    let first = planner.decide(&small_pool, f64::INFINITY);
    let large = first.problem.is_large();
    let time_ns = |decided: &Decided| {
        let births_ns = if costs.page_faults { decided.fresh_pages() * FRESH_PAGE_NS } else { 0.0 };
        decided.choice.step_ns + births_ns
    };
    let always_fast: Vec<usize> = first.always(true).collect();
    let mut best = (small_pool, first);
    for largest in [u64::MAX, 4 * grain_bytes].into_iter().take(if large { 1 } else { 2 }) {
        let fits = |&index: &usize| profile.buffers[index].size_bytes <= largest;
        let mut pooled = small.clone();
        pooled.extend(always_fast.iter().copied().filter(fits));
        pooled.sort_unstable();
        let pool = Pool::pack(profile, &pooled, planned_bytes);
        let decided = planner.decide(&pool, time_ns(&best.1) * HOPELESS);
        if time_ns(&decided) < time_ns(&best.1) {
            best = (pool, decided);
        }
    }
    let (pool, decided) = best;
    Ok(Builder::new(profile, &pool, small_bytes).plan(&decided, &left, space, costs.page_faults))
}

/// Step buffers that are not worth a decision: up to the largest size at which all of them together stay below their share,
/// and in a step of very many buffers all but the largest. Their pool of at most a quarter of the room, who is in it, and by
/// buffer index whether it found no room there and is slow for that.
fn small_buffers(profile: &Profile, planned_bytes: u64) -> (Pool, Vec<usize>, Vec<bool>) {
    let in_step = |facts: &BufferFacts| matches!(facts.class, Class::ShortLived | Class::LongLived);
    let is_small = |facts: &BufferFacts, limit: u64| in_step(facts) && facts.size_bytes <= limit;
    let mut limit = planned_bytes / SMALL_SHARE;
    let peak = |limit| peak_bytes(profile.ops.len(), &profile.buffers, |facts| is_small(facts, limit));
    while peak(limit) > planned_bytes / SMALL_SHARE {
        limit /= 2;
    }
    let mut sizes: Vec<u64> = profile.buffers.iter().filter(|b| in_step(b)).map(|b| b.size_bytes).collect();
    if sizes.iter().filter(|&&size| size > limit).count() > DECIDED_MAX {
        sizes.sort_unstable_by(|a, b| b.cmp(a));
        limit = sizes[DECIDED_MAX];
    }
    let mut chosen: Vec<usize> =
        (0..profile.buffers.len()).filter(|&index| is_small(&profile.buffers[index], limit)).collect();
    let pool = Pool::pack(profile, &chosen, planned_bytes / SMALL_POOL_SHARE / PAGE_BYTES * PAGE_BYTES);
    let mut left = vec![false; profile.buffers.len()];
    for &index in &chosen {
        left[index] = pool.offsets[index].is_none();
    }
    chosen.retain(|&index| !left[index]);
    (pool, chosen, left)
}

/// Units of a step buffer.
fn parts(size_bytes: u64, grain_bytes: u64) -> u64 {
    let least_bytes = if size_bytes <= EXACT_BYTES { EXACT_GRAIN_BYTES } else { GRAIN_MIN_BYTES };
    (size_bytes / grain_bytes.max(least_bytes)).clamp(1, PARTS_MAX)
}

/// Length of units: as short as pays, as long as there are not too many of them.
fn grain_bytes(profile: &Profile, planned_bytes: u64) -> u64 {
    let fine_bytes = (planned_bytes / FINE_GRAINS).max(EXACT_GRAIN_BYTES);
    let in_step = profile.buffers.iter().filter(|b| matches!(b.class, Class::ShortLived | Class::LongLived));
    let units: u64 = in_step.map(|facts| parts(facts.size_bytes, fine_bytes)).sum();
    if units <= FINE_UNITS_MAX {
        fine_bytes
    } else {
        (planned_bytes / GRAINS).max(EXACT_GRAIN_BYTES)
    }
}

/// Length of the units of a persistent buffer: a function of its size alone.
fn persistent_grain_bytes(size_bytes: u64) -> u64 {
    page_ceil(size_bytes.div_ceil(PARTS_MAX)).max(PERSISTENT_GRAIN_BYTES)
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

fn tier(fast: bool) -> Tier {
    if fast {
        Tier::FAST
    } else {
        Tier::SLOW
    }
}

/// What a search works from.
struct Planner<'a> {
    profile: &'a Profile,
    costs: &'a Costs,
    migration: Migration,
    /// By layer, what of the budget is planned.
    rooms: Vec<i64>,
    grain_bytes: u64,
    /// By buffer index: slow without a decision.
    left: &'a [bool],
    /// What has no address, but may take so much that it has to be decided about.
    scratch: &'a [Scratch],
}

/// What a search decided about the buffers that are not in the pool.
struct Decided {
    /// Buffer index, and its tensors in the problem.
    buffers: Vec<(usize, std::ops::Range<usize>)>,
    problem: GapProblem,
    choice: GapChoice,
    /// By tensor: whether it moves.
    moves: Vec<bool>,
}

impl Planner<'_> {
    /// Decides about everything that is not in the pool; thoroughly, if the step takes at most `worth_ns` before that.
    fn decide(&self, pool: &Pool, worth_ns: f64) -> Decided {
        // A pool grows when something is born above its end. Promotions know the layer they are in, not the op, and so all of the
        // layer's extent is set apart from its begin, which they respect.
        let extent = |layer: u32| signed(pool.extent_by_layer[layer as usize]);
        let rooms = self.profile.ops.iter().map(|op| self.rooms[op.layer as usize] - extent(op.layer)).collect();
        let mut problem = GapProblem::of_ops(self.profile, self.costs, self.migration, rooms);
        let mut buffers = Vec::new();
        for (index, facts) in self.profile.buffers.iter().enumerate() {
            let takes_part = match facts.class {
                Class::ShortLived | Class::LongLived => pool.offsets[index].is_none() && !self.left[index],
                Class::Persistent => facts.size_bytes >= PAGE_BYTES,
                Class::Escaping | Class::Scratch | Class::External => false,
            };
            if !takes_part {
                continue;
            }
            let pages = page_ceil(facts.size_bytes) / PAGE_BYTES;
            let parts = match facts.class {
                Class::Persistent => page_ceil(facts.size_bytes).div_ceil(persistent_grain_bytes(facts.size_bytes)),
                _ => parts(facts.size_bytes, self.grain_bytes),
            };
            let begin = problem.tensors.len();
            let mut rest = pages;
            for part in 0..parts {
                let own = match facts.class {
                    Class::Persistent => rest.min(persistent_grain_bytes(facts.size_bytes) / PAGE_BYTES),
                    _ => rest / (parts - part),
                };
                rest -= own;
                let share = bytes_f64(own) / bytes_f64(pages.max(1));
                problem.tensors.push(GapTensor::part(facts, self.costs, SLOW..=SLOW, own * PAGE_BYTES, share));
            }
            buffers.push((index, begin..problem.tensors.len()));
        }
        for scratch in self.scratch {
            let parts = (scratch.bytes / self.grain_bytes).clamp(1, SCRATCH_PARTS_MAX);
            for _ in 0..parts {
                problem.tensors.push(self.scratch_part(scratch, parts));
            }
        }
        let choice = gap_choice(&problem, GapEffort::Good { worth_ns });
        let mut moves = vec![false; problem.tensors.len()];
        for step in &choice.moves {
            moves[step.tensor as usize] = true;
        }
        Decided { buffers, problem, choice, moves }
    }

    /// One of so many equal parts of an op's scratch.
    fn scratch_part(&self, scratch: &Scratch, parts: u64) -> GapTensor {
        GapTensor {
            size_bytes: signed(scratch.bytes / parts),
            birth_op: scratch.op,
            death_op: scratch.op,
            persistent: false,
            takes_what_is_free: true,
            uses: vec![GapUse::of(&scratch.used, self.costs, SLOW..=SLOW, 1.0 / bytes_f64(parts))],
        }
    }
}

impl Decided {
    /// Pages of step buffers that have pages of their own.
    fn fresh_pages(&self) -> f64 {
        let sizes = self.problem.tensors.iter().filter(|tensor| !tensor.persistent && !tensor.takes_what_is_free);
        sizes.map(|tensor| bytes_f64(tensor.size_bytes.unsigned_abs() / PAGE_BYTES)).sum()
    }

    /// Step buffers that are in one tier, the fast or the slow one, from birth to death.
    fn always(&self, fast: bool) -> impl Iterator<Item = usize> + '_ {
        let stays = move |tensor: usize| self.choice.born_fast[tensor] == fast && !self.moves[tensor];
        let own = self.buffers.iter().filter(|(_, tensors)| !self.problem.tensors[tensors.start].persistent);
        own.filter(move |(_, tensors)| tensors.clone().all(stays)).map(|&(buffer, _)| buffer)
    }
}

/// Gives addresses.
struct Builder<'a> {
    profile: &'a Profile,
    /// What the smallest buffers take, which are fast without being asked.
    small_bytes: u64,
    pool_bytes: u64,
    extent_by_layer: &'a [u64],
    places: Vec<Option<Place>>,
    units: Vec<Unit>,
    end_bytes: u64,
}

impl<'a> Builder<'a> {
    fn new(profile: &'a Profile, pool: &'a Pool, small_bytes: u64) -> Builder<'a> {
        let pool_bytes = pool.extent_by_layer.iter().copied().max().unwrap_or(0);
        let in_pool = |offset: &Option<u64>| offset.map(|offset_bytes| Place::Pool { offset_bytes });
        Builder {
            profile,
            small_bytes,
            pool_bytes,
            extent_by_layer: &pool.extent_by_layer,
            places: pool.offsets.iter().map(in_pool).collect(),
            units: Vec::new(),
            end_bytes: pool_bytes,
        }
    }

    fn plan(mut self, decided: &Decided, left: &[bool], space: Space, page_faults: bool) -> Plan {
        let undecided = left.iter().enumerate().filter(|(_, left)| **left).map(|(index, _)| index);
        let slow: Vec<usize> = decided.always(false).chain(undecided).collect();
        if page_faults {
            self.put_apart(&slow);
        } else {
            self.put_slow(&slow);
        }
        let mut unit_of = vec![u32::MAX; decided.problem.tensors.len()];
        for (buffer, tensors) in &decided.buffers {
            if self.places[*buffer].is_none() {
                self.put(*buffer, tensors.clone(), decided, &mut unit_of);
            }
        }
        let moves = self.moves(&decided.choice, &unit_of);
        // What its last move leaves a persistent unit in is what the next step finds.
        for step in &moves {
            let unit = &mut self.units[step.unit as usize];
            if matches!(unit.home, UnitHome::Persistent { .. }) {
                unit.birth_tier = step.to;
            }
        }
        Plan {
            fast_budget_bytes: space.budget_bytes,
            fast_needed_bytes: self.small_bytes + space.unplanned_want,
            unplanned_bytes: space.unplanned_bytes,
            arena_bytes: self.end_bytes,
            pool_bytes: self.pool_bytes,
            pool_rule: PoolRule::OnDemand,
            slots: slots(self.profile, &self.places),
            layer_first_op: self.profile.layers.iter().map(|layer| layer.first_op).collect(),
            may_be_late: false,
            units: self.units,
            intervals: intervals(moves, self.extent_by_layer),
        }
    }

    /// Slow for life and reached by page faults: each buffer has pages of its own, which are dropped when it dies. In a shared
    /// region, the next one born there would have to read what the dead left in swap before it can write.
    fn put_apart(&mut self, members: &[usize]) {
        for &member in members {
            let facts = &self.profile.buffers[member];
            let (layers, accesses) = (facts.layers.clone(), facts.access_count());
            let (first, len_bytes) = (self.next_unit(), page_ceil(facts.size_bytes));
            self.places[member] = Some(Place::Units { first, count: 1, offset_bytes: self.end_bytes });
            let home = UnitHome::Arena { offset_bytes: self.end_bytes };
            self.units.push(Unit { home, len_bytes, birth_tier: Tier::SLOW, layers, accesses });
            self.end_bytes += len_bytes;
        }
    }

    /// One region for everything that is slow for life.
    fn put_slow(&mut self, members: &[usize]) {
        if members.is_empty() {
            return;
        }
        let region = Pool::pack(self.profile, members, u64::MAX);
        let first = self.next_unit();
        let mut accesses = 0;
        for &member in members {
            let Some(offset) = region.offsets[member] else { continue };
            let place = Place::Units { first, count: 1, offset_bytes: self.end_bytes + offset };
            self.places[member] = Some(place);
            accesses += self.profile.buffers[member].access_count();
        }
        let layers = (0..u32::try_from(self.profile.layers.len()).unwrap_or(u32::MAX)).collect();
        let len_bytes = page_ceil(region.extent_by_layer.iter().copied().max().unwrap_or(0));
        let home = UnitHome::Arena { offset_bytes: self.end_bytes };
        self.units.push(Unit { home, len_bytes, birth_tier: Tier::SLOW, layers, accesses });
        self.end_bytes += len_bytes;
    }

    fn next_unit(&self) -> u32 {
        u32::try_from(self.units.len()).unwrap_or(u32::MAX)
    }

    /// Units for the tensors of a buffer, one after the other.
    fn put(&mut self, buffer: usize, tensors: std::ops::Range<usize>, decided: &Decided, unit_of: &mut [u32]) {
        let facts = &self.profile.buffers[buffer];
        let persistent = facts.class == Class::Persistent;
        if !persistent {
            let count = u32::try_from(tensors.len()).unwrap_or(u32::MAX);
            self.places[buffer] = Some(Place::Units { first: self.next_unit(), count, offset_bytes: self.end_bytes });
        }
        let mut offset_bytes = 0;
        for tensor in tensors {
            unit_of[tensor] = self.next_unit();
            let len_bytes = decided.problem.tensors[tensor].size_bytes.unsigned_abs();
            let home = if persistent {
                UnitHome::Persistent { buffer: u32::try_from(buffer).unwrap_or(u32::MAX), offset_bytes }
            } else {
                UnitHome::Arena { offset_bytes: self.end_bytes }
            };
            let birth_tier = tier(decided.choice.born_fast[tensor]);
            let (layers, accesses) = (facts.layers.clone(), facts.access_count());
            self.units.push(Unit { home, len_bytes, birth_tier, layers, accesses });
            offset_bytes += len_bytes;
            self.end_bytes += if persistent { 0 } else { len_bytes };
        }
    }

    /// Moves by layer of issue, in the order of the search.
    fn moves(&self, choice: &GapChoice, unit_of: &[u32]) -> Vec<Move> {
        let layers = &self.profile.layers;
        let due_layer = |op: u32| {
            let first = layers.partition_point(|layer| layer.first_op < op);
            u32::try_from(first % layers.len()).unwrap_or(u32::MAX)
        };
        let planned = choice.moves.iter().map(|step| Move {
            issue_layer: self.profile.ops[step.first_op as usize].layer,
            due_layer: due_layer(step.due_op),
            unit: unit_of[step.tensor as usize],
            to: tier(step.way == Way::In),
        });
        let mut moves: Vec<Move> = planned.collect();
        moves.sort_by_key(|step| step.issue_layer);
        moves
    }
}

/// An interval begins wherever something moves or the pool changes.
fn intervals(moves: Vec<Move>, extent_by_layer: &[u64]) -> Vec<Interval> {
    let mut intervals: Vec<Interval> = Vec::new();
    let mut moves = moves.into_iter().peekable();
    for (layer, &pool_bytes) in (0_u32..).zip(extent_by_layer) {
        let mut issued = Vec::new();
        while let Some(step) = moves.next_if(|step| step.issue_layer == layer) {
            issued.push(step);
        }
        match intervals.last_mut().filter(|last| issued.is_empty() && last.pool_bytes == pool_bytes) {
            Some(last) => last.last_layer = layer,
            None => intervals.push(Interval { first_layer: layer, last_layer: layer, pool_bytes, moves: issued }),
        }
    }
    intervals
}
