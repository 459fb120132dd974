//! A choice carried out by two servers, one per direction, that take whole tensors in the order in which they were issued:
//! what the account does not know, it learns here.
//!
//! The rules are those of the model in `docs/policy.md`.

use super::problem::{GapProblem, GapTensor};
use super::state::{f64_of, Way};
use super::{GapChoice, GapMove};
use std::collections::VecDeque;

/// Steps until what is in which tier at the step's edge has settled.
const STEPS: u64 = 3;
/// Bytes that are too few to tell from rounding.
const ARRIVED_BYTES: f64 = 1e-3;

/// What came out.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Replayed {
    /// Time of the last step.
    pub(super) step_ns: f64,
    /// Time of each op of the last step.
    pub(super) op_ns: Vec<f64>,
}

/// What happens at an op, by index into `starts`.
struct ByOp {
    starts: Vec<u32>,
    items: Vec<u32>,
}

impl ByOp {
    fn new(ops: usize, pairs: impl Iterator<Item = (u32, u32)> + Clone) -> ByOp {
        let mut starts = vec![0; ops + 2];
        for (op, _) in pairs.clone() {
            starts[op as usize + 2] += 1;
        }
        for op in 2..starts.len() {
            starts[op] += starts[op - 1];
        }
        let mut items = vec![0; starts[ops + 1] as usize];
        for (op, item) in pairs {
            let at = &mut starts[op as usize + 1];
            items[*at as usize] = item;
            *at += 1;
        }
        ByOp { starts, items }
    }

    fn at(&self, op: usize) -> std::ops::Range<usize> {
        self.starts[op] as usize..self.starts[op + 1] as usize
    }
}

/// The step, laid out for replays.
pub(super) struct Stage<'a> {
    problem: &'a GapProblem,
    births: ByOp,
    deaths: ByOp,
    uses: ByOp,
    slow_ns: Vec<f64>,
    busy_ns: Vec<[f64; 2]>,
    /// Which tensor each use is of.
    used: Vec<u32>,
}

impl<'a> Stage<'a> {
    pub(super) fn new(problem: &'a GapProblem) -> Stage<'a> {
        let ops = problem.base_ns.len();
        let number = |index: usize| u32::try_from(index).unwrap_or(u32::MAX);
        let own = || problem.tensors.iter().enumerate().filter(|(_, tensor)| !tensor.persistent);
        let uses = || problem.tensors.iter().enumerate().flat_map(|(index, t)| t.uses.iter().map(move |u| (index, u)));
        Stage {
            problem,
            births: ByOp::new(ops, own().map(|(index, tensor)| (tensor.birth_op, number(index)))),
            deaths: ByOp::new(ops, own().map(|(index, tensor)| (tensor.death_op, number(index)))),
            uses: ByOp::new(ops, uses().enumerate().map(|(place, (_, used))| (used.op, number(place)))),
            slow_ns: uses().map(|(_, used)| used.slow_ns).collect(),
            busy_ns: uses().map(|(_, used)| used.busy_ns).collect(),
            used: uses().map(|(index, _)| number(index)).collect(),
        }
    }

    /// Carries the choice out. Newborn that find no room begin slow.
    pub(super) fn replay(&self, choice: &GapChoice) -> Replayed {
        let mut run = Run {
            stage: self,
            choice,
            tier: vec![None; self.problem.tensors.len()],
            travels: vec![None; self.problem.tensors.len()],
            free: self.problem.room_bytes.first().copied().unwrap_or(0),
            servers: [Server::default(), Server::default()],
            now: 0,
            result: Replayed { step_ns: 0.0, op_ns: vec![0.0; self.problem.base_ns.len()] },
        };
        for (index, tensor) in self.problem.tensors.iter().enumerate().filter(|(_, tensor)| tensor.persistent) {
            let fast = choice.born_fast[index] && run.free >= tensor.size_bytes;
            run.tier[index] = Some(fast);
            run.free -= if fast { tensor.size_bytes } else { 0 };
        }
        for step in 0..STEPS {
            run.step(step);
        }
        run.result.step_ns = run.result.op_ns.iter().sum();
        run.result
    }
}

#[derive(Clone, Copy, Debug)]
struct Job {
    step: u32,
    due: u64,
}

#[derive(Debug, Default)]
struct Server {
    queue: VecDeque<Job>,
    current: Option<(Job, f64)>,
}

struct Run<'a, 'b> {
    stage: &'a Stage<'b>,
    choice: &'a GapChoice,
    /// By tensor: fast or not, while it is alive.
    tier: Vec<Option<bool>>,
    travels: Vec<Option<Way>>,
    free: i64,
    servers: [Server; 2],
    now: u64,
    result: Replayed,
}

impl Run<'_, '_> {
    fn step(&mut self, step: u64) {
        let ops = self.stage.problem.base_ns.len();
        let mut issued = 0;
        for op in 0..ops {
            self.now = step * ops as u64 + op as u64;
            let room = &self.stage.problem.room_bytes;
            if self.now > 0 {
                self.free += room[op] - room[(op + ops - 1) % ops];
            }
            while let Some(planned) = self.choice.moves.get(issued).filter(|planned| planned.first_op as usize == op) {
                self.issue(issued, *planned);
                issued += 1;
            }
            self.serve();
            self.bear(op);
            self.serve();
            self.result.op_ns[op] = self.work(op);
            for place in self.stage.deaths.at(op) {
                self.die(self.stage.deaths.items[place]);
            }
        }
    }

