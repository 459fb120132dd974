//! `sentinel run` ends as its command ends, passes signals on, and says what processes handed over.

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use crate::common::{binary, directory, sentinel, Ran};

const HANDED: &str = r#"{"active":true,"tiers":"emulated","slow_tier":"emulated:cxl","policy":"hpca21","state":"managed",
"fast_bytes_allowed":1048576,"fast_bytes_peak":1048576,"fast_bytes_used":0,"fast_bytes_needed":0,"peak_bytes":2097152,
"promoted_bytes":4096,"demoted_bytes":0,"late_promotions":0,"swapped_out_bytes_peak":0,"major_faults":0,
"slot_hit_rate":1.0,"overflow_bytes":0,"stall_ns":0,
"emulated_delay_ns":0,"steps_seen":9,"steps_profiled":1,"steps_managed":5,"layers":3,"layer_source":"marked",
"panics_caught":0,"errors_by_errno":{},"message":null,"profiler":"op"}"#;

#[test]
fn the_command_gets_its_variables_and_its_statistics_are_told() {
    let script = format!("echo '{HANDED}' > $SENTINEL_STATS/$$.json; echo $SENTINEL_FAST $SENTINEL_SLOW $1; exit 3");
    let Ran { code, out, err } =
        sentinel(&["run", "--fast", "1M", "--slow", "emulated:cxl", "--", "sh", "-c", &script, "sh", "--flag"]);
    assert_eq!((code, out.as_str()), (3, "1M emulated:cxl --flag\n"));
    let lines: Vec<&str> = err.lines().collect();
    assert_eq!(lines.len(), 5, "{err}");
    assert_eq!(lines[0], "sentinel: was on: policy hpca21, fast memory 1.0 MiB, slow memory emulated:cxl");
    assert_eq!(lines[1], "sentinel: steps: 5 followed a plan, of 9 (1 profiled by op); 3 layers, marked");
}

#[test]
fn statistics_that_make_no_sense_do_not_change_how_the_command_ended() {
    let script = r#"echo '{"active":true}' > $SENTINEL_STATS/1.json; exit 3"#;
    let Ran { code, err, .. } = sentinel(&["run", "--fast", "1M", "--", "sh", "-c", script]);
    assert_eq!((code, err.contains("sentinel: what it did cannot be told: ")), (3, true), "{err}");
}

#[test]
fn a_command_without_tensorflow_is_told_plainly() {
    let Ran { code, out, err } = sentinel(&["run", "--fast", "1M", "true"]);
    assert_eq!((code, out.as_str()), (0, ""));
    assert_eq!(err, "sentinel: was not on: no process of this command loaded TensorFlow with Sentinel\n");
}

#[test]
fn commands_that_cannot_be_started_are_named() {
    let Ran { code, err, .. } = sentinel(&["run", "/nonexistent/train"]);
    assert_eq!((code, err.contains("/nonexistent/train cannot be started: No such file")), (127, true), "{err}");
    let Ran { code, err, .. } = sentinel(&["run", "/"]);
    assert_eq!((code, err.contains("/ cannot be started: Permission denied")), (126, true), "{err}");
}

#[test]
fn a_folder_of_the_users_is_kept_and_old_files_in_it_are_not_told() {
    let folder = directory("stats_of_user");
    std::fs::write(folder.join("1.json"), HANDED).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(50));
    let output = binary().args(["run", "true"]).env("SENTINEL_STATS", &folder).output().unwrap();
    assert!(String::from_utf8(output.stderr).unwrap().contains("was not on"));
    assert!(folder.join("1.json").is_file());
}

#[test]
fn a_signal_reaches_the_command_which_may_handle_it() {
    let script = "trap 'echo caught; exit 5' TERM; echo ready; while :; do sleep 0.05; done";
    let mut child = binary().args(["run", "sh", "-c", script]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "ready");
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    assert_eq!(lines.next().unwrap().unwrap(), "caught");
    assert_eq!(child.wait().unwrap().code(), Some(5));
}

#[test]
fn a_command_that_a_signal_ends_looks_the_same_from_outside() {
    for (signal, number) in [("KILL", 9), ("TERM", 15)] {
        let status = binary().args(["run", "sh", "-c", &format!("kill -{signal} $$")]).status().unwrap();
        assert_eq!(status.signal(), Some(number));
    }
}

#[test]
fn the_command_blocks_no_signal() {
    let Ran { out, .. } = sentinel(&["run", "grep", "SigBlk", "/proc/self/status"]);
    assert_eq!(out.trim(), "SigBlk:\t0000000000000000");
}

#[test]
fn wrong_options_are_refused_before_anything_runs() {
    let folder = directory("refused");
    let file = folder.join("ran");
    for (option, value, accepted) in
        [("--fast", "lots", "20%"), ("--slow", "tape", "node:LIST"), ("--policy", "best", "hpca21")]
    {
        let Ran { code, err, .. } = sentinel(&["run", option, value, "touch", file.to_str().unwrap()]);
        assert_eq!(code, 2);
        assert!([option, value, accepted].iter().all(|part| err.contains(part)), "{err}");
    }
    assert!(!file.exists());
    let Ran { code, err, .. } = sentinel(&["run", "--fast", "1G"]);
    assert_eq!((code, err.contains("COMMAND")), (2, true), "{err}");
}
