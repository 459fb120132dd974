//! In which order a graph's ready operations begin. Either order is right; which one needs less memory depends on the
//! graph, and is found by trying both.

/// Oldest first stays where the session's order needs more than so many percent of its memory.
const CLEARLY_MORE_PERCENT: u64 = 110;
/// A step with the oldest first may need so many percent of what it needed in its trial.
const GROWN_PERCENT: u64 = 200;
/// Blocks come in pages, and a step's needs vary by more than a share of a small step.
const SPARE_BYTES: u64 = 16 << 20;
/// After so many trials that told nothing, the session's order stays.
const TRIALS_AT_MOST: u8 = 8;

/// An order of operations that are ready.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// That of the session's threads: each begins what it made ready last, and takes the oldest from others.
    #[default]
    Session,
    /// Whatever was ready first.
    OldestFirst,
}

/// What the executor must do about the order in one step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StepOrder {
    /// The order to begin with.
    pub order: Order,
    /// The growth of live bytes since the step's begin beyond which the step goes on in the other order; `None` where the
    /// order is the session's whatever happens.
    pub growth_bytes_at_most: Option<u64>,
    /// Whether the executor must tell what became of the step.
    pub trial: bool,
}

/// What became of a step whose order was watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It kept its order, and live bytes grew by so many at most.
    Kept {
        /// Largest growth.
        growth_bytes: u64,
    },
    /// Its memory grew too much.
    TooMuch,
    /// There was none left.
    OutOfMemory,
    /// It failed in another way, or another one ran beside it.
    Nothing,
}

/// How far the choice of a graph's order is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    state: State,
    /// Trials that may still tell nothing.
    trials_left: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// No step has run: the first one fills the buffers of input pipelines and the like.
    New,
    Untried,
    OldestTried {
        growth_bytes: u64,
    },
    OldestFirst {
        growth_bytes: u64,
    },
    Session,
}

impl Default for Choice {
    fn default() -> Choice {
        Choice { state: State::New, trials_left: TRIALS_AT_MOST }
    }
}

fn percent(of_bytes: u64, percent: u64) -> u64 {
    (of_bytes / 100).saturating_mul(percent).saturating_add(SPARE_BYTES)
}

impl Choice {
    /// The order of the next step, when tensors may take `room_bytes` more than before it. Nothing is learned from one
    /// that is `profiled`, one operation at a time, or beside other steps (`alone` is false).
    ///
    /// Oldest first is tried first: to try the session's order before would need all the memory that it needs. Half of
    /// the room ends the trial, because a graph that fits under TensorFlow's own order must not fail here.
    #[must_use]
    pub fn next(self, alone: bool, profiled: bool, room_bytes: impl FnOnce() -> u64) -> StepOrder {
        let (order, at_most, trial) = match self.state {
            State::OldestFirst { growth_bytes } => {
                (Order::OldestFirst, Some(percent(growth_bytes, GROWN_PERCENT)), false)
            }
            State::New | State::Untried if alone => (Order::OldestFirst, Some(room_bytes() / 2), !profiled),
            State::OldestTried { growth_bytes } if profiled => {
                (Order::OldestFirst, Some(percent(growth_bytes, GROWN_PERCENT)), false)
            }
            State::OldestTried { growth_bytes } if alone => {
                (Order::Session, Some(percent(growth_bytes, CLEARLY_MORE_PERCENT)), true)
            }
            _ => (Order::Session, None, false),
        };
        StepOrder { order, growth_bytes_at_most: at_most, trial }
    }

    /// The choice after a step that was no trial and needed too much, or more than there was.
    #[must_use]
    pub fn after_too_much(self) -> Choice {
        Choice { state: State::Session, ..self }
    }

