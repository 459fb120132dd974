//! A kernel that counts what it is told to, and refuses what it is told to refuse.

use super::*;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Counts by page address, and the calls so far.
#[derive(Default)]
struct State {
    calls: Vec<String>,
    pages: BTreeMap<usize, PageCount>,
    refused: Option<&'static str>,
    huge_bytes: u64,
}

#[derive(Default)]
struct Fake(Mutex<State>);

impl Fake {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn access(&self, addr: usize, reads: u64, writes: u64) {
        let mut state = self.state();
        let page = state.pages.entry(addr / 4096 * 4096).or_default();
        page.reads += reads;
        page.writes += writes;
    }

    fn called(&self, call: &'static str, what: String) -> Result<(), ProfilerError> {
        let mut state = self.state();
        state.calls.push(format!("{call}{what}"));
        if state.refused == Some(call) {
            return Err(refusal(call));
        }
        Ok(())
    }
}

fn refusal(call: &'static str) -> ProfilerError {
    ProfilerError::Call { call, field: "x", value: "1".into(), accepted: "2", errno: sys::errno::EBUSY }
}

impl PageCalls for Fake {
    fn reset(&self) -> Result<(), ProfilerError> {
        self.called("reset", String::new())?;
        self.state().pages.clear();
        Ok(())
    }

    fn add_range(&self, range: &Range<usize>) -> Result<(), ProfilerError> {
        self.called("add", format!(" {:#x}+{:#x}", range.start, range.len()))
    }

    fn start(&self, mode: Mode) -> Result<(), ProfilerError> {
        self.called("start", format!(" {}", mode.name()))
    }

    fn stop(&self) -> Result<(), ProfilerError> {
        self.called("stop", String::new())
    }

    fn flush(&self) -> Result<(), ProfilerError> {
        self.called("flush", String::new())
    }

    fn read(&self, range: &Range<usize>) -> Result<Vec<PageCount>, ProfilerError> {
        if self.state().refused == Some("read") {
            return Err(refusal("read"));
        }
        let state = self.state();
        Ok(range.clone().step_by(4096).map(|page| state.pages.get(&page).copied().unwrap_or_default()).collect())
    }

    fn huge_bytes(&self, _ranges: &[Range<usize>]) -> Result<u64, sys::Error> {
        Ok(self.state().huge_bytes)
    }

    fn collapse(&self, _ranges: &[Range<usize>], most_bytes: u64) -> Result<sys::huge::Collapsed, sys::Error> {
        self.state().calls.push(format!("collapse {most_bytes}"));
        Ok(sys::huge::Collapsed { bytes: most_bytes, later: false })
    }
}

fn counting(fake: &Arc<Fake>) -> Counting {
    let profiler = PageProfiler::new(Arc::clone(fake) as Arc<dyn PageCalls>, Mode::TlbMiss, &info(true, true));
    profiler.begin(vec![0x10000..0x20000, 0x40000..0x50000]).unwrap()
}

fn counts(pages: &[(u64, u64)]) -> Option<Vec<trace::PageCount>> {
    Some(pages.iter().map(|&(reads, writes)| trace::PageCount { reads, writes }).collect())
}

#[test]
fn tensors_that_follow_each_other_in_a_page_are_told_apart() {
    let fake = Arc::new(Fake::default());
    let mut counting = counting(&fake);
    // Buffer 0 was there before the step; 1 and 2 have the same pages one after the other.
    fake.access(0x10000, 3, 0);
    counting.born(1, 0x42000, 8192);
    fake.access(0x42000, 1, 2);
    fake.access(0x43000, 5, 0);
    counting.died(1, 0x42000, 8192);
    fake.access(0x43000, 100, 100);
    counting.born(2, 0x43000, 10);
    fake.access(0x43000, 0, 7);
    counting.died(0, 0x10000, 4096);
    counting.stop();
    counting.died(2, 0x43000, 10);
    let (counted, _, failed) = counting.finish(4);
    assert_eq!(failed, None);
    let expected = vec![counts(&[(3, 0)]), counts(&[(1, 2), (5, 0)]), counts(&[(0, 7)]), None];
    assert_eq!(counted, PageCounts { mode: CountMode::TlbMiss, buffers: expected });
    let calls = ["add 0x10000+0x10000", "add 0x40000+0x10000", "start tlb_miss", "stop", "reset"];
    assert_eq!(fake.state().calls, calls);
}

#[test]
fn temporaries_that_are_one_buffer_add_up() {
    let fake = Arc::new(Fake::default());
    let mut counting = counting(&fake);
    for addr in [0x41000, 0x45000] {
        counting.born(0, addr, 4096);
        fake.access(addr, 2, 1);
        counting.died(0, addr, 4096);
    }
    assert_eq!(counting.finish(1).0.buffers, [counts(&[(4, 2)])]);
}

#[test]
fn what_has_no_pages_of_its_own_has_no_counts() {
    let fake = Arc::new(Fake::default());
    let mut counting = counting(&fake);
    for (index, addr, size) in [(0, 0x10040, 64), (1, 0x1f000, 8192), (2, 0x30000, 4096), (3, 0x10000, 0)] {
        counting.born(index, addr, size);
        counting.died(index, addr, size);
    }
    let (counted, _, failed) = counting.finish(4);
    assert_eq!((counted.buffers, failed), (vec![None; 4], None));
}

