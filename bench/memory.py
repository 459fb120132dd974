"""Memory of five networks with all memory fast: Sentinel against stock TensorFlow and against other allocators.

Peak RSS is the kernel's high-water mark of the process above what it held after its imports, the first steps included;
the largest of Sentinel's processes against the smallest of any peer's, and medians beside it, because processes of one
contender differ. With one operation at a time, the arena's height is compared with the least that its buffers need in
the profiled order. With several (TensorFlow's default) a heap takes the arena's place
(docs/decisions/0013-all-fast.md): how far it reached is compared with the most that was alive in it, which are blocks
above 64 KiB. What smaller ones hold, free ones included, is printed beside it, and all of it as a multiple of the live
bytes of the profiled step, in which one operation ran at a time. The last line is one JSON object.
"""

import argparse
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "speed"))

import contenders  # noqa: E402
import ratios  # noqa: E402
import rounds  # noqa: E402

LIMITS = {"rss_vs_best_peer": 1.05, "arena_vs_peak_live": 1.02, "heap_vs_peak_live": 1.15}


def parse_arguments():
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--quick", action="store_true", help="one process of each")
    add("--processes", type=int, default=2, help="of each contender (default 2)")
    add("--steps", type=int, default=6, help="steps after a plan is followed (default 6)")
    add("--network", choices=sorted(contenders.NETWORKS), action="append", help="only these")
    contenders.add_pythons(parser)
    arguments = ratios.parse(parser)
    arguments.network = arguments.network or list(contenders.NETWORKS)
    return arguments


def train(network, kind, arguments, more=()):
    """Trains in a process of its own until it is settled and some steps longer; returns its last answer."""
    with rounds.ready(network, [kind], arguments, more) as (contender,):
        rounds.settle(contender)
        return contender.steps(arguments.steps)


def height(answer):
    """The arena's height as a multiple of the least that its buffers need."""
    return answer["stats"]["arena_bytes"] / max(answer["stats"]["arena_load_bytes"], 1)


def reach(answer):
    """How far the heap reached, as a multiple of the most that was alive in it."""
    return answer["stats"]["heap_bytes_reach"] / max(answer["stats"]["heap_bytes_peak"], 1)


def held(answer):
    """What heap and small blocks held at most, as a multiple of what was alive in the profiled step."""
    stats = answer["stats"]
    return (stats["heap_bytes_reach"] + stats["kept_bytes"]) / max(stats["peak_bytes"], 1)


def measure(network, arguments):
    """The figures of one network."""
    kinds = ["sentinel", "stock", *contenders.PEERS]
    peaks = {kind: [] for kind in kinds}
    several = []
    for _ in range(1 if arguments.quick else arguments.processes):
        for kind in kinds:
            answer = train(network, kind, arguments)
            peaks[kind].append(answer["peak_rss_bytes"])
            if kind == "sentinel":
                several.append(answer)
    one = train(network, "sentinel", arguments, ("--inter-op", 1))
    # The smallest of a peer's peaks, and the largest of ours.
    least = {kind: min(values) for kind, values in peaks.items() if kind != "sentinel"}
    best = min(least, key=least.get)
    medians = {kind: statistics.median(values) for kind, values in peaks.items()}
    result = {
        "peak_rss_bytes": {**least, "sentinel": max(peaks["sentinel"])},
        "best_peer": best,
        "rss_vs_best_peer": round(max(peaks["sentinel"]) / least[best], 4),
        "rss_medians_vs_best_peer": round(medians.pop("sentinel") / min(medians.values()), 4),
        "rss_vs_stock": round(max(peaks["sentinel"]) / least["stock"], 4),
        "arena_vs_peak_live": round(height(one), 4),
        "heap_vs_peak_live": round(max(map(reach, several)), 4),
        "kept_bytes": max(answer["stats"]["kept_bytes"] for answer in several),
        "held_vs_profiled_peak": round(max(map(held, several)), 4),
    }
    for kind, values in peaks.items():
        megabytes = " ".join("%.0f" % (value / 1e6) for value in sorted(values))
        print("%s, %s: peak MB above imports: %s" % (network, kind, megabytes))
    print("  one operation at a time: arena ÷ peak live %.4f" % height(one))
    line = "  several: heap ÷ peak live %.4f, small blocks %.1f MB, all ÷ live bytes of the profiled step %.4f"
    figures = (
        result["heap_vs_peak_live"],
        result["kept_bytes"] / 1e6,
        result["held_vs_profiled_peak"],
    )
    print(line % figures, flush=True)
    return result


def main():
    """Measures one network after the other; the key figures are those of the worst one."""
    arguments = parse_arguments()
    contenders.install_preloads()
    networks = {network: measure(network, arguments) for network in arguments.network}
    result = {name: max(own[name] for own in networks.values()) for name in LIMITS}
    result["missed"] = [name for name, limit in LIMITS.items() if result[name] > limit]
    ratios.finish({**result, "networks": networks}, arguments)


if __name__ == "__main__":
    main()
