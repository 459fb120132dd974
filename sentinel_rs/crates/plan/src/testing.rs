//! Steps for tests: hand-made profiles, and random well-formed traces.

use profile::{BufferFacts, BufferUse, Class, LayerFacts, OpFacts, Profile, SlotKey};
use proptest::prelude::*;
use std::collections::HashMap;
use trace::{Access, Buffer, LayerSource, Op, Origin, StepTrace, SLOT_MIN_BYTES};

/// A page, the unit in which hand-made cases count.
pub(crate) const PAGE: u64 = trace::PAGE_BYTES;

/// A step with `layer_ns.len()` layers of one op each, lasting so long, and no buffers.
pub(crate) fn step(layer_ns: &[u64]) -> Profile {
    let number = |index: usize| u32::try_from(index).unwrap();
    let layer = |(index, &time_ns)| LayerFacts { first_op: number(index), last_op: number(index), time_ns };
    let op = |(index, &time_ns)| OpFacts {
        kernel: number(index),
        layer: number(index),
        time_ns,
        predecessors: if index == 0 { vec![] } else { vec![number(index) - 1] },
    };
    Profile {
        layers: layer_ns.iter().enumerate().map(layer).collect(),
        ops: layer_ns.iter().enumerate().map(op).collect(),
        buffers: Vec::new(),
        peak_live_bytes: 0,
        persistent_bytes: 0,
        unplanned_peak_bytes: 0,
        intra_op_threads: 1,
        inter_op_threads: 1,
        scratch_kernels: Vec::new(),
    }
}

/// Adds a buffer that is written at its birth and read once in each other layer of `layers`, and dies at `death`.
pub(crate) fn add(profile: &mut Profile, class: Class, size_bytes: u64, layers: &[u32], death: u32) -> usize {
    let birth = if class == Class::Persistent { 0 } else { layers[0] };
    let in_step = !matches!(class, Class::Persistent | Class::External);
    let ordinal = u32::try_from(profile.buffers.len()).unwrap();
    let uses = u64::try_from(layers.len()).unwrap();
    profile.buffers.push(BufferFacts {
        size_bytes,
        class,
        key: in_step.then_some(SlotKey { kernel: birth, ordinal }),
        birth_op: birth,
        death_op: death,
        layers: layers.to_vec(),
        reads: uses,
        writes: 0,
        read_bytes: uses * size_bytes,
        written_bytes: 0,
        uses: layers.iter().map(|&op| BufferUse { op, read_bytes: size_bytes, written_bytes: 0 }).collect(),
    });
    profile.buffers.len() - 1
}

/// What a random buffer is made from: shares of the step instead of op indices, so that every draw is well-formed.
#[derive(Clone, Debug)]
struct BufferDraw {
    size_bytes: u64,
    kind: u8,
    birth: f64,
    life: f64,
    uses: Vec<(f64, bool)>,
}

fn buffer_draw() -> impl Strategy<Value = BufferDraw> {
    let size = prop_oneof![1 => 1_u64..SLOT_MIN_BYTES, 6 => SLOT_MIN_BYTES..200_000, 1 => 200_000_u64..2_000_000];
    let life = prop_oneof![0.0..0.1, 0.0..1.0];
    let uses = prop::collection::vec((0.0..1.0, any::<bool>()), 0..6);
    (size, 0_u8..20, 0.0..1.0, life, uses).prop_map(|(size_bytes, kind, birth, life, uses)| BufferDraw {
        size_bytes,
        kind,
        birth,
        life,
        uses,
    })
}

