"""Swap as the slow tier, for real: real swap, a real memory limit, the real TensorFlow. Needs root."""

import json
import re
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools/devtool"))

import swapspace  # noqa: E402

TRAINING = ROOT / "tests/scenarios/swapping.py"
STEPS, ACTIVATION_MB = 20, 8
# The interpreter with TensorFlow takes about 100 MB besides files; the chain's tensors take 168 MB at their peak.
LIMIT_BYTES, LOWERED_BYTES = 230 << 20, 200 << 20
SWAP_BYTES = 1 << 30
# Half of the chain's peak.
BUDGET_BYTES = 90 << 20
# Up to an eighth of a move may stay, and what is born in slow memory goes two layers later.
HELD_OVER_AT_MOST_BYTES = 3 * (ACTIVATION_MB << 20)
SWAP = {"SENTINEL_SLOW": "swap", "SENTINEL_WARMUP_STEPS": "1"}


def test_without_swap_two_commands_are_named(start, sentinel_python):
    areas = Path("/proc/swaps").read_text().splitlines()[1:]
    if areas:
        pytest.skip("skipped: this machine has swap: %s" % areas[0].split()[0])
    strict = dict(SWAP, SENTINEL_FAILURE="strict")
    finished = start(sentinel_python, TRAINING, "1", "1", **strict).wait()
    finished.assert_no_crash()
    assert finished.code != 0 and "mkswap /swapfile && swapon" in finished.err, finished.text


def test_an_interrupted_benchmark_leaves_no_swap_behind(sentinel_python):
    why = swapspace.why_not()
    if why:
        pytest.skip("skipped: " + why)
    code = "import sys, time; sys.path.insert(0, sys.argv[1]); import swapspace\n"
    code += "with swapspace.zram_swap(1 << 26) as device: print(device, flush=True); time.sleep(60)"
    command = [str(sentinel_python), "-c", code, str(ROOT / "tools/devtool")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, universal_newlines=True)
    device = process.stdout.readline().strip()
    assert device in Path("/proc/swaps").read_text()
    process.send_signal(2)
    process.wait()
    assert device not in Path("/proc/swaps").read_text() and not Path(device).exists()


@pytest.fixture(scope="module", params=["disk", "zram"])
def group(request, tmp_path_factory):
    """A memory group on a machine with swap of one kind."""
    why = swapspace.why_not()
    if why:
        pytest.skip("skipped: " + why)
    with ExitStack() as stack:
        if request.param == "disk":
            folder = ROOT / "build"
            folder.mkdir(exist_ok=True)
            swap = swapspace.disk_swap(folder, SWAP_BYTES)
        else:
            swap = swapspace.zram_swap(SWAP_BYTES)
        try:
            stack.enter_context(swap)
        except swapspace.Unavailable as error:
            pytest.skip("skipped: %s" % error)
        yield stack.enter_context(swapspace.memory_group("sentinel-test"))


@pytest.fixture
def train(group, start):
    """train(python, limit, *arguments, **settings) starts a training in the group."""

    def train(python, limit_bytes, *arguments, **settings):
        group.limit(None)
        group.limit(limit_bytes)
        enter = "import os, sys\n"
        enter += "open(sys.argv[1] + '/cgroup.procs', 'w').write(str(os.getpid()))\n"
        enter += "os.execv(sys.argv[2], sys.argv[2:])"
        command = [python, "-W", "ignore", TRAINING, str(STEPS), str(ACTIVATION_MB), *arguments]
        return start(python, "-c", enter, group.folder, *command, **settings)

    return train


def losses(finished):
    found = re.findall(r"^[0-9a-f]{8}$", finished.out, re.MULTILINE)
    assert len(found) == STEPS, finished.text
    return found


def stats(finished):
    return json.loads(finished.out.splitlines()[-1])


@pytest.fixture(scope="module")
def expected(start, stock_python):
    """The losses of stock TensorFlow, which no limit can change."""
    finished = start(stock_python, TRAINING, str(STEPS), str(ACTIVATION_MB)).wait()
    finished.assert_clean()
    return losses(finished)


