//! Accesses per page in the profiled step, counted by the kernel where it can.
//!
//! Only a profiled step comes here. While it runs, each of its tensors has pages of its own; their counts are fetched when a
//! tensor is born and when it dies, so that tensors that follow each other in the same pages are told apart.

use crate::options::Profiler;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use sys::profiler::{Device, Info, Mode, PageCount, ProfilerError};
use trace::{page_ceil, CountMode, PageCounts, PAGE_BYTES};

/// Room for tensors beyond what the heaps have held so far, besides as much again.
const ROOM_BYTES: u64 = 1 << 30;

/// What is needed of the kernel.
pub trait PageCalls: Send + Sync {
    /// Forgets ranges and counts, see [`Device::reset`].
    ///
    /// # Errors
    /// When the kernel refuses.
    fn reset(&self) -> Result<(), ProfilerError>;

    /// Adds a range, see [`Device::add_range`].
    ///
    /// # Errors
    /// When the kernel refuses.
    fn add_range(&self, range: &Range<usize>) -> Result<(), ProfilerError>;

    /// Begins counting, see [`Device::start`].
    ///
    /// # Errors
    /// When the kernel refuses.
    fn start(&self, mode: Mode) -> Result<(), ProfilerError>;

    /// Ends counting, see [`Device::stop`].
    ///
    /// # Errors
    /// When the kernel refuses.
    fn stop(&self) -> Result<(), ProfilerError>;

    /// Empties the TLBs, see [`Device::flush`].
    ///
    /// # Errors
    /// When the kernel refuses.
    fn flush(&self) -> Result<(), ProfilerError>;

    /// Counts so far, see [`Device::read`].
    ///
    /// # Errors
    /// When the kernel refuses.
    fn read(&self, range: &Range<usize>) -> Result<Vec<PageCount>, ProfilerError>;

    /// Bytes in huge pages, see [`sys::huge::huge_bytes`].
    ///
    /// # Errors
    /// When the kernel does not tell.
    fn huge_bytes(&self, ranges: &[Range<usize>]) -> Result<u64, sys::Error>;

    /// Makes huge pages again, see [`sys::huge::collapse`].
    ///
    /// # Errors
    /// When the kernel does not tell where.
    fn collapse(&self, ranges: &[Range<usize>], most_bytes: u64) -> Result<sys::huge::Collapsed, sys::Error>;
}

impl PageCalls for Device {
    fn reset(&self) -> Result<(), ProfilerError> {
        Device::reset(self)
    }

    fn add_range(&self, range: &Range<usize>) -> Result<(), ProfilerError> {
        Device::add_range(self, range)
    }

    fn start(&self, mode: Mode) -> Result<(), ProfilerError> {
        Device::start(self, mode)
    }

    fn stop(&self) -> Result<(), ProfilerError> {
        Device::stop(self)
    }

    fn flush(&self) -> Result<(), ProfilerError> {
        Device::flush(self)
    }

    fn read(&self, range: &Range<usize>) -> Result<Vec<PageCount>, ProfilerError> {
        Device::read(self, range)
    }

    fn huge_bytes(&self, ranges: &[Range<usize>]) -> Result<u64, sys::Error> {
        sys::huge::huge_bytes(ranges)
    }

    fn collapse(&self, ranges: &[Range<usize>], most_bytes: u64) -> Result<sys::huge::Collapsed, sys::Error> {
        sys::huge::collapse(ranges, most_bytes)
    }
}

/// The kernel's profiler, ready for steps.
#[derive(Clone)]
pub struct PageProfiler {
    calls: Arc<dyn PageCalls>,
    mode: Mode,
    max_pages: u64,
    flushes: bool,
}

impl std::fmt::Debug for PageProfiler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PageProfiler").field("mode", &self.mode).finish_non_exhaustive()
    }
}

impl PageProfiler {
    /// A profiler over these calls, of which `info` says what they can do.
    #[must_use]
    pub fn new(calls: Arc<dyn PageCalls>, mode: Mode, info: &Info) -> PageProfiler {
        let flushes = mode == Mode::TlbMiss && info.flush;
        PageProfiler { calls, mode, max_pages: info.max_pages, flushes }
    }

