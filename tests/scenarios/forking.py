"""A process forks while its session rests, as data loaders do, and goes on training."""

import multiprocessing
import os
import signal
import threading

import numpy as np
import tensorflow as tf
from play import images

ROWS, WIDTH = 512, 256


def row_sums(values):
    return (values * 2).sum(axis=1)


def in_forked_child(work):
    """Runs `work` in a child that ends without Python's clean-up, and returns the child's exit status."""
    child = os.fork()
    if child == 0:
        work()
        os._exit(0)
    return os.waitpid(child, 0)[1]


def fork_of_quiet_process(stage):
    x = tf.placeholder(tf.float32, [ROWS, WIDTH])
    w = tf.get_variable(
        "weights", [WIDTH, WIDTH], initializer=tf.random_normal_initializer(stddev=0.1, seed=1)
    )
    y = tf.tanh(tf.matmul(x, w))
    loss = tf.reduce_mean(tf.square(y - 0.5))
    train = tf.train.MomentumOptimizer(0.1, 0.9).minimize(loss)
    fetched = []

    def ask():
        """Asks Sentinel, where it is, what it does here; a lock that the parent held would end this by the alarm."""
        signal.alarm(30)
        if hasattr(tf, "sentinel"):
            tf.sentinel.start_profile()
            assert tf.sentinel.stats()["state"] in ("forked", "off")

    def read_and_free():
        """Frees, in the child, blocks that the parent's allocator handed out."""
        while fetched:
            assert np.isfinite(fetched.pop()).all()

    with stage.session() as session:

        def feed(step):
            return {x: images(step, ROWS, WIDTH)}

        stage.train(session, [loss, y, train], feed, name="before")
        fetched.extend(session.run(y, feed(step)) for step in range(3))
        stage.save("status", in_forked_child(read_and_free))
        training = threading.Thread(
            target=lambda: [session.run(train, feed(9)) for _ in range(300)]
        )
        training.start()
        stage.save("asked", [in_forked_child(ask) for _ in range(10)])
        training.join()
        with multiprocessing.get_context("fork").Pool(2) as pool:
            stage.save("sums", pool.map(row_sums, fetched))
        stage.train(session, [loss, y, train], feed, name="after")
        stage.save("fetched", fetched)


SCENARIOS = (fork_of_quiet_process,)
