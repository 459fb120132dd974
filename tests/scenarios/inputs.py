"""Ways for data to enter a step: queues, tf.data, Python functions and strings."""

import numpy as np
import tensorflow as tf
from play import images

ROWS, WIDTH = 512, 256


def linear_model(x):
    """A loss on x and the operation that lowers it."""
    w = tf.get_variable(
        "weights", [WIDTH, WIDTH], initializer=tf.random_normal_initializer(stddev=0.1, seed=2)
    )
    loss = tf.reduce_mean(tf.square(tf.matmul(x, w) - x))
    return loss, tf.train.AdagradOptimizer(0.1).minimize(loss)


def fifo_queue(stage):
    """The step that takes a tensor out is a later one than the step that computed it and put it in."""
    x = tf.placeholder(tf.float32, [ROWS, WIDTH])
    queue = tf.FIFOQueue(4, [tf.float32], shapes=[[ROWS, WIDTH]])
    put = queue.enqueue(tf.tanh(x * 2))
    taken = queue.dequeue()
    loss, train = linear_model(taken)
    with stage.session() as session:
        for step in (100, 101):
            session.run(put, {x: images(step, ROWS, WIDTH)})
        stage.train(session, [loss, taken, train, put], lambda step: {x: images(step, ROWS, WIDTH)})
        stage.save("left", session.run([queue.dequeue(), queue.size()])[0])


def dataset(stage):
    """map, batch and prefetch run in threads of tf.data, outside of any step."""
    source = images(0, 40, WIDTH)
    data = tf.data.Dataset.from_tensor_slices(source).repeat()
    data = data.map(lambda row: tf.sin(row) + row, num_parallel_calls=2).batch(ROWS).prefetch(2)
    iterator = data.make_initializable_iterator()
    batch = iterator.get_next()
    batch.set_shape([ROWS, WIDTH])
    loss, train = linear_model(batch)
    with stage.session() as session:
        session.run(iterator.initializer)
        stage.train(session, [loss, batch, train])


def py_func(stage):
    """NumPy owns the memory of what a Python function returns, and TensorFlow's tensors are its arguments."""
    kept = []

    def python_side(values):
        kept.append(values)
        return np.sort(values, axis=1) * np.float32(0.5)

    x = tf.placeholder(tf.float32, [ROWS, WIDTH])
    y = tf.py_func(python_side, [x + 1], tf.float32, stateful=True)
    y.set_shape([ROWS, WIDTH])
    loss, train = linear_model(y)
    with stage.session() as session:
        stage.train(session, [loss, y, train], lambda step: {x: images(step, ROWS, WIDTH)})
    for step, values in enumerate(kept):
        stage.save(f"kept/{step}", values)


def strings(stage):
    """A string tensor's buffer holds objects with pointers to their texts: it must be constructed and destroyed."""
    words = tf.placeholder(tf.string, [ROWS])
    joined = tf.string_join([words, tf.as_string(tf.range(ROWS))], "-")
    pieces = tf.string_split(joined, "-")
    # Half a megabyte of string objects.
    encoded = tf.encode_base64(tf.tile(joined, [32]))
    x = tf.one_hot(tf.string_to_hash_bucket_fast(joined, WIDTH), WIDTH)
    loss, train = linear_model(x)
    with stage.session() as session:
        stage.train(
            session,
            [loss, joined, pieces.values, encoded[-ROWS:], train],
            lambda step: {
                words: ["word{}{}".format(step, "x" * (row % 64)) for row in range(ROWS)]
            },
        )


SCENARIOS = (fifo_queue, dataset, py_func, strings)
