//! The optional counts of the kernel: they survive a file, and what does not fit the step is refused by name.

use protobuf::Message;
use trace::{
    from_bytes, pages_of, proto, to_bytes, Access, Buffer, CountMode, LayerSource, Op, Origin, PageCount, PageCounts,
    StepTrace,
};

fn step(counts: Option<PageCounts>) -> StepTrace {
    let op = Op {
        kernel: 0,
        name: "a".to_owned(),
        kind: "MatMul".to_owned(),
        layer: 0,
        start_ns: 0,
        end_ns: 9,
        predecessors: vec![],
    };
    let buffer = |size_bytes: u64, origin: Origin| Buffer {
        size_bytes,
        origin,
        death_op: None,
        temporary: false,
        accesses: vec![Access { op: 0, write: true, bytes: size_bytes }],
    };
    StepTrace {
        tensorflow_version: "1.13.1".to_owned(),
        step_number: 3,
        intra_op_threads: 1,
        inter_op_threads: 1,
        layer_source: LayerSource::Inferred,
        ops: vec![op],
        buffers: vec![
            buffer(8193, Origin::Step { op: 0, ordinal: 0 }),
            buffer(100, Origin::Persistent),
            buffer(1 << 20, Origin::External),
        ],
        counts,
    }
}

fn pages(counts: &[(u64, u64)]) -> Option<Vec<PageCount>> {
    Some(counts.iter().map(|&(reads, writes)| PageCount { reads, writes }).collect())
}

fn counted(first: Option<Vec<PageCount>>) -> StepTrace {
    step(Some(PageCounts { mode: CountMode::Exact, buffers: vec![first, None, None] }))
}

#[test]
fn counts_survive_a_file() {
    for mode in [CountMode::Exact, CountMode::TlbMiss] {
        let buffers = vec![pages(&[(1, 2), (0, 0), (u64::from(u32::MAX), 7)]), pages(&[(5, 0)]), None];
        let written = step(Some(PageCounts { mode, buffers }));
        assert_eq!(from_bytes(&to_bytes(&written).unwrap()).unwrap(), written);
        assert_eq!(written.counted(), Some(mode));
    }
}

#[test]
fn a_trace_without_counts_is_read_as_one_and_readers_without_them_skip_them() {
    let plain = step(None);
    assert_eq!(from_bytes(&to_bytes(&plain).unwrap()).unwrap(), plain);
    assert_eq!((plain.counted(), counted(pages(&[(1, 1); 3])).counted()), (None, Some(CountMode::Exact)));
    // An older schema knows fields up to 7: for it the bytes differ by an unknown field at the end and nothing else.
    let (old, new) = (to_bytes(&plain).unwrap(), to_bytes(&counted(pages(&[(1, 1); 3]))).unwrap());
    assert_eq!(old[20..], new[20..old.len()]);
    assert_eq!(new[old.len()], (8 << 3) | 2, "field 8, a message");
}

#[test]
fn a_step_counts_as_counted_only_when_all_that_is_placed_is() {
    let missing = counted(None);
    assert_eq!((missing.counted(), missing.uncounted_buffers()), (None, 1));
    assert!(missing.violations().is_empty(), "what could not be counted is no damage");
}

#[test]
fn counts_that_do_not_fit_are_named() {
    assert_eq!((pages_of(8193), pages_of(8192), pages_of(u64::MAX)), (3, 2, 1 << 52));
    let wrong = [
        (counted(pages(&[(1, 1)])), "counts[0]: 1 pages for a buffer of 8193 bytes"),
        (counted(pages(&[(u64::MAX, 1), (0, 0), (0, 0)])), "counts: accesses add up to more than"),
        (
            step(Some(PageCounts { mode: CountMode::Exact, buffers: vec![] })),
            "counts: of 0 buffers, but the step has 3",
        ),
    ];
    for (step, said) in wrong {
        let violations = step.violations();
        assert!(violations.iter().any(|violation| violation.0.starts_with(said)), "{violations:?}");
    }
}

/// What a file says whose message was changed like this.
fn complaint(change: fn(&mut proto::sentinel::PageCounts)) -> String {
    let bytes = to_bytes(&counted(pages(&[(1, 1); 3]))).unwrap();
    let mut message = proto::sentinel::StepTrace::parse_from_bytes(&bytes[20..]).unwrap();
    change(message.counts.as_mut().unwrap());
    let payload = message.write_to_bytes().unwrap();
    let mut file = bytes[..8].to_vec();
    file.extend_from_slice(&(payload.len() as u64).to_le_bytes());
    file.extend_from_slice(&crc32fast::hash(&payload).to_le_bytes());
    file.extend_from_slice(&payload);
    from_bytes(&file).unwrap_err().to_string()
}

#[test]
fn unknown_modes_and_buffers_are_refused_by_field_and_value() {
    let said = complaint(|counts| counts.mode = protobuf::EnumOrUnknown::from_i32(9));
    assert_eq!(said, "counts.mode = 9: accepted are 0 (TLB_MISS), 1 (EXACT)");
    let said = complaint(|counts| counts.buffers[0].buffer = 3);
    assert!(said.starts_with("counts.buffers[0].buffer = 3: accepted are buffers of the step"), "{said}");
    let said = complaint(|counts| counts.buffers.push(counts.buffers[0].clone()));
    assert!(said.starts_with("counts.buffers[1].buffer = 0:"), "{said}");
    let said = complaint(|counts| counts.buffers[0].writes.truncate(2));
    assert_eq!(said, "counts.buffers[0].writes.len = 2: accepted are as many as reads");
}
