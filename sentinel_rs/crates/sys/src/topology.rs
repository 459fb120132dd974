//! The machine's memory nodes as the kernel describes them.

use crate::numa::MAX_NODE;
use crate::Error;
use std::io::ErrorKind;
use std::path::Path;

/// One memory node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its number.
    pub id: u32,
    /// Whether it has CPUs of its own.
    pub has_cpus: bool,
    /// Bytes of memory on it.
    pub total_bytes: u64,
    /// Distance to every node, with the node's number; 10 is the distance to itself. Empty when the kernel does not say.
    pub distances: Vec<(u32, u32)>,
}

/// The machine's memory nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    /// Nodes that are online, ascending by number.
    pub nodes: Vec<Node>,
}

impl Topology {
    /// Reads the folder of the kernel's nodes, which is `/sys/devices/system/node` except in tests. A kernel without that
    /// folder knows no nodes: then there is one, number 0, with all CPUs and all memory.
    ///
    /// # Errors
    /// [`Error::ReadFile`] and [`Error::ParseFile`], with the file.
    pub fn probe(folder: &Path) -> Result<Self, Error> {
        if !folder.exists() {
            let node = Node { id: 0, has_cpus: true, total_bytes: total_ram_bytes()?, distances: Vec::new() };
            return Ok(Topology { nodes: vec![node] });
        }
        let path = folder.join("online");
        let text = read_text(&path)?;
        let online = NodeList::parse(&text).map_err(|_| unexpected(&path, &text, "a list of nodes such as 0-1"))?.nodes;
        let nodes = online.iter().map(|&id| read_node(folder, id, &online)).collect::<Result<_, _>>()?;
        Ok(Topology { nodes })
    }

    /// The node of this number, when it is online.
    #[must_use]
    pub fn node(&self, id: u32) -> Option<&Node> {
        self.nodes.iter().find(|node| node.id == id)
    }
}

/// Bytes of memory of the machine, all nodes together.
///
/// # Errors
/// [`Error::ReadFile`] and [`Error::ParseFile`] when `/proc/meminfo` is missing or odd.
pub fn total_ram_bytes() -> Result<u64, Error> {
    memory_total(Path::new("/proc/meminfo"), "MemTotal:")
}

/// Node numbers: one or more, ascending, each once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeList {
    nodes: Vec<u32>,
}

/// Why a text is no list of nodes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a list of nodes such as `0`, `1-2` or `0,2-3`: {reason}")]
pub struct NodeListError {
    /// The text.
    pub text: String,
    /// What is wrong with it.
    pub reason: String,
}

impl NodeList {
    /// The list of one node.
    #[must_use]
    pub fn single(node: u32) -> Self {
        NodeList { nodes: vec![node] }
    }

    /// A list as `numactl` takes it: `0`, `1-2`, `0,2-3`.
    ///
    /// # Errors
    /// When the text is anything else, or names a node above 1023.
    pub fn parse(text: &str) -> Result<Self, NodeListError> {
        let wrong = |reason: String| NodeListError { text: text.trim().to_owned(), reason };
        let number = |part: &str| -> Result<u32, NodeListError> {
            // `parse` alone would accept a sign.
            let digits = part.bytes().all(|byte| byte.is_ascii_digit());
            let node =
                part.parse().ok().filter(|_| digits).ok_or_else(|| wrong(format!("`{part}` is not a number")))?;
            if node > MAX_NODE {
                return Err(wrong(format!("node {node} is above {MAX_NODE}")));
            }
            Ok(node)
        };
        let mut nodes = Vec::new();
        for part in text.trim().split(',') {
            let (first, last) = match part.split_once('-') {
                Some((first, last)) => (number(first)?, number(last)?),
                None => (number(part)?, number(part)?),
            };
            if first > last {
                return Err(wrong(format!("`{part}` ends before it begins")));
            }
            nodes.extend(first..=last);
        }
        nodes.sort_unstable();
        nodes.dedup();
        Ok(NodeList { nodes })
    }

    /// The numbers.
    #[must_use]
    pub fn nodes(&self) -> &[u32] {
        &self.nodes
    }
}

/// As `numactl` takes it, in the shortest form: `0,2-3`.
impl std::fmt::Display for NodeList {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let runs = self.nodes.chunk_by(|left, right| left + 1 == *right);
        for (place, run) in runs.enumerate() {
            let comma = if place == 0 { "" } else { "," };
            match run {
                [first, .., last] => write!(f, "{comma}{first}-{last}")?,
                _ => write!(f, "{comma}{}", run[0])?,
            }
        }
        Ok(())
    }
}

fn read_node(folder: &Path, id: u32, online: &[u32]) -> Result<Node, Error> {
    let folder = folder.join(format!("node{id}"));
    let has_cpus = !read_text(&folder.join("cpulist"))?.trim().is_empty();
    let total_bytes = memory_total(&folder.join("meminfo"), &format!("Node {id} MemTotal:"))?;
    let distances = read_distances(&folder.join("distance"), online)?;
    Ok(Node { id, has_cpus, total_bytes, distances })
}

/// Distances in the order of the nodes that are online.
fn read_distances(path: &Path, online: &[u32]) -> Result<Vec<(u32, u32)>, Error> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    let text = read_text(path)?;
    let distances: Option<Vec<u32>> = text.split_whitespace().map(|word| word.parse().ok()).collect();
    match distances.filter(|distances| distances.len() == online.len()) {
        Some(distances) => Ok(online.iter().copied().zip(distances).collect()),
        None => Err(unexpected(path, &text, "one number for each node that is online")),
    }
}

/// Bytes in the line `<label> <number> kB`.
fn memory_total(path: &Path, label: &str) -> Result<u64, Error> {
    let text = read_text(path)?;
    let value = text.lines().find_map(|line| line.strip_prefix(label)).map_or("", str::trim);
    let kibibytes = value.strip_suffix("kB").and_then(|number| number.trim().parse::<u64>().ok());
    kibibytes
        .and_then(|kibibytes| kibibytes.checked_mul(1024))
        .ok_or_else(|| unexpected(path, value, "a line with MemTotal in kB"))
}

fn read_text(path: &Path) -> Result<String, Error> {
    std::fs::read_to_string(path).map_err(|error| {
        let errno = if error.kind() == ErrorKind::InvalidData { 0 } else { error.raw_os_error().unwrap_or(0) };
        Error::ReadFile { path: path.display().to_string(), errno, reason: error.to_string() }
    })
}

fn unexpected(path: &Path, value: &str, expected: &'static str) -> Error {
    Error::ParseFile { path: path.display().to_string(), value: value.trim().to_owned(), expected }
}
