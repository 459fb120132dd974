//! Moves that the system refuses, breaks off or delays: training goes on with a right account and counters that tell, a strict
//! one stops and says why.

mod trainer;

use place::{Moved, TierError, Tiers};
use plan::Machine;
use rt::memory::Memory;
use rt::options;
use rt::runtime::Runtime;
use rt::stats::Report;
use rt::tiers::emulated::EmulatedTiers;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use sys::errno::{EBUSY, ENODEV, ENOMEM, EPERM};
use trace::Tier;
use trainer::{Trainer, ACTIVATION_BYTES, FAST_BYTES};

const CAPACITY_BYTES: u64 = 8 << 30;
const GBPS: f64 = 20.0;

/// What goes wrong with moves to a tier, or to both.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// The call is refused as a whole.
    Refuse(i32),
    /// All pages stay, with this error number.
    Stay(i32),
    /// A quarter of the pages of each call stays, with this error number.
    Part(i32),
    /// The mover meets an internal error.
    Panic,
    /// Each call takes so long.
    Slow(Duration),
    /// Nothing moves wrongly, but the tier has no room for new pages, and the kernel takes others.
    Full,
    /// Nothing moves wrongly, but new pages cannot be told where to come from.
    Misplace(i32),
}

/// Emulated tiers whose moves can be told to fail.
struct FaultyTiers {
    inner: EmulatedTiers,
    fault: Mutex<Option<(Option<Tier>, Fault)>>,
    /// As swap does it: what is born slow takes memory until it has been moved.
    births_take_memory: AtomicBool,
}

impl FaultyTiers {
    fn set(&self, fault: Option<(Option<Tier>, Fault)>) {
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = fault;
    }

    fn fault(&self, to: Tier) -> Option<Fault> {
        let fault = *self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        fault.filter(|(only, _)| only.is_none_or(|only| only == to)).map(|(_, fault)| fault)
    }
}

impl Tiers for FaultyTiers {
    fn kind(&self) -> &'static str {
        self.inner.kind()
    }

    fn slow_name(&self) -> &str {
        "test"
    }

    fn reserve(&self, len_bytes: usize, home: Tier) -> Result<Range<usize>, TierError> {
        self.inner.reserve(len_bytes, home)
    }

    fn place(&self, range: Range<usize>, tier: Tier) -> Result<(), TierError> {
        let (addr, len_bytes) = (range.start, range.len());
        match self.fault(tier) {
            Some(Fault::Misplace(errno)) => {
                Err(TierError { operation: "mbind", addr, len_bytes, errno, reason: sys::errno_text(errno) })
            }
            _ => self.inner.place(range, tier),
        }
    }

    fn migrate(&self, range: Range<usize>, to: Tier) -> Result<Moved, TierError> {
        let (addr, len_bytes) = (range.start, range.len());
        match self.fault(to) {
            Some(Fault::Refuse(errno)) => {
                Err(TierError { operation: "move_pages", addr, len_bytes, errno, reason: sys::errno_text(errno) })
            }
            Some(Fault::Stay(errno)) => Ok(Moved { failed_bytes: len_bytes as u64, errno, ..Moved::default() }),
            Some(Fault::Part(errno)) => {
                let stays = len_bytes / 4;
                let moved = self.inner.migrate(addr..addr + len_bytes - stays, to)?;
                Ok(Moved { failed_bytes: stays as u64, errno, ..moved })
            }
            Some(Fault::Panic) => panic!("a test asked for it"),
            Some(Fault::Slow(pause)) => {
                std::thread::sleep(pause);
                self.inner.migrate(range, to)
            }
            None | Some(Fault::Misplace(_) | Fault::Full) => self.inner.migrate(range, to),
        }
    }

    fn discard(&self, range: Range<usize>, next: Tier) -> Result<(), TierError> {
        self.inner.discard(range, next)
    }

    fn shortage(&self, _bytes: u64, tier: Tier) -> Option<i32> {
        matches!(self.fault(tier), Some(Fault::Full)).then_some(ENOMEM)
    }

    fn births_take_memory(&self) -> bool {
        self.births_take_memory.load(Ordering::Relaxed)
    }
}

/// A training that follows a plan with moves, and the tiers that can be told to fail.
fn managed(failure: &str, threads: &str) -> (Trainer, Arc<FaultyTiers>) {
    managed_by("hpca21", failure, threads)
}

