"""The virtual machine with two memory nodes: its archive format, its command line, and how its training is judged.

The test of a whole guest is a long one: it runs `tools/dev qemu numa`.
"""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HARNESS = ROOT / "linux-4.9-profiler/qemu"


def load(path, *folders):
    """A module from its file, with these folders to import from."""
    for folder in folders:
        if str(folder) not in sys.path:
            sys.path.insert(0, str(folder))
    spec = importlib.util.spec_from_file_location(path.stem, str(path))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def kernel():
    return load(HARNESS / "kernel.py")


@pytest.fixture(scope="module")
def guest():
    return load(HARNESS / "guest.py", HARNESS)


@pytest.fixture(scope="module")
def judge():
    return load(ROOT / "tools/devtool/qemu.py", ROOT / "tools/devtool").judge


def unpack(archive):
    """Reads a 'newc' archive: name to (mode, content)."""
    found, at = {}, 0
    while True:
        assert archive[at : at + 6] == b"070701"
        fields = [int(archive[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        mode, size, name_size = fields[1], fields[6], fields[11]
        name = archive[at + 110 : at + 109 + name_size].decode()
        begin = (at + 110 + name_size + 3) // 4 * 4
        if name == "TRAILER!!!":
            return found
        found[name] = (mode, archive[begin : begin + size])
        at = (begin + size + 3) // 4 * 4


def test_an_archive_holds_what_was_put_in(kernel):
    entries = [("bin", 0o40755, b""), ("bin/x", 0o100755, b"abc"), ("empty", 0o100644, b"")]
    archive = kernel.cpio(entries)
    assert unpack(archive) == {name: (mode, content) for name, mode, content in entries}
    assert archive == kernel.cpio(entries), "the cache's key is made of these bytes"


def test_the_job_runs_with_its_variables_and_quoted_arguments(guest):
    script = guest._script(["echo", "a b", "$HOME"], {"X": "it's"}, "/some where")
    lines = script.splitlines()
    assert lines[-1] == "exec echo 'a b' '$HOME'"
    assert lines[-2] == "cd '/some where' || exit 126"
    assert """export X='it'"'"'s'""" in lines


def test_node_1_has_memory_and_no_processors(guest):
    command = guest._qemu(Path("/k"), Path("/i"), Path("/job"), (2048, 1024))
    nodes = [part for part in command if part.startswith("node,")]
    assert nodes == ["node,nodeid=0,cpus=0-1,memdev=m0", "node,nodeid=1,memdev=m1"]
    assert "size=3072M" in command and "memory-backend-ram,id=m1,size=1024M" in command
    assert any("path=/," in part and "readonly=on" in part for part in command)


def test_what_cannot_be_a_guest_is_named(guest, tmp_path, monkeypatch):
    monkeypatch.setattr(guest.shutil, "which", lambda name: None)
    with pytest.raises(guest.GuestError, match="apt-get install qemu-system-x86"):
        guest.run(["true"], tmp_path, tmp_path)
    monkeypatch.setattr(guest.shutil, "which", lambda name: "/usr/bin/" + name)
    monkeypatch.setattr(guest, "boot_files", lambda cache: (Path("/k"), Path("/i")))
    bad = tmp_path / "a folder"
    bad.mkdir()
    with pytest.raises(guest.GuestError, match="a blank or a comma"):
        guest.run(["true"], bad, tmp_path)


LOSSES = "".join("%08x\n" % (0x40000000 - step) for step in range(36))


def report(**changes):
    statistics = {
        "tiers": "numa",
        "steps_managed": 30,
        "peak_bytes": 70 << 20,
        "fast_bytes_allowed": 14 << 20,
        "fast_bytes_peak": 13 << 20,
        "promoted_bytes": 4096,
        "demoted_bytes": 4096,
        "placement_samples": 40,
        "placement_due_bytes": 1000,
        "placement_there_bytes": 995,
        "placement_late_bytes": 5,
        "slot_hit_rate": 1.0,
        "errors_by_errno": {},
    }
    statistics.update(changes)
    counters = {"pgmigrate_success": 5, "compact_isolated": 0}
    return {
        "seconds": 1.0,
        "statistics": statistics,
        "kernel_before": counters,
        "kernel_after": dict(counters, pgmigrate_success=7),
    }


def test_a_good_training_is_judged_good(judge):
    beginning = "".join(LOSSES.splitlines(True)[:33])
    result = judge(beginning, LOSSES, report())
    assert result["faults"] == [], result
    assert result["losses_identical_to_stock"] is True and result["on_planned_node"] == 0.995
    assert result["moved_pages_counted"] == result["moved_pages_by_kernel"] == 2


BAD = {
    "another bit": (LOSSES.replace("3fffffff", "3ffffffe"), {}, "bits of stock"),
    "too few steps": (LOSSES[: 9 * 29], {}, "bits of stock"),
    "more steps than stock": (LOSSES + "00000000\n", {}, "bits of stock"),
    "emulated": (LOSSES, {"tiers": "emulated"}, "memory nodes"),
    "unmanaged": (LOSSES, {"steps_managed": 29}, "follow a plan"),
    "small": (LOSSES, {"peak_bytes": 1 << 20}, "64 MiB"),
    "unsampled": (LOSSES, {"placement_samples": 19}, "sampled"),
    "misplaced": (LOSSES, {"placement_there_bytes": 980}, "planned node"),
    "nothing due": (
        LOSSES,
        {"placement_due_bytes": 0, "placement_there_bytes": 0},
        "planned node",
    ),
    "over budget": (LOSSES, {"fast_bytes_peak": 15 << 20}, "allowed bytes"),
    "miscounted": (LOSSES, {"promoted_bytes": 9 * 4096}, "within 1%"),
}


@pytest.mark.parametrize("case", BAD)
def test_each_broken_promise_is_found(judge, case):
    losses, changes, fault = BAD[case]
    faults = judge(losses, LOSSES, report(**changes))["faults"]
    assert len(faults) == 1 and fault in faults[0], faults


@pytest.mark.long
def test_training_on_two_real_nodes_keeps_its_promises():
    """Under ten minutes on an idle machine with two processors."""
    done = subprocess.run(
        [str(ROOT / "tools/dev"), "qemu", "numa"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=3600,
    )
    assert done.returncode == 0, done.stdout
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["losses_identical_to_stock"] is True, result
    assert result["on_planned_node"] >= 0.99, result


def test_a_training_that_moves_nothing_is_found(judge):
    unmoved = report(promoted_bytes=0, demoted_bytes=0)
    unmoved["kernel_after"] = unmoved["kernel_before"]
    assert judge(LOSSES, LOSSES, unmoved)["faults"] == ["pages move"]
