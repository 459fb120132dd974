//! The tiers on a machine that can be told to fail: each call with each error number, each page with each status.

use super::*;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Mutex;
use sys::errno::{EACCES, EFAULT, ENODEV, ENOSYS, EPERM, ESRCH};

/// Everything that the manual pages of the calls name, and what containers answer.
const ERRNOS: [i32; 10] = [EINVAL, EPERM, ENOMEM, EBUSY, EFAULT, ENODEV, ENOENT, ESRCH, EACCES, ENOSYS];

const FAST: u32 = 0;
const SLOW: u32 = 2;
const BASE: usize = 0x7000_0000_0000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Call {
    Reserve,
    Mbind,
    Query,
    Move,
    Dontneed,
}

#[derive(Default)]
struct State {
    /// Node of each page that was touched.
    touched: BTreeMap<usize, u32>,
    /// Preferred nodes of pages, where they were set.
    bound: BTreeMap<usize, Vec<u32>>,
    /// Nodes with little room, and how many pages still fit.
    room: HashMap<u32, usize>,
    /// Calls that fail: which, from the how manieth on, and with which error number.
    refusals: Vec<(Call, usize, i32)>,
    /// What a page answers to moves before it really moves.
    answers: HashMap<usize, VecDeque<PageStatus>>,
    /// The next move gives up after this many pages.
    give_up_after: Option<usize>,
    knows_preferred_many: bool,
    /// First pages of huge pages, and those that calls split.
    huge: BTreeSet<usize>,
    /// Ranges in which huge pages are welcome or not, as asked for.
    advice: Vec<(Range<usize>, bool)>,
    /// Every call with its number of pages.
    log: Vec<(Call, usize)>,
}

#[derive(Default)]
struct FakeCalls {
    state: Mutex<State>,
}

impl FakeCalls {
    fn enter(&self, call: Call, pages: usize) -> Result<std::sync::MutexGuard<'_, State>, i32> {
        let mut state = self.state.lock().unwrap();
        let earlier = state.log.iter().filter(|(logged, _)| *logged == call).count();
        state.log.push((call, pages));
        let refused = state.refusals.iter().find(|&&(which, from, _)| which == call && earlier >= from);
        match refused.copied() {
            Some((_, _, errno)) => Err(errno),
            None => Ok(state),
        }
    }
}

impl NumaCalls for FakeCalls {
    fn room_bytes(&self, node: u32) -> Option<u64> {
        let pages = *self.state.lock().unwrap().room.get(&node).unwrap_or(&usize::MAX);
        Some((pages as u64).saturating_mul(PAGE_BYTES as u64))
    }

    fn reserve(&self, len_bytes: usize) -> Result<Range<usize>, sys::Error> {
        let state = self.enter(Call::Reserve, len_bytes / PAGE_BYTES);
        state.map(|_| BASE..BASE + len_bytes).map_err(|errno| sys::Error::Reserve { len_bytes, errno })
    }

    fn mbind(&self, range: &Range<usize>, policy: Policy, nodes: &[u32]) -> Result<(), sys::Error> {
        let (addr, len_bytes) = (range.start, range.len());
        let refused = |errno| sys::Error::Bind { addr, len_bytes, policy, nodes: nodes.to_vec(), errno };
        let mut state = self.enter(Call::Mbind, len_bytes / PAGE_BYTES).map_err(refused)?;
        if policy == Policy::PreferredMany && !state.knows_preferred_many {
            return Err(refused(EINVAL));
        }
        state.bound.extend(range.clone().step_by(PAGE_BYTES).map(|page| (page, nodes.to_vec())));
        Ok(())
    }