fn managed_by(policy: &str, failure: &str, threads: &str) -> (Trainer, Arc<FaultyTiers>) {
    let (mut trainer, tiers) = unmanaged_by(policy, failure, threads);
    let before = trainer.train_until(|report| report.steps_managed >= 5 && report.promoted_bytes > 0);
    assert!(before.demoted_bytes > 0 && before.errors_by_errno.is_empty(), "{before:?}");
    (trainer, tiers)
}

/// A training before its first step, and the tiers that can be told to fail.
fn unmanaged(failure: &str, threads: &str) -> (Trainer, Arc<FaultyTiers>) {
    unmanaged_by("hpca21", failure, threads)
}

fn unmanaged_by(policy: &str, failure: &str, threads: &str) -> (Trainer, Arc<FaultyTiers>) {
    let variables = [
        ("SENTINEL_FAST", FAST_BYTES.to_string()),
        ("SENTINEL_POLICY", policy.to_owned()),
        ("SENTINEL_SLOW", "emulated:optane".to_owned()),
        ("SENTINEL_WARMUP_STEPS", "2".to_owned()),
        ("SENTINEL_FAILURE", failure.to_owned()),
        ("SENTINEL_MOVER_THREADS", threads.to_owned()),
    ];
    let variables = variables.map(|(name, value)| (name.to_owned(), value));
    let options = options::parse(&[], &variables).expect("good options").expect("a budget was set");
    let machine = Machine { promote_gbps: GBPS, demote_gbps: GBPS, ..Machine::by_name("optane").expect("built in") };
    let inner = EmulatedTiers::new(machine.clone(), "emulated:optane".to_owned());
    let tiers = Arc::new(FaultyTiers { inner, fault: Mutex::new(None), births_take_memory: AtomicBool::new(false) });
    let memory = Memory::reserve(Arc::<FaultyTiers>::clone(&tiers), CAPACITY_BYTES, FAST_BYTES).expect("address space");
    let runtime = Runtime::assemble(options, Arc::new(memory), machine, None).expect("threads");
    runtime.set_threads(2, 1);
    (Trainer::new(Arc::new(runtime), Duration::from_micros(50)), tiers)
}

fn steps(trainer: &mut Trainer, count: usize) -> Report {
    for _ in 0..count {
        // The trainer looks at the account after each step.
        trainer.step(ACTIVATION_BYTES);
    }
    trainer.runtime.report()
}

const POLICIES: [&str; 2] = ["hpca21", "gap"];
/// Slow node full, fast node full, forbidden calls, kernels that use the pages all the time, a node that is gone.
const FAULTS: [(Option<Tier>, Fault, i32); 5] = [
    (Some(Tier::SLOW), Fault::Stay(ENOMEM), ENOMEM),
    (Some(Tier::FAST), Fault::Stay(ENOMEM), ENOMEM),
    (None, Fault::Refuse(EPERM), EPERM),
    (None, Fault::Stay(EBUSY), EBUSY),
    (Some(Tier::SLOW), Fault::Refuse(ENODEV), ENODEV),
];

#[test]
fn training_goes_on_when_moves_fail_and_counters_tell() {
    for ((to, fault, errno), policy) in FAULTS.into_iter().flat_map(|fault| POLICIES.map(|policy| (fault, policy))) {
        let (mut trainer, tiers) = managed_by(policy, "advisory", "1");
        let before = trainer.runtime.report();
        tiers.set(Some((to, fault)));
        let after = steps(&mut trainer, 20);
        assert_eq!(after.steps_managed, before.steps_managed + 20, "{fault:?}: {after:?}");
        assert!(after.errors_by_errno[&errno] > 0, "{fault:?}: {after:?}");
        assert!(after.fast_bytes_peak <= FAST_BYTES, "{fault:?}: {after:?}");
        if errno != EBUSY {
            let said = steps(&mut trainer, 1).message.expect("the user hears of it");
            for part in ["slow = test", &sys::errno_text(errno)] {
                assert!(said.contains(part), "{said:?} does not say {part:?}");
            }
        }
        assert_eq!(after.panics_caught, 0);
    }
}

