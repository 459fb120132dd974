"""`tf.sentinel`: marks for training scripts, and what Sentinel did.

A script needs none of this. Without marks, Sentinel infers layers from the graph and chooses the step to profile
itself. Options are set in `tf.ConfigProto().experimental.sentinel` (a `tf.sentinel.Options`) or by `SENTINEL_*`
environment variables.

With `SENTINEL=0` the native library is not loaded; the marks then do nothing, so that the same script still runs.
"""

from tensorflow.core.protobuf.sentinel_pb2 import SentinelOptions as Options
from tensorflow.python.sentinel.marks import add_layer, end_profile, start_profile
from tensorflow.python.sentinel.native import is_active, stats, version

Options.__doc__ = """What a user may choose for one process; a field that is not set is not chosen.

`sentinel.proto` says it for programs, the README's table of options also names the environment variables.

Fields:
  fast_bytes: int, fast memory that tensors may occupy at any moment, in bytes. Excludes `fast_fraction`.
  fast_fraction: float, the same as a share of the profiled step's peak, 0 < fast_fraction <= 1.
  policy: "gap" (default), "hpca21", "first_touch", "fast_only" or "slow_only".
  slow: the slow tier: "numa" (default), "node:LIST" as numactl writes it, "swap", "swap:MACHINE", "emulated:MACHINE".
  fast_nodes: nodes of the fast tier with real nodes, "node:LIST"; default "node:0".
  migration_gbps: float, migration speed of the emulated tier per direction, in 10^9 bytes per second.
  warmup_steps: int, which step of a graph is profiled, 1 being the first; default 10, negative for the first.
  failure: ADVISORY (default: train on without Sentinel when something is missing), STRICT (stop) or OFF.
  trace_path: file for the trace of the profiled step.
  mover_threads: int, threads that move pages, per direction, 1 to 16; default by the machine.
  profiler: "auto" (default), "op", "kernel", "kernel:tlb_miss" or "kernel:exact".

A value that is not accepted fails the session with INVALID_ARGUMENT, which names field, value and what is accepted.
"""

__version__ = version()
__all__ = ["Options", "add_layer", "end_profile", "is_active", "start_profile", "stats"]