    /// What the option asks for: `None` for accounting per operation.
    ///
    /// # Errors
    /// When the option asks for the kernel's profiler and there is none, or one without the mode.
    pub fn choose(wanted: Profiler, opened: impl FnOnce() -> Opened) -> Result<Option<PageProfiler>, ProfilerError> {
        let (mode, required) = match wanted {
            Profiler::Op => return Ok(None),
            Profiler::Auto => (Mode::TlbMiss, false),
            Profiler::Kernel(CountMode::TlbMiss) => (Mode::TlbMiss, true),
            Profiler::Kernel(CountMode::Exact) => (Mode::Exact, true),
        };
        match opened().and_then(|(calls, info)| fits(&info, mode).map(|()| (calls, info))) {
            Ok((calls, info)) => Ok(Some(PageProfiler::new(calls, mode, &info))),
            Err(error) if required => Err(error),
            Err(error) => {
                log::info!("sentinel: profiler = auto: {error}; accesses are counted per operation");
                Ok(None)
            }
        }
    }

    /// Begins to count in these ranges of whole pages.
    ///
    /// # Errors
    /// When the kernel refuses; nothing is counted then.
    pub fn begin(&self, ranges: Vec<Range<usize>>) -> Result<Counting, ProfilerError> {
        let calls = &self.calls;
        let huge_before = calls.huge_bytes(&ranges).unwrap_or(0);
        let started = ranges.iter().try_for_each(|range| calls.add_range(range)).and_then(|()| calls.start(self.mode));
        if let Err(error) = started {
            // Ranges that were added must not be in the way of the next step. The first refusal is the one to tell.
            drop(calls.reset());
            return Err(error);
        }
        let mode = match self.mode {
            Mode::TlbMiss => CountMode::TlbMiss,
            Mode::Exact => CountMode::Exact,
        };
        let (calls, counts, begins) = (Arc::clone(calls), Vec::new(), HashMap::new());
        Ok(Counting { calls, ranges, mode, flushes: self.flushes, begins, counts, huge_before, failed: None })
    }

    /// Bytes that may be added to what heaps of `used_bytes` have held, so that tensors of the step lie in a range.
    #[must_use]
    pub fn room_bytes(&self, used_bytes: u64) -> u64 {
        let most = self.max_pages.saturating_mul(PAGE_BYTES).saturating_sub(used_bytes);
        used_bytes.saturating_add(ROOM_BYTES).min(most) / PAGE_BYTES * PAGE_BYTES
    }
}

/// The calls of a kernel's profiler and what it can do.
pub type Opened = Result<(Arc<dyn PageCalls>, Info), ProfilerError>;

/// Opens the profiler of this machine.
///
/// # Errors
/// As [`Device::open`].
pub fn open_device() -> Opened {
    let (device, info) = Device::open(std::path::Path::new(sys::profiler::DEVICE))?;
    Ok((Arc::new(device), info))
}

fn fits(info: &Info, mode: Mode) -> Result<(), ProfilerError> {
    if info.takes(mode) {
        return Ok(());
    }
    let modes: Vec<&str> =
        [Mode::TlbMiss, Mode::Exact].into_iter().filter(|&mode| info.takes(mode)).map(Mode::name).collect();
    Err(ProfilerError::Unfit {
        path: sys::profiler::DEVICE.to_owned(),
        field: "mode",
        value: mode.name().to_owned(),
        accepted: if modes.is_empty() { "none on this kernel".to_owned() } else { modes.join(" and ") },
    })
}

/// A step that is being counted.
pub struct Counting {
    calls: Arc<dyn PageCalls>,
    ranges: Vec<Range<usize>>,
    mode: CountMode,
    /// Whether operations begin with empty TLBs.
    flushes: bool,
    /// Counts of the pages when the buffer got them, by buffer index; none for one that was there before.
    begins: HashMap<u32, Vec<PageCount>>,
    /// Counts so far by buffer index.
    counts: Vec<Option<Vec<trace::PageCount>>>,
    huge_before: u64,
    /// The first refusal, after which counts are incomplete.
    failed: Option<ProfilerError>,
}

