//! What the search knows of a step: costs per op, tensors with their uses, and the speed of moves.

use crate::costs::Costs;
use crate::machine::bytes_f64;
use crate::Machine;
use profile::{BufferFacts, BufferUse, Class, Profile};
use std::ops::RangeInclusive;
use trace::Tier;

/// Speed of moves in bytes per recorded nanosecond, which is 10^9 bytes per second where the recording machine is the one
/// that is planned for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Migration {
    /// Towards fast memory.
    pub promote_rate: f64,
    /// Out of fast memory.
    pub demote_rate: f64,
}

impl Migration {
    /// As fast as the machine says.
    #[must_use]
    pub fn of(machine: &Machine) -> Migration {
        Migration { promote_rate: machine.promote_gbps, demote_rate: machine.demote_gbps }
    }
}

/// Plans that one profile gets, because moves turn out to be faster or slower than assumed.
pub const PLANS_MAX: u32 = 4;
/// A measured speed that differs from the assumed one by less than this share changes nothing.
const SPEED_OFF: f64 = 0.2;
/// Nothing is learnt about a direction in which less time than this was spent.
const MEASURED_MIN_NS: f64 = 1e6;

/// What moves did: towards fast memory, and out of it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct MoveTally {
    /// Bytes that arrived.
    pub moved_bytes: [f64; 2],
    /// Time in which a move was under way, in nanoseconds.
    pub busy_ns: [f64; 2],
}

impl Migration {
    /// The measured speeds, when one of them is far from what was assumed.
    #[must_use]
    pub fn corrected(self, tally: &MoveTally) -> Option<Migration> {
        let assumed = [self.promote_rate, self.demote_rate];
        let measured = |way: usize| {
            let (bytes, ns) = (tally.moved_bytes[way], tally.busy_ns[way]);
            if ns >= MEASURED_MIN_NS && bytes > 0.0 {
                bytes / ns
            } else {
                assumed[way]
            }
        };
        let [promote_rate, demote_rate] = [measured(0), measured(1)];
        let off = |way: usize, rate: f64| (rate / assumed[way] - 1.0).abs() > SPEED_OFF;
        (off(0, promote_rate) || off(1, demote_rate)).then_some(Migration { promote_rate, demote_rate })
    }
}

/// A step as the search sees it.
///
/// An op takes `max(base_ns, memory_ns + what its slow uses add)`.
#[derive(Clone, Debug, PartialEq)]
pub struct GapProblem {
    /// By op, its time when everything it touches is fast, in nanoseconds.
    pub base_ns: Vec<f64>,
    /// By op, its memory time when everything it touches is fast; at most `base_ns`.
    pub memory_ns: Vec<f64>,
    /// By op, time of the fast device when everything it touches is fast, in nanoseconds.
    pub busy_ns: Vec<f64>,
    /// By op, fast bytes that tensors of the search may take.
    pub room_bytes: Vec<i64>,
    /// What may be in either tier.
    pub tensors: Vec<GapTensor>,
    /// Bytes per nanosecond towards fast memory.
    pub promote_rate: f64,
    /// Bytes per nanosecond out of fast memory.
    pub demote_rate: f64,
    /// By direction (in, out) and tier (fast, slow): the part of the device's time that a move under way takes.
    pub taken: [[f64; 2]; 2],
    /// At whose begin moves may be issued.
    pub issue: Issue,
}

/// The ops at whose begin moves may be issued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issue {
    /// By op, the least number of such an op at or after it, plus one step for an op after the last of them.
    next: Vec<u32>,
    /// By op, the greatest number of such an op at or before it.
    last: Vec<u32>,
}

impl Issue {
    /// At every op of a step of `ops` ops.
    #[must_use]
    pub fn at_ops(ops: usize) -> Issue {
        Issue::at(ops, |_| true)
    }

    /// At the first op of each layer; the step's first op is one always.
    #[must_use]
    pub fn at_layers(ops: usize, layer_first_op: &[u32]) -> Issue {
        Issue::at(ops, |op| layer_first_op.binary_search(&op).is_ok())
    }

    fn at(ops: usize, is: impl Fn(u32) -> bool) -> Issue {
        let number = |index: usize| u32::try_from(index).unwrap_or(u32::MAX);
        let mut last = Vec::with_capacity(ops);
        for op in 0..number(ops) {
            let before = last.last().copied().unwrap_or(0);
            last.push(if is(op) { op } else { before });
        }
        let mut next = vec![number(ops); ops];
        for op in (0..ops).rev() {
            let own = number(op);
            next[op] = if op == 0 || last[op] == own { own } else { next.get(op + 1).copied().unwrap_or(number(ops)) };
        }
        Issue { next, last }
    }

    /// The first position at or after this one where a move may be issued; positions go on into the next step.
    pub(super) fn next(&self, position: usize) -> usize {
        let ops = self.next.len();
        position / ops * ops + self.next[position % ops] as usize
    }

    /// The last position at or before this one where a move may be issued.
    pub(super) fn last(&self, position: usize) -> usize {
        let ops = self.last.len();
        position / ops * ops + self.last[position % ops] as usize
    }
}

/// One tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct GapTensor {
    /// Bytes it takes in either tier.
    pub size_bytes: i64,
    /// First op at which it is alive.
    pub birth_op: u32,
    /// Last op at which it is alive.
    pub death_op: u32,
    /// Exists across steps: its last gap leads to its first use of the next step.
    pub persistent: bool,
    /// Is born fast whenever there is room, whatever is decided, because the heap serves it.
    pub takes_what_is_free: bool,
    /// Its uses, ascending by op, one per op.
    pub uses: Vec<GapUse>,
}

