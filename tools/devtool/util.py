"""What every step of tools/dev needs: places, messages, running a command, and knowing what is up to date."""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build"
TOOLS_VENV = BUILD / "venv-tools"
VENV = ROOT / ".venv"
STOCK_VENV = ROOT / ".venv-stock"

# How to get a missing program on Debian and its like.
HOW_TO_GET = {
    "cargo": "see https://rustup.rs (Debian's own is too old)",
    "g++": "apt-get install g++",
    "ldd": "apt-get install libc-bin",
    "nm": "apt-get install binutils",
    "readelf": "apt-get install binutils",
    "rustc": "see https://rustup.rs (Debian's own is too old)",
}


class Stop(Exception):
    """Ends tools/dev with one line that tells the user what is wrong and what to do."""


def say(text):
    """Prints one line of progress."""
    print("==> " + text, flush=True)


def need_programs(*names):
    """Stops unless every one of the programs can be run."""
    missing = [name for name in names if shutil.which(name) is None]
    if missing:
        raise Stop("; ".join("%s is missing: %s" % (name, HOW_TO_GET[name]) for name in missing))


def need_rust():
    """Stops unless the Rust toolchain is there and new enough for the workspace."""
    need_programs("cargo", "rustc")
    manifest = (ROOT / "sentinel_rs" / "Cargo.toml").read_text()
    oldest = re.search(r'^rust-version = "(\d+)\.(\d+)"', manifest, re.MULTILINE).groups()
    for name in ("cargo", "rustc"):
        said = subprocess.run([name, "--version"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        text = said.stdout.decode(errors="replace").strip()
        found = re.search(r"(\d+)\.(\d+)\.\d+", text)
        if said.returncode or not found:
            raise Stop("%s cannot be used: %s" % (name, text.split("\n")[-1]))
        if tuple(map(int, found.groups())) < tuple(map(int, oldest)):
            wanted = (text, ".".join(oldest), HOW_TO_GET["cargo"])
            raise Stop("%s is too old: Rust %s or later is needed, %s" % wanted)


@contextlib.contextmanager
def one_at_a_time():
    """Keeps a second tools/dev in this checkout waiting while this one builds and installs."""
    BUILD.mkdir(exist_ok=True)
    with open(str(BUILD / "lock"), "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another tools/dev in this checkout")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def clean_env(**extra):
    """The environment for programs that are started.

    SENTINEL_PYTHON and SENTINEL_CACHE speak to tools/dev alone: TensorFlow with Sentinel refuses names that it does not
    know. PYTHONPATH and PYTHONHOME would let another Python's packages into ours.
    """
    hidden = (
        "SENTINEL_PYTHON",
        "SENTINEL_CACHE",
        "PYTHONPATH",
        "PYTHONHOME",
        "PYTHONDONTWRITEBYTECODE",
    )
    env = {name: value for name, value in os.environ.items() if name not in hidden}
    env.update(extra)
    return env


def run_logged(name, command, **options):
    """Runs a command whose output matters only when it fails; the whole of it is in build/logs/NAME.log."""
    log = BUILD / "logs" / (name + ".log")
    log.parent.mkdir(parents=True, exist_ok=True)
    options.setdefault("env", clean_env())
    with open(str(log), "w") as stream:
        stream.write("$ %s\n" % " ".join(str(part) for part in command))
        stream.flush()
        code = subprocess.call(
            [str(part) for part in command], stdout=stream, stderr=stream, **options
        )
    if code:
        print("\n".join(log.read_text(errors="replace").splitlines()[-40:]), flush=True)
        raise Stop(
            "%s failed with exit code %d; all it said is in %s"
            % (name, code, log.relative_to(ROOT))
        )


def file_digest(path):
    """The sha256 of a file's content, in hexadecimal."""
    digest = hashlib.sha256()
    with open(str(path), "rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def key_of(*parts):
    """One digest of files (by content, for a Path) and of plain values."""
    digest = hashlib.sha256()
    for part in parts:
        text = file_digest(part) if isinstance(part, Path) else json.dumps(part)
        digest.update(("%d:%s" % (len(text), text)).encode())
    return digest.hexdigest()


def is_fresh(stamp, key):
    """True when `stamp` says that its product was made from inputs with this key."""
    try:
        return stamp.read_text().strip() == key
    except OSError:
        return False


def write_stamp(stamp, key):
    """Records that the product is made. To be called last, so that a broken run leaves no stamp."""
    stamp.parent.mkdir(parents=True, exist_ok=True)
    stamp.write_text(key + "\n")
