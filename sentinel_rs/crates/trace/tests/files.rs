//! What the reader and the writer say about real files, and what they leave behind.

use std::fs;
use std::path::{Path, PathBuf};

use trace::{from_bytes, proto, read, to_bytes, write, Access, Buffer, LayerSource, Op, Origin, StepTrace, TraceError};

fn small_step() -> StepTrace {
    let op = |kernel, name: &str, start_ns| Op {
        kernel,
        name: name.to_owned(),
        kind: "MatMul".to_owned(),
        layer: kernel,
        start_ns,
        end_ns: start_ns + 100,
        predecessors: (0..kernel).collect(),
    };
    StepTrace {
        counts: None,
        tensorflow_version: "1.13.1".to_owned(),
        step_number: 11,
        intra_op_threads: 2,
        inter_op_threads: 1,
        layer_source: LayerSource::Marked,
        ops: vec![op(0, "a", 0), op(1, "b", 150)],
        buffers: vec![Buffer {
            size_bytes: 8192,
            origin: Origin::Step { op: 0, ordinal: 0 },
            death_op: Some(1),
            temporary: false,
            accesses: vec![Access { op: 0, write: true, bytes: 8192 }, Access { op: 1, write: false, bytes: 4096 }],
        }],
    }
}

/// A fresh empty directory for one test.
fn directory(test: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("trace-files").join(test);
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).unwrap();
    directory
}

