//! Scaling of hand-made steps whose every figure is known for every batch.

use super::{scale, Recorded, ScaleError};
use crate::{fold, FoldError};
use proptest::prelude::*;
use trace::{Access, Buffer, LayerSource, Op, Origin, StepTrace};

fn op(kernel: u32, name: &str, start_ns: u64, time_ns: u64, predecessors: &[u32]) -> Op {
    Op {
        kernel,
        name: name.into(),
        kind: "Kind".into(),
        layer: 0,
        start_ns,
        end_ns: start_ns + time_ns,
        predecessors: predecessors.to_vec(),
    }
}

fn buffer(origin: Origin, size_bytes: u64, death_op: Option<u32>, accesses: &[(u32, bool, u64)]) -> Buffer {
    let accesses = accesses.iter().map(|&(op, write, bytes)| Access { op, write, bytes }).collect();
    Buffer { size_bytes, origin, death_op, temporary: false, accesses }
}

fn temporary(op: u32, ordinal: u32, size_bytes: u64) -> Buffer {
    Buffer { size_bytes, origin: Origin::Step { op, ordinal }, death_op: Some(op), temporary: true, accesses: vec![] }
}

/// Three operations: `conv` makes an activation, a temporary that grows and one per example; `norm` reads the activation and
/// makes another; `update` writes the weights.
fn step(batch: u32) -> StepTrace {
    let b = u64::from(batch);
    let born = |op, ordinal| Origin::Step { op, ordinal };
    let per_example = (0..batch).map(|n| temporary(0, 2 + n, 8192));
    let mut buffers = vec![
        buffer(Origin::Persistent, 6000, None, &[(0, false, 6000), (2, false, 6000), (2, true, 6000)]),
        buffer(Origin::External, 100 * b, None, &[(0, false, 100 * b)]),
        buffer(born(0, 0), 4096 * b, Some(1), &[(0, true, 4096 * b), (1, false, 4096 * b)]),
        temporary(0, 1, 50_000 + 1000 * b),
    ];
    buffers.extend(per_example);
    buffers.push(buffer(born(1, 0), 5000 * b + 96, Some(2), &[(1, true, 5000 * b), (2, false, 5000 * b)]));
    let conv_ns = 1000 + 300 * b;
    let norm_ns = 50 + 20 * b;
    let norm_start = 10 + conv_ns + 5;
    let update_start = norm_start + norm_ns + 7;
    StepTrace {
        counts: None,
        tensorflow_version: "1.13.1".into(),
        step_number: 10,
        intra_op_threads: 2,
        inter_op_threads: 2,
        layer_source: LayerSource::Marked,
        ops: vec![
            op(0, "conv", 10, conv_ns, &[]),
            op(1, "norm", norm_start, norm_ns, &[0]),
            op(2, "update", update_start, 400, &[0, 1]),
        ],
        buffers,
    }
}

fn recorded(step: &StepTrace, batch: u32) -> Recorded<'_> {
    Recorded { step, batch }
}

fn scaled(first: u32, second: u32, batch: u32) -> StepTrace {
    scale(recorded(&step(first), first), recorded(&step(second), second), batch).unwrap()
}

/// `step` with its operations in the order of `order`, an index into the old ones each.
fn reordered(step: &StepTrace, order: &[u32]) -> StepTrace {
    let new = |old: u32| u32::try_from(order.iter().position(|&op| op == old).unwrap()).unwrap();
    let mut moved = step.clone();
    moved.ops = order.iter().map(|&old| step.ops[old as usize].clone()).collect();
    for op in &mut moved.ops {
        op.predecessors.iter_mut().for_each(|p| *p = new(*p));
    }
    for buffer in &mut moved.buffers {
        if let Origin::Step { op, .. } = &mut buffer.origin {
            *op = new(*op);
        }
        buffer.death_op = buffer.death_op.map(new);
        buffer.accesses.iter_mut().for_each(|access| access.op = new(access.op));
        buffer.accesses.sort_by_key(|access| access.op);
    }
    moved
}

#[test]
fn a_step_that_is_linear_in_the_batch_is_foretold_exactly() {
    for (first, second, batch) in [(4, 8, 6), (4, 8, 16), (4, 8, 2), (8, 4, 100), (3, 64, 64), (3, 64, 3)] {
        assert_eq!(scaled(first, second, batch), step(batch), "{first}, {second} -> {batch}");
    }
}

