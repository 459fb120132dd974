"""A training that is large enough to be planned and over in a second, with Sentinel's options given as JSON.

    python small_training.py '{"policy": "hpca21", "fast_fraction": 0.2}' [NUMBER OF SESSIONS]

Prints "trained" with the steps that ran, and tf.sentinel.stats() as the last line.
"""

import json
import sys

import tensorflow as tf
from play import Stage, images, statistics

ROWS, WIDTH = 512, 256


def config_with(options):
    """Text values of enums are names, as in STRICT."""
    config = Stage("small", {}).config()
    sentinel = config.experimental.sentinel
    for name, value in options.items():
        if name == "failure":
            value = tf.sentinel.Options.Failure.Value(value)
        setattr(sentinel, name, value)
    return config


def build():
    x = tf.placeholder(tf.float32, [ROWS, WIDTH])
    y = x
    for layer in range(4):
        initializer = tf.random_normal_initializer(stddev=0.1, seed=layer)
        y = tf.tanh(
            tf.matmul(y, tf.get_variable(f"w{layer}", [WIDTH, WIDTH], initializer=initializer))
        )
    loss = tf.reduce_mean(tf.square(y - 0.5))
    return x, loss, tf.train.MomentumOptimizer(0.1, 0.9).minimize(loss)


def main():
    options = json.loads(sys.argv[1])
    sessions = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    tf.logging.set_verbosity(tf.logging.ERROR)
    x, loss, train = build()
    for _ in range(sessions):
        stage = Stage("small", {})
        with tf.Session(config=config_with(options)) as session:
            session.run(tf.global_variables_initializer())
            stage.train(session, [loss, train], lambda step: {x: images(step, ROWS, WIDTH)})
    print("trained")
    print(json.dumps(statistics()))


if __name__ == "__main__":
    main()
