//! The settings of machines that are folders of files, and of the machine that runs the test.

#[path = "common/fake_machine.rs"]
mod fake_machine;

use fake_machine::FakeMachine;
use std::path::Path;
use sys::host::{self, Hmat, Limits, SwapKind};

const GIB: u64 = 1 << 30;

#[test]
fn an_empty_machine_tells_nothing_and_fails_nothing() {
    let machine = FakeMachine::new("empty");
    let root = &machine.root;
    assert_eq!((host::hmat(root, 0), host::free_bytes(root, 0), host::cpus_of_node(root, 0)), (None, None, None));
    assert_eq!(host::last_level_cache_bytes(root), None);
    assert_eq!(host::memory_limits(root), Limits::default());
    assert!(host::swaps(root).is_empty());
    assert_eq!((host::chosen(root, "proc/x"), host::setting(root, "proc/x")), (None, None));
}

#[test]
fn hmat_is_read_and_zeroes_are_none() {
    let machine = FakeMachine::new("hmat");
    let folder = "sys/devices/system/node/node1/access0/initiators";
    for (name, value) in
        [("read_bandwidth", "30000"), ("write_bandwidth", "8000"), ("read_latency", "300"), ("write_latency", "90")]
    {
        machine.file(&format!("{folder}/{name}"), &format!("{value}\n"));
    }
    let expected = Hmat { read_mibps: 30000, write_mibps: 8000, read_ns: 300, write_ns: 90 };
    assert_eq!(host::hmat(&machine.root, 1), Some(expected));
    machine.file(&format!("{folder}/read_latency"), "0\n");
    assert_eq!(host::hmat(&machine.root, 1), None);
}

#[test]
fn nodes_have_free_memory_and_cpus() {
    let machine = FakeMachine::new("nodes");
    machine.file("sys/devices/system/node/node1/meminfo", "Node 1 MemTotal: 99 kB\nNode 1 MemFree:  2048 kB\n");
    machine.file("sys/devices/system/node/node1/cpulist", "0-2,8\n");
    machine.file("sys/devices/system/node/node2/cpulist", "\n").file("proc/meminfo", "MemAvailable:  1024 kB\n");
    assert_eq!(host::free_bytes(&machine.root, 1), Some(2 << 20));
    assert_eq!(host::free_bytes(&machine.root, 7), Some(1 << 20), "without nodes, the machine's");
    assert_eq!(host::cpus_of_node(&machine.root, 1), Some(vec![0, 1, 2, 8]));
    assert_eq!(host::cpus_of_node(&machine.root, 2), Some(vec![]));
}

#[test]
fn caches_that_are_shared_count_once() {
    let machine = FakeMachine::new("caches");
    for (cpu, shared) in [(0, "0-1"), (1, "0-1"), (2, "2-3"), (3, "2-3")] {
        let cache = |index: u32, level: &str, size: &str, shared: &str| {
            let folder = format!("sys/devices/system/cpu/cpu{cpu}/cache/index{index}");
            machine.file(&format!("{folder}/level"), level);
            machine.file(&format!("{folder}/size"), size).file(&format!("{folder}/shared_cpu_list"), shared);
        };
        cache(0, "2\n", "1M\n", &cpu.to_string());
        cache(3, "3\n", "32768K\n", shared);
    }
    machine.file("sys/devices/system/cpu/cpufreq/boost", "1");
    assert_eq!(host::last_level_cache_bytes(&machine.root), Some(64 << 20));
}

#[test]
fn the_tightest_group_of_version_2_limits() {
    let machine = FakeMachine::new("cgroup2");
    machine.file("proc/self/cgroup", "0::/user/train\n");
    machine.file("sys/fs/cgroup/user/memory.max", "2147483648\n").file("sys/fs/cgroup/user/memory.current", "5\n");
    machine.file("sys/fs/cgroup/user/train/memory.max", "max\n");
    machine.file("sys/fs/cgroup/user/train/memory.swap.max", "0\n");
    let limits = host::memory_limits(&machine.root);
    assert_eq!((limits.version, limits.used_bytes), (Some(2), Some(5)));
    let root = machine.root.join("sys/fs/cgroup/user");
    assert_eq!(limits.memory, Some((2 * GIB, root.join("memory.max"))));
    assert_eq!(limits.swap, Some((0, root.join("train/memory.swap.max"))));
}

