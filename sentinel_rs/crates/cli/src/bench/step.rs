//! A synthetic training step of any size, shaped like recorded ones: a forward pass, the backward pass that mirrors it,
//! an optimizer; most buffers die within a few ops, few live from the forward to the backward pass, and a small share of the
//! buffers holds most of the bytes.

use trace::{Access, Buffer, LayerSource, Op, Origin, StepTrace, SLOT_MIN_BYTES};

/// Ops of a name scope.
const SCOPE_OPS: u32 = 20;

/// Of a thousand buffers, how many are weights. Each weight has a gradient, and an optimizer slot.
const WEIGHTS_PER_MILLE: u32 = 30;
/// Of a thousand buffers, how many activations live from the forward to the backward pass.
const ACTIVATIONS_PER_MILLE: u32 = 100;
/// Of a thousand buffers, how many are too small for a slot.
const SMALL_PER_MILLE: u32 = 150;

/// A size doubles with a chance of one half, up to this often.
const DOUBLINGS_MAX: u32 = 13;

/// A multiplicative generator: the same draws on every machine.
struct Dice(u64);

impl Dice {
    /// A number below `below`, which is not 0.
    fn draw(&mut self, below: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let high = self.0 >> 32;
        u32::try_from((high * u64::from(below)) >> 32).unwrap_or(0)
    }

    /// How often a coin in a row shows heads, at most `most` times.
    fn heads(&mut self, most: u32) -> u32 {
        (self.draw(u32::MAX) | (1 << most)).trailing_zeros()
    }

    /// From `SLOT_MIN_BYTES` up; twice the size is half as likely.
    fn size_bytes(&mut self) -> u64 {
        (SLOT_MIN_BYTES + 4 * u64::from(self.draw(1024))) << self.heads(DOUBLINGS_MAX)
    }
}

/// Where the passes begin.
struct Passes {
    backward: u32,
    optimizer: u32,
    end: u32,
}

impl Passes {
    fn of(op_count: u32) -> Passes {
        let forward = op_count * 9 / 20;
        Passes { backward: forward, optimizer: 2 * forward, end: op_count }
    }

    /// The backward op of a forward op.
    fn mirror(&self, forward: u32) -> u32 {
        self.optimizer - 1 - forward
    }
}

/// A step with `buffer_count` buffers (at least 1000) and a tenth as many ops, without marks.
pub fn synthetic(buffer_count: u32, seed: u64) -> StepTrace {
    let mut dice = Dice(seed);
    let passes = Passes::of(buffer_count / 10);
    let ops = ops(&passes, &mut dice);
    let mut buffers = Vec::with_capacity(buffer_count as usize);
    let share = |per_mille: u32| u32::try_from(u64::from(buffer_count) * u64::from(per_mille) / 1000).unwrap_or(0);
    let weights = share(WEIGHTS_PER_MILLE);
    for index in 0..weights {
        weight(index, weights, &passes, &mut dice, &mut buffers);
    }
    for _ in 0..share(ACTIVATIONS_PER_MILLE) {
        buffers.push(activation(&passes, &mut dice));
    }
    let small = share(SMALL_PER_MILLE);
    for index in 0..buffer_count - u32::try_from(buffers.len()).unwrap_or(0) {
        buffers.push(short_lived(index < small, &passes, &mut dice));
    }
    StepTrace {
        counts: None,
        tensorflow_version: "1.13.1".into(),
        step_number: 10,
        intra_op_threads: 2,
        inter_op_threads: 2,
        layer_source: LayerSource::Inferred,
        buffers: in_order(buffers, &ops),
        ops,
    }
}

/// A chain with branches: most ops wait for the one before, some for one a little earlier; backward ops also for their forward
/// op, optimizer ops for a backward op.
fn ops(passes: &Passes, dice: &mut Dice) -> Vec<Op> {
    let mut clock_ns = 0;
    let mut ops = Vec::with_capacity(passes.end as usize);
    for index in 0..passes.end {
        let back = if dice.draw(4) > 0 { 1 } else { 2 + dice.draw(4) };
        let mut predecessors: Vec<u32> = index.checked_sub(back).into_iter().collect();
        let (name, kind) = if index < passes.backward {
            (format!("net/block{}/op{index}/Forward", index / SCOPE_OPS), "Forward")
        } else if index < passes.optimizer {
            let forward = passes.mirror(index);
            predecessors.push(forward);
            (format!("gradients/net/block{}/op{forward}_grad/Backward", forward / SCOPE_OPS), "Backward")
        } else {
            predecessors = vec![passes.optimizer - 1 - dice.draw(passes.backward)];
            (format!("train/update_w{index}/ApplyAdam"), "ApplyAdam")
        };
        let time_ns = u64::from(2000 + dice.draw(2000)) << dice.heads(8);
        ops.push(Op {
            kernel: index,
            name,
            kind: kind.into(),
            layer: 0,
            start_ns: clock_ns,
            end_ns: clock_ns + time_ns,
            predecessors,
        });
        clock_ns += time_ns;
    }
    ops
}

