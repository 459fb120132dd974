"""`tools/dev qemu`: what needs a machine with two memory nodes, in a virtual one."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import commands
import venvs
from util import ROOT, STOCK_VENV, VENV, Stop, say

HARNESS = ROOT / "linux-4.9-profiler" / "qemu"
TRAINING = ROOT / "tests" / "scenarios" / "digits_lstm.py"
MANAGED_STEPS = 30
# Some more than it takes to warm up, to profile and to follow the plan.
STOCK_STEPS = 36
SAMPLES_AT_LEAST = 20
SHARE_ON_NODE_AT_LEAST = 0.99


def run(arguments):
    """Runs `numa`, the live test, or any command: `qemu run COMMAND...`."""
    if arguments == ["numa"]:
        commands.setup()
        return _numa()
    if arguments[:1] == ["run"] and len(arguments) > 1:
        return _guest(arguments[1:])
    raise Stop("qemu takes 'numa' or 'run COMMAND...', but got: %s" % " ".join(arguments))


def _guest(command, job=None):
    """Runs a command in the guest and returns its exit status."""
    whole = [sys.executable, str(HARNESS / "guest.py"), "--cache", str(venvs.cache_home() / "qemu")]
    whole += ["--job", str(job)] if job else []
    return subprocess.call(whole + ["--"] + [str(part) for part in command], cwd=str(ROOT))


def _numa():
    """Trains on two real nodes and compares with stock TensorFlow; the last line is one JSON object."""
    with tempfile.TemporaryDirectory(prefix="sentinel-numa-") as job:
        say("training in a guest with two memory nodes, under Sentinel and with stock TensorFlow")
        pythons = [venv / "bin" / "python" for venv in (VENV, STOCK_VENV)]
        command = ["sh", HARNESS / "numa_test.sh"] + pythons
        command += [TRAINING, job, MANAGED_STEPS, STOCK_STEPS]
        status = _guest(command, job)
        if status:
            raise Stop("the training in the guest ended with status %d (see above)" % status)
        result = judge(
            (Path(job) / "sentinel.losses").read_text(),
            (Path(job) / "stock.losses").read_text(),
            json.loads((Path(job) / "sentinel.json").read_text()),
        )
    faults = result.pop("faults")
    for fault in faults:
        say("not as promised: " + fault)
    print(json.dumps(result), flush=True)
    return 1 if faults else 0


def _close(pages, result):
    """True when the kernel's count of moved pages is at most 1% off."""
    return abs(pages - result["moved_pages_by_kernel"]) <= 0.01 * pages


def is_beginning_of(sentinel, stock):
    """True when the losses under Sentinel, of which there must be enough, are the first ones of the stock training."""
    steps = len(sentinel.splitlines())
    return steps >= MANAGED_STEPS and sentinel.splitlines() == stock.splitlines()[:steps]


def judge(sentinel, stock, report):
    """Compares what a training left with what is promised.

    Args:
      sentinel, stock: Losses of the two trainings as hexadecimal lines.
      report: What the training under Sentinel wrote: its statistics and the kernel's counters.

    Returns:
      A dict with the figures, and in `faults` what is not as promised.
    """
    stats = report["statistics"]
    before, after = report["kernel_before"], report["kernel_after"]
    due, there = stats["placement_due_bytes"], stats["placement_there_bytes"]
    moved = stats["promoted_bytes"] + stats["demoted_bytes"]
    result = {
        "losses_identical_to_stock": is_beginning_of(sentinel, stock),
        "on_planned_node": there / due if due else None,
        "late_or_without_room": stats["placement_late_bytes"] / due if due else None,
        "samples": stats["placement_samples"],
        "steps_managed": stats["steps_managed"],
        "peak_bytes": stats["peak_bytes"],
        "fast_bytes_allowed": stats["fast_bytes_allowed"],
        "fast_bytes_peak": stats["fast_bytes_peak"],
        "moved_pages_counted": moved // 4096,
        "moved_pages_by_kernel": after["pgmigrate_success"] - before["pgmigrate_success"],
        "compaction_unchanged": after["compact_isolated"] == before["compact_isolated"],
        "slot_hit_rate": stats["slot_hit_rate"],
        "errors_by_errno": stats["errors_by_errno"],
        "seconds_under_sentinel": round(report["seconds"], 1),
    }
    promises = [
        (result["losses_identical_to_stock"], "the losses have the bits of stock TensorFlow"),
        (stats["tiers"] == "numa", "the tiers are memory nodes"),
        (stats["steps_managed"] >= MANAGED_STEPS, "%d steps follow a plan" % MANAGED_STEPS),
        (stats["peak_bytes"] >= 64 << 20, "a step's tensors take at least 64 MiB at their peak"),
        (result["samples"] >= SAMPLES_AT_LEAST, "%d boundaries are sampled" % SAMPLES_AT_LEAST),
        (
            due > 0 and there >= SHARE_ON_NODE_AT_LEAST * due,
            "99% of the bytes due are on their planned node",
        ),
        (
            stats["fast_bytes_peak"] <= stats["fast_bytes_allowed"],
            "no more than the allowed bytes are fast",
        ),
        (moved > 0 and result["moved_pages_by_kernel"] > 0, "pages move"),
        (
            not result["compaction_unchanged"] or _close(moved // 4096, result),
            "the kernel counts as many moved pages, within 1%",
        ),
    ]
    result["faults"] = [text for kept, text in promises if not kept]
    return result
