"""Training under a memory limit, with swap: Sentinel against stock TensorFlow, in pairs of runs, and one JSON line.

The limit is what the kernel charges the process for after its imports, plus a share of what it charges Sentinel for
above that without a limit. A run that the kernel kills for want of memory is counted and begun anew. Of one that is
stopped before it has settled, because it takes too long or was killed each time, the steps from the third on count;
when there is none, the step that was under way bounds the ratio.
Swap is a file on a disk, then zram; both are made here and removed again, which needs root. Stock TensorFlow runs under
the same limit with the C library's allocator, and, to be shown beside it, with tcmalloc.
"""

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools" / "devtool"))
sys.path.insert(0, str(ROOT / "bench" / "speed"))

import contenders  # noqa: E402
import ratios  # noqa: E402

import swapspace  # noqa: E402

MODELS = ROOT / "examples" / "models"
WORKLOADS = {"resnet32": 192, "mobilenet": 160}
PERCENTS = (70, 50, 35)
SWAP_BYTES = 4 << 30
SENTINEL = {"SENTINEL_SLOW": "swap", "SENTINEL_WARMUP_STEPS": "1"}
# In these, whatever a training needs comes into memory for the first time.
FILLING_STEPS = 2
# So often a run is begun that the kernel kills.
ATTEMPTS = 3
# A run that would have less time is not begun.
LEAST_RUN_SECONDS = 15


def parse_arguments():
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--quick", action="store_true", help="one pair at 50%% only, fewer steps")
    add("--pairs", type=int, default=2, help="runs of each in every case, at most (default 2)")
    add("--steps", type=int, default=4, help="steps that count, at a run's end (default 4)")
    add("--settle", type=int, default=8, help="steps before them that do not (default 8)")
    add("--minutes", type=float, default=24, help="time for all of it, at most (default 24)")
    add("--run-seconds", type=float, default=120, help="time of one run, at most (default 120)")
    add("--workload", choices=sorted(WORKLOADS), action="append", help="only these")
    add("--medium", choices=("disk", "zram"), action="append", help="only these")
    add("--percent", type=int, choices=PERCENTS, action="append", help="only these")
    add("--sentinel-python", default=str(ROOT / ".venv/bin/python"))
    add("--stock-python", default=str(ROOT / ".venv-stock/bin/python"))
    add("--swap-folder", default=str(ROOT / "build"), help="where the swap file goes")
    arguments = ratios.parse(parser)
    arguments.origin["load_average"] = os.getloadavg()
    if arguments.quick:
        arguments.pairs, arguments.steps = 1, 3
        arguments.percent = arguments.percent or [50]
    arguments.workload = arguments.workload or sorted(WORKLOADS)
    arguments.medium = arguments.medium or ["disk", "zram"]
    arguments.percent = arguments.percent or list(PERCENTS)
    return arguments


class Failed(Exception):
    """A run that cannot count, with what it said."""


class TimeIsUp(Exception):
    """The whole benchmark has had its time."""


class Bench:
    """Runs trainings, each in a control group of its own."""

    def __init__(self, arguments, scratch):
        self._arguments, self._scratch = arguments, Path(scratch)
        self._deadline = time.monotonic() + 60 * arguments.minutes

    def base_bytes(self, workload):
        """Bytes that the kernel charges a process for that has imported the workload and done nothing else.

        The least of two, because the first to read a file is charged for its pages.
        """
        code = "import sys; sys.path.insert(0, sys.argv[1]); __import__(sys.argv[2])\n"
        code += "print(open(sys.argv[3]).read())"
        command = [self._arguments.sentinel_python, "-W", "ignore", "-c", code, MODELS, workload]
        found = []
        for _ in range(2):
            with swapspace.memory_group("sentinel-bench") as group:
                whole = [str(part) for part in [*command, group.usage_file]]
                enter = {"env": environment({}), "preexec_fn": group.enter}
                found.append(int(subprocess.check_output(whole, **enter)))
        return min(found)

    def train(self, workload, kind, limit_bytes):
        """Trains; returns the counted step times, Sentinel's statistics (None when the time ran out), and counters."""
        out = self._scratch / "result.json"
        settle = self._arguments.settle
        python = "sentinel_python" if kind == "sentinel" else "stock_python"
        command = [getattr(self._arguments, python), "-W", "ignore", MODELS / (workload + ".py")]
        command += ["--batch", WORKLOADS[workload], "--json-out", out]
        command += ["--steps", settle + self._arguments.steps]
        settings = SENTINEL if kind == "sentinel" else contenders.settings(kind)
        before = vmstat()
        with swapspace.memory_group("sentinel-bench") as group:
            group.limit(limit_bytes)
            run = self._watched(command, settings, group)
            after, peak = vmstat(), group.peak_bytes()
        killed = run["status"] == signal.SIGKILL and not run["timed_out"]
        if run["status"] and not run["timed_out"] and not killed:
            what = (workload, kind, run["status"], run["text"][-2000:])
            raise Failed("%s with %s ended with status %d:\n%s" % what)
        whole = not run["timed_out"] and not killed
        seconds, how = counted(run, settle)
        return {
            "counted": seconds,
            "how": how,
            "timed_out": run["timed_out"],
            "killed": killed,
            "stats": json.loads(out.read_text())["stats"] if whole else None,
            "peak_bytes": peak,
            "major_faults": run["usage"].ru_majflt,
            "swap_out_bytes": 4096 * (after["pswpout"] - before["pswpout"]),
            "swap_in_bytes": 4096 * (after["pswpin"] - before["pswpin"]),
        }

    def _watched(self, command, settings, group):
        """Runs the command until it ends or its time does; when it printed each of its steps, and how it ended."""
        began = time.monotonic()
        until = min(began + self._arguments.run_seconds, self._deadline)
        if until - began < LEAST_RUN_SECONDS:
            raise TimeIsUp
        process = subprocess.Popen(
            [str(part) for part in command],
            env=environment(settings),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            preexec_fn=group.enter,
        )
        text, steps = b"", []
        watch = threading.Timer(until - began, process.kill)
        watch.start()
        try:
            for line in process.stdout:
                text += line
                if line.startswith(b"step "):
                    steps.append((time.monotonic(), float(line.split()[2])))
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = status
        except BaseException:
            process.kill()
            process.wait()
            raise
        finally:
            watch.cancel()
        timed_out = status == signal.SIGKILL and time.monotonic() >= until
        return {
            "began": began,
            "ended": time.monotonic(),
            "steps": steps,
            "status": status,
            "usage": usage,
            "timed_out": timed_out,
            "text": text.decode(errors="replace"),
        }


