"""Training under a memory limit, with swap: Sentinel against stock TensorFlow, in pairs of runs, and one JSON line.

The limit is what the process takes after its imports, plus a share of what Sentinel takes above that without a limit.
Swap is a file on a disk, then zram; both are made here and removed again, which needs root. Stock TensorFlow runs under
the same limit with the C library's allocator, and, to be shown beside it, with tcmalloc.
"""

import argparse
import contextlib
import json
import math
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools" / "devtool"))

import swapspace  # noqa: E402

MODELS = ROOT / "examples" / "models"
WORKLOADS = {"resnet32": 192, "mobilenet": 160}
PERCENTS = (70, 50, 35)
SWAP_BYTES = 4 << 30
TCMALLOC = ("libtcmalloc-minimal4", "/usr/lib/x86_64-linux-gnu/libtcmalloc_minimal.so.4")
RESAMPLES = 2000


def parse_arguments():
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--quick", action="store_true", help="one pair at 50%% only, fewer steps")
    add("--pairs", type=int, default=2, help="runs of each in every case (default 2)")
    add("--steps", type=int, default=6, help="steps that count, at a run's end (default 6)")
    add("--settle", type=int, default=9, help="steps before them that do not (default 9)")
    add("--workload", choices=sorted(WORKLOADS), action="append", help="only these")
    add("--medium", choices=("disk", "zram"), action="append", help="only these")
    add("--percent", type=int, choices=PERCENTS, action="append", help="only these")
    add("--sentinel-python", default=str(ROOT / ".venv/bin/python"))
    add("--stock-python", default=str(ROOT / ".venv-stock/bin/python"))
    add("--swap-folder", default=str(ROOT / "build"), help="where the swap file goes")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.pairs, arguments.steps = 1, 3
        arguments.percent = arguments.percent or [50]
    arguments.workload = arguments.workload or sorted(WORKLOADS)
    arguments.medium = arguments.medium or ["disk", "zram"]
    arguments.percent = arguments.percent or list(PERCENTS)
    return arguments


class Failed(Exception):
    """A run that cannot count, with what it said."""


class Bench:
    """Runs trainings in one control group."""

    def __init__(self, arguments, group, scratch):
        self._arguments, self._group, self._scratch = arguments, group, Path(scratch)

    def base_bytes(self, workload):
        """Resident bytes of a process that has imported the workload and done nothing else."""
        code = "import sys; sys.path.insert(0, sys.argv[1]); __import__(sys.argv[2])\n"
        code += (
            "print(next(l for l in open('/proc/self/status') if l.startswith('VmRSS')).split()[1])"
        )
        command = [self._arguments.sentinel_python, "-W", "ignore", "-c", code, MODELS, workload]
        command = [str(part) for part in command]
        return int(subprocess.check_output(command, env=environment({}))) * 1024

    def train(self, workload, kind, limit_bytes):
        """Trains, and returns what the script wrote with the process's peak and the group's swapping added."""
        out = self._scratch / "result.json"
        settle = self._arguments.settle if kind == "sentinel" else 2
        steps = settle + self._arguments.steps
        python = "sentinel_python" if kind == "sentinel" else "stock_python"
        command = [getattr(self._arguments, python), "-W", "ignore", MODELS / (workload + ".py")]
        command += ["--batch", WORKLOADS[workload], "--steps", steps, "--quiet", "--json-out", out]
        settings = {"tcmalloc": {"LD_PRELOAD": TCMALLOC[1]}, "stock": {}}.get(
            kind, {"SENTINEL_SLOW": "swap", "SENTINEL_WARMUP_STEPS": "1"}
        )
        self._group.limit(None)
        self._group.limit(limit_bytes)
        before = vmstat()
        log = self._scratch / "log"
        with open(str(log), "wb") as sink:
            process = subprocess.Popen(
                [str(part) for part in command],
                env=environment(settings),
                stdout=sink,
                stderr=subprocess.STDOUT,
                preexec_fn=self._group.enter,
            )
            try:
                _, status, usage = os.wait4(process.pid, 0)
                process.returncode = status
            except BaseException:
                process.kill()
                process.wait()
                raise
        if status:
            tail = log.read_text(errors="replace")[-2000:]
            raise Failed("%s with %s ended with status %d:\n%s" % (workload, kind, status, tail))
        result = json.loads(out.read_text())
        after = vmstat()
        result["counted"] = result["step_seconds"][-self._arguments.steps :]
        result["peak_bytes"] = usage.ru_maxrss * 1024
        result["major_faults"] = usage.ru_majflt
        result["swap_out_bytes"] = 4096 * (after["pswpout"] - before["pswpout"])
        result["swap_in_bytes"] = 4096 * (after["pswpin"] - before["pswpin"])
        return result


def environment(settings):
    """This process's environment without settings of Sentinel, and with those given."""
    own = {
        k: v for k, v in os.environ.items() if not k.startswith("SENTINEL") and k != "LD_PRELOAD"
    }
    return dict(own, TF_CPP_MIN_LOG_LEVEL="2", **settings)


def vmstat():
    """The kernel's counters of the whole machine."""
    lines = Path("/proc/vmstat").read_text().splitlines()
    return {name: int(value) for name, value in (line.split() for line in lines)}


def throughput(seconds):
    """Steps per second."""
    return len(seconds) / sum(seconds)


