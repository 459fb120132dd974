"""`tools/dev wheel`: the drop-in wheel by Bazel, which is installed when it is missing."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import venvs
from pythons import find_build_python, find_python
from util import (
    BUILD,
    ROOT,
    Stop,
    clean_env,
    file_digest,
    key_of,
    need_programs,
    need_rust,
    one_at_a_time,
    run_logged,
    say,
)

TARGET = "//tensorflow/tools/pip_package:build_pip_package"
OUT = BUILD / "bazel-wheel"
# By the name that the user gives: where it comes from, and the sha256 of the program.
FIRST, SECOND = "0.21.0", "4.2.3"
_NPM_PACKAGE = "@bazel/bazel-linux_x64@" + FIRST
_NPM_PROGRAM = "node_modules/@bazel/bazel-linux_x64/bazel-0.21.0-linux-x86_64"
_FIRST_SHA256 = "7a2f347d779c4c772cdb318f0435f8d489a238be42e7a9bf1e2bad94b1c3094f"
_DEBIAN_PACKAGE = "bazel-bootstrap"
USAGE = "wheel takes only --verify and --bazel=%s or --bazel=%s" % (FIRST, SECOND)


def wheel(arguments):
    """Builds the wheel; with --verify also tests it and prints one line of JSON last. Returns an exit code."""
    version = FIRST
    for argument in arguments:
        if argument in ("--bazel=" + FIRST, "--bazel=" + SECOND):
            version = argument.split("=")[1]
        elif argument != "--verify":
            raise Stop("%s, but got: %s" % (USAGE, " ".join(arguments)))
    need_programs("cargo", "g++", "nm", "ldd", "readelf")
    need_rust()
    # Here rather than in the middle of the build, where the reason would be one line among many.
    find_build_python()
    # Only the test of the wheel needs a Python 3.7; who names one for nothing is told when it is none.
    if "--verify" in arguments or os.environ.get("SENTINEL_PYTHON"):
        find_python()
    with one_at_a_time():
        bazel = Bazel(version)
        path = bazel.build()
        say("the wheel: %s" % path.relative_to(ROOT))
        return verify(bazel, path) if "--verify" in arguments else 0


class Bazel:
    """One version of Bazel, with its caches outside the checkout."""

    def __init__(self, version):
        self.version = version
        self._home = venvs.cache_home() / "bazel"
        # What speaks to tools/dev speaks to the rules that call it, too.
        self._own = {
            key: os.environ[key]
            for key in ("SENTINEL_PYTHON", "SENTINEL_CACHE")
            if key in os.environ
        }
        self._program, self._env = _first(self._home) if version == FIRST else _second()
        # One for each version: they do not understand what the other has left.
        self._output = self._home / "output" / version
        _forget_removed_checkouts(self._output)

    def build(self):
        """Builds the wheel and copies it to build/bazel-wheel. Returns its path."""
        if self.run("build", TARGET):
            raise Stop("bazel build failed (see above)")
        shutil.rmtree(str(OUT), ignore_errors=True)
        script = ROOT / "bazel-bin" / "tensorflow" / "tools" / "pip_package" / "build_pip_package"
        run_logged("build_pip_package", [script, OUT])
        (made,) = OUT.glob("*.whl")
        return made

    def run(self, verb, *words, from_nothing=False):
        """Runs Bazel and returns its exit code. Cargo's files are kept between builds unless `from_nothing`."""
        flags = ["--config=opt"]
        if not sys.stdout.isatty():
            flags += ["--curses=no", "--color=no", "--noshow_progress"]
        if not from_nothing:
            kept = self._home / "cargo" / _toolchain_key()
            kept.mkdir(parents=True, exist_ok=True)
            flags += ["--define=cargo_cache=%s" % kept, "--sandbox_writable_path=%s" % kept]
        startup = ["--output_user_root=%s" % self._output, "--max_idle_secs=600"]
        command = [str(self._program)] + startup + [verb] + flags + list(words)
        return subprocess.call(command, cwd=str(ROOT), env=clean_env(**self._env, **self._own))


def verify(bazel, path):
    """Tests the wheel and prints what was found as one line of JSON. Returns 1 when a promise is broken."""
    stock = venvs.stock_wheel(sys.executable)
    inspect = [
        sys.executable,
        str(ROOT / "tools" / "bazel" / "inspect_wheel.py"),
        str(path),
        str(stock),
    ]
    result = subprocess.run(inspect, stdout=subprocess.PIPE, env=clean_env())
    output = result.stdout.decode().splitlines()
    for line in output[:-1]:
        say(line)
    found = json.loads(output[-1])
    reproducible = not bazel.run("test", "//tests/bazel:reproducible_test", from_nothing=True)
    works = not bazel.run("test", "//tests/bazel:wheel_test", "//tests/bazel:symbols_test")
    summary = {
        "reproducible": reproducible,
        "undefined_symbols": found["undefined_symbols"],
        "max_glibc": found["max_glibc"],
        "max_glibcxx": found["max_glibcxx"],
        "install_ok": works,
    }
    print(json.dumps(summary), flush=True)
    return 0 if reproducible and works and not result.returncode else 1


def _first(home):
    """TensorFlow 1.13's own Bazel, from its npm package for this platform. Returns program and environment."""
    program = home / FIRST / "bazel"
    if not (program.is_file() and file_digest(program) == _FIRST_SHA256):
        if shutil.which("npm") is None:
            raise Stop(
                "npm is missing, which brings Bazel %s: apt-get install npm; or take --bazel=%s"
                % (FIRST, SECOND)
            )
        say("installing Bazel %s (163 MB)" % FIRST)
        program.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=str(program.parent)) as scratch:
            run_logged(
                "npm",
                ["npm", "install", "--no-audit", "--no-fund", "--prefix", scratch, _NPM_PACKAGE],
            )
            got = Path(scratch) / _NPM_PROGRAM
            if not got.is_file() or file_digest(got) != _FIRST_SHA256:
                raise Stop(
                    "npm's %s is not the Bazel with sha256 %s" % (_NPM_PACKAGE, _FIRST_SHA256)
                )
            got.chmod(0o755)
            os.replace(str(got), str(program))
    return program, {}


def _second():
    """Debian's Bazel, whose wrapper would refuse what .bazelversion names. Returns program and environment."""
    if shutil.which("bazel") is None:
        if os.geteuid() or shutil.which("apt-get") is None:
            raise Stop("Bazel %s is missing: apt-get install %s" % (SECOND, _DEBIAN_PACKAGE))
        say("installing %s" % _DEBIAN_PACKAGE)
        env = clean_env(DEBIAN_FRONTEND="noninteractive")
        install = ["apt-get", "install", "-q", "-y", "--no-install-recommends", _DEBIAN_PACKAGE]
        run_logged("apt-get", install, env=env)
    return shutil.which("bazel"), {"USE_BAZEL_VERSION": "4"}


def _toolchain_key():
    """A key of the compilers: what one of them made is of no use to another."""
    versions = [
        subprocess.check_output(command) for command in (["rustc", "-vV"], ["g++", "--version"])
    ]
    return key_of([version.decode() for version in versions])[:16]


def _forget_removed_checkouts(output):
    """Removes what Bazel keeps for checkouts that are gone: about a gigabyte each."""
    for note in output.glob("*/DO_NOT_BUILD_HERE"):
        if not Path(note.read_text().strip()).exists():
            # Bazel takes the right to write from folders that it has made.
            subprocess.call(["chmod", "-R", "u+w", str(note.parent)])
            shutil.rmtree(str(note.parent), ignore_errors=True)