def counted(run, settle):
    """Times of the steps that count, and how they do.

    "settled": those after the first `settle`. When the run was stopped before one of these was over, "early": those
    after the first two, in which memory fills. Without these, "bound": the step that was under way, which would have
    taken longer.
    """
    seconds = [seconds for _, seconds in run["steps"]]
    if seconds[settle:]:
        return seconds[settle:], "settled"
    if seconds[FILLING_STEPS:]:
        return seconds[FILLING_STEPS:], "early"
    last = run["steps"][-1][0] if run["steps"] else run["began"]
    return [run["ended"] - last], "bound"


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


def attempt(bench, case, limit_bytes, shown, kind):
    """A run that was not killed, or the last of so many, with the early steps of all of them."""
    early = []
    for _ in range(ATTEMPTS):
        result = bench.train(case["workload"], kind, limit_bytes)
        if not result["killed"]:
            return result
        case["killed"].append(kind)
        text = "%s %s: killed by the kernel for want of memory" % (shown, kind)
        if result["how"] != "bound":
            early += result["counted"]
            shape = (len(result["counted"]), statistics.mean(result["counted"]))
            text += ", after %d steps that could count, of %.3f s" % shape
        print(text, flush=True)
    return dict(result, counted=early, how="early") if early else result


def measure_pair(bench, case, limit_bytes, shown, kinds):
    """Adds a run of each kind to a case."""
    for kind in kinds:
        result = attempt(bench, case, limit_bytes, shown, kind)
        case[kind].append(result["counted"])
        text = "%s %s: %.3f s per step, swap out %d MB, in %d MB, %d major faults in the run"
        sizes = (result["swap_out_bytes"] >> 20, result["swap_in_bytes"] >> 20)
        step = statistics.mean(result["counted"])
        text %= (shown, kind, step, *sizes, result["major_faults"])
        stats = result["stats"]
        if result["how"] == "bound":
            case["bounded_by"].append(kind)
            text += ", stopped before a step counted: a step takes at least as long"
        elif result["how"] == "early":
            case["early"].append(kind)
            text += ", of %d steps before it had settled" % len(result["counted"])
        elif result["timed_out"]:
            text += ", stopped after %d steps that count" % len(result["counted"])
        elif kind == "sentinel":
            if stats["steps_managed"] < len(result["counted"]):
                raise Failed("%s: Sentinel followed no plan: %s" % (shown, stats["message"]))
            swapped = stats["swapped_out_bytes_peak"]
            if swapped == 0:
                raise Failed("%s: Sentinel did not have to swap: the limit limits nothing" % shown)
            case["swapped_out_bytes"].append(swapped)
            text += ", plan for %d MB" % (stats["fast_bytes_allowed"] >> 20)
            text += ", %d MB swapped out at most" % (swapped >> 20)
        print(text, flush=True)


def ratio(case, draw=list):
    """Throughput of Sentinel by that of stock, the geometric mean over pairs, of what `draw` takes of each list."""
    pairs = draw(list(zip(case["sentinel"], case["stock"])))
    return ratios.geometric_mean([throughput(draw(a)) / throughput(draw(b)) for a, b in pairs])


def interval(cases):
    """95% of the geometric means of pairs and steps that were drawn again, with repetition."""
    source = random.Random(1)

    def draw(items):
        return source.choices(items, k=len(items))

    means = sorted(
        ratios.geometric_mean([ratio(case, draw) for case in cases])
        for _ in range(ratios.RESAMPLES)
    )
    return [round(means[int(share * (ratios.RESAMPLES - 1))], 3) for share in (0.025, 0.975)]


