"""DCGAN on enlarged handwritten digits, 64 by 64 pixels or 32 by 32.

Radford, Metz and Chintala, "Unsupervised Representation Learning with Deep Convolutional Generative Adversarial
Networks" (2016), with 5x5 kernels and 64 filters at the widest resolution, batch norm, and Adam with a rate of 2e-4 and
beta1 of 0.5. Both networks learn in one Session.run: the gradients of both come from one forward pass, and no weight
changes before all of them are there.
"""

import digits
import numpy as np
import tensorflow as tf
import training

NOISE = 100
KERNEL = 5
SMALLEST_SIDE = 4
LEAK = 0.2
BATCH_NORM_EPSILON = 1e-5
BETA1 = 0.5


def parse_arguments():
    """Reads the command line."""
    parser = training.parser(__doc__, batch=64)
    side = "pixels of an image's side, 32 or 64 (default 64)"
    parser.add_argument("--side", type=int, choices=(32, 64), default=64, help=side)
    filters = "filters at the highest resolution (default 64)"
    parser.add_argument("--filters", type=training.positive, default=64, help=filters)
    parser.add_argument("--learning-rate", type=float, default=2e-4, help="Adam's step size")
    return parser.parse_args()


def weights(shape):
    """Weights from a normal distribution of the published width."""
    return tf.get_variable("weights", shape, initializer=tf.random_normal_initializer(0, 0.02))


def bias(size):
    """A bias that begins at zero."""
    return tf.get_variable("bias", [size], initializer=tf.zeros_initializer())


def batch_norm(x):
    """Batch norm by the statistics of the batch."""
    filters = x.shape[-1].value
    scale = tf.get_variable("scale", [filters], initializer=tf.ones_initializer())
    offset = tf.get_variable("offset", [filters], initializer=tf.zeros_initializer())
    y, _, _ = tf.nn.fused_batch_norm(x, scale, offset, epsilon=BATCH_NORM_EPSILON)
    return y


def widths(arguments):
    """Filters of each resolution, from the highest to the one above the smallest."""
    count = (arguments.side // SMALLEST_SIDE).bit_length() - 1
    return [arguments.filters << level for level in range(count)]


def generator(noise, arguments, mark):
    """Returns images (N, side, side, 1) in [-1, 1] made of noise (N, 100)."""
    filters = widths(arguments)
    with tf.variable_scope("generator"):
        with tf.variable_scope("project"):
            size = SMALLEST_SIDE * SMALLEST_SIDE * filters[-1]
            x = tf.matmul(noise, weights([NOISE, size])) + bias(size)
            x = tf.reshape(x, [-1, SMALLEST_SIDE, SMALLEST_SIDE, filters[-1]])
            x = mark(tf.nn.relu(batch_norm(x)))
        for level in reversed(range(len(filters))):
            with tf.variable_scope(f"up{level}"):
                wanted = filters[level - 1] if level else 1
                kernel = weights([KERNEL, KERNEL, wanted, x.shape[-1].value])
                side = x.shape[1].value * 2
                shape = [arguments.batch, side, side, wanted]
                x = tf.nn.conv2d_transpose(x, kernel, shape, [1, 2, 2, 1], "SAME")
                x = mark(tf.nn.relu(batch_norm(x)) if level else tf.tanh(x + bias(1)))
        return x


def discriminator(x, arguments, mark, reuse):
    """Returns logits (N, 1): how real the images x look."""
    with tf.variable_scope("discriminator", reuse=reuse):
        for level, filters in enumerate(widths(arguments)):
            with tf.variable_scope(f"down{level}"):
                kernel = weights([KERNEL, KERNEL, x.shape[-1].value, filters])
                x = tf.nn.conv2d(x, kernel, [1, 2, 2, 1], "SAME")
                x = batch_norm(x) if level else x + bias(filters)
                x = mark(tf.nn.leaky_relu(x, LEAK))
        with tf.variable_scope("judge"):
            size = int(np.prod(x.shape.as_list()[1:]))
            return tf.matmul(tf.reshape(x, [-1, size]), weights([size, 1])) + bias(1)


def cross_entropy(logits, real):
    """How far the logits are from saying that all images are real, or that none is."""
    labels = tf.fill(tf.shape(logits), float(real))
    losses = tf.nn.sigmoid_cross_entropy_with_logits(labels=labels, logits=logits)
    return tf.reduce_mean(losses)


def build(arguments):
    """Returns the placeholders of images and noise, the training operation and the sum of both losses."""
    tf.set_random_seed(arguments.seed)
    mark = training.marker(arguments)
    shape = [arguments.batch, arguments.side, arguments.side, 1]
    images = tf.placeholder(tf.float32, shape, "images")
    noise = tf.placeholder(tf.float32, [arguments.batch, NOISE], "noise")
    made = generator(noise, arguments, mark)
    real_logits = discriminator(images, arguments, mark, reuse=False)
    made_logits = discriminator(made, arguments, mark, reuse=True)
    judge_loss = cross_entropy(real_logits, True) + cross_entropy(made_logits, False)
    made_loss = cross_entropy(made_logits, True)
    pairs = []
    for scope, loss in (("discriminator", judge_loss), ("generator", made_loss)):
        optimizer = tf.train.AdamOptimizer(
            arguments.learning_rate, beta1=BETA1, name=f"{scope}_adam"
        )
        pairs.append((optimizer, optimizer.compute_gradients(loss, tf.trainable_variables(scope))))
    with tf.control_dependencies([gradient for _, found in pairs for gradient, _ in found]):
        updates = [optimizer.apply_gradients(found) for optimizer, found in pairs]
    return images, noise, tf.group(*updates), judge_loss + made_loss


def main():
    """Trains and writes the results."""
    arguments = parse_arguments()
    tf.logging.set_verbosity(tf.logging.ERROR)
    real, labels, _, _ = digits.load(arguments.side, arguments.seed)
    images, noise, operation, loss = build(arguments)
    source = digits.batches(real, labels, arguments.batch, arguments.seed)
    random = np.random.RandomState(arguments.seed + 2)
    shape = arguments.batch, NOISE
    feeds = ({images: batch, noise: random.uniform(-1, 1, shape)} for batch, _ in source)
    training.run(arguments, operation, loss, feeds)


if __name__ == "__main__":
    main()
