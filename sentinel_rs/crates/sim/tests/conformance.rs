//! What every policy must keep to, whatever it decides: the budget at every op, no buffer lost, the same run every time.

use plan::Machine;
use sim::{run, Costs, Demand, Job, MemoryTime, Named, Ready, Setting, SimError, SplitMix, Start, Workload, World};
use trace::{Access, Buffer, LayerSource, Op, Origin, StepTrace, Tier};

const KIB: u64 = 1 << 10;

fn below(random: &mut SplitMix, limit: u64) -> u64 {
    random.next_bits() % limit
}

fn number(value: u64) -> u32 {
    u32::try_from(value).unwrap()
}

/// A random step of up to 40 ops and 60 buffers, with every kind of buffer.
fn step(seed: u64) -> StepTrace {
    let mut random = SplitMix::new(seed);
    let op_count = 2 + below(&mut random, 38);
    let mut ops = Vec::new();
    let (mut clock, mut layer) = (0, 0);
    for index in 0..op_count {
        let time = below(&mut random, 2_000_000);
        layer += u32::from(below(&mut random, 3) == 0);
        ops.push(Op {
            kernel: number(index),
            name: format!("op{index}"),
            kind: "Op".into(),
            layer,
            start_ns: clock,
            end_ns: clock + time,
            predecessors: if index == 0 { vec![] } else { vec![number(below(&mut random, index))] },
        });
        clock += time;
    }
    let mut ordinals = vec![0; ops.len()];
    let mut buffers = Vec::new();
    for _ in 0..below(&mut random, 60) {
        let size_bytes = 1 + below(&mut random, 400 * KIB);
        let kind = below(&mut random, 10);
        let birth = if kind < 2 { 0 } else { below(&mut random, op_count) };
        let dies = kind > 2;
        let death = if dies { birth + below(&mut random, op_count - birth) } else { op_count - 1 };
        let origin = match kind {
            0 => Origin::External,
            1 => Origin::Persistent,
            _ => {
                let ordinal = ordinals[usize::try_from(birth).unwrap()];
                ordinals[usize::try_from(birth).unwrap()] += u32::from(size_bytes >= 4096);
                Origin::Step { op: number(birth), ordinal }
            }
        };
        let mut accesses: Vec<Access> = (0..below(&mut random, 5))
            .map(|_| {
                let op = number(birth + below(&mut random, death - birth + 1));
                Access { op, write: below(&mut random, 2) == 0, bytes: size_bytes }
            })
            .collect();
        accesses.sort_by_key(|access| access.op);
        let death_op = dies.then_some(number(death));
        buffers.push(Buffer { size_bytes, origin, death_op, temporary: dies && birth == death, accesses });
    }
    StepTrace {
        counts: None,
        tensorflow_version: "1.13.1".into(),
        step_number: 10,
        intra_op_threads: 1,
        inter_op_threads: 1,
        layer_source: LayerSource::Marked,
        ops,
        buffers,
    }
}

fn machine() -> Machine {
    Machine::by_name("optane").unwrap()
}

#[test]
fn every_policy_keeps_the_budget_loses_nothing_and_repeats_itself() {
    let machine = machine();
    for seed in 0..25 {
        let workload = Workload::of("random", &step(seed)).unwrap();
        let costs = Costs::new(&workload.profile, &machine, MemoryTime::Share(1.0)).unwrap();
        for percent in [3, 20, 70] {
            let budget = (workload.profile.peak_live_bytes * percent / 100).max(1);
            for m_hat in [0.3, 3.0] {
                let setting = Setting::with_m_hat(&workload, budget, m_hat);
                for (name, policy) in Named::ALL {
                    let context = format!("seed {seed}, {percent}%, m̂ {m_hat}, {name}");
                    let once = match policy.run(&workload, &costs, &setting, &machine) {
                        Err(SimError::Infeasible { .. }) => continue,
                        other => other.unwrap_or_else(|error| panic!("{context}: {error}")),
                    };
                    // No step is shorter than the all-fast one, but for rounding in sums.
                    assert!(once.sums.step_ns >= workload.step_ns * (1.0 - 1e-9), "{context}");
                    if policy != Named::FastOnly {
                        assert!(once.sums.fast_peak_bytes <= budget, "{context}");
                    }
                    let again = policy.run(&workload, &costs, &setting, &machine).unwrap();
                    assert_eq!(once.sums.step_ns.to_bits(), again.sums.step_ns.to_bits(), "{context}");
                    assert_eq!(once, again, "{context}");
                }
            }
        }
    }
}

