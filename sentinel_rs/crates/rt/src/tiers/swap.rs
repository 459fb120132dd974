//! Tiers of a machine with one memory node: memory, and swap. A demotion is written out ahead of need, a promotion is read
//! in ahead of use, and what is dead is dropped instead of written.

use super::numa::tier_error;
use place::{Located, Moved, Refusals, TierError, Tiers};
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use sys::errno::{EBUSY, ENOMEM};
use sys::swap::Whereabouts;
use trace::{Tier, PAGE_BYTES};

/// Of a piece that is paged out, this part may stay without the move counting as failed: the kernel skips pages that
/// somebody holds on to, and bringing the rest back for them would cost more than they do.
const LEFT_BEHIND: u64 = 8;
/// Fresh pages come in calls of so many bytes at most.
const POPULATED_AT_ONCE_BYTES: usize = 4 << 20;

/// What is born in slow memory is written out when so many boundaries have passed: what dies sooner is never written.
const BOUNDARIES: u64 = 2;

/// What [`SwapTiers`] needs of the system.
pub trait SwapCalls: Send + Sync + 'static {
    /// Address space, see [`sys::memory::reserve`].
    ///
    /// # Errors
    /// When the system has none.
    fn reserve(&self, len_bytes: usize) -> Result<Range<usize>, sys::Error>;

    /// See [`sys::swap::page_out`].
    ///
    /// # Errors
    /// When the system refuses.
    fn page_out(&self, range: &Range<usize>) -> Result<(), sys::Error>;

    /// See [`sys::swap::bring_in`].
    ///
    /// # Errors
    /// When the system refuses.
    fn bring_in(&self, range: &Range<usize>) -> Result<(), sys::Error>;

    /// See [`sys::swap::populate`].
    ///
    /// # Errors
    /// When the system refuses.
    fn populate(&self, range: &Range<usize>) -> Result<(), sys::Error>;

    /// Drops contents, see [`sys::memory::discard`].
    ///
    /// # Errors
    /// When the system refuses.
    fn discard(&self, range: &Range<usize>) -> Result<(), sys::Error>;

    /// See [`sys::swap::whereabouts`].
    fn whereabouts(&self, range: &Range<usize>) -> Option<Whereabouts>;

    /// Bytes of the range in memory, quickly for a long range; see [`sys::swap::footprint`].
    fn resident_bytes(&self, range: &Range<usize>) -> Option<u64>;

    /// See [`sys::host::swap_room_bytes`].
    fn room_bytes(&self) -> Option<u64>;
}

/// The system of this machine.
#[derive(Clone, Copy, Debug)]
pub struct SystemSwap;

impl SwapCalls for SystemSwap {
    fn reserve(&self, len_bytes: usize) -> Result<Range<usize>, sys::Error> {
        sys::memory::reserve(len_bytes)
    }

    fn page_out(&self, range: &Range<usize>) -> Result<(), sys::Error> {
        sys::swap::page_out(range)
    }

    fn bring_in(&self, range: &Range<usize>) -> Result<(), sys::Error> {
        sys::swap::bring_in(range)
    }

    fn populate(&self, range: &Range<usize>) -> Result<(), sys::Error> {
        sys::swap::populate(range)
    }

    fn discard(&self, range: &Range<usize>) -> Result<(), sys::Error> {
        sys::memory::discard(range)
    }

    fn whereabouts(&self, range: &Range<usize>) -> Option<Whereabouts> {
        sys::swap::whereabouts(range)
    }

    fn resident_bytes(&self, range: &Range<usize>) -> Option<u64> {
        sys::swap::footprint(range).map(|found| found.resident_bytes)
    }

    fn room_bytes(&self) -> Option<u64> {
        sys::host::swap_room_bytes(Path::new("/"))
    }
}

/// Units that were born in slow memory, which a processor can only write as memory: they are paged out a little later.
#[derive(Debug, Default)]
struct Newborn {
    /// With the boundary after which each was born.
    waiting: Vec<(u64, Range<usize>)>,
    boundary: u64,
}

