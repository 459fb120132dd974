//! `sentinel plan` on a good file.

mod common;

use std::fs;

use common::{directory, file_with, sentinel, step, Ran};
use serde_json::Value;

fn printed(arguments: &[&str]) -> String {
    let Ran { code, out, err } = sentinel(arguments);
    assert_eq!((code, err.as_str()), (0, ""), "{arguments:?}");
    out
}

fn number(report: &Value, key: &str) -> u64 {
    report[key].as_u64().unwrap_or_else(|| panic!("{key} in {report}"))
}

#[test]
fn the_object_says_what_the_plan_says() {
    let file = file_with("plan_json", &step());
    let report: Value =
        serde_json::from_str(&printed(&["plan", &file, "--policy", "hpca21", "--fast", "80%", "--json"])).unwrap();
    assert_eq!(report["policy"], "hpca21");
    assert_eq!(report["machine"], "optane");
    assert_eq!(number(&report, "peak_live_bytes"), 14 << 20);
    assert_eq!(number(&report, "fast_budget_bytes"), (14 << 20) * 8 / 10);
    assert_eq!(number(&report, "layers"), 4);
    let profile = profile::fold(&step()).unwrap();
    let machine = plan::Machine::by_name("optane").unwrap();
    let plan = plan::hpca21(&profile, (14 << 20) * 8 / 10, &machine).unwrap();
    assert_eq!(number(&report, "fast_needed_bytes"), plan.fast_needed_bytes);
    assert_eq!(number(&report, "pool_bytes"), plan.pool_bytes);
    let slots: u64 = report["slots"].as_object().unwrap().values().filter_map(Value::as_u64).sum();
    assert_eq!(slots, plan.slots.len() as u64);
    assert_eq!(number(&report["units"], "arena") + number(&report["units"], "persistent"), plan.units.len() as u64);
    let intervals = report["intervals"].as_array().unwrap();
    assert_eq!(intervals.len(), plan.intervals.len());
    for way in ["promoted_bytes", "demoted_bytes"] {
        let sum: u64 = intervals.iter().map(|interval| number(interval, way)).sum();
        assert_eq!(number(&report, way), sum);
    }
}

#[test]
fn the_page_names_what_people_look_for() {
    let file = file_with("plan_page", &step());
    let out = printed(&["plan", &file, "--policy", "hpca21", "--fast", "12M"]);
    for line in ["policy           hpca21 for machine optane", "peak live        14.0 MiB", "fast budget      12.0 MiB"]
    {
        assert!(out.lines().any(|printed| printed == line), "{line}\n{out}");
    }
    for heading in ["fast needed ", "short-lived pool ", "intervals ", "moved per step ", "may be late "] {
        assert!(out.lines().any(|printed| printed.starts_with(heading)), "{heading}\n{out}");
    }
}

#[test]
fn what_is_needed_does_not_read_like_what_is_enough() {
    let file = file_with("plan_needed", &step());
    let line = |policy: &str| {
        let out = printed(&["plan", &file, "--policy", policy, "--fast", "13M"]);
        out.lines().find(|line| line.starts_with("fast needed ")).unwrap().to_owned()
    };
    assert!(line("gap").ends_with(" at least: all else is fast as far as the budget goes"), "{}", line("gap"));
    assert!(line("hpca21").ends_with(" at least"), "{}", line("hpca21"));
}

#[test]
fn a_budget_below_the_need_is_said() {
    let file = file_with("plan_small", &step());
    let out = printed(&["plan", &file, "--policy", "hpca21", "--fast", "64K"]);
    assert!(out.contains("more than the budget: the overflow lives in slow memory"), "{out}");
}

#[test]
fn a_machine_may_come_from_a_file() {
    let file = file_with("plan_machine", &step());
    let machine = directory("plan_machine_file").join("mine.toml");
    let tier = |name: &str, gbps: f64| {
        format!("[[tiers]]\nname = \"{name}\"\nread_gbps = {gbps:.1}\nwrite_gbps = {gbps:.1}\nlatency_ns = 100.0\n")
    };
    let head = "name = \"mine\"\npromote_gbps = 2.0\ndemote_gbps = 2.0\nlines_in_flight_per_thread = 10.0\n";
    fs::write(&machine, [head.to_owned(), tier("near", 100.0), tier("far", 10.0)].concat()).unwrap();
    let out = printed(&["plan", &file, "--fast", "50%", "--machine", machine.to_str().unwrap()]);
    assert!(out.starts_with("policy           gap for machine mine\n"), "{out}");
}