#[test]
fn with_all_the_memory_there_is_nothing_is_slow() {
    let machine = machine();
    for seed in 100..110 {
        let workload = Workload::of("random", &step(seed)).unwrap();
        let costs = Costs::new(&workload.profile, &machine, MemoryTime::Share(0.7)).unwrap();
        // Pages round up what the arena holds.
        let setting = Setting::with_m_hat(&workload, workload.profile.peak_live_bytes + (1 << 20), 2.0);
        for policy in [Named::FastOnly, Named::Gap, Named::StaticOptimum, Named::FirstTouch, Named::Ial, Named::Hotness]
        {
            let outcome = policy.run(&workload, &costs, &setting, &machine).unwrap();
            let relative = outcome.relative(workload.step_ns);
            assert!(relative > 0.999, "seed {seed}: {} reaches {relative}", policy.name());
        }
    }
}

#[test]
fn plans_for_three_tiers_are_those_for_the_first_two_of_them() {
    let machines = ["hbm-ddr", "hbm-ddr-cxl"].map(|name| Machine::by_name(name).unwrap());
    assert_eq!(machines.each_ref().map(|machine| machine.tiers.len()), [2, 3]);
    for seed in 200..212 {
        let workload = Workload::of("random", &step(seed)).unwrap();
        let setting = Setting::with_m_hat(&workload, (workload.profile.peak_live_bytes / 5).max(1), 2.0);
        for policy in [Named::Gap, Named::GapAtOps, Named::Hpca21, Named::StaticOptimum] {
            let [two, three] = machines.each_ref().map(|machine| {
                let costs = Costs::new(&workload.profile, machine, MemoryTime::Share(1.0)).unwrap();
                policy.run(&workload, &costs, &setting, machine).unwrap().sums.step_ns
            });
            assert_eq!(two.to_bits(), three.to_bits(), "seed {seed}: {}: {two} and {three} ns", policy.name());
        }
    }
}

/// A policy that puts everything into fast memory without asking.
struct Greedy;

impl sim::Policy for Greedy {
    fn before_op(&mut self, world: &mut World, _last_call: bool) -> Result<Ready, SimError> {
        for &buffer in &world.workload.ops[world.op as usize].births {
            world.fill(Tier::FAST, world.workload.size_bytes(buffer))?;
        }
        Ok(Ready::Yes)
    }

    fn demand(&mut self, world: &World) -> Result<Demand, SimError> {
        Ok(world.costs.no_demand())
    }

    fn after_op(&mut self, _world: &mut World) -> Result<(), SimError> {
        Ok(())
    }

    fn start(&mut self, _world: &mut World, _job: &Job) -> Result<Start, SimError> {
        Ok(Start::Drop)
    }

    fn arrived(&mut self, _world: &mut World, _job: &Job) -> Result<bool, SimError> {
        Ok(false)
    }
}

#[test]
fn a_policy_that_breaks_the_budget_is_stopped() {
    let workload = Workload::of("random", &step(7)).unwrap();
    let costs = Costs::new(&workload.profile, &machine(), MemoryTime::Share(1.0)).unwrap();
    let setting = Setting::with_m_hat(&workload, 4096, 1.0);
    assert!(matches!(
        run(&workload, &costs, &setting, &mut Greedy),
        Err(SimError::OverBudget { budget_bytes: 4096, .. })
    ));
}
