"""`tf.sentinel`: marks for training scripts, and what Sentinel did.

A script needs none of this. Without marks, Sentinel infers layers from the graph and chooses the step to profile
itself. Options are set in `tf.ConfigProto().experimental.sentinel` (a `tf.sentinel.Options`) or by `SENTINEL_*`
environment variables.

With `SENTINEL=0` the native library is not loaded; the marks then do nothing, so that the same script still runs.
"""

from tensorflow.core.protobuf.sentinel_pb2 import SentinelOptions as Options
from tensorflow.python.sentinel.marks import add_layer, end_profile, start_profile
from tensorflow.python.sentinel.native import is_active, stats, version

__version__ = version()
__all__ = ["Options", "add_layer", "end_profile", "is_active", "start_profile", "stats"]