    fn move_pages(&self, pages: &[usize], to: Option<u32>) -> Result<Vec<PageStatus>, sys::Error> {
        let call = if to.is_some() { Call::Move } else { Call::Query };
        let refused = |errno, settled_pages| sys::Error::MovePages { pages: pages.len(), settled_pages, errno };
        let mut state = self.enter(call, pages.len()).map_err(|errno| refused(errno, 0))?;
        let mut statuses = Vec::new();
        let give_up_after = if to.is_some() { state.give_up_after.take() } else { None };
        for (index, page) in pages.iter().enumerate() {
            let Some(&node) = state.touched.get(page) else {
                statuses.push(PageStatus::Failed(ENOENT));
                continue;
            };
            let Some(to) = to else {
                statuses.push(PageStatus::OnNode(node));
                continue;
            };
            if let Some(answer) = state.answers.get_mut(page).and_then(VecDeque::pop_front) {
                statuses.push(answer);
                continue;
            }
            let gave_up = give_up_after.is_some_and(|after| index >= after);
            if gave_up && index % 2 == 0 {
                statuses.push(PageStatus::Unsettled);
                continue;
            }
            let head = page / HUGE_PAGE_BYTES * HUGE_PAGE_BYTES;
            if state.huge.contains(&head) {
                if *page != head {
                    // As the kernel does: the first page named has taken it off the list already.
                    statuses.push(PageStatus::Failed(EBUSY));
                    continue;
                }
                let all = (head..head + HUGE_PAGE_BYTES).step_by(PAGE_BYTES).map(|page| (page, to));
                state.touched.extend(all);
                statuses.push(PageStatus::OnNode(to));
                continue;
            }
            let room = state.room.entry(to).or_insert(usize::MAX);
            if *room == 0 {
                // As the kernel does: what has moved stays moved, and nobody is told.
                return Err(refused(ENOMEM, statuses.len()));
            }
            *room -= 1;
            state.touched.insert(*page, to);
            statuses.push(if gave_up { PageStatus::Unsettled } else { PageStatus::OnNode(to) });
        }
        Ok(statuses)
    }

    fn dontneed(&self, range: &Range<usize>) -> Result<(), sys::Error> {
        let (addr, len_bytes) = (range.start, range.len());
        let refused = |errno| sys::Error::Advise { advice: "MADV_DONTNEED", addr, len_bytes, errno };
        let mut state = self.enter(Call::Dontneed, len_bytes / PAGE_BYTES).map_err(refused)?;
        state.touched.retain(|page, _| !range.contains(page));
        Ok(())
    }

    fn advise_huge(&self, range: &Range<usize>, welcome: bool) -> Result<(), sys::Error> {
        self.state.lock().unwrap().advice.push((range.clone(), welcome));
        Ok(())
    }

    fn held_bytes(&self, range: &Range<usize>) -> Result<BTreeMap<u32, u64>, sys::Error> {
        let mut held = BTreeMap::new();
        for (_, &node) in self.state.lock().unwrap().touched.range(range.clone()) {
            *held.entry(node).or_insert(0) += PAGE_BYTES as u64;
        }
        Ok(held)
    }
}

/// Tiers of a fast and a slow node with so many touched slow pages; the range is of these pages.
fn slow_pages(count: usize) -> (NumaTiers<FakeCalls>, Range<usize>) {
    let tiers = NumaTiers::new(FakeCalls::default(), vec![FAST], vec![SLOW]);
    let range = tiers.reserve(count * PAGE_BYTES, Tier::SLOW).unwrap();
    tiers.with(|state| {
        state.touched.extend(range.clone().step_by(PAGE_BYTES).map(|page| (page, SLOW)));
        state.log.clear();
    });
    (tiers, range)
}

impl NumaTiers<FakeCalls> {
    fn with<R>(&self, action: impl FnOnce(&mut State) -> R) -> R {
        action(&mut self.calls.state.lock().unwrap())
    }

    fn refuse(&self, call: Call, from: usize, errno: i32) {
        self.with(|state| state.refusals.push((call, from, errno)));
    }

    fn answer(&self, page: usize, answers: &[PageStatus]) {
        self.with(|state| state.answers.insert(BASE + page * PAGE_BYTES, answers.iter().copied().collect()));
    }

    fn calls(&self, call: Call) -> Vec<usize> {
        self.with(|state| state.log.iter().filter(|(logged, _)| *logged == call).map(|&(_, pages)| pages).collect())
    }

    fn on_node(&self, node: u32) -> usize {
        self.with(|state| state.touched.values().filter(|&&on| on == node).count())
    }
}

