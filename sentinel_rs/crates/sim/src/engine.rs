//! The clock: ops one after the other, moves beside them, step after step until two are alike.

use crate::setting::Setting;
use crate::workload::Workload;
use crate::world::{Job, SimError, Start, StepSums, World};
use plan::{Costs, Demand};

/// Steps after which a run that has not settled is cut off.
pub const STEPS_MAX: u64 = 60;

/// Of a run that has not settled, the mean of so many last steps is its result.
const MEAN_STEPS: usize = 10;

/// What a policy says about an op that is about to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ready {
    /// Run it.
    Yes,
    /// Wait for the next arrival and ask again.
    Wait,
}

/// What decides where buffers are. One value runs one workload.
pub trait Policy {
    /// The op of `world.op` is about to run: newborn buffers get their places, moves are issued. Called again after each
    /// arrival while the answer is [`Ready::Wait`]; with `last_call` nothing is under way that could arrive, and the
    /// answer must be [`Ready::Yes`].
    ///
    /// # Errors
    /// When the policy cannot run with this budget.
    fn before_op(&mut self, world: &mut World, last_call: bool) -> Result<Ready, SimError>;

    /// What the op asks of the tiers.
    ///
    /// # Errors
    /// When the policy has lost a buffer.
    fn demand(&mut self, world: &World) -> Result<Demand, SimError>;

    /// The op is over: buffers die.
    ///
    /// # Errors
    /// When the account does not hold.
    fn after_op(&mut self, world: &mut World) -> Result<(), SimError>;

    /// A move's turn has come.
    ///
    /// # Errors
    /// When the account does not hold.
    fn start(&mut self, world: &mut World, job: &Job) -> Result<Start, SimError>;

    /// A move's bytes are there; true when they are of use.
    ///
    /// # Errors
    /// When the account does not hold.
    fn arrived(&mut self, world: &mut World, job: &Job) -> Result<bool, SimError>;
}

/// A run's result.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The steady step, or the mean of the last ones.
    pub sums: StepSums,
    /// Steps that were run.
    pub steps: u64,
    /// The last two steps were the same.
    pub settled: bool,
    /// By op: waiting for moves before it, and memory time beyond all-fast, in the last step.
    pub waits: Vec<(f64, f64)>,
}

impl Outcome {
    /// Throughput relative to a step of `all_fast_ns`.
    #[must_use]
    pub fn relative(&self, all_fast_ns: f64) -> f64 {
        if self.sums.step_ns > 0.0 {
            all_fast_ns / self.sums.step_ns
        } else {
            1.0
        }
    }
}

/// Runs steps until two in a row are the same to the nanosecond and the byte, at most [`STEPS_MAX`].
///
/// # Errors
/// When the policy cannot run with this budget, or breaks it.
pub fn run(
    workload: &Workload,
    costs: &Costs,
    setting: &Setting,
    policy: &mut dyn Policy,
) -> Result<Outcome, SimError> {
    let mut world = World::new(workload, costs, setting);
    let mut past: Vec<StepSums> = Vec::new();
    while world.step < STEPS_MAX {
        let sums = run_step(&mut world, policy)?;
        if past.last().is_some_and(|last| alike(last, &sums)) {
            return Ok(Outcome { sums, steps: world.step, settled: true, waits: world.waits });
        }
        past.push(sums);
    }
    let sums = mean(&past[past.len().saturating_sub(MEAN_STEPS)..]);
    Ok(Outcome { sums, steps: world.step, settled: false, waits: world.waits })
}

