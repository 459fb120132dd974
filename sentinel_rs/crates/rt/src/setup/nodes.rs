//! Which memory nodes are the tiers, and what the machine says about them.

use super::{resource, SetupError};
use crate::options::{Failure, Options};
use plan::Machine;
use std::path::Path;
use sys::topology::{Node, NodeList, Topology};

/// Bytes that go there and back, three times, to learn how fast moves are; a few milliseconds on a real machine.
const MEASURED_BYTES: usize = 1 << 20;
/// One of so many CPUs may be busy with moves in one direction, when the user does not say.
const CPUS_PER_MOVER: usize = 4;

/// The tiers of this machine, each with the node to fill first at its begin.
#[derive(Debug)]
pub(super) struct Chosen {
    pub(super) fast: Vec<u32>,
    pub(super) slow: Vec<u32>,
    topology: Topology,
    /// A slow node that nobody asked for has CPUs.
    has_cpus: Option<u32>,
}

/// Fast and slow nodes: those asked for when they exist; else the CPU-less ones are slow, else the next node with a warning.
/// Root is `/` except in tests.
pub(super) fn choose(root: &Path, options: &Options, asked: Option<&NodeList>) -> Result<Chosen, SetupError> {
    let topology = Topology::probe(&root.join(sys::host::NODES)).map_err(|error| resource(options, &error))?;
    let online: Vec<u32> = topology.nodes.iter().map(|node| node.id).collect();
    let refuse = |option: &'static str, list: &NodeList, reason: String| SetupError::Resource {
        option,
        value: format!("node:{list}"),
        reason,
    };
    let check = |option: &'static str, list: &NodeList| -> Result<(), SetupError> {
        let node = |id: &u32| topology.node(*id);
        if list.nodes().iter().any(|id| node(id).is_none()) {
            let accepted = accepted(&topology, options, option);
            return Err(refuse(option, list, format!("no such node; this machine has node {online:?}; {accepted}")));
        }
        match list.nodes().iter().filter_map(node).find(|node| node.total_bytes == 0) {
            Some(node) => {
                Err(refuse(option, list, format!("node {} has no memory; accepted is one that has", node.id)))
            }
            None => Ok(()),
        }
    };
    check("fast_nodes", &options.fast_nodes)?;
    let fast = options.fast_nodes.nodes().to_vec();
    let (slow, has_cpus) = match asked {
        Some(list) => {
            check("slow", list)?;
            if let Some(both) = list.nodes().iter().find(|node| fast.contains(node)) {
                let accepted = accepted(&topology, options, "slow");
                let reason = format!("node {both} is among the fast nodes; {accepted}");
                return Err(refuse("slow", list, reason));
            }
            (list.nodes().to_vec(), None)
        }
        None => default_slow(&topology, &fast)?,
    };
    let slow = nearest_first(&topology, &fast, slow);
    Ok(Chosen { fast, slow, topology, has_cpus })
}

/// What the option may say on this machine instead.
fn accepted(topology: &Topology, options: &Options, option: &str) -> String {
    let with_memory = topology.nodes.iter().filter(|node| node.total_bytes > 0).map(|node| node.id);
    if option == "slow" {
        let fast = options.fast_nodes.nodes();
        return accepted_slow(&with_memory.filter(|id| !fast.contains(id)).collect::<Vec<u32>>());
    }
    format!("accepted are nodes of {:?}", with_memory.collect::<Vec<u32>>())
}

/// What the slow tier may be where these nodes are free for it.
fn accepted_slow(nodes: &[u32]) -> String {
    let others = "swap, or emulated:MACHINE";
    let nodes: String = nodes.iter().map(|id| format!("node:{id}, ")).collect();
    format!("accepted are {nodes}{others}")
}

/// Whether the machine has memory of one kind: no node with memory beside the fast ones.
pub(super) fn is_single(root: &Path, options: &Options) -> Result<bool, SetupError> {
    let topology = Topology::probe(&root.join(sys::host::NODES)).map_err(|error| resource(options, &error))?;
    let fast = options.fast_nodes.nodes();
    let has = |id: &u32| topology.node(*id).is_some_and(|node| node.total_bytes > 0);
    let other = |node: &&Node| node.total_bytes > 0 && !fast.contains(&node.id);
    Ok(fast.iter().all(has) && !topology.nodes.iter().any(|node| other(&node)))
}

fn default_slow(topology: &Topology, fast: &[u32]) -> Result<(Vec<u32>, Option<u32>), SetupError> {
    let others = || topology.nodes.iter().filter(|node| !fast.contains(&node.id) && node.total_bytes > 0);
    let memory_only: Vec<u32> = others().filter(|node| !node.has_cpus).map(|node| node.id).collect();
    if !memory_only.is_empty() {
        return Ok((memory_only, None));
    }
    match others().next() {
        Some(node) => Ok((vec![node.id], Some(node.id))),
        None => {
            let reason = format!("this machine has one memory node; {}", accepted_slow(&[]));
            Err(SetupError::Resource { option: "slow", value: "numa".to_owned(), reason })
        }
    }
}

