"""The virtual machine with two memory nodes: its archive format, its command line, and how its training is judged.

The short form of `tools/dev qemu numa` always runs, the whole one is a long test.
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
def command():
    return load(ROOT / "tools/devtool/qemu.py", ROOT / "tools/devtool")


@pytest.fixture(scope="module")
def judge(command):
    return command.judge


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
    monkeypatch.setattr(guest, "boot_files", lambda *_: (Path("/k"), Path("/i")))
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
        "promoted_pages": 1,
        "demoted_pages": 1,
        "placement_held_bytes_max": 13 << 20,
        "placement_held_over_bytes": 0,
        "stall_ns_max": 0,
        "stall_ns_step_max": 0,
        "move_batches": 2,
        "move_batches_slow": 0,
        "placement_samples": 40,
        "placement_due_bytes": 1000,
        "placement_there_bytes": 995,
        "placement_late_bytes": 5,
        "slot_hit_rate": 1.0,
        "errors_by_errno": {},
    }
    statistics.update(changes)
    counters = {"pgmigrate_success": 5, "compact_isolated": 0}
    counters.update(thp_split_page=3, thp_migration_split=0, thp_migration_success=0)
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
    "really over budget": (
        LOSSES,
        {"placement_held_over_bytes": (14 << 20) // 99},
        "node 0 holds no more",
    ),
    "not weighed": (LOSSES, {"placement_held_bytes_max": 0}, "node 0 holds no more"),
    "miscounted": (LOSSES, {"promoted_pages": 9}, "within 1%"),
}


@pytest.mark.parametrize("case", BAD)
def test_each_broken_promise_is_found(judge, case):
    losses, changes, fault = BAD[case]
    faults = judge(losses, LOSSES, report(**changes))["faults"]
    assert len(faults) == 1 and fault in faults[0], faults


@pytest.mark.parametrize(
    "counter, fault",
    [
        ("compact_isolated", "compaction"),
        ("thp_split_page", "huge pages"),
        ("thp_migration_split", "huge pages"),
    ],
)
def test_what_the_kernel_did_besides_is_found(judge, counter, fault):
    disturbed = report()
    disturbed["kernel_after"][counter] += 1
    faults = judge(LOSSES, LOSSES, disturbed)["faults"]
    assert len(faults) == 1 and fault in faults[0], faults


def failing(**changes):
    """What a training left whose moves were made to fail, by part."""
    parts = {
        "before": {"steps_managed": 5, "demoted_pages": 10},
        "slow node full": {"steps_managed": 10, "demoted_pages": 12, "pages": {"12": 7}},
        "slow node free": {"steps_managed": 15, "demoted_pages": 20, "pages": {"12": 7}},
        "pages held": {"steps_managed": 20, "demoted_pages": 20, "pages": {"12": 7, "16": 5}},
        "moves forbidden": {"steps_managed": 25, "demoted_pages": 20, "calls": {"1": 3}},
    }
    for part in parts.values():
        part["page_errors_by_errno"] = part.pop("pages", {})
        part["call_errors_by_errno"] = part.pop("calls", {})
        part["message"] = "sentinel: slow = node:1: moving pages to slow memory failed: ENOMEM"
        part["pages_retried"] = sum(part["page_errors_by_errno"].values())
    for part, values in changes.items():
        parts[part.replace("_", " ")].update(values)
    return parts


def with_huge_pages(**changes):
    """What a training left that moved two huge pages and nothing else."""
    result = report(promoted_pages=512, demoted_pages=512)
    result["kernel_after"] = dict(result["kernel_before"])
    after = {"pgmigrate_success": 1024, "thp_migration_success": 2}
    for name, more in {**after, **changes}.items():
        result["kernel_after"][name] += more
    return result


HUGE = {
    "as promised": ({}, None),
    "none": ({"thp_migration_success": 0}, "huge pages move"),
    "split": ({"thp_migration_split": 1}, "not split"),
    "miscounted": ({"pgmigrate_success": 4}, "huge ones included"),
}


@pytest.mark.parametrize("case", HUGE)
def test_huge_pages_are_judged(command, case):
    changes, fault = HUGE[case]
    result = {"faults": [], "huge_pages_split": 0}
    command.judge_huge(LOSSES, LOSSES, with_huge_pages(**changes), result)
    assert [fault in text for text in result["faults"]] == ([True] if fault else []), result


STOPPED = "sentinel: slow = node:1: moving pages to slow memory failed: EPERM"
FAILING = {
    "as promised": ({}, None),
    "stopped": ({"moves_forbidden": {"steps_managed": 20}}, "go on following"),
    "never full": ({"slow_node_full": {"page_errors_by_errno": {}}}, "full slow node"),
    "full before": ({"before": {"page_errors_by_errno": {"12": 1}}}, "full slow node"),
    "never again": ({"slow_node_free": {"demoted_pages": 12}}, "move again"),
    "allowed": ({"moves_forbidden": {"call_errors_by_errno": {}}}, "forbidden calls"),
    "silent": ({"slow_node_full": {"message": None}}, "told"),
    "never held": ({"pages_held": {"page_errors_by_errno": {"12": 7}}}, "somebody holds"),
    "never retried": ({"pages_held": {"pages_retried": 7}}, "somebody holds"),
}


@pytest.mark.parametrize("case", FAILING)
def test_failing_moves_are_judged(command, case):
    changes, fault = FAILING[case]
    result = {"faults": []}
    command.judge_failures(LOSSES, LOSSES, failing(**changes), STOPPED, result)
    assert result["failures_survived"] is (fault is None)
    assert [fault in text for text in result["faults"]] == ([True] if fault else []), result


def test_failing_moves_may_not_change_losses(command):
    result = {"faults": []}
    command.judge_failures(LOSSES.replace("3fffffff", "0"), LOSSES, failing(), STOPPED, result)
    assert len(result["faults"]) == 1 and "bits of stock" in result["faults"][0]


@pytest.mark.parametrize("stopped", [None, "EPERM", STOPPED.replace("EPERM", "")])
def test_a_strict_training_that_goes_on_or_does_not_say_why_is_found(command, stopped):
    result = {"faults": []}
    command.judge_failures(LOSSES, LOSSES, failing(), stopped, result)
    assert len(result["faults"]) == 1 and "strict" in result["faults"][0]


def run_in_guest(*form):
    """The last line of `tools/dev qemu numa`, in the whole form or another one."""
    done = subprocess.run(
        [str(ROOT / "tools/dev"), "qemu", "numa"] + list(form),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=3600,
    )
    assert done.returncode == 0, done.stdout
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["losses_identical_to_stock"] is True, result
    return result


def test_a_short_training_on_two_real_nodes_keeps_its_promises():
    """About two minutes on an idle machine with two processors."""
    assert run_in_guest("--short")["steps_managed"] >= 12


@pytest.mark.long
def test_training_on_two_real_nodes_keeps_its_promises_even_when_moves_fail():
    """Under eight minutes on an idle machine with two processors."""
    result = run_in_guest()
    assert result["on_planned_node"] >= 0.99 and result["failures_survived"] is True, result


def test_a_training_that_moves_nothing_is_found(judge):
    unmoved = report(promoted_pages=0, demoted_pages=0)
    unmoved["kernel_after"] = unmoved["kernel_before"]
    assert judge(LOSSES, LOSSES, unmoved)["faults"] == ["pages move"]
