"""Layers: recurrent ones, ones in functions, and ones that the script marks."""

import tensorflow as tf
from play import HAS_SENTINEL, images
from tensorflow.python.framework import function

BATCH, TIME, WIDTH = 64, 16, 128


def dynamic_rnn_lstm(stage):
    """Sequences of unequal length, so that the loop copies states through."""
    x = tf.placeholder(tf.float32, [BATCH, TIME, WIDTH])
    lengths = tf.placeholder(tf.int32, [BATCH])
    cell = tf.nn.rnn_cell.LSTMCell(
        WIDTH, initializer=tf.random_uniform_initializer(-0.1, 0.1, seed=5)
    )
    outputs, state = tf.nn.dynamic_rnn(cell, x, lengths, dtype=tf.float32)
    loss = tf.reduce_mean(tf.square(outputs - x)) + tf.reduce_mean(state.c)
    train = tf.train.AdamOptimizer(0.01).minimize(loss)
    with stage.session() as session:
        stage.train(
            session,
            [loss, outputs, state.c, train],
            lambda step: {
                x: images(step, BATCH, TIME, WIDTH),
                lengths: [1 + (step + row) % TIME for row in range(BATCH)],
            },
        )


def defun(stage):
    """Functions are graphs of their own inside a step; this one is called twice and differentiated."""

    @function.Defun(tf.float32, tf.float32)
    def dense(inputs, weights):
        return tf.tanh(tf.matmul(inputs, weights)) + inputs

    x = tf.placeholder(tf.float32, [BATCH * TIME, WIDTH])
    w = tf.get_variable(
        "weights", [WIDTH, WIDTH], initializer=tf.random_normal_initializer(stddev=0.1, seed=5)
    )
    hidden = dense(x, w)
    hidden.set_shape(x.shape)
    y = dense(hidden, w)
    y.set_shape(x.shape)
    loss = tf.reduce_mean(tf.square(y))
    train = tf.train.GradientDescentOptimizer(0.1).minimize(loss)
    with stage.session() as session:
        stage.train(session, [loss, y, train], lambda step: {x: images(step, BATCH * TIME, WIDTH)})


def convolutions(images_in, mark):
    """Three convolutions whose outputs go through `mark`, a loss and its training operation."""
    x = images_in
    for layer, filters in enumerate((8, 16, 8)):
        with tf.variable_scope(f"layer{layer}"):
            w = tf.get_variable(
                "weights",
                [3, 3, x.shape[-1].value, filters],
                initializer=tf.random_normal_initializer(stddev=0.2, seed=layer),
            )
            x = mark(tf.nn.relu(tf.nn.conv2d(x, w, [1, 1, 1, 1], "SAME")))
    loss = tf.reduce_mean(tf.square(x - 0.1))
    return loss, tf.train.MomentumOptimizer(0.05, 0.9).minimize(loss)


def marked_layers(stage):
    """add_layer is the identity forwards and backwards: stock TensorFlow's identity gives the same bits."""
    x = tf.placeholder(tf.float32, [16, 32, 32, 3])
    loss, train = convolutions(x, tf.sentinel.add_layer if HAS_SENTINEL else tf.identity)
    with stage.session() as session:
        stage.train(session, [loss, train], lambda step: {x: images(step, 16, 32, 32, 3)})


def unmarked_layers(stage):
    x = tf.placeholder(tf.float32, [16, 32, 32, 3])
    loss, train = convolutions(x, lambda y: y)
    with stage.session() as session:
        stage.train(session, [loss, train], lambda step: {x: images(step, 16, 32, 32, 3)})


SCENARIOS = (dynamic_rnn_lstm, defun, marked_layers, unmarked_layers)
