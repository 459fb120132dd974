//! What `sentinel` says about bad files and bad arguments, and with which exit code.

mod common;

use std::fs;

use common::{directory, file_with, sentinel, step, Ran};
use trace::Access;

/// Runs every command that reads a trace on `file`; each must fail with the same message.
fn refused_by_all(file: &str) -> String {
    let commands = [
        &["trace", "check", file][..],
        &["trace", "show", file],
        &["trace", "show", "--buffers", file],
        &["trace", "stats", file],
        &["trace", "stats", "--json", file],
        &["plan", "--fast", "20%", file],
    ];
    let mut said: Option<String> = None;
    for arguments in commands {
        let Ran { code, out, err } = sentinel(arguments);
        assert_eq!((code, out.as_str()), (1, ""), "{arguments:?}: {err}");
        assert_eq!(said.get_or_insert_with(|| err.clone()), &err, "{arguments:?}");
    }
    let begin = format!("sentinel: {file}: ");
    let said = said.unwrap();
    assert!(said.starts_with(&begin), "{said}");
    said[begin.len()..].to_owned()
}

fn usage_error(arguments: &[&str]) -> String {
    let Ran { code, out, err } = sentinel(arguments);
    assert_eq!((code, out.as_str()), (2, ""), "{arguments:?}: {err}");
    assert!(err.lines().all(|line| line.starts_with("sentinel: ")), "{err}");
    err
}

#[test]
fn a_truncated_file() {
    let file = file_with("truncated", &step());
    let bytes = fs::read(&file).unwrap();
    fs::write(&file, &bytes[..bytes.len() - 7]).unwrap();
    let expected = format!("truncated: {} bytes expected, {} there\n", bytes.len(), bytes.len() - 7);
    assert_eq!(refused_by_all(&file), expected);
}

#[test]
fn a_flipped_bit() {
    let file = file_with("flipped", &step());
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    fs::write(&file, &bytes).unwrap();
    assert!(refused_by_all(&file).starts_with("checksum mismatch: the header says "));
}

#[test]
fn a_missing_file() {
    let file = directory("missing").join("none.trace");
    assert!(refused_by_all(file.to_str().unwrap()).starts_with("cannot read the trace: "));
}

#[test]
fn a_directory_and_a_text() {
    let directory = directory("text");
    assert!(refused_by_all(directory.to_str().unwrap()).starts_with("cannot read the trace: "));
    let text = directory.join("notes.txt");
    fs::write(&text, "Dear diary").unwrap();
    let said = refused_by_all(text.to_str().unwrap());
    assert_eq!(said, "not a trace: it begins with \"Dear dia\", a trace begins with \"SNTLTRC1\"\n");
}

#[test]
fn check_names_every_broken_rule() {
    let mut step = step();
    step.ops[2].layer = 0;
    step.ops[1].layer = 1;
    step.buffers[3].accesses = vec![Access { op: 77, write: false, bytes: 1 }];
    let file = file_with("rules", &step);
    let Ran { code, out, err } = sentinel(&["trace", "check", &file]);
    assert_eq!((code, out.as_str()), (1, ""));
    let lines: Vec<&str> = err.lines().map(|line| line.strip_prefix(&format!("sentinel: {file}: ")).unwrap()).collect();
    let expected = [
        "not well-formed: 3 broken rules",
        "ops[2] fc/MatMul: layer 0 after layer 1",
        "buffers[3]: access by op 77 outside 1..6",
        "buffers[3]: access by op 77 after its death",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn a_step_without_ops_has_nothing_to_sum_up() {
    let mut step = step();
    step.ops.clear();
    step.buffers.clear();
    let file = file_with("empty_step", &step);
    for arguments in [&["trace", "stats", &file][..], &["plan", &file, "--fast", "1M"]] {
        let Ran { code, out, err } = sentinel(arguments);
        assert_eq!((code, out.as_str()), (1, ""), "{err}");
        assert!(err.starts_with("sentinel: ") && err.contains("no operation"), "{err}");
    }
}

#[test]
fn an_unknown_machine() {
    let file = file_with("machine", &step());
    let said = usage_error(&["plan", &file, "--fast", "20%", "--machine", "abacus"]);
    assert!(said.starts_with("sentinel: --machine = abacus: "), "{said}");
    assert!(said.contains("optane"), "the accepted names are listed: {said}");
    let missing = directory("machine_file").join("none.toml");
    let said = usage_error(&["plan", &file, "--fast", "20%", "--machine", missing.to_str().unwrap()]);
    assert!(said.contains("none.toml"), "{said}");
}

#[test]
fn a_policy_without_a_plan() {
    for (policy, why) in [
        (
            "gap_at_ops",
            "moves issued at every op are an option of the simulator only (sentinel sim --policy); accepted are",
        ),
        ("first_touch", "accepted are"),
        ("lru", "accepted are"),
    ] {
        let said = usage_error(&["plan", "no.trace", "--fast", "20%", "--policy", policy]);
        assert_eq!(said, format!("sentinel: --policy = {policy}: {why} gap and hpca21\n"));
    }
}

#[test]
fn an_amount_that_is_none() {
    let file = file_with("amount", &step());
    for fast in ["", "0%", "101%", "lots", "-1", "0", "1.5G"] {
        let said = usage_error(&["plan", &file, &format!("--fast={fast}")]);
        assert!(said.starts_with(&format!("sentinel: --fast = {fast}: accepted are bytes")), "{said}");
    }
}

#[test]
fn arguments_that_mean_nothing() {
    assert!(usage_error(&[]).contains("requires a subcommand"));
    assert!(usage_error(&["trace"]).contains("requires a subcommand"));
    assert!(usage_error(&["trace", "eat", "x"]).contains("unrecognized subcommand 'eat'"));
    assert!(usage_error(&["trace", "show"]).contains("<FILE>"));
    assert!(usage_error(&["trace", "show", "x", "--limit", "few"]).contains("--limit"));
    assert!(usage_error(&["plan", "x"]).contains("--fast <AMOUNT>"));
    assert!(usage_error(&["trace", "check", "x", "--colour"]).contains("--colour"));
}

#[test]
fn help_and_version_are_answers() {
    let Ran { code, out, err } = sentinel(&["--version"]);
    assert_eq!((code, out, err.as_str()), (0, format!("sentinel {}\n", env!("CARGO_PKG_VERSION")), ""));
    for arguments in [&["--help"][..], &["trace", "--help"], &["plan", "--help"]] {
        let Ran { code, out, err } = sentinel(arguments);
        assert_eq!((code, err.as_str()), (0, ""));
        assert!(out.contains("Usage: sentinel"), "{out}");
    }
}
