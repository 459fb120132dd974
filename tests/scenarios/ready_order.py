"""A graph whose memory depends on the order in which ready operations begin: `ready_order.py GRAPH STEPS INTER_OP`.

`branches`: each of many branches makes one number of two large tensors. `staging`: the same beside a staging area.
`nested`: one operation makes many others ready, and all run on the caller's thread, each inside the one before.
Prints the sum of each step, and Sentinel's statistics as JSON, `null` under stock TensorFlow.
"""

import json
import sys

import tensorflow as tf
from tensorflow.python.ops.data_flow_ops import StagingArea

FLOATS = 1 << 20  # of each tensor, 4 MiB
BRANCHES, NESTED = 24, 400


def branches(start):
    numbers = []
    for branch in range(BRANCHES):
        fork = tf.fill([FLOATS], start + branch)
        numbers.append(tf.reduce_max(fork + 1.0) + tf.reduce_max(tf.sqrt(fork) + 2.0))
    return tf.add_n(numbers)


def staging(start):
    area = StagingArea([tf.float32])
    put = area.put([start])
    with tf.control_dependencies([put]):
        more = branches(start)
    return more + area.get()


def nested(start):
    with tf.control_dependencies([start + 1.0]):
        return tf.add_n([start + float(number) for number in range(NESTED)])


def main():
    graph, steps, inter_op = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    start = tf.placeholder(tf.float32, [])
    result = {"branches": branches, "staging": staging, "nested": nested}[graph](start)
    config = tf.ConfigProto(inter_op_parallelism_threads=inter_op, intra_op_parallelism_threads=1)
    options = tf.RunOptions(inter_op_thread_pool=-1) if graph == "nested" else None
    with tf.Session(config=config) as session:
        for step in range(steps):
            print(float(session.run(result, {start: float(step)}, options)).hex())
    sentinel = getattr(tf, "sentinel", None)
    print(json.dumps(sentinel and sentinel.stats()))


if __name__ == "__main__":
    main()