fn moved(moved_pages: u64, failed_pages: u64, errno: i32) -> Moved {
    let moved_bytes = moved_pages * 4096;
    Moved { moved_bytes, copied_bytes: moved_bytes, failed_bytes: failed_pages * 4096, errno }
}

/// As [`moved`], of which so many pages were never touched.
fn moved_untouched(moved_pages: u64, untouched_pages: u64, failed_pages: u64, errno: i32) -> Moved {
    let copied_bytes = (moved_pages - untouched_pages) * 4096;
    Moved { copied_bytes, ..moved(moved_pages, failed_pages, errno) }
}

fn error(operation: &'static str, range: &Range<usize>, errno: i32) -> TierError {
    TierError { operation, addr: range.start, len_bytes: range.len(), errno, reason: sys::errno_text(errno) }
}

#[test]
fn names_are_what_people_asked_for() {
    let tiers = NumaTiers::new(SystemCalls, vec![0], vec![2, 3]);
    assert_eq!((tiers.kind(), tiers.slow_name()), ("numa", "node:2,3"));
}

#[test]
fn pages_come_from_their_tier_and_move_to_the_other() {
    let (tiers, range) = slow_pages(3);
    assert_eq!(tiers.with(|state| state.bound[&BASE].clone()), [SLOW]);
    assert_eq!(tiers.migrate(range.clone(), Tier::FAST), Ok(moved(3, 0, 0)));
    assert_eq!(tiers.on_node(FAST), 3);
    assert_eq!(tiers.with(|state| state.bound[&BASE].clone()), [FAST], "pages touched later come from there too");
    assert_eq!(tiers.migrate(range.clone(), Tier::FAST), Ok(moved(0, 0, 0)), "they are there already");
    assert_eq!(tiers.calls(Call::Move), [3]);
    assert_eq!(tiers.migrate(range, Tier::SLOW), Ok(moved(3, 0, 0)));
    assert_eq!(tiers.on_node(SLOW), 3);
}

#[test]
fn discarded_pages_are_gone_and_come_from_the_next_tier() {
    let (tiers, range) = slow_pages(4);
    assert_eq!(tiers.discard(range.start..range.start + 2 * PAGE_BYTES, Tier::FAST), Ok(()));
    assert_eq!(tiers.on_node(SLOW), 2);
    assert_eq!(tiers.with(|state| state.bound[&range.start].clone()), [FAST]);
    assert_eq!(tiers.calls(Call::Dontneed), [2]);
}

#[test]
fn refused_calls_name_operation_range_and_errno() {
    for errno in ERRNOS {
        let fresh = || NumaTiers::new(FakeCalls::default(), vec![FAST], vec![SLOW]);
        let range = BASE..BASE + 8 * PAGE_BYTES;

        let tiers = fresh();
        tiers.refuse(Call::Reserve, 0, errno);
        assert_eq!(tiers.reserve(range.len(), Tier::SLOW), Err(error("mmap", &(0..range.len()), errno)));

        let tiers = fresh();
        tiers.refuse(Call::Mbind, 0, errno);
        let refused = error("mbind", &range, errno);
        assert_eq!(tiers.reserve(range.len(), Tier::SLOW), Err(refused.clone()));
        assert_eq!(tiers.place(range.clone(), Tier::FAST), Err(refused.clone()));
        assert_eq!(tiers.discard(range.clone(), Tier::FAST), Err(refused));
        assert_eq!(tiers.calls(Call::Dontneed), [8], "contents go even when their next place is refused");

        let tiers = fresh();
        tiers.refuse(Call::Dontneed, 0, errno);
        assert_eq!(tiers.discard(range.clone(), Tier::SLOW), Err(error("madvise", &range, errno)));
    }
}

#[test]
fn a_move_that_is_refused_at_once_is_an_error_but_no_room_is_a_count() {
    for call in [Call::Query, Call::Move] {
        for errno in ERRNOS {
            let (tiers, range) = slow_pages(5);
            tiers.refuse(call, 0, errno);
            let expected =
                if errno == ENOMEM { Ok(moved(0, 5, ENOMEM)) } else { Err(error("move_pages", &range, errno)) };
            assert_eq!(tiers.migrate(range, Tier::FAST), expected);
            assert_eq!((tiers.on_node(SLOW), tiers.calls(call).len()), (5, 1), "{call:?} {errno}");
        }
    }
}

