"""Trainings whose profiled step the kernel counts, and the same training without Sentinel.

    python page_counts.py lstm RESULT.json --trace STEP.trace --losses LOSSES.txt
    python page_counts.py exact RESULT.json --trace STEP.trace
    python page_counts.py huge RESULT.json
    python page_counts.py stock --losses LOSSES.txt

Options of Sentinel come from variables. `lstm` trains the network of digits_lstm.py: some steps as they are, some
profiled, then managed ones. `exact` runs a graph whose accesses to each page are known before. `huge` compares bytes in
huge pages before and after a profiled step.
"""

import argparse
import json
import struct
import time
from pathlib import Path

import digits_lstm
import numpy as np
import tensorflow as tf

# The largest tensors have 256 pages, as many as QEMU's TLB has entries at first. With the 32768 of digits_lstm.py they
# have 1024, which the 1024 to 2048 entries of most processors hold, and these do not.
BATCH = 8192
NORMAL_STEPS, PROFILED_STEPS, MANAGED_STEPS = 3, 2, 3
PAGES = 64
# Elements of an int32 tensor in a page.
PAGE_ELEMENTS = 1024


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("lstm", "exact", "huge", "stock"))
    parser.add_argument("result", nargs="?")
    parser.add_argument("--trace")
    parser.add_argument("--losses")
    return parser.parse_args()


def settle():
    """Waits until the plan is there: it is made beside the training."""
    deadline = time.monotonic() + 1200
    while tf.sentinel.stats()["state"] in ("profiling", "planning"):
        if time.monotonic() > deadline:
            raise RuntimeError("no plan came in 1200 s: %s" % tf.sentinel.stats())
        time.sleep(0.1)


class Training:
    """The network of digits_lstm.py in a session of one thread, with its losses and the processor time of each step."""

    def __init__(self):
        images, labels, self._loss, self._update = digits_lstm.build(BATCH)
        self._inputs = images, labels
        self._batches = digits_lstm.batches(BATCH)
        self.losses, self.seconds = [], []
        # Made before the session, which runs no graph that has changed since without delay.
        with_sentinel = hasattr(tf, "sentinel")
        self._marks = (
            (tf.sentinel.start_profile(), tf.sentinel.end_profile()) if with_sentinel else ()
        )
        config = tf.ConfigProto(inter_op_parallelism_threads=1, intra_op_parallelism_threads=1)
        self._session = tf.Session(config=config)
        self._session.run(tf.global_variables_initializer())

    def step(self):
        began = time.process_time()
        value, _ = self._session.run(
            [self._loss, self._update], dict(zip(self._inputs, next(self._batches)))
        )
        self.seconds.append(time.process_time() - began)
        self.losses.append(struct.pack(">f", value).hex())
        return self.seconds[-1]

    def profiled_step(self):
        self._session.run(self._marks[0])
        seconds = self.step()
        self._session.run(self._marks[1])
        settle()
        return seconds


def read_trace(path):
    from tensorflow.core.protobuf import sentinel_pb2

    return sentinel_pb2.StepTrace.FromString(Path(path).read_bytes()[20:])


def tensors(trace):
    """Per counted tensor of four pages and more: size, accesses per page by kernel and by operations, temporary."""
    found = []
    for counts in trace.counts.buffers:
        buffer = trace.buffers[counts.buffer]
        pages = len(counts.reads)
        touched = sum(access.bytes for access in buffer.accesses)
        if pages >= 4 and touched:
            kernel = (sum(counts.reads) + sum(counts.writes)) / pages
            operations = touched / buffer.size_bytes
            found.append((buffer.size_bytes, kernel, operations, buffer.temporary))
    return found


def lstm(arguments):
    training = Training()
    normal = [training.step() for _ in range(1 + NORMAL_STEPS)][1:]
    profiled = [training.profiled_step() for _ in range(PROFILED_STEPS)]
    profiler = tf.sentinel.stats()["profiler"]
    for _ in range(MANAGED_STEPS):
        training.step()
    Path(arguments.losses).write_text("".join(bits + "\n" for bits in training.losses))
    trace = read_trace(arguments.trace)
    return {
        "tensors": tensors(trace),
        "uncounted": len(trace.buffers) - len(trace.counts.buffers),
        "profiled_seconds": profiled,
        "normal_seconds": normal,
        "profiler": profiler,
        "statistics": tf.sentinel.stats(),
    }


def exact(arguments):
    """One element of page p of a variable is gathered p + 1 times, and nothing else of the page is touched."""
    wanted = [page for page in range(PAGES) for _ in range(page + 1)]
    indices = np.array([page * PAGE_ELEMENTS + 7 for page in wanted], np.int32)
    table = tf.get_variable("table", initializer=np.arange(PAGES * PAGE_ELEMENTS, dtype=np.int32))
    fed = tf.placeholder(tf.int32, indices.shape)
    gathered = tf.gather(table, fed)
    # Graphs of fewer nodes are never profiled; nothing of these touches the table.
    total = tf.reduce_sum(gathered) + tf.reduce_sum(tf.square(gathered[:8] - 1)) * 0
    start, end = tf.sentinel.start_profile(), tf.sentinel.end_profile()
    config = tf.ConfigProto(inter_op_parallelism_threads=1, intra_op_parallelism_threads=1)
    with tf.Session(config=config) as session:
        session.run(tf.global_variables_initializer())
        session.run(total, {fed: indices})
        session.run(start)
        session.run(total, {fed: indices})
        session.run(end)
        settle()
        profiler = tf.sentinel.stats()["profiler"]
    trace = read_trace(arguments.trace)
    found = [c for c in trace.counts.buffers if len(c.reads) == PAGES]
    accesses = sum(sum(c.reads) + sum(c.writes) for c in trace.counts.buffers)
    return {
        "profiler": profiler,
        "accesses": accesses,
        "reads": [list(counts.reads) for counts in found],
        "writes": [list(counts.writes) for counts in found],
    }


def huge_bytes():
    lines = Path("/proc/self/smaps").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("AnonHugePages:")) * 1024


def huge(_):
    training = Training()
    for _ in range(2):
        training.step()
    before = huge_bytes()
    training.profiled_step()
    return {
        "huge_bytes_before": before,
        "huge_bytes_after": huge_bytes(),
        "profiler": tf.sentinel.stats()["profiler"],
    }


def stock(arguments):
    training = Training()
    for _ in range(1 + NORMAL_STEPS + PROFILED_STEPS + MANAGED_STEPS):
        training.step()
    Path(arguments.losses).write_text("".join(bits + "\n" for bits in training.losses))


def main():
    arguments = parse_arguments()
    tf.logging.set_verbosity(tf.logging.ERROR)
    result = {"lstm": lstm, "exact": exact, "huge": huge, "stock": stock}[arguments.what](arguments)
    if arguments.result:
        Path(arguments.result).write_text(json.dumps(result))


if __name__ == "__main__":
    main()
