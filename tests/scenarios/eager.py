"""Eager mode: operations run one by one, without a session, a graph or a step."""

import tensorflow as tf
from play import Stage, images

ROWS, WIDTH = 512, 256

tf.enable_eager_execution(config=Stage("eager", {}).config())


def eager_training(stage):
    tf.set_random_seed(7)
    w = tf.Variable(images(1, WIDTH, WIDTH) * 0.1)
    optimizer = tf.train.MomentumOptimizer(0.1, 0.9)
    for step in range(6):
        x = tf.constant(images(step, ROWS, WIDTH))
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(tf.tanh(tf.matmul(x, w)) - 0.5))
        optimizer.apply_gradients([(tape.gradient(loss, w), w)])
        stage.save(f"loss/{step}", loss.numpy())
    stage.save("weights", w.numpy())


def eager_function(stage):
    """A traced function is a graph without a session."""
    double_dense = tf.contrib.eager.defun(lambda x, w: tf.matmul(tf.nn.relu(tf.matmul(x, w)), w))
    w = tf.constant(images(2, WIDTH, WIDTH))
    for step in range(6):
        stage.save(
            f"output/{step}", double_dense(tf.constant(images(step, ROWS, WIDTH)), w).numpy()
        )


SCENARIOS = (eager_training, eager_function)
