#![allow(missing_docs, clippy::all)]
use plan::*;
use sim::*;
use trace::Tier;
#[test]
fn dbg() {
    let name = std::env::var("T").unwrap();
    let ratio: f64 = std::env::var("R").unwrap().parse().unwrap();
    let m: f64 = std::env::var("M").unwrap().parse().unwrap();
    let w = Workload::of("x", &trace::read(name).unwrap()).unwrap();
    let machine = Machine::by_name("optane").unwrap();
    let costs = Costs::new(&w.profile, &machine, MemoryTime::SlowRatio(ratio)).unwrap();
    let s = Setting::with_m_hat(&w, w.profile.peak_live_bytes / 5, m);
    let plan = plan::gap(&w.profile, s.fast_budget_bytes(), &costs, s.migration()).unwrap();
    let mut c = Carrier::new(&w, plan.clone(), false).unwrap();
    for (i, u) in plan.units.iter().enumerate() {
        if let UnitHome::Persistent { buffer, .. } = u.home {
            if u.len_bytes > 3000000 {
                println!(
                    "step unit {i} buffer {buffer} birth {:?} moves {:?}",
                    u.birth_tier,
                    plan.intervals
                        .iter()
                        .flat_map(|i| &i.moves)
                        .filter(|m| m.unit as usize == i)
                        .map(|m| (m.issue_layer, m.due_layer, m.to == Tier::FAST))
                        .collect::<Vec<_>>()
                );
            }
        }
    }
    println!("step layers {:?}", plan.layer_first_op);
    let mut world = World::new(&w, &costs, &s);
    for step in 0..4 {
        world.clock_ns = 0.0;
        world.sums = StepSums::default();
        let mut rows = vec![];
        for op in 0..w.ops.len() {
            world.op = op as u32;
            let before = world.clock_ns;
            sim::step_op(&mut world, &mut c, op).unwrap();
            let t = world.clock_ns - before;
            rows.push((t - w.ops[op].base_ns, op));
        }
        world.step += 1;
        let total = world.clock_ns;
        println!("step {step}: rel {:.3} {:?}", w.step_ns / total, world.sums);
        if step == 3 {
            rows.sort_by(|a, b| b.0.total_cmp(&a.0));
            for (lost, op) in rows.iter().take(25) {
                let facts = &w.profile.ops[*op];
                print!("op {op} layer {} lost {:.2} ms of {:.2}: ", facts.layer, lost / 1e6, w.ops[*op].base_ns / 1e6);
                for u in &w.ops[*op].uses {
                    let b = &w.profile.buffers[u.buffer as usize];
                    if b.size_bytes > 100000 {
                        print!(
                            "[{} {:?} {}K b{} d{} {}] ",
                            u.buffer,
                            b.class,
                            b.size_bytes >> 10,
                            b.birth_op,
                            b.death_op,
                            plan.slots.iter().find(|s| Some(s.key) == b.key).map_or("pers".into(), |s| match s.place {
                                Place::Pool { .. } => "pool".into(),
                                Place::Units { first, count, .. } => format!(
                                    "u{first}x{count}:{:?}:{:?}",
                                    plan.units[first as usize].birth_tier,
                                    plan.intervals
                                        .iter()
                                        .flat_map(|i| &i.moves)
                                        .filter(|m| m.unit == first)
                                        .map(|m| (m.issue_layer, m.due_layer, m.to == Tier::FAST))
                                        .collect::<Vec<_>>()
                                ),
                                Place::Heap { tier } => format!("heap{tier:?}"),
                            })
                        );
                    }
                }
                println!();
            }
        }
    }
}
