//! What fast memory and bandwidth are worth at each moment: prices that tensors bid up where they want more than there is.
//!
//! Lagrangian relaxation with a subgradient step per round. In a round every tensor takes its cheapest way at the prices
//! as they are, as if it were alone; then each price rises where the demand was above the supply, and falls where it was below. The
//! time at which a byte leaves or comes is spread over the ops by a soft minimum, because with a hard one all would choose
//! the same cheapest op, and another one in the next round.

use super::problem::{GapProblem, GapTensor};
use super::route::Stop;
use super::state::f64_of;

/// The first step of a price, in units of what a byte typically saves.
const FIRST_STEP: f64 = 0.5;
/// How soft the choice of the time of a transfer is, in the same unit.
const SOFTNESS: f64 = 0.02;

/// What scarce resources are worth, in nanoseconds per byte.
#[derive(Clone, Debug)]
pub(super) struct Prices {
    /// Prefix sums over two steps of what a byte of fast memory costs at an op.
    pub(super) held: Vec<f64>,
    /// By op, what a byte costs that may leave from this op on.
    pub(super) leave: Vec<f64>,
    /// By op, what a byte costs that must have come when this op ends.
    pub(super) come: Vec<f64>,
}

/// Prices under way.
struct Market<'a> {
    problem: &'a GapProblem,
    stops: &'a [Vec<Stop>],
    clock_ns: &'a [f64],
    total_ns: f64,
    /// What a byte typically saves.
    unit: f64,
    hold: Vec<f64>,
    travel: [Vec<f64>; 2],
    bound: Vec<f64>,
    /// The largest slow time an op can have.
    worst: Vec<f64>,
}

/// Demand of one round, by op.
struct Demand {
    /// Differences of held bytes.
    held: Vec<f64>,
    /// Bytes that may leave from the op on; bytes that must have come when the op ends.
    leave: Vec<f64>,
    come: Vec<f64>,
    slow: Vec<f64>,
}

impl Prices {
    /// Prices at which demand is about what there is, after so many rounds of bidding: the mean over the second half.
    pub(super) fn find(problem: &GapProblem, stops: &[Vec<Stop>], clock_ns: &[f64], rounds: u32) -> Prices {
        let mut market = Market::new(problem, stops, clock_ns);
        let ops = problem.base_ns.len();
        let mut mean = (vec![0.0; ops], [vec![0.0; ops], vec![0.0; ops]]);
        let kept = rounds / 2;
        for round in 0..rounds {
            let step = FIRST_STEP / (1.0 + f64::from(round) * 0.25);
            market.bid(step);
            if round >= rounds - kept {
                let share = 1.0 / f64::from(kept);
                add(&mut mean.0, &market.hold, share);
                add(&mut mean.1[0], &market.travel[0], share);
                add(&mut mean.1[1], &market.travel[1], share);
            }
        }
        market.hold = mean.0;
        market.travel = mean.1;
        market.prices(SOFTNESS)
    }
}

fn add(sum: &mut [f64], values: &[f64], share: f64) {
    sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += value * share);
}

