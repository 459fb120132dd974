//! In which order a graph's ready operations begin. Either order is right; which one needs less memory depends on the
//! graph, and is found by trying both.

/// The session's order must need less than this share of what oldest first needs, or it is not worth another doubt.
const CLEARLY_LESS: f64 = 0.95;

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
    /// In a trial, the growth of live bytes since the step's begin beyond which the step goes on in the other order, and
    /// the largest growth is to be told at its end.
    pub trial_bytes_at_most: Option<u64>,
}

/// How far the choice of a graph's order is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// No step has been measured.
    #[default]
    Untried,
    /// Live bytes grew by so many in a step with the oldest first.
    OldestTried {
        /// Largest growth since the step's begin.
        growth_bytes: u64,
    },
    /// For good.
    Settled(Order),
}

impl Choice {
    /// The order of the next step, when tensors may take `room_bytes` more than before it. One that is `profiled` runs one
    /// operation at a time, which says nothing about several.
    ///
    /// Oldest first is tried first: to try the session's order before would need all the memory that it needs. Half of
    /// the room ends the trial, because a graph that fits under TensorFlow's own order must not fail here.
    #[must_use]
    pub fn next(self, profiled: bool, room_bytes: impl FnOnce() -> u64) -> StepOrder {
        let (order, at_most) = match self {
            Choice::Settled(order) => return StepOrder { order, trial_bytes_at_most: None },
            Choice::Untried => (Order::OldestFirst, room_bytes() / 2),
            Choice::OldestTried { .. } if profiled => (Order::OldestFirst, 0),
            Choice::OldestTried { growth_bytes } => (Order::Session, growth_bytes),
        };
        StepOrder { order, trial_bytes_at_most: (!profiled).then_some(at_most) }
    }

    /// The choice after a trial in which live bytes grew by `growth_bytes` at most.
    #[must_use]
    pub fn after(self, growth_bytes: u64) -> Choice {
        #[allow(clippy::cast_precision_loss)] // a share of bytes
        let clearly_less = |than: u64| (growth_bytes as f64) < CLEARLY_LESS * than as f64;
        match self {
            Choice::Untried => Choice::OldestTried { growth_bytes },
            Choice::OldestTried { growth_bytes: oldest } if clearly_less(oldest) => Choice::Settled(Order::Session),
            Choice::OldestTried { .. } => Choice::Settled(Order::OldestFirst),
            settled @ Choice::Settled(_) => settled,
        }
    }

    /// For people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Choice::Untried | Choice::OldestTried { .. } => "trial",
            Choice::Settled(Order::OldestFirst) => "oldest_first",
            Choice::Settled(Order::Session) => "session",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(order: Order, trial_bytes_at_most: Option<u64>) -> StepOrder {
        StepOrder { order, trial_bytes_at_most }
    }

    #[test]
    fn both_orders_are_tried_once_and_the_smaller_stays() {
        for (session, stays) in [(50, Order::Session), (96, Order::OldestFirst), (300, Order::OldestFirst)] {
            let first = Choice::default();
            assert_eq!(first.next(false, || 1000), step(Order::OldestFirst, Some(500)));
            let second = first.after(100);
            assert_eq!(second.next(false, || 1000), step(Order::Session, Some(100)));
            let settled = second.after(session);
            assert_eq!(settled.next(false, || unreachable!()), step(stays, None));
            assert_eq!(settled.after(1), settled);
        }
    }

    #[test]
    fn a_profiled_step_is_no_trial() {
        for choice in [Choice::Untried, Choice::Untried.after(100)] {
            assert_eq!(choice.next(true, || 1000), step(Order::OldestFirst, None));
        }
    }
}
