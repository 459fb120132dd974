//! A partly filled stretch of sections: what is left to place, over which skyline, and what follows from that.

use crate::pack::strip::{loads, Rect};
use std::cmp::Reverse;
use std::ops::Range;

/// Rectangles that wait for a place in consecutive sections.
#[derive(Clone)]
pub(super) struct Part {
    /// Number of the first section.
    first: usize,
    /// By section: below this nothing more is placed.
    floors: Vec<u64>,
    /// By section: sum of the sizes of the waiting rectangles.
    waiting: Vec<u64>,
    /// The waiting rectangles.
    members: Vec<usize>,
    /// By member: the lowest offset that the floors leave it.
    lows: Vec<u64>,
    /// Sections, counted from `first`, whose floors or rectangles have changed since the last `settle`.
    changed: Range<usize>,
}

/// Why a part cannot be completed below the cap: at least this height is needed.
pub(super) struct Needs(pub(super) u64);

/// What can happen next in a part, all cases together.
pub(super) struct Choice {
    /// The section that is decided, counted from the part's first.
    section: usize,
    /// Offset of whichever candidate comes first.
    pub(super) floor: u64,
    /// Positions in `members` of those that can be lowest in the section and lie on its floor.
    pub(super) candidates: Vec<usize>,
    /// The next floor at which something can lie when no candidate lies on this one, and the height which that needs.
    next: Option<(u64, u64)>,
}