#[test]
fn a_node_that_goes_after_the_profile_and_before_the_first_move_stops_nothing() {
    for policy in POLICIES {
        let (mut trainer, tiers) = unmanaged_by(policy, "advisory", "1");
        let profiled = trainer.train_until(|report| report.steps_profiled > 0);
        assert_eq!((profiled.steps_managed, profiled.demoted_bytes), (0, 0), "{profiled:?}");
        tiers.set(Some((None, Fault::Refuse(ENODEV))));
        let after = trainer.train_until(|report| report.steps_managed >= 20);
        assert!(after.errors_by_errno[&ENODEV] > 0, "{after:?}");
        assert_eq!((after.promoted_bytes, after.demoted_bytes, after.panics_caught), (0, 0, 0), "{after:?}");
        assert!(after.fast_bytes_peak <= FAST_BYTES, "{after:?}");
    }
}

#[test]
fn births_that_slow_memory_has_no_room_for_are_counted_and_told() {
    let (mut trainer, tiers) = managed("advisory", "1");
    tiers.set(Some((Some(Tier::SLOW), Fault::Full)));
    // Births in slow memory happen where fast memory is full, which moves that lag see to.
    let after = trainer.train_until(|report| report.births_elsewhere_bytes > 0);
    assert!(after.errors_by_errno[&ENOMEM] > 0, "{after:?}");
    let said = steps(&mut trainer, 1).message.expect("the user hears of it");
    assert!(said.contains("taking new pages from slow memory") && said.contains("it is full"), "{said:?}");
}

#[test]
fn what_did_move_is_kept_when_a_part_stays() {
    let (mut trainer, tiers) = managed("advisory", "1");
    tiers.set(Some((Some(Tier::FAST), Fault::Part(EBUSY))));
    let before = steps(&mut trainer, 1);
    let after = steps(&mut trainer, 20);
    assert!(after.promoted_bytes > before.promoted_bytes && after.moves_partial > 0, "{after:?}");
    assert!(after.errors_by_errno[&EBUSY] > 0 && after.stranded_bytes == 0, "{after:?}");

    // Nothing goes out whole; what went comes back when it is wanted, although the unit counts as fast all the while.
    let (mut trainer, tiers) = managed("advisory", "1");
    tiers.set(Some((Some(Tier::SLOW), Fault::Part(EBUSY))));
    steps(&mut trainer, 5);
    let before = steps(&mut trainer, 1);
    let after = steps(&mut trainer, 20);
    assert!(after.demoted_pages > before.demoted_pages && after.moves_partial > 0, "{after:?}");
    assert_eq!(after.demoted_bytes, before.demoted_bytes, "{after:?}");
    let (out, back) = (after.demoted_pages - before.demoted_pages, after.promoted_pages - before.promoted_pages);
    assert!(back > out / 2, "{back} pages came back of {out}: {after:?}");
}

#[test]
fn new_pages_that_come_from_anywhere_are_told_of_as_well() {
    let (mut trainer, tiers) = managed("advisory", "1");
    tiers.set(Some((None, Fault::Misplace(EPERM))));
    let said = steps(&mut trainer, 2).message.expect("the user hears of it");
    assert!(said.contains("taking new pages from") && said.contains("EPERM"), "{said:?}");

    let (mut trainer, tiers) = managed("strict", "1");
    tiers.set(Some((None, Fault::Misplace(EPERM))));
    let reason = (0..3).find_map(|_| trainer.try_step(ACTIVATION_BYTES).err());
    assert!(reason.as_ref().is_some_and(|reason| reason.contains("taking new pages from")), "{reason:?}");
}

#[test]
fn moves_begin_again_when_the_trouble_is_over() {
    let (mut trainer, tiers) = managed("advisory", "2");
    tiers.set(Some((None, Fault::Refuse(EPERM))));
    let during = steps(&mut trainer, 20);
    assert!(during.moves_given_up > 0, "a direction that is always refused rests: {during:?}");
    tiers.set(None);
    let after = trainer.train_until(|report| report.promoted_bytes > during.promoted_bytes + (8 << 20));
    assert!(after.demoted_bytes > during.demoted_bytes, "{after:?}");
}

#[test]
fn a_strict_training_stops_and_says_why() {
    for (to, fault, errno) in FAULTS {
        let (mut trainer, tiers) = managed("strict", "1");
        tiers.set(Some((to, fault)));
        let began = Instant::now();
        let reason = loop {
            if let Err(reason) = trainer.try_step(ACTIVATION_BYTES) {
                break reason;
            }
            assert!(began.elapsed() < Duration::from_secs(60), "{fault:?}: {:?}", trainer.runtime.report());
        };
        for part in ["sentinel: slow = test", "moving pages", &sys::errno_text(errno)] {
            assert!(reason.contains(part), "{reason:?} does not say {part:?}");
        }
    }
}

