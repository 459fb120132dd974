"""TensorFlow in a guest whose kernel counts accesses per page; a part of `tools/dev qemu kernel --full`."""

import json
import tempfile
from pathlib import Path

import commands
import kernels
from util import ROOT, STOCK_VENV, VENV, say

TRAINING = kernels.HARNESS / "tensorflow_test.sh"
SCENARIO = ROOT / "tests" / "scenarios" / "page_counts.py"
# Steps that the scenario makes at least, of which some follow a plan.
STEPS_AT_LEAST, MANAGED_AT_LEAST = 9, 1
EXACT_ACCESSES_AT_MOST = 1000000
# A gathered element of four bytes is loaded twice: the C library copies sizes from 4 to 7 by two loads of 4.
LOADS_PER_ELEMENT = 2


def tensorflow_figures(image):
    """Profiles a training step in a guest with this kernel.

    Args:
      image: Path of a kernel with the profiler.

    Returns:
      A dict of figures, and a list of what is not as promised.
    """
    commands.setup()
    say("TensorFlow's profiled step under the kernel's profiler")
    with tempfile.TemporaryDirectory(prefix="sentinel-kernel-tensorflow-") as job:
        pythons = [venv / "bin" / "python" for venv in (VENV, STOCK_VENV)]
        command = ["sh", TRAINING, *pythons, SCENARIO, job]
        status = kernels.guest(image, "max", job, command, {})
        if status:
            error = (Path(job) / "err").read_text(errors="replace").strip()
            return {}, ["TensorFlow in the guest ended with status %d: %s" % (status, error)]
        read = [json.loads((Path(job) / name).read_text()) for name in RESULTS]
        losses = [(Path(job) / name).read_text() for name in ("sentinel.losses", "stock.losses")]
    return judge(*read, *losses)


RESULTS = ("lstm.json", "exact.json", "huge.json")


def ranks(values):
    """The rank of each value from 1; equal ones share the average of theirs."""
    order = sorted(range(len(values)), key=lambda index: values[index])
    found = [0.0] * len(values)
    at = 0
    while at < len(order):
        end = at
        while end < len(order) and values[order[end]] == values[order[at]]:
            end += 1
        for index in order[at:end]:
            found[index] = (at + 1 + end) / 2
        at = end
    return found


def spearman(first, second):
    """Rank correlation of two lists of the same length; 0 when one of them is the same all over."""
    a, b = ranks(first), ranks(second)
    mean = (len(a) + 1) / 2
    product = sum((x - mean) * (y - mean) for x, y in zip(a, b))
    squares = [sum((x - mean) ** 2 for x in side) for side in (a, b)]
    return product / (squares[0] * squares[1]) ** 0.5 if all(squares) else 0.0


def judge(lstm, exact, huge, sentinel_losses, stock_losses):
    """Compares what the scenario left with what is promised.

    Args:
      lstm, exact, huge: The results of the three trainings.
      sentinel_losses, stock_losses: Losses as hexadecimal lines.

    Returns:
      A dict of figures, and a list of what is not as promised.
    """
    sizes, counted, by_operations, temporary = zip(*lstm["tensors"])
    # What an operation does with its temporaries is a guess of the accounting, so they are also left out.
    kept = [index for index, is_temporary in enumerate(temporary) if not is_temporary]
    kept_ranks = spearman([counted[i] for i in kept], [by_operations[i] for i in kept])
    steps = len(sentinel_losses.splitlines())
    # Sizes rank the tensors as well as they can, whichever way round.
    by_size = abs(spearman(counted, sizes))
    ratio = min(lstm["profiled_seconds"]) / min(lstm["normal_seconds"])
    figures = {
        "rank_correlation": round(spearman(counted, by_operations), 3),
        "rank_by_size": round(by_size, 3),
        "rank_correlation_without_temporaries": round(kept_ranks, 3),
        "tensors_ranked": len(sizes),
        "profiled_step_ratio": round(ratio, 2),
        "losses_identical_to_stock": sentinel_losses == stock_losses and steps >= STEPS_AT_LEAST,
        "exact_counts_as_known": exact["reads"]
        == [[LOADS_PER_ELEMENT * (page + 1) for page in range(64)]]
        and exact["writes"] == [[0] * 64],
        "huge_bytes_kept": round(huge["huge_bytes_after"] / max(huge["huge_bytes_before"], 1), 3),
    }
    promises = [
        (lstm["profiler"] == "kernel:tlb_miss", "the kernel profiles the training step"),
        (exact["profiler"] == "kernel:exact", "the kernel counts every access"),
        (len(sizes) >= 20, "20 tensors of four pages are ranked"),
        (figures["rank_correlation"] >= 0.8, "ranks agree with operations (0.8)"),
        (
            figures["rank_correlation"] >= by_size + 0.2,
            "ranks agree better than with size (by 0.2)",
        ),
        (ratio <= 5, "a profiled step takes at most five times a normal one"),
        (figures["losses_identical_to_stock"], "the losses have the bits of stock TensorFlow"),
        (
            lstm["statistics"]["steps_managed"] >= MANAGED_AT_LEAST
            and lstm["statistics"]["tiers"] == "numa",
            "steps follow the plan on two nodes",
        ),
        (figures["exact_counts_as_known"], "exact counts per page are those known before"),
        (exact["accesses"] <= EXACT_ACCESSES_AT_MOST, "the exact graph is a small one"),
        (huge["huge_bytes_before"] >= 8 << 20, "there were huge pages to split"),
        (figures["huge_bytes_kept"] >= 0.9, "90% of the bytes are in huge pages again"),
    ]
    return figures, [text for kept, text in promises if not kept]
