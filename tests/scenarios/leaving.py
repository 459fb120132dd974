"""The process ends with a session open, values fetched, and tf.data and queue threads at work."""

import tensorflow as tf
from play import images

ROWS, WIDTH = 512, 256

# Everything in here is alive when the interpreter ends.
left_open = []


def exit_with_open_session(stage):
    data = (
        tf.data.Dataset.from_tensor_slices(images(0, ROWS, WIDTH)).repeat().batch(ROWS).prefetch(4)
    )
    batch = data.make_one_shot_iterator().get_next()
    queue = tf.FIFOQueue(3, [tf.float32])
    runner = tf.train.QueueRunner(queue, [queue.enqueue(batch * 2)])
    x = tf.reshape(queue.dequeue(), [ROWS, WIDTH])
    w = tf.get_variable(
        "weights", [WIDTH, WIDTH], initializer=tf.random_normal_initializer(stddev=0.1, seed=1)
    )
    y = tf.tanh(tf.matmul(x, w))
    loss = tf.reduce_mean(tf.square(y - 0.5))
    train = tf.train.MomentumOptimizer(0.1, 0.9).minimize(loss)
    session = stage.session()
    left_open.append((session, runner.create_threads(session, daemon=True, start=True)))
    stage.train(session, [loss, y, train])
    left_open.append(session.run([y, x, loss]))


SCENARIOS = (exit_with_open_session,)
