"""`tools/dev qemu`: what needs a machine with two memory nodes, in a virtual one."""

import errno
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import commands
import kernels
import venvs
from util import ROOT, STOCK_VENV, VENV, Stop, say

HARNESS = ROOT / "linux-4.9-profiler" / "qemu"
SCENARIOS = ROOT / "tests" / "scenarios"
# What the kernel counts, and what it holds on node 0, may be this far off.
TOLERANCE = 0.01
# Of the bytes whose move is due, the least share on their planned node.
SHARE_ON_NODE = 0.99


class Form:
    """How much of the test is run.

    Attributes:
      name: `full` or `short`.
      managed_steps: Steps that follow a plan.
      stock_steps: Some more than it takes to warm up, to profile and to follow the plan.
      batch: Digits in a step.
      peak_bytes, samples: The least that the training must have.
    """

    def __init__(self, name, managed_steps, stock_steps, batch, peak_bytes, samples):
        self.name, self.managed_steps, self.stock_steps = name, managed_steps, stock_steps
        self.batch, self.peak_bytes, self.samples = batch, peak_bytes, samples


FULL = Form("full", 30, 38, 32768, 64 << 20, 20)
# For every change: an eighth of the memory, fewer steps, no failures; everything else is the same.
SHORT = Form("short", 12, 20, 4096, 8 << 20, 20)


def run(arguments):
    """Runs `numa`, the live test, whole or `--short`, `kernel`, the profiler's tests, or any command.

    What a command writes is lost, but for files in the folder of `--job`.
    """
    forms = {("numa",): FULL, ("numa", "--short"): SHORT}
    if tuple(arguments) in forms:
        commands.setup()
        return _numa(forms[tuple(arguments)])
    if arguments[:2] == ["run", "--job"] and len(arguments) > 3:
        job = Path(arguments[2])
        if not job.is_dir():
            raise Stop("--job = %s: accepted is a folder, in which the guest may write" % job)
        return _guest(arguments[3:], job.resolve())
    if arguments[:1] == ["run"] and len(arguments) > 1 and not arguments[1].startswith("-"):
        return _guest(arguments[1:])
    if arguments[:1] == ["kernel"]:
        return kernels.run(arguments[1:])
    have = "'numa', 'numa --short', 'kernel', 'kernel --full', 'kernel --cost' or 'run [--job FOLDER] COMMAND...'"
    raise Stop("qemu takes %s, but got: %s" % (have, " ".join(arguments)))


def _guest(command, job=None):
    """Runs a command in the guest and returns its exit status."""
    whole = [sys.executable, str(HARNESS / "guest.py"), "--cache", str(venvs.cache_home() / "qemu")]
    whole += ["--job", str(job)] if job else []
    return subprocess.call(whole + ["--"] + [str(part) for part in command], cwd=str(ROOT))


def _numa(form):
    """Trains on two real nodes and compares with stock TensorFlow; the last line is one JSON object."""
    with tempfile.TemporaryDirectory(prefix="sentinel-numa-") as job:
        say("training in a guest with two memory nodes, under Sentinel and with stock TensorFlow")
        pythons = [venv / "bin" / "python" for venv in (VENV, STOCK_VENV)]
        command = ["sh", HARNESS / "numa_test.sh"] + pythons + [SCENARIOS, job]
        command += [form.managed_steps, form.stock_steps, form.batch, form.name]
        began = time.monotonic()
        status = _guest(command, job)
        seconds = time.monotonic() - began
        if status:
            raise Stop("the training in the guest ended with status %d (see above)" % status)
        result = judge(_read(job, "sentinel.losses"), _read(job, "stock.losses"), _load(job), form)
        if form is FULL:
            huge = json.loads(_read(job, "huge.json"))
            judge_huge(_read(job, "huge.losses"), _read(job, "stock.losses"), huge, result)
            losses = [_read(job, name) for name in ("failing.losses", "stock-failing.losses")]
            report, stopped = [
                json.loads(_read(job, name)) for name in ("failing.json", "stopped.json")
            ]
            judge_failures(losses[0], losses[1], report, stopped, result)
    faults = result.pop("faults")
    for fault in faults:
        say("not as promised: " + fault)
    result.update(form=form.name, seconds_in_guest=round(seconds, 1))
    print(json.dumps(result), flush=True)
    return 1 if faults else 0


