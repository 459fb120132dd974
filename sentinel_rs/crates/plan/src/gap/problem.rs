//! What the search knows of a step: costs per op, tensors with their uses, and the speed of moves.

/// A step as the search sees it.
///
/// An op takes `max(base_ns, memory_ns + what its slow uses add)`.
#[derive(Clone, Debug, PartialEq)]
pub struct GapProblem {
    /// By op, its time when everything it touches is fast, in nanoseconds.
    pub base_ns: Vec<f64>,
    /// By op, its memory time when everything it touches is fast; at most `base_ns`.
    pub memory_ns: Vec<f64>,
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
    /// Whether a tensor may travel beside a use: true where moves are issued at each op, false where a whole layer counts
    /// as one op and the use may be anywhere in it.
    pub travel_beside_uses: bool,
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
    /// Its uses, ascending by op, one per op.
    pub uses: Vec<GapUse>,
}

impl GapTensor {
    /// Position from which the tensor may travel in a gap that begins at `gap_start`: where it may travel beside uses, beside
    /// the one before the gap, but never beside its birth, because moves are issued when an op begins, for what is there.
    pub(super) fn first_travel(&self, gap_start: usize, beside_uses: bool) -> usize {
        let at_birth = !self.persistent && gap_start == self.birth_op as usize + 1;
        gap_start - usize::from(beside_uses && !at_birth)
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
