//! Which units are in fast memory when: births, prefetches and evictions against a conservative account.
//!
//! A *stay* is a run of layers during which a unit counts as fast: from its birth, or from the layer at which its
//! promotion is issued, to the layer at which its eviction is due, or to its death. Nothing stays unless there is room in
//! every layer of the stay, so the plan never exceeds the budget, however early promotions are done.
//!
//! Decisions are taken in the order of time: in each interval first the units born in it, then the prefetch for the next
//! interval, the most accessed first. What finds no room stays in slow memory, and is asked for again when the next
//! interval is prepared. Beyond the paper, which leaves both to the running system: a prefetch that has no room when its
//! interval begins is issued at the first layer of that interval from which there is room; and an eviction that cannot be
//! done before the unit would be fetched again is not made.

use super::intervals::Cuts;
use super::ledger::{move_ns, Ledger};
use super::units::Span;
use crate::{Machine, Move};
use profile::LayerFacts;
use std::cmp::Reverse;
use trace::Tier;

/// The outcome.
pub(super) struct Schedule {
    /// Per unit.
    pub(super) birth_tiers: Vec<Tier>,
    /// Per interval, in the order in which they are issued.
    pub(super) moves_by_interval: Vec<Vec<Move>>,
}

/// Makes the schedule.
pub(super) fn schedule(layers: &[LayerFacts], spans: &[Span], cuts: &Cuts, space: u64, machine: &Machine) -> Schedule {
    let ledger = Ledger::new(layers, cuts, space);
    let mut scheduler = Scheduler { spans, cuts, ledger, stays: vec![Vec::new(); spans.len()], machine };
    let by_use = UsesByInterval::new(spans, cuts);
    scheduler.keep_across_the_edge(&by_use.used[0]);
    for interval in 0..cuts.count() {
        scheduler.admit_births(&by_use.born[interval as usize]);
        if interval + 1 < cuts.count() {
            scheduler.prefetch(interval + 1, &by_use.used[interval as usize + 1]);
        }
    }
    scheduler.finish()
}

/// Which units each interval makes and uses.
struct UsesByInterval {
    /// Units of the arena by the interval of their birth: earlier layers first, then the most accessed.
    born: Vec<Vec<usize>>,
    /// Units by interval of use: the most accessed first.
    used: Vec<Vec<usize>>,
}

impl UsesByInterval {
    fn new(spans: &[Span], cuts: &Cuts) -> UsesByInterval {
        let empty = vec![Vec::new(); cuts.count() as usize];
        let mut result = UsesByInterval { born: empty.clone(), used: empty };
        let mut by_accesses: Vec<usize> = (0..spans.len()).collect();
        by_accesses.sort_by_key(|&unit| (Reverse(spans[unit].accesses), spans[unit].layers.first().copied(), unit));
        for unit in by_accesses {
            let mut intervals: Vec<u32> =
                spans[unit].layers.iter().map(|&layer| cuts.interval_of(layer as usize)).collect();
            intervals.dedup();
            if let Some(&first) = intervals.first().filter(|_| !spans[unit].persistent) {
                result.born[first as usize].push(unit);
            }
            for interval in intervals {
                result.used[interval as usize].push(unit);
            }
        }
        for born in &mut result.born {
            born.sort_by_key(|&unit| spans[unit].layers[0]);
        }
        result
    }
}

/// A unit counts as fast from `begin` to `end`, exclusive. Layers at or above the step's count are of the next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stay {
    begin: u32,
    end: u32,
    /// The use for which it is promoted, when a promotion begins it.
    promoted_for: Option<u32>,
    /// The layer at which its eviction is issued; it is due at `end`. `None` when it ends otherwise.
    evict_issue: Option<u32>,
}

struct Scheduler<'a> {
    spans: &'a [Span],
    cuts: &'a Cuts,
    ledger: Ledger,
    /// Per unit, disjoint.
    stays: Vec<Vec<Stay>>,
    machine: &'a Machine,
}

