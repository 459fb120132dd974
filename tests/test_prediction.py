"""The simulator predicts a live run on the emulated tier from the run's own trace."""

import json
import statistics
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "examples/models/resnet32.py"
GBPS = 2.15
# One operation at a time: then the live run places every byte as the serial simulator does.
FLAGS = f"--batch 16 --inter-op 1 --quiet --slow emulated:optane --migration-gbps {GBPS}".split()
MEASURED_STEPS = 8
# Steps under a plan before: one is made again after three, and found while training goes on.
LEAD_IN_STEPS = 14
# Bytes and placement are counted, so they have to agree; time is measured, on a machine that others use.
BYTES_OFF = 0.02
SLOW_MEMORY_OFF = 0.05
TIME_OFF = 0.30


@pytest.fixture(scope="module", params=["gap", "hpca21"])
def beside(request, start, sentinel_python, tmp_path_factory):
    """The prediction of a policy's step as `sentinel sim` prints it, and the results of its run."""
    folder, policy = tmp_path_factory.mktemp(request.param), request.param

    def train(*flags):
        out = folder / "result.json"
        start(sentinel_python, SCRIPT, *FLAGS, *flags, "--json-out", out).wait().assert_clean()
        return json.loads(out.read_text())

    all_fast = "--policy fast_only --warmup-steps 1 --steps".split() + [str(3 + MEASURED_STEPS)]
    before = train(*all_fast)
    fast_bytes = int(0.2 * before["stats"]["peak_bytes"])
    managed = LEAD_IN_STEPS + MEASURED_STEPS
    flags = ["--policy", policy, "--fast", str(fast_bytes), "--trace", folder / "step.trace"]
    run = train(*flags, "--warmup-steps", "2", "--managed-steps", str(managed), "--steps", "200")
    after = train(*all_fast)
    seconds = statistics.median(
        before["step_seconds"][-MEASURED_STEPS:] + after["step_seconds"][-MEASURED_STEPS:]
    )
    sentinel = sentinel_python.parent / "sentinel"
    question = ["sim", folder / "step.trace", "--emulated", "--step-seconds", str(seconds)]
    question += ["--fast", str(fast_bytes), "--migration-gbps", str(GBPS), "--policy", policy]
    command = [str(part) for part in [sentinel, *question, "--no-bound", "--json"]]
    told = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
    return json.loads(told.decode())["points"][0]["results"][0], run


def per_step(run, counter):
    """Mean growth of a counter over the measured steps."""
    values = [stats[counter] for stats in run["step_stats"]]
    return (values[-1] - values[-1 - MEASURED_STEPS]) / MEASURED_STEPS


@pytest.mark.parametrize("counter", ["promoted_bytes", "demoted_bytes"])
def test_moved_bytes_are_as_predicted(beside, counter):
    predicted, run = beside
    assert per_step(run, "steps_managed") == 1
    assert predicted[counter] > 0
    assert per_step(run, counter) == pytest.approx(predicted[counter], rel=BYTES_OFF)


def test_bytes_are_in_slow_memory_as_predicted(beside):
    predicted, run = beside
    assert predicted["slow_memory_seconds"] > 0
    measured = per_step(run, "slow_memory_ns") / 1e9
    assert measured == pytest.approx(predicted["slow_memory_seconds"], rel=SLOW_MEMORY_OFF)


def test_a_step_takes_about_as_long_as_predicted(beside):
    predicted, run = beside
    measured = statistics.median(run["step_seconds"][-MEASURED_STEPS:])
    assert measured == pytest.approx(predicted["step_seconds"], rel=TIME_OFF)
