"""Finds a Python 3.7: the only Python that has an official TensorFlow 1.13.1 wheel with this C++ ABI.

Making that wheel takes no such Python; one that any system of today has will do.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from util import Stop

_PROBE = """
import json, sys, sysconfig
try:
    import ensurepip, venv
    has_venv = True
except ImportError:
    has_venv = False
print(json.dumps([list(sys.version_info[:3]), sysconfig.get_config_var("SOABI"), has_venv, sys.executable]))
"""
_SOABI = "cpython-37m-x86_64-linux-gnu"
_OLDEST_TO_BUILD = (3, 7)


def find_python():
    """Returns the absolute path of a usable Python 3.7.

    Raises:
        Stop: there is none, or SENTINEL_PYTHON names something else.
    """
    chosen = os.environ.get("SENTINEL_PYTHON")
    if chosen:
        path, fault = _probe(chosen)
        if fault:
            raise Stop(
                "SENTINEL_PYTHON=%s cannot be used: %s; it must be a 64-bit CPython 3.7"
                % (chosen, fault)
            )
        return path
    for candidate in _candidates():
        path, fault = _probe(candidate)
        if not fault:
            return path
    raise Stop(
        "Python 3.7 was not found: get it with 'pyenv install 3.7' or 'uv python install 3.7' (uv: 'pip install uv'), "
        "or name one with SENTINEL_PYTHON=/path/to/python3.7"
    )


def find_build_python():
    """Returns the absolute path of the Python that Bazel's build steps run under: the one that runs this, if it can.

    Raises:
        Stop: it is too old, or cannot make an environment.
    """
    if sys.version_info < _OLDEST_TO_BUILD:
        raise Stop("python3 is Python %d.%d; 3.7 or later is needed" % sys.version_info[:2])
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        raise Stop("python3 cannot make environments: apt-get install python3-venv") from None
    return sys.executable


def _candidates():
    """Yields commands that may be a Python 3.7, the cheapest to ask first."""
    # A pyenv shim is on PATH even when its version is not chosen, and then fails when it is run.
    yield "python3.7"
    pyenv = Path(os.environ.get("PYENV_ROOT") or str(Path.home() / ".pyenv"))
    yield from sorted(
        (str(path) for path in pyenv.glob("versions/3.7.*/bin/python")), key=_numbers, reverse=True
    )
    if shutil.which("uv"):
        yield _output(["uv", "python", "find", "3.7"])
        _output(["uv", "python", "install", "3.7"])
        yield _output(["uv", "python", "find", "3.7"])


def _numbers(path):
    """Sorts 3.7.16 after 3.7.9."""
    return [int(part) for part in Path(path).parts[-3].split(".") if part.isdigit()]


def _output(command):
    """What the command prints, or nothing when it fails or takes more than five minutes."""
    try:
        result = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=300
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return result.stdout.decode().strip() if result.returncode == 0 else ""


def _probe(command):
    """Runs the command as a Python: (its path, None) when it can be used, else (None, why not)."""
    output = _output([command, "-I", "-c", _PROBE]) if command else ""
    try:
        version, soabi, has_venv, path = json.loads(output)
    except ValueError:
        return None, "it does not run as a Python"
    if version[:2] != [3, 7] or soabi != _SOABI:
        return None, "it is Python %s with ABI %s" % (
            ".".join(str(part) for part in version),
            soabi,
        )
    if not has_venv:
        return (
            None,
            "it has no venv and ensurepip modules ('apt-get install python3.7-venv' if it is a Debian package)",
        )
    return path, None