impl Scheduler<'_> {
    /// Persistent units that the first interval uses are fetched in the step before: for the last run of uses there that
    /// reaches into this step, or else in the last interval.
    fn keep_across_the_edge(&mut self, used_first: &[usize]) {
        for &unit in used_first.iter().filter(|&&unit| self.spans[unit].persistent) {
            let layers = &self.spans[unit].layers;
            let first_use = layers[0] + self.cuts.layer_count;
            let mut run_begin = first_use;
            for &layer in layers.iter().rev() {
                if self.cuts.interval_of(layer as usize) + 1 < self.cuts.interval_of(run_begin as usize) {
                    break;
                }
                run_begin = layer;
            }
            // A run that goes round the whole step has no begin, and is kept for good.
            let kept = run_begin != layers[0] && run_begin != first_use && self.promote(unit, run_begin);
            if !kept {
                self.promote(unit, first_use);
            }
        }
    }

    fn admit_births(&mut self, born: &[usize]) {
        for &unit in born {
            let birth = self.spans[unit].layers[0];
            let stay = Stay { promoted_for: None, ..self.stay_from(unit, birth, birth) };
            if self.ledger.last_full(stay.begin..stay.end, self.spans[unit].len_bytes).is_none() {
                self.admit(unit, stay);
            }
        }
    }

    fn prefetch(&mut self, interval: u32, used: &[usize]) {
        let begin = self.cuts.begin_of(interval);
        for &unit in used {
            let span = &self.spans[unit];
            let from = span.layers.partition_point(|&layer| layer < begin);
            if from == 0 && !span.persistent {
                // It is born in that interval, so there is nothing to fetch.
                continue;
            }
            let uses =
                span.layers[from..].iter().take_while(|&&layer| self.cuts.interval_of(layer as usize) == interval);
            if let Some(layer) = uses.copied().find(|&layer| !self.is_fast(unit, layer)) {
                self.promote(unit, layer);
            }
        }
    }

    fn is_fast(&self, unit: usize, layer: u32) -> bool {
        let next = layer + self.cuts.layer_count;
        let within = |stay: &Stay| (stay.begin..stay.end).contains(&layer) || (stay.begin..stay.end).contains(&next);
        self.stays[unit].iter().any(within)
    }

    /// Promotes a unit for its use in layer `use_layer`, in the interval before that, at the first layer from which there
    /// is room; false when there is none.
    fn promote(&mut self, unit: usize, use_layer: u32) -> bool {
        let span = &self.spans[unit];
        let interval = self.cuts.interval_of(use_layer as usize);
        let Some(before) = interval.checked_sub(1) else {
            return false;
        };
        let mut earliest = self.cuts.begin_of(before);
        if !span.persistent {
            earliest = earliest.max(span.layers[0] + 1);
        }
        let mut stay = self.stay_from(unit, use_layer, earliest);
        let whole_step = stay.end - stay.begin >= self.cuts.layer_count;
        if let Some(full) = self.ledger.last_full(stay.begin..stay.end, span.len_bytes) {
            if whole_step {
                return false;
            }
            stay.begin = full + 1;
        }
        if stay.begin >= self.cuts.begin_of(interval) {
            return false;
        }
        // Layers are counted from this step's begin wherever the stay begins in it.
        let steps = stay.begin / self.cuts.layer_count * self.cuts.layer_count;
        stay.begin -= steps;
        stay.end -= steps;
        stay.evict_issue = stay.evict_issue.map(|issue| issue - steps);
        stay.promoted_for = stay.promoted_for.map(|layer| layer - steps);
        self.admit(unit, stay);
        true
    }

    /// The stay that a unit would have that comes at `begin` and is next used at `use_layer`: as long as each next use is
    /// in the same or the next interval, or no eviction can be done before it would be fetched again.
    fn stay_from(&self, unit: usize, use_layer: u32, begin: u32) -> Stay {
        let span = &self.spans[unit];
        let evict_ns = move_ns(span.len_bytes, self.machine.demote_gbps);
        let taken = self.next_stay_begin(unit, begin);
        let mut last_use = use_layer;
        loop {
            let issue = last_use + 1;
            let next = self.next_use(unit, last_use).filter(|&next| next < taken);
            // What ends the wait: the prefetch for the next use, the stay that follows, or death.
            let (soon, limit) = match next {
                Some(next) => (next, self.cuts.begin_of(self.cuts.interval_of(next as usize).saturating_sub(1))),
                None if span.persistent => (taken, taken),
                None => (span.death_layer, span.death_layer),
            };
            let is_soon =
                self.cuts.interval_of(soon as usize) <= self.cuts.interval_of(last_use as usize).saturating_add(1);
            let due = if is_soon { None } else { self.ledger.eviction_due(issue, evict_ns, limit) };
            if let Some(due) = due {
                return Stay { begin, end: due, promoted_for: Some(use_layer), evict_issue: Some(issue) };
            }
            match next {
                Some(next) => last_use = next,
                None => {
                    let end = if span.persistent { taken } else { span.death_layer + 1 };
                    return Stay { begin, end, promoted_for: Some(use_layer), evict_issue: None };
                }
            }
        }
    }

    /// The next layer after this one that uses the unit; for a persistent unit that may be in the next step.
    fn next_use(&self, unit: usize, layer: u32) -> Option<u32> {
        let span = &self.spans[unit];
        let layer_count = self.cuts.layer_count;
        let steps = layer / layer_count * layer_count;
        let later = span.layers.partition_point(|&use_layer| use_layer + steps <= layer);
        match span.layers.get(later) {
            Some(use_layer) => Some(use_layer + steps),
            None if span.persistent => span.layers.first().map(|&first| first + steps + layer_count),
            None => None,
        }
    }

    /// Begin of the unit's stay that follows a stay beginning at `begin`: its own, a step later, when it has no other.
    fn next_stay_begin(&self, unit: usize, begin: u32) -> u32 {
        let layer_count = self.cuts.layer_count;
        let next = |stay: &Stay| (0..3).map(|step| stay.begin + step * layer_count).find(|&other| other > begin);
        let others = self.stays[unit].iter().filter_map(next);
        others.fold(begin + layer_count, u32::min)
    }

    fn admit(&mut self, unit: usize, mut stay: Stay) {
        let span = &self.spans[unit];
        self.ledger.take(stay.begin..stay.end, span.len_bytes);
        if let Some(issue) = stay.evict_issue {
            self.ledger.take_time(issue, stay.end, move_ns(span.len_bytes, self.machine.demote_gbps));
        } else if span.persistent {
            // It stays until the stay that follows, so nothing needs to be promoted for that one.
            let layer_count = self.cuts.layer_count;
            let follows = |begin: u32| begin % layer_count == stay.end % layer_count;
            for other in self.stays[unit].iter_mut().filter(|other| follows(other.begin)) {
                other.promoted_for = None;
            }
            if follows(stay.begin) {
                stay.promoted_for = None;
            }
        }
        self.stays[unit].push(stay);
    }

    fn finish(self) -> Schedule {
        let layer_count = self.cuts.layer_count;
        let mut moves = vec![Vec::new(); self.cuts.count() as usize];
        let mut birth_tiers = Vec::with_capacity(self.spans.len());
        for (unit, span) in self.spans.iter().enumerate() {
            let begins = if span.persistent { 0 } else { span.layers[0] };
            // A unit whose eviction was issued in the step before is on its way out: its bytes count, its tier is slow.
            let begins_fast = |stay: &Stay| {
                let goes_on = stay.end > layer_count && stay.evict_issue.is_none_or(|issue| issue >= layer_count);
                goes_on || (stay.begin == begins && stay.promoted_for.is_none())
            };
            let fast = self.stays[unit].iter().any(begins_fast);
            birth_tiers.push(if fast { Tier::FAST } else { Tier::SLOW });
            for stay in &self.stays[unit] {
                let promotion = stay.promoted_for.map(|due| (stay.begin, due, Tier::FAST));
                let eviction = stay.evict_issue.map(|issue| (issue, stay.end, Tier::SLOW));
                for (issue, due, to) in promotion.into_iter().chain(eviction) {
                    let (issue_layer, due_layer) = (issue % layer_count, due % layer_count);
                    let step = Move { issue_layer, due_layer, unit: u32::try_from(unit).unwrap_or(u32::MAX), to };
                    moves[self.cuts.interval_of(issue_layer as usize) as usize].push(step);
                }
            }
        }
        for moves in &mut moves {
            // Evictions first, since they make room; then the most accessed.
            let urgency =
                |step: &Move| (step.issue_layer, Reverse(step.to), Reverse(self.spans[step.unit as usize].accesses));
            moves.sort_by_key(|step| (urgency(step), step.unit));
        }
        Schedule { birth_tiers, moves_by_interval: moves }
    }
}
