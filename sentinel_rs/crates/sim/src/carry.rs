//! A [`plan::Plan`] carried out by the code of `place` in virtual time, layer by layer, as the live runtime does it.
//!
//! What the runtime's threads do is here a queue per direction; births, deaths, moves, the pool and the budget are
//! `place::Arena`, `place::UnitState` and `place::Budget` themselves.

use crate::engine::{Policy, Ready};
use crate::tiers::VirtualTiers;
use crate::workload::{to_f64, Workload};
use crate::world::{Job, SimError, Start, World};
use place::{Arena, Budget, Entered, Ground, MoveStart, MoveTicket, PageTiers, Taken, Tiers, UnitState};
use plan::Demand;
use plan::{Plan, UnitHome};
use profile::{Class, Profile};
use std::sync::Arc;
use trace::{page_ceil, Tier, SLOT_MIN_BYTES};

/// Blocks of the heap are multiples of this.
const SMALL_BYTES: u64 = 64;

/// The due layer of a move that is never too late.
const NO_DEADLINE: u64 = u64::MAX;

/// Where a buffer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Home {
    Nowhere,
    Pool { addr: usize },
    Units { first: u32, count: u32, addr: usize },
    Heap { tier: Tier, reserved_bytes: u64 },
}

/// A policy that carries out a plan.
#[derive(Debug)]
pub struct Carrier {
    tiers: VirtualTiers,
    budget: Budget,
    pages: PageTiers,
    arena: Arena,
    homes: Vec<Home>,
    /// Of the move under way in each direction, promotions first.
    tickets: [Option<MoveTicket>; 2],
    moves: Vec<plan::Move>,
    waits: bool,
    /// Absolute layer that was entered last, plus one.
    entered: u64,
    /// Absolute op whose births are done, plus one.
    born: u64,
}

impl Carrier {
    /// Makes ready to carry out `plan`. With `waits`, an interval waits for its promotions; otherwise those that have not
    /// begun are dropped.
    ///
    /// # Errors
    /// When address space is lacking.
    pub fn new(workload: &Workload, plan: Plan, waits: bool) -> Result<Carrier, SimError> {
        let profile = &workload.profile;
        let persistent: u64 = plan.units.iter().filter(|u| is_persistent(&u.home)).map(|unit| unit.len_bytes).sum();
        let len = usize_of(plan.arena_bytes + persistent);
        let tiers = VirtualTiers::new(len);
        let range = tiers.reserve(len, Tier::SLOW).map_err(|e| SimError::Malformed(e.to_string()))?;
        let budget = Budget::new(plan.fast_budget_bytes);
        let pages = PageTiers::new(range.start, len);
        let mut next = range.start + usize_of(plan.arena_bytes);
        let mut moves: Vec<plan::Move> = plan.intervals.iter().flat_map(|i| i.moves.clone()).collect();
        moves.sort_by_key(|step| step.issue_layer);
        let arena = Arena::bind(plan, range.start, &plan::kernel_roles(profile), |unit| {
            let begin = next;
            next += usize_of(unit.len_bytes);
            pages.set(begin..next, Tier::SLOW);
            Arc::new(UnitState::occupied(begin..next, Tier::SLOW))
        });
        let mut carrier = Carrier {
            homes: vec![Home::Nowhere; profile.buffers.len()],
            tiers,
            budget,
            pages,
            arena,
            tickets: [None; 2],
            moves,
            waits,
            entered: 0,
            born: 0,
        };
        carrier.settle_persistent(profile);
        Ok(carrier)
    }

    /// Persistent buffers of a page and more are units; smaller ones are on the heap.
    fn settle_persistent(&mut self, profile: &Profile) {
        for (index, unit) in self.arena.plan().units.iter().enumerate() {
            if let UnitHome::Persistent { buffer, .. } = unit.home {
                let addr = self.arena.units()[index].range().start;
                match &mut self.homes[buffer as usize] {
                    // The units of a buffer are neighbours.
                    Home::Units { count, .. } => *count += 1,
                    home => {
                        let first = u32::try_from(index).unwrap_or(u32::MAX);
                        *home = Home::Units { first, count: 1, addr };
                    }
                }
            }
        }
        for (index, facts) in profile.buffers.iter().enumerate() {
            if facts.class == Class::Persistent && self.homes[index] == Home::Nowhere {
                self.homes[index] = self.heap(facts.size_bytes, Tier::FAST);
            }
        }
    }

    fn heap(&self, size_bytes: u64, wanted: Tier) -> Home {
        let reserved_bytes = if size_bytes >= SLOT_MIN_BYTES {
            page_ceil(size_bytes)
        } else {
            size_bytes.max(1).next_multiple_of(SMALL_BYTES)
        };
        if wanted == Tier::FAST {
            self.arena.make_room(reserved_bytes, self.ground());
        }
        if wanted == Tier::FAST && self.budget.try_reserve(reserved_bytes) {
            Home::Heap { tier: Tier::FAST, reserved_bytes }
        } else {
            Home::Heap { tier: wanted.max(Tier::SLOW), reserved_bytes }
        }
    }

