//! Replays the allocations of a recorded step, and prints the CPU nanoseconds per pair of allocation and release: of the
//! operations with them, and of the same operations without, which is nothing for `malloc`:
//! `replay planned|unplanned|malloc THREADS ROUNDS FILE...`. With `malloc` it is the C library's, or whose library is
//! preloaded in its place. Each thread replays steps of its own; a plan is followed by one. `replay events 1 1 FILE` prints
//! what is replayed, for other programs: `a BUFFER BYTES` for an allocation, `f BUFFER` for a release.

use rt::graph::GraphEdges;
use rt::memory::Memory;
use rt::options::{Failure, FastBudget, Options, Profiler, SlowTier};
use rt::runtime::Runtime;
use rt::tiers::single::SingleTier;
use std::collections::BTreeMap;
use std::error::Error;
use std::hint::black_box;
use std::sync::{Arc, Barrier};
use sys::process::thread_cpu_ns;
use trace::{Origin, StepTrace};

const ALIGN_BYTES: u64 = 64;
const CAPACITY_BYTES: u64 = 64 << 30;
/// Replays that are not counted.
const SETTLING_ROUNDS: u32 = 3;

/// What an operation does to memory, in order.
#[derive(Clone, Copy)]
enum Event {
    Alloc { buffer: usize, bytes: u64 },
    Free { buffer: usize },
}

/// A step as events per operation.
struct Replay {
    kernels: Vec<u32>,
    names: Vec<String>,
    edges: Vec<(u32, u32)>,
    events: Vec<Vec<Event>>,
    buffers: usize,
    pairs: usize,
}

impl Replay {
    fn of(step: &StepTrace) -> Replay {
        let mut events = vec![Vec::new(); step.ops.len()];
        let mut late: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        let mut pairs = 0;
        for (index, buffer) in step.buffers.iter().enumerate() {
            let Origin::Step { op, .. } = buffer.origin else { continue };
            pairs += 1;
            events[op as usize].push(Event::Alloc { buffer: index, bytes: buffer.size_bytes });
            match buffer.death_op {
                Some(death) if buffer.temporary && death == op => {
                    events[op as usize].push(Event::Free { buffer: index });
                }
                // What outlives the step is freed with its last operation, so that steps can follow each other.
                death => late.entry(death.unwrap_or(last(step.ops.len()))).or_default().push(index),
            }
        }
        for (op, dead) in late {
            events[op as usize].extend(dead.into_iter().map(|buffer| Event::Free { buffer }));
        }
        let edges = step.ops.iter().zip(0..).flat_map(|(op, to)| op.predecessors.iter().map(move |&from| (from, to)));
        Replay {
            kernels: step.ops.iter().map(|op| op.kernel).collect(),
            names: step.ops.iter().map(|op| op.name.clone()).collect(),
            edges: edges.collect(),
            events,
            buffers: step.buffers.len(),
            pairs,
        }
    }

    fn print(&self) {
        for event in self.events.iter().flatten() {
            match *event {
                Event::Alloc { buffer, bytes } => println!("a {buffer} {bytes}"),
                Event::Free { buffer } => println!("f {buffer}"),
            }
        }
    }
}

fn last(count: usize) -> u32 {
    u32::try_from(count).map_or(u32::MAX, |count| count.saturating_sub(1))
}

