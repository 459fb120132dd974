//! What is so on this machine: read from the kernel, asked of Python, measured.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;
use sys::host::{self, NODES};
use sys::measure::{self, Bandwidth};
use sys::numa::{self, PageStatus, Policy};
use sys::profiler::{Device, Mode};
use sys::topology::Topology;

use crate::python::{self, Installed, Tried};

/// Least and largest buffer for measuring a node's memory.
const BUFFER_BYTES: (u64, u64) = (256 << 20, 2 << 30);
/// The buffer is this many times the last-level cache, so that at most a small part of it is served from there.
const CACHES_IN_BUFFER: u64 = 8;
/// Bytes that are moved between nodes, and to swap.
const MOVED_BYTES: usize = 64 << 20;

/// All that was found.
#[derive(Debug, Default, Serialize)]
pub struct Facts {
    pub kernel: Option<String>,
    pub nodes: Vec<Node>,
    /// The node that holds fast memory unless the user says otherwise, and the one that holds slow memory.
    pub fast_node: u32,
    pub slow_node: Option<u32>,
    pub last_level_cache_bytes: Option<u64>,
    /// How the memory was measured; `None` when it was not.
    pub measured: Option<Measured>,
    pub moves: Vec<Move>,
    pub swap_areas: Vec<SwapArea>,
    pub swap_speed: Vec<SwapSpeed>,
    pub settings: Settings,
    pub permissions: BTreeMap<&'static str, Option<String>>,
    pub kernel_profiler: KernelProfiler,
    pub python: Python,
}

#[derive(Debug, Default, Serialize)]
pub struct Node {
    pub id: u32,
    pub cpus: Vec<u32>,
    pub total_bytes: u64,
    pub free_bytes: Option<u64>,
    pub distances: Vec<(u32, u32)>,
    pub hmat: Option<Hmat>,
    pub read_gbps: Option<f64>,
    pub write_gbps: Option<f64>,
    pub latency_ns: Option<f64>,
    /// Why it could not be measured.
    pub error: Option<String>,
}

#[derive(Debug, Serialize)]
pub struct Hmat {
    pub read_gbps: f64,
    pub write_gbps: f64,
    pub read_ns: u64,
    pub write_ns: u64,
}

#[derive(Debug, Serialize)]
pub struct Measured {
    pub threads: usize,
    pub cpus: Vec<u32>,
    pub buffer_bytes: u64,
    /// Read bandwidth of one thread from the fast node.
    pub one_thread_read_gbps: Option<f64>,
}

/// Moving pages from the fast node to the slow one, and back.
#[derive(Debug, Serialize)]
pub struct Move {
    pub page_bytes: usize,
    pub demote_gbps: Option<f64>,
    pub promote_gbps: Option<f64>,
    pub error: Option<String>,
}

#[derive(Debug, Serialize)]
pub struct SwapArea {
    pub path: String,
    pub kind: &'static str,
    pub behind_zswap: bool,
    pub total_bytes: u64,
    pub used_bytes: u64,
}

#[derive(Debug, Serialize)]
pub struct SwapSpeed {
    /// 4 KiB, or 2 MiB where huge pages were asked for.
    pub page_bytes: usize,
    pub out_gbps: Option<f64>,
    pub in_gbps: Option<f64>,
    pub fault_ns: Option<f64>,
    pub error: Option<String>,
}

#[derive(Debug, Default, Serialize)]
pub struct Settings {
    pub transparent_huge_pages: Option<String>,
    pub numa_balancing: Option<String>,
    pub overcommit_memory: Option<String>,
    pub address_space_limit_bytes: Option<u64>,
    pub cgroup_version: Option<u32>,
    pub memory_limit_bytes: Option<u64>,
    pub memory_limit_file: Option<PathBuf>,
    pub memory_used_bytes: Option<u64>,
    pub swap_limit_bytes: Option<u64>,
    pub swap_limit_file: Option<PathBuf>,
}