#[test]
fn a_refusal_later_on_keeps_what_was_done_and_tries_no_further() {
    for call in [Call::Query, Call::Move] {
        for errno in ERRNOS {
            let (tiers, range) = slow_pages(3 * BATCH_PAGES);
            // The first batch takes two calls: one for what may be huge pages, and one for the rest.
            tiers.refuse(call, 2, errno);
            let batch = BATCH_PAGES as u64;
            assert_eq!(tiers.migrate(range, Tier::FAST), Ok(moved(batch, 2 * batch, errno)), "{call:?} {errno}");
            assert_eq!(tiers.on_node(FAST), BATCH_PAGES);
            let expected = [vec![2, BATCH_PAGES - 2, 2, BATCH_PAGES], vec![BATCH_PAGES; 3]];
            assert_eq!(tiers.calls(call)[..], expected[usize::from(call == Call::Query)]);
        }
    }
}

#[test]
fn a_refused_mbind_stops_only_untouched_pages() {
    for errno in ERRNOS {
        let (tiers, range) = slow_pages(4);
        tiers.with(|state| state.touched.remove(&(BASE + PAGE_BYTES)));
        tiers.refuse(Call::Mbind, 0, errno);
        assert_eq!(tiers.migrate(range, Tier::FAST), Ok(moved(3, 1, errno)));
    }
}

#[test]
fn untouched_pages_count_as_moved() {
    let (tiers, range) = slow_pages(4);
    tiers.with(|state| state.touched.clear());
    assert_eq!(tiers.migrate(range, Tier::FAST), Ok(moved_untouched(4, 4, 0, 0)));
    assert_eq!(tiers.calls(Call::Move), [0; 0]);
}

#[test]
fn pages_that_cannot_move_are_counted_with_the_errno_of_the_first() {
    for errno in ERRNOS.into_iter().filter(|errno| ![EBUSY, ENOENT].contains(errno)) {
        let (tiers, range) = slow_pages(10);
        tiers.answer(7, &[PageStatus::Failed(EACCES)]);
        tiers.answer(4, &[PageStatus::Failed(errno)]);
        assert_eq!(tiers.migrate(range, Tier::FAST), Ok(moved(8, 2, errno)));
        assert_eq!(tiers.calls(Call::Move), [10], "another try would not help");
    }
}

#[test]
fn a_page_that_vanishes_before_it_moves_comes_from_the_new_tier() {
    let (tiers, range) = slow_pages(2);
    tiers.answer(1, &[PageStatus::Failed(ENOENT)]);
    assert_eq!(tiers.migrate(range, Tier::FAST), Ok(moved_untouched(2, 1, 0, 0)));
}

#[test]
fn busy_pages_are_tried_again_three_times() {
    let (tiers, range) = slow_pages(10);
    let busy = PageStatus::Failed(EBUSY);
    tiers.answer(2, &[busy]);
    tiers.answer(3, &[busy, PageStatus::OnNode(SLOW), PageStatus::Unsettled]);
    tiers.answer(4, &[busy; 4]);
    assert_eq!(tiers.migrate(range.clone(), Tier::FAST), Ok(moved(9, 1, EBUSY)));
    assert_eq!(tiers.calls(Call::Move), [10, 3, 2, 2]);
    assert_eq!(tiers.migrate(range, Tier::FAST), Ok(moved(1, 0, 0)), "later it may go");
}