    /// The choice after a trial.
    #[must_use]
    pub fn after(self, outcome: Outcome) -> Choice {
        let state = match (self.state, outcome) {
            (_, Outcome::Nothing) if self.trials_left == 0 => State::Session,
            (state, Outcome::Nothing) => return Choice { state, trials_left: self.trials_left - 1 },
            (State::New, Outcome::Kept { .. }) => State::Untried,
            (State::Untried, Outcome::Kept { growth_bytes }) => State::OldestTried { growth_bytes },
            (State::OldestTried { growth_bytes }, Outcome::TooMuch | Outcome::OutOfMemory) => {
                State::OldestFirst { growth_bytes }
            }
            _ => State::Session,
        };
        Choice { state, ..self }
    }

    /// For people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self.state {
            State::New | State::Untried | State::OldestTried { .. } => "trial",
            State::OldestFirst { .. } => "oldest_first",
            State::Session => "session",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn room() -> u64 {
        10 * GIB
    }

    /// After the first step, and after as many trials as there are outcomes.
    fn warm(outcomes: &[Outcome]) -> Choice {
        let first = Choice::default().after(Outcome::Kept { growth_bytes: 7 * GIB });
        outcomes.iter().fold(first, |choice, &outcome| choice.after(outcome))
    }

    const KEPT: Outcome = Outcome::Kept { growth_bytes: GIB };

    #[test]
    fn oldest_first_stays_where_the_sessions_order_needs_clearly_more() {
        for oldest in [Choice::default(), warm(&[])] {
            let expected = StepOrder { order: Order::OldestFirst, growth_bytes_at_most: Some(5 * GIB), trial: true };
            assert_eq!(oldest.next(true, false, room), expected);
        }
        let second = warm(&[KEPT]);
        let session = second.next(true, false, room);
        assert_eq!((session.order, session.trial, second.name()), (Order::Session, true, "trial"));
        let limit = session.growth_bytes_at_most.unwrap();
        assert!(limit > GIB + GIB / 20 && limit < GIB + GIB / 5, "{limit}");
        let settled = second.after(Outcome::TooMuch);
        let order = settled.next(false, false, || unreachable!());
        assert_eq!((order.order, order.trial, settled.name()), (Order::OldestFirst, false, "oldest_first"));
        assert!(order.growth_bytes_at_most.unwrap() >= GIB / 100 * 200);
        assert_eq!(second.after(KEPT).name(), "session");
    }

    #[test]
    fn what_does_not_fit_is_never_tried_again() {
        let settled = warm(&[KEPT, Outcome::TooMuch]);
        let too_much = [Outcome::TooMuch, Outcome::OutOfMemory]
            .into_iter()
            .flat_map(|outcome| [Choice::default().after(outcome), warm(&[outcome])]);
        for choice in too_much.chain([settled, warm(&[KEPT])].map(Choice::after_too_much)) {
            assert_eq!(choice.next(true, false, || unreachable!()), StepOrder::default());
            assert_eq!(choice.name(), "session");
        }
    }

    #[test]
    fn beside_other_steps_nothing_is_tried() {
        for choice in [Choice::default(), warm(&[]), warm(&[KEPT])] {
            assert_eq!(choice.next(false, false, || unreachable!()), StepOrder::default());
            assert_eq!(choice.name(), "trial");
        }
    }

    #[test]
    fn a_profiled_step_is_no_trial_and_may_not_grow_without_limit() {
        for choice in [Choice::default(), warm(&[]), warm(&[KEPT]), warm(&[KEPT, Outcome::TooMuch])] {
            let order = choice.next(true, true, room);
            assert_eq!((order.order, order.trial), (Order::OldestFirst, false));
            assert!(order.growth_bytes_at_most.unwrap() <= 5 * GIB);
        }
    }

    #[test]
    fn trials_that_tell_nothing_end() {
        let mut choice = Choice::default();
        for _ in 0..TRIALS_AT_MOST {
            choice = choice.after(Outcome::Nothing);
            assert_eq!(choice.name(), "trial");
        }
        assert_eq!(choice.after(Outcome::Nothing).name(), "session");
    }
}
