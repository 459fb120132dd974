//! Between [`StepTrace`] and the generated messages, field by field.
//!
//! The messages stay inside this crate's border: the later stages see only plain data.

use protobuf::{EnumOrUnknown, SpecialFields};

use crate::counts;
use crate::file::Defect;
use crate::proto::sentinel as wire;
use crate::{Access, Buffer, LayerSource, Op, Origin, StepTrace};

/// The message that says the same as `step`.
pub(crate) fn encode(step: &StepTrace) -> wire::StepTrace {
    wire::StepTrace {
        tensorflow_version: step.tensorflow_version.clone(),
        step_number: step.step_number,
        intra_op_threads: step.intra_op_threads,
        inter_op_threads: step.inter_op_threads,
        layer_source: EnumOrUnknown::new(match step.layer_source {
            LayerSource::Inferred => wire::step_trace::LayerSource::INFERRED,
            LayerSource::Marked => wire::step_trace::LayerSource::MARKED,
        }),
        ops: step.ops.iter().map(encode_op).collect(),
        buffers: step.buffers.iter().map(encode_buffer).collect(),
        counts: step.counts.as_ref().map(counts::encode).into(),
        special_fields: SpecialFields::new(),
    }
}

fn encode_op(op: &Op) -> wire::OpRecord {
    wire::OpRecord {
        kernel: op.kernel,
        name: op.name.clone(),
        kind: op.kind.clone(),
        layer: op.layer,
        start_ns: op.start_ns,
        end_ns: op.end_ns,
        predecessors: op.predecessors.clone(),
        special_fields: SpecialFields::new(),
    }
}

fn encode_buffer(buffer: &Buffer) -> wire::BufferRecord {
    use wire::buffer_record::Origin as Code;
    let (origin, birth_op, ordinal) = match buffer.origin {
        Origin::Step { op, ordinal } => (Code::STEP, op, ordinal),
        Origin::Persistent => (Code::PERSISTENT, 0, 0),
        Origin::External => (Code::EXTERNAL, 0, 0),
    };
    wire::BufferRecord {
        origin: EnumOrUnknown::new(origin),
        size_bytes: buffer.size_bytes,
        birth_op,
        ordinal,
        dies: buffer.death_op.is_some(),
        death_op: buffer.death_op.unwrap_or(0),
        temporary: buffer.temporary,
        accesses: buffer.accesses.iter().map(encode_access).collect(),
        special_fields: SpecialFields::new(),
    }
}

fn encode_access(access: &Access) -> wire::Access {
    wire::Access { op: access.op, write: access.write, bytes: access.bytes, special_fields: SpecialFields::new() }
}

/// The step that `message` describes. Whether it obeys the rules of a step is not asked here.
///
/// # Errors
/// [`Defect::UnknownValue`] when an enum field holds a number that the schema does not name.
pub(crate) fn decode(message: wire::StepTrace) -> Result<StepTrace, Defect> {
    let layer_source = match message.layer_source.enum_value() {
        Ok(wire::step_trace::LayerSource::INFERRED) => LayerSource::Inferred,
        Ok(wire::step_trace::LayerSource::MARKED) => LayerSource::Marked,
        Err(value) => {
            let field = "layer_source".to_owned();
            return Err(Defect::UnknownValue { field, value, accepted: "0 (INFERRED), 1 (MARKED)" });
        }
    };
    let counts = message.counts.as_ref().map(|counts| counts::decode(counts, message.buffers.len())).transpose()?;
    let buffers = message.buffers.into_iter().enumerate().map(|(index, record)| decode_buffer(index, &record));
    Ok(StepTrace {
        tensorflow_version: message.tensorflow_version,
        step_number: message.step_number,
        intra_op_threads: message.intra_op_threads,
        inter_op_threads: message.inter_op_threads,
        layer_source,
        ops: message.ops.into_iter().map(decode_op).collect(),
        buffers: buffers.collect::<Result<_, _>>()?,
        counts,
    })
}

fn decode_op(record: wire::OpRecord) -> Op {
    Op {
        kernel: record.kernel,
        name: record.name,
        kind: record.kind,
        layer: record.layer,
        start_ns: record.start_ns,
        end_ns: record.end_ns,
        predecessors: record.predecessors,
    }
}

fn decode_buffer(index: usize, record: &wire::BufferRecord) -> Result<Buffer, Defect> {
    use wire::buffer_record::Origin as Code;
    let origin = match record.origin.enum_value() {
        Ok(Code::STEP) => Origin::Step { op: record.birth_op, ordinal: record.ordinal },
        Ok(Code::PERSISTENT) => Origin::Persistent,
        Ok(Code::EXTERNAL) => Origin::External,
        Err(value) => {
            let field = format!("buffers[{index}].origin");
            return Err(Defect::UnknownValue { field, value, accepted: "0 (STEP), 1 (PERSISTENT), 2 (EXTERNAL)" });
        }
    };
    Ok(Buffer {
        size_bytes: record.size_bytes,
        origin,
        death_op: record.dies.then_some(record.death_op),
        temporary: record.temporary,
        accesses: record.accesses.iter().map(decode_access).collect(),
    })
}

fn decode_access(record: &wire::Access) -> Access {
    Access { op: record.op, write: record.write, bytes: record.bytes }
}