impl GapTensor {
    /// Position from which the tensor may travel in a gap that begins at `gap_start`: beside the use before the gap, but
    /// never beside its birth, because moves are issued when an op begins, for what is there.
    pub(super) fn first_travel(&self, gap_start: usize, issue: &Issue) -> usize {
        let at_birth = !self.persistent && gap_start == self.birth_op as usize + 1;
        issue.next(gap_start - usize::from(!at_birth))
    }
}

/// One use.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GapUse {
    /// Op index.
    pub op: u32,
    /// What the use adds to the op's memory time when the tensor is slow, in nanoseconds.
    pub slow_ns: f64,
    /// Device time of the use when the tensor is fast, and when it is slow, in nanoseconds.
    pub busy_ns: [f64; 2],
}

/// Moves take at most this part of a device from an op.
const TAKEN_MAX: f64 = 0.5;

impl GapProblem {
    /// Time of an op that takes `alone_ns` without moves and keeps the devices busy for so long, while moves take these parts
    /// of the devices.
    pub(super) fn beside_moves_ns(alone_ns: f64, busy_ns: [f64; 2], taken: [f64; 2]) -> f64 {
        let beside = |tier: usize| busy_ns[tier] / (1.0 - taken[tier].min(TAKEN_MAX));
        alone_ns.max(beside(0)).max(beside(1))
    }

    /// The step of a profile without tensors: costs of its ops, room for `room_bytes` at each of them.
    #[must_use]
    pub fn of_ops(profile: &Profile, costs: &Costs, migration: Migration, room_bytes: Vec<i64>) -> GapProblem {
        let firsts: Vec<u32> = profile.layers.iter().map(|layer| layer.first_op).collect();
        GapProblem {
            base_ns: costs.ops.iter().map(|op| op.base_ns).collect(),
            memory_ns: costs.ops.iter().map(|op| op.base_ns - op.slack_ns).collect(),
            busy_ns: busy_ns(profile, costs),
            room_bytes,
            tensors: Vec::new(),
            promote_rate: migration.promote_rate,
            demote_rate: migration.demote_rate,
            taken: [
                taken_by(costs, migration.promote_rate, Tier::SLOW, Tier::FAST),
                taken_by(costs, migration.demote_rate, Tier::FAST, Tier::SLOW),
            ],
            issue: Issue::at_layers(profile.ops.len(), &firsts),
        }
    }
}

/// By op, time of the fastest device when everything is there.
fn busy_ns(profile: &Profile, costs: &Costs) -> Vec<f64> {
    let mut busy_ns = vec![0.0; costs.ops.len()];
    let fast = costs.tier(Tier::FAST);
    for facts in profile.buffers.iter().filter(|facts| facts.class != Class::External) {
        for used in &facts.uses {
            let device =
                bytes_f64(used.read_bytes) * fast.busy_read_ns + bytes_f64(used.written_bytes) * fast.busy_write_ns;
            busy_ns[used.op as usize] += costs.ops[used.op as usize].scale * device;
        }
    }
    busy_ns
}

/// Parts of the fastest device and of the one below it that a move takes; nothing where moves do not slow ops down.
fn taken_by(costs: &Costs, rate: f64, from: Tier, to: Tier) -> [f64; 2] {
    let mut taken = vec![0.0; costs.tiers.len()];
    if costs.contends {
        costs.add_move(&mut taken, rate, from, to);
    }
    [Tier::FAST, Tier::SLOW].map(|tier| taken[usize::from(tier.0)])
}

impl GapTensor {
    /// The part `share` of a buffer as a tensor of `size_bytes`; a use outside fast memory costs what the cheapest of the tiers
    /// `below` makes it.
    #[must_use]
    pub fn part(
        facts: &BufferFacts,
        costs: &Costs,
        below: RangeInclusive<usize>,
        size_bytes: u64,
        share: f64,
    ) -> GapTensor {
        let uses = facts.uses.iter().map(|used| GapUse::of(used, costs, below.clone(), share));
        GapTensor {
            size_bytes: i64::try_from(size_bytes).unwrap_or(i64::MAX),
            birth_op: facts.birth_op,
            death_op: facts.death_op,
            persistent: facts.class == Class::Persistent,
            takes_what_is_free: false,
            uses: uses.collect(),
        }
    }
}

impl GapUse {
    /// The part `share` of a use; outside fast memory it costs what the cheapest of the tiers `below` makes it.
    pub(super) fn of(used: &BufferUse, costs: &Costs, below: RangeInclusive<usize>, share: f64) -> GapUse {
        let ranked = |rank: usize| Tier(u8::try_from(rank).unwrap_or(u8::MAX));
        let slow = ranked(*below.start());
        let (op, read, written) = (used.op as usize, bytes_f64(used.read_bytes), bytes_f64(used.written_bytes));
        let extra = |tier: Tier| read * costs.extra_read_ns(op, tier) + written * costs.extra_write_ns(op, tier);
        let busy = |tier: Tier| {
            let cost = costs.tier(tier);
            costs.ops[op].scale * (read * cost.busy_read_ns + written * cost.busy_write_ns) * share
        };
        let slow_ns = below.map(|rank| extra(ranked(rank))).fold(f64::INFINITY, f64::min);
        GapUse { op: used.op, slow_ns: slow_ns * share, busy_ns: [busy(Tier::FAST), busy(slow)] }
    }
}
