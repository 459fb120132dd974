//! `sentinel doctor` on the machine that runs the test, with a Python of our own making.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::common::{directory, sentinel, Ran};

/// An interpreter that answers whatever it is asked with this text.
fn python(folder: &Path, answer: &str) -> String {
    let path = folder.join("python");
    std::fs::write(&path, format!("#!/bin/sh\necho '{answer}'\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path.to_str().unwrap().to_owned()
}

const BARE: &str =
    r#"{"python": "3.7.9", "executable": "/x/python", "tensorflow": null, "folder": null, "library": false}"#;

#[test]
fn everything_is_told_as_json() {
    let python = python(&directory("doctor_json"), BARE);
    let Ran { code, out, err } = sentinel(&["doctor", "--quick", "--json", "--python", &python]);
    assert_eq!((code, err.as_str()), (1, ""), "without TensorFlow there is no tiering");
    assert_eq!(out.lines().count(), 1);
    for key in [
        "\"nodes\":[{\"id\":0",
        "\"swap_areas\":",
        "\"settings\":{",
        "\"permissions\":{",
        "\"kernel_profiler\":{\"usable\":",
        "\"ready\":false",
    ] {
        assert!(out.contains(key), "{key} is missing in {out}");
    }
    assert!(out.contains("/x/python has no TensorFlow") && out.contains("pip install"), "{out}");
}

#[test]
fn lines_fit_and_carry_no_colour() {
    let python = python(&directory("doctor_text"), BARE);
    let Ran { out, .. } = sentinel(&["doctor", "--quick", "--python", &python]);
    assert!(out.starts_with("Memory nodes\n") && out.ends_with("not ready: see what blocks above\n"), "{out}");
    assert!(!out.contains('\u{1b}'));
    // Commands stay whole, so that they can be copied.
    let text = out.lines().filter(|line| !line.starts_with("          "));
    assert!(text.clone().all(|line| line.chars().count() <= 100), "{out}");
}

#[test]
fn memory_is_measured_and_a_profile_needs_two_tiers() {
    let folder = directory("doctor_measure");
    let python = python(&folder, BARE);
    let profile = folder.join("machine.toml");
    let Ran { code, out, err } =
        sentinel(&["doctor", "--json", "--python", &python, "--measure", profile.to_str().unwrap()]);
    assert_eq!(code, 1);
    assert!(out.starts_with("{\"kernel\":"), "what was found is told in any case: {out}");
    if profile.exists() {
        assert!(out.contains("\"read_gbps\":") && !out.contains("\"read_gbps\":null"), "{out}");
        let trace = crate::common::file_with("doctor_plan", &crate::common::step());
        let machine = profile.to_str().unwrap();
        let Ran { code, err, .. } = sentinel(&["plan", &trace, "--fast", "50%", "--machine", machine]);
        assert_eq!(code, 0, "{err}");
    } else {
        assert!(err.contains("--measure") && err.contains(": "), "{err}");
    }
}

#[test]
fn a_profile_that_cannot_be_written_is_refused_before_anything_is_looked_at() {
    let missing = directory("doctor_unwritable").join("missing/machine.toml");
    let Ran { code, out, err } = sentinel(&["doctor", "--measure", missing.to_str().unwrap()]);
    let begin = format!("sentinel: --measure = {}: cannot be written: ", missing.display());
    assert!((code, out.as_str()) == (1, "") && err.starts_with(&begin), "{code} {out} {err}");
}

#[test]
fn a_python_that_is_not_there_blocks() {
    let Ran { code, out, .. } = sentinel(&["doctor", "--quick", "--python", "/nonexistent/python"]);
    assert_eq!(code, 1);
    assert!(out.contains("no Python answers (/nonexistent/python)"), "{out}");
}

#[test]
fn quick_and_measure_exclude_each_other() {
    let Ran { code, err, .. } = sentinel(&["doctor", "--quick", "--measure", "x.toml"]);
    assert_eq!((code, err.contains("--quick")), (2, true), "{err}");
}
