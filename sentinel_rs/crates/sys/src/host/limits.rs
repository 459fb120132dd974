//! Limits on this process's memory by control groups, of both versions.

use super::{field, text};
use std::path::{Path, PathBuf};

/// From here on a limit is version 1's way to say that there is none.
const UNLIMITED_BYTES: u64 = 1 << 62;

/// The tightest limits of a process's control groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Version of the hierarchy that limits memory, 1 or 2; `None` without control groups.
    pub version: Option<u32>,
    /// Bytes of memory, and the file that says so.
    pub memory: Option<(u64, PathBuf)>,
    /// Bytes of swap (version 2), or of memory and swap together (version 1), and the file that says so.
    pub swap: Option<(u64, PathBuf)>,
    /// Bytes in use, of the group that limits memory.
    pub used_bytes: Option<u64>,
}

/// The limits of this process, from `/proc/self/cgroup` and the files of each group above it.
#[must_use]
pub fn memory_limits(root: &Path) -> Limits {
    let Some(groups) = text(&root.join("proc/self/cgroup")) else { return Limits::default() };
    let of_line = |line: &str| {
        let mut parts = line.splitn(3, ':');
        Some((parts.next()?.to_owned(), parts.next()?.to_owned(), parts.next()?.to_owned()))
    };
    let lines: Vec<_> = groups.lines().filter_map(of_line).collect();
    let memory = lines.iter().find(|(_, controllers, _)| controllers.split(',').any(|name| name == "memory"));
    if let Some((_, _, group)) = memory {
        let names = ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.usage_in_bytes"];
        return tightest(1, &root.join("sys/fs/cgroup/memory"), group, names);
    }
    match lines.iter().find(|(number, controllers, _)| number == "0" && controllers.is_empty()) {
        Some((_, _, group)) => {
            tightest(2, &root.join("sys/fs/cgroup"), group, ["memory.max", "memory.swap.max", "memory.current"])
        }
        None => Limits::default(),
    }
}

/// Memory that its owner will ask for again: the kernel gets it back by swapping only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Bytes in memory.
    pub resident_bytes: u64,
    /// Bytes in swap.
    pub swapped_bytes: u64,
}

/// What the group that limits this process's memory holds that the kernel can only get back by swapping, or not at all:
/// anonymous memory of all its processes, and the kernel's own; and what of it is in swap. `None` when no group limits
/// it.
#[must_use]
pub fn unreclaimable_of_group(root: &Path) -> Option<Footprint> {
    let Limits { version, memory, .. } = memory_limits(root);
    let (_, file) = memory?;
    let folder = file.parent()?;
    let number = |name: &str| text(&folder.join(name)).and_then(|used| used.parse::<u64>().ok());
    let stat = text(&folder.join("memory.stat"))?;
    Some(if version == Some(2) {
        Footprint {
            resident_bytes: field(&stat, "anon ")? + field(&stat, "kernel ").unwrap_or(0),
            swapped_bytes: number("memory.swap.current").unwrap_or(0),
        }
    } else {
        Footprint {
            resident_bytes: field(&stat, "total_rss ")? + number("memory.kmem.usage_in_bytes").unwrap_or(0),
            swapped_bytes: field(&stat, "total_swap ").unwrap_or(0),
        }
    })
}

/// The same of the machine.
#[must_use]
pub fn unreclaimable_of_machine(root: &Path) -> Option<Footprint> {
    let info = |label: &str| super::memory_info(root, label);
    let swapped = info("SwapTotal:").zip(info("SwapFree:"));
    Some(Footprint {
        resident_bytes: info("MemTotal:")?.checked_sub(info("MemAvailable:")?)?,
        swapped_bytes: swapped.map_or(0, |(total, free)| total.saturating_sub(free)),
    })
}

/// Bytes that this process may still swap out: what is free of all swap, or what its control group (version 2) leaves.
/// Version 1 limits memory and swap together, which swapping does not change.
#[must_use]
pub fn swap_room_bytes(root: &Path) -> Option<u64> {
    let free = super::memory_info(root, "SwapFree:")?;
    let group = match memory_limits(root) {
        Limits { version: Some(2), swap: Some((limit, file)), .. } => {
            let used = text(&file.with_file_name("memory.swap.current")).and_then(|used| used.parse().ok());
            limit.saturating_sub(used.unwrap_or(0))
        }
        _ => u64::MAX,
    };
    Some(free.min(group))
}

/// Looks at the group and all above it, of which a container may see only some.
fn tightest(version: u32, mount: &Path, group: &str, [memory, swap, used]: [&str; 3]) -> Limits {
    let mut limits = Limits { version: Some(version), ..Limits::default() };
    let mut group = Path::new(group.trim_start_matches('/')).to_owned();
    loop {
        let folder = mount.join(&group);
        if lower(&mut limits.memory, &folder.join(memory)) {
            limits.used_bytes = text(&folder.join(used)).and_then(|used| used.parse().ok());
        }
        lower(&mut limits.swap, &folder.join(swap));
        if !group.pop() {
            return limits;
        }
    }
}

/// Takes over the file's limit when it is the lowest so far.
fn lower(limit: &mut Option<(u64, PathBuf)>, path: &Path) -> bool {
    let bytes = text(path).and_then(|text| text.parse::<u64>().ok()).filter(|&bytes| bytes < UNLIMITED_BYTES);
    match bytes {
        Some(bytes) if limit.as_ref().is_none_or(|(least, _)| bytes < *least) => {
            *limit = Some((bytes, path.to_owned()));
            true
        }
        _ => false,
    }
}
