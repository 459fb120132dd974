//! Tiers that are memory nodes: pages are bound to nodes with `mbind` and moved with `move_pages`.

use place::{Located, Moved, Refusals, TierError, Tiers};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use sys::errno::{EBUSY, EFAULT, EINVAL, ENOENT, ENOMEM};
use sys::memory::{HUGE_PAGE_BYTES, PAGE_BYTES};
use sys::numa::{PageStatus, Policy};
use trace::Tier;

/// Pages in one call of `move_pages`: 4 MiB, so that the lists stay small and other threads' page faults wait little.
const BATCH_PAGES: usize = 1024;

/// Base pages in a huge one.
const HUGE_PAGES: usize = HUGE_PAGE_BYTES / PAGE_BYTES;

/// How often pages are tried again that the kernel was using. The kernel empties its lists of pages on their way to the LRU
/// (`lru_add_drain_all`) at the begin of each call of `move_pages`, and pages on these are what is busy most often: another
/// call is the drain.
const BUSY_RETRIES: u32 = 3;

/// Pause before pages are tried again.
const BUSY_PAUSE: Duration = Duration::from_micros(200);

/// How old an answer may be about the room on a node; births ask by the hundred in a step.
const ROOM_AGE: Duration = Duration::from_millis(10);

/// What [`NumaTiers`] needs of the system.
pub trait NumaCalls: Send + Sync {
    /// Address space, see [`sys::memory::reserve`].
    ///
    /// # Errors
    /// When the system has none.
    fn reserve(&self, len_bytes: usize) -> Result<Range<usize>, sys::Error>;

    /// Where untouched pages come from, see [`sys::numa::bind`].
    ///
    /// # Errors
    /// When the system refuses.
    fn mbind(&self, range: &Range<usize>, policy: Policy, nodes: &[u32]) -> Result<(), sys::Error>;

    /// Moves pages to a node, or with `None` says where they are; see [`sys::numa::move_pages`].
    ///
    /// # Errors
    /// When the call was refused as a whole.
    fn move_pages(&self, pages: &[usize], to: Option<u32>) -> Result<Vec<PageStatus>, sys::Error>;

    /// Drops contents, see [`sys::memory::discard`].
    ///
    /// # Errors
    /// When the system refuses.
    fn dontneed(&self, range: &Range<usize>) -> Result<(), sys::Error>;

    /// Asks for huge pages, or for base pages only; see [`sys::memory::advise_huge_pages`].
    ///
    /// # Errors
    /// When the system has none.
    fn advise_huge(&self, range: &Range<usize>, welcome: bool) -> Result<(), sys::Error>;

    /// Bytes that a node has for new pages; `None` when the system does not tell.
    fn room_bytes(&self, node: u32) -> Option<u64>;

    /// Bytes on each node, see [`sys::numa::held_bytes`].
    ///
    /// # Errors
    /// When the system does not tell.
    fn held_bytes(&self, range: &Range<usize>) -> Result<BTreeMap<u32, u64>, sys::Error>;
}

/// The system of this machine.
#[derive(Clone, Copy, Debug)]
pub struct SystemCalls;

impl NumaCalls for SystemCalls {
    fn reserve(&self, len_bytes: usize) -> Result<Range<usize>, sys::Error> {
        sys::memory::reserve(len_bytes)
    }

    fn mbind(&self, range: &Range<usize>, policy: Policy, nodes: &[u32]) -> Result<(), sys::Error> {
        sys::numa::bind(range, policy, nodes)
    }

    fn move_pages(&self, pages: &[usize], to: Option<u32>) -> Result<Vec<PageStatus>, sys::Error> {
        match to {
            Some(node) => sys::numa::move_pages(pages, node),
            None => sys::numa::nodes_of_pages(pages),
        }
    }

    fn dontneed(&self, range: &Range<usize>) -> Result<(), sys::Error> {
        sys::memory::discard(range)
    }

    fn advise_huge(&self, range: &Range<usize>, welcome: bool) -> Result<(), sys::Error> {
        if welcome {
            sys::memory::advise_huge_pages(range)
        } else {
            sys::memory::advise_base_pages(range)
        }
    }

    fn room_bytes(&self, node: u32) -> Option<u64> {
        let root = Path::new("/");
        let kept_kib = sys::host::setting(root, "proc/sys/vm/min_free_kbytes")?.parse::<u64>().ok()?;
        // The kernel turns to other nodes where a node has less left than its low mark, a quarter above what is always free.
        Some(sys::host::free_bytes(root, node)?.saturating_sub(kept_kib * 1024 * 5 / 4))
    }

    fn held_bytes(&self, range: &Range<usize>) -> Result<BTreeMap<u32, u64>, sys::Error> {
        sys::numa::held_bytes(range)
    }
}