#[test]
fn room_in_swap_is_what_the_machine_and_the_group_leave() {
    let machine = FakeMachine::new("swap-room");
    assert_eq!(host::swap_room_bytes(&machine.root), None, "this kernel tells nothing");
    machine.file("proc/meminfo", "SwapTotal:  4096 kB\nSwapFree:  2048 kB\n");
    assert_eq!(host::swap_room_bytes(&machine.root), Some(2 << 20));
    machine.file("proc/self/cgroup", "0::/train\n").file("sys/fs/cgroup/train/memory.swap.max", "1048576\n");
    assert_eq!(host::swap_room_bytes(&machine.root), Some(1 << 20), "nothing of the group is in swap");
    machine.file("sys/fs/cgroup/train/memory.swap.current", "1044480\n");
    assert_eq!(host::swap_room_bytes(&machine.root), Some(4096));
}

#[test]
fn version_1_limits_and_its_way_to_say_none() {
    let machine = FakeMachine::new("cgroup1");
    machine.file("proc/self/cgroup", "4:cpu,memory:/box\n0::/\n");
    machine.file("sys/fs/cgroup/memory/box/memory.limit_in_bytes", "9223372036854771712\n");
    machine.file("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
    assert_eq!(host::memory_limits(&machine.root), Limits { version: Some(1), ..Limits::default() });
    machine.file("sys/fs/cgroup/memory/box/memory.limit_in_bytes", "1073741824\n");
    assert_eq!(host::memory_limits(&machine.root).memory.map(|(bytes, _)| bytes), Some(GIB));
    // A container sees the group's own files at the top, under another name than the process is told.
    machine.file("proc/self/cgroup", "4:memory:/docker/0123\n");
    machine.file("sys/fs/cgroup/memory/memory.limit_in_bytes", "1048576\n");
    assert_eq!(host::memory_limits(&machine.root).memory.map(|(bytes, _)| bytes), Some(1 << 20));
}

#[test]
fn swap_areas_are_told_apart() {
    let machine = FakeMachine::new("swaps");
    let table = "Filename\tType\tSize\tUsed\tPriority\n\
                 /dev/zram0 partition 1048576 0 100\n/dev/vdb partition 2097152 1024 -2\n/swapfile file 4 0 -3\n";
    machine.file("proc/swaps", table).file("sys/module/zswap/parameters/enabled", "Y\n");
    let found = host::swaps(&machine.root);
    let kinds: Vec<_> = found.iter().map(|swap| (swap.kind, swap.behind_zswap)).collect();
    assert_eq!(kinds, [(SwapKind::Zram, false), (SwapKind::Disk, true), (SwapKind::File, true)]);
    assert_eq!((found[1].path.as_str(), found[1].total_bytes, found[1].used_bytes), ("/dev/vdb", 2 * GIB, 1 << 20));
}

#[test]
fn choices_and_settings() {
    let machine = FakeMachine::new("choices");
    machine.file("thp", "always [madvise] never\n").file("plain", "2 and more\n");
    assert_eq!(host::chosen(&machine.root, "thp").as_deref(), Some("madvise"));
    assert_eq!(host::chosen(&machine.root, "plain").as_deref(), Some("2 and more"));
    assert_eq!(host::setting(&machine.root, "plain").as_deref(), Some("2"));
}

#[test]
fn this_machine_can_be_read() {
    let root = Path::new("/");
    assert!(host::free_bytes(root, 0).is_some_and(|bytes| bytes > 0));
    assert!(host::memory_limits(root).memory.is_none_or(|(bytes, _)| bytes > 0));
    assert!(host::swaps(root).iter().all(|swap| swap.total_bytes > 0));
}