/// What TensorFlow aligns tensors to.
#[derive(Clone)]
#[repr(align(64))]
struct Line(#[allow(dead_code)] [u8; 64]);

/// Replays with the C library's allocator, or the preloaded one, aligned as TensorFlow asks it to.
fn with_malloc(replay: &Replay, blocks: &mut [Vec<Line>]) {
    for event in replay.events.iter().flatten() {
        match *event {
            Event::Alloc { buffer, bytes } => {
                let lines = usize::try_from(bytes.max(1).div_ceil(64)).unwrap_or(usize::MAX);
                blocks[buffer] = black_box(Vec::with_capacity(lines));
            }
            Event::Free { buffer } => blocks[buffer] = Vec::new(),
        }
    }
}

fn runtime() -> Result<Arc<Runtime>, Box<dyn Error>> {
    let options = Options {
        fast: FastBudget::Unlimited,
        policy: plan::Policy::FastOnly,
        slow: SlowTier::Nodes(None),
        fast_nodes: sys::topology::NodeList::single(0),
        migration_gbps: None,
        warmup_steps: 1,
        profiler: Profiler::Op,
        failure: Failure::Strict,
        trace_path: None,
        mover_threads: None,
        check_placement: 0,
    };
    let memory = Arc::new(Memory::reserve(Arc::new(SingleTier), CAPACITY_BYTES, u64::MAX)?);
    Ok(Arc::new(Runtime::assemble(options, memory, plan::Machine::by_name("optane")?, None)?))
}

/// One operation after the other, with or without what they allocate.
fn with_runtime(runtime: &Runtime, replay: &Replay, blocks: &mut [usize], step_id: i64, allocates: bool) {
    for (&kernel, events) in replay.kernels.iter().zip(&replay.events) {
        let scope = runtime.op_begins(kernel, step_id, &[]);
        for event in events.iter().filter(|_| allocates) {
            match *event {
                Event::Alloc { buffer, bytes } => {
                    blocks[buffer] = runtime.alloc(ALIGN_BYTES, bytes).expect("there is memory");
                }
                Event::Free { buffer } => assert!(runtime.free(blocks[buffer])),
            }
        }
        runtime.op_ends(&scope, &[], &[], true);
    }
}

/// CPU nanoseconds of `rounds` calls of `work`, after some that do not count.
#[allow(clippy::cast_precision_loss)] // a duration
fn timed(rounds: u32, mut work: impl FnMut()) -> f64 {
    for _ in 0..SETTLING_ROUNDS {
        work();
    }
    let before = thread_cpu_ns();
    for _ in 0..rounds {
        work();
    }
    (thread_cpu_ns() - before) as f64
}

/// Nanoseconds of all rounds: with allocations, and of the same operations without.
type Times = (f64, f64);

/// Follows a plan.
fn planned(replay: &Replay, rounds: u32) -> Result<Times, Box<dyn Error>> {
    let runtime = runtime()?;
    let graph = runtime.graph_opens(GraphEdges::new(&replay.names, &replay.edges));
    for (kernel, name) in replay.kernels.iter().zip(&replay.names) {
        runtime.kernels.hold(usize::try_from(*kernel)? * 64 + 64, name, "Op");
    }
    let mut step_id = 0;
    let mut blocks = vec![0; replay.buffers];
    let mut step = |allocates: bool| {
        step_id += 1;
        let start = runtime.step_begins(graph, step_id, 1);
        with_runtime(&runtime, replay, &mut blocks, step_id, allocates);
        if start.tag != 0 {
            runtime.step_ends(start.tag, true);
        }
    };
    for _ in 0..1000 {
        step(true);
        if runtime.report().steps_managed > 0 {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let whole = timed(rounds, || step(true));
    let hooks = timed(rounds, || step(false));
    let report = runtime.report();
    eprintln!("state {}, hit rate {:?}, arena {}", report.state, report.slot_hit_rate, report.arena_bytes);
    if report.steps_managed < u64::from(rounds) {
        return Err(format!("no plan was followed: {:?}", report.message).into());
    }
    Ok((whole, hooks))
}

/// Serves every allocation from the heaps. All threads replay at the same time, and afterwards all do without allocations.
fn unplanned(replay: &Replay, rounds: u32, runtime: &Runtime, together: &Barrier) -> Times {
    let mut blocks = vec![0; replay.buffers];
    let mut run = |allocates| {
        together.wait();
        timed(rounds, || with_runtime(runtime, replay, &mut blocks, 0, allocates))
    };
    (run(true), run(false))
}

/// The same in `threads` threads; the mean of their times.
fn in_threads(threads: u32, work: impl Fn() -> Times + Sync) -> Result<Times, Box<dyn Error>> {
    let times: Option<Vec<Times>> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(&work)).collect();
        running.into_iter().map(|thread| thread.join().ok()).collect()
    });
    let times = times.ok_or("a thread failed")?;
    let mean = |of: fn(&Times) -> f64| times.iter().map(of).sum::<f64>() / f64::from(threads);
    Ok((mean(|times| times.0), mean(|times| times.1)))
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [kind, threads, rounds, files @ ..] = arguments.as_slice() else {
        return Err("usage: replay planned|unplanned|malloc|events THREADS ROUNDS FILE...".into());
    };
    let (threads, rounds): (u32, u32) = (threads.parse()?, rounds.parse()?);
    for file in files {
        let replay = Replay::of(&trace::read(file)?);
        if kind == "events" {
            replay.print();
            continue;
        }
        let together = Barrier::new(usize::try_from(threads)?);
        let (whole, hooks) = match kind.as_str() {
            "planned" => planned(&replay, rounds)?,
            "unplanned" => {
                let runtime = runtime()?;
                in_threads(threads, || unplanned(&replay, rounds, &runtime, &together))?
            }
            "malloc" => in_threads(threads, || {
                let mut blocks = vec![Vec::new(); replay.buffers];
                together.wait();
                (timed(rounds, || with_malloc(&replay, &mut blocks)), 0.0)
            })?,
            _ => return Err(format!("{kind}: accepted are planned, unplanned, malloc and events").into()),
        };
        #[allow(clippy::cast_precision_loss)] // a count of allocations
        let pairs = replay.pairs as f64 * f64::from(rounds);
        println!("{file} {:.2} {:.2}", whole / pairs, hooks / pairs);
    }
    Ok(())
}
