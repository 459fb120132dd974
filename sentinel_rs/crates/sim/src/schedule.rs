//! What a planner decides about a step, free of how it decided: pieces of buffers, where each begins, and moves.

use crate::Workload;
use profile::Class;
use trace::Tier;

/// A part of a buffer that is in one tier at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Buffer index of the trace; not of external memory.
    pub buffer: u32,
    /// Length; the pieces of a buffer add up to its size. An access touches them in proportion to their lengths.
    pub len_bytes: u64,
    /// Tier at its birth, or for a persistent buffer before the first step.
    pub birth_tier: Tier,
}

/// One piece to one tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PieceMove {
    /// Index into `Schedule::pieces`.
    pub piece: u32,
    /// Destination.
    pub to: Tier,
    /// Op at whose begin it joins its direction's queue; moves of one op queue in the schedule's order.
    pub issue_op: u32,
    /// Op at whose begin it should have arrived; not above `issue_op`: that op of the next step. A promotion that has
    /// not begun by then is dropped, and the op reads the piece where it is. A demotion is never dropped.
    pub due_op: u32,
}

/// A plan for one step that is repeated for ever.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schedule {
    /// Pieces of every buffer but external ones; the pieces of one buffer are neighbours.
    pub pieces: Vec<Piece>,
    /// Moves, sorted by `issue_op`.
    pub moves: Vec<PieceMove>,
    /// An op whose promotions are late waits for them instead of reading from the slower tier.
    pub wait_for_promotions: bool,
    /// An op whose newborn finds no room waits for demotions under way; otherwise the newborn begins in the slowest tier.
    pub wait_for_room: bool,
}

impl Schedule {
    /// Every buffer whole, in the tier that `tier` says, without moves.
    #[must_use]
    pub fn fixed(workload: &Workload, tier: impl Fn(u32) -> Tier) -> Schedule {
        let buffers = workload.profile.buffers.iter().enumerate();
        let pieces = buffers
            .filter(|(_, facts)| facts.class != Class::External)
            .map(|(index, facts)| {
                let buffer = u32::try_from(index).unwrap_or(u32::MAX);
                Piece { buffer, len_bytes: facts.size_bytes, birth_tier: tier(buffer) }
            })
            .collect();
        Schedule { pieces, ..Schedule::default() }
    }
}
