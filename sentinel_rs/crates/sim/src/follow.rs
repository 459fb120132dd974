//! A [`Schedule`] carried out.

use crate::engine::{Policy, Ready};
use crate::schedule::{PieceMove, Schedule};
use crate::workload::to_f64;
use crate::world::{Job, SimError, Start, World};
use plan::Demand;
use profile::Class;
use trace::Tier;

/// One piece's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    tier: Option<Tier>,
    /// Which life this is.
    life: u64,
    /// Destination of the move under way.
    moving_to: Option<Tier>,
}

/// A policy that follows a schedule.
#[derive(Debug)]
pub struct Follower {
    schedule: Schedule,
    /// By buffer: its pieces.
    pieces: Vec<std::ops::Range<u32>>,
    states: Vec<State>,
    /// The op whose moves are issued already.
    issued: Option<u64>,
    /// Newborns of this op that wait for room.
    unborn: Vec<u32>,
}

impl Follower {
    /// Makes ready to follow `schedule`.
    ///
    /// # Errors
    /// When it does not belong to the workload: pieces that do not add up to their buffer, unknown indices, moves that
    /// are not sorted.
    pub fn new(workload: &crate::Workload, schedule: Schedule) -> Result<Follower, SimError> {
        let pieces = piece_ranges(workload, &schedule)?;
        check_moves(workload, &schedule)?;
        let states = vec![State { tier: None, life: 0, moving_to: None }; schedule.pieces.len()];
        Ok(Follower { schedule, pieces, states, issued: None, unborn: vec![] })
    }

    /// Notes what is born, persistent pieces at the very first op, and queues this op's moves.
    fn begin_op(&mut self, world: &mut World) {
        if self.issued == Some(world.now()) {
            return;
        }
        self.issued = Some(world.now());
        let newborn: Vec<u32> = if world.now() == 0 {
            world.workload.persistent().chain(world.workload.ops[0].births.iter().copied()).collect()
        } else {
            world.workload.ops[world.op as usize].births.clone()
        };
        self.unborn = newborn.iter().flat_map(|&buffer| self.pieces[buffer as usize].clone()).collect();
        let first = self.schedule.moves.partition_point(|m| m.issue_op < world.op);
        for index in first..self.schedule.moves.len() {
            let PieceMove { piece, to, issue_op, due_op } = self.schedule.moves[index];
            if issue_op != world.op {
                break;
            }
            let state = self.states[piece as usize];
            // A piece that is not born yet, or is there and not about to leave, has no move to make.
            let Some(from) = state.tier else { continue };
            let from = state.moving_to.unwrap_or(from);
            if from != to {
                let len_bytes = self.schedule.pieces[piece as usize].len_bytes;
                let due = world.next_time(due_op);
                world.issue(Job { thing: piece, life: state.life, len_bytes, from, to, due });
            }
        }
    }

    /// Places the newborn that have room; true when none is left.
    fn bear(&mut self, world: &mut World, last_call: bool) -> Result<bool, SimError> {
        let mut waiting = Vec::new();
        for piece in std::mem::take(&mut self.unborn) {
            let planned = self.schedule.pieces[piece as usize];
            let fits = planned.len_bytes <= world.room(planned.birth_tier);
            let may_wait = self.schedule.wait_for_room && !last_call && world.pending(false).next().is_some();
            if !fits && may_wait {
                waiting.push(piece);
                continue;
            }
            let tier = if fits { planned.birth_tier } else { world.slowest() };
            if !fits {
                world.sums.overflow_bytes += planned.len_bytes;
            }
            let state = &mut self.states[piece as usize];
            *state = State { tier: Some(tier), life: state.life + 1, moving_to: None };
            world.fill(tier, planned.len_bytes)?;
        }
        self.unborn = waiting;
        Ok(self.unborn.is_empty())
    }

    fn die(&mut self, world: &mut World, piece: u32) -> Result<(), SimError> {
        let len_bytes = self.schedule.pieces[piece as usize].len_bytes;
        let State { tier, life, moving_to } = self.states[piece as usize];
        let Some(tier) = tier else { return Ok(()) };
        world.drain(tier, len_bytes)?;
        if let Some(to) = moving_to {
            world.cancel(|job| job.thing == piece && job.life == life);
            world.drain(to, len_bytes)?;
        }
        self.states[piece as usize] = State { tier: None, life, moving_to: None };
        Ok(())
    }
}

