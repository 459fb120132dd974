//! The step that is profiled or follows a plan, one at a time, and how every operation sees it without a lock.

use crate::managed::Managed;
use crate::recorder::Recorder;
use arc_swap::{ArcSwapOption, Cache};
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicU8, Ordering};
use std::sync::Arc;

/// The one step at a time that is profiled or follows a plan.
#[derive(Debug)]
pub struct Active {
    /// TensorFlow's number of the step; shared by the parts of a graph on several devices.
    pub step_id: i64,
    /// Sentinel's number of the step, never 0.
    pub tag: u32,
    /// Changes while operations of it begin.
    pub ops: AtomicU64,
    /// What is done with it.
    pub mode: Mode,
}

impl Active {
    /// Nothing is left of a recording: a thread that remembers the step may outlive it by long.
    pub fn forget(&self) {
        if let Mode::Profiling(recorder) = &self.mode {
            recorder.abandon();
        }
    }
}

/// What is done with the active step.
#[derive(Debug)]
pub enum Mode {
    /// It is recorded.
    Profiling(Box<Recorder>),
    /// It follows a plan.
    Managed(Arc<Managed>),
}

/// No step is active.
const NOTHING: u8 = 0;
/// One is recorded.
const PROFILED: u8 = 1;
/// One follows a plan.
const MANAGED: u8 = 2;

/// The latest active step of one runtime, as a thread has seen it.
type Seen = Cache<Arc<ArcSwapOption<Active>>, Option<Arc<Active>>>;

thread_local! {
    // In a box, so that what is taken and put back is one word: whole lines that were just written in parts are slow to read.
    static SEEN: Cell<Option<Box<Seen>>> = const { Cell::new(None) };
}

/// Where a runtime keeps its active step.
///
/// Whoever begins or ends a step holds the lock of the steps. The operations of a step begin after it and end before it ends;
/// operations of other steps may see it or not.
#[derive(Debug, Default)]
pub struct ActiveStep {
    step: Arc<ArcSwapOption<Active>>,
    /// What there is, for those that only want to know that it is nothing.
    kind: AtomicU8,
}

impl ActiveStep {
    /// The step is active from now on.
    pub fn begin(&self, active: Active) {
        let kind = if matches!(active.mode, Mode::Profiling(_)) { PROFILED } else { MANAGED };
        self.step.store(Some(Arc::new(active)));
        self.kind.store(kind, Ordering::SeqCst);
    }

    /// No step is active from now on; the one that was.
    pub fn end(&self) -> Option<Arc<Active>> {
        self.kind.store(NOTHING, Ordering::SeqCst);
        self.step.swap(None)
    }

    /// The active step.
    #[must_use]
    pub fn get(&self) -> Option<Arc<Active>> {
        self.step.load_full()
    }

    /// Whether a step is recorded. One relaxed load.
    #[must_use]
    pub fn profiles(&self) -> bool {
        self.kind.load(Ordering::Relaxed) == PROFILED
    }

    /// Runs `call` with the active step, from what the thread remembers of it. One relaxed load where there is none.
    #[inline]
    pub fn with<R>(&self, call: impl FnOnce(Option<&Active>) -> R) -> R {
        if self.kind.load(Ordering::Relaxed) == NOTHING {
            return call(None);
        }
        // A thread that is about to end remembers nothing, and neither does whoever is in here already.
        let remembered = SEEN.try_with(Cell::take).ok().flatten();
        let own = remembered.filter(|seen| std::ptr::eq(seen.arc_swap(), &*self.step));
        let mut seen = own.unwrap_or_else(|| Box::new(Cache::new(Arc::clone(&self.step))));
        let result = call(seen.load().as_deref());
        // Where this is refused, the next call begins anew.
        let _ = SEEN.try_with(|remembered| remembered.set(Some(seen)));
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded(tag: u32) -> Active {
        Active { step_id: 7, tag, ops: AtomicU64::new(0), mode: Mode::Profiling(Box::default()) }
    }

    fn tag_of(steps: &ActiveStep) -> Option<u32> {
        steps.with(|active| active.map(|active| active.tag))
    }

    #[test]
    fn every_thread_sees_the_step_from_its_begin_to_its_end() {
        let steps = ActiveStep::default();
        for tag in 1..4 {
            assert_eq!((tag_of(&steps), steps.profiles(), steps.get().is_none()), (None, false, true));
            steps.begin(recorded(tag));
            let others = std::thread::scope(|scope| scope.spawn(|| tag_of(&steps)).join().expect("no thread fails"));
            assert_eq!((tag_of(&steps), others, steps.profiles()), (Some(tag), Some(tag), true));
            assert_eq!(steps.end().map(|active| active.tag), Some(tag));
        }
        assert!(steps.end().is_none());
    }

    #[test]
    fn a_call_within_a_call_and_a_call_for_other_steps_see_theirs() {
        let (steps, others) = (ActiveStep::default(), ActiveStep::default());
        steps.begin(recorded(1));
        others.begin(recorded(2));
        for _ in 0..3 {
            let seen = steps.with(|active| (active.map(|active| active.tag), tag_of(&steps), tag_of(&others)));
            assert_eq!(seen, (Some(1), Some(1), Some(2)));
            assert_eq!((tag_of(&steps), tag_of(&others)), (Some(1), Some(2)));
        }
    }

    #[test]
    fn a_thread_that_ends_keeps_no_step() {
        let steps = ActiveStep::default();
        steps.begin(recorded(1));
        std::thread::scope(|scope| {
            // Unlike the scope's end, `join` waits for what a thread does when it ends.
            assert_eq!(scope.spawn(|| tag_of(&steps)).join().expect("no thread fails"), Some(1));
        });
        let step = steps.end().expect("it is active");
        assert_eq!(Arc::strong_count(&step), 1);
    }
}
