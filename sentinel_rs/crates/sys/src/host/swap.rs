//! Where the machine can swap to.

use super::{setting, text};
use std::path::Path;

/// What a swap area is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SwapKind {
    /// Compressed memory.
    Zram,
    /// A disk or a part of one.
    Disk,
    /// A file.
    File,
}

impl SwapKind {
    /// For people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            SwapKind::Zram => "zram",
            SwapKind::Disk => "disk",
            SwapKind::File => "file",
        }
    }
}

/// One swap area.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Swap {
    /// The device or the file.
    pub path: String,
    /// What it is made of.
    pub kind: SwapKind,
    /// Bytes of it.
    pub total_bytes: u64,
    /// Bytes in use.
    pub used_bytes: u64,
    /// Whether zswap keeps compressed pages in memory in front of it.
    pub behind_zswap: bool,
}

/// The swap areas that are on, in the kernel's order.
#[must_use]
pub fn swaps(root: &Path) -> Vec<Swap> {
    let zswap = setting(root, "sys/module/zswap/parameters/enabled").is_some_and(|enabled| enabled == "Y");
    let table = text(&root.join("proc/swaps")).unwrap_or_default();
    let area = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let &[path, kind, total, used, ..] = words.as_slice() else { return None };
        let kind = match kind {
            _ if path.starts_with("/dev/zram") => SwapKind::Zram,
            "file" => SwapKind::File,
            _ => SwapKind::Disk,
        };
        let bytes = |text: &str| text.parse::<u64>().ok()?.checked_mul(1024);
        Some(Swap {
            path: path.to_owned(),
            kind,
            total_bytes: bytes(total)?,
            used_bytes: bytes(used)?,
            behind_zswap: zswap && kind != SwapKind::Zram,
        })
    };
    table.lines().skip(1).filter_map(area).collect()
}
