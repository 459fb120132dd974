//! What is in the way, and the command that clears it away.

use serde::Serialize;

use super::facts::Facts;
use crate::amount::Bytes;

/// Makes swap where there is none.
const MAKE_SWAP: &str = "fallocate -l 8G /swapfile && chmod 600 /swapfile && mkswap /swapfile && swapon /swapfile";

/// Puts Sentinel where the interpreter finds it.
const INSTALL: &str = "python -m pip install tensorflow-1.13.1+sentinel-*.whl";

/// How much a problem matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Weight {
    /// No tiering on this machine's own memory until it is solved.
    Blocks,
    /// Tiering works, but worse.
    Hurts,
    /// Worth knowing.
    Note,
}

impl Weight {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Weight::Blocks => "blocks",
            Weight::Hurts => "hurts",
            Weight::Note => "note",
        }
    }
}

/// One problem.
#[derive(Debug, Serialize)]
pub struct Problem {
    pub weight: Weight,
    pub what: String,
    /// A command.
    pub fix: String,
}

/// All problems, those that block first.
pub fn of(facts: &Facts) -> Vec<Problem> {
    let mut problems: Vec<Problem> =
        [python(facts), nodes(facts), permissions(facts), memory(facts), kernel(facts), swap(facts)]
            .into_iter()
            .flatten()
            .collect();
    problems.sort_by_key(|problem| problem.weight);
    problems
}

fn problem(weight: Weight, what: impl Into<String>, fix: impl Into<String>) -> Problem {
    Problem { weight, what: what.into(), fix: fix.into() }
}

fn python(facts: &Facts) -> Vec<Problem> {
    let python = &facts.python;
    let again = "sentinel doctor --python .venv/bin/python";
    let blocks = |what: String, fix: &str| vec![problem(Weight::Blocks, what, fix)];
    let Some(installed) = &python.installed else {
        let why = python.error.as_deref().unwrap_or("none was found");
        return blocks(format!("no Python answers ({}): {why}", python.looked_for), again);
    };
    if !installed.library {
        let has = installed.tensorflow.as_ref();
        let has =
            has.map_or_else(|| "has no TensorFlow".to_owned(), |v| format!("has TensorFlow {v} without Sentinel"));
        return blocks(format!("{} {has}", installed.executable), &format!("{INSTALL} && {again}"));
    }
    match (&python.tried, &python.error) {
        (Some(tried), _) if tried.active => Vec::new(),
        (Some(tried), _) => {
            let why = tried.message.as_deref().unwrap_or("it does not say why");
            blocks(format!("Sentinel in {} took no part in a session: {why}", installed.executable), INSTALL)
        }
        (None, error) => {
            let why = error.as_deref().unwrap_or("it does not say why");
            blocks(format!("a session with Sentinel in {} failed: {why}", installed.executable), INSTALL)
        }
    }
}

fn nodes(facts: &Facts) -> Vec<Problem> {
    let mut problems = Vec::new();
    match facts.slow_node.and_then(|slow| facts.nodes.iter().find(|node| node.id == slow)) {
        None if facts.swap_areas.is_empty() => problems.push(problem(
            Weight::Blocks,
            "this machine has one memory node and no swap, so there is no slow memory",
            format!("{MAKE_SWAP}; or emulate some: sentinel run --fast 20% --slow emulated:optane -- python train.py"),
        )),
        None => problems.push(problem(
            Weight::Note,
            "this machine has one memory node: its slow memory is swap, which has to be asked for",
            "sentinel run --slow swap -- python train.py",
        )),
        Some(slow) if !slow.cpus.is_empty() => problems.push(problem(
            Weight::Note,
            format!("node {} would be slow memory, but has CPUs of its own: its memory may be as fast as any", slow.id),
            "sentinel doctor --measure machine.toml",
        )),
        Some(_) => {}
    }
    for node in &facts.nodes {
        if let Some(error) = &node.error {
            let what = format!("the memory of node {} cannot be measured: {error}", node.id);
            problems.push(problem(
                Weight::Hurts,
                what,
                "grep Mems_allowed_list /proc/self/status; docker run --cpuset-mems LIST ... allows more nodes",
            ));
        }
    }
    problems
}

