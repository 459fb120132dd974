"""An unrolled LSTM on the rows of scikit-learn's handwritten digits: little arithmetic, much memory.

    python digits_lstm.py LOSSES.txt [--steps N | --managed-steps N] [--batch N] [--report REPORT.json]

Writes each step's loss as the hexadecimal bits of its float32, one per line. Knows nothing of Sentinel's options; with
--managed-steps it asks `tf.sentinel.stats()` how many steps have followed a plan. Single-threaded, so that two runs
have the same bits. Each of a digit's eight rows is one step of the recurrence; the narrow state keeps the
multiplications few (0.8 GFLOP in a training step, by 3 x 8 rows x 2 x 32768 x 16 x 32), and the large batch makes the
activations large.
"""

import argparse
import json
import struct
import time
from pathlib import Path

import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits

ROWS, CLASSES, UNITS = 8, 10, 8
BATCH = 32768
STEPS_AT_MOST = 40
PLANNING_SECONDS_AT_MOST = 600


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("losses")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--managed-steps", type=int)
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--report", help="write statistics and the kernel's counters here")
    return parser.parse_args()


def batches(size):
    """Digits in an order that is the same in every run; the batch is larger than the collection."""
    digits = load_digits()
    images = digits.images.astype(np.float32) / 8 - 1
    random = np.random.RandomState(5)
    while True:
        chosen = random.randint(0, len(images), size)
        yield images[chosen], digits.target[chosen].astype(np.int32)


def weights(name, *shape):
    initializer = tf.random_normal_initializer(stddev=0.2, seed=len(name) + sum(shape))
    return tf.get_variable(name, shape, initializer=initializer)


def build(batch):
    """The graph of one training step: inputs, loss and update."""
    images = tf.placeholder(tf.float32, [batch, ROWS, ROWS])
    labels = tf.placeholder(tf.int32, [batch])
    kernel, bias = weights("kernel", ROWS + UNITS, 4 * UNITS), weights("bias", 4 * UNITS)
    state = output = tf.zeros([batch, UNITS])
    for row in range(ROWS):
        with tf.name_scope("row%d" % row):
            inputs = tf.concat([images[:, row], output], axis=1)
            gates = tf.nn.bias_add(tf.matmul(inputs, kernel), bias)
            enter, fresh, keep, leave = tf.split(gates, 4, axis=1)
            state = tf.sigmoid(keep + 1) * state + tf.sigmoid(enter) * tf.tanh(fresh)
            output = tf.sigmoid(leave) * tf.tanh(state)
    with tf.name_scope("classes"):
        logits = tf.matmul(output, weights("classes", UNITS, CLASSES))
        loss = tf.reduce_mean(
            tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
        )
    return images, labels, loss, tf.train.AdamOptimizer(0.01).minimize(loss)


def statistics():
    return tf.sentinel.stats() if hasattr(tf, "sentinel") else None


def wait_for_plan():
    """Planning runs beside the training, which need not go on without a plan here."""
    deadline = time.monotonic() + PLANNING_SECONDS_AT_MOST
    while statistics()["state"] == "planning" and time.monotonic() < deadline:
        time.sleep(0.05)


def kernel_counters():
    """Counters of page migration and of the compaction that would disturb them."""
    wanted = "pgmigrate_success pgmigrate_fail compact_isolated compact_migrate_scanned".split()
    wanted += "numa_pages_migrated thp_split_page thp_migration_success thp_migration_split".split()
    wanted += ["thp_fault_alloc"]
    lines = [line.split() for line in Path("/proc/vmstat").read_text().splitlines()]
    return {name: int(value) for name, value in lines if name in wanted}


def main():
    arguments = parse_arguments()
    tf.logging.set_verbosity(tf.logging.ERROR)
    images, labels, loss, update = build(arguments.batch)
    config = tf.ConfigProto(inter_op_parallelism_threads=1, intra_op_parallelism_threads=1)
    wanted = arguments.managed_steps
    began = time.monotonic()
    losses = []
    with tf.Session(config=config) as session:
        session.run(tf.global_variables_initializer())
        # Sentinel has measured by now how fast pages move.
        before = kernel_counters()
        for rows, classes in batches(arguments.batch):
            value, _ = session.run([loss, update], {images: rows, labels: classes})
            losses.append(struct.pack(">f", value).hex())
            if wanted:
                wait_for_plan()
            managed = statistics()["steps_managed"] >= wanted if wanted else False
            if managed or len(losses) == (arguments.steps or STEPS_AT_MOST):
                break
        report = {
            "seconds": time.monotonic() - began,
            "statistics": statistics(),
            "kernel_before": before,
            "kernel_after": kernel_counters(),
        }
    Path(arguments.losses).write_text("".join(bits + "\n" for bits in losses))
    if arguments.report:
        Path(arguments.report).write_text(json.dumps(report))


if __name__ == "__main__":
    main()
