//! `sentinel bench planning` on small steps.

use std::process::{Command, Output};

fn bench(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sentinel")).args(["bench", "planning"]).args(arguments).output().unwrap()
}

#[test]
fn the_last_line_is_one_object_with_a_row_for_every_policy_and_size() {
    let Output { status, stdout, stderr } = bench(&["--buffers", "1000,3000"]);
    assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
    let out = String::from_utf8(stdout).unwrap();
    let summary: serde_json::Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
    let default = summary["policy"].as_str().unwrap();
    assert_eq!(summary["fitted_exponent"], summary[format!("fitted_exponent_{default}")]);
    assert!(summary["fitted_exponent"].as_f64().is_some() && summary["calibration_cpu_seconds"].as_f64().is_some());
    assert!(summary["seconds_100k"].is_null(), "that size was not asked for: {summary}");
    let rows = summary["rows"].as_array().unwrap();
    let cases: Vec<_> = rows.iter().map(|row| (row["policy"].as_str(), row["buffers"].as_u64())).collect();
    let expected = ["hpca21", "gap"].map(|policy| [1000, 3000].map(|buffers| (Some(policy), Some(buffers))));
    assert_eq!(cases, expected.concat());
    for row in rows {
        let seconds = ["fold_cpu_seconds", "plan_cpu_seconds"].map(|key| row[key].as_f64().unwrap());
        assert!(seconds.iter().all(|&seconds| seconds > 0.0), "{row}");
        assert!((row["cpu_seconds"].as_f64().unwrap() - seconds[0] - seconds[1]).abs() < 1e-9, "{row}");
        // No process with a step of 1000 buffers fits into a megabyte.
        assert!(row["peak_bytes"].as_u64().unwrap() > 1 << 20, "{row}");
    }
}

#[test]
fn what_cannot_be_measured_is_named() {
    for (arguments, expected) in [
        (["--buffers", "1000,999"], "--buffers = 999: accepted are numbers from 1000 to 10000000"),
        (["--buffers", "4294967295"], "--buffers = 4294967295: accepted are numbers from 1000 to 10000000"),
        (["--case", "gap"], "--case = gap: accepted is POLICY:BUFFERS, such as hpca21:1000"),
        (["--case", "fast_only:1000"], "--case: fast_only plans nothing; accepted are hpca21 and gap"),
    ] {
        let Output { status, stderr, .. } = bench(&arguments);
        let said = String::from_utf8(stderr).unwrap();
        assert!(!status.success() && said.contains(expected), "{arguments:?}: {said}");
    }
}
