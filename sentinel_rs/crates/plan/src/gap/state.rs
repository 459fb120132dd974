//! The account of a partial plan: free bytes per op, free bandwidth per op and direction, memory time per op.

use super::problem::GapProblem;
use super::room::Room;
use super::route::Stop;
use std::ops::Range;

/// Bytes below which a remainder of a transfer counts as nothing: rounding of the floating point account.
const CRUMB_BYTES: f64 = 0.5;

/// Ops that are passed over together when nothing may travel in any of them.
const BLOCK_OPS: usize = 64;

fn most_of(free: &[f64]) -> f64 {
    free.iter().copied().fold(0.0, f64::max)
}

fn blocks_of(free: &[f64]) -> Vec<f64> {
    free.chunks(BLOCK_OPS).map(most_of).collect()
}

/// One direction of migration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Towards fast memory.
    In,
    /// Out of fast memory.
    Out,
}

/// A transfer: what of it travels during which op. Positions at or above the op count are of the next step.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Transfer {
    pub(super) way: Way,
    /// Position and bytes, ascending.
    pub(super) pieces: Vec<(u32, f64)>,
}

impl Transfer {
    pub(super) fn first(&self) -> usize {
        self.pieces.first().map_or(0, |piece| piece.0 as usize)
    }

    pub(super) fn last(&self) -> usize {
        self.pieces.last().map_or(0, |piece| piece.0 as usize)
    }
}

/// What one tensor takes: stretches of fast memory, transfers, and slow uses.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Taken {
    /// Positions, ascending and disjoint.
    pub(super) fast: Vec<Range<usize>>,
    pub(super) transfers: Vec<Transfer>,
    /// Uses in slow memory.
    pub(super) slow: Vec<Stop>,
}

/// The account.
#[derive(Clone, Debug)]
pub(super) struct State<'a> {
    pub(super) problem: &'a GapProblem,
    room: Room,
    /// Whether what comes takes its room from the moment when its move is issued, instead of when it begins to travel, and moves make
    /// ops slower.
    pub(super) careful: bool,
    /// By op, bytes that may still travel during it: in, out.
    free: [Vec<f64>; 2],
    /// By block of ops, the most of these.
    most_free: [Vec<f64>; 2],
    pub(super) memory_ns: Vec<f64>,
    /// By tier, fast and slow, and op: time of the device.
    busy_ns: [Vec<f64>; 2],
    /// By op, bytes that could travel during it if nothing else did: in, out.
    able: [Vec<f64>; 2],
    /// By op, its time as it stands, with what the moves beside it take from it.
    pub(super) op_ns: Vec<f64>,
    /// The sum of these, but for rounding.
    pub(super) total_ns: f64,
}

