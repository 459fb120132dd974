"""Shows Sentinel at work: bit-equal training, then throughput on a fast tier of 20% of the peak and a slow tier.

Each measurement is a process of its own that runs digits_resnet.py, under stock TensorFlow or under the TensorFlow
with Sentinel. Runs that are compared are interleaved, so that a change in the machine's speed meets all of them. The
last line printed is one JSON object with every figure; the exit code is 1 when something that must hold does not.
"""

import argparse
import collections
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from demo_prediction import prediction_summary, print_prediction
from demo_report import OURS, PLANNED, failed_checks, print_bound, print_table, summarize

EXAMPLES = Path(__file__).resolve().parent
ROOT = EXAMPLES.parent

BATCH = 128
FAST_FRACTION = 0.2
SLOW_TIER = "emulated:optane"
MIGRATION_GBPS = 2.15
WARMUP_STEPS = 1
# Policies without a plan need no profile; their runs end long before this step.
WARMUP_STEPS_WITHOUT_PROFILE = 1000
# A managed run stops by itself when it has its managed steps; this bounds one whose plan never arrives.
STEPS_AT_MOST_BEFORE_PLAN = 30
CALIBRATION_STEPS = 6
# Our policy corrects its plan by what the first managed steps take; training goes on while it does.
SECOND_PLAN_STEPS = 6

MODES = ("stock", "fast_only", "slow_only", "first_touch", *PLANNED)
# Step time relative to fast_only that the first round is planned with; later rounds use what was seen.
FIRST_GUESS = {
    "stock": 1.0,
    "fast_only": 1.0,
    "slow_only": 3.0,
    "first_touch": 2.5,
    "hpca21": 2.0,
    OURS: 1.3,
}


# How long the demo may take, and the steps of its runs. Lead-in and trial steps are not measured: allocators settle in
# the first, and in the second test-and-trial chooses between waiting for late moves and leaving them.
Size = collections.namedtuple(
    "Size",
    "seconds rounds identity_steps training_steps lead_in_steps trial_steps measured_least measured_most",
)
FULL = Size(1080, 5, 14, 40, 4, 5, 4, 12)
QUICK = Size(270, 2, 7, 40, 2, 3, 2, 6)


class ChildFailed(Exception):
    """A measuring process ended with an error; the message names the run and ends with its output."""


class Run:
    """The results of one process, as digits_resnet.py wrote them."""

    def __init__(self, result, losses, wall_seconds, trace):
        self.trace = trace
        self.losses = losses
        self.accuracy = result["accuracy"]
        self.stats = result["stats"]
        self.step_seconds = result["step_seconds"]
        self.batch = result["batch"]
        self._step_stats = result["step_stats"]
        self.start_seconds = wall_seconds - sum(self.step_seconds)

    def steady_seconds(self, steps):
        """Median time of the last steps, in seconds."""
        return statistics.median(self.step_seconds[-steps:])

    def per_step(self, counter, steps):
        """Mean growth of one of Sentinel's counters per step, over the last steps."""
        values = [stats[counter] for stats in self._step_stats]
        return (values[-1] - values[-1 - steps]) / steps

    def managed_at_the_end(self, steps):
        """Whether each of the last steps ran under a plan."""
        return self.per_step("steps_managed", steps) == 1


