//! The best way of one tensor through the step, given what the others have taken: a shortest path over its uses.

use super::prices::Prices;
use super::problem::{GapTensor, GapUse};
use super::state::{f64_of, State, Taken, Transfer, Way};
use std::ops::Range;

/// What a byte's travel costs when bandwidth is worth nothing, in nanoseconds: so little that it only decides between ways
/// that are otherwise equal.
const NEEDLESS_NS: f64 = 1e-6;

/// A use, or the birth or death of a tensor that is not used then.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Stop {
    pub(super) op: u32,
    /// What the op's memory time grows by when the tensor is slow.
    pub(super) slow_ns: f64,
    /// Device time of the use when the tensor is fast, and when it is slow.
    pub(super) busy_ns: [f64; 2],
}

/// The stops of a tensor in the order of time.
pub(super) fn stops(tensor: &GapTensor) -> Vec<Stop> {
    let of = |used: &GapUse| Stop { op: used.op, slow_ns: used.slow_ns, busy_ns: used.busy_ns };
    let idle = |op: u32| Stop { op, slow_ns: 0.0, busy_ns: [0.0; 2] };
    let mut stops: Vec<Stop> = tensor.uses.iter().map(of).collect();
    if !tensor.persistent {
        if stops.first().is_none_or(|stop| stop.op > tensor.birth_op) {
            stops.insert(0, idle(tensor.birth_op));
        }
        if stops.last().is_none_or(|stop| stop.op < tensor.death_op) {
            stops.push(idle(tensor.death_op));
        }
    }
    stops
}

/// Between two stops.
#[derive(Clone, Debug, PartialEq)]
enum Leg {
    Rest,
    Travel(Vec<Transfer>),
}

const FAST: usize = 0;
const SLOW: usize = 1;

/// A way and what it costs: time added to ops, and what its resources are worth.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Route {
    pub(super) cost: f64,
    pub(super) taken: Taken,
}

/// Looks for routes of one tensor.
pub(super) struct Router<'a, 'b> {
    pub(super) state: &'a State<'b>,
    pub(super) prices: Option<&'a Prices>,
}

impl Router<'_, '_> {
    /// The cheapest route; a slow one always exists.
    pub(super) fn best(&self, tensor: &GapTensor, stops: &[Stop]) -> Route {
        if stops.is_empty() {
            return Route { cost: 0.0, taken: Taken::default() };
        }
        if !tensor.persistent {
            return self.path(tensor, stops, None).unwrap_or_else(|| self.slow(stops));
        }
        let fast = self.path(tensor, stops, Some(FAST));
        let slow = self.path(tensor, stops, Some(SLOW)).unwrap_or_else(|| self.slow(stops));
        match fast {
            Some(fast) if fast.cost < slow.cost => fast,
            _ => slow,
        }
    }

    /// All uses slow.
    pub(super) fn slow(&self, stops: &[Stop]) -> Route {
        let slow = stops.iter().filter(|stop| stop.slow_ns > 0.0).copied().collect();
        let cost = stops.iter().map(|stop| self.slow_cost(*stop)).sum();
        Route { cost, taken: Taken { slow, ..Taken::default() } }
    }

    fn slow_cost(&self, stop: Stop) -> f64 {
        self.state.growth(stop.op as usize, stop.slow_ns)
    }

    /// The cheapest route; with `edge`, one that begins and ends the step in that tier and goes round.
    fn path(&self, tensor: &GapTensor, stops: &[Stop], edge: Option<usize>) -> Option<Route> {
        let size = tensor.size_bytes;
        let mut costs: Vec<[f64; 2]> = Vec::with_capacity(stops.len());
        let mut legs: Vec<[Option<(usize, Leg)>; 2]> = Vec::with_capacity(stops.len());
        for (index, stop) in stops.iter().enumerate() {
            let at = stop.op as usize;
            let here = [self.hold_cost(at..at + 1, size), Some(self.slow_cost(*stop))];
            let mut cost = [f64::INFINITY; 2];
            let mut leg = [None, None];
            if index == 0 {
                for side in [FAST, SLOW] {
                    if edge.is_none_or(|edge| edge == side) {
                        cost[side] = here[side].unwrap_or(f64::INFINITY);
                    }
                }
            } else {
                let gap = stops[index - 1].op as usize + 1..at;
                self.relax(&costs[index - 1], here, gap, tensor, &mut cost, &mut leg);
            }
            costs.push(cost);
            legs.push(leg);
        }
        let last = stops.len() - 1;
        let Some(edge) = edge else {
            let side = if costs[last][FAST] < costs[last][SLOW] { FAST } else { SLOW };
            return costs[last][side].is_finite().then(|| self.trace_back(stops, side, costs[last][side], legs, None));
        };
        let gap = stops[last].op as usize + 1..stops[0].op as usize + self.state.ops();
        let mut cost = [f64::INFINITY; 2];
        let mut leg = [None, None];
        let here = [Some(0.0), Some(0.0)];
        self.relax(&costs[last], here, gap.clone(), tensor, &mut cost, &mut leg);
        let (side, closing) = leg[edge].take()?;
        cost[edge].is_finite().then(|| self.trace_back(stops, side, cost[edge], legs, Some((gap.end, edge, closing))))
    }