#[test]
fn a_mover_survives_an_internal_error_and_a_strict_training_does_not() {
    let (mut trainer, tiers) = managed("advisory", "1");
    tiers.set(Some((None, Fault::Panic)));
    let during = trainer.train_until(|report| report.panics_caught > 0);
    tiers.set(None);
    let after = trainer.train_until(|report| report.promoted_bytes > during.promoted_bytes + (8 << 20));
    assert!(after.steps_managed > during.steps_managed, "{after:?}");

    let (mut trainer, tiers) = managed("strict", "1");
    tiers.set(Some((None, Fault::Panic)));
    let reason = (0..100).find_map(|_| trainer.try_step(ACTIVATION_BYTES).err());
    assert!(reason.as_ref().is_some_and(|reason| reason.contains("a mover met an internal error")), "{reason:?}");
}

#[test]
fn births_wait_for_evictions_where_they_would_take_memory_anyway() {
    let overflow = |waits: bool| {
        let (mut trainer, tiers) = managed("advisory", "1");
        tiers.set(Some((Some(Tier::SLOW), Fault::Slow(Duration::from_millis(3)))));
        tiers.births_take_memory.store(waits, Ordering::Relaxed);
        let before = steps(&mut trainer, 3);
        let after = steps(&mut trainer, 20);
        assert!(after.fast_bytes_peak <= FAST_BYTES, "{after:?}");
        (after.overflow_bytes - before.overflow_bytes, after.stall_ns - before.stall_ns)
    };
    let (without, _) = overflow(false);
    let (with, stalled_ns) = overflow(true);
    assert!(with < without / 2 && stalled_ns > 0, "{with} bytes instead of {without}, stalled for {stalled_ns} ns");
}

/// The longest wait of a training whose promotions take most of a second, where the plan counts on a tenth of a
/// millisecond; and the longest that is allowed.
fn longest_stall() -> (Duration, Duration) {
    let (mut trainer, tiers) = unmanaged("advisory", "1");
    tiers.set(Some((Some(Tier::FAST), Fault::Slow(Duration::from_millis(50)))));
    let (after, woken_late) = with_witness(|| trainer.train_until(|report| report.steps_managed >= 10));
    assert!(after.stalls > 0 && after.stalls_cut > 0, "{after:?}");
    assert!(after.stall_ns_step_max >= after.stall_ns_max && after.stall_ns >= after.stall_ns_step_max);
    assert!(after.stall_ns_last_step <= after.stall_ns_step_max);
    // All that can be on its way at once is the step's tensors and weights, twice at 20 GB/s; and one batch.
    #[allow(clippy::cast_precision_loss)] // megabytes
    let bound = Duration::from_secs_f64(0.02 + 2.0 * 2.0 * after.peak_bytes as f64 / (GBPS * 1e9));
    (Duration::from_nanos(after.stall_ns_max), bound + woken_late)
}

/// Runs `work`; also, by how much a thread that slept for a millisecond at a time was woken too late meanwhile.
fn with_witness<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    const SLEEP: Duration = Duration::from_millis(1);
    let ends = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let witness = scope.spawn(|| {
            let mut late = Duration::ZERO;
            while !ends.load(Ordering::Relaxed) {
                let began = Instant::now();
                std::thread::sleep(SLEEP);
                late = late.max(began.elapsed().saturating_sub(SLEEP));
            }
            late
        });
        let done = work();
        ends.store(true, Ordering::Relaxed);
        (done, witness.join().expect("it does nothing but sleep"))
    })
}

#[test]
fn no_operation_waits_longer_than_the_plan_says() {
    // A thread is woken late on a busy machine, but not every time; waiting for the unit would take long every time.
    let woken_late = Duration::from_millis(50);
    let mut tries = Vec::new();
    let in_time = (0..8).any(|_| {
        let (longest, bound) = longest_stall();
        tries.push((longest, bound));
        longest <= bound + woken_late
    });
    assert!(in_time, "{tries:?}");
}

#[test]
fn batches_that_take_too_long_are_told() {
    let (mut trainer, tiers) = managed("advisory", "2");
    tiers.set(Some((None, Fault::Slow(Duration::from_millis(30)))));
    let slow = steps(&mut trainer, 10);
    assert!(slow.move_batches_slow > 0 && slow.move_batch_ns_max >= 30_000_000, "{slow:?}");
    assert_eq!(slow.mover_threads, 2);
}
