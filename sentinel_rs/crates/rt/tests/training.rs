//! A whole training without TensorFlow: kernels that allocate, read and free, from the first step to managed ones. The
//! process has one runtime, so each test is a part of one story and the file is one test.

mod trainer;

use rt::setup;
use std::sync::Arc;
use std::time::Duration;
use trainer::{Trainer, ACTIVATION_BYTES, FAST_BYTES, LAYERS};

#[test]
fn from_the_first_step_to_managed_ones_and_back() {
    std::env::set_var("SENTINEL_FAST", FAST_BYTES.to_string());
    std::env::set_var("SENTINEL_SLOW", "emulated:optane");
    std::env::set_var("SENTINEL_WARMUP_STEPS", "2");
    std::env::set_var("SENTINEL_MIGRATION_GBPS", "20");
    let runtime = Arc::clone(setup::configure(&[]).expect("good options").expect("a budget was set"));
    runtime.set_threads(2, 1);
    let mut trainer = Trainer::new(Arc::clone(&runtime), Duration::ZERO);

    let managed = trainer.train_until(|report| report.steps_managed >= 10);
    assert_eq!((managed.steps_profiled, managed.plans_made - managed.plans_for_op_times), (1, 1));
    assert_eq!(managed.layer_source, "marked");
    assert_eq!(managed.layers, 2 * LAYERS as u64);
    let misses = (managed.slot_misses_busy, managed.slot_misses_unknown, managed.slot_misses_size);
    assert_eq!(misses, (0, 0, 0), "the steps repeat exactly");
    // The first managed steps find tensors where they were before the plan, and the pool short for that.
    assert!(managed.slot_hit_rate > Some(0.9), "{managed:?}");
    assert!(managed.demoted_bytes > 0 && managed.promoted_bytes > 0, "{managed:?}");
    assert!(managed.fast_bytes_peak <= FAST_BYTES);

    // Other shapes: the plan no longer fits, so after a few steps the graph is profiled again.
    for _ in 0..6 {
        trainer.step(ACTIVATION_BYTES / 2);
    }
    let changed = runtime.report();
    assert!(changed.slot_misses_size > 0, "{changed:?}");
    let again =
        trainer.train_until(|report| report.plans_made >= 2 && report.steps_managed > changed.steps_managed + 5);
    assert!(again.steps_profiled >= 2);
    assert!(again.fast_bytes_peak <= FAST_BYTES);

    // Everything dies: the account is empty but for the pool of the plan that is still followed.
    for weight in std::mem::take(&mut trainer.weights) {
        trainer.free(weight);
    }
    runtime.graph_closes(trainer.graph);
    let waited = std::time::Instant::now();
    while runtime.memory.budget.used() > 0 && waited.elapsed().as_secs() < 10 {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert_eq!(runtime.memory.budget.used(), 0, "{:?}", runtime.report());
    assert!(!runtime.free(0x10), "not ours");
}
