//! Where each graph is on its way from the first step to managed ones.

use crate::graph::GraphEdges;
use crate::managed::Managed;
use crate::order::Choice;
use std::sync::Arc;
use std::time::Duration;

/// Graphs with fewer nodes are never profiled: initializers, readers of one variable, the profile marks themselves.
const MIN_NODES: usize = 8;
/// Input shapes of one graph that get a plan of their own, as published.
pub const MAX_BUCKETS: usize = 10;
/// Of the allocations that ask for a slot in a step, the share that may find none of its size before the step counts as
/// changed.
const CHANGED_SHARE: f64 = 0.05;
/// So many changed steps in a row call for a new profile.
const CHANGED_STEPS: u32 = 3;
/// So many new profiles of one bucket; after that its shapes change too often to be worth it.
const MAX_PROFILES: u32 = 10;

/// What a bucket does with the next step.
#[derive(Clone, Debug)]
pub enum Phase {
    /// Counts steps until the profile.
    Warmup,
    /// The profiled step runs or its plan is being made.
    Planning,
    /// Steps follow the plan.
    Managed(Arc<Managed>),
    /// Steps run without a plan; the text says why.
    Unmanaged(&'static str),
}

/// Steps of one graph with inputs of one shape.
#[derive(Debug)]
pub struct Bucket {
    signature: u64,
    /// What happens next.
    pub phase: Phase,
    /// Steps so far.
    pub steps: u64,
    /// The order of its operations.
    pub order: Choice,
    profiles: u32,
    changed_in_a_row: u32,
}

/// One graph of one executor.
#[derive(Debug)]
pub struct Graph {
    /// Its edges.
    pub edges: Arc<GraphEdges>,
    buckets: Vec<Bucket>,
    /// Whether its operations may begin in another order than the session's.
    pub any_order: bool,
    ran: bool,
}

impl Graph {
    /// A graph that has not run yet, with operations that may begin in `any_order` or not.
    #[must_use]
    pub fn new(edges: GraphEdges, any_order: bool) -> Graph {
        Graph { edges: Arc::new(edges), buckets: Vec::new(), any_order, ran: false }
    }

    /// Whether it is worth a profile.
    #[must_use]
    pub fn is_large(&self) -> bool {
        self.edges.node_count() >= MIN_NODES
    }

    /// Whether the step that begins is the first of all.
    pub fn first_step(&mut self) -> bool {
        !std::mem::replace(&mut self.ran, true)
    }

    /// The bucket of this input shape; `None` when there are too many.
    pub fn bucket(&mut self, signature: u64) -> Option<&mut Bucket> {
        if let Some(at) = self.buckets.iter().position(|bucket| bucket.signature == signature) {
            return self.buckets.get_mut(at);
        }
        if self.buckets.len() == MAX_BUCKETS {
            return None;
        }
        let phase = Phase::Warmup;
        self.buckets.push(Bucket {
            signature,
            phase,
            steps: 0,
            order: Choice::default(),
            profiles: 0,
            changed_in_a_row: 0,
        });
        self.buckets.last_mut()
    }

    /// Steps of this shape so far.
    #[must_use]
    pub fn steps_of(&self, signature: u64) -> u64 {
        self.buckets.iter().find(|bucket| bucket.signature == signature).map_or(0, |bucket| bucket.steps)
    }

    /// The plans of all its buckets.
    pub fn plans(&self) -> impl Iterator<Item = Arc<Managed>> + '_ {
        self.buckets.iter().filter_map(|bucket| match &bucket.phase {
            Phase::Managed(managed) => Some(Arc::clone(managed)),
            _ => None,
        })
    }
}

impl Bucket {
    /// True when this step is to be profiled.
    #[must_use]
    pub fn wants_profile(&self, warmup_steps: u64, asked: bool) -> bool {
        matches!(self.phase, Phase::Warmup) && (asked || self.steps >= warmup_steps) && self.profiles < MAX_PROFILES
    }

