"""How the native library comes into a process: early from the wheel, late into a stock TensorFlow, once, or not at all."""

import json
import shutil
import subprocess

import pytest

PREAMBLE = """
import json, sys
import numpy as np
import tensorflow as tf

def train(steps):
    x = tf.placeholder(tf.float32, [512, 256])
    w = tf.get_variable("w", [256, 256], initializer=tf.random_normal_initializer(seed=1))
    hidden = tf.tanh(tf.matmul(tf.tanh(tf.matmul(x, w)), w))
    loss = tf.reduce_mean(tf.square(hidden))
    step = tf.train.MomentumOptimizer(0.1, 0.9).minimize(loss)
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        for _ in range(steps):
            value, _ = session.run([loss, step], {x: np.ones((512, 256), np.float32)})
    return float(value)
"""

LOAD_SECOND_COPY = """
print(train(3))
try:
    tf.load_op_library(sys.argv[1])
except Exception as error:
    print("refused:", error)
print(train(3)) if False else None
"""


@pytest.fixture(scope="session")
def library(sentinel_python):
    """The native library inside the wheel with Sentinel, as a path."""
    code = "import os, tensorflow; print(os.path.dirname(tensorflow.__file__))"
    command = [str(sentinel_python), "-W", "ignore", "-c", code]
    folder = subprocess.run(command, check=True, stdout=subprocess.PIPE, universal_newlines=True).stdout.strip()
    return folder + "/libsentinel.so"
