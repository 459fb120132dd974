//! Tiers that one memory node pretends to be: moves take the time that a machine profile says they would, and nothing moves.
//!
//! Pages and their contents stay where they are; which tier a page is in is only in the runtime's page record. What slow
//! memory costs an operation is asked here and charged by the runtime after the operation.

use super::numa::tier_error;
use place::{Moved, TierError, Tiers};
use plan::Machine;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use trace::Tier;

/// Longest sleep at once, in nanoseconds. Between two pieces, another move in the same direction may get its turn.
const PIECE_NS: f64 = 20e6;

/// Two or more tiers of a [`Machine`], emulated in the memory of one node.
#[derive(Debug)]
pub struct EmulatedTiers {
    machine: Machine,
    name: String,
    promotions: Channel,
    demotions: Channel,
}

impl EmulatedTiers {
    /// The tiers of `machine`, whose speeds have to be above zero; `name` is what people read, such as `emulated:optane`.
    #[must_use]
    pub fn new(machine: Machine, name: String) -> Self {
        let promotions = Channel::new(machine.promote_gbps);
        let demotions = Channel::new(machine.demote_gbps);
        EmulatedTiers { machine, name, promotions, demotions }
    }

    /// Nanoseconds that `threads` threads would spend on reading and writing these bytes in `tier`: see
    /// [`Machine::memory_time_ns`].
    #[must_use]
    pub fn memory_time_ns(&self, tier: Tier, read_bytes: u64, written_bytes: u64, threads: u32) -> f64 {
        self.machine.memory_time_ns(tier, read_bytes, written_bytes, threads)
    }
}

impl Tiers for EmulatedTiers {
    fn kind(&self) -> &'static str {
        "emulated"
    }

    fn slow_name(&self) -> &str {
        &self.name
    }

    fn reserve(&self, len_bytes: usize, _home: Tier) -> Result<Range<usize>, TierError> {
        sys::memory::reserve(len_bytes).map_err(|error| tier_error(&error, &(0..len_bytes)))
    }

    /// Does nothing: the node's pages serve every tier.
    fn place(&self, _range: Range<usize>, _tier: Tier) -> Result<(), TierError> {
        Ok(())
    }

    /// Takes the time of the move. Moves in one direction share its bandwidth, the two directions are independent. Every
    /// byte counts as moved: only the caller's record knows where it was.
    fn migrate(&self, range: Range<usize>, to: Tier) -> Result<Moved, TierError> {
        let channel = if to == Tier::FAST { &self.promotions } else { &self.demotions };
        let bytes = range.len() as u64;
        channel.pass(bytes, &sleep);
        Ok(Moved { moved_bytes: bytes, copied_bytes: bytes, ..Moved::default() })
    }

    /// Does nothing: contents stay until they are overwritten, which is allowed, since nobody needs them any more.
    fn discard(&self, _range: Range<usize>, _next: Tier) -> Result<(), TierError> {
        Ok(())
    }
}

/// One direction of migration with a bandwidth.
#[derive(Debug)]
struct Channel {
    /// In 10^9 bytes per second, which is bytes per nanosecond.
    gbps: f64,
    /// Nanoseconds that moves have taken longer than they should; later moves are shorter by them.
    ahead_ns: Mutex<f64>,
}

impl Channel {
    fn new(gbps: f64) -> Self {
        Channel { gbps, ahead_ns: Mutex::new(0.0) }
    }

    /// Returns when the bytes have had their time. `sleep` says how long it really slept: never less than asked for, often
    /// more. What it slept too long is taken off later sleeps, so that the rate in the long run is exact; at most one
    /// piece's length is carried over, so that a process that was stopped for a while does not move for free afterwards.
    fn pass(&self, bytes: u64, sleep: &dyn Fn(Duration) -> Duration) {
        let mut left_ns = as_f64(bytes) / self.gbps;
        while left_ns > 0.0 {
            let piece_ns = left_ns.min(PIECE_NS);
            left_ns -= piece_ns;
            // The lock is held while sleeping: that is how moves in one direction share its bandwidth.
            let mut ahead_ns = self.ahead_ns.lock().unwrap_or_else(PoisonError::into_inner);
            *ahead_ns -= piece_ns;
            if *ahead_ns < 0.0 {
                let slept = sleep(Duration::from_secs_f64(-*ahead_ns / 1e9));
                *ahead_ns = (*ahead_ns + slept.as_secs_f64() * 1e9).min(PIECE_NS);
            }
        }
    }
}

/// Sleeps, and says for how long it really was.
fn sleep(wanted: Duration) -> Duration {
    let began = Instant::now();
    std::thread::sleep(wanted);
    began.elapsed()
}

