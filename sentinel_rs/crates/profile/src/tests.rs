//! The fold on hand-made traces, and what every fold of a random trace keeps.

use crate::{
    fold, infer_layers, Class, FoldError, SlotKey, SCRATCH_MAX_BYTES, SCRATCH_MIN_COUNT, STEP_BYTES_MAX,
    TOUCHED_BYTES_MAX,
};
use proptest::prelude::*;
use trace::{Access, Buffer, LayerSource, Op, Origin, StepTrace, SLOT_MIN_BYTES};

fn op(kernel: u32, name: &str, layer: u32, time_ns: u64) -> Op {
    Op { kernel, name: name.into(), kind: "Op".into(), layer, start_ns: 0, end_ns: time_ns, predecessors: vec![] }
}

fn trace_of(ops: Vec<Op>) -> StepTrace {
    StepTrace {
        counts: None,
        tensorflow_version: "1.13.1".into(),
        step_number: 10,
        intra_op_threads: 1,
        inter_op_threads: 2,
        layer_source: LayerSource::Marked,
        ops,
        buffers: vec![],
    }
}

fn born(op: u32, ordinal: u32, size_bytes: u64, death_op: Option<u32>) -> Buffer {
    let origin = Origin::Step { op, ordinal };
    Buffer { size_bytes, origin, death_op, temporary: death_op == Some(op), accesses: vec![] }
}

fn old(origin: Origin, size_bytes: u64) -> Buffer {
    Buffer { size_bytes, origin, death_op: None, temporary: false, accesses: vec![] }
}

/// Four ops of kernels 0 to 3 in layers 5, 5, 7, 9.
fn four_ops() -> StepTrace {
    let layers = [5, 5, 7, 9].into_iter().enumerate();
    trace_of(layers.map(|(kernel, layer)| op(u32::try_from(kernel).unwrap(), "a", layer, 10)).collect())
}

#[test]
fn layers_are_compacted_and_timed() {
    let profile = fold(&four_ops()).unwrap();
    let layers: Vec<_> = profile.layers.iter().map(|layer| (layer.first_op, layer.last_op, layer.time_ns)).collect();
    assert_eq!(layers, [(0, 1, 20), (2, 2, 10), (3, 3, 10)]);
    assert_eq!(profile.ops.iter().map(|op| op.layer).collect::<Vec<_>>(), [0, 0, 1, 2]);
    assert_eq!(profile.inter_op_threads, 2);
}

#[test]
fn a_step_of_more_bytes_than_a_plan_can_hold_is_refused() {
    let mut trace = four_ops();
    trace.buffers = vec![old(Origin::External, 1 << 40), old(Origin::Persistent, STEP_BYTES_MAX)];
    assert!(fold(&trace).is_ok());
    for size_bytes in [1, 1 << 62] {
        trace.buffers.truncate(2);
        trace.buffers.push(born(0, 0, size_bytes, Some(1)));
        let error = fold(&trace).unwrap_err();
        assert_eq!(error, FoldError::TooLarge { buffer: 2, size_bytes });
        assert!(error.to_string().starts_with(&format!("buffers[2].size_bytes = {size_bytes}: ")), "{error}");
    }
    trace.buffers.truncate(2);
    let all = Access { op: 0, write: false, bytes: STEP_BYTES_MAX };
    let most = usize::try_from(TOUCHED_BYTES_MAX / STEP_BYTES_MAX).unwrap();
    trace.buffers[1].accesses = vec![all; most];
    assert!(fold(&trace).is_ok());
    trace.buffers[1].accesses.push(all);
    assert_eq!(fold(&trace), Err(FoldError::TouchesTooMuch { buffer: 1 }));
}

#[test]
fn classes_follow_origin_size_and_lifetime() {
    let mut trace = four_ops();
    trace.buffers = vec![
        born(0, 0, 8192, Some(1)),
        born(1, 0, 8192, Some(2)),
        born(2, 0, 8192, None),
        born(3, 0, SLOT_MIN_BYTES - 1, None),
        old(Origin::Persistent, 10),
        old(Origin::External, 1 << 40),
    ];
    let profile = fold(&trace).unwrap();
    let classes: Vec<Class> = profile.buffers.iter().map(|buffer| buffer.class).collect();
    use Class::*;
    assert_eq!(classes, [ShortLived, LongLived, Escaping, Scratch, Persistent, External]);
    let lives: Vec<_> = profile.buffers.iter().map(|buffer| (buffer.birth_op, buffer.death_op)).collect();
    assert_eq!(lives, [(0, 1), (1, 2), (2, 3), (3, 3), (0, 3), (0, 3)]);
    let keyed: Vec<bool> = profile.buffers.iter().map(|buffer| buffer.key.is_some()).collect();
    assert_eq!(keyed, [true, true, true, false, false, false]);
}