/// Two tiers, each of one or more memory nodes. Nodes are preferred, not enforced: when a tier is full, pages come from
/// other nodes and training goes on.
#[derive(Debug)]
pub struct NumaTiers<C> {
    calls: C,
    fast_nodes: Vec<u32>,
    slow_nodes: Vec<u32>,
    slow_name: String,
    refusals: Mutex<Refusals>,
    /// What the slow nodes had room for at the latest look, and when that was.
    slow_room: Mutex<Option<(Instant, u64)>>,
}

impl<C: NumaCalls> NumaTiers<C> {
    /// Tiers of these nodes, each list with the node to fill first at its begin. Neither may be empty; whether the nodes
    /// exist is found out by the first call.
    #[must_use]
    pub fn new(calls: C, fast_nodes: Vec<u32>, slow_nodes: Vec<u32>) -> Self {
        let numbers: Vec<String> = slow_nodes.iter().map(u32::to_string).collect();
        let slow_name = format!("node:{}", numbers.join(","));
        NumaTiers { calls, fast_nodes, slow_nodes, slow_name, refusals: Mutex::default(), slow_room: Mutex::default() }
    }

    fn nodes(&self, tier: Tier) -> &[u32] {
        if tier == Tier::FAST {
            &self.fast_nodes
        } else {
            &self.slow_nodes
        }
    }

    fn bind(&self, range: &Range<usize>, tier: Tier) -> Result<(), sys::Error> {
        let nodes = self.nodes(tier);
        let policy = if nodes.len() == 1 { Policy::Preferred } else { Policy::PreferredMany };
        let bound = match self.calls.mbind(range, policy, nodes) {
            // Linux before 5.15 can prefer one node only.
            Err(error) if error.errno() == EINVAL && nodes.len() > 1 => {
                self.calls.mbind(range, Policy::Preferred, &nodes[..1])
            }
            result => result,
        };
        bound.inspect_err(|error| self.refused(error))
    }

    fn count(&self) -> MutexGuard<'_, Refusals> {
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refused(&self, error: &sys::Error) {
        *self.count().calls.entry(error.errno()).or_insert(0) += 1;
    }

    fn move_pages(&self, pages: &[usize], to: Option<u32>) -> Result<Vec<PageStatus>, sys::Error> {
        self.calls.move_pages(pages, to).inspect_err(|error| self.refused(error))
    }

    /// Moves what is in `pages` and not on `nodes` yet. Every page is counted in `tally`, also when the call as a whole is
    /// refused. `unplaced` is the error number of the refused `mbind`, when untouched pages will not come from the nodes.
    fn move_batch(
        &self,
        pages: &[usize],
        nodes: &[u32],
        unplaced: Option<i32>,
        tally: &mut Tally,
    ) -> Result<(), sys::Error> {
        let found = self.move_pages(pages, None).inspect_err(|error| tally.failed_all(pages, error.errno()))?;
        let mut batch = Batch { nodes, unplaced, pending: Vec::new(), tally };
        for (&page, status) in pages.iter().zip(found) {
            match status {
                PageStatus::OnNode(node) if nodes.contains(&node) => {}
                PageStatus::OnNode(_) => batch.pending.push((page, EBUSY)),
                status => batch.settle(page, status),
            }
        }
        self.move_huge_pages(&mut batch);
        let refusal = self.move_pending(&mut batch);
        self.look_again(&mut batch);
        for (page, errno) in batch.pending {
            batch.tally.failed(page, errno);
        }
        refusal.map_or(Ok(()), Err)
    }

    /// Names one page of each run that may be a huge page, and all of it moves; the kernel answers EBUSY for the others of a
    /// huge page when they are named as well. Where it was none after all, the others are still pending afterwards.
    fn move_huge_pages(&self, batch: &mut Batch<'_>) {
        let heads = batch.huge_heads();
        let (Some(&node), false) = (batch.nodes.first(), heads.is_empty()) else { return };
        if self.move_pages(&heads, Some(node)).is_ok() {
            self.look_again(batch);
        }
    }

    /// Moves page by page what is pending; the error when a call was refused as a whole.
    fn move_pending(&self, batch: &mut Batch<'_>) -> Option<sys::Error> {
        let mut targets = batch.nodes.iter().copied();
        let mut target = targets.next();
        let mut busy_retries = 0;
        while let (Some(node), false) = (target, batch.pending.is_empty()) {
            match self.move_pages(&batch.addresses(), Some(node)) {
                Ok(statuses) => {
                    if batch.settle_pending(statuses) {
                        self.look_again(batch);
                        target = targets.next();
                    } else if !batch.pending.is_empty() {
                        if busy_retries == BUSY_RETRIES {
                            return None;
                        }
                        busy_retries += 1;
                        self.count().retried_pages += batch.pending.len() as u64;
                        std::thread::sleep(BUSY_PAUSE);
                    }
                }
                Err(error) => {
                    batch.pending.iter_mut().for_each(|(_, errno)| *errno = error.errno());
                    target = targets.next().filter(|_| error.errno() == ENOMEM);
                    if target.is_none() {
                        return Some(error);
                    }
                    self.look_again(batch);
                }
            }
        }
        None
    }

