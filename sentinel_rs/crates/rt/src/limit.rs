//! How much memory the control group, or else the machine, leaves to tensors, and what happens when that changes while
//! training runs.

use crate::feedback::{Correction, Feedback};
use crate::managed::Managed;
use crate::runtime::Runtime;
use crate::steps::Steps;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;
use sys::host::{Footprint, Limits, Swap, SwapKind};

/// One part in so many of the limit is left free: the kernel needs room to read and write swap in, and a full control
/// group makes whoever allocates next wait.
const SPARE_PART: u64 = 24;

/// Of the memory that is not tensors, one part in so many is taken to be in use during a step. Python with TensorFlow takes
/// about 190 MB for itself, of which 30 to 40 MB were in memory while steps ran without page faults.
const BUSY_PART: u64 = 4;

/// A memory limit, and who else uses memory under it.
#[derive(Debug)]
pub struct Limit {
    root: PathBuf,
    /// Bytes at the latest look.
    bytes: AtomicU64,
    /// A change after which no plan was made yet, because one was being made.
    unplanned: AtomicBool,
}

impl Limit {
    /// The tightest limit on this process; of the machine's memory when no control group has one. Files are looked for
    /// below `root`, which is `/` except in tests.
    #[must_use]
    pub fn find(root: &Path) -> Limit {
        let limit = Limit { root: root.to_owned(), bytes: AtomicU64::new(0), unplanned: AtomicBool::new(false) };
        limit.look();
        limit
    }

    /// Bytes at the latest look.
    #[must_use]
    pub fn now_bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Looks again; the bytes before and now when they differ.
    fn look(&self) -> Option<(u64, u64)> {
        let limits = sys::host::memory_limits(&self.root);
        let machine = sys::host::memory_info(&self.root, "MemTotal:");
        let now = limits.memory.map(|(bytes, _)| bytes).into_iter().chain(machine).min().unwrap_or(u64::MAX);
        let before = self.bytes.swap(now, Ordering::Relaxed);
        (before != now).then_some((before, now))
    }

    /// Bytes that tensors may take when `own` of what is in use now are tensors: what the control group leaves, or the machine
    /// if that is less. `None` when the system does not say who uses what.
    ///
    /// Steps without a plan push others to swap: some of that is never asked for again, and some comes back as soon as there
    /// is room, or, when there is none, takes the place of tensors that are in use.
    #[must_use]
    pub fn for_tensors(&self, own: Footprint) -> Option<u64> {
        let limit = self.now_bytes();
        let group = sys::host::unreclaimable_of_group(&self.root).map(|all| left(limit, all, own));
        let machine_bytes = sys::host::memory_info(&self.root, "MemTotal:");
        let machine = machine_bytes.zip(sys::host::unreclaimable_of_machine(&self.root));
        group.into_iter().chain(machine.map(|(bytes, all)| left(bytes, all, own))).min()
    }
}

/// What a limit leaves to tensors when `all` is in use, `own` of it by them.
fn left(limit: u64, all: Footprint, own: Footprint) -> u64 {
    let resident = all.resident_bytes.saturating_sub(own.resident_bytes);
    let swapped = all.swapped_bytes.saturating_sub(own.swapped_bytes);
    let others = resident.max((resident + swapped) / BUSY_PART);
    limit.saturating_sub(others).saturating_sub(limit / SPARE_PART)
}

/// Why this process may not swap, although there is swap: a control group (version 2) allows none.
///
/// # Errors
/// With the file that says so and the command that changes it.
pub fn may_swap(root: &Path) -> Result<(), String> {
    match sys::host::memory_limits(root) {
        Limits { version: Some(2), swap: Some((0, file)), .. } => {
            let file = file.display();
            Err(format!("{file} forbids swap to this process; allow it with `echo max > {file}`"))
        }
        _ => Ok(()),
    }
}