    fn bear(&mut self, world: &mut World) -> Result<(), SimError> {
        let op = world.op as usize;
        let kernel = world.workload.profile.ops[op].kernel;
        let tag = u32::try_from(world.step + 1).unwrap_or(u32::MAX);
        for &buffer in &world.workload.ops[op].births {
            let facts = &world.workload.profile.buffers[buffer as usize];
            let mut overflow_bytes = 0;
            let mut refused = None;
            let taken = if facts.size_bytes < SLOT_MIN_BYTES {
                Taken::Scratch
            } else {
                let tiers = &self.tiers;
                let mut begun = |unit: &UnitState, entered: Entered| {
                    if let Entered::First { tier, overflowed } = entered {
                        overflow_bytes += if overflowed { unit.len_bytes() } else { 0 };
                        refused = refused.take().or(tiers.place(unit.range(), tier).err());
                    }
                };
                self.arena.take(kernel, facts.size_bytes, tag, self.ground(), &mut begun)
            };
            if let Some(error) = refused {
                return Err(SimError::Malformed(error.to_string()));
            }
            world.sums.overflow_bytes += overflow_bytes;
            let home = match taken {
                Taken::Pool { addr } => Home::Pool { addr },
                Taken::Units { addr, first, count } => Home::Units { first, count, addr },
                Taken::Heap(tier) => self.heap(facts.size_bytes, tier),
                Taken::PoolShort => {
                    world.sums.overflow_bytes += facts.size_bytes;
                    self.heap(facts.size_bytes, Tier::SLOW)
                }
                Taken::Scratch | Taken::Busy | Taken::Size | Taken::Unknown => self.heap(facts.size_bytes, Tier::FAST),
            };
            self.homes[buffer as usize] = home;
        }
        self.account(world)
    }

    /// Tells the engine's own account what `place::Budget` says.
    fn account(&self, world: &mut World) -> Result<(), SimError> {
        let (used, known) = (self.budget.used(), world.used(Tier::FAST));
        if used >= known {
            world.fill(Tier::FAST, used - known)
        } else {
            world.drain(Tier::FAST, known - used)
        }
    }

    fn layers(&self) -> u64 {
        self.arena.plan().layer_first_op.len() as u64
    }

    /// The last tensor of a unit that travels dies: the live runtime's mover gives up after the piece under way.
    fn stop_moves_of_the_dying(&mut self, world: &mut World, own: std::ops::Range<u32>) {
        let units = self.arena.units();
        let dying = |job: &Job| own.contains(&job.thing) && units[job.thing as usize].live() == 1;
        while let Some(job) = world.cancel(dying) {
            if let Some(ticket) = self.tickets[usize::from(job.to != Tier::FAST)].take() {
                let unit = &self.arena.units()[job.thing as usize];
                unit.end_move(ticket, job.to, false, &self.budget, &self.pages);
            }
        }
    }

    /// Absolute layer of now.
    fn layer(&self, world: &World) -> u64 {
        world.step * self.layers() + u64::from(world.workload.profile.ops[world.op as usize].layer)
    }

    /// Hands a move to the movers; what was wanted of the unit before is void, as in the live runtime.
    fn issue(&self, world: &mut World, job: Job) {
        self.arena.units()[job.thing as usize].desire(job.to);
        world.issue(job);
    }

    /// Issues the layer's moves.
    fn enter_layer(&mut self, world: &mut World, absolute: u64) {
        let layers = self.layers();
        let layer = u32::try_from(absolute % layers).unwrap_or(u32::MAX);
        if let Some(interval) = self.arena.plan().interval_of(layer) {
            self.arena.expect_pool(interval.pool_bytes);
        }
        let job = |unit: u32, to: Tier, due: u64, len_bytes: u64| {
            let from = if to == Tier::FAST { Tier::SLOW } else { Tier::FAST };
            Job { thing: unit, life: 0, len_bytes, from, to, due }
        };
        if absolute == 0 {
            // Persistent units are sent to where the plan begins.
            for (index, unit) in self.arena.plan().units.iter().enumerate() {
                if is_persistent(&unit.home) && unit.birth_tier == Tier::FAST {
                    // They come when there is time, and are never too late.
                    let index = u32::try_from(index).unwrap_or(u32::MAX);
                    self.issue(world, job(index, Tier::FAST, NO_DEADLINE, unit.len_bytes));
                }
            }
        }
        let first = self.moves.partition_point(|m| m.issue_layer < layer);
        for step in self.moves[first..].iter().take_while(|m| m.issue_layer == layer) {
            let next_step = step.due_layer < layer || step.due_layer == layer && step.to == Tier::FAST;
            let due = absolute - u64::from(layer) + u64::from(step.due_layer) + if next_step { layers } else { 0 };
            self.issue(world, job(step.unit, step.to, due, self.arena.plan().units[step.unit as usize].len_bytes));
        }
    }

    /// Whether the interval that begins here still waits for promotions.
    fn is_late(&self, world: &mut World, absolute: u64) -> bool {
        let layer = u32::try_from(absolute % self.layers()).unwrap_or(u32::MAX);
        if !self.arena.plan().intervals.iter().any(|interval| interval.first_layer == layer) {
            return false;
        }
        if self.waits {
            return world.pending(true).any(|job| job.due <= absolute);
        }
        world.sums.late_promotions += world.retain(true, |job| job.due > absolute);
        false
    }

