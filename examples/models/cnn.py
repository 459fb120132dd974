"""A medium convolutional network on enlarged handwritten digits: six convolutions with batch norm, two dense layers.

No published network: three pairs of 3x3 convolutions with 2x2 pooling between, the shape of many tutorials, trained
with Adam. Its step is the one on which memory allocators for TensorFlow are compared here.
"""

import digits
import tensorflow as tf
import training

SIDE = 32
# Filters of each pair of convolutions; their resolution halves from pair to pair.
PAIRS = (64, 128, 256)
DENSE = 256
BATCH_NORM_EPSILON = 1e-3


def parse_arguments():
    """Reads the command line."""
    parser = training.parser(__doc__, batch=64)
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="of Adam")
    return parser.parse_args()


def convolution(x, filters):
    """A 3x3 convolution, batch norm by the statistics of the batch, then ReLU."""
    initializer = tf.variance_scaling_initializer(2.0)
    kernel = tf.get_variable("weights", [3, 3, x.shape[-1].value, filters], initializer=initializer)
    scale = tf.get_variable("scale", [filters], initializer=tf.ones_initializer())
    offset = tf.get_variable("offset", [filters], initializer=tf.zeros_initializer())
    x = tf.nn.conv2d(x, kernel, [1, 1, 1, 1], "SAME")
    x, _, _ = tf.nn.fused_batch_norm(x, scale, offset, epsilon=BATCH_NORM_EPSILON)
    return tf.nn.relu(x)


def dense(x, units):
    """A matrix product and a bias."""
    initializer = tf.variance_scaling_initializer()
    weights = tf.get_variable("weights", [x.shape[-1].value, units], initializer=initializer)
    return tf.matmul(x, weights) + tf.get_variable(
        "bias", [units], initializer=tf.zeros_initializer()
    )


def network(images, mark):
    """Returns the logits (N, 10) of images (N, 32, 32, 1)."""
    x = images
    for level, filters in enumerate(PAIRS):
        for part in range(2):
            with tf.variable_scope(f"convolution{level}{part}"):
                x = mark(convolution(x, filters))
        x = tf.nn.max_pool(x, [1, 2, 2, 1], [1, 2, 2, 1], "SAME")
    x = tf.reshape(x, [-1, x.shape[1].value * x.shape[2].value * x.shape[3].value])
    with tf.variable_scope("dense"):
        x = mark(tf.nn.relu(dense(x, DENSE)))
    with tf.variable_scope("head"):
        return dense(x, digits.CLASSES)


def build(arguments):
    """Returns the placeholders of images and labels, the training operation and the loss."""
    tf.set_random_seed(arguments.seed)
    images = tf.placeholder(tf.float32, [arguments.batch, SIDE, SIDE, 1], "images")
    labels = tf.placeholder(tf.int32, [arguments.batch], "labels")
    logits = network(images, training.marker(arguments))
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
    loss = tf.reduce_mean(losses)
    return images, labels, tf.train.AdamOptimizer(arguments.learning_rate).minimize(loss), loss


def main():
    """Trains and writes the results."""
    arguments = parse_arguments()
    tf.logging.set_verbosity(tf.logging.ERROR)
    train_images, train_labels, _, _ = digits.load(SIDE, arguments.seed)
    images, labels, operation, loss = build(arguments)
    source = digits.batches(train_images, train_labels, arguments.batch, arguments.seed)
    training.run(arguments, operation, loss, ({images: i, labels: n} for i, n in source))


if __name__ == "__main__":
    main()