fn permissions(facts: &Facts) -> Vec<Problem> {
    let refused = facts.permissions.iter().filter_map(|(call, why)| Some((call, why.as_ref()?)));
    let refused = refused.map(|(call, why)| {
        let what = format!("the system call {call} is refused: {why}");
        problem(Weight::Blocks, what, "docker run --cap-add SYS_NICE ... (Docker forbids it without)")
    });
    refused.collect()
}

fn memory(facts: &Facts) -> Vec<Problem> {
    let mut problems = Vec::new();
    let settings = &facts.settings;
    let total_bytes: u64 = facts.nodes.iter().map(|node| node.total_bytes).sum();
    // The runtime reserves this much address space for each tier.
    let needed_bytes = total_bytes.saturating_mul(4);
    if let Some(limit) = settings.address_space_limit_bytes.filter(|&limit| limit < needed_bytes) {
        let what = format!(
            "address space is limited to {}, and Sentinel reserves about {} of it (no memory)",
            Bytes(limit),
            Bytes(needed_bytes)
        );
        problems.push(problem(Weight::Blocks, what, "ulimit -v unlimited"));
    }
    if settings.overcommit_memory.as_deref() == Some("2") {
        let what = "vm.overcommit_memory = 2 counts reserved address space as memory in use";
        problems.push(problem(Weight::Blocks, what, "sysctl -w vm.overcommit_memory=0"));
    }
    if let (Some(limit), Some(file)) = (settings.memory_limit_bytes, &settings.memory_limit_file) {
        if limit < total_bytes {
            let what = format!("a control group limits memory to {}, of {}", Bytes(limit), Bytes(total_bytes));
            let none = if settings.cgroup_version == Some(1) { "-1" } else { "max" };
            problems.push(problem(Weight::Note, what, format!("echo {none} > {}", file.display())));
        }
    }
    problems
}

fn kernel(facts: &Facts) -> Vec<Problem> {
    let mut problems = Vec::new();
    let settings = &facts.settings;
    if facts.slow_node.is_some() && settings.numa_balancing.as_deref().is_some_and(|value| value != "0") {
        let what = "NUMA balancing is on: the kernel moves pages as well, against the plan";
        problems.push(problem(Weight::Hurts, what, "sysctl -w kernel.numa_balancing=0"));
    }
    match settings.transparent_huge_pages.as_deref() {
        Some("madvise") => {}
        Some("always") if facts.slow_node.is_none() => {}
        Some("always") => {
            let what = "transparent huge pages are always on: a tensor that moves takes its neighbours in the same 2 MiB along";
            problems.push(problem(Weight::Hurts, what, "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled"));
        }
        found => {
            let what = format!(
                "transparent huge pages are {}: pages move one by one, which is slower",
                found.unwrap_or("missing in this kernel")
            );
            problems.push(problem(Weight::Hurts, what, "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled"));
        }
    }
    problems
}