/// A buffer and its accesses: each of `uses` is an op and whether it writes.
fn buffer(size_bytes: u64, origin: Origin, death_op: Option<u32>, uses: &[(u32, bool)]) -> Buffer {
    let accesses = uses.iter().map(|&(op, write)| Access { op, write, bytes: size_bytes }).collect();
    let temporary = matches!((origin, death_op), (Origin::Step { op, .. }, Some(death)) if op == death);
    Buffer { size_bytes, origin, death_op, temporary, accesses }
}

fn born_at(op: u32) -> Origin {
    Origin::Step { op, ordinal: 0 }
}

/// A weight, its optimizer slot and its gradient.
fn weight(index: u32, of: u32, passes: &Passes, dice: &mut Dice, buffers: &mut Vec<Buffer>) {
    let size_bytes = dice.size_bytes();
    let forward = dice.draw(passes.backward);
    let backward = passes.mirror(forward);
    let optimizer_ops = u64::from(passes.end - passes.optimizer);
    let update = passes.optimizer + u32::try_from(u64::from(index) * optimizer_ops / u64::from(of)).unwrap_or(0);
    let uses = [(forward, false), (backward, false), (update, false), (update, true)];
    buffers.push(buffer(size_bytes, Origin::Persistent, None, &uses));
    buffers.push(buffer(size_bytes, Origin::Persistent, None, &[(update, false), (update, true)]));
    buffers.push(buffer(size_bytes, born_at(backward), Some(update), &[(backward, true), (update, false)]));
}

fn activation(passes: &Passes, dice: &mut Dice) -> Buffer {
    let forward = dice.draw(passes.backward);
    let backward = passes.mirror(forward);
    let mut uses = vec![(forward, true)];
    let next = forward + 1 + dice.draw(3);
    if next < backward {
        uses.push((next, false));
    }
    uses.push((backward, false));
    buffer(dice.size_bytes(), born_at(forward), Some(backward), &uses)
}

/// Half of these die in the op that makes them; each op more that one lives is half as likely.
fn short_lived(is_small: bool, passes: &Passes, dice: &mut Dice) -> Buffer {
    let birth = dice.draw(passes.optimizer);
    let death = (birth + dice.heads(8)).min(passes.end - 1);
    let size_bytes = if is_small { u64::from(4 * (1 + dice.draw(512))) } else { dice.size_bytes() };
    buffer(size_bytes, born_at(birth), Some(death), &[(birth, true), (death, false)])
}

/// Buffers in the order of their births, with their ordinals.
fn in_order(mut buffers: Vec<Buffer>, ops: &[Op]) -> Vec<Buffer> {
    let birth = |buffer: &Buffer| match buffer.origin {
        Origin::Step { op, .. } => Some(op),
        Origin::Persistent | Origin::External => None,
    };
    buffers.sort_by_key(birth);
    let mut next = vec![0; ops.len()];
    for buffer in &mut buffers {
        if let Origin::Step { op, ordinal } = &mut buffer.origin {
            let next = &mut next[*op as usize];
            *ordinal = *next;
            *next += u32::from(buffer.size_bytes >= SLOT_MIN_BYTES);
        }
    }
    buffers
}

#[cfg(test)]
mod tests {
    use super::*;
    use profile::Class;

    #[test]
    fn it_is_a_well_formed_step_whose_buffers_are_mostly_short_lived_and_its_bytes_in_few() {
        let step = synthetic(10_000, 1);
        assert_eq!((step.ops.len(), step.buffers.len()), (1000, 10_000));
        let profile = profile::fold(&step).unwrap();
        assert!(profile.layers.len() > 32, "{} layers: name scopes say nothing", profile.layers.len());
        let of = |class| profile.buffers.iter().filter(|buffer| buffer.class == class).count();
        assert_eq!((of(Class::Persistent), of(Class::Scratch)), (600, 1500));
        assert!(of(Class::ShortLived) > 5500 && of(Class::LongLived) > 1000);
        let mut sizes: Vec<u64> = step.buffers.iter().map(|buffer| buffer.size_bytes).collect();
        sizes.sort_unstable();
        let total: u64 = sizes.iter().sum();
        assert!(sizes[9000..].iter().sum::<u64>() * 2 > total, "a tenth of the buffers has less than half the bytes");
        assert_eq!(step, synthetic(10_000, 1));
    }
}