/// A random well-formed trace of at most 60 ops and 80 buffers, with marked layers.
pub(crate) fn traces() -> impl Strategy<Value = StepTrace> {
    let op = (0_u32..20, prop::bool::weighted(0.3), 0_u64..2_000_000, prop::collection::vec(0.0..1.0, 0..3));
    (prop::collection::vec(op, 1..60), prop::collection::vec(buffer_draw(), 0..80), 1_u32..4).prop_map(
        |(op_draws, buffer_draws, inter_op_threads)| {
            let mut layer = 0;
            let mut clock = 0;
            let mut ops = Vec::new();
            for (index, (kernel, opens, time_ns, predecessors)) in op_draws.into_iter().enumerate() {
                layer += u32::from(opens);
                let predecessors = if index == 0 { Vec::new() } else { predecessors };
                ops.push(Op {
                    kernel,
                    name: format!("op{index}"),
                    kind: "Op".into(),
                    layer,
                    start_ns: clock,
                    end_ns: clock + time_ns,
                    predecessors: predecessors.into_iter().map(|share| at(share, 0, index - 1)).collect(),
                });
                clock += time_ns;
            }
            let buffers = buffers(&ops, buffer_draws);
            StepTrace {
                counts: None,
                tensorflow_version: "1.13.1".into(),
                step_number: 10,
                intra_op_threads: 1,
                inter_op_threads,
                layer_source: LayerSource::Marked,
                ops,
                buffers,
            }
        },
    )
}

/// The op at this share of the way from `first` to `last`.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
fn at(share: f64, first: usize, last: usize) -> u32 {
    u32::try_from(first + ((last - first + 1) as f64 * share) as usize).unwrap().min(u32::try_from(last).unwrap())
}

fn buffers(ops: &[Op], draws: Vec<BufferDraw>) -> Vec<Buffer> {
    let last = ops.len() - 1;
    let mut ordinals: HashMap<u32, u32> = HashMap::new();
    let mut buffers = Vec::new();
    for draw in draws {
        let birth = if draw.kind < 4 { 0 } else { at(draw.birth, 0, last) };
        let dies = draw.kind > 4;
        let death = if dies { at(draw.life, birth as usize, last) } else { at(1.0, 0, last) };
        let origin = match draw.kind {
            0 => Origin::External,
            1..=3 => Origin::Persistent,
            _ => {
                let next = ordinals.entry(ops[birth as usize].kernel).or_default();
                let ordinal = *next;
                *next += u32::from(draw.size_bytes >= SLOT_MIN_BYTES);
                Origin::Step { op: birth, ordinal }
            }
        };
        let access =
            |(share, write)| Access { op: at(share, birth as usize, death as usize), write, bytes: draw.size_bytes };
        let mut accesses: Vec<Access> = draw.uses.into_iter().map(access).collect();
        accesses.sort_by_key(|access| access.op);
        buffers.push(Buffer {
            size_bytes: draw.size_bytes,
            origin,
            death_op: dies.then_some(death),
            temporary: dies && birth == death,
            accesses,
        });
    }
    buffers
}

/// A step of the size of a large model: `op_count` ops in layers of 80, four buffers each, of which every fifth outlives
/// its layer.
pub(crate) fn large_step(op_count: u32) -> StepTrace {
    let mut ops = Vec::new();
    let mut buffers = Vec::new();
    for index in 0..op_count {
        ops.push(Op {
            kernel: index,
            name: format!("op{index}"),
            kind: "Op".into(),
            layer: index / 80,
            start_ns: u64::from(index) * 100_000,
            end_ns: u64::from(index + 1) * 100_000,
            predecessors: (0..index).rev().step_by(3).take(2).collect(),
        });
        for ordinal in 0..4 {
            let draw = (index * 4 + ordinal).wrapping_mul(2_654_435_761) >> 8;
            let life = if draw % 5 == 0 { draw / 5 % op_count } else { draw % 7 };
            let death = (index + life).min(op_count - 1);
            let size_bytes = SLOT_MIN_BYTES + u64::from(draw % 1_000_003);
            let access = |op, write| Access { op, write, bytes: size_bytes };
            buffers.push(Buffer {
                size_bytes,
                origin: Origin::Step { op: index, ordinal },
                death_op: Some(death),
                temporary: death == index,
                accesses: vec![access(index, true), access(death, false)],
            });
        }
    }
    StepTrace {
        counts: None,
        tensorflow_version: "1.13.1".into(),
        step_number: 10,
        intra_op_threads: 1,
        inter_op_threads: 4,
        layer_source: LayerSource::Marked,
        ops,
        buffers,
    }
}
