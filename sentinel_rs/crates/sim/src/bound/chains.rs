//! The relaxation: each tensor is a chain of moments, each with the share of it that is fast then.

use super::linear::Program;
use super::BoundEffort;
use plan::{GapProblem, GapTensor};

/// The linear program of a step. Time counts in `unit_ns`, bytes in budgets.
pub(super) struct Relaxation {
    pub(super) program: Program,
    pub(super) unit_ns: f64,
}

/// A moment of a tensor: the begin of an op, and two unknowns. What the tensor holds of fast memory is the sum of both.
struct Moment {
    op: usize,
    /// The share whose bytes are in fast memory, those that have travelled there counted, those that have travelled out not.
    there: usize,
    /// The share that has travelled out, but belongs to a piece that is still under way and counts as fast.
    leaving: usize,
}

struct Builder<'a> {
    problem: &'a GapProblem,
    /// First ops of windows, ascending; the first is 0.
    cuts: Vec<usize>,
    program: Program,
    unit_ns: f64,
    unit_bytes: f64,
    /// By op, what its constraints are made of: shares and bytes; shares and slow time.
    held: Vec<Vec<(usize, f64)>>,
    held_at_end: Vec<Vec<(usize, f64)>>,
    /// By window: waiting, and whatever else makes ops longer than their slow uses do.
    waits: Vec<usize>,
    slow: Vec<Vec<(usize, f64)>>,
    slow_in_all: Vec<Vec<f64>>,
    /// By op, shares that count as fast while they leave.
    leaving: Vec<Vec<(usize, f64)>>,
    /// By window: flows and bytes, in and out.
    flows: [Vec<Vec<(usize, f64)>>; 2],
    /// Those of them for which there is only the time in which ops wait.
    hasty: [Vec<Vec<(usize, f64)>>; 2],
}

impl Relaxation {
    pub(super) fn new(problem: &GapProblem, effort: BoundEffort) -> Relaxation {
        let ops = problem.base_ns.len();
        let cuts = cuts(problem, effort.windows);
        let most = problem.room_bytes.iter().copied().max().unwrap_or(0).max(1);
        let mut builder = Builder {
            problem,
            unit_ns: problem.base_ns.iter().sum::<f64>().max(1.0),
            unit_bytes: float(most),
            program: Program::default(),
            held: vec![Vec::new(); ops],
            held_at_end: vec![Vec::new(); ops],
            waits: Vec::new(),
            slow: vec![Vec::new(); ops],
            slow_in_all: vec![Vec::new(); ops],
            leaving: vec![Vec::new(); ops],
            flows: [vec![Vec::new(); cuts.len()], vec![Vec::new(); cuts.len()]],
            hasty: [vec![Vec::new(); cuts.len()], vec![Vec::new(); cuts.len()]],
            cuts,
        };
        let worst: f64 = problem.tensors.iter().flat_map(|tensor| &tensor.uses).map(|used| used.slow_ns).sum();
        let longest = (worst / builder.unit_ns).max(f64::MIN_POSITIVE);
        builder.waits = (0..builder.cuts.len()).map(|_| builder.program.unknown(1.0, longest)).collect();
        let neglected = neglected(problem, effort.neglected_share * float(most));
        for (tensor, _) in problem.tensors.iter().zip(neglected).filter(|(_, neglected)| !neglected) {
            builder.add_tensor(tensor);
        }
        builder.add_time();
        builder.add_room();
        Relaxation { program: builder.program, unit_ns: builder.unit_ns }
    }
}