def told_after(finished, expected):
    """The statistics of a training that ended well, with the losses of stock TensorFlow."""
    finished.assert_clean()
    assert losses(finished) == expected
    return stats(finished)


def test_losses_are_stock_bits_under_a_limit(train, sentinel_python, expected):
    limit_bytes = LIMIT_BYTES
    # What the limit leaves to tensors depends on how much of the interpreter is in memory when it is measured. Where
    # that is enough for all tensors, or the disk too busy for any move, a tighter limit is tried.
    for _ in range(5):
        told = told_after(train(sentinel_python, limit_bytes, **SWAP).wait(), expected)
        assert told["tiers"] == "swap" and told["slow_tier"].startswith("swap ("), told
        assert told["steps_managed"] > 5, told
        assert told["swapped_out_bytes_peak"] > 0, told
        assert told["memory_limit_bytes"] == limit_bytes, told
        assert told["fast_bytes_peak"] < limit_bytes, told
        if told["demoted_bytes"] > 0:
            break
        assert told["planned_move_bytes"] == 0, told
        spare_bytes = max(0, told["fast_bytes_allowed"] - told["peak_bytes"])
        # Limits are of whole pages.
        limit_bytes = (limit_bytes - spare_bytes - (ACTIVATION_MB << 20)) // 4096 * 4096
    assert told["demoted_bytes"] > 0, told


def test_the_kernel_holds_no_more_than_the_budget(train, sentinel_python, expected):
    """The account says so by its making; `/proc/self/smaps` is asked at each layer of the steps under a plan."""
    settings = dict(SWAP, SENTINEL_FAST=str(BUDGET_BYTES), SENTINEL_CHECK_PLACEMENT="1")
    over = []
    # Others on the machine make movers late, but not in every training.
    while len(over) < 4 and (not over or over[-1] > HELD_OVER_AT_MOST_BYTES):
        told = told_after(train(sentinel_python, None, **settings).wait(), expected)
        assert told["steps_managed"] > 5 and told["demoted_bytes"] > 0, told
        assert told["fast_bytes_peak"] <= told["fast_bytes_allowed"] == BUDGET_BYTES, told
        assert BUDGET_BYTES / 2 < told["placement_held_bytes_max"], told
        over.append(told["placement_held_over_bytes"])
        assert over[-1] <= 2 * HELD_OVER_AT_MOST_BYTES, told
    assert over[-1] <= HELD_OVER_AT_MOST_BYTES, over


def lowered(group, train, python, to_bytes, gate, **settings):
    """Starts a training, lowers the limit in its middle, and waits for its end."""
    child = train(python, LIMIT_BYTES, gate, **settings)
    while not gate.exists() and child.is_running():
        time.sleep(0.05)
    assert gate.exists(), child.wait().text
    group.limit(to_bytes)
    gate.with_suffix(".open").write_text("")
    return child.wait()


def test_a_lowered_limit_makes_another_plan_and_changes_no_loss(
    group, train, sentinel_python, expected, tmp_path
):
    finished = lowered(group, train, sentinel_python, LOWERED_BYTES, tmp_path / "gate", **SWAP)
    told = told_after(finished, expected)
    assert told["memory_limit_changes"] == 1, told
    assert told["memory_limit_bytes"] == LOWERED_BYTES, told
    assert told["plans_made"] >= 2 and told["fast_bytes_allowed"] < LOWERED_BYTES, told


def test_strict_training_stops_when_the_limit_is_lowered(group, train, sentinel_python, tmp_path):
    finished = lowered(
        group,
        train,
        sentinel_python,
        LOWERED_BYTES,
        tmp_path / "gate",
        SENTINEL_FAILURE="strict",
        **SWAP,
    )
    finished.assert_no_crash()
    assert finished.code != 0, finished.text
    assert "the memory limit was lowered from %d" % LIMIT_BYTES in finished.err, finished.text
