//! The account of a partial plan: free bytes per op, free bandwidth per op and direction, memory time per op.

use super::problem::GapProblem;
use super::room::Room;
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
    /// Op and what its memory time grows by.
    pub(super) slow: Vec<(u32, f64)>,
}

/// The account.
#[derive(Clone, Debug)]
pub(super) struct State<'a> {
    pub(super) problem: &'a GapProblem,
    pub(super) room: Room,
    /// By op, bytes that may still travel during it: in, out.
    free: [Vec<f64>; 2],
    /// By block of ops, the most of these.
    most_free: [Vec<f64>; 2],
    pub(super) memory_ns: Vec<f64>,
}

impl<'a> State<'a> {
    /// Nothing taken; an op offers bandwidth for `clock_ns` of its time.
    pub(super) fn new(problem: &'a GapProblem, clock_ns: &[f64]) -> State<'a> {
        let at = |rate: f64| -> Vec<f64> { clock_ns.iter().map(|ns| ns * rate).collect() };
        let free = [at(problem.promote_rate), at(problem.demote_rate)];
        State {
            problem,
            room: Room::new(&problem.room_bytes),
            most_free: [blocks_of(&free[0]), blocks_of(&free[1])],
            free,
            memory_ns: problem.memory_ns.clone(),
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

    /// Time of each op as it stands.
    pub(super) fn op_times(&self) -> Vec<f64> {
        self.problem.base_ns.iter().zip(&self.memory_ns).map(|(base, memory)| base.max(*memory)).collect()
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
            Way::In => transfer.first()..within.end,
        };
        (self.least(held) >= bytes).then_some(transfer)
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
        for &(op, ns) in &taken.slow {
            self.memory_ns[op as usize] += ns * sign;
        }
    }
}

/// Bytes as a float, exact up to 2^53.
#[allow(clippy::cast_precision_loss)]
pub(super) fn f64_of(bytes: i64) -> f64 {
    bytes as f64
}