impl Builder<'_> {
    fn add_tensor(&mut self, tensor: &GapTensor) {
        let mut ops: Vec<usize> = tensor.uses.iter().map(|used| used.op as usize).collect();
        let life = if tensor.persistent {
            0..=self.problem.base_ns.len() - 1
        } else {
            tensor.birth_op as usize..=tensor.death_op as usize
        };
        if ops.is_empty() || float(tensor.size_bytes) <= 0.0 {
            return;
        }
        ops.extend(self.cuts.iter().copied().filter(|cut| life.contains(cut)));
        ops.sort_unstable();
        ops.dedup();
        // After its last use a tensor of the step need not be fast: nothing is lost by leaving it out there.
        if let Some(last) = tensor.uses.last().filter(|_| !tensor.persistent) {
            ops.retain(|&op| op <= last.op as usize);
        }
        let bytes = float(tensor.size_bytes) / self.unit_bytes;
        let moments: Vec<Moment> = ops.into_iter().map(|op| self.moment(op)).collect();
        let count = self.problem.base_ns.len();
        for (index, moment) in moments.iter().enumerate() {
            self.held[moment.op].extend([(moment.there, bytes), (moment.leaving, bytes)]);
            self.leaving[moment.op].push((moment.leaving, 1.0));
            // What an op begins with, the op before it ended with, but for what was born between them.
            if index > 0 || tensor.persistent {
                let before = &mut self.held_at_end[(moment.op + count - 1) % count];
                before.extend([(moment.there, bytes), (moment.leaving, bytes)]);
            }
        }
        if let Some(first) = moments.first().filter(|first| is_birth(tensor, first.op)) {
            self.program.constrain([(first.leaving, 1.0)], 0.0);
        }
        for pair in moments.windows(2) {
            self.add_flow(tensor, &pair[0], &pair[1], bytes);
        }
        if let (Some(first), Some(last), true) =
            (moments.first(), moments.last(), tensor.persistent && moments.len() > 1)
        {
            self.add_flow(tensor, last, first, bytes);
        }
        if let Some(last) = moments.last().filter(|last| !tensor.persistent && last.op == tensor.death_op as usize) {
            let mut end = last;
            let later = self.moment(last.op);
            if tensor.birth_op != tensor.death_op {
                self.add_flow(tensor, last, &later, bytes);
                end = &later;
            }
            self.held_at_end[last.op].extend([(end.there, bytes), (end.leaving, bytes)]);
        }
        let mut moments = moments.iter();
        for used in &tensor.uses {
            if let Some(moment) = moments.find(|moment| moment.op == used.op as usize) {
                let ns = used.slow_ns / self.unit_ns;
                self.slow[moment.op].extend([(moment.there, ns), (moment.leaving, ns)]);
                self.slow_in_all[moment.op].push(ns);
            }
        }
    }

    fn moment(&mut self, op: usize) -> Moment {
        let (there, leaving) = (self.program.unknown(0.0, 1.0), self.program.unknown(0.0, 1.0));
        self.program.constrain([(there, 1.0), (leaving, 1.0)], 1.0);
        Moment { op, there, leaving }
    }

    /// Between two moments, what comes and what leaves; both in the window of the first. Beside the op of its birth a tensor
    /// cannot travel, because moves are issued when an op begins, for what is there: what is to come or to leave by the begin of the next op
    /// must do so while that one waits.
    fn add_flow(&mut self, tensor: &GapTensor, from: &Moment, to: &Moment, bytes: f64) {
        let window = self.cuts.partition_point(|&cut| cut <= from.op) - 1;
        let hasty = is_birth(tensor, from.op) && to.op <= from.op + 1;
        let flows = [self.program.unknown(0.0, 1.0), self.program.unknown(0.0, 1.0)];
        let balance = [(to.there, 1.0), (from.there, -1.0), (flows[0], -1.0), (flows[1], 1.0)];
        self.program.constrain(balance, 0.0);
        self.program.constrain(balance.map(|(unknown, factor)| (unknown, -factor)), 0.0);
        // What has left of a piece under way had left before, or left between the moments.
        self.program.constrain([(to.leaving, 1.0), (from.leaving, -1.0), (flows[1], -1.0)], 0.0);
        for (way, flow) in flows.into_iter().enumerate() {
            self.flows[way][window].push((flow, bytes));
            if hasty {
                self.hasty[way][window].push((flow, bytes));
            }
        }
    }

    /// Room at the begin and at the end of each op. What an op begins with, the op before it ended with, but for what came
    /// while the op waited to begin.
    fn add_room(&mut self) {
        // The server out of fast memory carries one piece at a time.
        for leaving in std::mem::take(&mut self.leaving) {
            if leaving.len() > 1 {
                self.program.constrain(leaving, 1.0);
            }
        }
        let room = |op: usize| float(self.problem.room_bytes[op].max(0)) / self.unit_bytes;
        for (op, held) in std::mem::take(&mut self.held).into_iter().enumerate() {
            if most_of(&held) > room(op) {
                self.program.constrain(held, room(op));
            }
        }
        let rate = self.problem.promote_rate * self.unit_ns / self.unit_bytes;
        for (op, mut held) in std::mem::take(&mut self.held_at_end).into_iter().enumerate() {
            if most_of(&held) > room(op) {
                held.push((self.waits[self.cuts.partition_point(|&cut| cut <= op) - 1], -rate));
                self.program.constrain(held, room(op));
            }
        }
    }

    /// What ops take beyond their base, and how much can travel in the time of a window.
    fn add_time(&mut self) {
        let rates =
            [self.problem.promote_rate, self.problem.demote_rate].map(|rate| rate * self.unit_ns / self.unit_bytes);
        let slow = std::mem::take(&mut self.slow);
        for window in 0..self.cuts.len() {
            let end = self.cuts.get(window + 1).copied().unwrap_or(slow.len());
            let ops = self.cuts[window]..end;
            let base: f64 = self.problem.base_ns[ops.clone()].iter().sum::<f64>() / self.unit_ns;
            let mut extra = vec![self.waits[window]];
            for op in ops {
                let all: f64 = self.slow_in_all[op].iter().sum();
                let slack = (self.problem.base_ns[op] - self.problem.memory_ns[op]).max(0.0) / self.unit_ns;
                let most: f64 = self.slow_in_all[op].iter().map(|ns| ns.max(0.0)).sum();
                if most > slack {
                    let over = self.program.unknown(1.0, most - slack);
                    // over >= sum of slow * (1 - share) - slack
                    let shares = slow[op].iter().map(|&(share, ns)| (share, -ns));
                    self.program.constrain(shares.chain([(over, -1.0)]), slack - all);
                    extra.push(over);
                }
            }
            for (way, rate) in rates.into_iter().enumerate() {
                let mut hasty = std::mem::take(&mut self.hasty[way][window]);
                if !hasty.is_empty() {
                    hasty.push((self.waits[window], -rate));
                    self.program.constrain(hasty, 0.0);
                }
                let flows = std::mem::take(&mut self.flows[way][window]);
                if flows.iter().map(|term| term.1).sum::<f64>() > rate * base {
                    let time = extra.iter().map(|&unknown| (unknown, -rate));
                    self.program.constrain(flows.into_iter().chain(time), rate * base);
                }
            }
        }
    }
}

