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
        ("--memory-share", "2", "--memory-share"),
        ("--slow-ratio", "99", "at most"),
        ("--machine", "pdp11", "pdp11"),
    ] {
        let ran = sentinel(&["sim", &file, option, value]);
        assert_ne!(ran.code, 0, "{option} {value}");
        assert!(ran.err.contains(word), "{option} {value}: {}", ran.err);
    }
}