    /// The profiled step begins.
    pub fn profile_begins(&mut self) {
        self.phase = Phase::Planning;
        self.profiles += 1;
    }

    /// The profiled step failed: another one will be profiled, unless that happens all the time.
    pub fn profile_failed(&mut self) {
        self.phase =
            if self.profiles < MAX_PROFILES { Phase::Warmup } else { Phase::Unmanaged("its profiled steps fail") };
    }

    /// The user asks for a new profile; returns the plan that is given up for it. A plan that no step has followed yet
    /// stays, and so does any plan when there were many profiles.
    pub fn profile_again(&mut self) -> Option<Arc<Managed>> {
        if self.profiles >= MAX_PROFILES {
            return None;
        }
        match &self.phase {
            Phase::Planning => None,
            Phase::Managed(managed) if !managed.was_followed() => None,
            _ => match std::mem::replace(&mut self.phase, Phase::Warmup) {
                Phase::Managed(managed) => Some(managed),
                _ => None,
            },
        }
    }

    /// Between two steps: goes over to the plan that replaces the current one, if there is one, and returns the current one.
    pub fn go_over(&mut self) -> Option<Arc<Managed>> {
        let Phase::Managed(managed) = &self.phase else { return None };
        let after = managed.feedback.as_ref()?.take_successor()?;
        match std::mem::replace(&mut self.phase, Phase::Managed(after)) {
            Phase::Managed(before) => Some(before),
            _ => None,
        }
    }

    /// True when no further profile will be made.
    #[must_use]
    pub fn profiles_used_up(&self) -> bool {
        self.profiles >= MAX_PROFILES
    }

    /// A managed step is over: `asked` allocations wanted a slot, `strangers` of them were unknown or of another size.
    /// Returns the plan that is to be given up, when the graph's shapes have changed for good.
    pub fn managed_step_over(&mut self, asked: u64, strangers: u64) -> Option<Arc<Managed>> {
        #[allow(clippy::cast_precision_loss)] // a share of counts
        let changed = strangers as f64 > CHANGED_SHARE * asked as f64;
        self.changed_in_a_row = if changed { self.changed_in_a_row + 1 } else { 0 };
        if self.changed_in_a_row < CHANGED_STEPS {
            return None;
        }
        self.changed_in_a_row = 0;
        let next =
            if self.profiles < MAX_PROFILES { Phase::Warmup } else { Phase::Unmanaged("its shapes keep changing") };
        match std::mem::replace(&mut self.phase, next) {
            Phase::Managed(managed) => Some(managed),
            _ => None,
        }
    }
}

/// How the runtime meets promotions that come too late: the published test-and-trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LateChoice {
    /// None has been late yet; the first step in which one is waits for it.
    Untried,
    /// A promotion was late in this step, which waits and is timed.
    TryWaiting,
    /// A step that leaves them in slow memory is being timed.
    TryLeaving {
        /// Time of the step that waited.
        waited: Duration,
    },
    /// Waits from now on.
    Wait,
    /// Leaves them from now on.
    Leave,
}

impl LateChoice {
    /// True when the step waits.
    #[must_use]
    pub fn waits(self) -> bool {
        matches!(self, LateChoice::Untried | LateChoice::TryWaiting | LateChoice::Wait)
    }

    /// The choice after a step of this length.
    #[must_use]
    pub fn after(self, step: Duration) -> LateChoice {
        match self {
            LateChoice::TryWaiting => LateChoice::TryLeaving { waited: step },
            LateChoice::TryLeaving { waited } if waited <= step => LateChoice::Wait,
            LateChoice::TryLeaving { .. } => LateChoice::Leave,
            settled => settled,
        }
    }

    /// For people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            LateChoice::Untried => "none",
            LateChoice::TryWaiting | LateChoice::TryLeaving { .. } => "trial",
            LateChoice::Wait => "wait",
            LateChoice::Leave => "leave",
        }
    }
}
