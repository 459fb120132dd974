"""The trace that a training writes is one that the command line tool accepts."""

import json
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SMALL_TRAINING = Path(__file__).parent / "scenarios/small_training.py"
OPTIONS = {"slow": "emulated:optane", "fast_fraction": 0.5, "warmup_steps": 1}


@pytest.fixture(scope="session")
def sentinel():
    """sentinel(*arguments) runs the command line tool and returns the finished process."""
    target = ROOT / "sentinel_rs/target"
    built = [
        path for path in (target / "release/sentinel", target / "debug/sentinel") if path.exists()
    ]
    if not built:
        subprocess.run(
            ["cargo", "build", "--locked", "--bin", "sentinel"],
            cwd=str(ROOT / "sentinel_rs"),
            check=True,
        )
        built = [target / "debug/sentinel"]
    newest = max(built, key=lambda path: path.stat().st_mtime)

    def sentinel(*arguments):
        command = [str(part) for part in (newest, *arguments)]
        return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    return sentinel


@pytest.fixture(scope="module", params=["variable", "option"])
def trace(request, start, sentinel_python, tmp_path_factory):
    """The path of a trace, and the statistics of the training that wrote it."""
    path = tmp_path_factory.mktemp("trace") / "step.trace"
    by_variable = request.param == "variable"
    options = OPTIONS if by_variable else {**OPTIONS, "trace_path": str(path)}
    variables = {"SENTINEL_TRACE": str(path)} if by_variable else {}
    finished = start(sentinel_python, SMALL_TRAINING, json.dumps(options), **variables).wait()
    finished.assert_clean()
    return path, json.loads(finished.out.splitlines()[-1])


def test_check_accepts_the_trace(sentinel, trace):
    path, stats = trace
    assert stats["trace_error"] is None
    checked = sentinel("trace", "check", path)
    assert checked.returncode == 0, checked.stdout
    assert "well-formed" in checked.stdout


def test_show_lists_the_operations_of_the_training(sentinel, trace):
    shown = sentinel("trace", "show", trace[0])
    assert shown.returncode == 0, shown.stdout
    for kind in ("MatMul", "Tanh", "ApplyMomentum"):
        assert kind in shown.stdout, shown.stdout


def test_stats_agrees_with_the_running_process(sentinel, trace):
    path, stats = trace
    summed = sentinel("trace", "stats", path, "--json")
    assert summed.returncode == 0, summed.stdout
    assert stats["peak_bytes"] in json.loads(summed.stdout).values(), (summed.stdout, stats)


def test_a_damaged_trace_is_refused(sentinel, trace, tmp_path):
    whole = trace[0].read_bytes()
    damaged = tmp_path / "damaged.trace"
    for content in (
        whole[:-1],
        whole[: len(whole) // 2] + b"\xff" + whole[len(whole) // 2 + 1 :],
        b"",
        b"text",
    ):
        damaged.write_bytes(content)
        checked = sentinel("trace", "check", damaged)
        assert checked.returncode == 1, checked.stdout
        assert str(damaged) in checked.stdout
