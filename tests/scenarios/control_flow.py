"""Branches, loops and arrays of tensors, each with a gradient through it."""

import numpy as np
import tensorflow as tf
from play import images

SIDE = 320


def square_weights():
    return tf.get_variable(
        "weights", [SIDE, SIDE], initializer=tf.random_normal_initializer(stddev=0.05, seed=3)
    )


def train_on(stage, loss, output, feed):
    train = tf.train.MomentumOptimizer(0.05, 0.9).minimize(loss)
    with stage.session() as session:
        stage.train(session, [loss, output, train], feed)
        stage.save("weights", session.run(tf.trainable_variables()[0]))


def cond(stage):
    """Alternates between the branches: half of the tensors that the profiled step had are absent in the next one."""
    x = tf.placeholder(tf.float32, [SIDE, SIDE])
    w = square_weights()
    y = tf.cond(
        tf.reduce_sum(x) > 0,
        lambda: tf.tanh(tf.matmul(x, w)),
        lambda: tf.matmul(tf.nn.relu(x + 0.5), w * w),
    )
    train_on(
        stage,
        tf.reduce_mean(tf.square(y - 0.5)),
        y,
        lambda step: {x: np.abs(images(step, SIDE, SIDE)) * (1 if step % 2 else -1)},
    )


def while_loop_gradient(stage):
    """The number of iterations changes from step to step, and with it the number of tensors kept for the gradient."""
    x = tf.placeholder(tf.float32, [SIDE, SIDE])
    iterations = tf.placeholder(tf.int32, [])
    w = square_weights()
    _, y = tf.while_loop(
        lambda i, _: i < iterations,
        lambda i, state: (i + 1, tf.tanh(tf.matmul(state, w) + state)),
        (tf.constant(0), x),
    )
    train_on(
        stage,
        tf.reduce_mean(tf.square(y - 0.25)),
        y,
        lambda step: {x: images(step, SIDE, SIDE), iterations: 4 + step % 3},
    )


def map_fn(stage):
    x = tf.placeholder(tf.float32, [6, SIDE, SIDE])
    w = square_weights()
    y = tf.map_fn(lambda one: tf.nn.relu(tf.matmul(one, w)), x)
    train_on(
        stage, tf.reduce_mean(tf.square(y - x)), y, lambda step: {x: images(step, 6, SIDE, SIDE)}
    )


def tensor_array(stage):
    """Writes in a loop, reads single elements and all of them, with gradients through both."""
    x = tf.placeholder(tf.float32, [5, SIDE, SIDE])
    w = square_weights()
    rows = tf.TensorArray(tf.float32, size=5, clear_after_read=False).unstack(x)
    outputs = tf.TensorArray(tf.float32, size=5, clear_after_read=False)
    _, outputs = tf.while_loop(
        lambda i, _: i < 5,
        lambda i, array: (i + 1, array.write(i, tf.sigmoid(tf.matmul(rows.read(i), w)))),
        (tf.constant(0), outputs),
    )
    y = outputs.stack() + outputs.read(2)
    train_on(stage, tf.reduce_mean(tf.square(y)), y, lambda step: {x: images(step, 5, SIDE, SIDE)})


SCENARIOS = (cond, while_loop_gradient, map_fn, tensor_array)
