# Added by Sentinel: the lines from here to the end are not in the official TensorFlow.
from tensorflow.python import sentinel  # pylint: disable=g-import-not-at-top

__all__.append("sentinel")