def _read(job, name):
    return (Path(job) / name).read_text()


def _load(job):
    return json.loads(_read(job, "sentinel.json"))


def _is_close(ours, kernels):
    """True when the kernel's count of moved pages is at most 1% off."""
    return abs(ours - kernels) <= TOLERANCE * ours


def is_beginning_of(sentinel, stock, steps_at_least):
    """True when the losses under Sentinel, of which there must be enough, are the first ones of the stock training."""
    steps = len(sentinel.splitlines())
    return steps >= steps_at_least and sentinel.splitlines() == stock.splitlines()[:steps]


def judge(sentinel, stock, report, form=FULL):
    """Compares what a training left with what is promised.

    Args:
      sentinel, stock: Losses of the two trainings as hexadecimal lines.
      report: What the training under Sentinel wrote: its statistics and the kernel's counters.
      form: What was run.

    Returns:
      A dict with the figures, and in `faults` what is not as promised.
    """
    stats, delta = report["statistics"], _delta(report)
    due, there = stats["placement_due_bytes"], stats["placement_there_bytes"]
    moved = stats["promoted_pages"] + stats["demoted_pages"]
    allowed = stats["fast_bytes_allowed"]
    result = {
        "losses_identical_to_stock": is_beginning_of(sentinel, stock, form.managed_steps),
        "on_planned_node": there / due if due else None,
        "late_or_without_room": stats["placement_late_bytes"] / due if due else None,
        "samples": stats["placement_samples"],
        "steps_managed": stats["steps_managed"],
        "peak_bytes": stats["peak_bytes"],
        "fast_bytes_allowed": allowed,
        "fast_bytes_peak": stats["fast_bytes_peak"],
        "node0_bytes_max": stats["placement_held_bytes_max"],
        "node0_over_allowed": stats["placement_held_over_bytes"] / allowed,
        "moved_pages_counted": moved,
        "moved_pages_by_kernel": delta["pgmigrate_success"],
        "compaction_unchanged": delta["compact_isolated"] == 0,
        "huge_pages_split": delta["thp_split_page"] + delta["thp_migration_split"],
        "huge_pages_moved": delta["thp_migration_success"],
        "slot_hit_rate": stats["slot_hit_rate"],
        "stall_ns_max": stats["stall_ns_max"],
        "stall_ns_step_max": stats["stall_ns_step_max"],
        "move_batches": stats["move_batches"],
        "move_batches_slow": stats["move_batches_slow"],
        "errors_by_errno": stats["errors_by_errno"],
        "seconds_under_sentinel": round(report["seconds"], 1),
    }
    promises = [
        (result["losses_identical_to_stock"], "the losses have the bits of stock TensorFlow"),
        (stats["tiers"] == "numa", "the tiers are memory nodes"),
        (
            stats["steps_managed"] >= form.managed_steps,
            "%d steps follow a plan" % form.managed_steps,
        ),
        (
            stats["peak_bytes"] >= form.peak_bytes,
            "a step's tensors take at least %d MiB at their peak" % (form.peak_bytes >> 20),
        ),
        (result["samples"] >= form.samples, "%d boundaries are sampled" % form.samples),
        (
            due > 0 and there >= SHARE_ON_NODE * due,
            "%d%% of the bytes due are on their planned node" % (100 * SHARE_ON_NODE),
        ),
        (stats["fast_bytes_peak"] <= allowed, "no more than the allowed bytes are fast"),
        (
            0 < result["node0_bytes_max"] and result["node0_over_allowed"] <= TOLERANCE,
            "node 0 holds no more than the allowed bytes and 1%",
        ),
        (moved > 0 and result["moved_pages_by_kernel"] > 0, "pages move"),
        (result["compaction_unchanged"], "the kernel's compaction keeps out of it"),
        (
            _is_close(moved, result["moved_pages_by_kernel"]),
            "the kernel counts as many moved pages, within 1%",
        ),
        (result["huge_pages_split"] == 0, "huge pages move without being split"),
    ]
    result["faults"] = [text for kept, text in promises if not kept]
    return result


