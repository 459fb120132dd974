"""Steps of five networks with all memory fast: Sentinel against stock TensorFlow and against other allocators.

Of each network one process per contender stands ready, and they run a block of steps each in turns; then new processes
do. CPU seconds, minor faults and wall time are the kernel's account of the process. Ratios are of blocks of the same
round, means geometric, intervals 95% by resampling sets of processes and their rounds. `floor` is the user time of a
process whose C library gives no memory back: what is left when no page is faulted in twice. Losses are compared with
stock TensorFlow's in runs of their own, with one thread, without and with TensorFlow's memory optimizer, under which
losses may differ by process. The last line is one JSON object.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "speed"))

import contenders  # noqa: E402
import ratios  # noqa: E402
import rounds  # noqa: E402

LIMITS = {
    "cpu_vs_stock": (0.80, True),
    "cpu_vs_best_peer": (0.95, True),
    "throughput_vs_stock": (1.20, False),
    "throughput_vs_best_peer": (1.02, False),
}
SAME_BITS_STEPS = 15
SAME_BITS_OPTIONS = ("--inter-op", 1, "--intra-op", 1)


def parse_arguments():
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--quick", action="store_true", help="one set of 3 rounds, and no comparison of losses")
    add("--sets", type=int, default=3, help="sets of processes, one after the other (default 3)")
    add("--pairs", type=int, default=5, help="rounds of each set (default 5)")
    add("--block", type=int, default=1, help="steps of a block (default 1)")
    add("--network", choices=sorted(contenders.NETWORKS), action="append", help="only these")
    add("--peer", choices=contenders.PEERS, action="append", help="only these peers")
    contenders.add_pythons(parser)
    arguments = ratios.parse(parser)
    if arguments.quick:
        arguments.sets, arguments.pairs = 1, min(arguments.pairs, 3)
    arguments.network = arguments.network or list(contenders.NETWORKS)
    arguments.peer = arguments.peer or list(contenders.PEERS)
    return arguments


def run_with_one_thread(network, kinds, arguments, more=()):
    """The runs whose losses are compared, by kind; Sentinel's is under a plan at its end."""
    found = rounds.run_blocks(network, kinds, arguments, SAME_BITS_OPTIONS + more, SAME_BITS_STEPS)
    stats = found["sentinel"]["stats"] if "sentinel" in found else None
    if stats and stats["steps_managed"] == 0:
        raise contenders.Failed("%s: no step followed a plan: %s" % (network, stats["message"]))
    return found


def same_bits(network, arguments):
    """Whether losses have the bits of stock TensorFlow's, without TensorFlow's memory optimizer and with it.

    It turns sums of large steps into additions to one variable in no fixed order (docs/experiments/speed.md), so that
    two runs of stock TensorFlow may differ with it; whether they do is told too.
    """
    kinds = ["stock", "sentinel"]
    plain = run_with_one_thread(network, kinds, arguments, ("--no-memory-optimizer",))
    default = run_with_one_thread(network, kinds, arguments)
    again = run_with_one_thread(network, ["stock"], arguments)
    found = {
        "same": plain["sentinel"]["losses"] == plain["stock"]["losses"],
        "with_memory_optimizer": default["sentinel"]["losses"] == default["stock"]["losses"],
        "stock_twice_with_memory_optimizer": again["stock"]["losses"] == default["stock"]["losses"],
    }
    words = ["the same" if same else "OTHER" for same in found.values()]
    line = "losses have %s bits; with TensorFlow's memory optimizer %s, two runs of stock TensorFlow %s"
    steps = plain["sentinel"]["stats"]["steps_managed"]
    print(line % tuple(words) + "; %d steps by a plan" % steps, flush=True)
    return found


