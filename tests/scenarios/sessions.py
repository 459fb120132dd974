"""How sessions are used: in pieces, side by side, and with values that live longer than they do."""

import gc
import threading

import tensorflow as tf
from play import STEPS, images, wait_for_plan

ROWS, WIDTH = 512, 256


def dense(x, seed):
    """Returns the output of one dense layer on x, its loss and its training operation."""
    w = tf.get_variable(
        "weights", [WIDTH, WIDTH], initializer=tf.random_normal_initializer(stddev=0.1, seed=seed)
    )
    y = tf.tanh(tf.matmul(x, w))
    loss = tf.reduce_mean(tf.square(y - 0.5))
    return y, loss, tf.train.MomentumOptimizer(0.1, 0.9).minimize(loss)


def partial_run(stage):
    """The step stops in the middle until the second feed comes; the tensors of the first half stay alive."""
    first, second = (tf.placeholder(tf.float32, [ROWS, WIDTH]) for _ in range(2))
    half = tf.tanh(first) * 3
    y, loss, train = dense(half + second, seed=1)
    with tf.control_dependencies([train]):
        # partial_run accepts tensors only.
        trained = tf.identity(y)
    with stage.session() as session:
        for step in range(STEPS):
            handle = session.partial_run_setup([half, loss, trained], [first, second])
            stage.save(
                f"half/{step}",
                session.partial_run(handle, half, {first: images(step, ROWS, WIDTH)}),
            )
            for index, value in enumerate(
                session.partial_run(
                    handle, [loss, trained], {second: images(step + 50, ROWS, WIDTH)}
                )
            ):
                stage.save(f"rest{index}/{step}", value)
            wait_for_plan()


def two_at_once(stage):
    """Two sessions on graphs of different size, in two threads, step at the same time."""
    failures = []

    def train(name, rows, seed):
        try:
            with tf.Graph().as_default():
                x = tf.placeholder(tf.float32, [rows, WIDTH])
                y, loss, train = dense(x, seed)
                with stage.session() as session:
                    stage.train(
                        session,
                        [loss, y, train],
                        lambda step: {x: images(step, rows, WIDTH)},
                        steps=20,
                        name=name,
                    )
        except Exception as failure:  # An exception would end its thread unseen.
            failures.append(failure)

    threads = [
        threading.Thread(target=train, args=("small", ROWS, 1)),
        threading.Thread(target=train, args=("large", 3 * ROWS, 2)),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures


def outliving_values(stage):
    """Feeds are deleted and fetches are kept, changed and read again after more steps and after the session's end."""
    x = tf.placeholder(tf.float32, [ROWS, WIDTH])
    passed_on = tf.identity(x)
    y, loss, train = dense(x, seed=3)
    kept = []
    session = stage.session()
    for step in range(8):
        feed = images(step, ROWS, WIDTH)
        kept.append(session.run([y, passed_on, x, loss, train], {x: feed})[:4])
        del feed
        gc.collect()
        wait_for_plan()
    kept[0][0] += 1
    session.close()
    del session
    gc.collect()
    for step, values in enumerate(kept):
        for index, value in enumerate(values):
            stage.save(f"kept{index}/{step}", value)


def changing_shapes(stage):
    """A smaller batch comes now and then, as at the end of an epoch; its tensors do not fit the plan of the others."""
    x = tf.placeholder(tf.float32, [None, WIDTH])
    y, loss, train = dense(x, seed=4)
    with stage.session() as session:
        stage.train(
            session,
            [loss, y, train],
            steps=20,
            feed=lambda step: {x: images(step, ROWS if step % 5 else ROWS // 3, WIDTH)},
        )


def many_graphs(stage):
    """Sessions come and go; kernels of a new one may be at the addresses of an old one's."""
    for number in range(4):
        with tf.Graph().as_default():
            train_with_rows(stage, number, ROWS + 32 * number)


def train_with_rows(stage, number, rows):
    x = tf.placeholder(tf.float32, [rows, WIDTH])
    y, loss, train = dense(x, seed=number)
    with stage.session() as session:
        stage.train(
            session,
            [loss, y, train],
            steps=6,
            name=f"graph{number}/",
            feed=lambda step: {x: images(step, rows, WIDTH)},
        )


SCENARIOS = (partial_run, two_at_once, outliving_values, changing_shapes, many_graphs)
