"""Memory of five networks with all memory fast: Sentinel against stock TensorFlow and against other allocators.

Peak RSS is the kernel's high-water mark of the process above what it held after its imports, the first steps included.
The arena's height is compared with the least that its buffers need in the profiled order, with one operation at a time:
with several, there is no arena (docs/decisions/0013-all-fast.md). The last line is one JSON object.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "speed"))

import contenders  # noqa: E402
import ratios  # noqa: E402
import rounds  # noqa: E402

LIMITS = {"rss_vs_best_peer": 1.05, "arena_vs_peak_live": 1.02}


def parse_arguments():
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--quick", action="store_true", help="one process of each, not two")
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


def measure(network, arguments):
    """The figures of one network."""
    kinds = ["sentinel", "stock", *contenders.PEERS]
    peaks = {kind: [] for kind in kinds}
    for _ in range(1 if arguments.quick else 2):
        for kind in kinds:
            answer = train(network, kind, arguments)
            peaks[kind].append(answer["peak_rss_bytes"])
    one = train(network, "sentinel", arguments, ("--inter-op", 1))
    # The smallest of a peer's peaks, and the largest of ours.
    least = {kind: min(values) for kind, values in peaks.items() if kind != "sentinel"}
    best = min(least, key=least.get)
    result = {
        "peak_rss_bytes": {**least, "sentinel": max(peaks["sentinel"])},
        "best_peer": best,
        "rss_vs_best_peer": round(max(peaks["sentinel"]) / least[best], 4),
        "rss_vs_stock": round(max(peaks["sentinel"]) / least["stock"], 4),
        "arena_vs_peak_live": round(height(one), 4),
    }
    megabytes = ", ".join("%s %.0f" % (k, v / 1e6) for k, v in result["peak_rss_bytes"].items())
    print("%s: peak MB above imports: %s" % (network, megabytes))
    print("  arena ÷ peak live %.4f" % height(one), flush=True)
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