    fn count_failures(&self, tally: &Tally) {
        let mut refusals = self.count();
        for (&errno, pages) in &tally.by_errno {
            *refusals.pages.entry(errno).or_insert(0) += pages;
        }
    }

    /// Counts pending pages that have arrived: a call that gave up moved some and did not say which.
    fn look_again(&self, batch: &mut Batch<'_>) {
        if batch.pending.is_empty() {
            return;
        }
        // If even this is refused, pages count as not moved: the error number of their move is known already.
        let found = self.move_pages(&batch.addresses(), None).unwrap_or_default();
        let statuses = found.into_iter().map(Some).chain(std::iter::repeat(None));
        for ((page, errno), status) in std::mem::take(&mut batch.pending).into_iter().zip(statuses) {
            match status {
                Some(PageStatus::OnNode(node)) if batch.nodes.contains(&node) => batch.tally.copied(),
                _ => batch.pending.push((page, errno)),
            }
        }
    }
}

impl<C: NumaCalls> Tiers for NumaTiers<C> {
    fn kind(&self) -> &'static str {
        "numa"
    }

    fn slow_name(&self) -> &str {
        &self.slow_name
    }

    fn reserve(&self, len_bytes: usize, home: Tier) -> Result<Range<usize>, TierError> {
        let range = self.calls.reserve(len_bytes).map_err(|error| tier_error(&error, &(0..len_bytes)))?;
        self.place(range.clone(), home)?;
        Ok(range)
    }

    fn place(&self, range: Range<usize>, tier: Tier) -> Result<(), TierError> {
        self.bind(&range, tier).map_err(|error| tier_error(&error, &range))
    }

    /// Untouched pages count as moved when `mbind` makes them come from the tier. A refused `mbind` alone does not keep
    /// touched pages from moving. When a call is refused as a whole, the pages after it are not tried.
    fn migrate(&self, range: Range<usize>, to: Tier) -> Result<Moved, TierError> {
        let unplaced = self.bind(&range, to).err().map(|error| error.errno());
        let pages: Vec<usize> = range.clone().step_by(PAGE_BYTES).collect();
        let mut tally = Tally::default();
        for (place, batch) in pages.chunks(BATCH_PAGES).enumerate() {
            if let Err(error) = self.move_batch(batch, self.nodes(to), unplaced, &mut tally) {
                let untried = pages.get((place + 1) * BATCH_PAGES..).unwrap_or_default();
                tally.failed_all(untried, error.errno());
                if tally.moved_pages == 0 && error.errno() != ENOMEM {
                    self.count_failures(&tally);
                    return Err(tier_error(&error, &range));
                }
                break;
            }
        }
        self.count_failures(&tally);
        Ok(tally.moved())
    }

    /// Contents go even where their next place is refused: pages that nobody needs would take room that the budget believes
    /// to be free.
    fn discard(&self, range: Range<usize>, next: Tier) -> Result<(), TierError> {
        let bound = self.bind(&range, next);
        let dropped = self.calls.dontneed(&range).inspect_err(|error| self.refused(error));
        dropped.and(bound).map_err(|error| tier_error(&error, &range))
    }

    fn located(&self, range: Range<usize>, tier: Tier) -> Option<Located> {
        let pages: Vec<usize> = range.step_by(PAGE_BYTES).collect();
        let (nodes, page_bytes) = (self.nodes(tier), PAGE_BYTES as u64);
        let mut located = Located::default();
        for status in self.move_pages(&pages, None).ok()? {
            match status {
                PageStatus::OnNode(node) if nodes.contains(&node) => located.there_bytes += page_bytes,
                // Never touched, or only read: the system's page of zeroes is nowhere in particular.
                PageStatus::Failed(ENOENT | EFAULT) => {}
                _ => located.elsewhere_bytes += page_bytes,
            }
        }
        Some(located)
    }

    fn shortage(&self, bytes: u64, tier: Tier) -> Option<i32> {
        if tier == Tier::FAST {
            // The budget is what guards fast memory.
            return None;
        }
        let mut latest = self.slow_room.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = latest.filter(|(at, _)| at.elapsed() < ROOM_AGE);
        let (at, room) = match fresh {
            Some(known) => known,
            None => {
                (Instant::now(), self.slow_nodes.iter().map(|&node| self.calls.room_bytes(node)).sum::<Option<u64>>()?)
            }
        };
        // What is born until the next look counts, as it is not there yet.
        *latest = Some((at, room.saturating_sub(bytes)));
        (room < bytes).then_some(ENOMEM)
    }

    fn held_bytes(&self, range: Range<usize>, tier: Tier) -> Option<u64> {
        let held = self.calls.held_bytes(&range).ok()?;
        Some(self.nodes(tier).iter().filter_map(|node| held.get(node)).sum())
    }

    fn welcome_huge_pages(&self, range: Range<usize>, welcome: bool) {
        if !range.is_empty() {
            // A kernel without huge pages refuses, and has none to keep apart.
            drop(self.calls.advise_huge(&range, welcome));
        }
    }

    fn refusals(&self) -> Refusals {
        self.count().clone()
    }
}

