//! The policy `gap` in the simulator: a workload and its costs as the search sees them, and its choice as a schedule.

use crate::workload::to_f64;
use crate::{lower_bound, Bound, BoundEffort, Costs, Piece, PieceMove, Schedule, Setting, Workload};
use plan::{gap_choice, GapChoice, GapProblem, GapTensor, GapUse, Way};
use profile::Class;
use trace::Tier;

/// Buffers are split into pieces of at most the budget divided by this.
const GRAINS: u64 = 64;

/// What the search sees: every buffer but external ones is a tensor; two tiers, the fastest and the slowest. Buffers are
/// split into pieces of at most `grain_bytes`; the second result is the buffer of each.
#[must_use]
pub fn gap_problem(workload: &Workload, costs: &Costs, setting: &Setting, grain_bytes: u64) -> (GapProblem, Vec<u32>) {
    let last = costs.tiers.len() - 1;
    problem_with(workload, costs, setting, grain_bytes, last..=last)
}

/// No schedule makes the step faster, whichever of the tiers below the fastest it uses.
#[must_use]
pub fn step_bound(workload: &Workload, costs: &Costs, setting: &Setting, effort: BoundEffort) -> Bound {
    let below = 1..=costs.tiers.len() - 1;
    lower_bound(&problem_with(workload, costs, setting, u64::MAX, below).0, effort)
}

/// As [`gap_problem`], with each use outside fast memory as cheap as the cheapest of the tiers `below` makes it.
fn problem_with(
    workload: &Workload,
    costs: &Costs,
    setting: &Setting,
    grain_bytes: u64,
    below: std::ops::RangeInclusive<usize>,
) -> (GapProblem, Vec<u32>) {
    let ranked = |rank: usize| Tier(u8::try_from(rank).unwrap_or(u8::MAX));
    let slowest = ranked(*below.end());
    let mut uses: Vec<Vec<GapUse>> = vec![Vec::new(); workload.profile.buffers.len()];
    for (index, op) in workload.ops.iter().enumerate() {
        for used in &op.uses {
            let extra = |tier: Tier| {
                to_f64(used.read_bytes) * costs.extra_read_ns(index, tier)
                    + to_f64(used.written_bytes) * costs.extra_write_ns(index, tier)
            };
            let slow_ns = below.clone().map(|rank| extra(ranked(rank))).fold(f64::INFINITY, f64::min);
            let busy = |tier: Tier| {
                let cost = costs.tier(tier);
                costs.ops[index].scale
                    * (to_f64(used.read_bytes) * cost.busy_read_ns + to_f64(used.written_bytes) * cost.busy_write_ns)
            };
            let op = u32::try_from(index).unwrap_or(u32::MAX);
            uses[used.buffer as usize].push(GapUse { op, slow_ns, busy_ns: [busy(Tier::FAST), busy(slowest)] });
        }
    }
    let mut buffers = Vec::new();
    let mut tensors = Vec::new();
    for (index, (facts, uses)) in workload.profile.buffers.iter().zip(uses).enumerate() {
        if facts.class == Class::External || facts.size_bytes == 0 {
            continue;
        }
        let parts = facts.size_bytes.div_ceil(grain_bytes.max(1)).max(1);
        let mut rest = facts.size_bytes;
        for part in 0..parts {
            let len_bytes = rest / (parts - part);
            rest -= len_bytes;
            let share = to_f64(len_bytes) / to_f64(facts.size_bytes);
            let uses = uses
                .iter()
                .map(|used| GapUse {
                    slow_ns: used.slow_ns * share,
                    busy_ns: used.busy_ns.map(|ns| ns * share),
                    ..*used
                })
                .collect();
            buffers.push(u32::try_from(index).unwrap_or(u32::MAX));
            tensors.push(GapTensor {
                size_bytes: i64::try_from(len_bytes).unwrap_or(i64::MAX),
                birth_op: facts.birth_op,
                death_op: facts.death_op,
                persistent: facts.class == Class::Persistent,
                uses,
            });
        }
    }
    let budget = i64::try_from(setting.fast_budget_bytes()).unwrap_or(i64::MAX);
    let problem = GapProblem {
        travel_beside_uses: true,
        base_ns: costs.ops.iter().map(|op| op.base_ns).collect(),
        memory_ns: costs.ops.iter().map(|op| op.base_ns - op.slack_ns).collect(),
        room_bytes: vec![budget; workload.ops.len()],
        tensors,
        promote_rate: setting.promote_rate,
        demote_rate: setting.demote_rate,
        taken: [
            taken_by(costs, setting.promote_rate, slowest, Tier::FAST),
            taken_by(costs, setting.demote_rate, Tier::FAST, slowest),
        ],
    };
    (problem, buffers)
}

/// Parts of the fastest and the slowest device that a move takes.
fn taken_by(costs: &Costs, rate: f64, from: Tier, to: Tier) -> [f64; 2] {
    let mut taken = vec![0.0; costs.tiers.len()];
    costs.add_move(&mut taken, rate, from, to);
    [taken[0], taken[costs.tiers.len() - 1]]
}

/// The schedule of the policy `gap`.
#[must_use]
pub fn gap_schedule(workload: &Workload, costs: &Costs, setting: &Setting) -> Schedule {
    let (problem, buffers) = gap_problem(workload, costs, setting, setting.fast_budget_bytes() / GRAINS);
    schedule_of(workload, &problem, &buffers, &gap_choice(&problem))
}

/// A choice as a schedule.
fn schedule_of(workload: &Workload, problem: &GapProblem, buffers: &[u32], choice: &GapChoice) -> Schedule {
    let tier = |fast: bool| if fast { Tier::FAST } else { Tier::SLOW };
    let mut schedule = Schedule { wait_for_room: choice.waits_for_room, ..Schedule::default() };
    let mut next = 0;
    let mut piece_of = vec![0; buffers.len()];
    for Piece { buffer, len_bytes, .. } in Schedule::fixed(workload, |_| Tier::FAST).pieces {
        let mut piece = Piece { buffer, len_bytes, birth_tier: Tier::FAST, pooled: false };
        if buffers.get(next) != Some(&buffer) {
            schedule.pieces.push(piece);
        }
        while buffers.get(next) == Some(&buffer) {
            piece.len_bytes = u64::try_from(problem.tensors[next].size_bytes).unwrap_or(0);
            piece.birth_tier = tier(choice.born_fast[next]);
            piece_of[next] = u32::try_from(schedule.pieces.len()).unwrap_or(u32::MAX);
            schedule.pieces.push(piece);
            next += 1;
        }
    }
    schedule.moves = choice
        .moves
        .iter()
        .map(|step| PieceMove {
            piece: piece_of[step.tensor as usize],
            to: tier(step.way == Way::In),
            issue_op: step.first_op,
            due_op: step.due_op,
        })
        .collect();
    schedule
}