/// What became of newborn pages.
#[derive(Debug, Default)]
struct Tally {
    demoted_bytes: u64,
    refusals: Refusals,
}

impl Tally {
    fn note(&mut self, outcome: Result<Moved, sys::Error>) {
        match outcome {
            Ok(moved) => {
                self.demoted_bytes += moved.moved_bytes;
                if moved.failed_bytes > 0 {
                    *self.refusals.pages.entry(moved.errno).or_insert(0) += moved.failed_bytes / PAGE_BYTES;
                }
            }
            Err(error) => {
                log::debug!("{error}");
                *self.refusals.calls.entry(error.errno()).or_insert(0) += 1;
            }
        }
    }
}

#[derive(Debug, Default)]
struct Nursery {
    newborn: Mutex<Newborn>,
    grown: Condvar,
    tally: Mutex<Tally>,
}

impl Nursery {
    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, Newborn> {
        self.newborn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing of the range is to be paged out any more.
    fn forget(&self, range: &Range<usize>) {
        self.lock().waiting.retain(|(_, own)| own.end <= range.start || range.end <= own.start);
    }

    /// The next one that is old enough; waits for it.
    fn next(&self) -> Range<usize> {
        let mut newborn = self.lock();
        loop {
            let now = newborn.boundary;
            if let Some(at) = newborn.waiting.iter().position(|&(born, _)| born + BOUNDARIES <= now) {
                return newborn.waiting.swap_remove(at).1;
            }
            newborn = self.grown.wait(newborn).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Memory as the fast tier, swap as the slow one.
#[derive(Debug)]
pub struct SwapTiers<C> {
    calls: Arc<C>,
    name: String,
    nursery: Arc<Nursery>,
}

impl<C: SwapCalls> SwapTiers<C> {
    /// `name` is what people read, such as `swap (zram)`.
    ///
    /// # Errors
    /// When the system has no thread to write newborn pages out.
    pub fn new(calls: C, name: String) -> std::io::Result<Self> {
        let (calls, nursery) = (Arc::new(calls), Arc::<Nursery>::default());
        let (own_calls, own_nursery) = (Arc::clone(&calls), Arc::clone(&nursery));
        let work = move || loop {
            let outcome = page_out(&*own_calls, &own_nursery.next());
            own_nursery.tally().note(outcome);
        };
        std::thread::Builder::new().name("sentinel-pageout".to_owned()).spawn(work)?;
        Ok(SwapTiers { calls, name, nursery })
    }
}

/// Bytes of the range that are still in memory; `unknown` when the system does not say.
fn present(calls: &impl SwapCalls, range: &Range<usize>, unknown: u64) -> u64 {
    calls.whereabouts(range).map_or(unknown, |found| found.present_bytes)
}

/// Pages a range out and looks what became of it.
fn page_out(calls: &impl SwapCalls, range: &Range<usize>) -> Result<Moved, sys::Error> {
    let len_bytes = range.len() as u64;
    let before = present(calls, range, len_bytes);
    calls.page_out(range)?;
    let left = present(calls, range, 0);
    let moved_bytes = before.saturating_sub(left);
    if left <= len_bytes / LEFT_BEHIND {
        return Ok(Moved { moved_bytes, copied_bytes: moved_bytes, ..Moved::default() });
    }
    // The kernel keeps what it finds no swap for, and what it is using itself, such as pages on their way to a disk.
    let errno = if calls.room_bytes().is_some_and(|room| room >= left) { EBUSY } else { ENOMEM };
    Ok(Moved { moved_bytes, copied_bytes: moved_bytes, failed_bytes: left, errno })
}

impl<C: SwapCalls> Tiers for SwapTiers<C> {
    fn kind(&self) -> &'static str {
        "swap"
    }

    fn slow_name(&self) -> &str {
        &self.name
    }

    fn reserve(&self, len_bytes: usize, _home: Tier) -> Result<Range<usize>, TierError> {
        self.calls.reserve(len_bytes).map_err(|error| tier_error(&error, &(0..len_bytes)))
    }

    /// Untouched pages can only come from memory. What should have come from swap goes there soon.
    fn place(&self, range: Range<usize>, tier: Tier) -> Result<(), TierError> {
        if tier != Tier::FAST {
            let mut newborn = self.nursery.lock();
            let born = newborn.boundary;
            newborn.waiting.push((born, range));
        }
        Ok(())
    }

    /// Each page that is touched first is a fault of its own, which costs more than clearing the page; what the kernel refuses
    /// here comes by such faults.
    ///
    /// In pieces, because other faults and mappings of the process wait for a call.
    fn populate(&self, range: Range<usize>) {
        let mut begin = range.start;
        while begin < range.end {
            let piece = begin..range.end.min(begin + POPULATED_AT_ONCE_BYTES);
            begin = piece.end;
            if let Err(error) = self.calls.populate(&piece) {
                log::debug!("{error}");
                return;
            }
        }
    }

    fn migrate(&self, range: Range<usize>, to: Tier) -> Result<Moved, TierError> {
        let len_bytes = range.len() as u64;
        self.nursery.forget(&range);
        if to == Tier::FAST {
            let away = self.calls.whereabouts(&range).map_or(len_bytes, |found| found.swapped_bytes);
            if away > 0 {
                self.calls.bring_in(&range).map_err(|error| tier_error(&error, &range))?;
            }
            return Ok(Moved { moved_bytes: away, copied_bytes: away, ..Moved::default() });
        }
        page_out(&*self.calls, &range).map_err(|error| tier_error(&error, &range))
    }

    fn discard(&self, range: Range<usize>, _next: Tier) -> Result<(), TierError> {
        self.nursery.forget(&range);
        self.calls.discard(&range).map_err(|error| tier_error(&error, &range))
    }

    fn held_bytes(&self, range: Range<usize>, tier: Tier) -> Option<u64> {
        if tier == Tier::FAST {
            self.calls.resident_bytes(&range)
        } else {
            None
        }
    }

    fn births_take_memory(&self) -> bool {
        true
    }

    fn newborn_demoted_bytes(&self) -> u64 {
        self.nursery.tally().demoted_bytes
    }

    /// Those of newborn pages; what moves is refused is counted by who asked.
    fn refusals(&self) -> Refusals {
        self.nursery.tally().refusals.clone()
    }

    fn boundary(&self) {
        self.nursery.lock().boundary += 1;
        self.nursery.grown.notify_one();
    }

    fn located(&self, range: Range<usize>, tier: Tier) -> Option<Located> {
        let Whereabouts { present_bytes, swapped_bytes } = self.calls.whereabouts(&range)?;
        Some(if tier == Tier::FAST {
            Located { there_bytes: present_bytes, elsewhere_bytes: swapped_bytes }
        } else {
            Located { there_bytes: swapped_bytes, elsewhere_bytes: present_bytes }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::time::{Duration, Instant};
    use sys::errno::EINVAL;
    use sys::memory::PAGE_BYTES;

    /// Pages that a fake system knows: true for those in memory.
    #[derive(Debug, Default)]
    struct Fake {
        pages: Mutex<BTreeMap<usize, bool>>,
        /// Pages that swap has room for.
        room: usize,
        /// Pages that the kernel is using: they stay, and swap would have room for them.
        in_use: usize,
        refuses: bool,
    }

    impl Fake {
        fn set(&self, range: &Range<usize>, present: bool) {
            let mut pages = self.pages.lock().unwrap();
            let away = pages.values().filter(|&&present| !present).count();
            let mut room = if present { usize::MAX } else { self.room - self.in_use - away };
            for page in range.clone().step_by(PAGE_BYTES) {
                let Some(state) = pages.get_mut(&page).filter(|state| **state != present) else { continue };
                if room > 0 {
                    room -= 1;
                    *state = present;
                }
            }
        }
    }

    impl SwapCalls for Fake {
        fn reserve(&self, len_bytes: usize) -> Result<Range<usize>, sys::Error> {
            Ok(PAGE_BYTES..PAGE_BYTES + len_bytes)
        }

        fn page_out(&self, range: &Range<usize>) -> Result<(), sys::Error> {
            if self.refuses {
                let (addr, len_bytes) = (range.start, range.len());
                return Err(sys::Error::Advise { advice: "MADV_PAGEOUT", addr, len_bytes, errno: EINVAL });
            }
            self.set(range, false);
            Ok(())
        }

        fn bring_in(&self, range: &Range<usize>) -> Result<(), sys::Error> {
            self.set(range, true);
            Ok(())
        }

        fn populate(&self, range: &Range<usize>) -> Result<(), sys::Error> {
            let mut pages = self.pages.lock().unwrap();
            for page in range.clone().step_by(PAGE_BYTES) {
                pages.entry(page).or_insert(true);
            }
            Ok(())
        }

        fn discard(&self, range: &Range<usize>) -> Result<(), sys::Error> {
            self.pages.lock().unwrap().retain(|page, _| !range.contains(page));
            Ok(())
        }

        fn whereabouts(&self, range: &Range<usize>) -> Option<Whereabouts> {
            let pages = self.pages.lock().unwrap();
            let bytes = |wanted: bool| {
                let count = pages.range(range.clone()).filter(|&(_, &present)| present == wanted).count();
                (count * PAGE_BYTES) as u64
            };
            Some(Whereabouts { present_bytes: bytes(true), swapped_bytes: bytes(false) })
        }

        fn resident_bytes(&self, range: &Range<usize>) -> Option<u64> {
            self.whereabouts(range).map(|found| found.present_bytes)
        }

        fn room_bytes(&self) -> Option<u64> {
            let away = self.pages.lock().unwrap().values().filter(|&&present| !present).count();
            Some(((self.room - away) * PAGE_BYTES) as u64)
        }
    }

    /// Sixteen pages in memory, and swap for so many.
    fn tiers(room: usize, refuses: bool) -> (SwapTiers<Fake>, Range<usize>) {
        tiers_of(Fake { room, refuses, ..Fake::default() })
    }

    fn tiers_of(fake: Fake) -> (SwapTiers<Fake>, Range<usize>) {
        let tiers = SwapTiers::new(fake, "swap (test)".to_owned()).unwrap();
        let range = tiers.reserve(16 * PAGE_BYTES, Tier::SLOW).unwrap();
        tiers.calls.pages.lock().unwrap().extend(range.clone().step_by(PAGE_BYTES).map(|page| (page, true)));
        (tiers, range)
    }

    const ALL: u64 = 16 * PAGE_BYTES as u64;

    #[test]
    fn pages_go_out_and_come_back_and_the_second_time_nothing_is_to_do() {
        let (tiers, range) = tiers(100, false);
        let moved = Moved { moved_bytes: ALL, copied_bytes: ALL, ..Moved::default() };
        for to in [Tier::SLOW, Tier::FAST] {
            assert_eq!(tiers.migrate(range.clone(), to), Ok(moved));
            assert_eq!(tiers.migrate(range.clone(), to), Ok(Moved::default()));
            let held = if to == Tier::FAST { ALL } else { 0 };
            assert_eq!(tiers.held_bytes(range.clone(), Tier::FAST), Some(held));
            assert_eq!(tiers.located(range.clone(), to), Some(Located { there_bytes: ALL, elsewhere_bytes: 0 }));
        }
        assert_eq!((tiers.kind(), tiers.slow_name()), ("swap", "swap (test)"));
    }

    #[test]
    fn full_swap_fails_the_move_and_a_few_stragglers_do_not() {
        let (full, range) = tiers(10, false);
        let left = Moved { moved_bytes: 10 * 4096, copied_bytes: 10 * 4096, failed_bytes: 6 * 4096, errno: ENOMEM };
        assert_eq!(full.migrate(range, Tier::SLOW), Ok(left));
        let (nearly, range) = tiers(14, false);
        assert_eq!(nearly.migrate(range, Tier::SLOW).map(|moved| moved.failed_bytes), Ok(0));
    }

    #[test]
    fn pages_that_the_kernel_is_using_are_busy_while_swap_has_room() {
        let (tiers, range) = tiers_of(Fake { room: 100, in_use: 90, ..Fake::default() });
        let left = Moved { moved_bytes: 10 * 4096, copied_bytes: 10 * 4096, failed_bytes: 6 * 4096, errno: EBUSY };
        assert_eq!(tiers.migrate(range, Tier::SLOW), Ok(left));
    }

    #[test]
    fn a_refusal_is_an_error_that_names_the_advice() {
        let (tiers, range) = tiers(100, true);
        let error = tiers.migrate(range, Tier::SLOW).unwrap_err();
        assert_eq!((error.operation, error.errno), ("madvise", EINVAL));
    }

    #[test]
    fn what_is_about_to_be_written_gets_its_pages_at_once() {
        let (tiers, range) = tiers(100, false);
        tiers.discard(range.clone(), Tier::FAST).unwrap();
        assert_eq!(present(&tiers, &range), 0);
        tiers.populate(range.clone());
        assert_eq!(present(&tiers, &range), ALL);
    }

    fn present(tiers: &SwapTiers<Fake>, range: &Range<usize>) -> u64 {
        tiers.calls.whereabouts(range).unwrap().present_bytes
    }

    #[test]
    fn what_is_born_slow_is_written_two_boundaries_later_unless_it_died() {
        let (tiers, range) = tiers(100, false);
        let half = range.start + 8 * PAGE_BYTES;
        tiers.place(range.start..half, Tier::SLOW).unwrap();
        tiers.place(half..range.end, Tier::SLOW).unwrap();
        tiers.boundary();
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(present(&tiers, &range), ALL, "too early");
        tiers.discard(half..range.end, Tier::SLOW).unwrap();
        tiers.calls.pages.lock().unwrap().extend((half..range.end).step_by(PAGE_BYTES).map(|page| (page, true)));
        tiers.boundary();
        let began = Instant::now();
        while present(&tiers, &range) == ALL && began.elapsed() < Duration::from_secs(10) {
            std::thread::yield_now();
        }
        assert_eq!((present(&tiers, &(range.start..half)), present(&tiers, &(half..range.end))), (0, ALL / 2));
        while tiers.newborn_demoted_bytes() == 0 && began.elapsed() < Duration::from_secs(10) {
            std::thread::yield_now();
        }
        assert_eq!((tiers.newborn_demoted_bytes(), tiers.refusals()), (ALL / 2, Refusals::default()));
    }

    #[test]
    fn newborn_pages_that_stay_are_counted_by_their_reason() {
        let count = |fake: Fake| {
            let (tiers, range) = tiers_of(fake);
            tiers.place(range, Tier::SLOW).unwrap();
            tiers.boundary();
            tiers.boundary();
            let began = Instant::now();
            while tiers.refusals() == Refusals::default() && began.elapsed() < Duration::from_secs(10) {
                std::thread::yield_now();
            }
            (tiers.newborn_demoted_bytes(), tiers.refusals())
        };
        let full = Refusals { pages: [(ENOMEM, 6)].into(), ..Refusals::default() };
        assert_eq!(count(Fake { room: 10, ..Fake::default() }), (10 * 4096, full));
        let refused = Refusals { calls: [(EINVAL, 1)].into(), ..Refusals::default() };
        assert_eq!(count(Fake { room: 100, refuses: true, ..Fake::default() }), (0, refused));
    }
}
