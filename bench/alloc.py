"""Allocation and release: the recorded steps of sentinel_rs/testdata, replayed without the rest of training.

The same program replays with Sentinel following a plan, with Sentinel before a plan, and with the C library's allocator
and those that are preloaded in its place; a second one replays with TensorFlow's own best-fit allocator. They take
turns. CPU nanoseconds of a thread per pair of allocation and release; of Sentinel what the operations take with them
less what they take without. Each the least of the runs, then the geometric mean over the steps. What two threads spend
asleep on a lock is not counted, for nobody. The last line is one JSON object.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "speed"))

import contenders  # noqa: E402
import ratios  # noqa: E402

WORKSPACE = contenders.ROOT / "sentinel_rs"
TRACES = ("resnet32-b128", "mobilenet-b128", "lstm-b20", "dcgan-b64", "bert-b8")
PATHS = [str(WORKSPACE / "testdata" / (trace + ".trace")) for trace in TRACES]
THREADS = (1, 2)
LIMITS = {"planned_ns": 40, "unplanned_vs_tcmalloc": 1.0, "unplanned_vs_tcmalloc_2_threads": 1.0}


def parse_arguments():
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="2 runs of each")
    parser.add_argument("--runs", type=int, default=5, help="runs of each (default 5)")
    parser.add_argument("--rounds", type=int, default=20, help="replays of a run (default 20)")
    contenders.add_pythons(parser)
    arguments = ratios.parse(parser)
    arguments.runs = 2 if arguments.quick else arguments.runs
    return arguments


def build():
    """The replaying program, up to date."""
    command = ["cargo", "build", "--release", "--locked", "-p", "rt", "--example", "replay"]
    subprocess.check_call([*command, "--quiet"], cwd=str(WORKSPACE))
    target = Path(os.environ.get("CARGO_TARGET_DIR", str(WORKSPACE / "target")))
    return target / "release/examples/replay"


def build_bfc(python, folder):
    """The program that replays with the allocator of this interpreter's TensorFlow, built in the folder."""
    flags = "import tensorflow as tf; print(*tf.sysconfig.get_compile_flags(), *tf.sysconfig.get_link_flags())"
    told = subprocess.check_output(
        [str(python), "-W", "ignore", "-c", flags], env=contenders.environment("stock")
    )
    flags = told.decode().split()
    library = next(flag[2:] for flag in flags if flag.startswith("-L"))
    program = Path(folder) / "bfc"
    source = Path(__file__).resolve().parent / "speed/bfc.cc"
    command = [
        "g++",
        "-O2",
        "-std=c++11",
        "-w",
        str(source),
        "-o",
        str(program),
        *flags,
        "-pthread",
    ]
    subprocess.check_call([*command, "-Wl,-rpath," + library])
    return program


def replay_bfc(program, threads, rounds, events):
    """As `replay`, with the lists of events, by trace."""
    command = [str(program), str(threads), str(rounds)]
    environment = contenders.environment("stock")
    said = [subprocess.check_output(command, input=own, env=environment) for own in events]
    return [float(line) for line in said] + [0.0] * len(events)


def events_of(program):
    """What is replayed, as text, by trace."""
    return [subprocess.check_output([str(program), "events", "1", "1", path]) for path in PATHS]


def cases():
    """What is replayed: a name, the program's first argument, the preloaded allocator, and threads."""
    yield "planned", "planned", None, 1
    for threads in THREADS:
        suffix = "" if threads == 1 else "_%d_threads" % threads
        yield "unplanned" + suffix, "unplanned", None, threads
        for peer in (None, *contenders.PRELOADS):
            yield (peer or "malloc") + suffix, "malloc", peer, threads
        yield "bfc" + suffix, "bfc", None, threads


def replay(program, kind, peer, threads, rounds):
    """Nanoseconds per pair and without allocations, one of each by trace."""
    command = [str(program), kind, str(threads), str(rounds), *PATHS]
    environment = contenders.environment(peer or "stock")
    text = subprocess.check_output(command, env=environment, stderr=subprocess.DEVNULL)
    pairs = [line.split()[-2:] for line in text.decode().splitlines()]
    return [float(value) for column in zip(*pairs) for value in column]


def measure(arguments, bfc_folder):
    """Takes turns; returns the least nanoseconds of each case by trace, and the times of the fixed loop."""
    program = build()
    bfc, events = build_bfc(arguments.stock_python, bfc_folder), events_of(program)
    least, calibrations = {}, []
    for _ in range(arguments.runs):
        calibrations.append(ratios.calibration_seconds())
        for name, kind, peer, threads in cases():
            if kind == "bfc":
                found = replay_bfc(bfc, threads, arguments.rounds, events)
            else:
                found = replay(program, kind, peer, threads, arguments.rounds)
            before = least.get(name, found)
            least[name] = [min(pair) for pair in zip(found, before)]
    halves = {name: (own[: len(TRACES)], own[len(TRACES) :]) for name, own in least.items()}
    return {name: [a - b for a, b in zip(*both)] for name, both in halves.items()}, calibrations


def main():
    """Prints a table of what was measured, and its means."""
    arguments = parse_arguments()
    contenders.install_preloads()
    with tempfile.TemporaryDirectory() as folder:
        least, calibrations = measure(arguments, folder)
    means = {name: ratios.geometric_mean(values) for name, values in least.items()}
    print("ns per pair" + "".join("%16s" % trace for trace in TRACES) + "%10s" % "mean")
    for name, values in least.items():
        print(
            "%-19s" % name + "".join("%14.1f  " % value for value in values) + "%8.1f" % means[name]
        )
    result = {"planned_ns": round(means["planned"], 1)}
    for suffix in ("", "_2_threads"):
        ratio = means["unplanned" + suffix] / means["tcmalloc" + suffix]
        result["unplanned_vs_tcmalloc" + suffix] = round(ratio, 3)
    result["missed"] = [name for name, limit in LIMITS.items() if result[name] > limit]
    result["ns_per_pair"] = {name: round(mean, 1) for name, mean in means.items()}
    result["calibration_ms"] = [round(1e3 * t, 2) for t in (min(calibrations), max(calibrations))]
    result["runs"] = arguments.runs
    ratios.finish(result, arguments)


if __name__ == "__main__":
    main()