fn names_in(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// What reading a file of these bytes says, without the path in front.
fn complaint_about(test: &str, bytes: &[u8]) -> String {
    let path = directory(test).join("step.trace");
    fs::write(&path, bytes).unwrap();
    let said = read(&path).unwrap_err().to_string();
    let begin = format!("{}: ", path.display());
    assert!(said.starts_with(&begin), "{said}");
    said[begin.len()..].to_owned()
}

#[test]
fn a_written_file_reads_back_and_nothing_else_is_left() {
    let directory = directory("reads_back");
    let path = directory.join("step.trace");
    write(&path, &StepTrace { step_number: 1, ..small_step() }).unwrap();
    write(&path, &small_step()).unwrap();
    assert_eq!(read(&path).unwrap(), small_step());
    assert_eq!(names_in(&directory), ["step.trace"]);
}

#[test]
fn the_header_is_the_one_of_the_schema() {
    let bytes = to_bytes(&small_step()).unwrap();
    assert_eq!(&bytes[..8], b"SNTLTRC1");
    assert_eq!(bytes[8..16], (bytes.len() as u64 - 20).to_le_bytes());
    assert_eq!(bytes[16..20], crc32fast::hash(&bytes[20..]).to_le_bytes());
    // The check value that the CRC-32 of IEEE 802.3 has for these nine bytes.
    assert_eq!(crc32fast::hash(b"123456789"), 0xcbf4_3926);
}

#[test]
fn each_kind_of_damage_is_named() {
    let good = to_bytes(&small_step()).unwrap();
    let whole = good.len();
    assert_eq!(complaint_about("empty", b""), "truncated: 20 bytes expected, 0 there");
    assert_eq!(complaint_about("header", &good[..19]), "truncated: 20 bytes expected, 19 there");
    let said = complaint_about("short", &good[..whole - 1]);
    assert_eq!(said, format!("truncated: {whole} bytes expected, {} there", whole - 1));
    let said = complaint_about("text", b"#!/bin/sh\necho");
    assert_eq!(said, "not a trace: it begins with \"#!/bin/s\", a trace begins with \"SNTLTRC1\"");
    let said = complaint_about("long", &[&good[..], b"more"].concat());
    assert_eq!(said, format!("too long: more follows after the {whole} bytes that the header promises"));
    let mut flipped = good.clone();
    flipped[whole - 1] ^= 1;
    let said = complaint_about("flipped", &flipped);
    assert!(said.starts_with("checksum mismatch: the header says "), "{said}");
}

#[test]
fn a_promise_of_too_many_bytes_takes_no_memory() {
    for length in [u64::MAX, u64::MAX - 20, 1 << 46] {
        let mut bytes = to_bytes(&small_step()).unwrap();
        bytes[8..16].copy_from_slice(&length.to_le_bytes());
        let said = complaint_about("promise", &bytes);
        assert_eq!(said, format!("truncated: {} bytes expected, {} there", length.saturating_add(20), bytes.len()));
    }
}

#[test]
fn contents_without_meaning_are_named() {
    use protobuf::{EnumOrUnknown, Message};
    let seal = |message: &proto::sentinel::StepTrace| {
        let payload = message.write_to_bytes().unwrap();
        let head = [&b"SNTLTRC1"[..], &(payload.len() as u64).to_le_bytes(), &crc32fast::hash(&payload).to_le_bytes()];
        [head.concat(), payload].concat()
    };
    let mut message = proto::sentinel::StepTrace::new();
    message.buffers.push(proto::sentinel::BufferRecord::new());
    message.buffers[0].origin = EnumOrUnknown::from_i32(7);
    let said = complaint_about("origin", &seal(&message));
    assert_eq!(said, "buffers[0].origin = 7: accepted are 0 (STEP), 1 (PERSISTENT), 2 (EXTERNAL)");
    message.layer_source = EnumOrUnknown::from_i32(-1);
    let said = complaint_about("layer_source", &seal(&message));
    assert_eq!(said, "layer_source = -1: accepted are 0 (INFERRED), 1 (MARKED)");
    let mut bytes = [&b"SNTLTRC1"[..], &2_u64.to_le_bytes(), &[0; 4], &[0x0a, 0x05]].concat();
    let checksum = crc32fast::hash(&bytes[20..]).to_le_bytes();
    bytes[16..20].copy_from_slice(&checksum);
    let said = complaint_about("undecodable", &bytes);
    assert!(said.starts_with("the payload is no StepTrace message: "), "{said}");
}

#[test]
fn broken_rules_are_listed_up_to_three() {
    let mut step = small_step();
    step.ops[0].end_ns = 0;
    step.ops[0].start_ns = 1;
    let said = complaint_about("one_rule", &to_bytes(&step).unwrap());
    assert_eq!(said, "not well-formed: ops[0] a: end_ns 0 before start_ns 1");
    step.buffers[0].accesses = vec![Access { op: 9, write: false, bytes: 1 }; 5];
    let said = complaint_about("rules", &to_bytes(&step).unwrap());
    assert!(said.ends_with("; buffers[0]: access by op 9 after its death; and 8 more"), "{said}");
}

#[test]
fn sums_that_would_overflow_are_refused() {
    let mut step = small_step();
    step.buffers[0].size_bytes = u64::MAX;
    step.ops[1].end_ns = u64::MAX;
    let said = from_bytes(&to_bytes(&step).unwrap()).unwrap_err().to_string();
    assert!(said.contains("ops[1] b: end_ns 18446744073709551615 is more than 9223372036854775807"), "{said}");
    assert!(said.contains("buffers: sizes in bytes add up to more than 9223372036854775807"), "{said}");
}

#[test]
fn a_missing_file_is_named() {
    let path = directory("missing").join("none.trace");
    let error = read(&path).unwrap_err();
    assert!(matches!(error, TraceError::Unreadable { .. }));
    let said = error.to_string();
    assert!(said.starts_with(&format!("{}: cannot read the trace: ", path.display())), "{said}");
}

#[test]
fn an_unwritable_path_is_named_and_nothing_is_left() {
    let directory = directory("unwritable");
    let missing = directory.join("none").join("step.trace");
    let said = write(&missing, &small_step()).unwrap_err().to_string();
    assert!(said.starts_with(&format!("{}: cannot write the trace: ", missing.display())), "{said}");
    let said = write(&directory, &small_step()).unwrap_err().to_string();
    assert!(said.ends_with("it is there and is not a regular file"), "{said}");
    let said = write("/dev/null", &small_step()).unwrap_err().to_string();
    assert!(said.starts_with("/dev/null: cannot write the trace: "), "{said}");
    assert_eq!(names_in(&directory), [""; 0]);
}

#[cfg(unix)]
#[test]
fn a_link_stays_a_link() {
    let directory = directory("link");
    let link = directory.join("link.trace");
    fs::write(directory.join("real.trace"), b"old").unwrap();
    std::os::unix::fs::symlink("real.trace", &link).unwrap();
    write(&link, &small_step()).unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(read(directory.join("real.trace")).unwrap(), small_step());
}