impl Policy for Follower {
    fn before_op(&mut self, world: &mut World, last_call: bool) -> Result<Ready, SimError> {
        self.begin_op(world);
        let born = self.bear(world, last_call)?;
        let now = world.now();
        let late = self.schedule.wait_for_promotions && !last_call && world.pending(true).any(|job| job.due <= now);
        Ok(if born && !late { Ready::Yes } else { Ready::Wait })
    }

    fn demand(&mut self, world: &World) -> Result<Demand, SimError> {
        let op = world.op as usize;
        let mut demand = world.costs.no_demand();
        for used in &world.workload.ops[op].uses {
            let size = to_f64(world.workload.size_bytes(used.buffer)).max(1.0);
            for piece in self.pieces[used.buffer as usize].clone() {
                let tier = self.states[piece as usize].tier.ok_or_else(|| {
                    SimError::Malformed(format!("op {op} uses buffer {}, which is nowhere", used.buffer))
                })?;
                let share = to_f64(self.schedule.pieces[piece as usize].len_bytes) / size;
                let (read, written) = (to_f64(used.read_bytes) * share, to_f64(used.written_bytes) * share);
                world.costs.add(&mut demand, op, tier, read, written);
            }
        }
        Ok(demand)
    }

    fn after_op(&mut self, world: &mut World) -> Result<(), SimError> {
        for &buffer in &world.workload.ops[world.op as usize].deaths {
            for piece in self.pieces[buffer as usize].clone() {
                self.die(world, piece)?;
            }
        }
        Ok(())
    }

    fn start(&mut self, world: &mut World, job: &Job) -> Result<Start, SimError> {
        let state = self.states[job.thing as usize];
        let (Some(from), true) = (state.tier, state.life == job.life) else { return Ok(Start::Drop) };
        if from == job.to {
            return Ok(Start::Drop);
        }
        if state.moving_to.is_some() {
            // The other direction still carries it.
            return Ok(Start::Wait);
        }
        let late = job.to < from && job.due <= world.now() && !self.schedule.wait_for_promotions;
        if late {
            world.sums.late_promotions += 1;
            return Ok(Start::Drop);
        }
        if job.len_bytes > world.room(job.to) {
            return Ok(Start::Wait);
        }
        world.fill(job.to, job.len_bytes)?;
        self.states[job.thing as usize].moving_to = Some(job.to);
        Ok(Start::Go(from))
    }

    fn arrived(&mut self, world: &mut World, job: &Job) -> Result<bool, SimError> {
        world.drain(job.from, job.len_bytes)?;
        let state = &mut self.states[job.thing as usize];
        (state.tier, state.moving_to) = (Some(job.to), None);
        Ok(true)
    }
}

/// Which pieces each buffer has.
fn piece_ranges(workload: &crate::Workload, schedule: &Schedule) -> Result<Vec<std::ops::Range<u32>>, SimError> {
    let buffers = &workload.profile.buffers;
    let mut ranges = vec![0..0; buffers.len()];
    let mut sums = vec![0; buffers.len()];
    for (index, piece) in schedule.pieces.iter().enumerate() {
        let index = u32::try_from(index).unwrap_or(u32::MAX);
        let range: &mut std::ops::Range<u32> = ranges
            .get_mut(piece.buffer as usize)
            .ok_or_else(|| SimError::Malformed(format!("pieces[{index}].buffer = {}: no such buffer", piece.buffer)))?;
        if sums[piece.buffer as usize] > 0 && range.end != index {
            return Err(SimError::Malformed(format!(
                "pieces[{index}]: apart from the rest of buffer {}",
                piece.buffer
            )));
        }
        *range = if range.start == range.end { index..index + 1 } else { range.start..index + 1 };
        sums[piece.buffer as usize] += piece.len_bytes;
    }
    for (index, facts) in buffers.iter().enumerate() {
        if facts.class != Class::External && sums[index] != facts.size_bytes {
            let text = format!("buffers[{index}]: pieces of {} bytes for {} bytes", sums[index], facts.size_bytes);
            return Err(SimError::Malformed(text));
        }
    }
    Ok(ranges)
}

fn check_moves(workload: &crate::Workload, schedule: &Schedule) -> Result<(), SimError> {
    let ops = workload.ops.len();
    for (index, step) in schedule.moves.iter().enumerate() {
        let known = (step.piece as usize) < schedule.pieces.len()
            && (step.issue_op as usize) < ops
            && (step.due_op as usize) < ops
            && (index == 0 || schedule.moves[index - 1].issue_op <= step.issue_op);
        if !known {
            return Err(SimError::Malformed(format!("moves[{index}] = {step:?} has no meaning here")));
        }
    }
    Ok(())
}