/// The most that a sum over tensors can be, whose shares come in pairs of which at most one whole is held.
fn most_of(held: &[(usize, f64)]) -> f64 {
    held.iter().map(|term| term.1).sum::<f64>() / 2.0
}

fn is_birth(tensor: &GapTensor, op: usize) -> bool {
    !tensor.persistent && op == tensor.birth_op as usize
}

/// First ops of windows: the moments at which every living tensor is accounted for, about equally far apart in time.
///
/// Where all ops fit, each is its own window.
fn cuts(problem: &GapProblem, most: usize) -> Vec<usize> {
    let ops = problem.base_ns.len();
    if ops <= most {
        return (0..ops).collect();
    }
    let mut born = vec![0_i64; ops + 1];
    for tensor in problem.tensors.iter().filter(|tensor| !tensor.persistent) {
        born[tensor.birth_op as usize] += tensor.size_bytes;
        born[tensor.death_op as usize + 1] -= tensor.size_bytes;
    }
    let mut live = 0;
    let live: Vec<i64> = born[..ops]
        .iter()
        .map(|change| {
            live += change;
            live
        })
        .collect();
    let total: f64 = problem.base_ns.iter().sum();
    let step = total / float(i64::try_from(most).unwrap_or(i64::MAX));
    let mut cuts = vec![0];
    let (mut time, mut best) = (0.0, None::<usize>);
    for op in 0..ops {
        if best.is_none_or(|best| live[op] > live[best]) {
            best = Some(op);
        }
        time += problem.base_ns[op];
        if time >= step {
            cuts.extend(best.take());
            time = 0.0;
        }
    }
    cuts.dedup();
    cuts
}

/// Small tensors that are left out, which counts them as fast, without size and without moves.
fn neglected(problem: &GapProblem, bytes: f64) -> Vec<bool> {
    let ops = problem.base_ns.len();
    let mut by_size: Vec<usize> = (0..problem.tensors.len()).collect();
    by_size.sort_by_key(|&index| (problem.tensors[index].size_bytes, index));
    let mut neglected = vec![false; problem.tensors.len()];
    let mut held = vec![0.0; ops];
    for index in by_size {
        let tensor = &problem.tensors[index];
        let size = float(tensor.size_bytes);
        let life = if tensor.persistent { 0..ops } else { tensor.birth_op as usize..tensor.death_op as usize + 1 };
        if size > bytes {
            break;
        }
        if held[life.clone()].iter().all(|held| held + size <= bytes) {
            held[life].iter_mut().for_each(|held| *held += size);
            neglected[index] = true;
        }
    }
    neglected
}

#[allow(clippy::cast_precision_loss)]
fn float(bytes: i64) -> f64 {
    bytes as f64
}
