"""MobileNet v1 on enlarged handwritten digits, in the CIFAR shape.

Howard et al., "MobileNets" (2017), width 1.0: a 3x3 convolution and thirteen pairs of a depthwise 3x3 and a pointwise
1x1 convolution, each with batch norm and ReLU6. The stem keeps the resolution, as is usual for small images; the rest
is as published.
"""

import digits
import tensorflow as tf
import training

STEM_FILTERS = 32
# Filters and stride of each pair.
PAIRS = (
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    (512, 1),
    (512, 1),
    (512, 1),
    (512, 1),
    (512, 1),
    (1024, 2),
    (1024, 1),
)
BATCH_NORM_EPSILON = 1e-3
MOMENTUM = 0.9


def parse_arguments():
    """Reads the command line."""
    parser = training.parser(__doc__, batch=128)
    side = "pixels of an image's side, 32 or 64 (default 32)"
    parser.add_argument("--side", type=int, choices=(32, 64), default=32, help=side)
    parser.add_argument("--learning-rate", type=float, default=0.05, help="of momentum 0.9")
    return parser.parse_args()


def batch_norm_relu(x):
    """Batch norm by the statistics of the batch, then ReLU6."""
    filters = x.shape[-1].value
    scale = tf.get_variable("scale", [filters], initializer=tf.ones_initializer())
    offset = tf.get_variable("offset", [filters], initializer=tf.zeros_initializer())
    y, _, _ = tf.nn.fused_batch_norm(x, scale, offset, epsilon=BATCH_NORM_EPSILON)
    return tf.nn.relu6(y)


def weights(shape):
    """Convolution weights; He et al.'s variance over the inputs of one output."""
    initializer = tf.variance_scaling_initializer(2.0)
    return tf.get_variable("weights", shape, initializer=initializer)


def network(images, mark):
    """Returns the logits (N, 10) of images (N, side, side, 1); a layer is one convolution with its norm."""
    with tf.variable_scope("stem"):
        x = tf.nn.conv2d(images, weights([3, 3, 1, STEM_FILTERS]), [1, 1, 1, 1], "SAME")
        x = mark(batch_norm_relu(x))
    for number, (filters, stride) in enumerate(PAIRS):
        channels = x.shape[-1].value
        with tf.variable_scope(f"depthwise{number}"):
            kernel = weights([3, 3, channels, 1])
            x = tf.nn.depthwise_conv2d_native(x, kernel, [1, stride, stride, 1], "SAME")
            x = mark(batch_norm_relu(x))
        with tf.variable_scope(f"pointwise{number}"):
            x = tf.nn.conv2d(x, weights([1, 1, channels, filters]), [1, 1, 1, 1], "SAME")
            x = mark(batch_norm_relu(x))
    x = tf.reduce_mean(x, axis=[1, 2])
    with tf.variable_scope("head"):
        initializer = tf.variance_scaling_initializer()
        shape = [x.shape[-1].value, digits.CLASSES]
        head = tf.get_variable("weights", shape, initializer=initializer)
        bias = tf.get_variable("bias", [digits.CLASSES], initializer=tf.zeros_initializer())
        return tf.matmul(x, head) + bias


def build(arguments):
    """Returns the placeholders of images and labels, the training operation and the loss."""
    tf.set_random_seed(arguments.seed)
    shape = [arguments.batch, arguments.side, arguments.side, 1]
    images = tf.placeholder(tf.float32, shape, "images")
    labels = tf.placeholder(tf.int32, [arguments.batch], "labels")
    logits = network(images, training.marker(arguments))
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
    loss = tf.reduce_mean(losses)
    optimizer = tf.train.MomentumOptimizer(arguments.learning_rate, MOMENTUM)
    return images, labels, optimizer.minimize(loss), loss


def main():
    """Trains and writes the results."""
    arguments = parse_arguments()
    tf.logging.set_verbosity(tf.logging.ERROR)
    train_images, train_labels, _, _ = digits.load(arguments.side, arguments.seed)
    images, labels, operation, loss = build(arguments)
    source = digits.batches(train_images, train_labels, arguments.batch, arguments.seed)
    training.run(arguments, operation, loss, ({images: i, labels: n} for i, n in source))


if __name__ == "__main__":
    main()
