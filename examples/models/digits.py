"""Scikit-learn's handwritten digits, enlarged, as images for networks that want more pixels than 8 by 8."""

import numpy as np
from sklearn.datasets import load_digits

CLASSES = 10
TEST_IMAGES = 360


def load(side, seed):
    """Loads the digits, each pixel repeated to fill a square.

    Args:
      side: Pixels of an image's side, a multiple of 8.
      seed: Of the split into training and test images.

    Returns:
      Training images, their labels, test images, their labels. Images are float32 (N, side, side, 1) in [-1, 1], labels
      int32 (N,).
    """
    digits = load_digits()
    scale = side // digits.images.shape[1]
    images = digits.images.astype(np.float32) / 8.0 - 1.0
    images = images.repeat(scale, axis=1).repeat(scale, axis=2)[..., np.newaxis]
    labels = digits.target.astype(np.int32)
    order = np.random.RandomState(seed).permutation(len(labels))
    test, train = order[:TEST_IMAGES], order[TEST_IMAGES:]
    return images[train], labels[train], images[test], labels[test]


def batches(images, labels, batch, seed):
    """Yields (images, labels) without end; every image comes once per epoch except the last, partial batch's."""
    if batch > len(labels):
        raise SystemExit(f"--batch: {batch} is more than the {len(labels)} training images")
    random = np.random.RandomState(seed + 1)
    while True:
        order = random.permutation(len(labels))
        for start in range(0, len(order) - batch + 1, batch):
            chosen = order[start : start + batch]
            yield images[chosen], labels[chosen]
