"""A training whose moves fail for real, on a machine with two memory nodes: first the slow node is full, then somebody
holds the pages, then the calls that move pages are forbidden.

    python failing_moves.py LOSSES.txt REPORT.json
    python failing_moves.py --until-stopped REPORT.json

Writes each step's loss as `digits_lstm.py` does, and what `tf.sentinel.stats()` said after each part. In the second
form, a strict training goes on until it is stopped because the calls are forbidden, and the reason is written. Runs as
root.
"""

import ctypes
import errno
import json
import mmap
import struct
import sys
import threading
from pathlib import Path

import tensorflow as tf
from digits_lstm import batches, build, statistics, wait_for_plan
from page_holder import PageHolder

BATCH = 4096
STEPS_PER_PART = 5
STEPS_AT_MOST = 40
SLOW_NODE = 1
# What is left free above the kernel's reserve is much less than a step needs there.
LEFT_BYTES = 256 << 10
# Far from the end, memory is taken in large pieces.
LARGE_BYTES, SMALL_BYTES, NEAR_BYTES = 2 << 20, 64 << 10, 8 << 20
HOLDING_PAUSE_SECONDS, HOLDING_STEPS_AT_MOST = 0.005, 20

LIBC = ctypes.CDLL(None, use_errno=True)
MPOL_BIND, SYS_MBIND, SYS_MOVE_PAGES, SYS_SECCOMP = 2, 237, 279, 317
PR_SET_NO_NEW_PRIVS, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC = 38, 1, 1


def free_bytes(node):
    """Free memory of a node, as the kernel says."""
    text = Path("/sys/devices/system/node/node%d/meminfo" % node).read_text()
    return next(int(line.split()[3]) * 1024 for line in text.splitlines() if "MemFree" in line)


def reserve_bytes(node):
    """What the kernel keeps free on a node for itself; whoever wants that from this node alone is out of memory."""
    pages, inside = 0, False
    for line in Path("/proc/zoneinfo").read_text().splitlines():
        words = line.split()
        if words[0] == "Node":
            inside = words[1] == "%d," % node
        elif inside and words[0] == "min":
            pages += int(words[1])
    return pages * mmap.PAGESIZE


class Filling:
    """Holds nearly all memory of a node. What can be dropped there is dropped first, or it would make room later."""

    def __init__(self, node):
        Path("/proc/sys/vm/drop_caches").write_text("3")
        self._node, self._taken = node, 0
        private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        self._memory = mmap.mmap(-1, free_bytes(node) + (64 << 20), flags=private)
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        mask = ctypes.c_ulong(1 << node)
        arguments = [self._address, len(self._memory), MPOL_BIND, ctypes.byref(mask), 64, 0]
        wide = [ctypes.c_void_p(a) if isinstance(a, int) else a for a in arguments]
        if LIBC.syscall(SYS_MBIND, *wide):
            raise OSError(ctypes.get_errno(), "mbind")
        self.top_up()

    def top_up(self):
        """Takes what has become free."""
        left = reserve_bytes(self._node) + LEFT_BYTES
        while True:
            spare = free_bytes(self._node) - left
            piece = LARGE_BYTES if spare > NEAR_BYTES else SMALL_BYTES
            if spare < piece or self._taken + piece > len(self._memory):
                return
            ctypes.memset(self._address + self._taken, 1, piece)
            self._taken += piece


def forbid_moves():
    """From now on, `mbind` and `move_pages` answer EPERM to every thread, as in many containers."""
    load_number, jump_if_equal, give_back = 0x20, 0x15, 0x06
    forbidden, allowed = 0x00050000 | errno.EPERM, 0x7FFF0000
    program = [
        (load_number, 0, 0, 0),
        (jump_if_equal, 1, 0, SYS_MBIND),
        (jump_if_equal, 0, 1, SYS_MOVE_PAGES),
        (give_back, 0, 0, forbidden),
        (give_back, 0, 0, allowed),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("<HBBI", *line) for line in program))
    header = struct.pack("<HxxxxxxQ", len(program), ctypes.addressof(code))
    if LIBC.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")
    if LIBC.syscall(SYS_SECCOMP, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, header):
        raise OSError(ctypes.get_errno(), "seccomp")


class Training:
    """The digits' LSTM, a few steps at a time."""

    def __init__(self, session):
        images, labels, loss, update = build(BATCH)
        session.run(tf.global_variables_initializer())
        self.losses = []
        self._session, self._fetches, self._inputs = session, [loss, update], (images, labels)
        self._data = batches(BATCH)

    def train(self, steps, before_each=lambda: None):
        """Trains and returns what Sentinel says afterwards."""
        for _ in range(steps):
            before_each()
            value, _ = self._session.run(self._fetches, dict(zip(self._inputs, next(self._data))))
            self.losses.append(struct.pack(">f", value).hex())
            wait_for_plan()
        return statistics()

    def until_managed(self):
        """Trains until some steps have followed a plan."""
        while statistics()["steps_managed"] < STEPS_PER_PART and len(self.losses) < STEPS_AT_MOST:
            self.train(1)
        return statistics()


def hold_pages(training):
    """A part of the training while somebody holds whatever pages there are, again and again, until a move met that."""
    over = threading.Event()

    def hold():
        with PageHolder() as holder:
            while not over.wait(HOLDING_PAUSE_SECONDS):
                holder.hold()

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        now = training.train(STEPS_PER_PART)
        for _ in range(HOLDING_STEPS_AT_MOST - STEPS_PER_PART):
            if str(errno.EBUSY) in now["page_errors_by_errno"]:
                break
            now = training.train(1)
        return now
    finally:
        over.set()
        thread.join()


def all_parts(training):
    """Trains through all troubles; returns the statistics by part."""
    report = {"before": training.until_managed()}
    full = Filling(SLOW_NODE)
    report["slow node full"] = training.train(STEPS_PER_PART, full.top_up)
    del full
    report["slow node free"] = training.train(STEPS_PER_PART)
    report["pages held"] = hold_pages(training)
    forbid_moves()
    report["moves forbidden"] = training.train(STEPS_PER_PART)
    return report


def until_stopped(training):
    """Trains until the runtime stops it; returns why, or None when it does not."""
    training.until_managed()
    forbid_moves()
    try:
        training.train(STEPS_PER_PART)
    except tf.errors.OpError as error:
        return error.message
    return None


def main():
    tf.logging.set_verbosity(tf.logging.ERROR)
    config = tf.ConfigProto(inter_op_parallelism_threads=1, intra_op_parallelism_threads=1)
    with tf.Session(config=config) as session:
        training = Training(session)
        if sys.argv[1] == "--until-stopped":
            Path(sys.argv[2]).write_text(json.dumps(until_stopped(training)))
        else:
            report = all_parts(training)
            Path(sys.argv[1]).write_text("".join(bits + "\n" for bits in training.losses))
            Path(sys.argv[2]).write_text(json.dumps(report))


if __name__ == "__main__":
    main()
