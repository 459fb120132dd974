"""Makes the Python environments: .venv (repacked TensorFlow), .venv-stock (official TensorFlow) and one for tools.

All are filled from hash-locked requirements. TensorFlow itself comes last, as a wheel file, without its dependencies.
"""

import os
import shutil
import tempfile
from pathlib import Path

from util import BUILD, ROOT, Stop, file_digest, is_fresh, key_of, run_logged, say, write_stamp

TOOLS = ROOT / "tools"
STOCK_LOCK = ROOT / "third_party" / "tensorflow" / "stock.lock"
STOCK_WHEEL_NAME = "tensorflow-1.13.1-cp37-cp37m-manylinux1_x86_64.whl"


def make_venv(path, python, lock):
    """Makes the environment at `path` and installs what `lock` lists; nothing happens when that was done before."""
    stamp = path / "sentinel-locked"
    bootstrap = TOOLS / "bootstrap.lock"
    key = key_of(str(path), python, bootstrap, lock)
    if is_fresh(stamp, key):
        return
    say("making %s" % path.relative_to(ROOT))
    if path.exists():
        shutil.rmtree(str(path))
    run_logged(path.name + "-venv", [python, "-m", "venv", path])
    # So that git never lists the environment, whatever it is called.
    (path / ".gitignore").write_text("*\n")
    pip = [
        path / "bin" / "python",
        "-m",
        "pip",
        "install",
        "--require-hashes",
        "--disable-pip-version-check",
    ]
    run_logged(path.name + "-bootstrap", pip + ["-r", bootstrap])
    # gast exists only as source; it is built with the setuptools just installed and not with one that is not locked.
    run_logged(path.name + "-requirements", pip + ["--no-build-isolation", "-r", lock])
    write_stamp(stamp, key)


def install_wheel(venv, wheel, key):
    """Installs a TensorFlow wheel file into `venv` unless that very wheel, as told by `key`, is installed."""
    stamp = venv / "sentinel-wheel"
    if is_fresh(stamp, key):
        return
    say("installing %s into %s" % (wheel.name, venv.name))
    if stamp.exists():
        stamp.unlink()
    flags = [
        "--no-deps",
        "--no-index",
        "--force-reinstall",
        "--no-compile",
        "--disable-pip-version-check",
    ]
    run_logged(
        venv.name + "-tensorflow",
        [venv / "bin" / "python", "-m", "pip", "install"] + flags + [wheel],
    )
    write_stamp(stamp, key)


def stock_sha256():
    """The sha256 of the official wheel, from the one place that pins it."""
    return STOCK_LOCK.read_text().rsplit("sha256:", 1)[1].strip()


def stock_wheel(python):
    """Returns the path of the official wheel, downloaded once per user and verified every time it is asked for."""
    sha256 = stock_sha256()
    homes = [cache_home(), BUILD / "cache"]
    for home in homes:
        wheel = home / "wheels" / sha256 / STOCK_WHEEL_NAME
        if _is_intact(wheel, sha256):
            return wheel
    for home in homes:
        folder = home / "wheels" / sha256
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=str(folder)) as scratch:
                return _download(python, Path(scratch), folder / STOCK_WHEEL_NAME, sha256)
        except OSError as error:
            say("cannot keep downloads in %s (%s)" % (folder, error.strerror))
    raise Stop(
        "the TensorFlow wheel could not be stored: neither %s nor %s can be written" % tuple(homes)
    )


def _is_intact(path, sha256):
    """True when the file is there, can be read and has this checksum."""
    try:
        return file_digest(path) == sha256
    except OSError:
        return False


def cache_home():
    """Where downloads are kept between checkouts."""
    chosen = os.environ.get("SENTINEL_CACHE")
    if chosen:
        return Path(chosen).expanduser().resolve()
    return Path(os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")) / "sentinel"


def _download(python, scratch, wheel, sha256):
    """Lets pip fetch the wheel into `scratch`, checks it and moves it to its place at once, so no part is ever seen."""
    say("downloading %s (93 MB)" % wheel.name)
    command = [
        python,
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--require-hashes",
        "--only-binary=:all:",
        "--no-cache-dir",
    ]
    # For the Python that the wheel is made for, whichever this one is.
    command += ["--platform", "manylinux1_x86_64", "--implementation", "cp"]
    command += ["--python-version", "37", "--abi", "cp37m"]
    command += ["--disable-pip-version-check", "-d", scratch, "-r", STOCK_LOCK]
    run_logged("download", command)
    got = scratch / wheel.name
    if not _is_intact(got, sha256):
        raise Stop("the downloaded TensorFlow is not %s with sha256 %s" % (wheel.name, sha256))
    os.replace(str(got), str(wheel))
    return wheel