#[test]
fn a_refusal_while_counting_is_kept_and_one_at_the_begin_ends_it() {
    let fake = Arc::new(Fake::default());
    let mut counting = counting(&fake);
    fake.state().refused = Some("read");
    counting.born(0, 0x10000, 4096);
    counting.died(0, 0x10000, 4096);
    let (counted, _, failed) = counting.finish(1);
    assert_eq!((counted.buffers, failed), (vec![None], Some(refusal("read"))));
    for call in ["add", "start"] {
        fake.state().refused = Some(call);
        let profiler = PageProfiler::new(Arc::clone(&fake) as Arc<dyn PageCalls>, Mode::Exact, &info(true, true));
        assert_eq!(profiler.begin(vec![0x10000..0x20000, 0x40000..0x50000]).unwrap_err(), refusal(call));
        assert_eq!(fake.state().calls.last().unwrap(), "reset", "nothing is left of it");
    }
}

#[test]
fn operations_begin_with_empty_tlbs_where_only_misses_count_and_the_kernel_can() {
    let able = info(true, true);
    let cases = [
        (Mode::TlbMiss, able.clone(), 1),
        (Mode::TlbMiss, Info { flush: false, ..able.clone() }, 0),
        (Mode::Exact, able, 0),
    ];
    for (mode, info, flushes) in cases {
        let fake = Arc::new(Fake::default());
        let profiler = PageProfiler::new(Arc::clone(&fake) as Arc<dyn PageCalls>, mode, &info);
        let mut counting = profiler.begin(vec![0x10000..0x20000, 0x40000..0x50000]).unwrap();
        counting.op_begins();
        assert_eq!(fake.state().calls.iter().filter(|call| *call == "flush").count(), flushes, "{mode:?}");
        fake.state().refused = Some("flush");
        counting.op_begins();
        assert_eq!(counting.finish(0).2, (flushes > 0).then(|| refusal("flush")));
    }
}

#[test]
fn as_many_huge_pages_are_made_again_as_were_split() {
    let fake = Arc::new(Fake::default());
    fake.state().huge_bytes = 10 << 20;
    let counting = counting(&fake);
    fake.state().huge_bytes = 2 << 20;
    let (_, split, _) = counting.finish(0);
    split.collapse();
    assert_eq!(fake.state().calls.last().unwrap(), &format!("collapse {}", 8 << 20));
    fake.state().calls.clear();
    Split { huge_before: 0, ..split }.collapse();
    assert!(fake.state().calls.is_empty(), "without huge pages nothing is asked");
}

#[test]
fn ranges_stay_within_the_limit() {
    let with = |max_pages| Info { max_pages, ..info(true, true) };
    let profiler = |pages| PageProfiler::new(Arc::new(Fake::default()), Mode::TlbMiss, &with(pages));
    assert_eq!(profiler(1 << 30).room_bytes(4096), ROOM_BYTES + 4096);
    assert_eq!(profiler(100).room_bytes(40 * 4096), 60 * 4096);
    assert_eq!(profiler(100).room_bytes(200 * 4096), 0);
}

fn info(exact: bool, tlb_miss: bool) -> Info {
    Info {
        abi_version: 1,
        mechanism: 1,
        mechanism_name: "reserved bit".to_owned(),
        exact,
        tlb_miss,
        exact_threads: true,
        patched: true,
        flush: true,
        not_counted: 0,
        max_ranges: 8,
        max_pages: 1000,
        page_bytes: 4096,
        physical_bits: 46,
        poison_bit: 51,
    }
}

#[test]
fn auto_takes_the_kernel_where_it_can_and_kernel_insists() {
    let with = |exact, tlb| move || Ok((Arc::new(Fake::default()) as Arc<dyn PageCalls>, info(exact, tlb)));
    let without = || Err(refusal("open"));
    let mode = |chosen: Result<Option<PageProfiler>, ProfilerError>| chosen.map(|chosen| chosen.map(|p| p.mode));
    let (tlb, exact) = (Profiler::Kernel(CountMode::TlbMiss), Profiler::Kernel(CountMode::Exact));
    assert_eq!(mode(PageProfiler::choose(Profiler::Auto, with(true, true))), Ok(Some(Mode::TlbMiss)));
    assert_eq!(mode(PageProfiler::choose(Profiler::Auto, without)), Ok(None));
    assert_eq!(mode(PageProfiler::choose(Profiler::Auto, with(true, false))), Ok(None));
    assert_eq!(mode(PageProfiler::choose(Profiler::Op, || unreachable!("op needs no device"))), Ok(None));
    assert_eq!(mode(PageProfiler::choose(exact, with(true, true))), Ok(Some(Mode::Exact)));
    assert_eq!(mode(PageProfiler::choose(tlb, without)), Err(refusal("open")));
    let said = PageProfiler::choose(exact, with(false, true)).unwrap_err().to_string();
    assert_eq!(said, "/dev/sentinel: mode = exact: accepted is tlb_miss");
}
