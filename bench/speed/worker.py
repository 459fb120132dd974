"""One training in one process that runs a block of steps whenever its standard input says how many.

`worker.py MODEL OPTIONS...` builds the network of examples/models and takes the place of its training loop. Each answer
is one line of JSON on the descriptor that WORKER_ANSWERS names, so that whatever TensorFlow prints is not in the way.
"""

import importlib
import json
import os
import resource
import struct
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples/models"))


def status_bytes(key):
    """A size that the kernel tells of this process, such as VmHWM, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return 1024 * int(line.split()[1])
    raise SystemExit("/proc/self/status has no %s" % key)


def used():
    """User seconds, system seconds and minor faults of this process so far, and the time."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime, usage.ru_stime, usage.ru_minflt, time.perf_counter()


class Server:
    """Takes the place of `training.run`."""

    def __init__(self, base_bytes, answers, training):
        self._base_bytes, self._answers, self._training = base_bytes, answers, training

    def answer(self, **content):
        """Sends one line."""
        self._answers.write(json.dumps(content) + "\n")
        self._answers.flush()

    def run(self, arguments, operation, loss, feeds):
        """Opens the session, and serves until the input ends."""
        import tensorflow as tf

        with tf.Session(config=self._training.session_config(arguments)) as session:
            session.run(tf.global_variables_initializer())
            self.answer(ready=True)
            for line in sys.stdin:
                steps = int(line)
                losses = []
                before = used()
                for _ in range(steps):
                    losses.append(session.run([operation, loss], next(feeds))[1])
                spent = [after - earlier for earlier, after in zip(before, used())]
                self.answer(
                    steps=steps,
                    user_seconds=spent[0],
                    system_seconds=spent[1],
                    minor_faults=spent[2],
                    wall_seconds=spent[3],
                    losses=[struct.pack(">f", value).hex() for value in losses],
                    peak_rss_bytes=status_bytes("VmHWM") - self._base_bytes,
                    stats=self._training.sentinel_stats(),
                )


def main():
    """Imports the network, then hands its graph to the server."""
    answers = os.fdopen(int(os.environ["WORKER_ANSWERS"]), "w")
    model = sys.argv[1]
    sys.argv = sys.argv[1:]
    import training

    module = importlib.import_module(model)
    training.run = Server(status_bytes("VmRSS"), answers, training).run
    module.main()


if __name__ == "__main__":
    main()
