//! Which order the steps of a graph get, over many steps, some of them beside others.

use rt::graph::GraphEdges;
use rt::memory::Memory;
use rt::options::{Failure, FastBudget, Options, Profiler, SlowTier};
use rt::order::{Order, Outcome, StepOrder};
use rt::runtime::Runtime;
use rt::tiers::single::SingleTier;
use std::sync::Arc;

const KEPT: Outcome = Outcome::Kept { growth_bytes: 1 << 30 };

struct Steps {
    runtime: Arc<Runtime>,
    graph: u64,
    next_id: i64,
}

impl Steps {
    /// Of a graph of ten operations, several of which run at a time, and none of whose steps is profiled.
    fn new(inter_op: u32) -> Steps {
        let options = Options {
            fast: FastBudget::Unlimited,
            policy: plan::Policy::FastOnly,
            slow: SlowTier::Nodes(None),
            fast_nodes: sys::topology::NodeList::single(0),
            migration_gbps: None,
            warmup_steps: 1000,
            profiler: Profiler::Op,
            failure: Failure::Strict,
            trace_path: None,
            mover_threads: None,
            check_placement: 0,
        };
        let memory = Arc::new(Memory::reserve(Arc::new(SingleTier), 1 << 30, u64::MAX).unwrap());
        let machine = plan::Machine::by_name("optane").unwrap();
        let runtime = Arc::new(Runtime::assemble(options, memory, machine, None).unwrap());
        runtime.set_threads(1, inter_op);
        let names: Vec<String> = (0..10).map(|i| format!("op{i}")).collect();
        let graph = runtime.graph_opens(GraphEdges::new(&names, &[]));
        Steps { runtime, graph, next_id: 1 }
    }

    fn begin(&mut self) -> Option<StepOrder> {
        self.next_id += 1;
        self.runtime.step_begins(self.graph, self.next_id, 7).order
    }

    fn end(&self, order: Option<StepOrder>, outcome: Outcome) {
        self.runtime.ordered_step_ends(self.graph, 7, order.unwrap().trial, outcome);
    }

    fn step(&mut self, outcome: Outcome) -> StepOrder {
        let order = self.begin();
        self.end(order, outcome);
        order.unwrap()
    }

    fn chosen(&self) -> String {
        self.runtime.report().op_order
    }
}

#[test]
fn two_orders_are_compared_and_the_choice_is_told() {
    let mut steps = Steps::new(2);
    let begun = [steps.step(KEPT), steps.step(KEPT), steps.step(Outcome::TooMuch), steps.step(KEPT)];
    let orders = begun.map(|order| (order.order, order.trial));
    let expected = [(Order::OldestFirst, true), (Order::OldestFirst, true), (Order::Session, true)];
    assert_eq!(orders[..3], expected);
    assert_eq!(orders[3], (Order::OldestFirst, false));
    assert_eq!(steps.chosen(), "oldest_first");
    steps.step(Outcome::TooMuch);
    assert_eq!((steps.step(KEPT), steps.chosen().as_str()), (StepOrder::default(), "session"));
}

#[test]
fn a_step_beside_another_one_tells_nothing() {
    let mut steps = Steps::new(2);
    steps.step(KEPT);
    steps.step(KEPT);
    let trial = steps.begin();
    let beside = steps.begin();
    assert_eq!(beside, Some(StepOrder::default()), "one trial at a time");
    steps.end(trial, Outcome::TooMuch);
    steps.end(beside, KEPT);
    assert_eq!(steps.chosen(), "trial");
    steps.step(Outcome::TooMuch);
    // What was chosen stays, although both together need more.
    let (one, other) = (steps.begin(), steps.begin());
    steps.end(one, Outcome::TooMuch);
    steps.end(other, Outcome::TooMuch);
    assert_eq!(steps.chosen(), "oldest_first");
    // But not when there is no memory left.
    let (one, other) = (steps.begin(), steps.begin());
    steps.end(one, Outcome::OutOfMemory);
    steps.end(other, KEPT);
    assert_eq!(steps.chosen(), "session");
}

#[test]
fn trials_that_are_always_disturbed_end() {
    let mut steps = Steps::new(2);
    for _ in 0..9 {
        assert_eq!(steps.chosen(), if steps.next_id == 1 { "" } else { "trial" });
        let trial = steps.begin();
        let beside = steps.begin();
        steps.end(trial, KEPT);
        steps.end(beside, KEPT);
    }
    assert_eq!(steps.chosen(), "session");
}

#[test]
fn failed_steps_are_over_too() {
    let mut steps = Steps::new(2);
    steps.step(Outcome::Nothing);
    assert!(steps.step(KEPT).trial, "nothing runs beside it any more");
}

#[test]
fn with_one_operation_at_a_time_no_order_is_chosen() {
    let mut steps = Steps::new(1);
    assert_eq!((steps.begin(), steps.chosen().as_str()), (None, ""));
}

#[test]
fn a_graph_can_keep_the_sessions_order() {
    let mut steps = Steps::new(2);
    steps.runtime.order_is_the_sessions(steps.graph);
    assert_eq!(steps.begin(), None);
}
