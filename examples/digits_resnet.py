"""ResNet-32 on scikit-learn's handwritten digits: one training script for stock TensorFlow and for Sentinel.

The network and its training are those of models/resnet32.py; this script can also measure the accuracy on images that
were not trained on. Seeds, the split and the order of the batches are fixed, so that two single-threaded runs give the
same bits, whichever TensorFlow runs them. The options of Sentinel do nothing under stock TensorFlow.
"""

import sys
from pathlib import Path

import tensorflow as tf

# The scripts in models/ stand side by side and are no package: each is run as it is.
sys.path.insert(0, str(Path(__file__).resolve().parent / "models"))

import digits  # noqa: E402
import resnet32  # noqa: E402
import training  # noqa: E402

EVAL_BATCH = 120


def parse_arguments():
    """Reads the command line."""
    parser = resnet32.parser(__doc__)
    evaluate = "measure accuracy on the test images at the end"
    parser.add_argument("--eval", action="store_true", help=evaluate)
    return parser.parse_args()


def prediction(network):
    """Returns a placeholder of images and the digits that the network sees on them; shares the trained weights."""
    with tf.name_scope("eval"):
        shape = [None, resnet32.IMAGE_SIDE, resnet32.IMAGE_SIDE, 1]
        images = tf.placeholder(tf.float32, shape, "images")
        return images, tf.argmax(network(images, training=False), axis=1)


def accuracy(session, nodes, images, labels):
    """The share of images that are classified right; `nodes` are those of `prediction`."""
    placeholder, predicted = nodes
    right = 0
    for start in range(0, len(labels), EVAL_BATCH):
        end = start + EVAL_BATCH
        seen = session.run(predicted, {placeholder: images[start:end]})
        right += int((seen == labels[start:end]).sum())
    return right / len(labels)


def main():
    """Trains, measures accuracy if asked for, and writes the results."""
    arguments = parse_arguments()
    tf.logging.set_verbosity(tf.logging.ERROR)
    images, labels, test_images, test_labels = digits.load(resnet32.IMAGE_SIDE, arguments.seed)
    network, nodes = resnet32.build(arguments)
    judged = prediction(network) if arguments.eval else None
    source = resnet32.feeds(nodes, images, labels, arguments)
    with tf.Session(config=training.session_config(arguments)) as session:
        session.run(tf.global_variables_initializer())
        records = training.train(session, nodes["train"], nodes["loss"], source, arguments)
        test_accuracy = None
        if judged:
            test_accuracy = accuracy(session, judged, test_images, test_labels)
            print(f"test accuracy {test_accuracy:.4f} on {len(test_labels)} images")
        training.write_results(arguments, records, accuracy=test_accuracy)


if __name__ == "__main__":
    main()
