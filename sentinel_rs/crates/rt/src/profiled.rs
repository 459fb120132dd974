//! The profiled step under the kernel's profiler: which memory is counted, and pages for each tensor alone.

use crate::recorder::Recorder;
use crate::runtime::Runtime;
use plan::Policy;
use trace::{CountMode, StepTrace, Tier};

impl Runtime {
    /// Where the tensors of a profiled step live.
    pub(crate) fn profiled_tier(&self) -> Tier {
        if self.options.policy == Policy::FastOnly {
            Tier::FAST
        } else {
            Tier::SLOW
        }
    }

    /// A recorder for the step that begins; the kernel counts for it from now on, if it can. A refusal costs the counts
    /// and never the step.
    pub(crate) fn new_recorder(&self) -> Recorder {
        let Some(profiler) = &self.page_profiler else { return Recorder::default() };
        let room = |used_bytes: u64| profiler.room_bytes(used_bytes);
        match profiler.begin(self.memory.ranges_in_use(self.profiled_tier(), room)) {
            Ok(counting) => Recorder::counted(counting),
            Err(error) => {
                self.counters.failed(error.errno());
                log::warn!("sentinel: {error}; accesses of this step are counted per operation");
                Recorder::default()
            }
        }
    }

    /// Notes which profiler made the profile that plans are made from.
    pub(crate) fn note_profiler(&self, trace: &StepTrace, refusal: Option<&sys::profiler::ProfilerError>) {
        let counted = trace.counted();
        if trace.counts.is_some() && counted.is_none() {
            let missing = trace.uncounted_buffers();
            let why = refusal.map_or_else(|| "they lie outside of what was counted".to_owned(), ToString::to_string);
            log::warn!("sentinel: {missing} tensors have no page counts ({why}); accesses are counted per operation");
        }
        if let Some(error) = refusal {
            self.counters.failed(error.errno());
        }
        self.lock_steps().profiler = counted.map_or("op", CountMode::profiler_name);
    }
}