/// Pages under way to one tier.
struct Batch<'a> {
    nodes: &'a [u32],
    unplaced: Option<i32>,
    /// Pages that are not where they should be, with the error number of the last try.
    pending: Vec<(usize, i32)>,
    tally: &'a mut Tally,
}

impl Batch<'_> {
    fn addresses(&self) -> Vec<usize> {
        self.pending.iter().map(|&(page, _)| page).collect()
    }

    /// The first page of each run of pending pages that fills a huge page's place.
    fn huge_heads(&self) -> Vec<usize> {
        let fills = |at: usize, head: usize| {
            let last = self.pending.get(at + HUGE_PAGES - 1);
            head % HUGE_PAGE_BYTES == 0 && last.is_some_and(|&(page, _)| page == head + HUGE_PAGE_BYTES - PAGE_BYTES)
        };
        let heads = self.pending.iter().enumerate().filter(|&(at, &(page, _))| fills(at, page));
        heads.map(|(_, &(page, _))| page).collect()
    }

    /// Settles the pending pages, which have these statuses now. Says whether one stayed because the node is full.
    fn settle_pending(&mut self, statuses: Vec<PageStatus>) -> bool {
        for ((page, _), status) in std::mem::take(&mut self.pending).into_iter().zip(statuses) {
            self.settle(page, status);
        }
        self.pending.iter().any(|&(_, errno)| errno == ENOMEM)
    }

    /// Counts a page, or keeps it pending when another try may help.
    fn settle(&mut self, page: usize, status: PageStatus) {
        match status {
            PageStatus::OnNode(node) if self.nodes.contains(&node) => self.tally.copied(),
            PageStatus::OnNode(_) | PageStatus::Unsettled => self.pending.push((page, EBUSY)),
            PageStatus::Failed(errno @ (EBUSY | ENOMEM)) => self.pending.push((page, errno)),
            PageStatus::Failed(ENOENT) => match self.unplaced {
                None => self.tally.moved_pages += 1,
                Some(errno) => self.tally.failed(page, errno),
            },
            PageStatus::Failed(errno) => self.tally.failed(page, errno),
        }
    }
}

/// What became of the pages.
#[derive(Default)]
struct Tally {
    /// Untouched ones included.
    moved_pages: u64,
    copied_pages: u64,
    failed_pages: u64,
    by_errno: BTreeMap<i32, u64>,
    /// The lowest page that stayed, with its error number.
    first_failure: Option<(usize, i32)>,
}

impl Tally {
    fn copied(&mut self) {
        self.moved_pages += 1;
        self.copied_pages += 1;
    }

    fn failed(&mut self, page: usize, errno: i32) {
        self.failed_pages += 1;
        *self.by_errno.entry(errno).or_insert(0) += 1;
        if self.first_failure.is_none_or(|(first, _)| page < first) {
            self.first_failure = Some((page, errno));
        }
    }

    fn failed_all(&mut self, pages: &[usize], errno: i32) {
        for &page in pages {
            self.failed(page, errno);
        }
    }

    fn moved(&self) -> Moved {
        let page_bytes = PAGE_BYTES as u64;
        Moved {
            moved_bytes: self.moved_pages * page_bytes,
            copied_bytes: self.copied_pages * page_bytes,
            failed_bytes: self.failed_pages * page_bytes,
            errno: self.first_failure.map_or(0, |(_, errno)| errno),
        }
    }
}

/// A failed system call as what the placement knows of failures.
pub(super) fn tier_error(error: &sys::Error, range: &Range<usize>) -> TierError {
    TierError {
        operation: error.operation(),
        addr: range.start,
        len_bytes: range.len(),
        errno: error.errno(),
        reason: sys::errno_text(error.errno()),
    }
}

#[cfg(test)]
mod tests;
