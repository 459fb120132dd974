"""Runs a chain of small operations beside one large buffer; prints the CPU time of its steps by what Sentinel did."""

import json
import sys
import time

import ratios
import tensorflow as tf

OPS = 10_000
# Enough to be worth a plan.
BUFFER_FLOATS = 1 << 20
STEADY_STEPS = 12
STEPS_AT_MOST = 60


def build():
    """Returns what is fetched: the chain's end, and the sum of the large buffer."""
    start = tf.placeholder(tf.float32, [], "start")
    x = start
    one = tf.constant(1.0)
    for _ in range(OPS):
        x = tf.add(x, one)
    return start, [x, tf.reduce_sum(tf.fill([BUFFER_FLOATS], start))]


def config():
    """One thread, and no rewriting of the graph."""
    wanted = tf.ConfigProto(inter_op_parallelism_threads=1, intra_op_parallelism_threads=1)
    wanted.graph_options.optimizer_options.opt_level = tf.OptimizerOptions.L0
    wanted.graph_options.rewrite_options.disable_meta_optimizer = True
    return wanted


def stats():
    """Sentinel's counters, none under stock TensorFlow."""
    return tf.sentinel.stats() if hasattr(tf, "sentinel") else None


def main():
    """Runs steps until enough were managed, and prints the least CPU seconds of each kind of step."""
    start, fetches = build()
    times = {"profiled": [], "steady": []}
    with tf.Session(config=config()) as session:
        step = session.make_callable(fetches, [start])
        for number in range(STEPS_AT_MOST):
            before = stats()
            began = time.process_time()
            result = step(1.0)
            took = time.process_time() - began
            assert result[0] == 1 + OPS, result
            kind = kind_of(before, stats(), number)
            if kind:
                times[kind].append(took)
            if len(times["steady"]) >= STEADY_STEPS:
                break
    print(
        json.dumps({"calibration_seconds": ratios.calibration_seconds(), "state": stats(), **times})
    )


def kind_of(before, after, number):
    """What the step was; None for one that does not count."""
    if before is None:
        return "steady" if number >= 3 else None
    if after["steps_profiled"] > before["steps_profiled"]:
        return "profiled"
    return "steady" if after["steps_managed"] > max(before["steps_managed"], 1) else None


if __name__ == "__main__":
    sys.exit(main())
