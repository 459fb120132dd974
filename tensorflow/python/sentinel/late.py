"""Loads Sentinel into an official TensorFlow 1.13.1 that was imported without it.

The repacked wheel needs none of this. The file stands alone, so that it can be copied beside a script. What is loaded
late serves only sessions made afterwards, and options come from `SENTINEL_*` environment variables.
"""

import os

import tensorflow as tf
from tensorflow.python import pywrap_tensorflow


def load(path):
    """Loads libsentinel.so.

    Args:
      path: Where the library is.

    Returns:
      A module with Sentinel's operations, such as `sentinel_add_layer`. They have no gradients.

    Raises:
      RuntimeError: this TensorFlow is not the one that Sentinel is made for, Sentinel is loaded already, or `path` is
        not a library that can be loaded.
    """
    fault = _fault()
    if fault:
        raise RuntimeError("Sentinel cannot be loaded: " + fault)
    try:
        module = tf.load_op_library(os.path.abspath(path))
    except (tf.errors.OpError, RuntimeError) as error:
        raise RuntimeError("Sentinel cannot be loaded from %s: %s" % (path, error)) from error
    if not hasattr(module, "sentinel_add_layer"):
        raise RuntimeError("Sentinel cannot be loaded from %s: see the error that it logged" % path)
    return module


def _fault():
    """Says why this process cannot take the library, or returns None."""
    if tf.__version__ != "1.13.1":
        return "it needs TensorFlow 1.13.1, and this is %s" % tf.__version__
    if tf.test.is_built_with_cuda():
        return "it needs the CPU build of TensorFlow 1.13.1, and this one is built with CUDA"
    if pywrap_tensorflow.IsMklEnabled():
        return "it needs the official build of TensorFlow 1.13.1, and this one is built with MKL"
    with open("/proc/self/maps") as maps:
        loaded = sorted(
            {line.split()[-1] for line in maps if line.rstrip().endswith("/libsentinel.so")}
        )
    if loaded:
        return "this process has loaded it already, from %s" % ", ".join(loaded)
    return None
