"""`sentinel run` and `sentinel doctor` with the real TensorFlow: an unedited script, and what is told about it."""

import json
import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TRAINING = ROOT / "tests/scenarios/small_training.py"


@pytest.fixture(scope="session")
def program():
    """The command line, built from this checkout."""
    command = ["cargo", "build", "--locked", "-p", "cli", "--message-format=json"]
    output = subprocess.run(
        command,
        cwd=str(ROOT / "sentinel_rs"),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=True,
        text=True,
    ).stdout
    made = [json.loads(line).get("executable") for line in output.splitlines()]
    (path,) = [path for path in made if path]
    return path


@pytest.fixture
def run(program, start, sentinel_python):
    """run(options, *command) gives what `sentinel run` left."""

    def run(options, *command, **variables):
        become = "import os, sys; os.execv(sys.argv[1], sys.argv[1:])"
        arguments = [program, "run", *options, "--", *command]
        return start(sentinel_python, "-c", become, *arguments, **variables).wait()

    return run


def told(finished):
    return [line for line in finished.err.splitlines() if line.startswith("sentinel: ")]


EMULATED = ["--fast", "50%", "--slow", "emulated:cxl"]


def test_an_unedited_script_runs_under_sentinel_and_five_lines_prove_it(run, sentinel_python):
    finished = run(EMULATED, sentinel_python, TRAINING, "{}", SENTINEL_WARMUP_STEPS="1")
    finished.assert_clean()
    stats = json.loads(finished.out.splitlines()[-1])
    lines = told(finished)[-5:]
    assert lines[0].startswith("sentinel: was on: policy gap, fast memory "), finished.text
    assert lines[0].endswith("slow memory emulated:cxl"), lines
    assert lines[1].startswith(
        f"sentinel: steps: {stats['steps_managed']} followed a plan, of {stats['steps_seen']} "
    ), (lines, stats)
    assert stats["steps_managed"] > 0, stats


def test_a_script_that_is_killed_has_told_what_it_did(run, sentinel_python, tmp_path):
    script = tmp_path / "killed.py"
    script.write_text(
        "import os, sys\n"
        f"sys.path.insert(0, {str(TRAINING.parent)!r})\n"
        "sys.argv = ['x', '{}']\n"
        "import small_training\n"
        "small_training.main()\n"
        "os.kill(os.getpid(), 9)\n"
    )
    finished = run(EMULATED, sentinel_python, script, SENTINEL_WARMUP_STEPS="1")
    assert finished.code == -9, finished.text
    assert told(finished)[-5].startswith("sentinel: was on: "), finished.text


def test_without_a_budget_it_was_not_on(run, sentinel_python):
    finished = run([], sentinel_python, TRAINING, "{}")
    finished.assert_clean()
    assert told(finished)[0].startswith("sentinel: was not on: "), finished.text
    assert "--fast" in told(finished)[1], finished.text


def test_stock_tensorflow_is_named_as_such(run, stock_python):
    finished = run(EMULATED, stock_python, "-c", "import tensorflow")
    finished.assert_clean()
    assert "TensorFlow 1.13.1 without Sentinel" in told(finished)[-1], finished.text


def test_what_the_runtime_refuses_is_not_called_on(run, sentinel_python):
    finished = run(["--fast", "50%", "--slow", "node:9"], sentinel_python, TRAINING, "{}")
    finished.assert_clean()
    assert "was not on" in told(finished)[-2] and "node:9" in told(finished)[-1], finished.text


def test_a_folder_for_statistics_that_is_not_there_stops_before_training(start, sentinel_python):
    finished = start(
        sentinel_python, TRAINING, "{}", SENTINEL_FAST="50%", SENTINEL_STATS="/nowhere/at/all"
    ).wait()
    assert finished.code != 0 and "trained" not in finished.out, finished.text
    assert "SENTINEL_STATS = /nowhere/at/all: cannot be written" in finished.err, finished.text


def test_every_process_leaves_its_statistics(start, sentinel_python, tmp_path):
    options = json.dumps({"fast_fraction": 0.5, "slow": "emulated:cxl", "warmup_steps": 1})
    finished = start(sentinel_python, TRAINING, options, SENTINEL_STATS=str(tmp_path)).wait()
    finished.assert_clean()
    (left,) = list(tmp_path.iterdir())
    at_exit = json.loads(left.read_text())
    assert at_exit["steps_managed"] == json.loads(finished.out.splitlines()[-1])["steps_managed"]


def test_doctor_finds_the_plugin_active(program, sentinel_python):
    command = [program, "doctor", "--quick", "--json", "--python", str(sentinel_python)]
    environment = {key: value for key, value in os.environ.items() if "SENTINEL" not in key}
    done = subprocess.run(command, stdout=subprocess.PIPE, env=environment, text=True)
    report = json.loads(done.stdout)
    assert report["python"]["tried"]["active"], report["python"]
    assert done.returncode == (0 if report["ready"] else 1)