class Demo:
    """Starts the processes, shows progress and keeps to the time that is allowed."""

    def __init__(self, arguments, scratch):
        self._pythons = {True: arguments.python, False: arguments.stock_python}
        self._scratch = Path(scratch)
        self._begin = time.monotonic()
        self._traces = arguments.traces
        self._traces.mkdir(parents=True, exist_ok=True)
        self._runs = 0
        self.size = QUICK if arguments.quick else FULL

    def elapsed(self):
        """Seconds since the demo began."""
        return time.monotonic() - self._begin

    def run(self, label, flags, sentinel=True, trace=None):
        """Runs digits_resnet.py once, with a file for the trace of its step if it has one; raises ChildFailed."""
        trace = trace and self._traces / trace
        flags = [*flags, "--trace", trace] if trace else flags
        self._runs += 1
        json_path, losses_path, log_path = (
            self._scratch / f"{self._runs}.{kind}" for kind in ("json", "losses", "log")
        )
        command = [
            self._pythons[sentinel],
            "-W",
            "ignore",
            EXAMPLES / "digits_resnet.py",
            "--batch",
            BATCH,
            "--json-out",
            json_path,
            "--losses-out",
            losses_path,
            *flags,
        ]
        command = [str(argument) for argument in command]
        begin = time.monotonic()
        with open(log_path, "w+") as log:
            child = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=log,
                env=child_environment(),
                universal_newlines=True,
            )
            seen = self._follow(child.stdout, label)
            if child.wait() != 0:
                log.seek(0)
                raise ChildFailed(
                    "{}: exit code {} of {}\n{}\n{}".format(
                        label,
                        child.returncode,
                        " ".join(command),
                        "\n".join(seen[-5:]),
                        log.read()[-4000:],
                    )
                )
        result = json.loads(json_path.read_text())
        run = Run(result, losses_path.read_text().split(), time.monotonic() - begin, trace)
        seconds = run.steady_seconds(self.size.measured_least)
        self.say(f"{label}: {len(run.step_seconds)} steps, {seconds:.3f} s each in the end")
        return run

    def _follow(self, lines, label):
        seen = []
        for line in lines:
            seen.append(line.rstrip())
            if len(seen) % 10 == 0:
                self.say(f"{label}: {seen[-1]}")
        return seen

    def say(self, text):
        """Prints one line of progress."""
        print(f"[{self.elapsed():5.0f} s] {text}", flush=True)

    def measured_steps(self, round_number, step_seconds, start_seconds):
        """How many steps each run of this round may measure so that the rest of the rounds fit the time allowed."""
        size = self.size
        seconds = (size.seconds - self.elapsed()) / (size.rounds - round_number)
        lead_in = dict.fromkeys(MODES, size.lead_in_steps)
        # Warm-up, the profiled step, and one that runs while the plan is made.
        lead_in.update({mode: WARMUP_STEPS + 2 + trial_steps(size, mode) for mode in PLANNED})
        spent = sum(start_seconds + lead_in[mode] * step_seconds[mode] for mode in MODES)
        fitting = int((seconds - spent) / sum(step_seconds.values()))
        return max(size.measured_least, min(fitting, size.measured_most))


def child_environment():
    """This environment without SENTINEL_* settings, which would win over the options the demo sets."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("SENTINEL") or name == "SENTINEL_LOG"
    }
    kept.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
    return kept


def sentinel_flags(policy, fast=None, warmup_steps=WARMUP_STEPS):
    """The options of digits_resnet.py that put it on the demo's tiers under a policy."""
    flags = ["--policy", policy, "--slow", SLOW_TIER, "--migration-gbps", MIGRATION_GBPS]
    flags += ["--warmup-steps", warmup_steps]
    return flags if fast is None else [*flags, "--fast", fast]


def bit_identity(demo):
    """Trains twice on one thread, without and with Sentinel; returns whether all losses are equal, and the second."""
    steps = demo.size.identity_steps
    flags = ["--steps", steps, "--inter-op", 1, "--intra-op", 1]
    stock = demo.run("same bits? stock, one thread", flags, sentinel=False)
    fast = f"{FAST_FRACTION * 100:g}%"
    managed = demo.run(f"same bits? {OURS}, one thread", flags + sentinel_flags(OURS, fast))
    identical = stock.losses == managed.losses and len(stock.losses) == steps
    if identical:
        demo.say(
            "the losses of all {} steps have the same bits ({} of these steps managed)".format(
                steps, managed.stats["steps_managed"]
            )
        )
    else:
        first = next(
            (i for i, pair in enumerate(zip(stock.losses, managed.losses)) if pair[0] != pair[1]),
            -1,
        )
        demo.say(f"the losses differ, first at step {first}")
    return identical, managed


def calibrate(demo):
    """Runs all-fast once; returns that run and the fast bytes that are FAST_FRACTION of its peak."""
    flags = [*sentinel_flags("fast_only"), "--steps", CALIBRATION_STEPS]
    run = demo.run("calibrate: fast_only", flags)
    peak_bytes = run.stats["peak_bytes"]
    if not peak_bytes:
        raise ChildFailed(
            f"calibrate: peak_bytes of tf.sentinel.stats() is {peak_bytes!r}: no step was profiled"
        )
    fast_bytes = int(FAST_FRACTION * peak_bytes)
    demo.say(
        f"peak {peak_bytes / 1e6:.1f} MB, so {FAST_FRACTION:.0%} are {fast_bytes / 1e6:.1f} MB of fast memory"
    )
    return run, fast_bytes


def train_to_accuracy(demo, fast_bytes):
    """Trains under our own policy with the default threads until the learning rate has come down; returns the run."""
    steps = demo.size.training_steps
    flags = [*sentinel_flags(OURS, fast_bytes), "--steps", steps, "--eval"]
    run = demo.run(f"train: {OURS}", flags)
    demo.say(f"test accuracy {run.accuracy:.4f} after {steps} steps")
    return run


