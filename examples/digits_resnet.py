"""ResNet-32 on scikit-learn's handwritten digits: one training script for stock TensorFlow and for Sentinel.

The network is the CIFAR shape of He et al. (2016): a stem, three stages of five blocks of two 3x3 convolutions with
16, 32 and 64 filters, and one dense layer. The 8x8 digits are repeated to 32x32 pixels once, in NumPy. Seeds, the
split and the order of the batches are fixed, so that two single-threaded runs give the same bits, whichever
TensorFlow runs them. The options of Sentinel do nothing under stock TensorFlow.
"""

import argparse
import json
import struct
import time

import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits

IMAGE_SIDE = 32
CLASSES = 10
TEST_IMAGES = 360
STAGE_FILTERS = (16, 32, 64)
BLOCKS_PER_STAGE = 5
# The published 0.99 or more would still remember the initial statistics after the few steps that this task needs.
BATCH_NORM_DECAY = 0.8
BATCH_NORM_EPSILON = 1e-5
EVAL_BATCH = 120

HAS_SENTINEL = hasattr(tf, "sentinel")


def parse_arguments(argv=None):
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=128, help="images per step")
    parser.add_argument("--steps", type=int, default=40, help="training steps, at most")
    parser.add_argument(
        "--managed-steps",
        type=int,
        help="stop after this many steps that Sentinel ran under a plan",
    )
    parser.add_argument(
        "--seed", type=int, default=1, help="seed of the weights and of the order of images"
    )
    parser.add_argument(
        "--learning-rate", type=float, default=0.005, help="Adam's step size at its highest"
    )
    parser.add_argument(
        "--inter-op", type=int, default=0, help="threads between operations, 0 = one per core"
    )
    parser.add_argument(
        "--intra-op", type=int, default=0, help="threads within an operation, 0 = one per core"
    )
    parser.add_argument(
        "--marks",
        dest="marks",
        action="store_true",
        default=True,
        help="mark layers with tf.sentinel.add_layer where it exists (default)",
    )
    parser.add_argument(
        "--no-marks", dest="marks", action="store_false", help="leave finding layers to Sentinel"
    )
    parser.add_argument(
        "--fast", help="fast memory: bytes, 512M, 2G or a share of the peak such as 20%%"
    )
    parser.add_argument("--policy", help="hpca21, first_touch, fast_only or slow_only")
    parser.add_argument("--slow", help="slow tier: emulated:MACHINE, numa or node:N")
    parser.add_argument(
        "--migration-gbps",
        type=float,
        help="migration bandwidth of the emulated tier, 10^9 bytes/s",
    )
    parser.add_argument("--warmup-steps", type=int, help="steps before the profiled one")
    parser.add_argument(
        "--eval", action="store_true", help="measure accuracy on the test images at the end"
    )
    parser.add_argument(
        "--losses-out", metavar="FILE", help="write each step's loss as the hex bits of its float32"
    )
    parser.add_argument(
        "--json-out", metavar="FILE", help="write step times, losses, accuracy and statistics"
    )
    parser.add_argument(
        "--trace", metavar="FILE", help="where Sentinel writes the trace of the profiled step"
    )
    parser.add_argument("--quiet", action="store_true", help="print no line per step")
    return parser.parse_args(argv)


def load_images(seed):
    """Returns train images, train labels, test images, test labels; images are float32 (N, 32, 32, 1) in [-1, 1]."""
    digits = load_digits()
    scale = IMAGE_SIDE // digits.images.shape[1]
    images = digits.images.astype(np.float32) / 8.0 - 1.0
    images = images.repeat(scale, axis=1).repeat(scale, axis=2)[..., np.newaxis]
    labels = digits.target.astype(np.int32)
    order = np.random.RandomState(seed).permutation(len(labels))
    test, train = order[:TEST_IMAGES], order[TEST_IMAGES:]
    return images[train], labels[train], images[test], labels[test]


def batches(images, labels, batch, seed):
    """Yields (images, labels) without end; every image comes once per epoch except the last, partial batch's."""
    random = np.random.RandomState(seed + 1)
    while True:
        order = random.permutation(len(labels))
        for start in range(0, len(order) - batch + 1, batch):
            chosen = order[start : start + batch]
            yield images[chosen], labels[chosen]


class ResNet:
    """Builds the forward graph. Training and evaluation share variables by calling it twice on one instance."""

    def __init__(self, mark_layers):
        self._mark = tf.sentinel.add_layer if mark_layers and HAS_SENTINEL else tf.identity
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
                [STAGE_FILTERS[-1], CLASSES],
                initializer=tf.variance_scaling_initializer(),
            )
            bias = tf.get_variable("head/bias", [CLASSES], initializer=tf.zeros_initializer())
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
    """Returns the placeholders and fetches of the training graph, and of the evaluation graph if wanted, by name."""
    tf.set_random_seed(arguments.seed)
    network = ResNet(arguments.marks)
    nodes = {
        "images": tf.placeholder(
            tf.float32, [arguments.batch, IMAGE_SIDE, IMAGE_SIDE, 1], "images"
        ),
        "labels": tf.placeholder(tf.int32, [arguments.batch], "labels"),
        "rate": tf.placeholder(tf.float32, [], "rate"),
    }
    logits = network(nodes["images"], training=True)
    loss = tf.reduce_mean(
        tf.nn.sparse_softmax_cross_entropy_with_logits(labels=nodes["labels"], logits=logits)
    )
    minimize = tf.train.AdamOptimizer(nodes["rate"]).minimize(loss)
    nodes["loss"] = loss
    nodes["train"] = tf.group(minimize, *network.statistics_updates)
    if arguments.eval:
        with tf.name_scope("eval"):
            images = tf.placeholder(tf.float32, [None, IMAGE_SIDE, IMAGE_SIDE, 1], "images")
            nodes["eval_images"] = images
            nodes["prediction"] = tf.argmax(network(images, training=False), axis=1)
    return nodes


