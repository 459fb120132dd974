//! Random steps for the tests of the trace file.

use proptest::collection::vec;
use proptest::prelude::*;
use trace::{Access, Buffer, LayerSource, Op, Origin, StepTrace};

/// Well-formed steps of up to a dozen ops and buffers.
pub fn step() -> impl Strategy<Value = StepTrace> {
    let ops =
        vec((0..3_u32, any::<u32>(), "\\PC{0,12}", 0..1_000_000_u64, 0..1_000_000_u64, vec(any::<u32>(), 0..4)), 1..12);
    let head = ("[0-9.]{0,6}", any::<u64>(), any::<u32>(), any::<u32>(), any::<bool>());
    (head, ops).prop_flat_map(|((version, number, intra, inter, marked), ops)| {
        let ops = make_ops(ops);
        vec(buffer(u32::try_from(ops.len()).unwrap()), 0..12).prop_map(move |buffers| StepTrace {
            counts: None,
            tensorflow_version: version.clone(),
            step_number: number,
            intra_op_threads: intra,
            inter_op_threads: inter,
            layer_source: if marked { LayerSource::Marked } else { LayerSource::Inferred },
            ops: ops.clone(),
            buffers,
        })
    })
}

fn make_ops(seeds: Vec<(u32, u32, String, u64, u64, Vec<u32>)>) -> Vec<Op> {
    let mut layer = 0;
    let mut ops = Vec::new();
    for (layer_step, kernel, name, start_ns, time_ns, seeds) in seeds {
        layer += layer_step;
        let index = u32::try_from(ops.len()).unwrap();
        let predecessors = seeds.iter().filter(|_| index > 0).map(|seed| seed % index.max(1)).collect();
        ops.push(Op { kernel, kind: name.clone(), name, layer, start_ns, end_ns: start_ns + time_ns, predecessors });
    }
    ops
}

/// A well-formed buffer of a step of `op_count` ops.
fn buffer(op_count: u32) -> impl Strategy<Value = Buffer> {
    let span = (0..op_count, 0..op_count, any::<bool>());
    let accesses = vec((any::<u32>(), any::<bool>(), any::<u64>()), 0..6);
    (0..3_u8, any::<u32>(), span, any::<bool>(), 0..1_u64 << 40, accesses).prop_map(
        move |(kind, ordinal, (a, b, dies), temporary, size_bytes, accesses)| {
            let birth = if kind == 0 { a.min(b) } else { 0 };
            let death = a.max(b);
            let last = if dies { death } else { op_count - 1 };
            let mut accesses: Vec<Access> = accesses
                .into_iter()
                .map(|(op, write, bytes)| Access {
                    op: birth + op % (last - birth + 1),
                    write,
                    bytes: bytes % (size_bytes + 1),
                })
                .collect();
            accesses.sort_by_key(|access| access.op);
            let origin = match kind {
                0 => Origin::Step { op: birth, ordinal },
                1 => Origin::Persistent,
                _ => Origin::External,
            };
            Buffer { size_bytes, origin, death_op: dies.then_some(death), temporary, accesses }
        },
    )
}

/// Steps in which any field may hold anything, so that most break some rule.
pub fn wild_step() -> impl Strategy<Value = StepTrace> {
    let op = (any::<u32>(), "\\PC{0,6}", any::<u32>(), any::<u64>(), any::<u64>(), vec(any::<u32>(), 0..3)).prop_map(
        |(kernel, name, layer, start_ns, end_ns, predecessors)| Op {
            kernel,
            kind: name.clone(),
            name,
            layer,
            start_ns,
            end_ns,
            predecessors,
        },
    );
    let access = (any::<u32>(), any::<bool>(), any::<u64>()).prop_map(|(op, write, bytes)| Access { op, write, bytes });
    let buffer = (any::<u64>(), any::<Option<(u32, u32)>>(), any::<Option<u32>>(), any::<bool>(), vec(access, 0..4))
        .prop_map(|(size_bytes, origin, death_op, temporary, accesses)| Buffer {
            size_bytes,
            origin: origin.map_or(Origin::External, |(op, ordinal)| Origin::Step { op, ordinal }),
            death_op,
            temporary,
            accesses,
        });
    (vec(op, 0..6), vec(buffer, 0..6)).prop_map(|(ops, buffers)| StepTrace {
        counts: None,
        tensorflow_version: String::new(),
        step_number: 0,
        intra_op_threads: 0,
        inter_op_threads: 0,
        layer_source: LayerSource::Inferred,
        ops,
        buffers,
    })
}
