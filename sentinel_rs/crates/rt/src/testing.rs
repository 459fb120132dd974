//! Steps and plans for tests.

use place::Arena;
use plan::{Plan, PoolRule};
use profile::Profile;
use std::sync::Arc;
use trace::{LayerSource, Op, StepTrace};

/// The place of a plan of nothing.
pub fn empty_arena() -> Arc<Arena> {
    let plan = Plan {
        fast_budget_bytes: 0,
        fast_needed_bytes: 0,
        unplanned_bytes: 0,
        arena_bytes: 0,
        pool_bytes: 0,
        pool_rule: PoolRule::OnDemand,
        slots: Vec::new(),
        units: Vec::new(),
        layer_first_op: vec![0],
        intervals: Vec::new(),
        may_be_late: false,
    };
    Arc::new(Arena::bind(plan, 0, &[], |_| unreachable!("there are no units")))
}

/// Kernels 0, 1, 0 and 2, of a microsecond each, in two layers.
pub fn profile() -> Profile {
    let op = |(index, kernel): (u64, u32)| Op {
        kernel,
        name: format!("op{kernel}"),
        kind: "Op".into(),
        layer: u32::try_from(index / 2).unwrap(),
        start_ns: 1000 * index,
        end_ns: 1000 * (index + 1),
        predecessors: vec![],
    };
    let trace = StepTrace {
        tensorflow_version: "1.13.1".into(),
        step_number: 1,
        intra_op_threads: 1,
        inter_op_threads: 1,
        layer_source: LayerSource::Marked,
        ops: (0..).zip([0, 1, 0, 2]).map(op).collect(),
        buffers: vec![],
        counts: None,
    };
    profile::fold(&trace).unwrap()
}
