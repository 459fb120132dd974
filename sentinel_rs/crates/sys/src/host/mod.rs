//! The machine's settings that matter to tiering, as the kernel's files tell them.
//!
//! Everything is read below a root folder, which is `/` except in tests. What a kernel does not tell is `None`: old kernels,
//! containers and other machines lack one file or the other, and that is no error.

mod limits;
mod swap;

pub use limits::{memory_limits, swap_room_bytes, unreclaimable_of_group, unreclaimable_of_machine, Footprint, Limits};
pub use swap::{swaps, Swap, SwapKind};

use std::path::{Path, PathBuf};

/// The kernel's folder of memory nodes.
pub const NODES: &str = "sys/devices/system/node";

/// What the firmware says about the memory of a node, as seen from its nearest CPUs (HMAT).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hmat {
    /// Read bandwidth in MiB per second.
    pub read_mibps: u64,
    /// Write bandwidth in MiB per second.
    pub write_mibps: u64,
    /// Read latency in nanoseconds.
    pub read_ns: u64,
    /// Write latency in nanoseconds.
    pub write_ns: u64,
}

/// HMAT figures of a node; `None` when the firmware gives none, or zeroes.
#[must_use]
pub fn hmat(root: &Path, node: u32) -> Option<Hmat> {
    let folder = root.join(NODES).join(format!("node{node}/access0/initiators"));
    let number = |name: &str| text(&folder.join(name))?.parse().ok().filter(|&number: &u64| number > 0);
    Some(Hmat {
        read_mibps: number("read_bandwidth")?,
        write_mibps: number("write_bandwidth")?,
        read_ns: number("read_latency")?,
        write_ns: number("write_latency")?,
    })
}

/// Free bytes of a node; of the machine when the kernel has no nodes.
#[must_use]
pub fn free_bytes(root: &Path, node: u32) -> Option<u64> {
    let of_node = root.join(NODES).join(format!("node{node}/meminfo"));
    let kibibytes = match text(&of_node) {
        Some(info) => field(&info, &format!("Node {node} MemFree:"))?,
        None => field(&text(&root.join("proc/meminfo"))?, "MemAvailable:")?,
    };
    kibibytes.checked_mul(1024)
}

/// A figure of `/proc/meminfo` in bytes, by its label such as `MemTotal:`.
#[must_use]
pub fn memory_info(root: &Path, label: &str) -> Option<u64> {
    field(&text(&root.join("proc/meminfo"))?, label)?.checked_mul(1024)
}

/// CPUs of a node, ascending; `None` when the kernel has no nodes.
#[must_use]
pub fn cpus_of_node(root: &Path, node: u32) -> Option<Vec<u32>> {
    parse_list(&text(&root.join(NODES).join(format!("node{node}/cpulist")))?)
}

/// Bytes of all last-level caches together.
#[must_use]
pub fn last_level_cache_bytes(root: &Path) -> Option<u64> {
    let mut caches: Vec<(u64, String, u64)> = Vec::new();
    for cpu in folders(&root.join("sys/devices/system/cpu"), "cpu") {
        for cache in folders(&cpu.join("cache"), "index") {
            let level = text(&cache.join("level")).and_then(|level| level.parse().ok());
            let bytes = text(&cache.join("size")).and_then(|size| parse_size(&size));
            let shared = text(&cache.join("shared_cpu_list"));
            if let (Some(level), Some(bytes), Some(shared)) = (level, bytes, shared) {
                caches.push((level, shared, bytes));
            }
        }
    }
    let last = caches.iter().map(|&(level, ..)| level).max()?;
    caches.retain(|&(level, ..)| level == last);
    // CPUs that share a cache tell of it one by one.
    caches.sort();
    caches.dedup_by(|left, right| left.1 == right.1);
    Some(caches.iter().map(|&(_, _, bytes)| bytes).sum())
}

/// The chosen one of a file such as `always [madvise] never`.
#[must_use]
pub fn chosen(root: &Path, path: &str) -> Option<String> {
    let all = text(&root.join(path))?;
    let inside = all.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map(|(choice, _)| choice.to_owned());
    Some(inside.unwrap_or(all))
}

/// The first word of a file that holds one setting.
#[must_use]
pub fn setting(root: &Path, path: &str) -> Option<String> {
    text(&root.join(path))?.split_whitespace().next().map(str::to_owned)
}

/// The limit on this process's address space in bytes (`ulimit -v`); `None` when there is none.
#[must_use]
pub fn address_space_limit_bytes() -> Option<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is valid for writes.
    let result = unsafe { libc::getrlimit(libc::RLIMIT_AS, &mut limit) };
    (result == 0 && limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur)
}

/// A file's text without blanks around it.
pub(crate) fn text(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

/// The number after a label at the beginning of a line.
pub(crate) fn field(info: &str, label: &str) -> Option<u64> {
    info.lines().find_map(|line| line.trim().strip_prefix(label))?.split_whitespace().next()?.parse().ok()
}

/// Numbers as the kernel lists them: `0-3,8`.
fn parse_list(text: &str) -> Option<Vec<u32>> {
    let mut numbers = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        numbers.extend(first.parse::<u32>().ok()?..=last.parse::<u32>().ok()?);
    }
    Some(numbers)
}

/// A size as the kernel writes it for caches: `32768K`, `1M`.
fn parse_size(text: &str) -> Option<u64> {
    let units = [("K", 10), ("M", 20), ("G", 30)];
    let unit = units.iter().find_map(|&(unit, shift)| Some((text.strip_suffix(unit)?, shift)));
    let (digits, shift) = unit.unwrap_or((text, 0));
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// Sub-folders named by a prefix and a number.
fn folders(parent: &Path, prefix: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(parent) else { return Vec::new() };
    let numbered = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_prefix(prefix));
        name.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let mut found: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(numbered).collect();
    found.sort();
    found
}
