//! Accesses per page as the kernel counted them: an optional part of a step. Traces from before it, and those of machines
//! without the kernel's profiler, have none; readers from before it skip it.

use crate::file::Defect;
use crate::proto::sentinel as wire;
use crate::{Buffer, Origin, StepTrace, Violation, PAGE_BYTES, SLOT_MIN_BYTES};
use protobuf::{EnumOrUnknown, SpecialFields};

/// Which accesses the kernel counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CountMode {
    /// Those whose translation was not in the TLB.
    TlbMiss,
    /// Every one.
    Exact,
}

impl CountMode {
    /// What the option and the statistics call it: `kernel:tlb_miss` or `kernel:exact`.
    #[must_use]
    pub fn profiler_name(self) -> &'static str {
        match self {
            CountMode::TlbMiss => "kernel:tlb_miss",
            CountMode::Exact => "kernel:exact",
        }
    }
}

/// Accesses to one page in the step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PageCount {
    /// Those that the processor reported as reads.
    pub reads: u64,
    /// Those that it reported as writes.
    pub writes: u64,
}

/// The kernel's counts of one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageCounts {
    /// What was counted.
    pub mode: CountMode,
    /// By buffer index, one count per page from the buffer's begin; `None` for a buffer without pages of its own, such as
    /// memory that Sentinel does not own.
    pub buffers: Vec<Option<Vec<PageCount>>>,
}

/// Pages that a buffer of this size has.
#[must_use]
pub fn pages_of(size_bytes: u64) -> u64 {
    size_bytes.div_ceil(PAGE_BYTES)
}

/// Whether the buffer is one that policies place and that therefore needs a count: of a page at least, and Sentinel's own.
fn is_placed(buffer: &Buffer) -> bool {
    buffer.origin != Origin::External && buffer.size_bytes >= SLOT_MIN_BYTES
}

impl StepTrace {
    /// The mode of the kernel's counts, when every buffer that policies place has them. A step with some counts missing is
    /// accounted per operation: the two kinds must not be compared with each other.
    #[must_use]
    pub fn counted(&self) -> Option<CountMode> {
        let counts = self.counts.as_ref()?;
        (self.uncounted_buffers() == 0).then_some(counts.mode)
    }

    /// Buffers that policies place and that have no counts.
    #[must_use]
    pub fn uncounted_buffers(&self) -> usize {
        let count_of = |index: usize| self.counts.as_ref()?.buffers.get(index)?.as_ref();
        let placed = self.buffers.iter().enumerate().filter(|(_, buffer)| is_placed(buffer));
        placed.filter(|&(index, _)| count_of(index).is_none()).count()
    }

    pub(crate) fn check_counts(&self, found: &mut Vec<Violation>) {
        let Some(counts) = &self.counts else { return };
        let mut say = |text: String| found.push(Violation(text));
        if counts.buffers.len() != self.buffers.len() {
            say(format!("counts: of {} buffers, but the step has {}", counts.buffers.len(), self.buffers.len()));
        }
        let mut sum = 0_u64;
        for (index, (buffer, pages)) in self.buffers.iter().zip(&counts.buffers).enumerate() {
            let Some(pages) = pages else { continue };
            if pages.len() as u64 != pages_of(buffer.size_bytes) {
                let (have, size) = (pages.len(), buffer.size_bytes);
                say(format!("counts[{index}]: {have} pages for a buffer of {size} bytes"));
            }
            let both = pages.iter().map(|page| page.reads.saturating_add(page.writes));
            sum = both.fold(sum, u64::saturating_add);
        }
        if sum > i64::MAX as u64 {
            say(format!("counts: accesses add up to more than {}", i64::MAX));
        }
    }
}

pub(crate) fn encode(counts: &PageCounts) -> wire::PageCounts {
    let counted = counts.buffers.iter().enumerate().filter_map(|(index, pages)| Some((index, pages.as_ref()?)));
    wire::PageCounts {
        mode: EnumOrUnknown::new(match counts.mode {
            CountMode::TlbMiss => wire::page_counts::Mode::TLB_MISS,
            CountMode::Exact => wire::page_counts::Mode::EXACT,
        }),
        buffers: counted
            .map(|(index, pages)| wire::BufferCounts {
                buffer: u32::try_from(index).unwrap_or(u32::MAX),
                reads: pages.iter().map(|page| page.reads).collect(),
                writes: pages.iter().map(|page| page.writes).collect(),
                special_fields: SpecialFields::new(),
            })
            .collect(),
        special_fields: SpecialFields::new(),
    }
}

/// The counts that `message` holds for a step of `buffer_count` buffers.
///
/// # Errors
/// [`Defect::UnknownValue`] for a mode or a buffer that there is not, and for reads and writes of different length.
pub(crate) fn decode(message: &wire::PageCounts, buffer_count: usize) -> Result<PageCounts, Defect> {
    let unknown = |field: String, value: i32, accepted: &'static str| Defect::UnknownValue { field, value, accepted };
    let mode = match message.mode.enum_value() {
        Ok(wire::page_counts::Mode::TLB_MISS) => CountMode::TlbMiss,
        Ok(wire::page_counts::Mode::EXACT) => CountMode::Exact,
        Err(value) => return Err(unknown("counts.mode".to_owned(), value, "0 (TLB_MISS), 1 (EXACT)")),
    };
    let mut buffers = vec![None; buffer_count];
    for (at, record) in message.buffers.iter().enumerate() {
        let number = i32::try_from(record.buffer).unwrap_or(i32::MAX);
        let field = format!("counts.buffers[{at}].buffer");
        let Some(slot @ None) = buffers.get_mut(record.buffer as usize) else {
            return Err(unknown(field, number, "buffers of the step, each at most once"));
        };
        if record.reads.len() != record.writes.len() {
            let value = i32::try_from(record.writes.len()).unwrap_or(i32::MAX);
            return Err(unknown(format!("counts.buffers[{at}].writes.len"), value, "as many as reads"));
        }
        let pages = record.reads.iter().zip(&record.writes);
        *slot = Some(pages.map(|(&reads, &writes)| PageCount { reads, writes }).collect());
    }
    Ok(PageCounts { mode, buffers })
}