impl std::fmt::Debug for Counting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Counting").field("ranges", &self.ranges).field("mode", &self.mode).finish_non_exhaustive()
    }
}

impl Counting {
    /// An operation begins. What the one before has left in the TLB is a matter of the processor, and of what else ran on
    /// it; without that, every operation counts once at least for each page that it touches.
    pub fn op_begins(&mut self) {
        if !self.flushes {
            return;
        }
        if let Err(error) = self.calls.flush() {
            self.failed.get_or_insert(error);
        }
    }

    /// The buffer's pages begin at `addr`, and what was counted in them before is not its own.
    pub fn born(&mut self, index: u32, addr: usize, size_bytes: u64) {
        if let Some(counts) = self.read(addr, size_bytes) {
            self.begins.insert(index, counts);
        }
    }

    /// The buffer is about to die, or the step is over.
    pub fn died(&mut self, index: u32, addr: usize, size_bytes: u64) {
        let Some(now) = self.read(addr, size_bytes) else { return };
        let before = self.begins.remove(&index).unwrap_or_else(|| vec![PageCount::default(); now.len()]);
        let slot = index as usize;
        if self.counts.len() <= slot {
            self.counts.resize(slot + 1, None);
        }
        // Temporaries that follow each other are one buffer, so counts add up.
        let sums = self.counts[slot].get_or_insert_with(|| vec![trace::PageCount::default(); now.len()]);
        for (sum, (now, before)) in sums.iter_mut().zip(now.iter().zip(before)) {
            sum.reads += now.reads.saturating_sub(before.reads);
            sum.writes += now.writes.saturating_sub(before.writes);
        }
    }

    /// `None` for a buffer that has no pages of its own in a range.
    fn read(&mut self, addr: usize, size_bytes: u64) -> Option<Vec<PageCount>> {
        let len = usize::try_from(page_ceil(size_bytes)).ok()?;
        let pages = addr..addr.checked_add(len)?;
        let own = addr as u64 % PAGE_BYTES == 0 && !pages.is_empty();
        if !own || !self.ranges.iter().any(|range| range.start <= pages.start && pages.end <= range.end) {
            return None;
        }
        match self.calls.read(&pages) {
            Ok(counts) => Some(counts),
            Err(error) => {
                self.failed.get_or_insert(error);
                None
            }
        }
    }

    /// Ends counting, so that what follows costs nothing.
    pub fn stop(&mut self) {
        if let Err(error) = self.calls.stop() {
            self.failed.get_or_insert(error);
        }
    }

    /// The counts of a step of `buffer_count` buffers. The kernel forgets them, and the first refusal is told.
    pub fn finish(mut self, buffer_count: usize) -> (PageCounts, Split, Option<ProfilerError>) {
        if let Err(error) = self.calls.reset() {
            self.failed.get_or_insert(error);
        }
        self.counts.resize(buffer_count, None);
        let split = Split { calls: self.calls, ranges: self.ranges, huge_before: self.huge_before };
        (PageCounts { mode: self.mode, buffers: self.counts }, split, self.failed)
    }
}

/// Huge pages that counting has split.
pub struct Split {
    calls: Arc<dyn PageCalls>,
    ranges: Vec<Range<usize>>,
    huge_before: u64,
}

impl Split {
    /// Makes as many huge pages again as there were.
    pub fn collapse(&self) {
        if self.huge_before == 0 {
            return;
        }
        let now = self.calls.huge_bytes(&self.ranges).unwrap_or(self.huge_before);
        match self.calls.collapse(&self.ranges, self.huge_before.saturating_sub(now)) {
            Ok(done) => log::info!(
                "sentinel: {} of {} bytes in huge pages were split to be counted; {} are huge again{}",
                self.huge_before.saturating_sub(now),
                self.huge_before,
                done.bytes,
                if done.later { ", the kernel does the others by and by" } else { "" }
            ),
            Err(error) => log::info!("sentinel: huge pages that were split stay so: {error}"),
        }
    }
}

#[cfg(test)]
mod tests;