def session_config(arguments):
    """Thread counts for any TensorFlow; Sentinel's typed options where this TensorFlow has them."""
    config = tf.ConfigProto(
        inter_op_parallelism_threads=arguments.inter_op,
        intra_op_parallelism_threads=arguments.intra_op,
    )
    if not HAS_SENTINEL:
        return config
    # Option by option: a field that is not touched keeps meaning "not chosen".
    options = config.experimental.sentinel
    if arguments.fast is not None:
        set_fast(options, arguments.fast)
    if arguments.policy is not None:
        options.policy = arguments.policy
    if arguments.slow is not None:
        options.slow = arguments.slow
    if arguments.migration_gbps is not None:
        options.migration_gbps = arguments.migration_gbps
    if arguments.warmup_steps is not None:
        options.warmup_steps = arguments.warmup_steps
    if arguments.trace is not None:
        options.trace_path = arguments.trace
    return config


def set_fast(options, text):
    """Stores "20%" as a share of the peak and "2G", "512M", "64K" or plain digits as bytes."""
    units = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    try:
        if text.endswith("%"):
            options.fast_fraction = float(text[:-1]) / 100
        else:
            digits, unit = (text[:-1], units[text[-1]]) if text[-1:] in units else (text, 1)
            options.fast_bytes = int(digits) * unit
    except ValueError:
        raise SystemExit(
            f"--fast: '{text}' is not a size; accepted: bytes, 64K, 512M, 2G or 20%"
        ) from None


def sentinel_stats():
    """What Sentinel has done so far, or None under stock TensorFlow."""
    return tf.sentinel.stats() if HAS_SENTINEL else None


def train(session, nodes, arguments, images, labels):
    """Runs the steps; returns one record per step with its time, its loss and Sentinel's counters after it."""
    records = []
    source = batches(images, labels, arguments.batch, arguments.seed)
    for step in range(arguments.steps):
        batch_images, batch_labels = next(source)
        feed = {
            nodes["images"]: batch_images,
            nodes["labels"]: batch_labels,
            nodes["rate"]: learning_rate(step, arguments.steps, arguments.learning_rate),
        }
        begin = time.perf_counter()
        _, loss = session.run([nodes["train"], nodes["loss"]], feed)
        seconds = time.perf_counter() - begin
        records.append({"seconds": seconds, "loss": loss, "stats": sentinel_stats()})
        if not arguments.quiet:
            state = records[-1]["stats"]["state"] if HAS_SENTINEL else "stock"
            print(f"step {step:4d}  {seconds:.3f} s  loss {loss:.4f}  {state}", flush=True)
        if enough_managed_steps(records, arguments.managed_steps):
            break
    return records


def enough_managed_steps(records, wanted):
    """Whether Sentinel has run the wanted number of steps under a plan since the first record."""
    if wanted is None or not HAS_SENTINEL:
        return False
    return records[-1]["stats"]["steps_managed"] - records[0]["stats"]["steps_managed"] >= wanted


def accuracy(session, nodes, images, labels):
    """The share of images that are classified right."""
    right = 0
    for start in range(0, len(labels), EVAL_BATCH):
        end = start + EVAL_BATCH
        predicted = session.run(nodes["prediction"], {nodes["eval_images"]: images[start:end]})
        right += int((predicted == labels[start:end]).sum())
    return right / len(labels)


def loss_bits(loss):
    """The eight hexadecimal digits of a loss's float32 bits."""
    return struct.pack(">f", loss).hex()


def write_results(arguments, records, test_accuracy):
    """Writes the files that the command line asked for."""
    if arguments.losses_out:
        with open(arguments.losses_out, "w") as out:
            out.writelines(loss_bits(record["loss"]) + "\n" for record in records)
    if arguments.json_out:
        result = {
            "sentinel": HAS_SENTINEL,
            "tensorflow": tf.__version__,
            "batch": arguments.batch,
            "step_seconds": [record["seconds"] for record in records],
            "losses": [float(record["loss"]) for record in records],
            "step_stats": [record["stats"] for record in records],
            "accuracy": test_accuracy,
            "stats": sentinel_stats(),
        }
        with open(arguments.json_out, "w") as out:
            json.dump(result, out)


def main():
    """Trains, measures accuracy if asked for, and writes the results."""
    arguments = parse_arguments()
    tf.logging.set_verbosity(tf.logging.ERROR)
    train_images, train_labels, test_images, test_labels = load_images(arguments.seed)
    nodes = build(arguments)
    with tf.Session(config=session_config(arguments)) as session:
        session.run(tf.global_variables_initializer())
        records = train(session, nodes, arguments, train_images, train_labels)
        test_accuracy = None
        if arguments.eval:
            test_accuracy = accuracy(session, nodes, test_images, test_labels)
            print(f"test accuracy {test_accuracy:.4f} on {len(test_labels)} images")
        write_results(arguments, records, test_accuracy)


if __name__ == "__main__":
    main()
