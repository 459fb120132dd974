//! `gap` is not behind any policy of the same budget where room is scarcest, on recorded steps. `sentinel bench policies` looks at
//! many more points.

use std::path::Path;

use plan::Machine;
use sim::{Costs, MemoryTime, Named, Setting, SimError, Workload, EQUAL};

/// At `percent` of the peak, with moves of half a peak per step, where not to move is nearly best.
fn check(file: &str, slow_ratio: f64, percent: u64) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata").join(file);
    let workload = Workload::of(file, &trace::read(path).unwrap()).unwrap();
    let machine = Machine::by_name("optane").unwrap();
    let costs = Costs::new(&workload.profile, &machine, MemoryTime::SlowRatio(slow_ratio)).unwrap();
    let setting = Setting::with_m_hat(&workload, workload.profile.peak_live_bytes * percent / 100, 0.5);
    let relative = |policy: Named| match policy.run(&workload, &costs, &setting, &machine) {
        Ok(outcome) => outcome.relative(workload.step_ns),
        Err(SimError::Infeasible { .. }) => 0.0,
        Err(error) => panic!("{file} {percent}%: {}: {error}", policy.name()),
    };
    let ours = relative(Named::Gap);
    for (name, policy) in Named::ALL.into_iter().filter(|(_, policy)| policy.is_rival()) {
        let other = relative(policy);
        assert!(ours >= other * EQUAL, "{file} {percent}%: gap {ours:.4}, {name} {other:.4}");
    }
}

#[test]
fn on_dcgan_with_a_twentieth_of_the_peak() {
    check("dcgan-b64.trace", 3.49, 5);
}

#[test]
fn on_mobilenet_with_a_twentieth_of_the_peak() {
    check("mobilenet-b128.trace", 1.84, 5);
}

#[test]
fn on_mobilenet_with_a_tenth_of_the_peak() {
    check("mobilenet-b128.trace", 1.84, 10);
}

#[test]
fn on_resnet_with_a_twentieth_of_the_peak() {
    check("resnet32-b128.trace", 3.51, 5);
}