#[test]
fn weights_and_scratch_of_a_fixed_size_stay() {
    let far = scaled(4, 8, 4000);
    assert_eq!(far.buffers[0], step(4).buffers[0]);
    assert!(far.buffers.iter().filter(|b| b.temporary).skip(1).all(|b| b.size_bytes == 8192));
}

#[test]
fn another_order_of_operations_is_no_difference() {
    let mut small = step(4);
    // Independent of the others: one recording has it last, the other first.
    small.ops.push(op(9, "other", small.ops[2].end_ns, 30, &[]));
    let mut large = step(8);
    large.ops.push(op(9, "other", large.ops[2].end_ns, 50, &[]));
    let large = reordered(&large, &[3, 0, 1, 2]);
    let result = scale(recorded(&small, 4), recorded(&large, 8), 5).unwrap();
    assert_eq!(result.ops[3].end_ns - result.ops[3].start_ns, 35);
    assert_eq!(result.buffers, step(5).buffers);
}

#[test]
fn an_output_written_over_an_input_is_no_difference() {
    let small = step(4);
    let mut large = step(8);
    // `norm` works in the buffer of `conv` instead of one of its own.
    let own = large.buffers.pop().unwrap();
    let activation = &mut large.buffers[2];
    activation.size_bytes = own.size_bytes;
    activation.death_op = own.death_op;
    activation.accesses.extend(own.accesses);
    let result = scale(recorded(&small, 4), recorded(&large, 8), 5).unwrap();
    let (made, expected) = (result.buffers.last().unwrap(), step(5));
    let expected = expected.buffers.last().unwrap();
    assert_eq!(made.accesses, expected.accesses);
    // The 96 bytes of padding have no second figure; they count as a share.
    assert!(made.size_bytes.abs_diff(expected.size_bytes) < 100);
}

#[test]
fn a_duration_that_only_noise_made_shrink_never_becomes_negative() {
    let (mut small, large) = (step(4), step(8));
    small.ops[2].end_ns += 300;
    let result = scale(recorded(&small, 4), recorded(&large, 8), 1000).unwrap();
    assert_eq!(result.ops[2].end_ns - result.ops[2].start_ns, 400);
}

#[test]
fn pauses_stay_and_overlaps_keep_their_order() {
    let overlapping = |batch| {
        let mut step = step(batch);
        step.ops[1].start_ns = step.ops[0].start_ns + 1;
        step.ops[1].end_ns = step.ops[1].start_ns + 20;
        step
    };
    let result = scale(recorded(&overlapping(4), 4), recorded(&overlapping(8), 8), 2).unwrap();
    assert!(result.ops.windows(2).all(|pair| pair[0].start_ns <= pair[1].start_ns));
    assert_eq!(result.ops[1].start_ns, overlapping(4).ops[1].start_ns);
}

fn refused(change: impl Fn(&mut StepTrace)) -> String {
    let (small, mut large) = (step(4), step(8));
    change(&mut large);
    scale(recorded(&small, 4), recorded(&large, 8), 6).unwrap_err().to_string()
}

#[test]
fn the_first_difference_is_named() {
    let of_one_graph = "the steps are not of one graph; first difference: ";
    let cases = [
        (refused(|s| s.ops[1].name = "relu".into()), "no such operation in the first, ops[1] relu (Kind) in the second"),
        (refused(|s| s.ops[1].kind = "Relu".into()), "ops[1] norm (Kind) in the first, ops[1] norm (Relu) in the second"),
        (
            refused(|s| s.ops.push(op(3, "more", 1 << 20, 1, &[]))),
            "no such operation in the first, ops[3] more (Kind) in the second",
        ),
        (
            refused(|s| s.ops[2].predecessors = vec![1]),
            "ops[2] update (Kind) waits for 2 operations in the first, \
             ops[2] update (Kind) waits for 1 operations in the second",
        ),
        (
            refused(|s| s.buffers[1].accesses.clear()),
            "no buffer used alike in the first, buffers[1], 800 bytes from before the step, used 0 times, first by nobody \
             in the second",
        ),
        (
            refused(|s| s.buffers.last_mut().unwrap().accesses.truncate(1)),
            "ops[2] update (Kind) reads 1 tensors that the other has no partner for in the first, \
             ops[2] update (Kind) reads 0 tensors that the other has no partner for in the second",
        ),
    ];
    for (said, expected) in cases {
        assert_eq!(said.strip_prefix(of_one_graph), Some(expected));
    }
}