/// One step.
///
/// # Errors
/// As [`run`].
pub fn run_step(world: &mut World, policy: &mut dyn Policy) -> Result<StepSums, SimError> {
    world.clock_ns = 0.0;
    world.sums = StepSums { fast_peak_bytes: world.used(trace::Tier::FAST), ..StepSums::default() };
    for op in 0..world.workload.ops.len() {
        world.op = u32::try_from(op).unwrap_or(u32::MAX);
        let stalled_ns = world.sums.stall_ns;
        enter(world, policy)?;
        let demand = policy.demand(world)?;
        world.waits[op] = (world.sums.stall_ns - stalled_ns, demand.extra_ns);
        work(world, policy, op, &demand)?;
        policy.after_op(world)?;
    }
    world.sums.step_ns = world.clock_ns;
    world.step += 1;
    Ok(world.sums)
}

/// Waits until the op may run.
fn enter(world: &mut World, policy: &mut dyn Policy) -> Result<(), SimError> {
    let mut last_call = false;
    while policy.before_op(world, last_call)? == Ready::Wait {
        serve(world, policy)?;
        match world.next_arrival_ns() {
            Some(wait_ns) => {
                world.sums.stall_ns += wait_ns;
                pass(world, policy, wait_ns)?;
            }
            None if last_call => return Err(SimError::Malformed(format!("op {} waits for nothing", world.op))),
            None => last_call = true,
        }
    }
    serve(world, policy)
}

/// Runs the op, at the speed that moves beside it leave.
fn work(world: &mut World, policy: &mut dyn Policy, op: usize, demand: &Demand) -> Result<(), SimError> {
    let mut left = 1.0;
    loop {
        let time_ns = world.costs.op_time_ns(op, demand, &world.taken());
        let end_ns = left * time_ns;
        match world.next_arrival_ns() {
            Some(arrival_ns) if arrival_ns < end_ns => {
                left -= arrival_ns / time_ns;
                pass(world, policy, arrival_ns)?;
            }
            _ => return pass(world, policy, end_ns),
        }
    }
}

fn pass(world: &mut World, policy: &mut dyn Policy, duration_ns: f64) -> Result<(), SimError> {
    for job in world.pass(duration_ns) {
        if policy.arrived(world, &job)? {
            world.count_arrival(&job);
        }
    }
    serve(world, policy)
}

/// Gives idle servers work; evictions first, because they make room.
fn serve(world: &mut World, policy: &mut dyn Policy) -> Result<(), SimError> {
    for promotion in [false, true] {
        while world.server(promotion).current.is_none() {
            let Some(&job) = world.server(promotion).queue.front() else { break };
            match policy.start(world, &job)? {
                Start::Wait => break,
                Start::Drop => {
                    world.server_mut(promotion).queue.pop_front();
                }
                Start::Go(from) => {
                    world.server_mut(promotion).queue.pop_front();
                    world.depart(promotion, Job { from, ..job });
                }
            }
        }
    }
    Ok(())
}

fn alike(one: &StepSums, other: &StepSums) -> bool {
    let bytes = |sums: &StepSums| (sums.promoted_bytes, sums.demoted_bytes, sums.overflow_bytes, sums.late_promotions);
    (one.step_ns - other.step_ns).abs() < 0.5 && bytes(one) == bytes(other)
}

fn mean(steps: &[StepSums]) -> StepSums {
    let count = crate::workload::to_f64(steps.len().max(1) as u64);
    let whole = steps.len().max(1) as u64;
    let bytes = |of: fn(&StepSums) -> u64| steps.iter().map(of).sum::<u64>() / whole;
    StepSums {
        step_ns: steps.iter().map(|s| s.step_ns).sum::<f64>() / count,
        stall_ns: steps.iter().map(|s| s.stall_ns).sum::<f64>() / count,
        promoted_bytes: bytes(|s| s.promoted_bytes),
        demoted_bytes: bytes(|s| s.demoted_bytes),
        overflow_bytes: bytes(|s| s.overflow_bytes),
        late_promotions: bytes(|s| s.late_promotions),
        moving_ns: [0, 1].map(|way| steps.iter().map(|s| s.moving_ns[way]).sum::<f64>() / count),
        fast_peak_bytes: steps.iter().map(|s| s.fast_peak_bytes).max().unwrap_or(0),
    }
}
