//! The policy `gap` in the simulator: a workload and its costs as the search sees them, and its choice as a schedule.

use crate::workload::to_f64;
use crate::{lower_bound, Bound, BoundEffort, Costs, Piece, PieceMove, Schedule, Setting, Workload};
use plan::{gap_choice, GapChoice, GapProblem, GapTensor, Way};
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
    let mut buffers = Vec::new();
    let budget = i64::try_from(setting.fast_budget_bytes()).unwrap_or(i64::MAX);
    let room = vec![budget; workload.ops.len()];
    let mut problem = GapProblem::of_ops(&workload.profile, costs, setting.migration(), room);
    for (index, facts) in workload.profile.buffers.iter().enumerate() {
        if facts.class == Class::External || facts.size_bytes == 0 {
            continue;
        }
        let parts = facts.size_bytes.div_ceil(grain_bytes.max(1)).max(1);
        let mut rest = facts.size_bytes;
        for part in 0..parts {
            let len_bytes = rest / (parts - part);
            rest -= len_bytes;
            let share = to_f64(len_bytes) / to_f64(facts.size_bytes);
            buffers.push(u32::try_from(index).unwrap_or(u32::MAX));
            problem.tensors.push(GapTensor::part(facts, costs, below.clone(), len_bytes, share));
        }
    }
    (problem, buffers)
}

/// The schedule of the policy `gap`.
#[must_use]
pub fn gap_schedule(workload: &Workload, costs: &Costs, setting: &Setting) -> Schedule {
    let (problem, buffers) = gap_problem(
        workload,
        costs,
        setting,
        setting.fast_budget_bytes() / std::env::var("GRAINS").ok().and_then(|v| v.parse().ok()).unwrap_or(GRAINS),
    );
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