fn swap(facts: &Facts) -> Vec<Problem> {
    let mut problems = Vec::new();
    if facts.swap_areas.is_empty() {
        let what = "there is no swap: a training that does not fit into memory is killed";
        problems.push(problem(Weight::Note, what, MAKE_SWAP));
    }
    // Version 1 limits the sum with memory, so its limit says nothing about swap alone.
    let settings = &facts.settings;
    if let (Some(2), Some(0), Some(file)) =
        (settings.cgroup_version, settings.swap_limit_bytes, &settings.swap_limit_file)
    {
        let what = "a control group forbids swap to this process";
        problems.push(problem(Weight::Note, what, format!("echo max > {}", file.display())));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::facts::{Node, Python, Settings};
    use crate::python::{Installed, Tried};
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    /// A machine with a memory-only node on which all is well.
    fn healthy() -> Facts {
        let node = |id, cpus: &[u32]| Node { id, cpus: cpus.to_vec(), total_bytes: 64 << 30, ..Node::default() };
        let installed = Installed {
            python: "3.7.17".into(),
            executable: "/venv/bin/python".into(),
            tensorflow: Some("1.13.1".into()),
            folder: Some("/venv/tensorflow".into()),
            library: true,
        };
        Facts {
            nodes: vec![node(0, &[0, 1]), node(1, &[])],
            slow_node: Some(1),
            settings: Settings {
                transparent_huge_pages: Some("madvise".into()),
                numa_balancing: Some("0".into()),
                overcommit_memory: Some("0".into()),
                ..Settings::default()
            },
            permissions: BTreeMap::from([("mbind", None), ("move_pages", None)]),
            swap_areas: vec![super::super::facts::SwapArea {
                path: "/dev/zram0".into(),
                kind: "zram",
                behind_zswap: false,
                total_bytes: 1 << 30,
                used_bytes: 0,
            }],
            python: Python {
                looked_for: "python".into(),
                installed: Some(installed),
                tried: Some(Tried { version: "1.13.1".into(), active: true, message: None }),
                error: None,
            },
            ..Facts::default()
        }
    }

    #[test]
    fn a_healthy_machine_has_no_problems() {
        assert!(of(&healthy()).is_empty(), "{:?}", of(&healthy()));
    }

    /// Each change to a healthy machine, and what the one problem that it makes must say.
    #[test]
    fn each_problem_is_found_and_has_its_command() {
        type Change = fn(&mut Facts);
        let cases: [(Change, Weight, &str, &str); 15] = [
            (|f| f.slow_node = None, Weight::Note, "one memory node", "--slow swap"),
            (|f| f.nodes[1].cpus = vec![2], Weight::Note, "CPUs of its own", "--measure"),
            (|f| f.nodes[1].error = Some("mbind".into()), Weight::Hurts, "node 1 cannot be measured", "Mems_allowed"),
            (|f| drop(f.permissions.insert("mbind", Some("EPERM".into()))), Weight::Blocks, "mbind", "SYS_NICE"),
            (|f| f.settings.numa_balancing = Some("1".into()), Weight::Hurts, "balancing", "numa_balancing=0"),
            (|f| f.settings.transparent_huge_pages = Some("never".into()), Weight::Hurts, "never", "echo madvise"),
            (
                |f| f.settings.transparent_huge_pages = Some("always".into()),
                Weight::Hurts,
                "neighbours",
                "echo madvise",
            ),
            (|f| f.settings.transparent_huge_pages = None, Weight::Hurts, "missing", "transparent_hugepage"),
            (|f| f.settings.overcommit_memory = Some("2".into()), Weight::Blocks, "overcommit", "overcommit_memory=0"),
            (|f| f.settings.address_space_limit_bytes = Some(1 << 30), Weight::Blocks, "1.0 GiB", "ulimit -v"),
            (
                |f| {
                    f.settings.memory_limit_bytes = Some(1 << 30);
                    f.settings.memory_limit_file = Some(PathBuf::from("/cg/memory.max"));
                },
                Weight::Note,
                "limits memory to 1.0 GiB",
                "echo max > /cg/memory.max",
            ),
            (|f| f.swap_areas.clear(), Weight::Note, "no swap", "mkswap"),
            (|f| f.python.installed = None, Weight::Blocks, "no Python answers (python)", "--python"),
            (
                |f| f.python.installed.as_mut().expect("healthy").library = false,
                Weight::Blocks,
                "TensorFlow 1.13.1 without Sentinel",
                "pip install",
            ),
            (
                |f| f.python.tried.as_mut().expect("healthy").active = false,
                Weight::Blocks,
                "took no part",
                "pip install",
            ),
        ];
        for (change, weight, what, fix) in cases {
            let mut facts = healthy();
            change(&mut facts);
            let problems = of(&facts);
            assert_eq!(problems.len(), 1, "{what}: {problems:?}");
            let found = &problems[0];
            assert!(found.weight == weight && found.what.contains(what) && found.fix.contains(fix), "{found:?}");
        }
    }

    #[test]
    fn what_blocks_comes_first() {
        let mut facts = healthy();
        facts.swap_areas.clear();
        facts.slow_node = None;
        facts.settings.transparent_huge_pages = None;
        let problems = of(&facts);
        assert!(problems[0].what.contains("one memory node and no swap"), "{problems:?}");
        let weights: Vec<Weight> = problems.iter().map(|problem| problem.weight).collect();
        assert_eq!(weights, [Weight::Blocks, Weight::Hurts, Weight::Note]);
    }
}