/// The kernel's page-access profiler.
#[derive(Debug, Default, Serialize)]
pub struct KernelProfiler {
    /// Profiled steps can be counted by it.
    pub usable: bool,
    pub abi_version: Option<u32>,
    /// How a page is made to fault.
    pub mechanism: Option<String>,
    /// `tlb_miss`, `exact`.
    pub modes: Vec<&'static str>,
    /// Built into the kernel; false for the experimental module.
    pub patched: Option<bool>,
    pub max_pages: Option<u64>,
    /// Why it cannot be used.
    pub error: Option<String>,
}

impl KernelProfiler {
    fn look(root: &Path) -> KernelProfiler {
        match Device::open(&root.join("dev/sentinel")) {
            Ok((_, info)) => KernelProfiler {
                usable: info.tlb_miss,
                abi_version: Some(info.abi_version),
                modes: [Mode::TlbMiss, Mode::Exact].into_iter().filter(|&m| info.takes(m)).map(Mode::name).collect(),
                mechanism: Some(info.mechanism_name),
                patched: Some(info.patched),
                max_pages: Some(info.max_pages),
                error: None,
            },
            Err(error) => KernelProfiler { error: Some(error.to_string()), ..KernelProfiler::default() },
        }
    }

    /// One line for people.
    pub fn in_words(&self) -> String {
        let (Some(abi), Some(mechanism)) = (self.abi_version, &self.mechanism) else {
            let why = self.error.as_deref().unwrap_or("it was not looked for");
            return format!("none; accesses are counted per operation ({why})");
        };
        let kind = if self.patched == Some(true) { "built in" } else { "experimental module" };
        let modes = if self.modes.is_empty() { "no mode".to_owned() } else { self.modes.join(" and ") };
        format!("{mechanism}, ABI {abi}, {modes}, {kind}")
    }
}

#[derive(Debug, Default, Serialize)]
pub struct Python {
    /// What was asked, or the names that were looked for.
    pub looked_for: String,
    pub installed: Option<Installed>,
    pub tried: Option<Tried>,
    /// Why there is no answer.
    pub error: Option<String>,
}

/// Reads everything below `root`, which is `/` except in tests, and asks Python; measures nothing.
pub fn gather(root: &Path, python: Option<&Path>) -> Result<Facts, sys::Error> {
    let topology = Topology::probe(&root.join(NODES))?;
    let nodes: Vec<Node> = topology.nodes.iter().map(|node| read_node(root, node)).collect();
    let fast_node = nodes.iter().find(|node| node.id == 0).or(nodes.first()).map_or(0, |node| node.id);
    let others = || nodes.iter().filter(|node| node.id != fast_node);
    // As the runtime chooses.
    let slow_node = others().find(|node| node.cpus.is_empty()).or_else(|| others().next()).map(|node| node.id);
    Ok(Facts {
        kernel: host::setting(root, "proc/sys/kernel/osrelease"),
        fast_node,
        slow_node,
        nodes,
        last_level_cache_bytes: host::last_level_cache_bytes(root),
        swap_areas: host::swaps(root).into_iter().map(swap_area).collect(),
        settings: settings(root),
        permissions: permissions(fast_node),
        kernel_profiler: KernelProfiler::look(root),
        python: look_for_python(python),
        ..Facts::default()
    })
}

fn read_node(root: &Path, node: &sys::topology::Node) -> Node {
    #[allow(clippy::cast_precision_loss)] // a rate
    let gbps = |mibps: u64| (mibps << 20) as f64 / 1e9;
    Node {
        id: node.id,
        // A kernel without nodes has all CPUs on the only one.
        cpus: host::cpus_of_node(root, node.id).unwrap_or_else(measure::allowed_cpus),
        total_bytes: node.total_bytes,
        free_bytes: host::free_bytes(root, node.id),
        distances: node.distances.clone(),
        hmat: host::hmat(root, node.id).map(|hmat| Hmat {
            read_gbps: gbps(hmat.read_mibps),
            write_gbps: gbps(hmat.write_mibps),
            read_ns: hmat.read_ns,
            write_ns: hmat.write_ns,
        }),
        ..Node::default()
    }
}

fn swap_area(swap: host::Swap) -> SwapArea {
    SwapArea {
        path: swap.path,
        kind: swap.kind.name(),
        behind_zswap: swap.behind_zswap,
        total_bytes: swap.total_bytes,
        used_bytes: swap.used_bytes,
    }
}