#[test]
fn refusals_are_counted_by_errno_and_retries_are() {
    let (tiers, range) = slow_pages(10);
    tiers.answer(2, &[PageStatus::Failed(EBUSY)]);
    tiers.answer(4, &[PageStatus::Failed(EBUSY); 4]);
    tiers.answer(5, &[PageStatus::Failed(EACCES)]);
    tiers.answer(6, &[PageStatus::Failed(EACCES)]);
    assert_eq!(tiers.migrate(range.clone(), Tier::FAST), Ok(moved(7, 3, EBUSY)));
    let refusals = tiers.refusals();
    assert_eq!(refusals.pages, BTreeMap::from([(EBUSY, 1), (EACCES, 2)]));
    assert_eq!((refusals.calls, refusals.retried_pages), (BTreeMap::new(), 2 + 1 + 1));
    tiers.refuse(Call::Move, 0, EPERM);
    assert!(tiers.migrate(range.clone(), Tier::SLOW).is_err());
    tiers.refuse(Call::Dontneed, 0, EINVAL);
    assert!(tiers.discard(range, Tier::SLOW).is_err());
    let refusals = tiers.refusals();
    assert_eq!(refusals.calls, BTreeMap::from([(EINVAL, 1), (EPERM, 1)]));
    assert_eq!(refusals.pages[&EPERM], 7, "the pages that were on the fast node");
}

#[test]
fn a_huge_page_is_named_once_and_what_was_none_moves_page_by_page() {
    let huge = HUGE_PAGE_BYTES / PAGE_BYTES;
    let (tiers, range) = slow_pages(2 * huge + 3);
    assert_eq!(range.start % HUGE_PAGE_BYTES, 0);
    tiers.with(|state| state.huge.insert(range.start));
    let pages = u64::try_from(2 * huge + 3).unwrap();
    assert_eq!(tiers.migrate(range.clone(), Tier::FAST), Ok(moved(pages, 0, 0)));
    // A batch of two huge pages' places, of which one was a huge page, and a batch of the rest.
    assert_eq!(tiers.calls(Call::Move), [2, huge - 1, 3]);
    assert_eq!(tiers.on_node(FAST), 2 * huge + 3);
    assert_eq!(tiers.refusals(), Refusals::default(), "no page was found busy");
    tiers.with(|state| state.touched.remove(&(range.start + HUGE_PAGE_BYTES)));
    tiers.with(|state| state.log.clear());
    assert_eq!(tiers.migrate(range, Tier::SLOW), Ok(moved_untouched(pages, 1, 0, 0)));
    assert_eq!(tiers.calls(Call::Move), [1, huge - 1, 3], "a place with a hole holds no huge page");
}

#[test]
fn held_bytes_are_those_of_all_nodes_of_a_tier() {
    let tiers = NumaTiers::new(FakeCalls::default(), vec![0, 1], vec![SLOW]);
    let range = BASE..BASE + 10 * PAGE_BYTES;
    tiers.with(|state| {
        state
            .touched
            .extend(range.clone().step_by(PAGE_BYTES).enumerate().map(|(at, page)| (page, [0, 1, SLOW][at % 3])));
    });
    assert_eq!(tiers.held_bytes(range.clone(), Tier::FAST), Some(7 * 4096));
    assert_eq!(tiers.held_bytes(range.clone(), Tier::SLOW), Some(3 * 4096));
    tiers.welcome_huge_pages(range.clone(), false);
    tiers.welcome_huge_pages(0..0, true);
    assert_eq!(tiers.with(|state| state.advice.clone()), [(range, false)], "an empty range is nobody's");
}

#[test]
fn a_call_that_gives_up_is_found_out_about() {
    let (tiers, range) = slow_pages(10);
    tiers.with(|state| state.give_up_after = Some(4));
    assert_eq!(tiers.migrate(range, Tier::FAST), Ok(moved(10, 0, 0)));
    assert_eq!(tiers.calls(Call::Move), [10, 6]);
}

#[test]
fn a_full_node_is_counted_page_by_page() {
    let (tiers, range) = slow_pages(10);
    tiers.with(|state| state.room.insert(FAST, 6));
    assert_eq!(tiers.migrate(range, Tier::FAST), Ok(moved(6, 4, ENOMEM)));
    assert_eq!(tiers.on_node(FAST), 6);
}

