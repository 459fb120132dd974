"""Trains a chain of element-wise layers: large activations that cost little to compute; prints the bits of each loss.

The last line is what Sentinel says at the end, or null. With a third argument, makes that file before step 12 and waits
until there is another one of that name and `.open`.
"""

import json
import os
import struct
import sys
import time

import tensorflow as tf

LAYERS = 16
WAITING_STEP = 12


def main():
    steps, megabytes = int(sys.argv[1]), int(sys.argv[2])
    gate = sys.argv[3] if len(sys.argv) > 3 else None
    tf.set_random_seed(3)
    features = 1 << 12
    rows = megabytes * (1 << 20) // (4 * features)
    x = tf.placeholder(tf.float32, [rows, features])
    value = x
    for layer in range(LAYERS):
        scale = tf.get_variable(
            "scale%d" % layer, [features], initializer=tf.random_normal_initializer(1.0, 0.1)
        )
        value = tf.tanh(value * scale)
        if hasattr(tf, "sentinel"):
            value = tf.sentinel.add_layer(value)
        else:
            value = tf.identity(value)
    loss = tf.reduce_mean(tf.square(value - 0.5))
    train = tf.train.GradientDescentOptimizer(20.0).minimize(loss)
    config = tf.ConfigProto(inter_op_parallelism_threads=1, intra_op_parallelism_threads=1)
    with tf.Session(config=config) as session:
        session.run(tf.global_variables_initializer())
        feed = session.run(tf.random_uniform([rows, features], seed=4))
        for step in range(steps):
            if gate and step == WAITING_STEP:
                open(gate, "w").close()
                while not os.path.exists(gate + ".open"):
                    time.sleep(0.02)
            loss_now, _ = session.run([loss, train], {x: feed})
            print(struct.pack(">f", loss_now).hex(), flush=True)
    print(json.dumps(tf.sentinel.stats() if hasattr(tf, "sentinel") else None))


if __name__ == "__main__":
    main()
