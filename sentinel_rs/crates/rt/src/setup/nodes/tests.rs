//! Choices on machines that are folders of files.

use super::*;
use crate::options;
use std::path::PathBuf;

const GIB: u64 = 1 << 30;

/// A machine with these nodes: number, whether it has CPUs, GiB, distances to all.
fn machine(name: &str, nodes: &[(u32, bool, u64, &str)]) -> PathBuf {
    let root = std::env::temp_dir().join(format!("sentinel-nodes-{}-{name}", std::process::id()));
    let folder = root.join(sys::host::NODES);
    std::fs::create_dir_all(&folder).expect("a folder for the machine");
    let online: Vec<String> = nodes.iter().map(|node| node.0.to_string()).collect();
    std::fs::write(folder.join("online"), online.join(",")).expect("a file");
    for &(id, has_cpus, gib, distances) in nodes {
        let own = folder.join(format!("node{id}"));
        std::fs::create_dir_all(&own).expect("a folder for the node");
        std::fs::write(own.join("cpulist"), if has_cpus { "0-1\n" } else { "\n" }).expect("a file");
        let info = format!("Node {id} MemTotal: {} kB\n", gib << 20);
        std::fs::write(own.join("meminfo"), info).expect("a file");
        std::fs::write(own.join("distance"), distances).expect("a file");
    }
    root
}

fn options(pairs: &[(&str, &str)]) -> Options {
    let pairs: Vec<(String, String)> = pairs
        .iter()
        .chain(&[("SENTINEL_FAST", "1G")])
        .map(|&(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    options::parse(&[], &pairs).expect("good options").expect("a budget")
}

fn chosen(root: &Path, fast: &str, slow: Option<&str>) -> Result<Chosen, String> {
    let list = slow.map(|text| NodeList::parse(text).expect("a list"));
    choose(root, &options(&[("SENTINEL_FAST_NODES", fast)]), list.as_ref()).map_err(|error| error.to_string())
}

#[test]
fn nodes_without_processors_are_slow_by_default_and_the_nearest_is_filled_first() {
    let root = machine(
        "cxl",
        &[
            (0, true, 4, "10 20 40 30"),
            (1, true, 4, "20 10 40 30"),
            (2, false, 8, "40 40 10 30"),
            (3, false, 8, "30 30 30 10"),
        ],
    );
    let by_default = chosen(&root, "node:0", None).expect("nodes 2 and 3 have no CPUs");
    assert_eq!((&by_default.fast, &by_default.slow, by_default.has_cpus), (&vec![0], &vec![3, 2], None));
    let lists = chosen(&root, "node:0-1", Some("2,3")).expect("all exist");
    assert_eq!((&lists.fast, &lists.slow), (&vec![0, 1], &vec![3, 2]));
    assert_eq!((lists.bytes(&lists.fast), lists.bytes(&lists.slow)), (8 * GIB, 16 * GIB));
    let node = lists.topology.node(3).expect("it exists");
    assert_eq!(lists.describe(&root, node), "node 3: 8192 MiB without CPUs, distance 30, HMAT none");
    std::fs::remove_dir_all(root).expect("ours");
}

#[test]
fn two_sockets_are_tiers_with_a_warning() {
    let root = machine("sockets", &[(0, true, 4, "10 21"), (1, true, 4, "21 10")]);
    let by_default = chosen(&root, "node:0", None).expect("node 1 is left");
    assert_eq!((&by_default.slow, by_default.has_cpus), (&vec![1], Some(1)));
    let asked = chosen(&root, "node:1", Some("0")).expect("both exist");
    assert_eq!((&asked.fast, &asked.slow, asked.has_cpus), (&vec![1], &vec![0], None));
    std::fs::remove_dir_all(root).expect("ours");
}

#[test]
fn what_cannot_be_names_option_value_and_what_is_accepted() {
    let root = machine("few", &[(0, true, 4, "10 20 30"), (1, false, 0, "20 10 30"), (2, false, 4, "30 30 10")]);
    for (fast, slow, parts) in [
        ("node:7", Some("2"), ["fast_nodes = node:7", "no such node", "[0, 1, 2]"]),
        ("node:0", Some("2,5"), ["slow = node:2,5", "no such node", "[0, 1, 2]"]),
        ("node:0", Some("0"), ["slow = node:0", "among the fast nodes", "accepted are node:2, swap, or"]),
        ("node:0", Some("1"), ["slow = node:1", "no memory", "one that has"]),
    ] {
        let text = chosen(&root, fast, slow).expect_err("must be refused");
        for part in parts {
            assert!(text.contains(part), "{text:?} does not say {part:?}");
        }
    }
    assert_eq!(chosen(&root, "node:0", None).expect("node 2 has memory").slow, [2]);
    std::fs::remove_dir_all(root).expect("ours");
    let root = machine("one", &[(0, true, 4, "10")]);
    for (slow, part) in [(None, "one memory node; accepted are swap, or"), (Some("9"), "[0]; accepted are swap, or")] {
        let text = chosen(&root, "node:0", slow).expect_err("one node");
        assert!(text.contains(part), "{text:?} does not say {part:?}");
    }
    std::fs::remove_dir_all(root).expect("ours");
}

#[test]
fn more_than_the_fast_nodes_hold_is_cut_or_refused() {
    let root = machine("small", &[(0, true, 4, "10 20"), (1, false, 8, "20 10")]);
    let two = chosen(&root, "node:0", None).expect("two nodes");
    let advisory = options(&[]);
    assert_eq!(two.fitting(GIB, &advisory).expect("fits"), GIB);
    assert_eq!(two.fitting(9 * GIB, &advisory).expect("is cut"), 4 * GIB);
    assert_eq!(two.fitting(u64::MAX, &advisory).expect("no limit"), u64::MAX);
    let strict = options(&[("SENTINEL_FAILURE", "strict")]);
    let text = two.fitting(9 * GIB, &strict).expect_err("too much").to_string();
    assert!(text.contains("fast = ") && text.contains(&(4 * GIB).to_string()), "{text}");
    std::fs::remove_dir_all(root).expect("ours");
}

#[test]
fn balancing_is_warned_of_with_the_command_that_ends_it() {
    let root = machine("balanced", &[(0, true, 4, "10")]);
    std::fs::create_dir_all(root.join("proc/sys/kernel")).expect("a folder");
    assert_eq!(balancing(&root), None, "a kernel without it");
    for (setting, warned) in [("0\n", false), ("1\n", true), ("2\n", true)] {
        std::fs::write(root.join("proc/sys/kernel/numa_balancing"), setting).expect("a file");
        let warning = balancing(&root);
        assert_eq!(warning.is_some(), warned);
        assert!(warning.is_none_or(|text| text.contains("echo 0 | sudo tee /proc/sys/kernel/numa_balancing")));
    }
    std::fs::remove_dir_all(root).expect("ours");
}