def trial_steps(size, mode):
    """Managed steps that are not measured: under our policy, those until its plan has been made again."""
    return size.trial_steps + (SECOND_PLAN_STEPS if mode == OURS else 0)


def run_mode(demo, mode, label, fast_bytes, measured):
    """One process of one mode with enough steps for `measured` steady ones at its end."""
    steps = ["--steps", demo.size.lead_in_steps + measured]
    if mode == "stock":
        return demo.run(label, steps, sentinel=False)
    if mode not in PLANNED:
        fast = fast_bytes if mode == "first_touch" else None
        flags = sentinel_flags(mode, fast, WARMUP_STEPS_WITHOUT_PROFILE)
        return demo.run(label, [*flags, *steps])
    managed = trial_steps(demo.size, mode) + measured
    steps = ["--managed-steps", managed, "--steps", STEPS_AT_MOST_BEFORE_PLAN + managed]
    # The name of the round goes with the label: each round is predicted from its own traces.
    trace = "{}-{}.trace".format(mode, label.split()[1].split("/")[0])
    run = demo.run(label, [*sentinel_flags(mode, fast_bytes), *steps], trace=trace)
    if not run.managed_at_the_end(measured):
        raise ChildFailed(
            f"{label}: not all of the last {measured} steps were managed: {json.dumps(run.stats)}"
        )
    return run


def compare(demo, fast_bytes, calibration, trained):
    """Runs every mode once per round; returns one dict per round, mode to (run, number of measured steps)."""
    least, total = demo.size.measured_least, demo.size.rounds
    fast_seconds = calibration.steady_seconds(least)
    step_seconds = {mode: guess * fast_seconds for mode, guess in FIRST_GUESS.items()}
    step_seconds[OURS] = trained.steady_seconds(least)
    rounds = []
    for number in range(total):
        measured = demo.measured_steps(number, step_seconds, calibration.start_seconds)
        first = number % len(MODES)
        runs = {}
        for mode in MODES[first:] + MODES[:first]:
            label = f"round {number + 1}/{total}: {mode}"
            runs[mode] = (run_mode(demo, mode, label, fast_bytes, measured), measured)
            step_seconds[mode] = runs[mode][0].steady_seconds(measured)
        rounds.append(runs)
    return rounds


def parse_arguments():
    """Reads the command line and makes sure that both interpreters exist."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two short rounds, under five minutes")
    parser.add_argument(
        "--python", type=Path, default=ROOT / ".venv/bin/python", help="interpreter with Sentinel"
    )
    parser.add_argument(
        "--stock-python",
        type=Path,
        default=ROOT / ".venv-stock/bin/python",
        help="interpreter with stock TensorFlow 1.13.1",
    )
    parser.add_argument(
        "--traces",
        type=Path,
        default=ROOT / "build/demo",
        help="folder for the traces of the runs that predictions are made from (default %(default)s)",
    )
    arguments = parser.parse_args()
    for option, path in (
        ("--python", arguments.python),
        ("--stock-python", arguments.stock_python),
    ):
        if not path.exists():
            parser.error(f"{option}: no interpreter at '{path}'; tools/dev setup makes it")
    return arguments


def main():
    """Runs everything and prints the report; ends the process with its exit code."""
    arguments = parse_arguments()
    with tempfile.TemporaryDirectory(prefix="sentinel-demo-") as scratch:
        demo = Demo(arguments, scratch)
        try:
            identical, single_threaded = bit_identity(demo)
            calibration, fast_bytes = calibrate(demo)
            trained = train_to_accuracy(demo, fast_bytes)
            rounds = compare(demo, fast_bytes, calibration, trained)
            others = ["fast_only", "first_touch", "slow_only"]
            sentinel = arguments.python.parent / "sentinel"
            prediction = prediction_summary(
                rounds, sentinel, fast_bytes, MIGRATION_GBPS, list(PLANNED), others
            )
        except ChildFailed as failure:
            sys.exit(f"demo failed: {failure}")
        summary = summarize(rounds, trained, single_threaded, FAST_FRACTION)
        summary.update(
            losses_identical_to_stock=identical,
            prediction=prediction,
            quick=arguments.quick,
            elapsed_seconds=round(demo.elapsed(), 1),
        )
    print_table(rounds, summary, MIGRATION_GBPS)
    print_bound(summary)
    print_prediction(prediction, PLANNED)
    failures = failed_checks(summary)
    for failure in failures:
        print(f"FAILED: {failure}")
    print(json.dumps(summary), flush=True)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
