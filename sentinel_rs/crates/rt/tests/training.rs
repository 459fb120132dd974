//! A whole training without TensorFlow: kernels that allocate, read and free, from the first step to managed ones. The
//! process has one runtime, so each test is a part of one story and the file is one test.

use rt::graph::GraphEdges;
use rt::recorder::Touch;
use rt::runtime::Runtime;
use rt::setup;
use std::collections::BTreeMap;
use std::sync::Arc;

const LAYERS: usize = 12;
const ACTIVATION_BYTES: u64 = 1 << 20;
const SCRATCH_BYTES: u64 = 3 << 19;
const FAST_BYTES: u64 = 8 << 20;

/// The live blocks, which must never overlap.
#[derive(Default)]
struct Live(BTreeMap<usize, u64>);

impl Live {
    fn add(&mut self, addr: usize, size: u64) {
        if let Some((&before, &len)) = self.0.range(..=addr).next_back() {
            assert!(before + usize::try_from(len).unwrap() <= addr, "{addr:#x} lies inside {before:#x}");
        }
        if let Some((&after, _)) = self.0.range(addr..).next() {
            assert!(addr + usize::try_from(size).unwrap() <= after, "{addr:#x} reaches into {after:#x}");
        }
        self.0.insert(addr, size);
    }
}

struct Trainer {
    runtime: Arc<Runtime>,
    graph: u64,
    kernels: Vec<u32>,
    weights: Vec<usize>,
    live: Live,
    step_id: i64,
    mark: u32,
}

impl Trainer {
    fn new(runtime: Arc<Runtime>) -> Trainer {
        let names: Vec<String> = (0..2 * LAYERS).map(|i| format!("layer{i}/op")).collect();
        let edges: Vec<(u32, u32)> =
            (1..2 * LAYERS).map(|i| (u32::try_from(i).unwrap() - 1, u32::try_from(i).unwrap())).collect();
        let graph = runtime.graph_opens(GraphEdges::new(&names, &edges));
        let kernels =
            names.iter().enumerate().map(|(i, name)| runtime.kernels.hold(0x1000 + 64 * i, name, "MatMul")).collect();
        let mark = runtime.kernels.hold(0x9000, "mark", "SentinelAddLayer");
        let mut live = Live::default();
        let weights = (0..LAYERS)
            .map(|_| {
                let addr = runtime.alloc(64, 200_000).expect("the machine has memory");
                live.add(addr, 200_000);
                addr
            })
            .collect();
        Trainer { runtime, graph, kernels, weights, live, step_id: 0, mark }
    }

    fn alloc(&mut self, size: u64) -> usize {
        let addr = self.runtime.alloc(64, size).expect("the machine has memory");
        assert_eq!(addr % 64, 0);
        self.live.add(addr, size);
        let budget = &self.runtime.memory.budget;
        assert!(budget.used() <= budget.allowed(), "{} of {}", budget.used(), budget.allowed());
        addr
    }

    fn free(&mut self, addr: usize) {
        assert!(self.live.0.remove(&addr).is_some());
        assert!(self.runtime.free(addr));
    }

    /// Runs one kernel that reads `inputs`, uses scratch, and makes one output of `output` bytes.
    fn op(&mut self, kernel: u32, inputs: &[usize], output: u64) -> usize {
        let touches: Vec<Touch> = inputs.iter().map(|&addr| touch(addr, self.live.0[&addr], false)).collect();
        let scope = self.runtime.op_begins(kernel, self.step_id, &touches);
        let scratch = self.alloc(SCRATCH_BYTES);
        let addr = self.alloc(output);
        self.free(scratch);
        self.runtime.op_ends(&scope, &touches, &[touch(addr, output, true)], true);
        addr
    }

    fn step(&mut self, activation: u64) {
        self.step_id += 1;
        let start = self.runtime.step_begins(self.graph, self.step_id, 7);
        assert_eq!(start.stop, None);
        let mut acts: Vec<usize> = Vec::new();
        for layer in 0..LAYERS {
            let mut inputs = vec![self.weights[layer]];
            inputs.extend(acts.last());
            let out = self.op(self.kernels[layer], &inputs, activation);
            acts.push(out);
            self.pass_mark();
        }
        let mut gradient: Option<usize> = None;
        for layer in (0..LAYERS).rev() {
            let act = acts.pop().expect("one per layer");
            let mut inputs = vec![self.weights[layer], act];
            inputs.extend(gradient);
            let next = self.op(self.kernels[2 * LAYERS - 1 - layer], &inputs, activation);
            self.free(act);
            if let Some(old) = gradient.replace(next) {
                self.free(old);
            }
            self.pass_mark();
        }
        self.free(gradient.expect("there were layers"));
        if start.tag != 0 {
            self.runtime.step_ends(start.tag, true);
        }
        self.audit();
    }

    /// The account agrees with what lives where, summed up independently.
    fn audit(&self) {
        for _ in 0..1000 {
            // Moves may be under way; when none is, both say the same.
            let (before, summed) = (self.runtime.memory.budget.used(), self.runtime.audited_fast_bytes());
            if before == summed && self.runtime.memory.budget.used() == before {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        panic!("budget {}, summed {}", self.runtime.memory.budget.used(), self.runtime.audited_fast_bytes());
    }

    fn pass_mark(&mut self) {
        let scope = self.runtime.op_begins(self.mark, self.step_id, &[]);
        self.runtime.op_ends(&scope, &[], &[], true);
    }

    fn train_until(&mut self, done: impl Fn(&rt::stats::Report) -> bool) -> rt::stats::Report {
        for _ in 0..400 {
            self.step(ACTIVATION_BYTES);
            let report = self.runtime.report();
            if done(&report) {
                return report;
            }
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        panic!("never came to it: {:?}", self.runtime.report());
    }
}

fn touch(addr: usize, bytes: u64, write: bool) -> Touch {
    Touch { addr, bytes, write }
}

#[test]
fn from_the_first_step_to_managed_ones_and_back() {
    std::env::set_var("SENTINEL_FAST", FAST_BYTES.to_string());
    std::env::set_var("SENTINEL_SLOW", "emulated:optane");
    std::env::set_var("SENTINEL_WARMUP_STEPS", "2");
    std::env::set_var("SENTINEL_MIGRATION_GBPS", "20");
    let runtime = Arc::clone(setup::configure(&[]).expect("good options").expect("a budget was set"));
    runtime.set_threads(2, 1);
    let mut trainer = Trainer::new(Arc::clone(&runtime));

    let managed = trainer.train_until(|report| report.steps_managed >= 10);
    assert_eq!((managed.steps_profiled, managed.plans_made), (1, 1));
    assert_eq!(managed.layer_source, "marked");
    assert_eq!(managed.layers, 2 * LAYERS as u64);
    assert_eq!(managed.slot_hit_rate, Some(1.0), "the steps repeat exactly");
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