def measure_case(bench, workload, limit_bytes, pairs, shown):
    """Runs the pairs of one case, A B A B, and tcmalloc once; returns the counted step times of each run."""
    case = {"sentinel": [], "stock": [], "tcmalloc": [], "swapped_out_bytes": []}
    for kind in ["sentinel", "stock"] * pairs + ["tcmalloc"]:
        result = bench.train(workload, kind, limit_bytes)
        case[kind].append(result["counted"])
        text = "%s %s: %.3f s per step, swap out %d MB, in %d MB, %d major faults"
        sizes = (result["swap_out_bytes"] >> 20, result["swap_in_bytes"] >> 20)
        step = statistics.mean(result["counted"])
        text %= (shown, kind, step, *sizes, result["major_faults"])
        if kind == "sentinel":
            stats = result["stats"]
            if stats["steps_managed"] < len(result["counted"]):
                raise Failed("%s: Sentinel followed no plan: %s" % (shown, stats["message"]))
            swapped = stats["swapped_out_bytes_peak"]
            if swapped == 0:
                raise Failed(
                    "%s: Sentinel did not have to swap, so the limit limits nothing" % shown
                )
            case["swapped_out_bytes"].append(swapped)
            text += ", plan for %d MB" % (stats["fast_bytes_allowed"] >> 20)
            text += ", %d MB swapped out at most" % (swapped >> 20)
        print(text, flush=True)
    return case


def ratio(case, draw=list):
    """Throughput of Sentinel by that of stock, the geometric mean over pairs, of what `draw` takes of each list."""
    pairs = draw(list(zip(case["sentinel"], case["stock"])))
    logs = [math.log(throughput(draw(a)) / throughput(draw(b))) for a, b in pairs]
    return math.exp(statistics.mean(logs))


def geometric_mean(values):
    """The geometric mean."""
    return math.exp(statistics.mean([math.log(value) for value in values]))


def interval(cases):
    """95% of the geometric means of pairs and steps that were drawn again, with repetition."""
    source = random.Random(1)

    def draw(items):
        return source.choices(items, k=len(items))

    means = sorted(geometric_mean([ratio(case, draw) for case in cases]) for _ in range(RESAMPLES))
    return [round(means[int(share * (RESAMPLES - 1))], 3) for share in (0.025, 0.975)]


def summary(cases, details):
    """The JSON object of all cases, which are keyed by percent, medium and workload."""
    result = {}
    for percent in PERCENTS:
        own = [case for (at, _, _), case in cases.items() if at == percent]
        result["ratio_%d" % percent] = (
            round(geometric_mean([ratio(case) for case in own]), 3) if own else None
        )
        result["interval_%d" % percent] = interval(own) if own else None
    result["ratio_min"] = round(min(ratio(case) for case in cases.values()), 3)
    result["ratios"] = {"%s %s %d" % key[::-1]: round(ratio(c), 3) for key, c in cases.items()}
    result["ratios_to_tcmalloc"] = {
        "%s %s %d" % key[::-1]: round(
            geometric_mean([throughput(a) for a in c["sentinel"]]) / throughput(c["tcmalloc"][0]), 3
        )
        for key, c in cases.items()
    }
    result["swapped_out_bytes"] = min(min(c["swapped_out_bytes"]) for c in cases.values())
    return {**result, **details}


def install_tcmalloc():
    """Installs Debian's tcmalloc where it is missing."""
    package, library = TCMALLOC
    if not Path(library).exists():
        subprocess.check_call(
            ["apt-get", "install", "-y", "-qq", package], stdout=subprocess.DEVNULL
        )


def run(arguments):
    """All cases; returns the JSON object."""
    cases, details = {}, {"base_bytes": {}, "peak_above_base_bytes": {}}
    with contextlib.ExitStack() as stack:
        group = stack.enter_context(swapspace.memory_group("sentinel-bench"))
        scratch = stack.enter_context(tempfile.TemporaryDirectory())
        bench = Bench(arguments, group, scratch)
        media = {
            "disk": lambda: swapspace.disk_swap(arguments.swap_folder, SWAP_BYTES),
            "zram": lambda: swapspace.zram_swap(SWAP_BYTES),
        }
        for medium in arguments.medium:
            with media[medium]():
                for workload in arguments.workload:
                    if workload not in details["base_bytes"]:
                        base = bench.base_bytes(workload)
                        peak = bench.train(workload, "sentinel", None)["peak_bytes"] - base
                        details["base_bytes"][workload] = base
                        details["peak_above_base_bytes"][workload] = peak
                        sizes = (workload, base >> 20, peak >> 20)
                        print("%s: %d MB after imports, %d MB above that" % sizes, flush=True)
                    base = details["base_bytes"][workload]
                    peak = details["peak_above_base_bytes"][workload]
                    for percent in arguments.percent:
                        shown = "%s on %s at %d%%" % (workload, medium, percent)
                        limit = base + peak * percent // 100
                        case = measure_case(bench, workload, limit, arguments.pairs, shown)
                        cases[percent, medium, workload] = case
                        print("%s: ratio %.3f" % (shown, ratio(case)), flush=True)
    return summary(cases, details)


def main():
    """Measures, prints and returns the exit code."""
    arguments = parse_arguments()
    why = swapspace.why_not()
    if why:
        print("bench swap cannot run here: %s" % why, file=sys.stderr)
        return 1

    def stop(number, _):
        raise KeyboardInterrupt("signal %d" % number)

    # So that what was made is removed: an unhandled signal would leave swap and group behind.
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGHUP, stop)
    try:
        install_tcmalloc()
        result = run(arguments)
    except (Failed, swapspace.Unavailable) as error:
        print("bench swap: %s" % error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bench swap: interrupted", file=sys.stderr)
        return 1
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