impl<'a> Market<'a> {
    fn new(problem: &'a GapProblem, stops: &'a [Vec<Stop>], clock_ns: &'a [f64]) -> Market<'a> {
        let ops = problem.base_ns.len();
        let mut worst = vec![0.0; ops];
        let (mut saved, mut bytes) = (0.0, 0.0);
        for (tensor, stops) in problem.tensors.iter().zip(stops) {
            for stop in stops {
                worst[stop.op as usize] += stop.slow_ns;
                saved += stop.slow_ns;
                bytes += f64_of(tensor.size_bytes);
            }
        }
        Market {
            problem,
            stops,
            clock_ns,
            total_ns: clock_ns.iter().sum::<f64>().max(1.0),
            unit: saved / f64::max(bytes, 1.0),
            hold: vec![0.0; ops],
            travel: [vec![0.0; ops], vec![0.0; ops]],
            bound: vec![1.0; ops],
            worst,
        }
    }

    fn prices(&self, softness: f64) -> Prices {
        let ops = self.hold.len();
        let mut held = Vec::with_capacity(2 * ops + 1);
        let mut sum = 0.0;
        held.push(0.0);
        for op in 0..2 * ops {
            sum += self.hold[op % ops];
            held.push(sum);
        }
        let soft = self.unit * softness;
        let mut leave = vec![0.0; ops];
        let mut come = vec![0.0; ops];
        // Twice round, so that the values at the edge of the step are those of a step that repeats.
        let mut wait = f64::INFINITY;
        for op in (0..ops).rev().chain((0..ops).rev()) {
            leave[op] = soft_least(self.travel[1][op] + self.hold[op], wait + self.hold[op], soft);
            wait = leave[op];
        }
        wait = f64::INFINITY;
        for op in (0..ops).chain(0..ops) {
            come[op] = soft_least(self.travel[0][op] + self.hold[op], wait + self.hold[op], soft);
            wait = come[op];
        }
        Prices { held, leave, come }
    }

    /// One round.
    fn bid(&mut self, step: f64) {
        let ops = self.hold.len();
        let prices = self.prices(SOFTNESS);
        let zero = || vec![0.0; ops];
        let mut demand = Demand { held: vec![0.0; 2 * ops + 1], leave: zero(), come: zero(), slow: zero() };
        for index in 0..self.stops.len() {
            self.choose(index, &prices, &mut demand);
        }
        let mut held = zero();
        let mut sum = 0.0;
        for position in 0..2 * ops {
            sum += demand.held[position];
            held[position % ops] += sum;
        }
        let travels = self.spread(&prices, &demand, &mut held);
        self.adjust(step, &held, &travels, &demand.slow);
    }

    /// The tensor's cheapest way at these prices, added to the demand.
    fn choose(&self, index: usize, prices: &Prices, demand: &mut Demand) {
        let ops = self.hold.len();
        let tensor = &self.problem.tensors[index];
        let stops = &self.stops[index];
        let Some(first) = stops.first() else { return };
        let size = f64_of(tensor.size_bytes);
        let hold = |from: usize, to: usize| (prices.held[to] - prices.held[from]) * size;
        let cost = |stop: &Stop| {
            let at = stop.op as usize;
            [hold(at, at + 1), stop.slow_ns * self.bound[at]]
        };
        // The state after each gap, by the state before: its cost, and how.
        let over = |from: usize, to: usize| -> [[(f64, u8); 2]; 2] {
            let stay = hold(from, to);
            let first = tensor.first_travel(from, &self.problem.issue);
            let able = if first < to { size } else { f64::INFINITY };
            let out = prices.leave[first % ops].max(f64::MIN_POSITIVE) * able;
            let back = prices.come[(to - 1) % ops].max(f64::MIN_POSITIVE) * able;
            let fast = if stay <= out + back { (stay, 0) } else { (out + back, 3) };
            [[fast, (out, 1)], [(back, 2), (0.0, 0)]]
        };
        let edge = if tensor.persistent { vec![Some(0), Some(1)] } else { vec![None] };
        let mut best: Option<(f64, Vec<(usize, u8)>)> = None;
        for edge in edge {
            let mut costs = cost(first);
            if let Some(edge) = edge {
                let other: usize = 1 - edge;
                costs[other] = f64::INFINITY;
            }
            let mut from: Vec<[(usize, u8); 2]> = Vec::with_capacity(stops.len());
            let last = stops[stops.len() - 1].op as usize;
            let closing = edge.map(|_| (last + 1, first.op as usize + ops));
            let pairs = stops.windows(2).map(|pair| (pair[0].op as usize + 1, pair[1].op as usize, Some(&pair[1])));
            for (begin, end, stop) in pairs.chain(closing.map(|(begin, end)| (begin, end, None))) {
                let leg = over(begin, end);
                let here = stop.map_or([0.0, 0.0], &cost);
                let mut next = [f64::INFINITY; 2];
                let mut how = [(0, 0); 2];
                for to in 0..2 {
                    for side in 0..2 {
                        let total = costs[side] + leg[side][to].0 + here[to];
                        if total < next[to] {
                            next[to] = total;
                            how[to] = (side, leg[side][to].1);
                        }
                    }
                }
                costs = next;
                from.push(how);
            }
            let mut side = edge.unwrap_or(usize::from(costs[1] <= costs[0]));
            let total = costs[side];
            if best.as_ref().is_none_or(|best| total < best.0) {
                // From the last to the first: the side after each leg, and how it was reached.
                let mut way = Vec::with_capacity(from.len() + 1);
                for how in from.iter().rev() {
                    way.push((side, how[side].1));
                    side = how[side].0;
                }
                way.push((side, 0));
                way.reverse();
                best = Some((total, way));
            }
        }
        if let Some((_, way)) = best {
            self.demand_of(tensor, stops, &way, demand);
        }
    }

    fn demand_of(&self, tensor: &GapTensor, stops: &[Stop], way: &[(usize, u8)], demand: &mut Demand) {
        let ops = self.hold.len();
        let size = f64_of(tensor.size_bytes);
        for (place, &(side, how)) in way.iter().enumerate() {
            let begin = if place == 0 { 0 } else { stops[place - 1].op as usize + 1 };
            let end = stops.get(place).map_or(stops[0].op as usize + ops, |stop| stop.op as usize);
            if place > 0 {
                match how {
                    0 if side == 0 => {
                        demand.held[begin] += size;
                        demand.held[end] -= size;
                    }
                    0 => {}
                    _ => {
                        if how & 1 != 0 {
                            demand.leave[tensor.first_travel(begin, &self.problem.issue) % ops] += size;
                        }
                        if how & 2 != 0 {
                            demand.come[(end - 1) % ops] += size;
                        }
                    }
                }
            }
            if let Some(stop) = stops.get(place) {
                let at = stop.op as usize;
                if side == 0 {
                    demand.held[at] += size;
                    demand.held[at + 1] -= size;
                } else {
                    demand.slow[at] += stop.slow_ns;
                }
            }
        }
    }

    /// Lets transfers travel: at each op a part of what waits, which is held meanwhile.
    fn spread(&self, prices: &Prices, demand: &Demand, held: &mut [f64]) -> [Vec<f64>; 2] {
        let ops = self.hold.len();
        let soft = self.unit * SOFTNESS;
        let mut travels = [vec![0.0; ops], vec![0.0; ops]];
        let mut pass = |way: usize, order: &mut dyn Iterator<Item = usize>, enters: &[f64], least: &[f64]| {
            let mut waiting = 0.0;
            // What still waits after one step is carried round once more, then forgotten.
            for (place, op) in order.enumerate() {
                waiting += if place < ops { enters[op] } else { 0.0 };
                let now = self.travel[way][op] + self.hold[op];
                let share = (-(now - least[op]) / soft).exp().min(1.0);
                held[op] += waiting;
                travels[way][op] += waiting * share;
                waiting *= 1.0 - share;
            }
        };
        pass(1, &mut (0..ops).chain(0..ops), &demand.leave, &prices.leave);
        pass(0, &mut (0..ops).rev().chain((0..ops).rev()), &demand.come, &prices.come);
        travels
    }

    fn adjust(&mut self, step: f64, held: &[f64], travels: &[Vec<f64>; 2], slow: &[f64]) {
        let problem = self.problem;
        let rates = [problem.promote_rate, problem.demote_rate];
        for op in 0..held.len() {
            let share = self.clock_ns[op] / self.total_ns;
            let room = f64_of(problem.room_bytes[op].max(1));
            let excess = (held[op] / room - 1.0).clamp(-1.0, 1.0);
            // A short op is as scarce as a long one for what is used there, but not for what waits there.
            self.hold[op] = (self.hold[op] + step * self.unit * excess * (share * 4.0)).max(0.0);
            let slack = problem.base_ns[op] - problem.memory_ns[op];
            if self.worst[op] > 0.0 {
                self.bound[op] = (self.bound[op] + step * (slow[op] - slack) / self.worst[op]).clamp(0.0, 1.0);
            }
            for way in 0..2 {
                let could = (rates[way] * self.clock_ns[op]).max(1.0);
                let excess = (travels[way][op] / could - 1.0).clamp(-1.0, 1.0);
                self.travel[way][op] = (self.travel[way][op] + 0.3 * step * self.unit * excess).max(0.0);
            }
        }
    }
}

/// `-soft * ln(exp(-a / soft) + exp(-b / soft))`, held to no less than zero.
fn soft_least(a: f64, b: f64, soft: f64) -> f64 {
    let (low, high) = if a < b { (a, b) } else { (b, a) };
    if !high.is_finite() {
        return low;
    }
    (low - soft * (-(high - low) / soft).exp().ln_1p()).max(0.0)
}
