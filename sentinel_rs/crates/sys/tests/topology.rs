//! The topology of machines that are folders of files, and of the machine that runs the test.

#[path = "common/fake_machine.rs"]
mod fake_machine;

use fake_machine::FakeMachine;
use std::path::Path;
use sys::host::NODES;
use sys::topology::{total_ram_bytes, Node, NodeList, Topology};
use sys::Error;

const GIB: u64 = 1 << 30;

/// What the kernel's folder of nodes looks like.
trait Nodes {
    fn online(&self, list: &str) -> &Self;
    fn node(&self, id: u32, cpus: &str, gibibytes: u64, distance: &str) -> &Self;
    fn read(&self) -> Result<Topology, Error>;
}

impl Nodes for FakeMachine {
    fn online(&self, list: &str) -> &Self {
        self.file(&format!("{NODES}/online"), list)
    }

    fn node(&self, id: u32, cpus: &str, gibibytes: u64, distance: &str) -> &Self {
        let folder = format!("{NODES}/node{id}");
        let memory = format!("Node {id} MemTotal:  {} kB\nNode {id} MemFree:  0 kB\n", gibibytes << 20);
        self.file(&format!("{folder}/cpulist"), cpus);
        self.file(&format!("{folder}/meminfo"), &memory);
        self.file(&format!("{folder}/distance"), distance)
    }

    fn read(&self) -> Result<Topology, Error> {
        Topology::probe(&self.root.join(NODES))
    }
}

#[test]
fn a_machine_with_memory_only_nodes() {
    let machine = FakeMachine::new("optane");
    machine.online("0,2-3\n").node(0, "0-31\n", 64, "10 17 28\n");
    machine.node(2, "\n", 256, "17 10 28\n").node(3, "\n", 0, "28 28 10\n");
    let topology = machine.read().unwrap();
    let cpus: Vec<(u32, bool)> = topology.nodes.iter().map(|node| (node.id, node.has_cpus)).collect();
    assert_eq!(cpus, [(0, true), (2, false), (3, false)]);
    let slow = Node { id: 2, has_cpus: false, total_bytes: 256 * GIB, distances: vec![(0, 17), (2, 10), (3, 28)] };
    assert_eq!(topology.node(2), Some(&slow));
    assert_eq!(topology.node(1), None, "node 1 is offline");
}

#[test]
fn a_kernel_without_nodes_has_one() {
    let topology = FakeMachine::new("flat").read().unwrap();
    let node = Node { id: 0, has_cpus: true, total_bytes: total_ram_bytes().unwrap(), distances: vec![] };
    assert_eq!(topology, Topology { nodes: vec![node] });
}

#[test]
fn files_that_are_missing_or_odd_are_named() {
    let machine = FakeMachine::new("odd");
    machine.online("0\n").node(0, "0\n", 1, "10 20\n");
    let message = machine.read().unwrap_err().to_string();
    assert!(message.ends_with("node0/distance holds `10 20`, expected one number for each node that is online"));
    machine.node(0, "0\n", 1, "10\n").file(&format!("{NODES}/node0/meminfo"), "Node 0 MemTotal: lots\n");
    let message = machine.read().unwrap_err().to_string();
    assert!(message.ends_with("node0/meminfo holds `lots`, expected a line with MemTotal in kB"), "{message}");
    machine.online("all\n");
    let message = machine.read().unwrap_err().to_string();
    assert!(message.ends_with("online holds `all`, expected a list of nodes such as 0-1"), "{message}");
    machine.online("1\n");
    let error = machine.read().unwrap_err();
    assert_eq!((error.operation(), error.errno()), ("read", 2));
    assert!(error.to_string().contains("node1/cpulist"), "{error}");
    let error = machine.online("").read().unwrap_err();
    assert_eq!((error.operation(), error.errno()), ("parse", 0));
}

#[test]
fn a_distance_file_may_be_missing() {
    let machine = FakeMachine::new("no_distance");
    machine.online("0\n").node(0, "0\n", 1, "10\n");
    std::fs::remove_file(machine.root.join(NODES).join("node0/distance")).unwrap();
    assert_eq!(machine.read().unwrap().nodes[0].distances, []);
}

#[test]
fn this_machine_can_be_read() {
    let topology = Topology::probe(&Path::new("/").join(NODES)).unwrap();
    assert!(topology.nodes.iter().any(|node| node.has_cpus && node.total_bytes > 0));
    // The two need not agree: a virtual machine may be given memory that no node counts yet.
    assert!(topology.nodes.iter().map(|node| node.total_bytes).sum::<u64>() > GIB / 8);
    assert!(total_ram_bytes().unwrap() > GIB / 8);
}

#[test]
fn node_lists_are_those_of_numactl() {
    let lists: [(&str, &[u32]); 6] = [
        ("0", &[0]),
        ("1-2", &[1, 2]),
        ("0,2-3", &[0, 2, 3]),
        (" 1\n", &[1]),
        ("3,1-2,2", &[1, 2, 3]),
        ("1023", &[1023]),
    ];
    for (text, nodes) in lists {
        assert_eq!(NodeList::parse(text).unwrap().nodes(), nodes, "{text}");
    }
    let wrong = [
        ("", "`` is not a number"),
        ("0,", "`` is not a number"),
        ("a", "`a` is not a number"),
        ("+1", "`+1` is not a number"),
        ("-1", "`` is not a number"),
        ("0 1", "`0 1` is not a number"),
        ("1-2-3", "`2-3` is not a number"),
        ("2-1", "`2-1` ends before it begins"),
        ("1024", "node 1024 is above 1023"),
        ("99999999999", "`99999999999` is not a number"),
    ];
    for (text, reason) in wrong {
        let message = NodeList::parse(text).unwrap_err().to_string();
        assert_eq!(message, format!("`{text}` is not a list of nodes such as `0`, `1-2` or `0,2-3`: {reason}"));
    }
}

#[test]
fn node_lists_are_printed_in_their_shortest_form() {
    for (text, shortest) in [("0", "0"), ("2,1", "1-2"), ("0-0,2,3,4,7", "0,2-4,7")] {
        assert_eq!(NodeList::parse(text).unwrap().to_string(), shortest);
    }
    assert_eq!(NodeList::single(3), NodeList::parse("3").unwrap());
}