/// Several kinds of slow memory are filled in the order of their distance.
fn nearest_first(topology: &Topology, fast: &[u32], mut slow: Vec<u32>) -> Vec<u32> {
    slow.sort_by_key(|&id| (distance(topology, fast, id), id));
    slow
}

/// The least distance of a node from the fast ones, as the firmware has it.
fn distance(topology: &Topology, fast: &[u32], id: u32) -> Option<u32> {
    let from = fast.iter().filter_map(|&node| topology.node(node));
    from.flat_map(|node| &node.distances).filter(|&&(to, _)| to == id).map(|&(_, distance)| distance).min()
}

impl Chosen {
    fn bytes(&self, nodes: &[u32]) -> u64 {
        nodes.iter().filter_map(|&id| self.topology.node(id)).map(|node| node.total_bytes).sum()
    }

    /// One mover per slow node and direction, as each node is a channel of its own; but the training needs the CPUs.
    pub(super) fn mover_threads(&self) -> u32 {
        let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
        u32::try_from(self.slow.len().min(cpus / CPUS_PER_MOVER)).unwrap_or(1).max(1)
    }

    /// The budget, if the fast nodes can hold it; otherwise all of them with a warning, or an error when strict.
    pub(super) fn fitting(&self, fast_bytes: u64, options: &Options) -> Result<u64, SetupError> {
        let capacity = self.bytes(&self.fast);
        if fast_bytes == u64::MAX || fast_bytes <= capacity {
            return Ok(fast_bytes);
        }
        let list = &options.fast_nodes;
        let reason = format!("node:{list} has {capacity} bytes; accepted is at most that");
        let error = SetupError::Resource { option: "fast", value: options.fast.to_string(), reason };
        if options.failure == Failure::Strict {
            return Err(error);
        }
        log::warn!("{error}; {capacity} bytes are taken");
        Ok(capacity)
    }

    /// The machine with the speed at which pages really move between these nodes, when the system lets us measure it.
    pub(super) fn as_fast_as_it_is(&self, machine: Machine) -> Machine {
        let (Some(&fast), Some(&slow)) = (self.fast.first(), self.slow.first()) else { return machine };
        match sys::measure::move_speed(fast, slow, MEASURED_BYTES, false) {
            Ok(Some(speed)) => {
                log::info!(
                    "sentinel: pages move at {:.3} GB/s to node {slow} and at {:.3} GB/s back",
                    speed.there_gbps,
                    speed.back_gbps
                );
                Machine { promote_gbps: speed.back_gbps, demote_gbps: speed.there_gbps, ..machine }
            }
            Ok(None) => machine,
            Err(error) => {
                log::info!("sentinel: the speed of moves is not known before there are some: {error}");
                machine
            }
        }
    }

    /// Says what the tiers are, and warns of what will work against them.
    pub(super) fn announce(&self, root: &Path) {
        for (tier, nodes) in [("fast", &self.fast), ("slow", &self.slow)] {
            for node in nodes.iter().filter_map(|&id| self.topology.node(id)) {
                log::info!("sentinel: {tier} {}", self.describe(root, node));
            }
        }
        if let Some(node) = self.has_cpus {
            log::warn!("sentinel: node {node} is taken as slow memory, but it has CPUs of its own");
        }
        if let Some(warning) = balancing(root) {
            log::warn!("{warning}");
        }
    }

    fn describe(&self, root: &Path, node: &Node) -> String {
        let cpus = if node.has_cpus { "with CPUs" } else { "without CPUs" };
        let far = distance(&self.topology, &self.fast, node.id).map_or("unknown".to_owned(), |far| far.to_string());
        let hmat = sys::host::hmat(root, node.id).map_or("none".to_owned(), |hmat| {
            format!("{} MiB/s read, {} MiB/s written, {} ns", hmat.read_mibps, hmat.write_mibps, hmat.read_ns)
        });
        format!("node {}: {} MiB {cpus}, distance {far}, HMAT {hmat}", node.id, node.total_bytes >> 20)
    }
}

/// The kernel's own balancing moves pages to the CPUs that use them, and so undoes every demotion.
fn balancing(root: &Path) -> Option<String> {
    const PATH: &str = "proc/sys/kernel/numa_balancing";
    let setting = sys::host::setting(root, PATH).filter(|setting| setting != "0")?;
    Some(format!(
        "sentinel: the kernel's NUMA balancing is on (/{PATH} = {setting}) and moves pages against the plan; turn it off \
         with: echo 0 | sudo tee /{PATH}"
    ))
}

#[cfg(test)]
mod tests;
