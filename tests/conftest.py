"""Finds the interpreters and runs child processes for the tests."""

import json
import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CHILD_SECONDS_AT_MOST = 240


def pytest_addoption(parser):
    parser.addoption(
        "--sentinel-python",
        default=str(ROOT / ".venv/bin/python"),
        help="interpreter whose TensorFlow has Sentinel",
    )
    parser.addoption(
        "--stock-python",
        default=str(ROOT / ".venv-stock/bin/python"),
        help="interpreter with stock TensorFlow 1.13.1",
    )


def interpreter(request, option, what):
    path = Path(request.config.getoption(option))
    if not path.exists():
        pytest.fail(
            f"{option}: no interpreter with {what} at '{path}'; tools/dev setup makes it",
            pytrace=False,
        )
    return path


@pytest.fixture(scope="session")
def sentinel_python(request):
    return interpreter(request, "--sentinel-python", "Sentinel")


@pytest.fixture(scope="session")
def stock_python(request):
    return interpreter(request, "--stock-python", "stock TensorFlow")


class Child:
    """A started process; wait() gives its exit code and output."""

    def __init__(self, command, settings):
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("SENTINEL")
        }
        environment.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
        environment.update(settings)
        self._command = [str(part) for part in command]
        self._process = subprocess.Popen(
            self._command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            universal_newlines=True,
        )

    def is_running(self):
        return self._process.poll() is None

    def wait(self):
        try:
            out, err = self._process.communicate(timeout=CHILD_SECONDS_AT_MOST)
        except subprocess.TimeoutExpired:
            self._process.kill()
            out, err = self._process.communicate()
            pytest.fail(
                f"{' '.join(self._command)} did not end within {CHILD_SECONDS_AT_MOST} s\n{out}\n{err}"
            )
        return Finished(self._process.returncode, out, err)


class Finished:
    """What a process left: its exit code, negative for a signal, and its two outputs."""

    CRASH_WORDS = (
        "Check failed",
        "core dumped",
        "Segmentation fault",
        "terminate called",
        "panicked at",
        "double free",
        "corrupted",
    )

    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err
        self.text = f"exit code {code}\n--- stdout\n{out}\n--- stderr\n{err}"

    def assert_no_crash(self):
        assert self.code >= 0, f"ended by signal {-self.code}; {self.text}"
        for word in self.CRASH_WORDS:
            assert word not in self.err, f"'{word}' in the output; {self.text}"

    def assert_clean(self):
        self.assert_no_crash()
        assert self.code == 0, self.text


@pytest.fixture(scope="session")
def train_both(start, stock_python, sentinel_python):
    """train_both(folder, script, options, sentinel_options): losses as text and results, by kind of TensorFlow."""

    def train_both(folder, script, options, sentinel_options):
        children = {}
        for kind, python, more in (
            ("stock", stock_python, []),
            ("sentinel", sentinel_python, sentinel_options),
        ):
            outputs = ["--losses-out", folder / f"{kind}.losses"]
            outputs += ["--json-out", folder / f"{kind}.json"]
            children[kind] = start(python, script, *options, *more, *outputs)
        for child in children.values():
            child.wait().assert_clean()
        return {
            kind: (
                (folder / f"{kind}.losses").read_text(),
                json.loads((folder / f"{kind}.json").read_text()),
            )
            for kind in children
        }

    return train_both


@pytest.fixture(scope="session")
def start():
    """start(python, *arguments, **environment) starts a child without any SENTINEL_* setting but those given."""

    def start(python, *arguments, **environment):
        return Child([python, "-W", "ignore", *arguments], environment)

    return start