    fn issue(&mut self, index: usize, planned: GapMove) {
        let ops = self.stage.problem.base_ns.len() as u64;
        let op = self.now % ops;
        let ahead = if u64::from(planned.due_op) <= op { ops } else { 0 };
        let due = self.now - op + u64::from(planned.due_op) + ahead;
        let step = u32::try_from(index).unwrap_or(u32::MAX);
        self.servers[planned.way as usize].queue.push_back(Job { step, due });
    }

    fn bear(&mut self, op: usize) {
        for place in self.stage.births.at(op) {
            let tensor = self.stage.births.items[place] as usize;
            let GapTensor { size_bytes: size, takes_what_is_free, .. } = self.stage.problem.tensors[tensor];
            let fast = (self.choice.born_fast[tensor] || takes_what_is_free) && size <= self.free;
            self.free -= if fast { size } else { 0 };
            self.tier[tensor] = Some(fast);
        }
    }

    fn work(&mut self, op: usize) -> f64 {
        let problem = self.stage.problem;
        let mut memory = problem.memory_ns[op];
        let mut busy = [problem.busy_ns[op], 0.0];
        for place in self.stage.uses.at(op) {
            let place = self.stage.uses.items[place] as usize;
            if self.tier[self.stage.used[place] as usize] == Some(false) {
                memory += self.stage.slow_ns[place];
                busy[0] -= self.stage.busy_ns[place][0];
                busy[1] += self.stage.busy_ns[place][1];
            }
        }
        let alone = memory.max(problem.base_ns[op]);
        let (mut left, mut spent) = (1.0, 0.0);
        loop {
            let time = self.time_beside_moves(alone, busy);
            match self.next_arrival().filter(|wait| *wait < left * time) {
                Some(wait) => {
                    left -= wait / time;
                    spent += wait;
                    self.pass(wait);
                }
                None => {
                    self.pass(left * time);
                    return spent + left * time;
                }
            }
        }
    }

    /// Time of an op while the moves that are under way take their part of the devices.
    fn time_beside_moves(&self, alone: f64, busy: [f64; 2]) -> f64 {
        let mut taken = [0.0; 2];
        for way in (0..2).filter(|&way| self.servers[way].current.is_some()) {
            let own = self.stage.problem.taken[way];
            taken = [taken[0] + own[0], taken[1] + own[1]];
        }
        GapProblem::beside_moves_ns(alone, busy, taken)
    }

    fn rate(&self, way: usize) -> f64 {
        [self.stage.problem.promote_rate, self.stage.problem.demote_rate][way]
    }

    fn next_arrival(&self) -> Option<f64> {
        let left = |way: usize| self.servers[way].current.map(|(_, bytes)| bytes / self.rate(way));
        [left(0), left(1)].into_iter().flatten().reduce(f64::min)
    }

    fn pass(&mut self, ns: f64) {
        for way in [1, 0] {
            let moved = ns * self.rate(way);
            if let Some((job, left)) = &mut self.servers[way].current {
                *left -= moved;
                if *left <= ARRIVED_BYTES {
                    let tensor = self.choice.moves[job.step as usize].tensor as usize;
                    self.servers[way].current = None;
                    self.travels[tensor] = None;
                    self.tier[tensor] = Some(way == 0);
                    self.free += if way == 1 { self.stage.problem.tensors[tensor].size_bytes } else { 0 };
                }
            }
        }
        self.serve();
    }

    /// Gives idle servers work; those that make room first.
    fn serve(&mut self) {
        for way in [1, 0] {
            while self.servers[way].current.is_none() {
                let Some(&job) = self.servers[way].queue.front() else { break };
                let tensor = self.choice.moves[job.step as usize].tensor as usize;
                let size = self.stage.problem.tensors[tensor].size_bytes;
                let needless = self.tier[tensor].is_none_or(|fast| fast == (way == 0));
                if !needless && self.travels[tensor].is_some() {
                    break;
                }
                if needless || way == 0 && job.due <= self.now {
                    self.servers[way].queue.pop_front();
                    continue;
                }
                if way == 0 && size > self.free {
                    break;
                }
                self.free -= if way == 0 { size } else { 0 };
                self.servers[way].queue.pop_front();
                self.travels[tensor] = Some(if way == 0 { Way::In } else { Way::Out });
                self.servers[way].current = Some((job, f64_of(size)));
            }
        }
    }

    fn die(&mut self, tensor: u32) {
        let tensor = tensor as usize;
        let size = self.stage.problem.tensors[tensor].size_bytes;
        let travels = self.travels[tensor].take();
        if let Some(way) = travels {
            self.servers[way as usize].current = None;
        }
        let held = self.tier[tensor].take() == Some(true) || travels == Some(Way::In);
        self.free += if held { size } else { 0 };
    }
}