def bound(case):
    """What a case's ratio is: a value, or a bound of it, because runs were stopped before a step counted.

    When runs of both were stopped it is neither, and the case has none.
    """
    stopped = set(case["bounded_by"]) & {"sentinel", "stock"}
    if len(stopped) == 2:
        return "unknown"
    return {"sentinel": "at most", "stock": "at least"}[stopped.pop()] if stopped else "value"


def summary(all_cases, details):
    """The JSON object of all cases, which are keyed by percent, medium and workload."""
    both = {key: case for key, case in all_cases.items() if case["sentinel"] and case["stock"]}
    cases = {key: case for key, case in both.items() if bound(case) != "unknown"}
    names = {key: "%s %s %d" % key[::-1] for key in all_cases}
    result = {}
    for percent in PERCENTS:
        own = [case for (at, _, _), case in cases.items() if at == percent]
        whole = own and len(own) == len([key for key in all_cases if key[0] == percent])
        result["ratio_%d" % percent] = (
            round(ratios.geometric_mean([ratio(case) for case in own]), 3) if whole else None
        )
        result["interval_%d" % percent] = interval(own) if whole else None
    whole = len(cases) == len(all_cases)
    result["ratio_min"] = round(min(map(ratio, cases.values())), 3) if whole else None
    result["ratios"] = {names[key]: round(ratio(case), 3) for key, case in cases.items()}
    result["bounds"] = {names[k]: bound(c) for k, c in both.items() if bound(c) != "value"}
    result["early"] = {names[k]: sorted(set(c["early"])) for k, c in cases.items() if c["early"]}
    result["pairs"] = {names[k]: min(len(c["sentinel"]), len(c["stock"])) for k, c in cases.items()}
    result["killed"] = {
        names[key]: {kind: c["killed"].count(kind) for kind in sorted(set(c["killed"]))}
        for key, c in all_cases.items()
        if c["killed"]
    }
    result["without_ratio"] = sorted(names[key] for key in all_cases if key not in cases)
    result["ratios_to_tcmalloc"] = {
        names[key]: round(
            ratios.geometric_mean([throughput(a) for a in c["sentinel"]])
            / throughput(c["tcmalloc"][0]),
            3,
        )
        for key, c in cases.items()
        if c["tcmalloc"] and "tcmalloc" not in c["bounded_by"]
    }
    swapped = [least for case in cases.values() for least in case["swapped_out_bytes"]]
    result["swapped_out_bytes"] = min(swapped) if swapped else None
    return {**result, **details}


def new_case(workload):
    """A case in which nothing has run."""
    lists = ("sentinel", "stock", "tcmalloc", "swapped_out_bytes", "bounded_by", "early", "killed")
    return {"workload": workload, **{name: [] for name in lists}}


def run(arguments):
    """All cases, one pair of each before the second of any, in turned order, tcmalloc last; returns the JSON object."""
    details = {"base_bytes": {}, "peak_above_base_bytes": {}}
    cases = {
        (percent, medium, workload): new_case(workload)
        for medium in arguments.medium
        for workload in arguments.workload
        for percent in arguments.percent
    }
    media = {
        "disk": lambda: swapspace.disk_swap(arguments.swap_folder, SWAP_BYTES),
        "zram": lambda: swapspace.zram_swap(SWAP_BYTES),
    }
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(arguments, scratch)
        try:
            pairs = [["sentinel", "stock"][:: (-1) ** pair] for pair in range(arguments.pairs)]
            for kinds in pairs + [["tcmalloc"]]:
                for medium in arguments.medium:
                    with media[medium]():
                        own = {key: case for key, case in cases.items() if key[1] == medium}
                        run_cases(bench, own, details, kinds)
        except TimeIsUp:
            print("the time for all of it is over", flush=True)
    return summary(cases, details)


def run_cases(bench, cases, details, kinds):
    """One run of each kind in every case of one medium."""
    bases, peaks = details["base_bytes"], details["peak_above_base_bytes"]
    for (percent, medium, workload), case in cases.items():
        if workload not in bases:
            base = bench.base_bytes(workload)
            peaks[workload] = bench.train(workload, "sentinel", None)["peak_bytes"] - base
            bases[workload] = base
            sizes = (workload, base >> 20, peaks[workload] >> 20)
            print("%s: %d MB after imports, %d MB above that" % sizes, flush=True)
        shown = "%s on %s at %d%%" % (workload, medium, percent)
        measure_pair(bench, case, bases[workload] + peaks[workload] * percent // 100, shown, kinds)
        if "stock" in kinds:
            print("%s: ratio %.3f (%s)" % (shown, ratio(case), bound(case)), flush=True)


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
        contenders.install_preloads(["tcmalloc"])
        result = run(arguments)
    except (Failed, swapspace.Unavailable) as error:
        print("bench swap: %s" % error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bench swap: interrupted", file=sys.stderr)
        return 1
    ratios.finish(result, arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main())