def judge_huge(sentinel, stock, report, result):
    """Adds what a training left whose units have huge pages: `huge_pages_moved`, and what is not as promised.

    Args:
      sentinel, stock: Losses of the two trainings as hexadecimal lines.
      report: What the training under Sentinel wrote.
      result: What `judge` made.
    """
    stats, delta = report["statistics"], _delta(report)
    moved = stats["promoted_pages"] + stats["demoted_pages"]
    split = delta["thp_split_page"] + delta["thp_migration_split"]
    promises = [
        (
            is_beginning_of(sentinel, stock, stats["steps_managed"]),
            "with huge pages, the losses have the bits of stock TensorFlow",
        ),
        (delta["thp_migration_success"] > 0, "huge pages move"),
        (split == 0, "huge pages that move are not split"),
        (
            _is_close(moved, delta["pgmigrate_success"]),
            "the kernel counts as many pages moved, huge ones included, within 1%",
        ),
    ]
    result["huge_pages_moved"] = delta["thp_migration_success"]
    result["huge_pages_split"] += split
    result["faults"] += [text for kept, text in promises if not kept]


def _delta(report):
    """By how much the kernel's counters grew during a training."""
    before, after = report["kernel_before"], report["kernel_after"]
    return {name: after[name] - before[name] for name in before}


def judge_failures(sentinel, stock, report, stopped, result):
    """Adds what a training left whose moves were made to fail: `failures_survived`, and what is not as promised.

    Args:
      sentinel, stock: Losses of the two trainings as hexadecimal lines.
      report: The statistics after each of its parts.
      stopped: Why a strict training was stopped; None when it was not.
      result: What `judge` made.
    """
    names = ["before", "slow node full", "slow node free", "pages held", "moves forbidden"]
    before, full, free, held, forbidden = parts = [report[name] for name in names]
    managed = [part["steps_managed"] for part in parts]
    promises = [
        (
            is_beginning_of(sentinel, stock, managed[-1]),
            "with failing moves, the losses have the bits of stock TensorFlow",
        ),
        (managed == sorted(set(managed)), "steps go on following the plan when moves fail"),
        (
            errors(before, errno.ENOMEM) == 0 < errors(full, errno.ENOMEM),
            "a full slow node is counted",
        ),
        ("ENOMEM" in (full["message"] or ""), "the user is told that the node is full"),
        (
            free["demoted_pages"] > full["demoted_pages"],
            "pages move again when the slow node has room again",
        ),
        (
            errors(held, errno.EBUSY) > errors(free, errno.EBUSY)
            and held["pages_retried"] > free["pages_retried"],
            "pages that somebody holds are tried again and counted",
        ),
        (
            errors(held, errno.EPERM) == 0 < errors(forbidden, errno.EPERM),
            "forbidden calls are counted",
        ),
        (
            stopped is not None and "sentinel: slow = node:1" in stopped and "EPERM" in stopped,
            "a strict training stops with a named error",
        ),
    ]
    faults = [text for kept, text in promises if not kept]
    result["failures_survived"] = not faults
    result["failing_pages_by_errno"] = forbidden["page_errors_by_errno"]
    result["failing_calls_by_errno"] = forbidden["call_errors_by_errno"]
    result["stopped"] = stopped
    result["faults"] += faults


def errors(statistics, number):
    """How often pages or calls were refused with this error number."""
    tables = statistics["page_errors_by_errno"], statistics["call_errors_by_errno"]
    return sum(table.get(str(number), 0) for table in tables)
