//! What C++ and Rust say to each other. Plain data and plain verbs; no logic.

use crate::entry::*;

#[cxx::bridge(namespace = "sentinel")]
pub mod ffi {
    /// What became of a session's options.
    struct Configured {
        /// The session runs under Sentinel.
        enabled: bool,
        /// Why the session cannot be made; empty when it can.
        error: String,
    }

    /// One use of one buffer by one operation.
    struct Touch {
        /// Begin of the buffer.
        address: usize,
        /// Bytes of the tensor.
        bytes: u64,
        /// Written, not read.
        write: bool,
    }

    /// What a thread works for.
    #[derive(Clone, Copy)]
    struct Context {
        kernel: u32,
        execution: u32,
        step_tag: u32,
    }

    /// An operation on a thread, from its begin to its end.
    #[derive(Clone, Copy)]
    struct Scope {
        own: Context,
        previous: Context,
        /// Nanoseconds of a clock of Rust's own; 0 when the operation is not timed.
        began_ns: u64,
    }

    /// What became of an operation that was to begin.
    enum Begun {
        /// It has begun.
        Yes,
        /// What it touches matters: `op_begins` is the way, for the kernel that `scope.own` names.
        Touches,
        /// The thread has not met its kernel: `kernel_met` and `op_begins` are the way.
        Unmet,
    }

    /// An order of operations that are ready.
    enum Order {
        /// That of the session's threads.
        Session,
        OldestFirst,
    }

    /// What the executor must do with a step.
    struct StepStart {
        /// 0 when Sentinel takes no part.
        tag: u32,
        /// One operation at a time.
        serial: bool,
        /// Why the step must not run; empty when it may.
        stop: String,
        order: Order,
        /// Whether the order is Sentinel's to choose, and `ordered_step_ends` must be called.
        ordered: bool,
        /// Whether the growth of `live_bytes` since the step's begin is watched.
        watched: bool,
        /// The growth beyond which the step goes on in the other order.
        growth_bytes_at_most: u64,
        /// Whether the step compares orders.
        trial: bool,
    }

    /// What became of a step's order.
    enum OrderOutcome {
        Kept,
        TooMuch,
        OutOfMemory,
        Nothing,
    }

    /// An edge of a graph between indices of its nodes.
    struct Edge {
        from: u32,
        to: u32,
    }

    extern "Rust" {
        /// The library takes part in this process from now on.
        fn library_loaded();
        fn configure(config: &[u8]) -> Configured;
        fn set_threads(intra_op: u32, inter_op: u32);

        fn kernel_held(address: usize, name: &str, kind: &str) -> u32;
        fn kernel_released(address: usize);
        /// `u32::MAX` when the calling thread has not met the kernel.
        fn kernel_cached(address: usize) -> u32;
        fn kernel_met(address: usize, name: &str, kind: &str) -> u32;
        fn kernels_changed();

        fn graph_opens(names: &Vec<String>, edges: &[Edge]) -> u64;
        /// Operations of this graph begin in the order of the session's threads.
        fn order_is_the_sessions(graph: u64);
        fn graph_closes(graph: u64);
        fn step_begins(graph: u64, step_id: i64, signature: u64) -> StepStart;
        fn step_ends(tag: u32, ok: bool);
        fn ordered_step_ends(graph: u64, signature: u64, trial: bool, outcome: OrderOutcome, growth_bytes: u64);
        fn live_bytes() -> u64;

        fn observes() -> bool;
        /// Begins the operation, in `scope`, when nothing more has to be known of it.
        fn op_begins_known(address: usize, step_id: i64, scope: &mut Scope) -> Begun;
        fn op_ends_known(scope: &Scope);
        fn op_begins(kernel: u32, step_id: i64, inputs: &[Touch]) -> Scope;
        fn op_ends(scope: &Scope, inputs: &[Touch], outputs: &[Touch], delay: bool);
        fn context() -> Context;
        fn swap_context(context: Context) -> Context;
        fn ask_profile(wanted: bool);

        fn allocate(align_bytes: usize, size_bytes: usize) -> *mut u8;
        /// False for memory that is not Sentinel's.
        unsafe fn release(address: *mut u8) -> bool;
        fn owns(address: usize) -> bool;
    }
}
