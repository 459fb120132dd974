"""Plays the scenarios of one module in this process and saves every value they computed, for a bit by bit comparison.

    python play.py MODULE VALUES.npz REPORT.json

Runs under stock TensorFlow and under Sentinel; all operations use one thread, because only then does TensorFlow itself
promise the same bits twice. The report holds what tf.sentinel.stats() said before each scenario, at the end of
its last training, and after it.
"""

import importlib
import json
import os
import sys
import time

import numpy as np
import tensorflow as tf

HAS_SENTINEL = hasattr(tf, "sentinel")
STEPS = 10
PLANNING_SECONDS_AT_MOST = 20
# Operations at the same time; each of them has one thread, so that its own result has the same bits in every run.
INTER_OP_THREADS = int(os.environ.get("PLAY_INTER_OP_THREADS", "1"))


class Stage:
    """What a scenario gets: sessions to compute in and a place for the values that must be equal."""

    def __init__(self, name, values):
        self._name = name
        self._values = values
        # Taken while the session is open: its plan goes with it.
        self.statistics = None

    def config(self, **options):
        return tf.ConfigProto(
            inter_op_parallelism_threads=INTER_OP_THREADS, intra_op_parallelism_threads=1, **options
        )

    def session(self, **options):
        """A session on the current default graph, with its variables initialized."""
        session = tf.Session(config=self.config(**options))
        session.run([tf.global_variables_initializer(), tf.local_variables_initializer()])
        return session

    def save(self, name, value):
        """Keeps a copy of one value. Strings become byte arrays: NumPy would have to pickle them otherwise."""
        value = np.array(value)
        if value.dtype == object:
            value = value.astype("S")
        key = f"{self._name}/{name}"
        assert key not in self._values, f"{key} is saved twice"
        self._values[key] = value

    def train(self, session, fetches, feed=None, steps=STEPS, name="fetch"):
        """Runs the same fetches `steps` times and saves every value; `feed` maps the step's number to a feed_dict."""
        for step in range(steps):
            results = session.run(fetches, feed(step) if feed else None)
            for index, result in enumerate(results):
                if result is not None:
                    self.save(f"{name}{index}/{step}", result)
            wait_for_plan()
        self.statistics = statistics()


def wait_for_plan():
    """Planning runs beside the training; without waiting, these short steps would be over before the plan is there."""
    deadline = time.monotonic() + PLANNING_SECONDS_AT_MOST
    while (
        HAS_SENTINEL and tf.sentinel.stats()["state"] == "planning" and time.monotonic() < deadline
    ):
        time.sleep(0.005)


def images(step, *shape):
    """The same pseudo-random float32 values for the same step, in [-1, 1)."""
    return np.random.RandomState(step).uniform(-1, 1, shape).astype(np.float32)


def statistics():
    return tf.sentinel.stats() if HAS_SENTINEL else None


def main():
    module_name, values_path, report_path = sys.argv[1:]
    tf.logging.set_verbosity(tf.logging.ERROR)
    module = importlib.import_module(module_name)
    values, report = {}, {}
    for scenario in module.SCENARIOS:
        name = scenario.__name__
        before = statistics()
        stage = Stage(name, values)
        if tf.executing_eagerly():
            scenario(stage)
        else:
            with tf.Graph().as_default():
                tf.set_random_seed(7)
                scenario(stage)
        report[name] = {"before": before, "during": stage.statistics, "after": statistics()}
    np.savez(values_path, **values)
    with open(report_path, "w") as out:
        json.dump(report, out)


if __name__ == "__main__":
    main()
