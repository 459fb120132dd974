"""Says what the native files in a wheel with Sentinel need of a system, and whether they would load.

Usage: inspect_wheel.py WHEEL STOCK, where WHEEL may be the folder that holds it, and STOCK is the official wheel.
The last line is JSON: undefined_symbols, max_glibc, max_glibcxx, tag. The exit code is 1 when a promise is broken.
"""

import json
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import native

ROOT = Path(os.path.abspath(__file__)).parents[2]
sys.path.insert(0, str(ROOT / "tensorflow" / "tools" / "pip_package"))

import platform_tag  # noqa: E402

# The goal: newest glibc that may be needed. TensorFlow 1.13.1 itself needs 2.23 and GLIBCXX_3.4.21.
_GLIBC_AT_MOST = 28
_GLIBCXX_AT_MOST = 21


def inspect(wheel, stock):
    """Returns what the last line shows, and a list of broken promises."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        library = _extract(wheel, "purelib/tensorflow/libsentinel.so", folder)
        command = _extract(wheel, "scripts/sentinel", folder)
        _extract(stock, "purelib/tensorflow/libtensorflow_framework.so", folder)
        faults = []
        try:
            native.check(library, folder)
        except native.Faulty as fault:
            faults.append(str(fault))
        command.chmod(0o755)
        if subprocess.call([str(command), "--help"], stdout=subprocess.DEVNULL):
            faults.append("the command `sentinel` does not run")
        undefined = native.undefined(library, folder)
        _, glibc, glibcxx = platform_tag.needs([library, command])
        tag = platform_tag.platform_tag([library, command])
    if glibc > _GLIBC_AT_MOST:
        faults.append("glibc 2.%d is needed; at most 2.%d is accepted" % (glibc, _GLIBC_AT_MOST))
    if glibcxx > _GLIBCXX_AT_MOST:
        faults.append(
            "GLIBCXX_3.4.%d is needed; at most 3.4.%d is accepted" % (glibcxx, _GLIBCXX_AT_MOST)
        )
    if not wheel.name.endswith("-%s.whl" % tag):
        faults.append("the wheel is called %s, but its tag should be %s" % (wheel.name, tag))
    found = {
        "undefined_symbols": len(undefined),
        "max_glibc": "2.%d" % glibc,
        "max_glibcxx": "3.4.%d" % glibcxx,
    }
    return dict(found, tag=tag), faults


def _extract(wheel, path, folder):
    """Takes one file out of the wheel's data folder."""
    target = folder / Path(path).name
    with zipfile.ZipFile(str(wheel)) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".data/" + path)]
        target.write_bytes(archive.read(name))
    return target


def main(arguments):
    """Inspects the wheel that the command line names."""
    wheel, stock = (Path(argument) for argument in arguments)
    if wheel.is_dir():
        (wheel,) = wheel.glob("*.whl")
    found, faults = inspect(wheel, stock)
    for fault in faults:
        print(fault)
    print(json.dumps(found))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