#[test]
fn the_next_node_of_a_tier_takes_what_the_first_has_no_room_for() {
    for knows_preferred_many in [true, false] {
        let tiers = NumaTiers::new(FakeCalls::default(), vec![0, 1], vec![SLOW]);
        tiers.with(|state| state.knows_preferred_many = knows_preferred_many);
        let range = tiers.reserve(10 * PAGE_BYTES, Tier::SLOW).unwrap();
        tiers.with(|state| {
            state.touched.extend(range.clone().step_by(PAGE_BYTES).map(|page| (page, SLOW)));
            state.room.extend([(0, 6), (1, 3)]);
        });
        tiers.answer(9, &[PageStatus::Failed(ENOMEM)]);
        assert_eq!(tiers.migrate(range, Tier::FAST), Ok(moved(9, 1, ENOMEM)));
        assert_eq!((tiers.on_node(0), tiers.on_node(1), tiers.on_node(SLOW)), (6, 3, 1));
        let bound = tiers.with(|state| state.bound[&BASE].clone());
        assert_eq!(bound, if knows_preferred_many { vec![0, 1] } else { vec![0] });
    }
}

#[test]
fn calls_are_bounded() {
    let (tiers, range) = slow_pages(2 * BATCH_PAGES + 1);
    assert_eq!(tiers.migrate(range, Tier::FAST), Ok(moved(2 * BATCH_PAGES as u64 + 1, 0, 0)));
    assert_eq!(tiers.calls(Call::Move), [2, BATCH_PAGES - 2, 2, BATCH_PAGES - 2, 1]);
    assert!(tiers.calls(Call::Query).into_iter().all(|pages| pages <= BATCH_PAGES));
}

#[test]
fn pages_are_found_where_the_system_says_they_are() {
    let (tiers, range) = slow_pages(5);
    tiers.with(|state| {
        state.touched.insert(range.start, FAST);
        state.touched.insert(range.start + PAGE_BYTES, 7);
        state.touched.remove(&(range.start + 4 * PAGE_BYTES));
    });
    let page = PAGE_BYTES as u64;
    let found =
        |there: u64, elsewhere: u64| Some(Located { there_bytes: there * page, elsewhere_bytes: elsewhere * page });
    assert_eq!(tiers.located(range.clone(), Tier::FAST), found(1, 3), "an untouched page is nowhere");
    assert_eq!(tiers.located(range.clone(), Tier::SLOW), found(2, 2));
    tiers.with(|state| state.refusals.push((Call::Query, 0, EPERM)));
    assert_eq!(tiers.located(range, Tier::SLOW), None);
}

#[test]
fn tiers_without_nodes_fail_at_the_first_call() {
    let tiers = NumaTiers::new(SystemCalls, vec![0], vec![]);
    assert_eq!(tiers.reserve(1 << 21, Tier::SLOW).unwrap_err().operation, "mbind");
}

#[test]
fn this_machine_accepts_the_calls() {
    let tiers = NumaTiers::new(SystemCalls, vec![0], vec![0]);
    // Containers often forbid these calls; a test that has seen nothing must not look as if it had.
    let range = tiers.reserve(1 << 21, Tier::SLOW).expect("mbind is allowed (docker run --cap-add SYS_NICE)");
    let result = tiers.migrate(range.clone(), Tier::FAST);
    assert_eq!(result, Ok(moved_untouched(512, 512, 0, 0)), "untouched pages count as moved");
    assert_eq!(tiers.discard(range, Tier::SLOW), Ok(()));
}

#[test]
fn births_that_a_full_slow_node_cannot_take_are_told() {
    let tiers = NumaTiers::new(FakeCalls::default(), vec![FAST], vec![SLOW]);
    assert_eq!(tiers.shortage(1 << 40, Tier::SLOW), None, "there is room");
    let tiers = NumaTiers::new(FakeCalls::default(), vec![FAST], vec![SLOW]);
    tiers.calls.state.lock().unwrap().room.insert(SLOW, 10);
    let pages = |count: u64| count * PAGE_BYTES as u64;
    assert_eq!((tiers.shortage(pages(6), Tier::SLOW), tiers.shortage(pages(6), Tier::SLOW)), (None, Some(ENOMEM)));
    assert_eq!(tiers.shortage(pages(11), Tier::FAST), None);
}
