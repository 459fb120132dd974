"""The option `profiler`: on a machine without the kernel's profiler `auto` steps down and `kernel` is refused.

Where the kernel's profiler is at work is tested in a guest: `tools/dev qemu kernel --full`.
"""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SMALL_TRAINING = ROOT / "tests/scenarios/small_training.py"
OPTIONS = {"slow": "emulated:optane", "fast_fraction": 0.5, "warmup_steps": 1}
DEVICE = Path("/dev/sentinel")


def train(start, python, options, **variables):
    return start(python, SMALL_TRAINING, json.dumps({**OPTIONS, **options}), **variables).wait()


@pytest.mark.parametrize("profiler", ["auto", "op"])
def test_a_training_runs_whatever_the_kernel_has(start, sentinel_python, profiler):
    finished = train(start, sentinel_python, {}, SENTINEL_PROFILER=profiler, SENTINEL_LOG="info")
    assert finished.code == 0, finished.out
    stats = json.loads(finished.out.splitlines()[-1])
    assert stats["steps_managed"] > 0
    fallbacks = [line for line in finished.err.splitlines() if "profiler = auto" in line]
    if profiler == "op" or DEVICE.exists():
        assert fallbacks == []
    else:
        assert len(fallbacks) == 1 and "counted per operation" in fallbacks[0], finished.err
    if profiler == "op" or not DEVICE.exists():
        assert stats["profiler"] == "op"


@pytest.mark.parametrize("value", ["kernel", "kernel:exact", "perf"])
@pytest.mark.parametrize("by_variable", [True, False])
def test_what_cannot_be_had_is_refused_before_training(start, sentinel_python, value, by_variable):
    if value != "perf" and DEVICE.exists():
        pytest.skip("this kernel has the profiler")
    options = {} if by_variable else {"profiler": value}
    variables = {"SENTINEL_PROFILER": value} if by_variable else {}
    finished = train(start, sentinel_python, options, **variables)
    assert finished.code != 0
    field = "SENTINEL_PROFILER" if by_variable and value == "perf" else "profiler"
    said = finished.err
    shown = "kernel:tlb_miss" if value == "kernel" else value
    assert "sentinel: %s = %s: " % (field, shown) in said, said
    assert "accepted" in said and "auto" in said and "op" in said
    if value != "perf":
        assert "/dev/sentinel cannot be opened" in said


def figures():
    """The module that judges what TensorFlow left in the guest."""
    for folder in ("tools/devtool", "linux-4.9-profiler/qemu"):
        if str(ROOT / folder) not in sys.path:
            sys.path.insert(0, str(ROOT / folder))
    path = ROOT / "tools/devtool/kernel_tensorflow.py"
    spec = importlib.util.spec_from_file_location(path.stem, str(path))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_ranks_are_compared_as_spearman_did():
    judged = figures()
    assert judged.ranks([5, 1, 5, 9]) == [2.5, 1, 2.5, 4]
    assert judged.spearman([1, 2, 3, 4], [10, 20, 30, 40]) == pytest.approx(1)
    assert judged.spearman([1, 2, 3, 4], [4, 3, 2, 1]) == pytest.approx(-1)
    # 1 - 6 * (1 + 1) / (5 * 24), for ranks without ties.
    assert judged.spearman([1, 2, 3, 4, 5], [1, 2, 3, 5, 4]) == pytest.approx(0.9)
    assert judged.spearman([1, 2], [3, 3]) == 0


LOSSES = "".join("%08x\n" % step for step in range(9))


def results(**changes):
    # Sizes rank the tensors by chance, operations nearly as the kernel does.
    tensors = [[4096 * (4 + index * 7 % 20), index + 0.5, index // 2, False] for index in range(20)]
    lstm = {
        "tensors": tensors,
        "profiler": "kernel:tlb_miss",
        "profiled_seconds": [9.0, 3.0],
        "normal_seconds": [2.0, 1.0],
        "statistics": {"steps_managed": 3, "tiers": "numa"},
    }
    exact = {
        "profiler": "kernel:exact",
        "accesses": 8861,
        "reads": [[2 * (page + 1) for page in range(64)]],
        "writes": [[0] * 64],
    }
    huge = {"huge_bytes_before": 20 << 20, "huge_bytes_after": 19 << 20}
    for part in (lstm, exact, huge):
        part.update({key: value for key, value in changes.items() if key in part})
    return lstm, exact, huge


def test_a_good_guest_is_judged_good():
    values, faults = figures().judge(*results(), LOSSES, LOSSES)
    assert faults == []
    assert values["rank_correlation"] > 0.98 and values["rank_by_size"] < 0.5
    assert values["profiled_step_ratio"] == 3 and values["huge_bytes_kept"] == 0.95


BAD = {
    "by size": (
        {"tensors": [[4096 * i, i, i, False] for i in range(4, 30)]},
        "better than with size",
    ),
    "uncorrelated": (
        {"tensors": [[4096 * (4 + i * 7 % 20), i, -(i // 2), False] for i in range(20)]},
        "ranks agree with operations",
    ),
    "slow": ({"profiled_seconds": [5.1]}, "five times"),
    "unmanaged": ({"statistics": {"steps_managed": 0, "tiers": "numa"}}, "follow the plan"),
    "one more read": ({"reads": [[3] + [2 * (page + 1) for page in range(1, 64)]]}, "known before"),
    "split": ({"huge_bytes_after": 17 << 20}, "huge pages again"),
}


@pytest.mark.parametrize("case", BAD)
def test_each_broken_promise_is_found(case):
    changes, fault = BAD[case]
    faults = figures().judge(*results(**changes), LOSSES, LOSSES)[1]
    assert any(fault in text for text in faults), faults


def test_other_losses_are_found():
    assert figures().judge(*results(), LOSSES, LOSSES.replace("8", "9"))[1] == [
        "the losses have the bits of stock TensorFlow"
    ]
