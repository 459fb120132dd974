//! A training without TensorFlow: kernels that allocate, read, work and free.

use rt::graph::GraphEdges;
use rt::recorder::Touch;
use rt::runtime::Runtime;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Layers there and as many back.
pub const LAYERS: usize = 12;
/// Of one layer's output.
pub const ACTIVATION_BYTES: u64 = 1 << 20;
const SCRATCH_BYTES: u64 = 3 << 19;
/// A budget for which most activations have to move.
pub const FAST_BYTES: u64 = 8 << 20;

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

/// Trains one graph.
pub struct Trainer {
    pub runtime: Arc<Runtime>,
    pub graph: u64,
    kernels: Vec<u32>,
    pub weights: Vec<usize>,
    live: Live,
    step_id: i64,
    mark: u32,
    work: Duration,
}

impl Trainer {
    /// Each of its operations works for as long as `work`.
    pub fn new(runtime: Arc<Runtime>, work: Duration) -> Trainer {
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
        Trainer { runtime, graph, kernels, weights, live, step_id: 0, mark, work }
    }

    fn alloc(&mut self, size: u64) -> usize {
        let addr = self.runtime.alloc(64, size).expect("the machine has memory");
        assert_eq!(addr % 64, 0);
        self.live.add(addr, size);
        let budget = &self.runtime.memory.budget;
        assert!(budget.used() <= budget.allowed(), "{} of {}", budget.used(), budget.allowed());
        addr
    }

    /// Frees a live block.
    pub fn free(&mut self, addr: usize) {
        assert!(self.live.0.remove(&addr).is_some());
        assert!(self.runtime.free(addr));
    }

    /// Runs one kernel that reads `inputs`, uses scratch, and makes one output of `output` bytes.
    fn op(&mut self, kernel: u32, inputs: &[usize], output: u64) -> usize {
        let touches: Vec<Touch> = inputs.iter().map(|&addr| touch(addr, self.live.0[&addr], false)).collect();
        let scope = self.runtime.op_begins(kernel, self.step_id, &touches);
        let scratch = self.alloc(SCRATCH_BYTES);
        let began = Instant::now();
        while began.elapsed() < self.work {
            std::hint::spin_loop();
        }
        let addr = self.alloc(output);
        self.free(scratch);
        self.runtime.op_ends(&scope, &touches, &[touch(addr, output, true)], true);
        addr
    }

    /// Runs one step, and looks at the account afterwards.
    pub fn step(&mut self, activation: u64) {
        self.try_step(activation).expect("nothing stops the training");
    }

    /// As [`Trainer::step`]; the reason when the runtime stops the training.
    pub fn try_step(&mut self, activation: u64) -> Result<(), String> {
        self.step_id += 1;
        let start = self.runtime.step_begins(self.graph, self.step_id, 7);
        if let Some(reason) = start.stop {
            return Err(reason);
        }
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
        Ok(())
    }

    /// The account agrees with what lives where, summed up independently.
    fn audit(&self) {
        for _ in 0..1000 {
            // Moves may be under way; when none is, both say the same.
            let (before, summed) = (self.runtime.memory.budget.used(), self.runtime.audited_fast_bytes());
            if before == summed && self.runtime.memory.budget.used() == before {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        panic!("budget {}, summed {}", self.runtime.memory.budget.used(), self.runtime.audited_fast_bytes());
    }

    fn pass_mark(&mut self) {
        let scope = self.runtime.op_begins(self.mark, self.step_id, &[]);
        self.runtime.op_ends(&scope, &[], &[], true);
    }

    /// Steps until the report says so.
    pub fn train_until(&mut self, done: impl Fn(&rt::stats::Report) -> bool) -> rt::stats::Report {
        for _ in 0..1000 {
            self.step(ACTIVATION_BYTES);
            let report = self.runtime.report();
            if done(&report) {
                return report;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        panic!("never came to it: {:?}", self.runtime.report());
    }
}

fn touch(addr: usize, bytes: u64, write: bool) -> Touch {
    Touch { addr, bytes, write }
}