    /// What holding the bytes costs; `None` when there is no room.
    fn hold_cost(&self, range: Range<usize>, size: i64) -> Option<f64> {
        if self.state.least(range.clone()) < size {
            return None;
        }
        Some(self.prices.map_or(0.0, |prices| (prices.held[range.end] - prices.held[range.start]) * f64_of(size)))
    }

    /// The costs of being in either tier after a gap, from those before it and what the stop after it costs.
    fn relax(
        &self,
        before: &[f64; 2],
        here: [Option<f64>; 2],
        gap: Range<usize>,
        tensor: &GapTensor,
        cost: &mut [f64; 2],
        leg: &mut [Option<(usize, Leg)>; 2],
    ) {
        let mut offer = |from: usize, to: usize, over: f64, by: Leg| {
            let Some(here) = here[to] else { return };
            let total = before[from] + over + here;
            if total < cost[to] {
                cost[to] = total;
                leg[to] = Some((from, by));
            }
        };
        offer(SLOW, SLOW, 0.0, Leg::Rest);
        if before[FAST].is_finite() && here[FAST].is_some() {
            if let Some(hold) = self.hold_cost(gap.clone(), tensor.size_bytes) {
                offer(FAST, FAST, hold, Leg::Rest);
            }
        }
        let out = if before[FAST].is_finite() { self.travel(Way::Out, gap.clone(), tensor) } else { None };
        let back = if here[FAST].is_some() { self.travel(Way::In, gap, tensor) } else { None };
        if let (Some((leaves, leave_cost)), Some((comes, come_cost))) = (&out, &back) {
            // The way back is issued at the last chance before it begins, and would void a way out that is not over then.
            if leaves.last() < self.state.problem.issue.last(comes.first()) {
                let by = Leg::Travel(vec![leaves.clone(), comes.clone()]);
                offer(FAST, FAST, leave_cost + come_cost, by);
            }
        }
        if let Some((leaves, leave_cost)) = out {
            offer(FAST, SLOW, leave_cost, Leg::Travel(vec![leaves]));
        }
        if let Some((comes, come_cost)) = back {
            offer(SLOW, FAST, come_cost, Leg::Travel(vec![comes]));
        }
    }

    /// The transfer in a gap with the worth of its bandwidth; it may travel beside the use before the gap.
    fn travel(&self, way: Way, gap: Range<usize>, tensor: &GapTensor) -> Option<(Transfer, f64)> {
        let first = tensor.first_travel(gap.start, &self.state.problem.issue);
        let transfer = self.state.find(way, first..gap.end, gap.start, tensor.size_bytes)?;
        let worth = self.prices.map_or(0.0, |prices| match way {
            Way::Out => prices.leave[first % self.state.ops()],
            Way::In => prices.come[(gap.end - 1) % self.state.ops()],
        });
        let ops = self.state.ops();
        let drag_ns: f64 =
            transfer.pieces.iter().map(|&(at, bytes)| bytes * self.state.drag(way as usize, at as usize % ops)).sum();
        Some((transfer, (worth + NEEDLESS_NS) * f64_of(tensor.size_bytes) + drag_ns))
    }

    /// The route that ends on `side`; `closing` is the leg into the next step, the position where it ends, and the tier there.
    fn trace_back(
        &self,
        stops: &[Stop],
        mut side: usize,
        cost: f64,
        mut legs: Vec<[Option<(usize, Leg)>; 2]>,
        closing: Option<(usize, usize, Leg)>,
    ) -> Route {
        let mut sides = vec![SLOW; stops.len()];
        let mut chosen: Vec<Option<Leg>> = vec![None; stops.len()];
        for index in (0..stops.len()).rev() {
            sides[index] = side;
            if let Some((from, leg)) = legs[index][side].take() {
                side = from;
                chosen[index] = Some(leg);
            }
        }
        let mut taken = Taken::default();
        let mut hold = |range: Range<usize>| match taken.fast.last_mut() {
            Some(last) if last.end >= range.start => last.end = last.end.max(range.end),
            _ if range.is_empty() => {}
            _ => taken.fast.push(range),
        };
        let mut transfers = Vec::new();
        let mut pass = |from: usize, leg: Option<Leg>, start: usize, end: usize, to: usize| match leg {
            Some(Leg::Travel(travels)) => {
                for transfer in travels {
                    match transfer.way {
                        Way::Out => hold(start..transfer.last() + 1),
                        Way::In => hold(self.state.comes_at(&transfer)..end),
                    }
                    transfers.push(transfer);
                }
            }
            _ if from == FAST && to == FAST => hold(start..end),
            _ => {}
        };
        // The hold of each stop follows the leg that leads to it, so that stretches that touch become one.
        for (index, stop) in stops.iter().enumerate() {
            let at = stop.op as usize;
            if index > 0 {
                pass(sides[index - 1], chosen[index].take(), stops[index - 1].op as usize + 1, at, sides[index]);
            }
            if sides[index] == FAST {
                pass(FAST, Some(Leg::Rest), at, at + 1, FAST);
            }
        }
        if let Some((end, to, leg)) = closing {
            let last = stops.len() - 1;
            pass(sides[last], Some(leg), stops[last].op as usize + 1, end, to);
        }
        let slow = stops.iter().zip(&sides).filter(|(stop, &side)| side == SLOW && stop.slow_ns > 0.0);
        taken.slow = slow.map(|(stop, _)| *stop).collect();
        taken.transfers = transfers;
        Route { cost, taken }
    }
}
