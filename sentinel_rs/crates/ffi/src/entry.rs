//! The Rust side of the bridge. A panic must not cross into TensorFlow: it is caught, counted and said once, and the
//! call gets the answer that lets training go on without Sentinel.

use crate::bridge::ffi::{Begun, Configured, Context, Edge, Order, OrderOutcome, Scope, StepStart, Touch};
use crate::exports;
use rt::current::{self, Current};
use rt::handover;
use rt::order::{Outcome, StepOrder};
use rt::runtime::{KnownOp, OpScope, Runtime};
use rt::setup;
use std::mem::offset_of;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

const NO_KERNEL: u32 = current::NO_KERNEL;

static PANICS: AtomicU64 = AtomicU64::new(0);

/// Panics caught at the border so far.
pub fn panics_caught() -> u64 {
    PANICS.load(Ordering::Relaxed)
}

/// Runs `call`; a panic becomes `fallback`.
pub fn guard<T>(fallback: T, call: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|_| {
        if PANICS.fetch_add(1, Ordering::Relaxed) == 0 {
            log::error!("sentinel: internal error caught; training goes on");
        }
        fallback
    })
}

/// Runs `call` with the runtime; without one, or after a panic, gives `fallback`.
fn with<T: Clone>(fallback: T, call: impl FnOnce(&'static Arc<Runtime>) -> T) -> T {
    match setup::runtime() {
        Some(runtime) => guard(fallback, || call(runtime)),
        None => fallback,
    }
}

pub fn configure(config: &[u8]) -> Configured {
    let broken = Configured { enabled: false, error: "sentinel: internal error while reading the options".to_owned() };
    guard(broken, || match setup::configure(config) {
        Ok(runtime) => Configured { enabled: runtime.is_some(), error: String::new() },
        Err(error) => Configured { enabled: false, error: error.to_string() },
    })
}

pub fn library_loaded() {
    guard((), || handover::loaded(exports::stats_json));
}

pub fn set_threads(intra_op: u32, inter_op: u32) {
    with((), |runtime| runtime.set_threads(intra_op, inter_op));
}

pub fn kernel_held(address: usize, name: &str, kind: &str) -> u32 {
    with(NO_KERNEL, |runtime| runtime.kernels.hold(address, name, kind))
}

pub fn kernel_released(address: usize) {
    with((), |runtime| runtime.kernels.release(address));
}

pub fn kernel_cached(address: usize) -> u32 {
    with(NO_KERNEL, |runtime| runtime.kernels.cached(address).unwrap_or(NO_KERNEL))
}

pub fn kernel_met(address: usize, name: &str, kind: &str) -> u32 {
    with(NO_KERNEL, |runtime| runtime.kernels.look_up(address, name, kind))
}

pub fn kernels_changed() {
    with((), |runtime| runtime.kernels.suspect());
}

#[allow(clippy::ptr_arg)] // The bridge hands strings of C++ as a `Vec`.
pub fn graph_opens(names: &Vec<String>, edges: &[Edge]) -> u64 {
    with(0, |runtime| {
        let edges: Vec<(u32, u32)> = edges.iter().map(|edge| (edge.from, edge.to)).collect();
        runtime.graph_opens(rt::graph::GraphEdges::new(names, &edges))
    })
}

pub fn order_is_the_sessions(graph: u64) {
    with((), |runtime| runtime.order_is_the_sessions(graph));
}

pub fn graph_closes(graph: u64) {
    with((), |runtime| runtime.graph_closes(graph));
}

pub fn step_begins(graph: u64, step_id: i64, signature: u64) -> StepStart {
    let start = with(rt::steps::StepStart::default(), |runtime| runtime.step_begins(graph, step_id, signature));
    let ordered = start.order.is_some();
    let StepOrder { order, growth_bytes_at_most, trial } = start.order.unwrap_or_default();
    StepStart {
        tag: start.tag,
        serial: start.serial,
        stop: start.stop.unwrap_or_default(),
        order: match order {
            rt::order::Order::Session => Order::Session,
            rt::order::Order::OldestFirst => Order::OldestFirst,
        },
        ordered,
        watched: growth_bytes_at_most.is_some(),
        growth_bytes_at_most: growth_bytes_at_most.unwrap_or_default(),
        trial,
    }
}

pub fn ordered_step_ends(graph: u64, signature: u64, trial: bool, outcome: OrderOutcome, growth_bytes: u64) {
    let outcome = match outcome {
        OrderOutcome::Kept => Outcome::Kept { growth_bytes },
        OrderOutcome::TooMuch => Outcome::TooMuch,
        OrderOutcome::OutOfMemory => Outcome::OutOfMemory,
        _ => Outcome::Nothing,
    };
    with((), |runtime| runtime.ordered_step_ends(graph, signature, trial, outcome));
}

pub fn live_bytes() -> u64 {
    with(0, |runtime| runtime.live_bytes())
}

pub fn step_ends(tag: u32, ok: bool) {
    with((), |runtime| runtime.step_ends(tag, ok));
    guard((), handover::step_ended);
}

pub fn observes() -> bool {
    with(false, |runtime| runtime.observes())
}

/// The clock of `Scope::began_ns`; its zero is the first call.
fn epoch() -> Instant {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    *EPOCH.get_or_init(|| Instant::now() - Duration::from_nanos(1))
}

fn to_context(current: Current) -> Context {
    Context { kernel: current.kernel, execution: current.execution, step_tag: current.step_tag }
}

fn from_context(context: Context) -> Current {
    Current { kernel: context.kernel, execution: context.execution, step_tag: context.step_tag }
}

/// The same touches as the runtime knows them.
fn touches(list: &[Touch]) -> &[rt::recorder::Touch] {
    use rt::recorder::Touch as Known;
    const SAME: bool = size_of::<Touch>() == size_of::<Known>()
        && align_of::<Touch>() == align_of::<Known>()
        && offset_of!(Touch, address) == offset_of!(Known, addr)
        && offset_of!(Touch, bytes) == offset_of!(Known, bytes)
        && offset_of!(Touch, write) == offset_of!(Known, write);
    const { assert!(SAME) };
    // SAFETY: both have the layout of C, with a `usize`, a `u64` and a `bool` at the same places.
    unsafe { std::slice::from_raw_parts(list.as_ptr().cast::<Known>(), list.len()) }
}

fn to_scope(scope: &OpScope) -> Scope {
    let since = |began: Instant| u64::try_from(began.duration_since(epoch()).as_nanos()).unwrap_or(u64::MAX);
    Scope { own: to_context(scope.own), previous: to_context(scope.previous), began_ns: scope.began.map_or(0, since) }
}

fn from_scope(scope: &Scope) -> OpScope {
    let began = (scope.began_ns > 0).then(|| epoch() + Duration::from_nanos(scope.began_ns));
    OpScope { own: from_context(scope.own), previous: from_context(scope.previous), began }
}

pub fn op_begins_known(address: usize, step_id: i64, scope: &mut Scope) -> Begun {
    match with(KnownOp::Unmet, |runtime| runtime.op_begins_known(address, step_id)) {
        KnownOp::Begun(begun) => {
            *scope = to_scope(&begun);
            Begun::Yes
        }
        KnownOp::Touches(kernel) => {
            scope.own.kernel = kernel;
            Begun::Touches
        }
        KnownOp::Unmet => Begun::Unmet,
    }
}

pub fn op_ends_known(scope: &Scope) {
    with((), |runtime| runtime.op_ends_known(&from_scope(scope)));
}

pub fn op_begins(kernel: u32, step_id: i64, inputs: &[Touch]) -> Scope {
    let none = to_context(Current::NONE);
    with(Scope { own: none, previous: none, began_ns: 0 }, |runtime| {
        to_scope(&runtime.op_begins(kernel, step_id, touches(inputs)))
    })
}

pub fn op_ends(scope: &Scope, inputs: &[Touch], outputs: &[Touch], delay: bool) {
    with((), |runtime| {
        runtime.op_ends(&from_scope(scope), touches(inputs), touches(outputs), delay);
    });
}

pub fn context() -> Context {
    to_context(current::get())
}

pub fn swap_context(context: Context) -> Context {
    to_context(current::swap(from_context(context)))
}

pub fn ask_profile(wanted: bool) {
    with((), |runtime| runtime.ask_profile(wanted));
}

pub fn allocate(align_bytes: usize, size_bytes: usize) -> *mut u8 {
    let address = with(None, |runtime| runtime.alloc(align_bytes as u64, size_bytes as u64));
    address.map_or(std::ptr::null_mut(), std::ptr::with_exposed_provenance_mut)
}

/// # Safety
/// `address` came from `allocate` and nobody uses it any more, or it is not Sentinel's.
pub unsafe fn release(address: *mut u8) -> bool {
    let address = address.expose_provenance();
    // After a panic the block is lost, but TensorFlow must not give Sentinel's memory to `free`.
    with(owns(address), |runtime| runtime.free(address))
}

pub fn owns(address: usize) -> bool {
    with(false, |runtime| runtime.memory.owns(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_the_fallback_and_is_counted() {
        let before = panics_caught();
        assert_eq!(guard(7, || panic!("must be caught")), 7);
        assert_eq!(panics_caught(), before + 1);
    }

    #[test]
    fn without_a_runtime_every_call_has_an_answer() {
        assert_eq!(kernel_cached(64), NO_KERNEL);
        assert!(allocate(64, 100).is_null());
        assert!(!owns(64));
        assert!(!observes());
        assert_eq!(step_begins(1, 2, 3).tag, 0);
    }
}