#[test]
fn a_buffer_is_live_from_birth_to_death_inclusive_and_external_memory_never_counts() {
    let mut trace = four_ops();
    trace.buffers = vec![
        born(0, 0, 10_000, Some(1)),
        born(1, 0, 20_000, Some(2)),
        born(2, 0, 5000, Some(2)),
        born(2, 9, 100, Some(3)),
        born(3, 0, 50, None),
        old(Origin::Persistent, 1000),
        old(Origin::External, 1 << 40),
    ];
    let profile = fold(&trace).unwrap();
    assert_eq!(profile.peak_live_bytes, 31_000);
    assert_eq!(profile.persistent_bytes, 1000);
    assert_eq!(profile.unplanned_peak_bytes, 150);
}

#[test]
fn accesses_become_counts_bytes_ops_and_layers() {
    let mut trace = four_ops();
    let mut buffer = born(0, 0, 8192, Some(3));
    let access = |op, write, bytes| Access { op, write, bytes };
    buffer.accesses = vec![access(1, true, 8192), access(3, false, 100), access(3, true, 200)];
    let mut weights = old(Origin::Persistent, 8192);
    weights.accesses = vec![access(2, false, 8192)];
    trace.buffers = vec![buffer, weights];
    let profile = fold(&trace).unwrap();
    let facts = &profile.buffers[0];
    assert_eq!((facts.reads, facts.writes, facts.read_bytes, facts.written_bytes), (1, 2, 100, 8392));
    let used: Vec<u32> = facts.uses.iter().map(|used| used.op).collect();
    assert_eq!((used.as_slice(), facts.layers.as_slice()), ([1, 3].as_slice(), [0, 2].as_slice()));
    assert_eq!(profile.buffers[1].layers, [1], "a persistent buffer is not born in the step");
}

/// One kernel that runs twice: many small temporaries, two large ones and an output, in this order each time.
fn crowded(count: usize) -> StepTrace {
    let mut trace = trace_of(vec![op(7, "a", 0, 10), op(7, "a", 0, 10), op(8, "b", 0, 10)]);
    let mut ordinal = 0;
    for op in 0..2 {
        let sizes = std::iter::repeat_n(16_384, count).chain([SCRATCH_MAX_BYTES + 1, SCRATCH_MAX_BYTES]);
        for size_bytes in sizes {
            trace.buffers.push(born(op, ordinal, size_bytes, Some(op)));
            ordinal += 1;
        }
        trace.buffers.push(born(op, ordinal, 1 << 20, Some(2)));
        ordinal += 1;
    }
    trace.buffers.push(born(2, 0, 16_384, Some(2)));
    trace
}

#[test]
fn many_small_temporaries_of_one_execution_are_scratch_and_have_no_ordinals() {
    let profile = fold(&crowded(SCRATCH_MIN_COUNT)).unwrap();
    assert_eq!(profile.scratch_kernels, [7]);
    let kept: Vec<_> = profile.buffers.iter().filter_map(|b| b.key.map(|key| (key, b.size_bytes))).collect();
    let key = |kernel, ordinal| SlotKey { kernel, ordinal };
    let large = SCRATCH_MAX_BYTES + 1;
    let expected =
        [(key(7, 0), large), (key(7, 1), 1 << 20), (key(7, 2), large), (key(7, 3), 1 << 20), (key(8, 0), 16_384)];
    assert_eq!(kept, expected);
    let scratch_bytes = 16_384 * u64::try_from(SCRATCH_MIN_COUNT).unwrap() + SCRATCH_MAX_BYTES;
    assert_eq!(profile.unplanned_peak_bytes, scratch_bytes);
}

#[test]
fn as_many_temporaries_as_the_limit_keep_their_slots() {
    // The one of 64 KiB counts as well.
    let profile = fold(&crowded(SCRATCH_MIN_COUNT - 1)).unwrap();
    assert!(profile.scratch_kernels.is_empty());
    assert!(profile.buffers.iter().all(|buffer| buffer.key.is_some()));
    assert_eq!(profile.buffers.last().unwrap().key, Some(SlotKey { kernel: 8, ordinal: 0 }));
}

#[test]
fn empty_malformed_and_ambiguous_traces_have_no_profile() {
    assert_eq!(fold(&trace_of(vec![])), Err(FoldError::Empty));
    let mut trace = four_ops();
    trace.buffers = vec![born(9, 0, 8192, None), born(0, 0, 8192, Some(7))];
    let message = fold(&trace).unwrap_err().to_string();
    assert!(message.contains("2 places") && message.contains("buffers[0]: birth_op 9"), "{message}");
    trace.buffers = vec![born(0, 3, 8192, None), born(0, 3, 8192, None)];
    let message = fold(&trace).unwrap_err().to_string();
    assert!(message.contains("buffers[1]: allocation 3 of kernel 0 is buffers[0] already"), "{message}");
}