/// What swap there is, for people, such as `swap (zram)`.
///
/// # Errors
/// When there is none: how to make some.
pub fn swap_in_words(areas: &[Swap]) -> Result<String, String> {
    let room = |area: &&Swap| area.total_bytes > area.used_bytes;
    let mut kinds: Vec<&str> = Vec::new();
    for area in areas.iter().filter(room) {
        let kind = match area.kind {
            SwapKind::Zram => "zram",
            SwapKind::Disk if area.behind_zswap => "disk behind zswap",
            SwapKind::File if area.behind_zswap => "file behind zswap",
            SwapKind::Disk => "disk",
            SwapKind::File => "file",
        };
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    if kinds.is_empty() {
        let what = if areas.is_empty() { "this machine has no swap" } else { "swap is full" };
        return Err(format!(
            "{what}; make some with `fallocate -l 8G /swapfile && chmod 600 /swapfile` and \
             `mkswap /swapfile && swapon /swapfile`"
        ));
    }
    Ok(format!("swap ({})", kinds.join(", ")))
}

impl Runtime {
    /// Measures what the limit leaves to tensors, and makes it the budget.
    pub(crate) fn measure_budget(&self) {
        let Some(limit) = &self.limit else { return };
        let own = sys::swap::footprint(&self.memory.range());
        if let Some(bytes) = own.and_then(|own| limit.for_tensors(own)) {
            log::info!("sentinel: the memory limit of {} bytes leaves {bytes} to tensors", limit.now_bytes());
            self.memory.budget.set_allowed(bytes);
        }
    }

    /// A step that followed `managed` is over: when the limit is another one now, so is the budget, and the plan is made
    /// again on a thread of its own. With strictness, a lowered limit stops training: it takes away what the plan had.
    pub(crate) fn heed_limit(self: &Arc<Self>, steps: &mut Steps, managed: &Arc<Managed>, graph: u64, signature: u64) {
        let Some(limit) = &self.limit else { return };
        if let Some((before, now)) = limit.look() {
            self.limit_changed(steps, before, now);
            limit.unplanned.store(true, Ordering::Relaxed);
        }
        let feedback = managed.feedback.as_ref();
        // While a plan is being made no other one is: the change is planned for at the end of a later step.
        let is_planning = feedback.is_some_and(Feedback::is_planning);
        if is_planning || steps.stop.is_some() || !limit.unplanned.swap(false, Ordering::Relaxed) {
            return;
        }
        let Some(migration) = feedback.map(|feedback| feedback.assumed) else {
            self.measure_budget();
            return;
        };
        self.plan_again_aside(managed, (graph, signature), move |runtime| {
            runtime.measure_budget();
            Correction { migration, op_times: None }
        });
    }

    /// The limit is another one: what it takes away is not to be had from now on, and what it gives is measured later.
    fn limit_changed(&self, steps: &mut Steps, before: u64, now: u64) {
        self.counters.memory_limit_changes.count();
        if now < before && self.strict() {
            steps.stop = Some(format!(
                "sentinel: the memory limit was lowered from {before} to {now} bytes while training ran, and strictness was \
                 asked for; without it, training goes on with the lower limit"
            ));
            return;
        }
        log::warn!("sentinel: the memory limit changed from {before} to {now} bytes while training runs");
        let budget = &self.memory.budget;
        budget.set_allowed(budget.allowed().saturating_sub(before.saturating_sub(now)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn area(kind: SwapKind, behind_zswap: bool) -> Swap {
        Swap { path: "/x".to_owned(), kind, total_bytes: 4096, used_bytes: 0, behind_zswap }
    }

    #[test]
    fn what_swap_there_is_is_said() {
        let areas = [area(SwapKind::Zram, false), area(SwapKind::File, true), area(SwapKind::Zram, false)];
        assert_eq!(swap_in_words(&areas), Ok("swap (zram, file behind zswap)".to_owned()));
    }

    #[test]
    fn without_room_in_swap_two_commands_make_some() {
        let full = Swap { used_bytes: 4096, ..area(SwapKind::Disk, false) };
        for (areas, what) in [(vec![], "no swap"), (vec![full], "full")] {
            let why = swap_in_words(&areas).unwrap_err();
            for part in [what, "fallocate", "mkswap", "swapon"] {
                assert!(why.contains(part), "{why}");
            }
        }
    }

    /// A root folder in which a control group of version 1 limits memory.
    fn limited(name: &str, bytes: u64) -> PathBuf {
        let root = std::env::temp_dir().join(format!("sentinel-limit-{}-{name}", std::process::id()));
        let group = root.join("sys/fs/cgroup/memory/own");
        for folder in [&group, &root.join("proc/self")] {
            std::fs::create_dir_all(folder).unwrap();
        }
        std::fs::write(root.join("proc/self/cgroup"), "4:memory:/own\n").unwrap();
        std::fs::write(root.join("proc/meminfo"), "MemTotal: 8388608 kB\nMemAvailable: 8000000 kB\n").unwrap();
        std::fs::write(group.join("memory.limit_in_bytes"), format!("{bytes}\n")).unwrap();
        std::fs::write(group.join("memory.stat"), "cache 5\ntotal_rss 300000000\ntotal_swap 90000000\n").unwrap();
        std::fs::write(group.join("memory.kmem.usage_in_bytes"), "10000000\n").unwrap();
        root
    }

    #[test]
    fn tensors_get_what_others_leave_and_a_lowered_limit_is_noticed() {
        let root = limited("lowered", 960_000_000);
        let limit = Limit::find(&root);
        assert_eq!((limit.now_bytes(), limit.look()), (960_000_000, None));
        // Of 310 MB in use, 110 MB are tensors; a twenty-fourth of the limit stays free.
        let own = |resident_bytes, swapped_bytes| Footprint { resident_bytes, swapped_bytes };
        assert_eq!(limit.for_tensors(own(110_000_000, 50_000_000)), Some(960_000_000 - 200_000_000 - 40_000_000));
        // Others hold 10 MB in memory and 90 MB in swap: a quarter of both is theirs.
        assert_eq!(limit.for_tensors(own(300_000_000, 0)), Some(960_000_000 - 25_000_000 - 40_000_000));
        std::fs::write(root.join("sys/fs/cgroup/memory/own/memory.limit_in_bytes"), "480000000").unwrap();
        assert_eq!(limit.look(), Some((960_000_000, 480_000_000)));
        assert_eq!(limit.for_tensors(own(310_000_000, 90_000_000)), Some(460_000_000));
        std::fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn others_outside_the_group_take_from_its_limit() {
        let root = limited("crowded", 6_000_000_000);
        std::fs::write(root.join("proc/meminfo"), "MemTotal: 8388608 kB\nMemAvailable: 2000000 kB\n").unwrap();
        let machine = 8_u64 << 30;
        let expected = 2_000_000 * 1024 - machine / SPARE_PART;
        assert_eq!(Limit::find(&root).for_tensors(Footprint::default()), Some(expected));
        std::fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn a_group_that_forbids_swap_is_named() {
        let root = limited("forbidden", 1 << 30);
        assert_eq!(may_swap(&root), Ok(()));
        std::fs::write(root.join("proc/self/cgroup"), "0::/train\n").unwrap();
        std::fs::create_dir_all(root.join("sys/fs/cgroup/train")).unwrap();
        std::fs::write(root.join("sys/fs/cgroup/train/memory.swap.max"), "0\n").unwrap();
        let why = may_swap(&root).unwrap_err();
        assert!(why.contains("train/memory.swap.max forbids swap") && why.contains("echo max >"), "{why}");
        std::fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn without_a_control_group_the_machine_is_the_limit() {
        let root = limited("none", 1 << 62);
        std::fs::remove_file(root.join("proc/self/cgroup")).unwrap();
        let limit = Limit::find(&root);
        assert_eq!(limit.now_bytes(), 8 << 30);
        let used = (8_388_608 - 8_000_000) * 1024;
        assert_eq!(limit.for_tensors(Footprint::default()), Some((8 << 30) - used - (8_u64 << 30) / SPARE_PART));
        std::fs::remove_dir_all(&root).unwrap();
    }
}
