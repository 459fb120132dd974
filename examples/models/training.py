"""What the training scripts share: their options, the session, the loop over steps and the files they write.

A script says how to build its graph and what to feed; `run` does the rest. The options of Sentinel do nothing under
stock TensorFlow, so that one command line serves both.
"""

import argparse
import json
import struct
import time

import tensorflow as tf

HAS_SENTINEL = hasattr(tf, "sentinel")


def parser(description, batch, steps=40):
    """A command line with the options that every script has.

    Args:
      description: The script's documentation; its first line heads the help.
      batch: Examples per step unless the user says otherwise.
      steps: Training steps unless the user says otherwise.

    Returns:
      An `argparse.ArgumentParser`, to which a script adds its own options.
    """
    result = argparse.ArgumentParser(description=description.splitlines()[0])
    add = result.add_argument
    add("--batch", type=positive, default=batch, help=f"examples per step (default {batch})")
    add("--steps", type=positive, default=steps, help=f"steps, at most (default {steps})")
    add("--managed-steps", type=int, help="stop after this many steps that Sentinel ran by a plan")
    add("--seed", type=int, default=1, help="seed of the weights and of the data's order")
    stop = "end after N steps; schedules still span --steps"
    add("--stop-after", type=positive, metavar="N", help=stop)
    add("--inter-op", type=int, default=0, help="threads between operations, 0 = one per core")
    add("--intra-op", type=int, default=0, help="threads within an operation, 0 = one per core")
    optimizer = "no memory optimizer of TensorFlow's: it turns large sums into additions whose order differs by process"
    add("--no-memory-optimizer", dest="memory_optimizer", action="store_false", help=optimizer)
    marks = "mark layers with tf.sentinel.add_layer where it exists (default)"
    add("--marks", dest="marks", action="store_true", default=True, help=marks)
    no_marks = "leave finding layers to Sentinel"
    add("--no-marks", dest="marks", action="store_false", help=no_marks)
    add("--fast", help="fast memory: bytes, 512M, 2G or a share of the peak such as 20%%")
    add("--policy", help="the policy's name, such as hpca21, first_touch, fast_only or slow_only")
    add("--slow", help="slow tier: emulated:MACHINE, numa or node:N")
    gbps = "migration bandwidth of the emulated tier, 10^9 bytes/s"
    add("--migration-gbps", type=float, help=gbps)
    add("--warmup-steps", type=int, help="steps before the profiled one; negative = none")
    trace = "where Sentinel writes the trace of the profiled step"
    add("--trace", metavar="FILE", help=trace)
    losses = "write each step's loss as the hex bits of its float32"
    add("--losses-out", metavar="FILE", help=losses)
    add("--json-out", metavar="FILE", help="write step times, losses and statistics")
    add("--quiet", action="store_true", help="print no line per step")
    return result


def positive(text):
    """The number that `text` says, which must be at least 1; for `argparse`."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not accepted: it must be at least 1")
    return number


def marker(arguments):
    """The function that marks a layer's output: Sentinel's when marks are wanted and exist, else an identity.

    Both put exactly one operation into the graph. TensorFlow derives the seeds of random operations from the number of
    those made before, so weights and dropout masks are the same with and without marks.
    """
    return tf.sentinel.add_layer if arguments.marks and HAS_SENTINEL else tf.identity


def session_config(arguments):
    """Thread counts for any TensorFlow; Sentinel's typed options where this TensorFlow has them."""
    config = tf.ConfigProto(
        inter_op_parallelism_threads=arguments.inter_op,
        intra_op_parallelism_threads=arguments.intra_op,
    )
    if not arguments.memory_optimizer:
        rewriting = config.graph_options.rewrite_options
        rewriting.memory_optimization = rewriting.NO_MEM_OPT
    if not HAS_SENTINEL:
        return config
    # Option by option: a field that is not touched keeps meaning "not chosen".
    options = config.experimental.sentinel
    if arguments.fast is not None:
        _set_fast(options, arguments.fast)
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


def _set_fast(options, text):
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


def train(session, operation, loss, feeds, arguments):
    """Runs the steps, one `Session.run` each.

    Args:
      session: A session whose variables are initialized.
      operation: The operation that updates the weights.
      loss: A float32 scalar.
      feeds: Yields one feed dictionary per step.
      arguments: The command line.

    Returns:
      One record per step with its time, its loss and Sentinel's counters after it.
    """
    records = []
    for step in range(min(arguments.steps, arguments.stop_after or arguments.steps)):
        feed = next(feeds)
        begin = time.perf_counter()
        _, value = session.run([operation, loss], feed)
        seconds = time.perf_counter() - begin
        records.append({"seconds": seconds, "loss": value, "stats": sentinel_stats()})
        if not arguments.quiet:
            state = records[-1]["stats"]["state"] if HAS_SENTINEL else "stock"
            print(f"step {step:4d}  {seconds:.3f} s  loss {value:.4f}  {state}", flush=True)
        if _enough_managed_steps(records, arguments.managed_steps):
            break
    return records


def _enough_managed_steps(records, wanted):
    """Whether Sentinel has run the wanted number of steps under a plan since the first record."""
    if wanted is None or not HAS_SENTINEL:
        return False
    return records[-1]["stats"]["steps_managed"] - records[0]["stats"]["steps_managed"] >= wanted


def write_results(arguments, records, **more):
    """Writes the files that the command line asked for; `more` goes into the JSON object as it is."""
    if arguments.losses_out:
        with open(arguments.losses_out, "w") as out:
            out.writelines(_loss_bits(record["loss"]) + "\n" for record in records)
    if arguments.json_out:
        result = {
            "sentinel": HAS_SENTINEL,
            "tensorflow": tf.__version__,
            "batch": arguments.batch,
            "step_seconds": [record["seconds"] for record in records],
            "losses": [float(record["loss"]) for record in records],
            "step_stats": [record["stats"] for record in records],
            "stats": sentinel_stats(),
        }
        with open(arguments.json_out, "w") as out:
            json.dump({**result, **more}, out)


def _loss_bits(loss):
    """The eight hexadecimal digits of a loss's float32 bits."""
    return struct.pack(">f", loss).hex()


def run(arguments, operation, loss, feeds):
    """Trains the default graph from fresh variables and writes the results; the arguments are those of `train`."""
    with tf.Session(config=session_config(arguments)) as session:
        session.run(tf.global_variables_initializer())
        records = train(session, operation, loss, feeds, arguments)
        write_results(arguments, records)