impl Part {
    /// Everything waits.
    pub(super) fn whole(rects: &[Rect], sections: usize) -> Part {
        Part {
            first: 0,
            floors: vec![0; sections],
            waiting: loads(rects, sections),
            members: (0..rects.len()).collect(),
            lows: vec![0; rects.len()],
            changed: 0..sections,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// A measure of the work that one look at all of the part costs.
    pub(super) fn size(&self) -> u64 {
        (self.members.len() + self.floors.len()) as u64
    }

    pub(super) fn member(&self, position: usize) -> usize {
        self.members[position]
    }

    fn span(&self, rects: &[Rect], member: usize) -> Range<usize> {
        rects[member].begin - self.first..rects[member].end - self.first
    }

    /// Lifts floors and lowest offsets to where they follow from each other: a section's floor to the lowest offset of
    /// what waits there, an offset to the highest floor under its rectangle. Adds the work done to `work`.
    pub(super) fn settle(&mut self, rects: &[Rect], cap: u64, work: &mut u64) -> Result<(), Needs> {
        let mut lowest = vec![u64::MAX; self.floors.len()];
        while !self.changed.is_empty() {
            let changed = self.changed.clone();
            let mut reached = changed.clone();
            *work += self.members.len() as u64 * 2;
            for at in 0..self.members.len() {
                let rect = rects[self.members[at]];
                let span = self.span(rects, self.members[at]);
                let both = common(&span, &changed);
                if both.is_empty() {
                    continue;
                }
                *work += both.len() as u64;
                let low = self.floors[both].iter().copied().max().unwrap_or(0);
                if low > self.lows[at] {
                    if low + rect.size > cap {
                        return Err(Needs(low + rect.size));
                    }
                    self.lows[at] = low;
                    reached = reached.start.min(span.start)..reached.end.max(span.end);
                }
            }
            lowest[reached.clone()].fill(u64::MAX);
            for (at, &member) in self.members.iter().enumerate() {
                let low = self.lows[at];
                let both = common(&self.span(rects, member), &reached);
                *work += both.len() as u64;
                for section in &mut lowest[both] {
                    *section = low.min(*section);
                }
            }
            self.changed = self.lift(reached, &lowest, cap)?;
        }
        Ok(())
    }

    /// Raises floors in `sections` to `lowest`; which have changed.
    fn lift(&mut self, sections: Range<usize>, lowest: &[u64], cap: u64) -> Result<Range<usize>, Needs> {
        let mut changed = 0..0;
        for section in sections {
            if self.waiting[section] == 0 {
                continue;
            }
            if lowest[section] > self.floors[section] {
                self.floors[section] = lowest[section];
                let start = if changed.is_empty() { section } else { changed.start };
                changed = start..section + 1;
            }
            let height = self.floors[section] + self.waiting[section];
            if height > cap {
                return Err(Needs(height));
            }
        }
        Ok(changed)
    }

    /// The part as independent parts, smallest last; `None` when it is one.
    pub(super) fn split(&self, rects: &[Rect]) -> Option<Vec<Part>> {
        let sections = self.floors.len();
        let mut reach = vec![0; sections];
        for &member in &self.members {
            let span = self.span(rects, member);
            reach[span.start] = span.end.max(reach[span.start]);
        }
        let mut runs: Vec<Range<usize>> = Vec::new();
        for (section, &reach) in reach.iter().enumerate() {
            match runs.last_mut() {
                Some(run) if section < run.end => run.end = run.end.max(reach),
                _ if reach > 0 => runs.push(section..reach),
                _ => {}
            }
        }
        if runs.len() == 1 && runs[0] == (0..sections) {
            return None;
        }
        let mut run_of = vec![0; sections];
        for (number, run) in runs.iter().enumerate() {
            run_of[run.clone()].fill(number);
        }
        let mut parts: Vec<Part> = runs.into_iter().map(|run| self.empty_part(run)).collect();
        for (&member, &low) in self.members.iter().zip(&self.lows) {
            let part = &mut parts[run_of[rects[member].begin - self.first]];
            part.members.push(member);
            part.lows.push(low);
        }
        parts.sort_by_key(|part| Reverse(part.members.len()));
        Some(parts)
    }

    fn empty_part(&self, run: Range<usize>) -> Part {
        Part {
            first: self.first + run.start,
            floors: self.floors[run.clone()].to_vec(),
            waiting: self.waiting[run].to_vec(),
            members: Vec::new(),
            lows: Vec::new(),
            changed: 0..0,
        }
    }

    /// A number for what is left to do: parts of equal numbers are equal, but for chance (one in 2^64 per pair).
    pub(super) fn key(&self) -> u64 {
        let members = self.members.iter().map(|&member| mix(member as u64, 1));
        let floors = self.floors.iter().enumerate().map(|(at, &floor)| mix((self.first + at) as u64, floor + 2));
        members.chain(floors).fold(0, |key, part| key ^ part)
    }

    /// The section to decide next: in the bottom of a valley, where the fewest cases arise.
    ///
    /// A valley is a run of equal floors between higher ones. What waits on its floor lies wholly within it, so that
    /// placing it wastes nothing.
    pub(super) fn choose(&self, rects: &[Rect], cap: u64) -> Option<Choice> {
        let valleys = self.valleys();
        let mut begins = vec![0_u32; self.floors.len() + 1];
        let mut ends = begins.clone();
        for (at, &member) in self.members.iter().enumerate() {
            let span = self.span(rects, member);
            // All of it lies in the valley of its first section: beyond the valley's ends, floors are above its offset.
            if self.lows[at] == self.floors[span.start] && valleys[span.start] {
                begins[span.start] += 1;
                ends[span.end] += 1;
            }
        }
        let mut candidates = 0;
        let mut best: Option<((u32, u64, u64), usize)> = None;
        for section in 0..self.floors.len() {
            candidates = candidates + begins[section] - ends[section];
            if !valleys[section] {
                continue;
            }
            let slack = cap - self.floors[section] - self.waiting[section];
            let rank = (candidates * 2 + u32::from(slack > 0), slack, self.floors[section]);
            if best.is_none_or(|(least, _)| rank < least) {
                best = Some((rank, section));
            }
        }
        best.map(|(_, section)| self.choice(rects, section))
    }

    /// By section: whether it is in a valley.
    fn valleys(&self) -> Vec<bool> {
        let sections = self.floors.len();
        let mut valleys = vec![false; sections];
        let mut begin = 0;
        while begin < sections {
            let floor = self.floors[begin];
            let end = (begin..sections).find(|&section| self.floors[section] != floor).unwrap_or(sections);
            let walled = |section: Option<usize>| section.is_none_or(|section| self.floors[section] > floor);
            if walled(begin.checked_sub(1)) && walled((end < sections).then_some(end)) {
                valleys[begin..end].fill(true);
            }
            begin = end;
        }
        valleys
    }

    fn choice(&self, rects: &[Rect], section: usize) -> Choice {
        let floor = self.floors[section];
        let mut candidates = Vec::new();
        let mut hull = section..section;
        let mut next = u64::MAX;
        for (at, &member) in self.members.iter().enumerate() {
            let span = self.span(rects, member);
            if !span.contains(&section) {
                continue;
            }
            if self.lows[at] == floor {
                candidates.push(at);
                hull = hull.start.min(span.start)..hull.end.max(span.end);
            } else {
                next = next.min(self.lows[at]);
            }
        }
        // A candidate that is not on this floor lies on one that comes first and does not reach into the section.
        for (at, &member) in self.members.iter().enumerate() {
            let span = self.span(rects, member);
            if !span.contains(&section) && !common(&span, &hull).is_empty() {
                next = next.min(self.lows[at] + rects[member].size);
            }
        }
        let next = (next < u64::MAX).then(|| (next, next + self.waiting[section]));
        Choice { section, floor, candidates, next }
    }

    /// The part after the member at `position` was put on the floor.
    pub(super) fn with_placed(&self, rects: &[Rect], position: usize) -> Part {
        let member = self.members[position];
        let span = self.span(rects, member);
        let mut part = self.clone();
        part.members.remove(position);
        part.lows.remove(position);
        for section in span.clone() {
            part.floors[section] = self.lows[position] + rects[member].size;
            part.waiting[section] -= rects[member].size;
        }
        part.changed = span;
        part
    }

    /// The part when nothing lies on the floor of the choice's section.
    pub(super) fn with_raised(&self, choice: &Choice, cap: u64) -> Result<Part, Needs> {
        let Some((next, height)) = choice.next else { return Err(Needs(u64::MAX)) };
        if height > cap {
            return Err(Needs(height));
        }
        let mut part = self.clone();
        part.floors[choice.section] = next;
        part.changed = choice.section..choice.section + 1;
        Ok(part)
    }
}

fn common(a: &Range<usize>, b: &Range<usize>) -> Range<usize> {
    let start = a.start.max(b.start);
    start..a.end.min(b.end).max(start)
}

/// A well-spread number for a pair.
pub(super) fn mix(a: u64, b: u64) -> u64 {
    let mut x = a.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ b.wrapping_mul(0xC2B2_AE3D_27D4_EB4F);
    for multiplier in [0xD6E8_FEB8_6659_FD93, 0xA076_1D64_78BD_642F] {
        x = (x ^ (x >> 32)).wrapping_mul(multiplier);
    }
    x ^ (x >> 32)
}
