"""What lives longer than a step, or in more than one place: variables and devices."""

import tensorflow as tf
from play import images

ROWS, WIDTH = 512, 256


def train_variables(stage, use_resource):
    """Dense and sparse updates, an assignment read back in the same step, and optimizer slots."""
    x = tf.placeholder(tf.float32, [ROWS, WIDTH])
    rows = tf.placeholder(tf.int32, [ROWS])
    w = tf.get_variable(
        "w",
        [WIDTH, WIDTH],
        use_resource=use_resource,
        initializer=tf.random_normal_initializer(stddev=0.1, seed=2),
    )
    table = tf.get_variable(
        "table",
        [500, WIDTH],
        use_resource=use_resource,
        initializer=tf.random_uniform_initializer(-1, 1, seed=4),
    )
    average = tf.get_variable(
        "average",
        [ROWS, WIDTH],
        use_resource=use_resource,
        trainable=False,
        initializer=tf.zeros_initializer(),
    )
    y = tf.matmul(x, w) + tf.nn.embedding_lookup(table, rows)
    moved = tf.assign(average, average * 0.9 + y * 0.1)
    loss = tf.reduce_mean(tf.square(y - x)) + tf.reduce_mean(tf.abs(moved))
    train = tf.train.AdamOptimizer(0.01).minimize(loss)
    with stage.session() as session:
        stage.train(
            session,
            [loss, y, moved, train],
            lambda step: {
                x: images(step, ROWS, WIDTH),
                rows: [(step * 7 + row * 13) % 500 for row in range(ROWS)],
            },
        )
        for index, variable in enumerate(tf.global_variables()):
            stage.save(f"variable{index}", session.run(variable))


def ref_variables(stage):
    train_variables(stage, use_resource=False)


def resource_variables(stage):
    train_variables(stage, use_resource=True)


def two_cpu_devices(stage):
    """One step is two executors, with tensors sent between them."""
    x = tf.placeholder(tf.float32, [ROWS, WIDTH])
    with tf.device("/cpu:0"):
        first = tf.get_variable(
            "first", [WIDTH, WIDTH], initializer=tf.random_normal_initializer(stddev=0.1, seed=1)
        )
        hidden = tf.tanh(tf.matmul(x, first))
    with tf.device("/cpu:1"):
        second = tf.get_variable(
            "second", [WIDTH, WIDTH], initializer=tf.random_normal_initializer(stddev=0.1, seed=2)
        )
        y = tf.matmul(hidden, second)
        loss = tf.reduce_mean(tf.square(y - 1))
    train = tf.train.MomentumOptimizer(0.1, 0.9).minimize(loss, colocate_gradients_with_ops=True)
    with stage.session(device_count={"CPU": 2}) as session:
        stage.train(session, [loss, y, train], lambda step: {x: images(step, ROWS, WIDTH)})


SCENARIOS = (ref_variables, resource_variables, two_cpu_devices)
