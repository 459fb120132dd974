"""Predicted and measured steps of the example networks on the emulated slow tier, all fast, under hpca21 and under gap.

Each network is trained all fast, under each policy with a plan, and all fast again. The recorded trace of a run and the
time of the all-fast steps around it go to `sentinel sim`, whose figures are printed beside the measured ones. Times are
the least of several steps on both sides, because whatever else runs on the machine only adds to them; medians are
printed as well. The last line is one JSON object.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "examples"))

from demo_prediction import BYTES, command, predict  # noqa: E402

POLICIES = ("gap", "hpca21")
# Batches of which a step takes less than two seconds on two cores.
BATCHES = {"resnet32": 32, "mobilenet": 16, "lstm": 4, "dcgan": 8}
# Managed steps before the measured ones: those in which a plan is corrected, and the next one settles.
LEAD_IN_STEPS = 12
STEPS_AT_MOST_BEFORE_PLAN = 60


def train(arguments, model, policy, fast_bytes, folder):
    """Trains one network under one policy; returns what the script wrote."""
    out = folder / f"{model}-{policy}.json"
    line = [arguments.python, "-W", "ignore", ROOT / "examples/models" / f"{model}.py", "--quiet"]
    line += [
        "--batch",
        BATCHES[model],
        "--policy",
        policy,
        "--json-out",
        out,
        "--slow",
        "emulated:optane",
    ]
    line += ["--migration-gbps", arguments.migration_gbps, "--inter-op", arguments.inter_op]
    if policy == "fast_only":
        line += ["--steps", 3 + arguments.steps, "--warmup-steps", 1]
    else:
        managed = LEAD_IN_STEPS + arguments.steps
        line += [
            "--fast",
            fast_bytes,
            "--trace",
            folder / f"{model}-{policy}.trace",
            "--warmup-steps",
            2,
        ]
        line += ["--managed-steps", managed, "--steps", managed + STEPS_AT_MOST_BEFORE_PLAN]
    subprocess.run([str(part) for part in line], check=True, stdout=subprocess.DEVNULL)
    return json.loads(out.read_text())


def steady(result, steps):
    """The times of the last steps, in seconds."""
    return result["step_seconds"][-steps:]


def per_step(result, counter, steps):
    """Mean growth of a counter over the last steps."""
    values = [stats[counter] for stats in result["step_stats"]]
    return (values[-1] - values[-1 - steps]) / steps


def compare(arguments, model, folder):
    """Trains and predicts one network; returns its figures by policy."""
    steps = arguments.steps
    before = train(arguments, model, "fast_only", None, folder)
    fast_bytes = int(arguments.fast * before["stats"]["peak_bytes"])
    figures = {"fast_bytes": fast_bytes, "policies": {}}
    for policy in POLICIES:
        run = train(arguments, model, policy, fast_bytes, folder)
        after = train(arguments, model, "fast_only", None, folder)
        around = min(steady(before, steps) + steady(after, steps))
        question = (around, fast_bytes, arguments.migration_gbps, [policy])
        trace = folder / f"{model}-{policy}.trace"
        predicted = predict(arguments.sentinel, trace, *question)[policy]
        measured = steady(run, steps)
        own = {
            "all_fast_seconds": around,
            "predicted_step_seconds": predicted["step_seconds"],
            "measured_step_seconds": min(measured),
            "measured_median_max": [statistics.median(measured), max(measured)],
            "prediction_error": predicted["step_seconds"] / min(measured) - 1,
            "predicted_slow_memory_seconds": predicted["slow_memory_seconds"],
            "measured_slow_memory_seconds": per_step(run, "slow_memory_ns", steps) / 1e9,
            "delay_seconds": per_step(run, "emulated_delay_ns", steps) / 1e9,
            "plans": [run["stats"][key] for key in ("plans_made", "plans_for_op_times")],
            "command": " ".join(command("sentinel", trace, *question)),
        }
        for name in BYTES:
            own[f"predicted_{name}_per_step"] = predicted[name]
            own[f"measured_{name}_per_step"] = per_step(run, name, steps)
        figures["policies"][policy] = own
        before = after
        print_line(model, policy, own)
    return figures


def print_line(model, policy, own):
    """One line for people."""
    megabytes = [
        own[f"{kind}_{name}_per_step"] / 1e6 for name in BYTES for kind in ("predicted", "measured")
    ]
    print(
        "{:10s} {:7s} all fast {:.3f} s, predicted {:.3f}, measured {:.3f} (median {:.3f}, most {:.3f}): {:+.1%}; "
        "slow memory {:.3f} of {:.3f} s; to fast {:.1f} of {:.1f} MB, to slow {:.1f} of {:.1f}".format(
            model,
            policy,
            own["all_fast_seconds"],
            own["predicted_step_seconds"],
            own["measured_step_seconds"],
            *own["measured_median_max"],
            own["prediction_error"],
            own["predicted_slow_memory_seconds"],
            own["measured_slow_memory_seconds"],
            *megabytes,
        ),
        flush=True,
    )


def parse_arguments():
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add(
        "models",
        nargs="*",
        default=["resnet32", "mobilenet", "lstm", "dcgan"],
        help="networks of examples/models",
    )
    add(
        "--fast",
        type=float,
        default=0.2,
        help="fast memory as a share of the peak (default %(default)s)",
    )
    add("--steps", type=int, default=8, help="measured steps of each run (default %(default)s)")
    add("--inter-op", type=int, default=0, help="operations at a time, 0 = one per core")
    add("--migration-gbps", type=float, default=2.15, help="speed of moves in each direction")
    add("--python", type=Path, default=ROOT / ".venv/bin/python", help="interpreter with Sentinel")
    add("--keep", type=Path, help="folder for traces and results, which are thrown away otherwise")
    arguments = parser.parse_args()
    unknown = [model for model in arguments.models if model not in BATCHES]
    if unknown:
        parser.error(f"unknown network {unknown[0]}: accepted are {', '.join(BATCHES)}")
    arguments.sentinel = arguments.python.parent / "sentinel"
    return arguments


def main():
    """Compares the networks one after the other."""
    arguments = parse_arguments()
    with tempfile.TemporaryDirectory(prefix="sentinel-prediction-") as scratch:
        folder = arguments.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        figures = {model: compare(arguments, model, folder) for model in arguments.models}
    every = [own for model in figures.values() for own in model["policies"].values()]
    worst = max(every, key=lambda own: abs(own["prediction_error"]))["prediction_error"]
    print(
        json.dumps(
            {"inter_op": arguments.inter_op, "worst_prediction_error": worst, "models": figures}
        )
    )


if __name__ == "__main__":
    main()
