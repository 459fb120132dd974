"""Loads the native library at a given moment of a training, and once more if asked to.

    python loading.py MOMENT LIBRARY [LIBRARY...]

MOMENT is what happens before the first load: "import" (nothing but the import), "session" (a session has trained),
"devices" (TensorFlow has listed its devices) or "eager" (an operation has run in eager mode). Each refused load prints
one line. The last line is a JSON object with the losses of a training before and of one after loading, and the
statistics of the library that was loaded first.
"""

import ctypes
import json
import sys
import time

import numpy as np
import tensorflow as tf
from tensorflow.python.client import device_lib

ROWS, WIDTH, STEPS = 512, 256, 8
# Whoever makes the first devices of a process decides how many threads later sessions have.
ONE_THREAD = tf.ConfigProto(inter_op_parallelism_threads=1, intra_op_parallelism_threads=1)


def stats_of(library):
    """What the loaded library counted; tf.sentinel is not there in stock TensorFlow."""
    read = ctypes.CDLL(library).sentinel_stats_json
    read.restype, read.argtypes = ctypes.c_size_t, [ctypes.c_char_p, ctypes.c_size_t]
    text = ctypes.create_string_buffer(1 << 16)
    assert read(text, len(text)) <= len(text)
    return json.loads(text.value.decode())


def wait_for_plan(library):
    while library and stats_of(library)["state"] == "planning":
        time.sleep(0.005)


def train(library=None):
    """Returns the bits of each step's loss."""
    losses = []
    with tf.Graph().as_default():
        x = tf.placeholder(tf.float32, [ROWS, WIDTH])
        w = tf.get_variable(
            "w", [WIDTH, WIDTH], initializer=tf.random_normal_initializer(stddev=0.1, seed=1)
        )
        loss = tf.reduce_mean(tf.square(tf.tanh(tf.matmul(tf.tanh(tf.matmul(x, w)), w)) - 0.5))
        step = tf.train.MomentumOptimizer(0.1, 0.9).minimize(loss)
        with tf.Session(config=ONE_THREAD) as session:
            session.run(tf.global_variables_initializer())
            for number in range(STEPS):
                feed = np.random.RandomState(number).uniform(-1, 1, (ROWS, WIDTH))
                losses.append(session.run([loss, step], {x: feed})[0].tobytes().hex())
                wait_for_plan(library)
    return losses


def bring_about(moment):
    if moment == "session":
        return train()
    if moment == "devices":
        device_lib.list_local_devices(ONE_THREAD)
    if moment == "eager":
        tf.enable_eager_execution(config=ONE_THREAD)
        tf.constant([1.0]) + 1
    return None


def main():
    moment, *libraries = sys.argv[1:]
    before = bring_about(moment)
    loaded = []
    for library in libraries:
        try:
            tf.load_op_library(library)
            loaded.append(library)
            print("loaded", library)
        except (tf.errors.OpError, RuntimeError) as error:
            print("refused", library, str(error).replace("\n", " "))
    first = loaded[0] if loaded else None
    print(
        json.dumps(
            {"before": before, "after": train(first), "stats": stats_of(first) if first else None}
        )
    )


if __name__ == "__main__":
    main()