/// Bytes as a float, exact up to 2^53, which is more than any move.
#[allow(clippy::cast_precision_loss)]
fn as_f64(bytes: u64) -> f64 {
    bytes as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::{Cell, RefCell};

    const MIB: u64 = 1 << 20;

    fn tiers() -> EmulatedTiers {
        let mut machine = Machine::by_name("optane").unwrap();
        (machine.promote_gbps, machine.demote_gbps) = (2.0, 0.5);
        EmulatedTiers::new(machine, "emulated:optane".to_owned())
    }

    #[test]
    fn everything_printed_says_emulated() {
        assert_eq!((tiers().kind(), tiers().slow_name()), ("emulated", "emulated:optane"));
    }

    #[test]
    fn memory_can_be_reserved_and_stays_the_same() {
        let tiers = tiers();
        let range = tiers.reserve(10 << 20, Tier::SLOW).unwrap();
        assert!(range.len() >= 10 << 20);
        let part = range.start..range.start + 4096;
        assert_eq!(tiers.place(part.clone(), Tier::FAST), Ok(()));
        assert_eq!(tiers.discard(part, Tier::SLOW), Ok(()));
    }

    #[test]
    fn refused_address_space_says_how_much() {
        let error = tiers().reserve(usize::MAX, Tier::SLOW).unwrap_err();
        assert_eq!((error.operation, error.len_bytes, error.errno), ("mmap", usize::MAX, 12));
        assert!(error.to_string().contains("ENOMEM"), "{error}");
    }

    #[test]
    fn moves_take_the_time_of_their_direction() {
        let tiers = tiers();
        for (to, at_least) in [(Tier::FAST, Duration::from_millis(8)), (Tier::SLOW, Duration::from_millis(32))] {
            let began = Instant::now();
            let moved = tiers.migrate(0..16_000_000, to).unwrap();
            let all = Moved { moved_bytes: 16_000_000, copied_bytes: 16_000_000, ..Moved::default() };
            assert_eq!(moved, all);
            assert!(began.elapsed() >= at_least, "{:?}", began.elapsed());
        }
    }

    #[test]
    fn the_rate_is_exact_in_the_long_run() {
        let channel = Channel::new(1.0);
        let (asked, total_ns, round) = (RefCell::new(Vec::new()), Cell::new(0.0), Cell::new(0_u32));
        // Oversleeps as systems do: by a scheduler's tick at least, and differently each time.
        let oversleep = |wanted: Duration| {
            asked.borrow_mut().push(wanted);
            round.set(round.get() + 1);
            let slept = wanted + Duration::from_micros(60 + u64::from(round.get() % 7) * 300);
            total_ns.set(total_ns.get() + slept.as_secs_f64() * 1e9);
            slept
        };
        let mut bytes = 0;
        for move_bytes in (0..2000).map(|index| [4096, 65_536, 3 * MIB, 50 * MIB][index % 4]) {
            channel.pass(move_bytes, &oversleep);
            bytes += move_bytes;
            let ahead_ns = total_ns.get() - as_f64(bytes);
            assert!((-1.0..2.1e6).contains(&ahead_ns), "{ahead_ns} ns more than {bytes} bytes take");
        }
        assert!(asked.borrow().iter().all(|wanted| wanted.as_secs_f64() * 1e9 <= PIECE_NS + 1.0));
        assert!(asked.borrow().len() < 10_000, "short moves are carried over instead of slept");
    }

    #[test]
    fn a_stopped_process_does_not_move_for_free_afterwards() {
        let channel = Channel::new(1.0);
        channel.pass(1000, &|wanted| wanted + Duration::from_secs(600));
        let slept = Cell::new(Duration::ZERO);
        channel.pass(100_000_000, &|wanted| {
            slept.set(slept.get() + wanted);
            wanted
        });
        let expected = Duration::from_millis(80);
        assert!(slept.get().abs_diff(expected) < Duration::from_micros(1), "{:?}", slept.get());
    }

    #[test]
    fn moves_in_one_direction_share_its_bandwidth() {
        let tiers = tiers();
        let began = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| tiers.migrate(0..20_000_000, Tier::FAST));
            }
        });
        assert!(began.elapsed() >= Duration::from_millis(39), "{:?}", began.elapsed());
    }

    #[test]
    fn memory_time_is_the_machines() {
        let tiers = tiers();
        let expected = tiers.machine.memory_time_ns(Tier::SLOW, 1000, 2000, 3);
        assert!((tiers.memory_time_ns(Tier::SLOW, 1000, 2000, 3) - expected).abs() < f64::EPSILON);
    }
}
