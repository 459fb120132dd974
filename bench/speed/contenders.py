"""Who is compared: Sentinel with all memory fast, stock TensorFlow, and stock TensorFlow with other allocators.

May use the worker; knows nothing of ratios.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WORKER = Path(__file__).with_name("worker.py")
LIBRARIES = Path("/usr/lib/x86_64-linux-gnu")
# Debian's packages and their libraries, to be preloaded.
PRELOADS = {
    "tcmalloc": ("libtcmalloc-minimal4", "libtcmalloc_minimal.so.4"),
    "jemalloc": ("libjemalloc2", "libjemalloc.so.2"),
    "mimalloc": ("libmimalloc2.0", "libmimalloc.so.2.0"),
}
PEERS = ("bfc", *PRELOADS)
# The C library told to keep whatever it has: no faults are left, whatever memory it takes.
KEEP_ALL = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(1 << 40),
    "MALLOC_TOP_PAD_": str(64 << 20),
    "MALLOC_ARENA_MAX": "1",
}
# Of the networks, the options that give peaks of 0.2 to 1 GB.
NETWORKS = {
    "cnn": "--batch 64",
    "resnet32": "--batch 80",
    "mobilenet": "--batch 64",
    "lstm": "--batch 20 --hidden 650 --unroll 35",
    "dcgan": "--batch 32",
}
SENTINEL = {"SENTINEL_POLICY": "fast_only", "SENTINEL_WARMUP_STEPS": "2"}
DROPPED = ("LD_PRELOAD", "TF_CPU_ALLOCATOR_USE_BFC", "MALLOC_", "SENTINEL")


class Failed(Exception):
    """A process of the comparison that ended, with what it said."""


def install_preloads(kinds=tuple(PRELOADS)):
    """Installs what is missing of these preloaded allocators; stops with what to do where this user may not."""
    wanted = [PRELOADS[kind] for kind in kinds]
    missing = [package for package, name in wanted if not (LIBRARIES / name).exists()]
    if not missing:
        return
    command = ["apt-get", "install", "-y", "-qq", *missing]
    if os.geteuid() != 0:
        sys.exit("%s must be installed first: sudo %s" % (", ".join(missing), " ".join(command)))
    subprocess.check_call(command, stdout=subprocess.DEVNULL)


def settings(kind):
    """The variables that make a process the contender."""
    if kind in PRELOADS:
        return {"LD_PRELOAD": str(LIBRARIES / PRELOADS[kind][1])}
    return {
        "sentinel": SENTINEL,
        "bfc": {"TF_CPU_ALLOCATOR_USE_BFC": "true"},
        "floor": KEEP_ALL,
        "stock": {},
    }[kind]


def environment(kind):
    """This process's environment without what would make a contender another one."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(DROPPED)}
    return {**kept, **settings(kind), "TF_CPP_MIN_LOG_LEVEL": "2", "PYTHONWARNINGS": "ignore"}


class Contender:
    """A training that stands ready in a process of its own."""

    def __init__(self, kind, network, python, more=()):
        self.kind, self.network = kind, network
        receive, send = os.pipe()
        options = [*NETWORKS[network].split(), "--quiet", *map(str, more)]
        self._errors = tempfile.TemporaryFile(mode="w+")
        self._process = subprocess.Popen(
            [str(python), str(WORKER), network, *options],
            env={**environment(kind), "WORKER_ANSWERS": str(send)},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
            universal_newlines=True,
            pass_fds=[send],
        )
        os.close(send)
        self._answers = os.fdopen(receive)

    def await_ready(self):
        """Waits until the graph is built and the variables have values."""
        return self._answer()

    def steps(self, count):
        """Runs that many steps and returns what they took."""
        try:
            self._process.stdin.write("%d\n" % count)
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # The answer will tell why.
        return self._answer()

    def _answer(self):
        line = self._answers.readline()
        if line:
            return json.loads(line)
        status = self._process.wait()
        self._errors.seek(0)
        text = self._errors.read()[-2000:]
        raise Failed("%s with %s ended with %d: %s" % (self.network, self.kind, status, text))

    def close(self):
        """Ends the process."""
        self._process.stdin.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._answers.close()
        self._errors.close()


def python_of(kind, arguments):
    """The interpreter with Sentinel's wheel, or the one with the stock wheel."""
    return arguments.sentinel_python if kind == "sentinel" else arguments.stock_python


def add_pythons(parser):
    """The options that say which interpreters are compared."""
    parser.add_argument("--sentinel-python", default=str(ROOT / ".venv/bin/python"))
    parser.add_argument("--stock-python", default=str(ROOT / ".venv-stock/bin/python"))
