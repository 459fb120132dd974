//! Two recorded batches foretell a third recorded one: bytes within 2%, time within 10%.
//!
//! `cargo test -p profile --test recorded_batches -- --nocapture` prints the errors.

use profile::{fold, scale, Recorded};
use std::path::Path;
use trace::StepTrace;

const BYTES_OFF_AT_MOST: f64 = 0.02;
const TIME_OFF_AT_MOST: f64 = 0.10;

/// Figures of a step by name, each with how far a prediction may be off.
fn figures(step: &StepTrace) -> [(&'static str, u64, f64); 5] {
    let profile = fold(step).unwrap();
    let sum = |of: fn(&profile::BufferFacts) -> u64| profile.buffers.iter().map(of).sum::<u64>();
    let step_ns = step.ops.iter().map(|op| op.end_ns).max().unwrap();
    [
        ("peak live bytes", profile.peak_live_bytes, BYTES_OFF_AT_MOST),
        ("allocated bytes", sum(|buffer| buffer.size_bytes), BYTES_OFF_AT_MOST),
        ("bytes read and written", sum(|buffer| buffer.read_bytes + buffer.written_bytes), BYTES_OFF_AT_MOST),
        ("ns of all ops", profile.ops.iter().map(|op| op.time_ns).sum(), TIME_OFF_AT_MOST),
        ("ns of the step", step_ns, TIME_OFF_AT_MOST),
    ]
}

fn recorded(model: &str, batch: u32) -> StepTrace {
    let file = format!("{}/../../testdata/scaling/{model}-b{batch}.trace", env!("CARGO_MANIFEST_DIR"));
    trace::read(Path::new(&file)).unwrap()
}

fn foretells(model: &str, first: u32, second: u32, batch: u32) {
    let (a, b, truth) = (recorded(model, first), recorded(model, second), recorded(model, batch));
    let foretold = scale(Recorded { step: &a, batch: first }, Recorded { step: &b, batch: second }, batch).unwrap();
    assert_eq!(trace::from_bytes(&trace::to_bytes(&foretold).unwrap()).unwrap(), foretold);
    let mut wrong = Vec::new();
    for ((name, foretold, limit), (_, recorded, _)) in figures(&foretold).into_iter().zip(figures(&truth)) {
        let off = foretold as f64 / recorded as f64 - 1.0;
        let line = format!("{model} {first}, {second} -> {batch}: {foretold} {name}, {:+.2}%", off * 100.0);
        println!("{line}");
        if off.abs() > limit {
            wrong.push(line);
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn resnet32_between_two_batches() {
    foretells("resnet32", 64, 128, 96);
}

#[test]
fn resnet32_beyond_two_batches() {
    foretells("resnet32", 64, 96, 128);
}

#[test]
fn mobilenet_between_two_batches() {
    foretells("mobilenet", 64, 128, 96);
}

#[test]
fn mobilenet_beyond_two_batches() {
    foretells("mobilenet", 64, 96, 128);
}
