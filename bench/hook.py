"""What Sentinel costs per operation: a chain of 10,000 additions, against stock TensorFlow, processes in turns.

CPU time of one thread, the least over the steps of a process and over the processes; a step that follows a plan, and
the one that is profiled, which is as late a step as the first of stock TensorFlow's that count. A fixed loop's time is
printed beside. The last line is one JSON object.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "speed"))

import contenders  # noqa: E402
import ratios  # noqa: E402

CHAIN = Path(__file__).resolve().parent / "speed/chain.py"
OPS = 10_000
# The fourth step is the first of stock TensorFlow's that counts (`kind_of` in speed/chain.py).
WARMUP = {"SENTINEL_WARMUP_STEPS": "4"}
LIMITS = {"steady_ns_per_op": 60, "profiling_ns_per_op": 250}


def parse_arguments():
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="2 processes of each")
    parser.add_argument("--runs", type=int, default=5, help="processes of each (default 5)")
    contenders.add_pythons(parser)
    arguments = ratios.parse(parser)
    arguments.runs = 2 if arguments.quick else arguments.runs
    return arguments


def run(kind, arguments):
    """One process; what it printed last."""
    command = [str(contenders.python_of(kind, arguments)), str(CHAIN)]
    own = WARMUP if kind == "sentinel" else {}
    text = subprocess.check_output(command, env={**contenders.environment(kind), **own})
    return json.loads(text.decode().splitlines()[-1])


def main():
    """Runs both kinds in turns."""
    arguments = parse_arguments()
    runs = {"stock": [], "sentinel": []}
    for _ in range(arguments.runs):
        for kind, found in runs.items():
            found.append(run(kind, arguments))
    least = {kind: min(min(own["steady"]) for own in found) for kind, found in runs.items()}
    profiled = min(min(own["profiled"]) for own in runs["sentinel"])
    ns_per_op = {
        "steady_ns_per_op": 1e9 * (least["sentinel"] - least["stock"]) / OPS,
        "profiling_ns_per_op": 1e9 * (profiled - least["stock"]) / OPS,
    }
    result = {name: round(value, 1) for name, value in ns_per_op.items()}
    result["missed"] = [name for name, limit in LIMITS.items() if result[name] > limit]
    result["stock_ns_per_op"] = round(1e9 * least["stock"] / OPS, 1)
    calibrations = [own["calibration_seconds"] for found in runs.values() for own in found]
    result["calibration_ms"] = [round(1e3 * s, 2) for s in (min(calibrations), max(calibrations))]
    result["runs"] = arguments.runs
    line = "per op: stock %.0f ns; over it, following a plan %.0f ns, profiled %.0f ns; fixed loop %.1f to %.1f ms"
    print(line % (result["stock_ns_per_op"], *ns_per_op.values(), *result["calibration_ms"]))
    ratios.finish(result, arguments)


if __name__ == "__main__":
    main()
