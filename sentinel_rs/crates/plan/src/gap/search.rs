//! The search: tensors take their best routes one after the other, again and again, while that shortens the step.

use super::prices::Prices;
use super::problem::GapProblem;
use super::route::{stops, Route, Router, Stop};
use super::state::{f64_of, State, Taken, Way};
use super::{GapChoice, GapMove};

/// Rounds at prices; rounds in which whatever is free may be taken.
const PRICED_ROUNDS: u32 = 2;
const FREE_ROUNDS: u32 = 2;

/// What an op counts in which everything finds room.
const SCARCE_MIN: f64 = 0.01;

/// A complete assignment and its account.
pub(super) struct Search<'a> {
    pub(super) state: State<'a>,
    pub(super) stops: Vec<Vec<Stop>>,
    pub(super) taken: Vec<Taken>,
}

impl<'a> Search<'a> {
    /// Everything slow; ops offer bandwidth for `clock_ns` of their time. For `careful` see [`State`].
    pub(super) fn new(problem: &'a GapProblem, clock_ns: &[f64], careful: bool) -> Search<'a> {
        let mut state = State::new(problem, clock_ns, careful);
        let stops: Vec<Vec<Stop>> = problem.tensors.iter().map(stops).collect();
        let mut taken = Vec::with_capacity(stops.len());
        for (tensor, stops) in problem.tensors.iter().zip(&stops) {
            let slow = Router { state: &state, prices: None }.slow(stops).taken;
            state.book(tensor.size_bytes, &slow, false);
            taken.push(slow);
        }
        Search { state, stops, taken }
    }

    /// Every tensor takes its best route, first at prices that leave room for those that come later, then as it stands.
    pub(super) fn assign(&mut self, clock_ns: &[f64], bidding_rounds: u32) {
        let prices = Prices::find(self.state.problem, &self.stops, clock_ns, bidding_rounds);
        let order = self.dearest_first(&prices);
        for round in 0..PRICED_ROUNDS + FREE_ROUNDS {
            let prices = (round < PRICED_ROUNDS).then_some(&prices);
            for &index in &order {
                self.reroute(index, prices);
            }
        }
    }

    /// Every tensor takes its best route as it stands, those first that save most time for the scarce room that their lives take. Where
    /// there is room for few this finds what prices miss: who stays.
    pub(super) fn assign_densest_first(&mut self) {
        let scarce = self.scarcity();
        let mut order: Vec<(f64, usize)> = Vec::with_capacity(self.stops.len());
        for (index, tensor) in self.state.problem.tensors.iter().enumerate() {
            let slow_ns: f64 = self.stops[index].iter().map(|stop| stop.slow_ns).sum();
            let life = scarce[tensor.death_op as usize + 1] - scarce[tensor.birth_op as usize];
            order.push((slow_ns / (f64_of(tensor.size_bytes.max(1)) * life), index));
        }
        order.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        for _ in 0..FREE_ROUNDS {
            for &(_, index) in &order {
                self.reroute(index, None);
            }
        }
    }

    /// Sums over the ops before each op of the part of what is alive that finds no room, and a little for each op.
    fn scarcity(&self) -> Vec<f64> {
        let problem = self.state.problem;
        let mut change = vec![0; problem.base_ns.len() + 1];
        for tensor in &problem.tensors {
            change[tensor.birth_op as usize] += tensor.size_bytes;
            change[tensor.death_op as usize + 1] -= tensor.size_bytes;
        }
        let (mut alive, mut sum) = (0, 0.0);
        let mut sums = vec![0.0];
        for (room, change) in problem.room_bytes.iter().zip(change) {
            alive += change;
            sum += SCARCE_MIN + (1.0 - f64_of((*room).max(0)) / f64_of(alive.max(1))).max(0.0);
            sums.push(sum);
        }
        sums
    }

    /// One tensor leaves and comes back by its best route.
    fn reroute(&mut self, index: usize, prices: Option<&Prices>) {
        self.release(index);
        self.take_best(index, prices);
    }

    /// A tensor gives back what it took.
    pub(super) fn release(&mut self, index: usize) {
        let taken = std::mem::take(&mut self.taken[index]);
        self.state.book(self.state.problem.tensors[index].size_bytes, &taken, true);
    }

    /// A tensor that has nothing takes its best route.
    pub(super) fn take_best(&mut self, index: usize, prices: Option<&Prices>) {
        let tensor = &self.state.problem.tensors[index];
        let Route { taken, .. } = Router { state: &self.state, prices }.best(tensor, &self.stops[index]);
        self.take(index, taken);
    }

    /// A tensor that has nothing takes this.
    pub(super) fn take(&mut self, index: usize, taken: Taken) {
        self.state.book(self.state.problem.tensors[index].size_bytes, &taken, false);
        self.taken[index] = taken;
    }

    /// Tensors by what their best route saves over being slow, against what the route's resources are worth, the best first.
    pub(super) fn dearest_first(&self, prices: &Prices) -> Vec<usize> {
        let mut order: Vec<(f64, usize)> = Vec::with_capacity(self.stops.len());
        let empty = State::new(self.state.problem, &self.state.problem.base_ns, self.state.careful);
        for (index, tensor) in self.state.problem.tensors.iter().enumerate() {
            let slow: f64 = self.stops[index].iter().map(|stop| stop.slow_ns).sum();
            let best = Router { state: &empty, prices: Some(prices) }.best(tensor, &self.stops[index]);
            order.push((best.cost / slow.max(1e-9), index));
        }
        order.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        order.into_iter().map(|(_, index)| index).collect()
    }
}

impl Search<'_> {
    /// The assignment as births and moves.
    pub(super) fn choice(&self) -> GapChoice {
        let ops = self.state.ops();
        let wrap = |position: usize| u32::try_from(position % ops).unwrap_or(u32::MAX);
        let mut born_fast = Vec::with_capacity(self.taken.len());
        let mut moves = Vec::new();
        for (index, (tensor, taken)) in self.state.problem.tensors.iter().zip(&self.taken).enumerate() {
            let begin = if tensor.persistent { ops } else { tensor.birth_op as usize };
            let holds =
                |range: &std::ops::Range<usize>| range.contains(&begin) || tensor.persistent && range.start == 0;
            // A promotion that begins a stretch has not arrived at its begin.
            let comes = taken.transfers.iter().any(|t| t.way == Way::In && (t.first()..=t.last()).contains(&begin));
            born_fast.push(taken.fast.iter().any(holds) && !comes);
            for transfer in &taken.transfers {
                let due = match transfer.way {
                    Way::Out => transfer.last() + 1,
                    Way::In => taken.fast.iter().find(|range| range.contains(&transfer.last())).map_or(0, |range| {
                        let next = self.stops[index].iter().map(|stop| stop.op as usize);
                        let later = next.clone().chain(next.map(|op| op + ops)).find(|&op| op > transfer.last());
                        later.unwrap_or(range.end)
                    }),
                };
                moves.push(GapMove {
                    tensor: u32::try_from(index).unwrap_or(u32::MAX),
                    way: transfer.way,
                    first_op: wrap(self.state.problem.issue.last(transfer.first())),
                    last_op: wrap(transfer.last()),
                    due_op: wrap(due),
                });
            }
        }
        moves.sort_by_key(|step| (step.first_op, step.last_op, step.tensor));
        GapChoice { born_fast, moves, step_ns: self.state.total_ns }
    }
}
