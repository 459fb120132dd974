//! `sentinel sim` on a good file, and `sentinel bench policies` on a folder of them.

mod common;

use std::fs;

use common::{directory, file_with, sentinel, step, Ran};
use serde_json::Value;

fn printed(arguments: &[&str]) -> String {
    let Ran { code, out, err } = sentinel(arguments);
    assert_eq!((code, err.as_str()), (0, ""), "{arguments:?}");
    out
}

#[test]
fn every_policy_is_run_at_every_budget_and_twice_gives_the_same_bytes() {
    let file = file_with("sim_json", &step());
    let arguments = ["sim", file.as_str(), "--fast", "20%..40%", "--mhat", "2", "--json"];
    let once = printed(&arguments);
    assert_eq!(once, printed(&arguments));
    let report: Value = serde_json::from_str(&once).unwrap();
    let points = report["points"].as_array().unwrap();
    assert_eq!(points.len(), 5);
    for point in points {
        let bound = point["bound"].as_f64().unwrap();
        let results = point["results"].as_array().unwrap();
        assert_eq!(results.len(), sim::Named::ALL.len());
        for result in results {
            let throughput = result["throughput"].as_f64().unwrap();
            assert!(throughput > 0.0 && throughput <= 1.0 + 1e-9, "{result}");
            assert!(result["policy"] == "fast_only" || throughput <= bound + 1e-6, "{bound} {result}");
        }
    }
}

/// A process with one policy at one budget has one piece of work, so that nothing in it runs beside anything else.
#[test]
fn all_cores_say_what_one_piece_of_work_after_the_other_says() {
    let file = file_with("sim_cores", &step());
    for how in [&["--mhat", "2"][..], &["--emulated"]] {
        let points = |policy: &str, fast: &str, bound: &[&str]| -> Vec<Value> {
            let arguments = ["sim", &file, "--policy", policy, "--fast", fast, "--json"];
            let report = printed(&[&arguments, how, bound].concat());
            serde_json::from_str::<Value>(&report).unwrap()["points"].as_array().unwrap().clone()
        };
        for point in points("all", "20%,40%,60%", &[]) {
            let fast = point["fast_bytes"].to_string();
            let results = point["results"].as_array().unwrap();
            for (result, (name, _)) in results.iter().zip(sim::Named::ALL) {
                assert_eq!(*result, points(name, &fast, &["--no-bound"])[0]["results"][0], "{name} at {fast}");
            }
            assert_eq!(results.len(), sim::Named::ALL.len());
            assert_eq!(point["bound"], points("fast_only", &fast, &[])[0]["bound"], "{fast}");
        }
    }
}

#[test]
fn amounts_in_any_order_make_one_curve_from_left_to_right() {
    let file = file_with("sim_order", &step());
    let ran = |fast: &str| {
        let out = printed(&["sim", &file, "--policy", "slow_only", "--fast", fast, "--no-bound", "--json"]);
        let report: Value = serde_json::from_str(&out).unwrap();
        let points = report["points"].as_array().unwrap().iter();
        points.map(|point| point["fast_bytes"].as_u64().unwrap()).collect::<Vec<u64>>()
    };
    let peak: u64 = 14 << 20;
    // Seven mebibytes are half of the peak.
    assert_eq!(ran("50%,20%,7M,20%,1M"), [1 << 20, peak / 5, 7 << 20]);
    assert_eq!(printed(&["sim", &file, "--policy", "gap,ial,gap", "--no-bound"]).matches("gap").count(), 1);
}

