"""tf.sentinel.start_profile and end_profile choose the step that is profiled."""

import json

SCRIPT = """
import json
import numpy as np
import tensorflow as tf

def states(mark):
    x = tf.placeholder(tf.float32, [512, 256])
    w = tf.get_variable("w", [256, 256])
    loss = tf.reduce_mean(tf.square(tf.tanh(tf.matmul(tf.tanh(tf.matmul(x, w)), w))))
    train = tf.train.MomentumOptimizer(0.1, 0.9).minimize(loss)
    start, end = tf.sentinel.start_profile(), tf.sentinel.end_profile()
    config = tf.ConfigProto()
    config.experimental.sentinel.fast_fraction = 0.5
    config.experimental.sentinel.slow = "emulated:optane"
    config.experimental.sentinel.warmup_steps = 1000
    seen = []
    with tf.Session(config=config) as session:
        session.run(tf.global_variables_initializer())
        for step in range(6):
            if mark and step == 3:
                session.run(start)
            session.run(train, {x: np.ones((512, 256), np.float32)})
            if mark and step == 3:
                session.run(end)
            seen.append(tf.sentinel.stats()["steps_profiled"])
    return seen
"""


def profiled(start, python, mark):
    finished = start(python, "-c", SCRIPT + f"print(json.dumps(states({mark})))").wait()
    finished.assert_clean()
    return json.loads(finished.out.splitlines()[-1])


def test_the_marked_step_is_profiled(start, sentinel_python):
    assert profiled(start, sentinel_python, True) == [0, 0, 0, 1, 1, 1]


def test_without_marks_the_warm_up_decides(start, sentinel_python):
    assert profiled(start, sentinel_python, False) == [0, 0, 0, 0, 0, 0]
