//! The tree of cases, walked in depth on a stack of its own, so that large problems cannot exhaust the thread's.

use super::part::{Choice, Needs, Part};
use crate::pack::strip::Rect;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::time::Instant;

/// Failed parts that are remembered at most: about 70 MB.
const FAILED_MAX: usize = 2 << 20;

/// Steps between looks at the clock.
const STEPS_PER_LOOK: u64 = 256;

/// How a walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// A packing within the cap is in `offsets`.
    Packed,
    /// There is none below this height, which is above the cap.
    Needs(u64),
    /// The work or the time ran out.
    Stopped,
}

/// A walk over one problem with one cap; what failed is remembered from walk to walk.
pub(super) struct Tree<'a> {
    rects: &'a [Rect],
    sections: usize,
    /// Height that must not be exceeded.
    pub(super) cap: u64,
    /// By rectangle: larger comes first.
    pub(super) ranks: Vec<f64>,
    /// By rectangle: where it was put last.
    pub(super) offsets: Vec<u64>,
    /// Height needed by parts that failed, by their key.
    failed: HashMap<u64, u64, BuildHasherDefault<Spread>>,
    frames: Vec<Frame>,
    /// Work done, in elements looked at.
    pub(super) work: u64,
    steps: u64,
}

enum Frame {
    /// One of the cases must succeed.
    Cases(Box<Cases>),
    /// All parts must succeed; those left to do.
    Parts(Vec<Part>),
}

struct Cases {
    part: Part,
    key: u64,
    choice: Choice,
    /// How many of the candidates have been tried.
    tried: usize,
    /// Whether the floor has been raised.
    raised: bool,
    /// Least height that any of the failed cases needs.
    needs: u64,
}

/// What a step says to the frame above it.
enum Said {
    Yes,
    No(u64),
    Open(Part),
}

impl<'a> Tree<'a> {
    pub(super) fn new(rects: &'a [Rect], sections: usize) -> Tree<'a> {
        Tree {
            rects,
            sections,
            cap: 0,
            ranks: vec![0.0; rects.len()],
            offsets: vec![0; rects.len()],
            failed: HashMap::default(),
            frames: Vec::new(),
            work: 0,
            steps: 0,
        }
    }

    /// Looks for a packing within the cap until `work_max` more work is done or `deadline` has passed.
    pub(super) fn walk(&mut self, work_max: u64, deadline: Option<Instant>) -> Outcome {
        let stop_at = self.work.saturating_add(work_max);
        self.frames.clear();
        let mut said = Said::Open(Part::whole(self.rects, self.sections));
        loop {
            self.steps += 1;
            let late = |deadline| self.steps % STEPS_PER_LOOK == 0 && Instant::now() >= deadline;
            if self.work > stop_at || deadline.is_some_and(late) {
                return Outcome::Stopped;
            }
            said = match said {
                Said::Open(part) => self.open(part),
                answer => match self.frames.pop() {
                    Some(frame) => self.close(frame, answer),
                    None if matches!(answer, Said::Yes) => return Outcome::Packed,
                    None => return Outcome::Needs(if let Said::No(needs) = answer { needs } else { u64::MAX }),
                },
            };
        }
    }

    /// Looks at a part: done, hopeless, or a frame that decides it.
    fn open(&mut self, mut part: Part) -> Said {
        if part.is_empty() {
            return Said::Yes;
        }
        self.work += part.size() * 4;
        if let Err(Needs(height)) = part.settle(self.rects, self.cap, &mut self.work) {
            return Said::No(height);
        }
        if let Some(parts) = part.split(self.rects) {
            return self.close(Frame::Parts(parts), Said::Yes);
        }
        let key = part.key();
        if let Some(&needs) = self.failed.get(&key).filter(|&&needs| needs > self.cap) {
            return Said::No(needs);
        }
        let Some(mut choice) = part.choose(self.rects, self.cap) else { return Said::No(u64::MAX) };
        let rank = |at: usize| self.ranks[part.member(at)];
        choice.candidates.sort_by(|&a, &b| rank(b).total_cmp(&rank(a)).then(a.cmp(&b)));
        choice.candidates.dedup_by_key(|at| self.rects[part.member(*at)]);
        let cases = Cases { part, key, choice, tried: 0, raised: false, needs: u64::MAX };
        self.next_case(Box::new(cases))
    }

    /// Hands the answer of what a frame waited for to the frame.
    fn close(&mut self, frame: Frame, answer: Said) -> Said {
        match (frame, answer) {
            (Frame::Cases(mut cases), Said::No(needs)) => {
                cases.needs = cases.needs.min(needs);
                self.next_case(cases)
            }
            (Frame::Parts(mut parts), Said::Yes) => {
                // The smallest comes first and is at the end, where taking it out is cheap.
                let Some(part) = parts.pop() else { return Said::Yes };
                self.frames.push(Frame::Parts(parts));
                Said::Open(part)
            }
            (_, answer) => answer,
        }
    }

    fn next_case(&mut self, mut cases: Box<Cases>) -> Said {
        if let Some(&at) = cases.choice.candidates.get(cases.tried) {
            self.offsets[cases.part.member(at)] = cases.choice.floor;
            let next = cases.part.with_placed(self.rects, at);
            cases.tried += 1;
            self.frames.push(Frame::Cases(cases));
            return Said::Open(next);
        }
        if !cases.raised {
            cases.raised = true;
            match cases.part.with_raised(&cases.choice, self.cap) {
                Ok(next) => {
                    self.frames.push(Frame::Cases(cases));
                    return Said::Open(next);
                }
                Err(Needs(height)) => cases.needs = cases.needs.min(height),
            }
        }
        if self.failed.len() < FAILED_MAX {
            self.failed.insert(cases.key, cases.needs);
        }
        Said::No(cases.needs)
    }
}

/// Keys are well spread already.
#[derive(Default)]
struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
}
