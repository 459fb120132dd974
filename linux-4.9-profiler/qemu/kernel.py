# SPDX-License-Identifier: GPL-2.0
"""Debian's stock kernel and a small initramfs for it, from packages that are unpacked and not installed.

Everything lands below a cache folder, under a key of what it was made from, so a second call finds it and a new kernel
gets a place of its own.
"""

import gzip
import hashlib
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
INIT = HERE / "init.sh"
# In the order in which they need each other.
MODULES = (
    "virtio_ring virtio virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci "
    "netfs fscache 9pnet 9p 9pnet_virtio overlay"
).split()
_URI = re.compile(r"^'(?P<uri>[^']+)' (?P<name>\S+) (?P<size>\d+) SHA256:(?P<sha256>[0-9a-f]{64})$")


class GuestError(Exception):
    """Why there is no guest, in one line that says what to do."""


def boot_files(cache, built=None):
    """Makes or finds what a guest boots from.

    Args:
      cache: Folder for packages and what is made of them.
      built: Path of a kernel without modules, instead of Debian's.

    Returns:
      Paths of the kernel and of the initramfs.

    Raises:
      GuestError: a package cannot be had, or does not hold what is expected.
    """
    busybox = unpacked(cache, "busybox-static")
    if built is not None:
        return built, _initramfs(cache, None, busybox / "bin" / "busybox")
    image = unpacked(cache, stock_kernel_package())
    kernels = sorted((image / "boot").glob("vmlinuz-*"))
    if len(kernels) != 1:
        raise GuestError("%s holds %d kernels in boot/; one is expected" % (image, len(kernels)))
    return kernels[0], _initramfs(cache, image, busybox / "bin" / "busybox")


def stock_kernel_package():
    """The package that linux-image-amd64, which is empty, stands for."""
    depends = _apt(["apt-cache", "depends", "--important", "linux-image-amd64"])
    names = re.findall(r"Depends: (linux-image-[0-9]\S*-amd64)\s", depends)
    if not names:
        raise GuestError("apt knows no linux-image-amd64: run 'apt-get update' (this needs Debian)")
    return names[0]


def unpacked(cache, package):
    """The folder with a package's files; its name has the sha256 of the package."""
    listed = _apt(["apt-get", "download", "--print-uris", package]).splitlines()
    match = _URI.match(listed[-1]) if listed else None
    if match is None:
        raise GuestError("apt does not say where %s is: run 'apt-get update'" % package)
    folder = cache / "packages" / ("%s-%s" % (package, match.group("sha256")[:16]))
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=str(folder.parent)) as scratch:
        _apt(["apt-get", "download", package], cwd=scratch)
        (archive,) = Path(scratch).glob("*.deb")
        digest = hashlib.sha256(archive.read_bytes()).hexdigest()
        if digest != match.group("sha256"):
            raise GuestError("%s has sha256 %s, apt lists %s" % (package, digest, match.group(4)))
        files = Path(scratch) / "files"
        _apt(["dpkg-deb", "-x", str(archive), str(files)])
        # Whole or not at all: another run may be making the same.
        try:
            os.rename(str(files), str(folder))
        except OSError:
            if not folder.is_dir():
                raise
    return folder


def _apt(command, **options):
    """Runs a program of Debian's package system and returns what it prints."""
    if shutil.which(command[0]) is None:
        raise GuestError("%s is missing; the guest is made of Debian's packages" % command[0])
    done = subprocess.run(command, capture_output=True, text=True, **options)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise GuestError("'%s' failed: %s" % (" ".join(command), last))
    return done.stdout


def _initramfs(cache, image, busybox):
    """The compressed archive with busybox, the first program, and the modules unless there is no package of them."""
    modules = () if image is None else MODULES
    found = {}
    if image is not None:
        found = {path.stem: path for path in sorted((image / "lib" / "modules").rglob("*.ko"))}
    missing = [name for name in modules if name not in found]
    if missing:
        raise GuestError("%s has no module %s" % (image, ", ".join(missing)))
    entries = [
        ("bin", stat.S_IFDIR | 0o755, b""),
        ("bin/busybox", stat.S_IFREG | 0o755, busybox.read_bytes()),
        ("init", stat.S_IFREG | 0o755, INIT.read_bytes()),
        ("modules", stat.S_IFDIR | 0o755, b""),
        ("modules/order", stat.S_IFREG | 0o644, "".join(name + "\n" for name in modules).encode()),
    ]
    for name in modules:
        entries.append(("modules/%s.ko" % name, stat.S_IFREG | 0o644, found[name].read_bytes()))
    archive = cpio(entries)
    target = cache / ("initramfs-%s.gz" % hashlib.sha256(archive).hexdigest()[:16])
    if not target.is_file():
        partial = target.with_suffix(".%d" % os.getpid())
        partial.write_bytes(gzip.compress(archive, 6))
        os.replace(str(partial), str(target))
    return target


def cpio(entries):
    """An archive in the kernel's 'newc' format (Documentation/driver-api/early-userspace/buffer-format.rst).

    Args:
      entries: (name, mode, content) of each file and folder, folders before what is in them.

    Returns:
      The archive's bytes; the same entries give the same bytes.
    """
    archive = bytearray()
    for number, (name, mode, content) in enumerate(
        list(entries) + [("TRAILER!!!", 0, b"")], start=1
    ):
        name = name.encode() + b"\0"
        fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name), 0)
        archive += b"070701" + b"".join(b"%08x" % field for field in fields) + name
        archive += bytes(-len(archive) % 4) + content
        archive += bytes(-len(archive) % 4)
    return bytes(archive)


def main():
    """Prints one package's folder or the stock kernel's package: kernel.py unpack PACKAGE CACHE, kernel.py stock."""
    try:
        if sys.argv[1] == "stock":
            print(stock_kernel_package())
        else:
            print(unpacked(Path(sys.argv[3]), sys.argv[2]))
    except GuestError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