#[test]
fn an_emulated_step_has_a_bound_only_when_its_ops_run_one_after_another() {
    let ran = |name: &str, inter_op_threads: u32, machine: &str, json: bool| {
        let file = file_with(name, &trace::StepTrace { inter_op_threads, ..step() });
        let arguments = ["sim", &file, "--fast", "20%,60%", "--emulated", "--machine", machine];
        printed(&[&arguments[..], if json { &["--json"] } else { &[] }].concat())
    };
    let report: Value = serde_json::from_str(&ran("emulated_1", 1, "optane", true)).unwrap();
    for point in report["points"].as_array().unwrap() {
        let bound = point["bound"].as_f64().unwrap();
        for result in point["results"].as_array().unwrap().iter().filter(|result| result["policy"] != "fast_only") {
            assert!(result["throughput"].as_f64().unwrap() <= bound + 1e-6, "{bound} {result}");
        }
    }
    assert!(report["no_bound_because"].is_null());
    let report: Value = serde_json::from_str(&ran("emulated_4", 4, "optane", true)).unwrap();
    assert!(report["points"].as_array().unwrap().iter().all(|point| point["bound"].is_null()), "{report}");
    assert!(report["no_bound_because"].as_str().unwrap().contains("several ops at a time"));
    let page = ran("emulated_page", 4, "optane", false);
    assert!(page.contains("\nbound         none: the step was recorded with several ops at a time"), "{page}");
    assert!(ran("emulated_swap", 1, "swap-nvme", false).contains("bound         none: slow memory is emulated beside"));
}

#[test]
fn terabytes_of_fast_memory_or_of_tensors_take_none_of_this_machine() {
    let file = file_with("sim_terabytes", &step());
    let mut large = step();
    large.buffers[2].size_bytes = 1 << 43;
    large.buffers[2].accesses.iter_mut().for_each(|access| access.bytes = 1 << 43);
    let large = file_with("sim_large_step", &large);
    for (file, fast) in [(&file, "16000000T"), (&large, "90%")] {
        let report = printed(&["sim", file, "--policy", "memory_mode", "--fast", fast, "--no-bound", "--json"]);
        let report: Value = serde_json::from_str(&report).unwrap();
        let throughput = report["points"][0]["results"][0]["throughput"].as_f64().unwrap();
        assert!(throughput > 0.3 && throughput <= 1.0, "{fast}: {report}");
    }
}

#[test]
fn a_file_that_cannot_be_written_is_refused_before_anything_is_read() {
    let folder = directory("unwritable");
    let missing = folder.join("missing/out").into_os_string().into_string().unwrap();
    let scale = ["trace", "scale", "no.trace", "no.trace", "--batches", "1,2", "--batch", "3", "--out"];
    for (arguments, option) in [(&["sim", "no.trace", "--plot"][..], "--plot"), (&scale, "--out")] {
        let ran = sentinel(&[arguments, &[&missing]].concat());
        let begin = format!("sentinel: {option} = {missing}: cannot be written: ");
        assert!(ran.code == 1 && ran.err.starts_with(&begin), "{}", ran.err);
    }
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
}

#[test]
fn the_full_table_is_not_worked_out_for_a_folder_that_cannot_be_made() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../..");
    let [published, recorded] = ["bench/data/hpca21", "sentinel_rs/testdata"].map(|folder| format!("{root}/{folder}"));
    let folder = directory("unwritable_table");
    let data = folder.join("data").display().to_string();
    fs::create_dir(&data).unwrap();
    fs::copy(format!("{recorded}/dcgan-b64.trace"), format!("{data}/dcgan.trace")).unwrap();
    // A folder under a file can be neither found nor made.
    fs::write(folder.join("file"), "").unwrap();
    let results = folder.join("file/results").display().to_string();
    let arguments = ["bench", "policies", "--published", &published, "--data", &data, "--results", &results];
    let Ran { code, err, out } = sentinel(&arguments);
    assert!(code == 1 && err.starts_with(&format!("sentinel: --results = {results}: cannot be made: ")), "{err}");
    assert!(out.contains("dcgan.trace") && !out.contains("machine: one number"), "{out}");
}

