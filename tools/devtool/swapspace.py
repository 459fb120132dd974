"""Swap and memory limits for benchmarks and tests, made and removed again by whoever asks: needs root.

Nothing here touches a swap area or a control group that it has not made itself.
"""

import contextlib
import os
import shutil
import subprocess
import time
from pathlib import Path

# Above whatever a machine usually has, so that pages go here while it is on; the kernel takes 0 to 32767.
PRIORITY = 32000
CGROUPS = Path("/sys/fs/cgroup")
ZRAM = Path("/sys/class/zram-control")


class Unavailable(Exception):
    """Why this machine cannot have swap or a memory limit made for it."""


def why_not():
    """Why neither swap nor limits can be made here; None when they can."""
    if os.geteuid() != 0:
        return "only root can make swap and limit memory"
    if not (CGROUPS / "memory/memory.limit_in_bytes").exists() and not _version_2():
        return "there is no control group that limits memory"
    missing = [name for name in ("mkswap", "swapon", "swapoff") if not _program(name)]
    if missing:
        return "%s is missing: install it with 'apt-get install mount util-linux'" % missing[0]
    for line in Path("/proc/swaps").read_text().splitlines()[1:]:
        if int(line.split()[-1]) >= PRIORITY:
            return "%s is in use as swap already, before all other areas" % line.split()[0]
    return None


def _version_2():
    controllers = CGROUPS / "cgroup.controllers"
    return controllers.exists() and "memory" in controllers.read_text().split()


def _program(name):
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


def _call(*command):
    command = [_program(command[0]) or command[0]] + [str(part) for part in command[1:]]
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if result.returncode:
        text = result.stdout.decode(errors="replace").strip()
        raise Unavailable("%s: %s" % (" ".join(command), text))


@contextlib.contextmanager
def _swap_on(path):
    """Makes the file or device swap, before all other areas."""
    _call("mkswap", path)
    _call("swapon", "-p", PRIORITY, path)
    try:
        yield path
    finally:
        _call("swapoff", path)


@contextlib.contextmanager
def disk_swap(folder, size_bytes):
    """Swap in a new file of `folder`, which has to lie on a real disk."""
    path = Path(folder) / ("sentinel-swap-%d" % os.getpid())
    try:
        with open(str(path), "wb") as file:
            os.fchmod(file.fileno(), 0o600)
            os.posix_fallocate(file.fileno(), 0, size_bytes)
        with _swap_on(path):
            yield path
    finally:
        if path.exists():
            path.unlink()


@contextlib.contextmanager
def zram_swap(size_bytes):
    """Swap in a new device of compressed memory."""
    try:
        number = int((ZRAM / "hot_add").read_text())
    except OSError as error:
        raise Unavailable("no zram device can be made: %s" % error) from None
    device, block = Path("/dev/zram%d" % number), Path("/sys/block/zram%d" % number)
    try:
        (block / "disksize").write_text(str(size_bytes))
        deadline = time.monotonic() + 10
        while not device.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        with _swap_on(device):
            yield device
    finally:
        (block / "reset").write_text("1")
        (ZRAM / "hot_remove").write_text(str(number))


class MemoryGroup:
    """A control group of either version, at `folder`, that limits the memory of its processes and not their swap."""

    def __init__(self, name):
        self._new = _version_2()
        self.folder = (CGROUPS if self._new else CGROUPS / "memory") / name
        self.folder.mkdir()
        # What the kernel charges the group for now.
        self.usage_file = self.folder / ("memory.current" if self._new else "memory.usage_in_bytes")

    def peak_bytes(self):
        """The most that the kernel charged the group for at a time."""
        file = "memory.peak" if self._new else "memory.max_usage_in_bytes"
        return int((self.folder / file).read_text())

    def limit(self, limit_bytes):
        """Sets the limit; None for none."""
        file = "memory.max" if self._new else "memory.limit_in_bytes"
        unlimited = "max" if self._new else "-1"
        (self.folder / file).write_text(unlimited if limit_bytes is None else str(limit_bytes))

    def enter(self):
        """Puts the calling process into the group: for `preexec_fn`."""
        (self.folder / "cgroup.procs").write_text(str(os.getpid()))

    def counters(self):
        """Figures of memory.stat by name."""
        lines = (self.folder / "memory.stat").read_text().splitlines()
        return {name: int(value) for name, value in (line.split() for line in lines)}

    def remove(self):
        """Removes the group, in which no process may be left."""
        deadline = time.monotonic() + 10
        while True:
            try:
                return self.folder.rmdir()
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)


@contextlib.contextmanager
def memory_group(name):
    """A memory group that is gone afterwards."""
    group = MemoryGroup("%s-%d" % (name, os.getpid()))
    try:
        yield group
    finally:
        group.remove()
