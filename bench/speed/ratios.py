"""Ratios of things that were measured in turns, with intervals, and where results are written."""

import datetime
import json
import math
import os
import platform
import random
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RESAMPLES = 2000
SEED = 1


def geometric_mean(values):
    """Of positive values."""
    return math.exp(sum(map(math.log, values)) / len(values))


def mean_with_interval(networks):
    """The geometric mean over networks of paired ratios, and its 95% interval.

    Of each network there is a list per set of processes. The interval comes from resampling the sets, because processes
    differ by more than the rounds of one do, and then the ratios of each set.
    """
    chance = random.Random(SEED)

    def middle_of(sets):
        return geometric_mean([ratio for ratios in sets for ratio in ratios])

    def draw(sets):
        drawn = [chance.choice(sets) for _ in sets]
        return middle_of([[chance.choice(ratios) for _ in ratios] for ratios in drawn])

    middle = geometric_mean([middle_of(sets) for sets in networks])
    means = sorted(geometric_mean([draw(sets) for sets in networks]) for _ in range(RESAMPLES))
    return middle, means[int(0.025 * RESAMPLES)], means[int(0.975 * RESAMPLES)]


def verdict(figure, limit, at_most):
    """What an interval says of a limit: missed only when all of it lies beyond; too wide says nothing."""
    middle, low, high = figure
    if (low > limit) if at_most else (high < limit):
        return "missed"
    if high / low > 1.04:
        return "inconclusive"
    return "met"


def provenance():
    """Machine, commit and date."""
    model = [
        line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    describe = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12"]
    commit = subprocess.run(describe, stdout=subprocess.PIPE, text=True)
    return {
        "machine": model[0].split(":")[1].strip() if model else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(),
        "commit": commit.stdout.strip() or "unknown",
        "date": datetime.date.today().isoformat(),
    }


def parse(parser):
    """Reads the command line, with an option for results.

    `origin` is of the code that is measured, whatever happens to it meanwhile.
    """
    parser.add_argument("--out", help="write the results here too, with machine, commit and date")
    arguments = parser.parse_args()
    arguments.origin = provenance()
    return arguments


def calibration_seconds():
    """CPU seconds of a fixed loop, to be seen beside other times."""
    began = time.process_time()
    sum(range(3_000_000))
    return time.process_time() - began


def finish(result, arguments):
    """Prints the JSON line, and writes it with its origin to the file when there is one."""
    if arguments.out:
        path = Path(arguments.out)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({**arguments.origin, **result}, indent=1) + "\n")
    print(json.dumps(result))