#[test]
fn a_step_of_which_nothing_is_known_is_refused() {
    let mut timeless = step();
    timeless.ops.iter_mut().for_each(|op| op.end_ns = op.start_ns);
    let file = file_with("sim_timeless", &timeless);
    let ran = sentinel(&["sim", &file, "--emulated", "--step-seconds", "1"]);
    assert!(ran.code == 1 && ran.err.starts_with("sentinel: --emulated: the recorded ops take no time"), "{}", ran.err);
    let file = file_with("sim_bufferless", &trace::StepTrace { buffers: vec![], ..step() });
    let expected = "sentinel: --fast: that share of this step's peak of 0 bytes is less than a byte";
    for arguments in [["sim", &file, "--fast", "20%"], ["plan", &file, "--fast", "20%"]] {
        let ran = sentinel(&arguments);
        assert!(ran.code == 1 && ran.err.starts_with(expected), "{}", ran.err);
    }
}

#[test]
fn what_the_system_refuses_is_told_with_its_reason() {
    let folder = directory("bench_refused");
    let (results, data) = (folder.join("results"), folder.join("no-data"));
    let [results, data] = [results, data].map(|path| path.into_os_string().into_string().unwrap());
    let published = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../bench/data/hpca21");
    let arguments = ["bench", "policies", "--results", &results, "--published", published, "--data", &data];
    let Ran { code, err, .. } = sentinel(&arguments);
    let expected = format!("sentinel: cannot read {data}: No such file or directory (os error 2)\n");
    assert_eq!((code, err), (1, expected));
}

#[test]
fn the_help_names_every_policy_and_machine() {
    let help = printed(&["sim", "--help"]);
    let machines = plan::Machine::built_in_names();
    for name in sim::Named::ALL.iter().map(|(name, _)| *name).chain(machines.iter().copied()) {
        assert!(help.contains(name), "{name}\n{help}");
    }
    let help = printed(&["plan", "--help"]);
    assert!(machines.iter().all(|name| help.contains(name)), "{help}");
    assert!(help.starts_with("Print what a policy would do") && help.contains("[default: gap]"), "{help}");
}

#[test]
fn the_picture_names_every_curve_and_is_the_same_every_time() {
    let file = file_with("sim_plot", &step());
    let folder = directory("sim_plot_out");
    let draw = |name: &str| {
        let path = folder.join(name);
        printed(&["sim", &file, "--fast", "10%..100%", "--no-bound", "--plot", path.to_str().unwrap()]);
        fs::read_to_string(path).unwrap()
    };
    let picture = draw("one.svg");
    assert_eq!(picture, draw("two.svg"));
    assert!(picture.starts_with("<svg") && picture.ends_with("</svg>\n"));
    for label in ["gap (ours)", "Sentinel (HPCA 2021)", "first touch", "fast memory, share of peak live bytes"] {
        assert!(picture.contains(label), "{label}");
    }
}

#[test]
fn what_cannot_be_simulated_is_refused_by_name() {
    let file = file_with("sim_refused", &step());
    for (option, value, word) in [
        ("--policy", "lru", "lru"),
        ("--fast", "50%..10%", "--fast"),
        ("--mhat", "0", "--mhat"),
        ("--mhat", "1e308", "accepted is 0.000001 to 1000000"),
        ("--migration-gbps", "0", "--migration-gbps = 0: accepted is 0.0001 to 1000000"),
        ("--migration-gbps", "1e308", "accepted is 0.0001 to 1000000"),
        ("--migration-gbps", "nan", "--migration-gbps = NaN"),
        ("--migration-gbps", "inf", "--migration-gbps = inf"),
        ("--memory-share", "nan", "--memory-share = NaN"),
        ("--memory-share", "-0.5", "--memory-share = -0.5: accepted is 0 to 1"),
        ("--mhat", "-1", "--mhat = -1: accepted is"),
        ("--fast", "-5%", "--fast = -5%: accepted are"),
        ("--memory-share", "2", "--memory-share"),
        ("--slow-ratio", "99", "at most"),
        ("--machine", "pdp11", "pdp11"),
    ] {
        let ran = sentinel(&["sim", &file, option, value]);
        assert_ne!(ran.code, 0, "{option} {value}");
        assert!(ran.err.contains(word), "{option} {value}: {}", ran.err);
    }
}