/// Ten convolutions, their gradients and an optimizer, two ops each.
fn network() -> StepTrace {
    let mut ops = Vec::new();
    for layer in 0..10 {
        ops.push(op(0, &format!("conv{layer}/Conv2D"), 0, 10));
        ops.push(op(0, &format!("conv{layer}/Relu"), 0, 10));
    }
    for layer in (0..10).rev() {
        ops.push(op(0, &format!("gradients/conv{layer}/Relu_grad/ReluGrad"), 0, 10));
        ops.push(op(0, &format!("gradients/conv{layer}/Conv2D_grad/Conv2DBackpropFilter"), 0, 10));
        let mut apply = op(0, &format!("Momentum/update_conv{layer}/kernel/ApplyMomentum"), 0, 1);
        apply.kind = "ApplyMomentum".into();
        if layer > 0 {
            ops.push(apply);
        } else {
            ops.extend(std::iter::repeat_n(apply, 10));
        }
    }
    trace_of(ops)
}

#[test]
fn scopes_make_layers_and_gradients_mirror_them() {
    let layers = infer_layers(&network());
    // Forward: two ops per layer. Backward: two ops and the early update of the layer before. The end: the optimizer.
    let forward = (0..10).flat_map(|layer| [layer; 2]);
    let backward = (10..19).flat_map(|layer| [layer; 3]);
    let expected: Vec<u32> = forward.chain(backward).chain([19; 2]).chain([20; 10]).collect();
    assert_eq!(layers, expected);
}

#[test]
fn fold_ignores_the_numbers_of_a_trace_whose_layers_are_inferred() {
    let mut trace = network();
    trace.layer_source = LayerSource::Inferred;
    assert_eq!(fold(&trace).unwrap().layers.len(), 21);
    trace.layer_source = LayerSource::Marked;
    assert_eq!(fold(&trace).unwrap().layers.len(), 1);
}

#[test]
fn short_layers_join_the_next_and_the_last_the_one_before() {
    let mut ops: Vec<Op> = (0..12).map(|index| op(0, &format!("s{index}/a"), 0, 100)).collect();
    ops[3].end_ns = 1;
    ops[4].end_ns = 2;
    ops[11].end_ns = 3;
    assert_eq!(infer_layers(&trace_of(ops)), [0, 1, 2, 3, 3, 3, 4, 5, 6, 7, 8, 8]);
}

#[test]
fn without_useful_scopes_layers_are_slices_of_equal_time() {
    let flat: Vec<Op> = (0..64).map(|index| op(0, &format!("op{index}"), 0, 10)).collect();
    let layers = infer_layers(&trace_of(flat));
    assert_eq!(layers, (0..64).map(|index| index / 2).collect::<Vec<u32>>());
    // A loop's body has one scope for most of the step.
    let mut looped: Vec<Op> = (0..10).map(|index| op(0, &format!("s{index}/a"), 0, 10)).collect();
    looped.extend((0..90).map(|_| op(0, "while/body", 0, 10)));
    assert_eq!(infer_layers(&trace_of(looped)).last(), Some(&31));
    // No time at all: slices of equal numbers of ops.
    let timeless: Vec<Op> = (0..320).map(|_| op(0, "a", 0, 0)).collect();
    assert_eq!(infer_layers(&trace_of(timeless)), (0..320).map(|index| index / 10).collect::<Vec<u32>>());
    assert_eq!(infer_layers(&trace_of(vec![])), Vec::<u32>::new());
}

proptest! {
    #[test]
    fn inferred_layers_never_fall_and_have_no_gaps(draws in prop::collection::vec((0_u8..12, 0_u8..4, 0_u64..50), 1..200)) {
        let name = |scope: u8, form: u8| match form {
            0 => format!("s{scope}/op"),
            1 => format!("gradients/s{scope}/op_grad/mul"),
            2 => format!("Adam/update_s{scope}/ApplyAdam"),
            _ => format!("gradients_1/AddN_{scope}"),
        };
        let ops = draws.into_iter().map(|(scope, form, time_ns)| {
            let mut op = op(0, &name(scope, form), 0, time_ns);
            op.kind = if form == 2 { "ApplyAdam".into() } else { "Op".into() };
            op
        });
        let trace = trace_of(ops.collect());
        let layers = infer_layers(&trace);
        prop_assert_eq!(layers.len(), trace.ops.len());
        prop_assert_eq!(layers[0], 0);
        prop_assert!(layers.windows(2).all(|pair| pair[1] == pair[0] || pair[1] == pair[0] + 1));
        prop_assert!(layers.last() < Some(&64), "layers shorter than 1/64 are joined");
    }
}
