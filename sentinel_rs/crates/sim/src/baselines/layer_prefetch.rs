//! Layer prefetch: after "TierTrain: Proactive Memory Tiering for
//! CPU-Based DNN Training", ISMM 2025. A layer's saved tensors leave fast memory when the layer is over and come back a
//! fixed number of layers before the layer that needs them next.
//!
//! Simplified: the number of layers is `LOOKAHEAD_LAYERS` for every model; persistent buffers stay where first touch puts
//! them; what finds no room begins in slow memory and what comes too late is read from there.

use crate::schedule::{Piece, PieceMove, Schedule};
use crate::Workload;
use profile::Class;
use trace::{Tier, PAGE_BYTES};

/// Layers between the order to fetch and the use.
const LOOKAHEAD_LAYERS: u32 = 2;

/// The schedule. Layers that are idle for more than the time to leave and come back are worth a move.
#[must_use]
pub fn layer_prefetch(workload: &Workload, fast_budget_bytes: u64) -> Schedule {
    let mut schedule = Schedule::default();
    let mut persistent_room = fast_budget_bytes / 2;
    for (index, facts) in workload.profile.buffers.iter().enumerate() {
        if facts.class == Class::External {
            continue;
        }
        let stays_slow = facts.class == Class::Persistent && facts.size_bytes > persistent_room;
        if facts.class == Class::Persistent && !stays_slow {
            persistent_room -= facts.size_bytes;
        }
        let birth_tier = if stays_slow { Tier::SLOW } else { Tier::FAST };
        let piece = u32::try_from(schedule.pieces.len()).unwrap_or(u32::MAX);
        let buffer = u32::try_from(index).unwrap_or(u32::MAX);
        schedule.pieces.push(Piece { buffer, len_bytes: facts.size_bytes, birth_tier });
        if facts.class == Class::LongLived && facts.size_bytes >= PAGE_BYTES {
            move_over_gaps(workload, &facts.layers, piece, &mut schedule.moves);
        }
    }
    schedule.moves.sort_by_key(|step| step.issue_op);
    schedule
}

fn move_over_gaps(workload: &Workload, layers: &[u32], piece: u32, moves: &mut Vec<PieceMove>) {
    let first_op = |layer: u32| workload.profile.layers[layer as usize].first_op;
    for pair in layers.windows(2) {
        let (used, next) = (pair[0], pair[1]);
        if next - used > LOOKAHEAD_LAYERS + 1 {
            let leaves = first_op(used + 1);
            let comes = first_op(next - LOOKAHEAD_LAYERS);
            moves.push(PieceMove { piece, to: Tier::SLOW, issue_op: leaves, due_op: comes });
            moves.push(PieceMove { piece, to: Tier::FAST, issue_op: comes, due_op: first_op(next) });
        }
    }
}