impl<'a> State<'a> {
    /// Nothing taken; an op offers bandwidth for `clock_ns` of its time.
    pub(super) fn new(problem: &'a GapProblem, clock_ns: &[f64], careful: bool) -> State<'a> {
        let at = |rate: f64| -> Vec<f64> { clock_ns.iter().map(|ns| ns * rate).collect() };
        let free = [at(problem.promote_rate), at(problem.demote_rate)];
        let alone_ns = problem.base_ns.iter().zip(&problem.memory_ns).map(|(base, memory)| base.max(*memory));
        let op_ns: Vec<f64> = alone_ns.collect();
        State {
            problem,
            room: Room::new(&problem.room_bytes),
            careful,
            most_free: [blocks_of(&free[0]), blocks_of(&free[1])],
            able: free.clone(),
            free,
            memory_ns: problem.memory_ns.clone(),
            busy_ns: [problem.busy_ns.clone(), vec![0.0; problem.busy_ns.len()]],
            total_ns: op_ns.iter().sum(),
            op_ns,
        }
    }

    pub(super) fn ops(&self) -> usize {
        self.problem.base_ns.len()
    }

    /// What `ns` more memory time would add to the op.
    pub(super) fn growth(&self, op: usize, ns: f64) -> f64 {
        let slack = self.problem.base_ns[op] - self.memory_ns[op];
        (ns - slack.max(0.0)).max(0.0)
    }

    /// Works out anew what an op takes.
    fn time(&mut self, op: usize) {
        let alone_ns = self.problem.base_ns[op].max(self.memory_ns[op]);
        let drag_ns = |way: usize| {
            let travels = self.able[way][op] - self.free[way][op];
            if travels > CRUMB_BYTES {
                travels * self.drag(way, op)
            } else {
                0.0
            }
        };
        let now_ns = alone_ns + drag_ns(0) + drag_ns(1);
        self.total_ns += now_ns - self.op_ns[op];
        self.op_ns[op] = now_ns;
    }

    /// What a byte that travels during an op adds to its time, in nanoseconds: while it travels, the op is as slow as the part of
    /// the devices that is left makes it.
    pub(super) fn drag(&self, way: usize, op: usize) -> f64 {
        let alone_ns = self.problem.base_ns[op].max(self.memory_ns[op]);
        let busy_ns = [self.busy_ns[0][op], self.busy_ns[1][op]];
        let beside_ns = GapProblem::beside_moves_ns(alone_ns, busy_ns, self.problem.taken[way]);
        if self.careful && beside_ns > alone_ns {
            (1.0 - alone_ns / beside_ns) / [self.problem.promote_rate, self.problem.demote_rate][way]
        } else {
            0.0
        }
    }

    /// Least free bytes over positions, which may reach into the next step.
    pub(super) fn least(&self, range: Range<usize>) -> i64 {
        let ops = self.ops();
        if range.end <= ops {
            self.room.least(range)
        } else if range.start >= ops {
            self.room.least(range.start - ops..range.end - ops)
        } else {
            self.room.least(range.start..ops).min(self.room.least(0..range.end - ops))
        }
    }

    fn add_room(&mut self, range: Range<usize>, bytes: i64) {
        let ops = self.ops();
        if range.end <= ops {
            self.room.add(range, bytes);
        } else if range.start >= ops {
            self.room.add(range.start - ops..range.end - ops, bytes);
        } else {
            self.room.add(range.start..ops, bytes);
            self.room.add(0..range.end - ops, bytes);
        }
    }

    /// The earliest way out (or the latest way in) for `bytes` within the positions.
    pub(super) fn find(&self, way: Way, within: Range<usize>, gap_start: usize, bytes: i64) -> Option<Transfer> {
        let ops = self.ops();
        let (free, most) = (&self.free[way as usize], &self.most_free[way as usize]);
        let mut rest = f64_of(bytes);
        let mut pieces = Vec::new();
        let mut visit = |position: usize| {
            let piece = free[position % ops].min(rest);
            if piece > CRUMB_BYTES || piece == rest {
                pieces.push((u32::try_from(position).unwrap_or(u32::MAX), piece));
                rest -= piece;
            }
            rest <= 0.0
        };
        let mut done = false;
        match way {
            Way::Out => {
                let mut at = within.start;
                while at < within.end && !done {
                    if at % ops % BLOCK_OPS == 0 && most[at % ops / BLOCK_OPS] <= CRUMB_BYTES {
                        at += BLOCK_OPS.min(ops - at % ops);
                    } else {
                        done = visit(at);
                        at += 1;
                    }
                }
            }
            Way::In => {
                let mut end = within.end;
                while end > within.start && !done {
                    let last = (end - 1) % ops;
                    let whole = last % BLOCK_OPS == BLOCK_OPS - 1 || last == ops - 1;
                    if whole && most[last / BLOCK_OPS] <= CRUMB_BYTES {
                        end -= (last % BLOCK_OPS + 1).min(end);
                    } else {
                        done = visit(end - 1);
                        end -= 1;
                    }
                }
            }
        }
        if !done {
            return None;
        }
        pieces.sort_unstable_by_key(|piece| piece.0);
        let transfer = Transfer { way, pieces };
        let held = match way {
            // Before the gap the tensor is in use, and held anyway.
            Way::Out => gap_start..transfer.last() + 1,
            Way::In => self.comes_at(&transfer)..within.end,
        };
        (self.least(held) >= bytes).then_some(transfer)
    }

    /// Position from which a transfer towards fast memory takes room there.
    pub(super) fn comes_at(&self, transfer: &Transfer) -> usize {
        if self.careful {
            self.problem.issue.last(transfer.first())
        } else {
            transfer.first()
        }
    }

    /// Works out anew what the blocks that a transfer touches have free.
    fn look_again(&mut self, transfer: &Transfer) {
        let (ops, way) = (self.ops(), transfer.way as usize);
        let mut last = usize::MAX;
        for &(position, _) in &transfer.pieces {
            let block = position as usize % ops / BLOCK_OPS;
            if block != last {
                let end = ops.min((block + 1) * BLOCK_OPS);
                self.most_free[way][block] = most_of(&self.free[way][block * BLOCK_OPS..end]);
                last = block;
            }
        }
    }

    /// Takes what `taken` says for a tensor of that size, or gives it back.
    pub(super) fn book(&mut self, size_bytes: i64, taken: &Taken, gives_back: bool) {
        let sign = if gives_back { -1.0 } else { 1.0 };
        let bytes = if gives_back { size_bytes } else { -size_bytes };
        for range in &taken.fast {
            self.add_room(range.clone(), bytes);
        }
        let ops = self.ops();
        for transfer in &taken.transfers {
            for &(position, piece) in &transfer.pieces {
                self.free[transfer.way as usize][position as usize % ops] -= piece * sign;
            }
            self.look_again(transfer);
        }
        for stop in &taken.slow {
            let op = stop.op as usize;
            self.memory_ns[op] += stop.slow_ns * sign;
            self.busy_ns[0][op] -= stop.busy_ns[0] * sign;
            self.busy_ns[1][op] += stop.busy_ns[1] * sign;
            self.time(op);
        }
        for transfer in &taken.transfers {
            for &(position, _) in &transfer.pieces {
                self.time(position as usize % ops);
            }
        }
    }
}

/// Bytes as a float, exact up to 2^53.
#[allow(clippy::cast_precision_loss)]
pub(super) fn f64_of(bytes: i64) -> f64 {
    bytes as f64
}