fn settings(root: &Path) -> Settings {
    let limits = host::memory_limits(root);
    let (memory_limit_bytes, memory_limit_file) = limits.memory.unzip();
    let (swap_limit_bytes, swap_limit_file) = limits.swap.unzip();
    Settings {
        transparent_huge_pages: host::chosen(root, "sys/kernel/mm/transparent_hugepage/enabled"),
        numa_balancing: host::setting(root, "proc/sys/kernel/numa_balancing"),
        overcommit_memory: host::setting(root, "proc/sys/vm/overcommit_memory"),
        address_space_limit_bytes: host::address_space_limit_bytes(),
        cgroup_version: limits.version,
        memory_limit_bytes,
        memory_limit_file,
        memory_used_bytes: limits.used_bytes,
        swap_limit_bytes,
        swap_limit_file,
    }
}

/// Tries the calls that tiering needs on memory of our own: the call's name and why it is refused, `None` when it is not.
fn permissions(node: u32) -> BTreeMap<&'static str, Option<String>> {
    let said = |error: sys::Error| Some(error.to_string());
    let memory = sys::memory::reserve(sys::memory::PAGE_BYTES);
    let Ok(range) = memory else {
        return BTreeMap::from([("mmap", memory.err().and_then(said))]);
    };
    let bound = numa::bind(&range, Policy::Preferred, &[node]);
    // A page that was never touched cannot move, but whether the call is allowed shows all the same.
    let moved = numa::move_pages(&[range.start], node).map(|statuses| match statuses.first() {
        Some(PageStatus::Failed(errno)) if *errno != sys::errno::ENOENT && *errno != sys::errno::EFAULT => {
            Some(sys::errno_text(*errno))
        }
        _ => None,
    });
    BTreeMap::from([("mbind", bound.err().and_then(said)), ("move_pages", moved.unwrap_or_else(said))])
}

/// The interpreter that was asked for, else the best in PATH and beside this command, where pip puts both: one with
/// Sentinel, else one with TensorFlow, else any.
fn look_for_python(asked: Option<&Path>) -> Python {
    const NAMES: [&str; 3] = ["python", "python3.7", "python3"];
    let looked_for = asked.map_or_else(|| NAMES.join(", "), |path| path.display().to_string());
    let beside = std::env::current_exe().ok().map(|own| own.with_file_name("python")).filter(|python| python.is_file());
    let in_path = NAMES.map(PathBuf::from);
    let names = asked.map_or_else(|| in_path.into_iter().chain(beside).collect(), |path| vec![path.to_owned()]);
    let answers: Vec<(PathBuf, Result<Installed, String>)> =
        Vec::into_iter(names).map(|name| (name.clone(), python::installed(&name))).collect();
    let best = answers.iter().filter_map(|(name, answer)| Some((name, answer.as_ref().ok()?)));
    let best = best.max_by_key(|(_, found)| (found.library, found.tensorflow.is_some()));
    let Some((name, installed)) = best else {
        let error =
            answers.into_iter().find_map(|(name, answer)| Some(format!("{}: {}", name.display(), answer.err()?)));
        return Python { looked_for, error, ..Python::default() };
    };
    let (tried, error) = match installed.library.then(|| python::try_session(name)) {
        Some(Ok(tried)) => (Some(tried), None),
        Some(Err(error)) => (None, Some(error)),
        None => (None, None),
    };
    Python { looked_for, installed: Some(installed.clone()), tried, error }
}

/// What all threads read is what the best number of threads does: more of them than the memory serves get in each other's way.
fn best(all_gbps: Option<f64>, one_gbps: Option<f64>) -> Option<f64> {
    Some(all_gbps?.max(one_gbps.unwrap_or(0.0)))
}

