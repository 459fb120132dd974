//! The policy as a [`Plan`]: the search over layers instead of ops, because that is where a plan's moves are issued.
//!
//! Short-lived buffers have their pool, and long-lived ones their units, as in `hpca21`; what differs is which unit is
//! where when. A unit that is used in a layer counts as fast or slow for all of it, and travels only in layers in which nobody uses it, so
//! that the account of the search is the plan's promise: fast from the layer of issue to the layer in which it is due.

use super::{gap_choice, GapChoice, GapProblem, GapTensor, GapUse, Way};
use crate::hpca21::units::Span;
use crate::layout::Layout;
use crate::machine::bytes_f64;
use crate::{Interval, Machine, Move, Place, Plan, PlanError};
use profile::Profile;
use trace::{Tier, PAGE_BYTES};

/// Plans a step for `fast_budget_bytes` of fast memory.
///
/// # Errors
/// When the profile has no op or the budget is zero.
pub fn gap(profile: &Profile, fast_budget_bytes: u64, machine: &Machine) -> Result<Plan, PlanError> {
    let mut layout = Layout::new(profile, fast_budget_bytes)?;
    let extents = &layout.pool.extent_by_layer;
    let room: Vec<i64> = extents.iter().map(|extent| signed(layout.space_bytes - extent)).collect();
    let choice = gap_choice(&problem(profile, &layout.spans, &layout.places, room, machine));
    let moves = moves(&choice);
    for (index, unit) in layout.units.iter_mut().enumerate() {
        let mut own = moves.iter().filter(|step| step.unit as usize == index);
        // What a persistent unit's last move leaves it in is what the next step finds.
        unit.birth_tier = match own.next_back().filter(|_| layout.spans[index].persistent) {
            Some(last) => last.to,
            None => tier(choice.born_fast[index]),
        };
    }
    let intervals = intervals(moves, &layout.pool.extent_by_layer);
    Ok(layout.into_plan(profile, intervals, false))
}

fn tier(fast: bool) -> Tier {
    if fast {
        Tier::FAST
    } else {
        Tier::SLOW
    }
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// Layers as ops, units as tensors.
fn problem(
    profile: &Profile,
    spans: &[Span],
    places: &[Option<Place>],
    room_bytes: Vec<i64>,
    machine: &Machine,
) -> GapProblem {
    let slow_ns = slow_ns_by_layer(profile, spans, places, machine);
    let tensor = |(span, slow_ns): (&Span, Vec<f64>)| GapTensor {
        size_bytes: signed(span.len_bytes),
        birth_op: if span.persistent { 0 } else { span.layers.first().copied().unwrap_or(0) },
        death_op: span.death_layer,
        persistent: span.persistent,
        uses: span
            .layers
            .iter()
            .zip(slow_ns)
            .map(|(&op, slow_ns)| GapUse { op, slow_ns, busy_ns: [0.0, 0.0] })
            .collect(),
    };
    let base_ns: Vec<f64> = profile.layers.iter().map(|layer| bytes_f64(layer.time_ns)).collect();
    GapProblem {
        memory_ns: base_ns.clone(),
        base_ns,
        room_bytes,
        tensors: spans.iter().zip(slow_ns).map(tensor).collect(),
        promote_rate: machine.promote_gbps,
        demote_rate: machine.demote_gbps,
        taken: [[0.0; 2]; 2],
        travel_beside_uses: false,
    }
}

/// By unit and layer of use, what its buffers cost more in slow memory.
///
/// A profile has a buffer's bytes in sum; they are spread evenly over its accesses.
fn slow_ns_by_layer(profile: &Profile, spans: &[Span], places: &[Option<Place>], machine: &Machine) -> Vec<Vec<f64>> {
    let threads = machine.threads.unwrap_or(1);
    let mut slow_ns: Vec<Vec<f64>> = spans.iter().map(|span| vec![0.0; span.layers.len()]).collect();
    let persistent_units = spans.iter().enumerate().filter(|(_, span)| span.persistent).map(|(unit, _)| unit);
    let mut persistent_units = persistent_units.fuse();
    for (buffer, place) in profile.buffers.iter().zip(places) {
        let unit = match place {
            Some(Place::Unit { unit, .. }) => *unit as usize,
            _ if buffer.class == profile::Class::Persistent && buffer.size_bytes >= PAGE_BYTES => {
                // Persistent units come in the order of their buffers.
                let Some(unit) = persistent_units.next() else { continue };
                unit
            }
            _ => continue,
        };
        let cost = |tier: Tier| machine.memory_time_ns(tier, buffer.read_bytes, buffer.written_bytes, threads);
        let share = (cost(Tier::SLOW) - cost(Tier::FAST)) / bytes_f64(buffer.access_ops.len().max(1) as u64);
        for &op in &buffer.access_ops {
            let layer = profile.ops[op as usize].layer;
            if let Ok(place) = spans[unit].layers.binary_search(&layer) {
                slow_ns[unit][place] += share.max(0.0);
            }
        }
    }
    slow_ns
}

/// Moves by layer of issue, those out of fast memory first, because they make room.
fn moves(choice: &GapChoice) -> Vec<Move> {
    let planned = choice.moves.iter().map(|step| Move {
        issue_layer: step.first_op,
        due_layer: step.due_op,
        unit: step.tensor,
        to: tier(step.way == Way::In),
    });
    let mut moves: Vec<Move> = planned.collect();
    moves.sort_by_key(|step| (step.issue_layer, step.to == Tier::FAST, step.due_layer, step.unit));
    moves
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