#[test]
fn what_cannot_be_compared_is_refused_by_name() {
    let said = refused(|s| s.intra_op_threads = 1);
    assert_eq!(said, "the steps are not comparable: intra_op_threads is 2 in the first and 1 in the second");
    let said = refused(|s| s.layer_source = LayerSource::Inferred);
    assert_eq!(said, "the steps are not comparable: layer_source is marked in the first and inferred in the second");
    let said = refused(|s| s.ops[0].end_ns = 0);
    assert!(said.starts_with("the second step is malformed in 1 places, first: ops[0]"), "{said}");
}

#[test]
fn batches_must_differ_and_be_at_least_one() {
    let one = step(4);
    let error = |first, second, batch| scale(recorded(&one, first), recorded(&one, second), batch).unwrap_err();
    assert_eq!(error(4, 4, 8), ScaleError::SameBatch { batch: 4 });
    assert_eq!(error(0, 4, 8), ScaleError::EmptyBatch { field: "first batch" });
    assert_eq!(error(4, 0, 8), ScaleError::EmptyBatch { field: "second batch" });
    assert_eq!(error(4, 8, 0), ScaleError::EmptyBatch { field: "batch" });
}

#[test]
fn a_step_too_large_for_a_trace_is_refused() {
    let grown = |size_bytes| {
        let mut step = step(4);
        step.buffers[1].size_bytes = size_bytes;
        step
    };
    let result = scale(recorded(&grown(1 << 50), 4), recorded(&grown(1 << 51), 8), 100_000);
    assert!(matches!(result, Err(ScaleError::Malformed { which: "scaled", .. })), "{result:?}");
}

#[test]
fn a_batch_of_more_temporaries_than_memory_holds_is_refused_before_they_are_made() {
    let (small, large) = (step(4), step(8));
    let said = |batch| scale(recorded(&small, 4), recorded(&large, 8), batch).unwrap_err().to_string();
    // One per example, and 13 buffers and accesses that are there for every batch.
    let events = u64::from(u32::MAX) + 13;
    let expected = format!(
        "batch = 4294967295: its step would have {events} buffers and accesses, \
         accepted are batches whose step has at most 10000000"
    );
    assert_eq!(said(u32::MAX), expected);
    assert!(said(9_999_988).starts_with("batch = 9999988: its step would have 10000001 "));
    // Accesses count as well: the temporary of `conv` is written and read more often with every example.
    let reused = |batch: u32| {
        let mut step = step(batch);
        let of = |nth: u32| Access { op: 0, write: nth % 2 == 0, bytes: 1000 };
        step.buffers[3].size_bytes = 50_000;
        step.buffers[3].accesses = (0..2 * batch).map(of).collect();
        step.buffers.retain(|buffer| buffer.size_bytes != 8192);
        super::number(&mut step.buffers, &step.ops);
        step
    };
    let result = scale(recorded(&reused(4), 4), recorded(&reused(8), 8), u32::MAX);
    assert!(matches!(result, Err(ScaleError::TooLarge { events, .. }) if events > 10_000_000), "{result:?}");
}

proptest! {
    #[test]
    fn whatever_the_sizes_and_times_the_result_is_a_step_that_folds(
        sizes in prop::collection::vec(0u64..1 << 40, 8), times in prop::collection::vec(0u64..1 << 30, 6),
        first in 1u32..300, more in 1u32..300, batch in 1u32..10_000,
    ) {
        let shaped = |offset: usize| {
            let mut step = step(1);
            for (buffer, &size) in step.buffers.iter_mut().zip(&sizes[offset..]) {
                buffer.size_bytes = size;
                buffer.accesses.iter_mut().for_each(|access| access.bytes = access.bytes.min(size));
            }
            let mut now = 0;
            for (op, &time) in step.ops.iter_mut().zip(&times[offset.min(3)..]) {
                (op.start_ns, op.end_ns) = (now, now + time);
                now += time;
            }
            super::number(&mut step.buffers, &step.ops);
            step
        };
        let (a, b) = (shaped(0), shaped(3));
        let result = scale(recorded(&a, first), recorded(&b, first + more), batch).unwrap();
        prop_assert!(result.violations().is_empty());
        let folded = fold(&result);
        // A batch of thousands of such steps may be more than a step can be.
        let too_much = matches!(folded, Err(FoldError::TooLarge { .. } | FoldError::TouchesTooMuch { .. }));
        prop_assert!(too_much || folded.is_ok());
    }
}
