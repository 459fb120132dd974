"""The page-access profiler as a module for Debian's unmodified kernel: built from the headers' packages, in the cache.

The packages are unpacked beside each other and not installed, like the kernel's that the guest boots.
"""

import fcntl
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import venvs
from util import ROOT, Stop, key_of, run_logged, say

PROFILER = ROOT / "linux-4.9-profiler"
HARNESS = PROFILER / "qemu"
# What the module is made of.
SOURCES = ("module", "core", "include")


def build():
    """Builds the module for the kernel that linux-image-amd64 stands for, or finds it in the cache.

    Returns:
      Path of the module, a file whose name ends in .ko.
    """
    release = _release()
    packages = _packages(release)
    files = [file for folder in SOURCES for file in _sources(folder)]
    names = [str(file.relative_to(PROFILER)) for file in files]
    key = key_of([package.name for package in packages], names, *files)[:16]
    kernels = venvs.cache_home() / "kernels"
    module = kernels / ("sentinel_profiler-%s-%s.ko" % (release, key))
    kernels.mkdir(parents=True, exist_ok=True)
    with open(str(kernels / "lock"), "w") as lock:
        # Another checkout may be building in the same cache.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not module.is_file():
            _make(_headers(release, packages, kernels), files, kernels / "build-module", module)
    return module


def ram_disks():
    """Path of the stock kernel's own module for RAM disks, to which the tests swap."""
    package = unpacked("linux-image-%s" % _release())
    found = sorted(package.glob("lib/modules/*/kernel/drivers/block/brd.ko"))
    if len(found) != 1:
        raise Stop("%s holds %d modules brd.ko; one is expected" % (package, len(found)))
    return found[0]


def _kernel_py(*arguments):
    """Runs a command of the guest's tools and returns the line that it prints."""
    command = [sys.executable, HARNESS / "kernel.py", *arguments]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode:
        raise Stop(done.stderr.strip().splitlines()[-1])
    return done.stdout.strip()


def unpacked(package):
    """Folder of the files of one of Debian's packages."""
    return Path(_kernel_py("unpack", package, venvs.cache_home() / "qemu"))


def _release():
    """The stock kernel's release, as 6.1.0-56-amd64."""
    return _kernel_py("stock")[len("linux-image-") :]


def _common_headers(release):
    """The package of the headers that all flavours of a release share."""
    return "linux-headers-%s-common" % re.sub(r"-amd64$", "", release)


def _packages(release):
    """Folders of the unpacked packages that a module is built with."""
    version = ".".join(release.split(".")[:2])
    names = ["linux-headers-" + release, _common_headers(release)]
    return [unpacked(name) for name in names + ["linux-kbuild-" + version]]


def _sources(folder):
    """Files of a folder that are the project's, and not what a build has left there."""
    kinds = (".c", ".h")
    files = sorted(path for path in (PROFILER / folder).rglob("*") if path.is_file())
    return [
        path
        for path in files
        if (path.suffix in kinds and not path.name.endswith(".mod.c"))
        or path.name in ("Kbuild", "Makefile")
    ]


def _headers(release, packages, kernels):
    """The folder to build modules in: the packages' files together, as they would be when installed."""
    root = kernels / ("headers-%s" % key_of([package.name for package in packages])[:16])
    folder = root / "usr" / "src" / ("linux-headers-" + release)
    if root.is_dir():
        return folder
    for old in kernels.glob("headers-*"):
        shutil.rmtree(str(old))
    # Whole or not at all: this may be stopped at any time.
    new = Path(str(root) + ".new")
    for package in packages:
        run_logged("module-headers", ["cp", "-a", "%s/." % package, new])
    makefile = new / folder.relative_to(root) / "Makefile"
    makefile.write_text(
        "include %s\n" % (root / "usr" / "src" / _common_headers(release) / "Makefile")
    )
    new.rename(root)
    return folder


def _make(headers, files, out, module):
    """Builds the module from a copy of the sources, and puts it in its place."""
    say("building the profiler's module for %s" % headers.name)
    shutil.rmtree(str(out), ignore_errors=True)
    for file in files:
        copy = out / file.relative_to(PROFILER)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(str(file), str(copy))
    run_logged("module-build", ["make", "-C", out / "module", "KDIR=%s" % headers])
    shutil.copyfile(str(out / "module" / "sentinel_profiler.ko"), str(module) + ".new")
    os.replace(str(module) + ".new", str(module))