    fn size_pool(&self, layer: u32) {
        if let Some(interval) = self.arena.plan().interval_of(layer) {
            self.arena.size_pool(interval.pool_bytes, self.ground());
        }
    }

    fn ground(&self) -> Ground<'_> {
        Ground::new(&self.budget, &self.pages)
    }
}

impl Policy for Carrier {
    fn before_op(&mut self, world: &mut World, last_call: bool) -> Result<Ready, SimError> {
        let layer = self.layer(world);
        if self.entered <= layer {
            self.enter_layer(world, layer);
            self.entered = layer + 1;
        }
        let first_of_layer =
            world.op == self.arena.plan().layer_first_op[usize_of(layer % self.layers())] && self.born <= world.now();
        if first_of_layer && self.is_late(world, layer) && !last_call {
            return Ok(Ready::Wait);
        }
        if first_of_layer {
            self.size_pool(u32::try_from(layer % self.layers()).unwrap_or(u32::MAX));
        }
        self.born = world.now() + 1;
        self.bear(world)?;
        Ok(Ready::Yes)
    }

    fn demand(&mut self, world: &World) -> Result<Demand, SimError> {
        let op = world.op as usize;
        let mut demand = world.costs.no_demand();
        for used in &world.workload.ops[op].uses {
            let (read, written) = (to_f64(used.read_bytes), to_f64(used.written_bytes));
            let tier = match self.homes[used.buffer as usize] {
                Home::Pool { .. } => Tier::FAST,
                Home::Heap { tier, .. } => tier,
                Home::Units { first, count, .. } => {
                    let units = &self.arena.units()[first as usize..(first + count) as usize];
                    let whole = to_f64(units.iter().map(|unit| unit.len_bytes()).sum());
                    for unit in units {
                        let share = to_f64(unit.len_bytes()) / whole;
                        let tier = unit.tier().unwrap_or(Tier::SLOW);
                        world.costs.add(&mut demand, op, tier, read * share, written * share);
                    }
                    continue;
                }
                Home::Nowhere => {
                    return Err(SimError::Malformed(format!("op {op} uses buffer {}, which is nowhere", used.buffer)))
                }
            };
            world.costs.add(&mut demand, op, tier, read, written);
        }
        Ok(demand)
    }

    fn after_op(&mut self, world: &mut World) -> Result<(), SimError> {
        for &buffer in &world.workload.ops[world.op as usize].deaths {
            match std::mem::replace(&mut self.homes[buffer as usize], Home::Nowhere) {
                home @ (Home::Pool { addr } | Home::Units { addr, .. }) => {
                    if let Home::Units { first, count, .. } = home {
                        self.stop_moves_of_the_dying(world, first..first + count);
                    }
                    self.arena
                        .give_back(addr, self.ground())
                        .ok_or_else(|| SimError::Malformed(format!("buffer {buffer} is not where it was born")))?;
                }
                Home::Heap { tier: Tier::FAST, reserved_bytes } => self.budget.release(reserved_bytes),
                Home::Heap { .. } | Home::Nowhere => {}
            }
        }
        self.account(world)
    }

    fn start(&mut self, world: &mut World, job: &Job) -> Result<Start, SimError> {
        let unit = &self.arena.units()[job.thing as usize];
        let start = match self.arena.begin_move(unit, job.to, 0, self.ground()) {
            MoveStart::Needless => Start::Drop,
            // What has no deadline lets others pass.
            MoveStart::NoRoom if job.due == NO_DEADLINE && world.pending(true).any(|j| j.due != NO_DEADLINE) => {
                world.issue(*job);
                Start::Drop
            }
            MoveStart::NoRoom if job.due >= self.layer(world) => Start::Wait,
            MoveStart::NoRoom => {
                world.sums.late_promotions += 1;
                Start::Drop
            }
            MoveStart::Go(ticket) => {
                self.tickets[usize::from(job.to != Tier::FAST)] = Some(ticket);
                Start::Go(job.from)
            }
        };
        self.account(world)?;
        Ok(start)
    }

    fn arrived(&mut self, world: &mut World, job: &Job) -> Result<bool, SimError> {
        let unit = &self.arena.units()[job.thing as usize];
        let Some(ticket) = self.tickets[usize::from(job.to != Tier::FAST)].take() else {
            return Err(SimError::Malformed(format!("unit {} arrived without a ticket", job.thing)));
        };
        let here = unit.end_move(ticket, job.to, true, &self.budget, &self.pages);
        if here {
            self.tiers.migrate(unit.range(), job.to).map_err(|e| SimError::Malformed(e.to_string()))?;
        }
        self.account(world)?;
        Ok(here)
    }
}

fn is_persistent(home: &UnitHome) -> bool {
    matches!(home, UnitHome::Persistent { .. })
}

/// Virtual addresses are 64 bits wide on every machine that runs this.
fn usize_of(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
