"""The wheel by Bazel: built, tested and compared with the one of tools/dev setup."""

import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DEV = ROOT / "tools" / "dev"
sys.path.insert(0, str(ROOT / "tools" / "devtool"))

import bazel as devtool_bazel  # noqa: E402
import util  # noqa: E402

# They differ in the folders that they were compiled in; `//tests/bazel:reproducible_test` compares those of Bazel.
NATIVE = ("/libsentinel.so", "/scripts/sentinel", "/RECORD")


def dev(*arguments, **settings):
    """Runs tools/dev and returns the finished process."""
    command = [str(DEV)] + list(arguments)
    return subprocess.run(command, env=dict(os.environ, **settings), capture_output=True, text=True)


@pytest.fixture(scope="module")
def wheel():
    """The wheel that Bazel has built."""
    result = dev("wheel")
    assert result.returncode == 0, result.stdout + result.stderr
    (path,) = (ROOT / "build" / "bazel-wheel").glob("*.whl")
    return path


def members(path):
    """Name and checksum of every file in a wheel but the native ones, and the names of all."""
    with zipfile.ZipFile(str(path)) as archive:
        infos = archive.infolist()
    return {info.filename: info.CRC for info in infos if not info.filename.endswith(NATIVE)}, {
        info.filename for info in infos
    }


def test_both_builds_give_the_same_contents(wheel):
    (other,) = (ROOT / "build" / "wheel").glob("*.whl")
    assert wheel.name == other.name
    assert members(wheel) == members(other)


def test_a_second_call_has_nothing_to_do(wheel):
    began = time.monotonic()
    result = dev("wheel")
    seconds = time.monotonic() - began
    assert result.returncode == 0, result.stdout + result.stderr
    print("second call: %.1f s" % seconds)
    # 5 s on an idle machine; a busy one must still be far from building anything.
    assert seconds < 60, result.stdout


@pytest.mark.parametrize(
    "target",
    [
        "//tensorflow/core/sentinel:shim_test",
        "//tests/bazel:symbols_test",
        "//tests/bazel:wheel_test",
    ],
)
def test_bazel_tests_pass(wheel, target):
    assert devtool_bazel.Bazel(devtool_bazel.FIRST).run("test", target) == 0


def test_the_command_of_bazel_copies_the_wheel(wheel, tmp_path):
    script = ROOT / "bazel-bin" / "tensorflow" / "tools" / "pip_package" / "build_pip_package"
    result = subprocess.run([str(script), str(tmp_path / "new")], capture_output=True, text=True)
    copied = tmp_path / "new" / wheel.name
    assert result.returncode == 0 and str(copied) in result.stdout
    assert copied.read_bytes() == wheel.read_bytes()
    assert subprocess.run([str(script)], capture_output=True).returncode == 2


def test_a_missing_compiler_is_one_line(tmp_path):
    for name in ("bash", "dirname", "python3", "cargo", "nm", "ldd", "readelf", "cat"):
        # The system's own, because a version manager's stand-in would look for its programs on PATH.
        (tmp_path / name).symlink_to(shutil.which(name, path="/usr/bin:/bin") or shutil.which(name))
    result = dev("wheel", PATH=str(tmp_path))
    assert result.returncode == 1
    assert result.stderr == "tools/dev: g++ is missing: apt-get install g++\n"


def test_a_wrong_python_is_one_line():
    result = dev("wheel", SENTINEL_PYTHON="/usr/bin/python3")
    assert result.returncode == 1
    assert result.stderr.startswith(
        "tools/dev: SENTINEL_PYTHON=/usr/bin/python3 cannot be used: it is Python 3."
    )
    assert len(result.stderr.splitlines()) == 1


def test_a_bazel_that_is_not_the_pinned_one_is_not_run(tmp_path, monkeypatch):
    npm = tmp_path / "npm"
    npm.write_text(
        '#!/bin/bash\nwhile [ "$1" != --prefix ]; do shift; done\n'
        'mkdir -p "$(dirname "$2/%s")"; echo "exit 0" > "$2/%s"\n'
        % (devtool_bazel._NPM_PROGRAM, devtool_bazel._NPM_PROGRAM)
    )
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", "%s:/usr/bin:/bin" % tmp_path)
    monkeypatch.setenv("SENTINEL_CACHE", str(tmp_path / "cache"))
    with pytest.raises(util.Stop, match="is not the Bazel with sha256"):
        devtool_bazel.Bazel(devtool_bazel.FIRST)
    assert not list((tmp_path / "cache").rglob("bazel-0.21.0*"))


def test_without_a_tree_rules_rust_is_skipped_and_a_wrong_one_is_named(
    capfd, monkeypatch, tmp_path
):
    target = "//tools/bazel/rules_rust:sentinel_ffi"
    bazel = devtool_bazel.Bazel(devtool_bazel.FIRST)
    # Bazel looks at the variable anew when it has changed.
    monkeypatch.setenv("RULES_RUST_SRC", str(tmp_path))
    assert bazel.run("build", "--config=rules_rust", target) != 0
    said = capfd.readouterr()
    assert "RULES_RUST_SRC = %s: there is no rust/" % tmp_path in said.out + said.err
    monkeypatch.delenv("RULES_RUST_SRC")
    assert bazel.run("build", "--config=rules_rust", target) == 0
    said = capfd.readouterr()
    assert "skipped: RULES_RUST_SRC not set" in said.out + said.err


@pytest.mark.long
def test_two_builds_from_nothing_are_the_same():
    result = dev("wheel", "--verify")
    assert result.returncode == 0, result.stdout + result.stderr
    found = json.loads(result.stdout.splitlines()[-1])
    assert found["reproducible"] and found["install_ok"] and found["undefined_symbols"] == 0, found
    assert int(found["max_glibc"].split(".")[1]) <= 28, found


@pytest.mark.long
def test_all_targets_pass():
    assert devtool_bazel.Bazel(devtool_bazel.FIRST).run("test", "//...") == 0


@pytest.mark.long
def test_the_second_bazel_builds_the_same_wheel(wheel):
    first = wheel.read_bytes()
    result = dev("wheel", "--bazel=" + devtool_bazel.SECOND)
    assert result.returncode == 0, result.stdout + result.stderr
    (path,) = (ROOT / "build" / "bazel-wheel").glob("*.whl")
    assert path.read_bytes() == first