impl Facts {
    /// Measures every node from the CPUs of the fast one, then moving pages and swapping.
    pub fn measure(&mut self) {
        let allowed = measure::allowed_cpus();
        let near = self.nodes.iter().find(|node| node.id == self.fast_node).map_or(&[][..], |node| &node.cpus[..]);
        let near: Vec<u32> = allowed.iter().copied().filter(|cpu| near.contains(cpu)).collect();
        let cpus = if near.is_empty() { allowed } else { near };
        let wanted = self.last_level_cache_bytes.unwrap_or(0).saturating_mul(CACHES_IN_BUFFER);
        let room = self.nodes.iter().filter_map(|node| node.free_bytes).filter(|&free| free > 0).min();
        let buffer_bytes = wanted.clamp(BUFFER_BYTES.0, BUFFER_BYTES.1).min(room.unwrap_or(u64::MAX) / 2);
        let len = usize::try_from(buffer_bytes).unwrap_or(usize::MAX);
        // Binding needs a permission that a machine with one node can do without.
        let several = self.nodes.len() > 1;
        let mut one_thread_read_gbps = None;
        for node in self.nodes.iter_mut().filter(|node| node.total_bytes > 0) {
            let target = several.then_some(node.id);
            match measure::bandwidth(target, &cpus, len) {
                Ok(Bandwidth { read_gbps, write_gbps, .. }) => {
                    (node.read_gbps, node.write_gbps) = (Some(read_gbps), Some(write_gbps));
                }
                Err(error) => node.error = Some(error.to_string()),
            }
            match measure::latency_ns(target, cpus.first().copied(), len) {
                Ok(latency_ns) => node.latency_ns = Some(latency_ns),
                Err(error) => node.error = Some(error.to_string()),
            }
            if node.id == self.fast_node {
                let one = &cpus[..cpus.len().min(1)];
                one_thread_read_gbps = measure::bandwidth(target, one, len).ok().map(|found| found.read_gbps);
                node.read_gbps = best(node.read_gbps, one_thread_read_gbps);
            }
        }
        self.measured = Some(Measured { threads: cpus.len().max(1), cpus, buffer_bytes, one_thread_read_gbps });
        if let Some(slow) = self.slow_node {
            self.moves = [false, true].map(|huge| measure_move(self.fast_node, slow, huge)).into();
        }
        if !self.swap_areas.is_empty() {
            self.swap_speed = [false, true].map(measure_swap).into();
        }
    }
}

const fn page_bytes(huge: bool) -> usize {
    if huge {
        sys::memory::HUGE_PAGE_BYTES
    } else {
        sys::memory::PAGE_BYTES
    }
}

fn measure_move(fast: u32, slow: u32, huge: bool) -> Move {
    let page_bytes = page_bytes(huge);
    let failed = |error: String| Move { page_bytes, demote_gbps: None, promote_gbps: None, error: Some(error) };
    match measure::move_speed(fast, slow, MOVED_BYTES, huge) {
        Ok(Some(speed)) if speed.page_bytes == page_bytes => {
            let (demote, promote) = (Some(speed.there_gbps), Some(speed.back_gbps));
            Move { page_bytes, demote_gbps: demote, promote_gbps: promote, error: None }
        }
        Ok(Some(_)) => failed("the kernel had no huge pages for this".to_owned()),
        Ok(None) => failed("some pages stayed where they were".to_owned()),
        Err(error) => failed(error.to_string()),
    }
}

fn measure_swap(huge: bool) -> SwapSpeed {
    let page_bytes = page_bytes(huge);
    let failed =
        |error: String| SwapSpeed { page_bytes, out_gbps: None, in_gbps: None, fault_ns: None, error: Some(error) };
    match measure::swap_speed(MOVED_BYTES, huge) {
        Ok(Some(speed)) => SwapSpeed {
            page_bytes,
            out_gbps: Some(speed.out_gbps),
            in_gbps: Some(speed.in_gbps),
            fault_ns: Some(speed.fault_ns),
            error: None,
        },
        Ok(None) => failed("the kernel did not swap the memory out; is swap full, or limited?".to_owned()),
        Err(error) => failed(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_threads_never_read_slower_than_one() {
        assert_eq!(best(Some(9.0), Some(12.0)), Some(12.0));
        assert_eq!(best(Some(20.0), Some(12.0)), Some(20.0));
        assert_eq!((best(Some(20.0), None), best(None, Some(12.0))), (Some(20.0), None));
    }
}