def compare(network, measured, peers):
    """Lists of paired ratios of one network."""
    own = measured["sentinel"]
    best = {
        figure: min(peers, key=lambda peer: ratios.geometric_mean(measured[peer].per_step(figure)))
        for figure in ("cpu_seconds", "wall_seconds")
    }

    def pairs(figure, other):
        return [a / b for a, b in zip(own.per_step(figure), measured[other].per_step(figure))]

    return best, {
        "cpu_vs_stock": pairs("cpu_seconds", "stock"),
        "cpu_vs_best_peer": pairs("cpu_seconds", best["cpu_seconds"]),
        "throughput_vs_stock": [1 / r for r in pairs("wall_seconds", "stock")],
        "throughput_vs_best_peer": [1 / r for r in pairs("wall_seconds", best["wall_seconds"])],
    }


def show(network, measured):
    """A table for people, times in milliseconds and memory in megabytes."""
    print("\n%s: per step" % network)
    print(
        "%-9s %9s %9s %9s %9s %9s %9s" % ("", "wall", "cpu", "user", "system", "faults", "peak MB")
    )
    for kind, own in measured.items():
        figures = ("wall_seconds", "cpu_seconds", "user_seconds", "system_seconds")
        times = [1e3 * own.mean(figure) for figure in figures]
        memory = own.last["peak_rss_bytes"] / 1e6
        line = "%-9s %9.1f %9.1f %9.1f %9.1f %9.0f %9.1f"
        print(line % (kind, *times, own.mean("minor_faults"), memory), flush=True)


def details_of(measured, best, lists):
    """What is kept of one network."""
    result = {name: round(ratios.geometric_mean(values), 4) for name, values in lists.items()}
    result["best_peer"] = best
    result["floor_user_seconds"] = round(measured["floor"].mean("user_seconds"), 5)
    figures = ("wall_seconds", "user_seconds", "system_seconds", "minor_faults")
    for kind, own in measured.items():
        result[kind] = {figure: round(own.mean(figure), 5) for figure in figures}
        result[kind]["peak_rss_bytes"] = own.last["peak_rss_bytes"]
    return result


def system_share(details):
    """The largest share of stock's system time of networks in which it takes more than 2 ms; 0 when none does."""
    own = lambda kind, network: network[kind]["system_seconds"]  # noqa: E731
    shares = [
        own("sentinel", n) / own("stock", n) for n in details.values() if own("sentinel", n) > 2e-3
    ]
    return round(max(shares, default=0.0), 3)


def in_sets(values, sets):
    """The values of all rounds, by set of processes."""
    rounds_each = len(values) // sets
    return [values[at : at + rounds_each] for at in range(0, len(values), rounds_each)]


def summary(details, lists, bits, sets):
    """The JSON object."""
    result = {}
    for name, (limit, at_most) in LIMITS.items():
        figure = ratios.mean_with_interval([in_sets(own[name], sets) for own in lists.values()])
        result[name] = round(figure[0], 4)
        result[name + "_interval"] = [round(bound, 4) for bound in figure[1:]]
        result[name + "_verdict"] = ratios.verdict(figure, limit, at_most)
    result["throughput_worst_network"] = min(own["throughput_vs_stock"] for own in details.values())
    faults = [own["sentinel"]["minor_faults"] for own in details.values()]
    result["minor_faults_per_step_most"] = max(faults)
    result["system_share_above_2ms"] = system_share(details)
    result["same_bits"] = bits
    result["networks"] = details
    return result


def main():
    """Measures one network after the other."""
    arguments = parse_arguments()
    contenders.install_preloads()
    kinds = ["sentinel", "stock", *arguments.peer, "floor"]
    details, lists, bits = {}, {}, {}
    for network in arguments.network:
        measured = rounds.measure(network, kinds, arguments)
        show(network, measured)
        best, lists[network] = compare(network, measured, arguments.peer)
        details[network] = details_of(measured, best, lists[network])
        details[network]["sentinel_stats"] = measured["sentinel"].last["stats"]
        print(
            "against stock and the best peer:",
            {k: v for k, v in details[network].items() if "_vs_" in k},
        )
        if not arguments.quick:
            bits[network] = same_bits(network, arguments)
    ratios.finish(summary(details, lists, bits, arguments.sets), arguments)


if __name__ == "__main__":
    main()
