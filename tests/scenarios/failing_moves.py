"""A training whose moves fail for real, on a machine with two memory nodes: first the slow node is full, then the calls
that move pages are forbidden.

    python failing_moves.py LOSSES.txt REPORT.json

Writes each step's loss as `digits_lstm.py` does, and what `tf.sentinel.stats()` said after each part. Runs as root.
"""

import ctypes
import json
import mmap
import struct
import sys
from pathlib import Path

import tensorflow as tf
from digits_lstm import batches, build, statistics, wait_for_plan

BATCH = 4096
STEPS_PER_PART = 5
STEPS_AT_MOST = 40
SLOW_NODE = 1
# What is left free is less than a step needs there.
LEFT_BYTES = 2 << 20

LIBC = ctypes.CDLL(None, use_errno=True)
MPOL_BIND, SYS_MBIND, SYS_MOVE_PAGES, SYS_SECCOMP = 2, 237, 279, 317
PR_SET_NO_NEW_PRIVS, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC = 38, 1, 1
EPERM = 1


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


def fill(node):
    """Takes nearly all free memory of a node and returns it, to be dropped."""
    left = reserve_bytes(node) + LEFT_BYTES
    private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    memory = mmap.mmap(-1, free_bytes(node), flags=private)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    mask = ctypes.c_ulong(1 << node)
    arguments = [address, len(memory), MPOL_BIND, ctypes.byref(mask), 64, 0]
    if LIBC.syscall(
        SYS_MBIND, *[ctypes.c_void_p(a) if isinstance(a, int) else a for a in arguments]
    ):
        raise OSError(ctypes.get_errno(), "mbind")
    for page in range(0, len(memory), mmap.PAGESIZE):
        if page % (256 << 10) == 0 and free_bytes(node) <= left:
            break
        memory[page] = 1
    return memory


def forbid_moves():
    """From now on, `mbind` and `move_pages` answer EPERM to every thread, as in many containers."""
    load_number, jump_if_equal, give_back = 0x20, 0x15, 0x06
    forbidden, allowed = 0x00050000 | EPERM, 0x7FFF0000
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


def main():
    losses_path, report_path = sys.argv[1:]
    tf.logging.set_verbosity(tf.logging.ERROR)
    images, labels, loss, update = build(BATCH)
    config = tf.ConfigProto(inter_op_parallelism_threads=1, intra_op_parallelism_threads=1)
    losses, report = [], {}
    with tf.Session(config=config) as session:
        session.run(tf.global_variables_initializer())
        data = batches(BATCH)

        def train(steps):
            for _ in range(steps):
                rows, classes = next(data)
                value, _ = session.run([loss, update], {images: rows, labels: classes})
                losses.append(struct.pack(">f", value).hex())
                wait_for_plan()

        while statistics()["steps_managed"] < STEPS_PER_PART and len(losses) < STEPS_AT_MOST:
            train(1)
        report["before"] = statistics()
        full = fill(SLOW_NODE)
        train(STEPS_PER_PART)
        report["slow node full"] = statistics()
        del full
        train(STEPS_PER_PART)
        report["slow node free"] = statistics()
        forbid_moves()
        train(STEPS_PER_PART)
        report["moves forbidden"] = statistics()
    Path(losses_path).write_text("".join(bits + "\n" for bits in losses))
    Path(report_path).write_text(json.dumps(report))


if __name__ == "__main__":
    main()
