"""Holds pages of this process so that the kernel cannot move them, as device drivers and direct reads do."""

import ctypes
import fcntl
import mmap
import os
from pathlib import Path

import numpy as np

LIBC = ctypes.CDLL(None, use_errno=True)
F_SETPIPE_SZ, SPLICE_F_NONBLOCK = 1031, 2
PIPE_BYTES = 16 << 20
# At most so many pieces of memory in one call.
PIECES = 1024
# The mappings are looked for at every so many turns.
TURNS_PER_LOOK = 16
PRESENT = np.uint64(1 << 63)


class Piece(ctypes.Structure):
    _fields_ = [("address", ctypes.c_void_p), ("bytes", ctypes.c_size_t)]


def bound_mappings():
    """Ranges of addresses that prefer a node and have pages: in a training, Sentinel's."""
    lines = [line.split() for line in Path("/proc/self/numa_maps").read_text().splitlines()]
    begins = {
        words[0]
        for words in lines
        if words[1].startswith("prefer") and any(word.startswith("anon=") for word in words)
    }
    for line in Path("/proc/self/maps").read_text().splitlines():
        begin, end = line.split()[0].split("-")
        if begin.lstrip("0") in {text.lstrip("0") for text in begins}:
            yield int(begin, 16), int(end, 16)


def present_runs(begin, end):
    """Parts of a range that have pages, as (address, bytes)."""
    with open("/proc/self/pagemap", "rb", buffering=0) as pagemap:
        pagemap.seek(begin // mmap.PAGESIZE * 8)
        entries = np.frombuffer(pagemap.read((end - begin) // mmap.PAGESIZE * 8), np.uint64)
    present = np.concatenate([[False], (entries & PRESENT) != 0, [False]]).astype(np.int8)
    edges = np.flatnonzero(np.diff(present)).reshape(-1, 2)
    for first, last in edges.tolist():
        yield begin + first * mmap.PAGESIZE, (last - first) * mmap.PAGESIZE


class PageHolder:
    """A pipe that refers to pages, without a copy of them, holds them where they are."""

    def __enter__(self):
        self._pipe, self._mappings, self._turn = None, {}, 0
        return self

    def __exit__(self, *_):
        self._let_go()

    def _let_go(self):
        for end in self._pipe or ():
            os.close(end)
        self._pipe = None

    def hold(self):
        """Lets go of what was held, and holds what Sentinel has now."""
        # Asking the kernel for all mappings takes longer than some tensors live.
        if self._turn % TURNS_PER_LOOK == 0:
            self._mappings.update(bound_mappings())
        self._turn += 1
        runs = [run for mapping in self._mappings.items() for run in present_runs(*mapping)]
        self._let_go()
        self._pipe = os.pipe()
        fcntl.fcntl(self._pipe[1], F_SETPIPE_SZ, PIPE_BYTES)
        for first in range(0, len(runs), PIECES):
            pieces = [Piece(*run) for run in runs[first : first + PIECES]]
            array = (Piece * len(pieces))(*pieces)
            taken = LIBC.vmsplice(self._pipe[1], array, len(pieces), SPLICE_F_NONBLOCK)
            if taken < 0:
                raise OSError(ctypes.get_errno(), "vmsplice")
