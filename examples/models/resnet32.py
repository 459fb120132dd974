"""ResNet-32 on enlarged handwritten digits.

The network is the CIFAR shape of He et al., "Deep Residual Learning" (2016): a stem, three stages of five blocks of two
3x3 convolutions with 16, 32 and 64 filters, and one dense layer. `examples/digits_resnet.py` trains the same graph and
measures its accuracy.
"""

import digits
import numpy as np
import tensorflow as tf
import training

IMAGE_SIDE = 32
STAGE_FILTERS = (16, 32, 64)
BLOCKS_PER_STAGE = 5
# The published 0.99 or more would still remember the initial statistics after the few steps that this task needs.
BATCH_NORM_DECAY = 0.8
BATCH_NORM_EPSILON = 1e-5


def parser(description):
    """The command line's options, to which a caller may add its own."""
    result = training.parser(description, batch=128)
    rate = "Adam's step size at its highest"
    result.add_argument("--learning-rate", type=float, default=0.005, help=rate)
    return result


class ResNet:
    """Builds the forward graph. Training and evaluation share variables by calling it twice on one instance."""

    def __init__(self, mark):
        self._mark = mark
        self._statistics_updates = []

    @property
    def statistics_updates(self):
        """The operations that bring batch norm's running statistics up to date."""
        return self._statistics_updates

    def __call__(self, images, training):
        """Returns the logits of images (N, 32, 32, 1), shape (N, 10). The first call must be the training one."""
        with tf.variable_scope("resnet32", reuse=not training):
            x = self._convolution("stem", images, STAGE_FILTERS[0], 1, training)
            x = self._mark(tf.nn.relu(x))
            for stage, filters in enumerate(STAGE_FILTERS):
                for block in range(BLOCKS_PER_STAGE):
                    stride = 2 if stage > 0 and block == 0 else 1
                    with tf.variable_scope(f"stage{stage}_block{block}"):
                        x = self._block(x, filters, stride, training)
            x = tf.reduce_mean(x, axis=[1, 2])
            weights = tf.get_variable(
                "head/weights",
                [STAGE_FILTERS[-1], digits.CLASSES],
                initializer=tf.variance_scaling_initializer(),
            )
            bias = tf.get_variable(
                "head/bias", [digits.CLASSES], initializer=tf.zeros_initializer()
            )
            return tf.matmul(x, weights) + bias

    def _block(self, x, filters, stride, training):
        shortcut = x
        if stride != 1:
            # He et al.'s option A: subsample, and fill the new channels with zeros; no weights.
            shortcut = shortcut[:, ::stride, ::stride, :]
            missing = filters - shortcut.shape[-1].value
            shortcut = tf.pad(
                shortcut, [[0, 0], [0, 0], [0, 0], [missing // 2, missing - missing // 2]]
            )
        x = self._convolution("first", x, filters, stride, training)
        x = self._mark(tf.nn.relu(x))
        x = self._convolution("second", x, filters, 1, training)
        return self._mark(tf.nn.relu(x + shortcut))

    def _convolution(self, name, x, filters, stride, training):
        with tf.variable_scope(name):
            weights = tf.get_variable(
                "weights",
                [3, 3, x.shape[-1].value, filters],
                initializer=tf.variance_scaling_initializer(2.0),
            )
            x = tf.nn.conv2d(x, weights, [1, stride, stride, 1], "SAME")
            return self._batch_norm(x, filters, training)

    def _batch_norm(self, x, filters, training):
        scale = tf.get_variable("scale", [filters], initializer=tf.ones_initializer())
        offset = tf.get_variable("offset", [filters], initializer=tf.zeros_initializer())
        mean = tf.get_variable(
            "mean", [filters], initializer=tf.zeros_initializer(), trainable=False
        )
        variance = tf.get_variable(
            "variance", [filters], initializer=tf.ones_initializer(), trainable=False
        )
        if not training:
            y, _, _ = tf.nn.fused_batch_norm(
                x, scale, offset, mean, variance, BATCH_NORM_EPSILON, is_training=False
            )
            return y
        y, batch_mean, batch_variance = tf.nn.fused_batch_norm(
            x, scale, offset, epsilon=BATCH_NORM_EPSILON
        )
        for average, value in ((mean, batch_mean), (variance, batch_variance)):
            self._statistics_updates.append(
                tf.assign_sub(average, (average - value) * (1 - BATCH_NORM_DECAY))
            )
        return y


def learning_rate(step, steps, highest):
    """A linear rise over the first tenth of the run, then half a cosine down: few steps reach a settled network."""
    rise = max(steps // 10, 1)
    if step < rise:
        return highest * (step + 1) / rise
    return highest * 0.5 * (1 + np.cos(np.pi * (step - rise) / max(steps - rise, 1)))


def build(arguments):
    """Returns the network and the nodes of the training graph by name."""
    tf.set_random_seed(arguments.seed)
    network = ResNet(training.marker(arguments))
    shape = [arguments.batch, IMAGE_SIDE, IMAGE_SIDE, 1]
    nodes = {
        "images": tf.placeholder(tf.float32, shape, "images"),
        "labels": tf.placeholder(tf.int32, [arguments.batch], "labels"),
        "rate": tf.placeholder(tf.float32, [], "rate"),
    }
    logits = network(nodes["images"], training=True)
    nodes["loss"] = tf.reduce_mean(
        tf.nn.sparse_softmax_cross_entropy_with_logits(labels=nodes["labels"], logits=logits)
    )
    minimize = tf.train.AdamOptimizer(nodes["rate"]).minimize(nodes["loss"])
    nodes["train"] = tf.group(minimize, *network.statistics_updates)
    return network, nodes


def feeds(nodes, images, labels, arguments):
    """Yields what each step is fed: a batch and the learning rate."""
    source = digits.batches(images, labels, arguments.batch, arguments.seed)
    for step, (batch_images, batch_labels) in enumerate(source):
        yield {
            nodes["images"]: batch_images,
            nodes["labels"]: batch_labels,
            nodes["rate"]: learning_rate(step, arguments.steps, arguments.learning_rate),
        }


def main():
    """Trains and writes the results."""
    arguments = parser(__doc__).parse_args()
    tf.logging.set_verbosity(tf.logging.ERROR)
    images, labels, _, _ = digits.load(IMAGE_SIDE, arguments.seed)
    _, nodes = build(arguments)
    source = feeds(nodes, images, labels, arguments)
    training.run(arguments, nodes["train"], nodes["loss"], source)


if __name__ == "__main__":
    main()
