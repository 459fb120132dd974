"""How the native library comes into a process: early with the wheel, late, once, or not at all."""

import json
import shutil
from pathlib import Path

import pytest

LOADING = Path(__file__).parent / "scenarios/loading.py"
SETTINGS = {
    "SENTINEL_FAST": "50%",
    "SENTINEL_SLOW": "emulated:optane",
    "SENTINEL_WARMUP_STEPS": "1",
}


@pytest.fixture(scope="session")
def library(start, sentinel_python):
    """The native library inside the wheel with Sentinel."""
    code = "import os, tensorflow; print(os.path.dirname(tensorflow.__file__))"
    finished = start(sentinel_python, "-c", code).wait()
    finished.assert_clean()
    return Path(finished.out.strip()) / "libsentinel.so"


@pytest.fixture(scope="session")
def stock_losses(start, stock_python):
    finished = start(stock_python, LOADING, "import").wait()
    finished.assert_clean()
    return json.loads(finished.out.splitlines()[-1])["after"]


@pytest.mark.parametrize("moment", ["import", "session", "devices"])
def test_late_loading_into_stock_tensorflow(start, stock_python, library, stock_losses, moment):
    """TensorFlow ends the process when its allocator is replaced after the first allocation; Sentinel must not try."""
    finished = start(stock_python, LOADING, moment, library, **SETTINGS).wait()
    finished.assert_clean()
    assert f"loaded {library}" in finished.out
    result = json.loads(finished.out.splitlines()[-1])
    assert result["after"] == stock_losses
    assert result["before"] in (None, stock_losses)
    assert result["stats"]["active"], result
    assert result["stats"]["steps_managed"] > 0, result


def test_late_loading_after_eager_operations(start, stock_python, library, stock_losses):
    finished = start(stock_python, LOADING, "eager", library, **SETTINGS).wait()
    finished.assert_clean()
    result = json.loads(finished.out.splitlines()[-1])
    assert result["after"] == stock_losses
    assert result["stats"]["steps_managed"] > 0, result


def assert_second_copy_is_told_once(finished):
    """One clear line, whether TensorFlow passes it on as an exception or the library says it itself."""
    finished.assert_clean()
    said = [
        line
        for line in finished.text.splitlines()
        if "a copy of libsentinel.so is loaded already" in line
    ]
    assert len(said) == 1, finished.text
    assert "accepted is one copy in a process" in said[0], finished.text


def test_a_second_copy_is_told_and_the_first_goes_on(
    start, sentinel_python, library, stock_losses, tmp_path
):
    copy = tmp_path / "libsentinel.so"
    shutil.copy(str(library), str(copy))
    finished = start(sentinel_python, LOADING, "session", copy, **SETTINGS).wait()
    assert_second_copy_is_told_once(finished)
    result = json.loads(finished.out.splitlines()[-1])
    assert (result["before"], result["after"]) == (stock_losses, stock_losses)


def test_two_late_copies_are_one_too_many(start, stock_python, library, stock_losses, tmp_path):
    copy = tmp_path / "other.so"
    shutil.copy(str(library), str(copy))
    finished = start(stock_python, LOADING, "import", library, copy, **SETTINGS).wait()
    assert_second_copy_is_told_once(finished)
    result = json.loads(finished.out.splitlines()[-1])
    assert result["after"] == stock_losses
    assert result["stats"]["steps_managed"] > 0, result


def test_switched_off_it_is_not_even_loaded(start, sentinel_python):
    code = (
        "import json, tensorflow as tf\n"
        "x = tf.sentinel.add_layer(tf.constant([1.0, 2.0]))\n"
        "with tf.Session() as session:\n"
        "    session.run([tf.sentinel.start_profile(), x, tf.gradients(x * x, x)[0], tf.sentinel.end_profile()])\n"
        "assert 'libsentinel' not in open('/proc/self/maps').read()\n"
        "print(json.dumps(tf.sentinel.stats()))\n"
    )
    finished = start(sentinel_python, "-c", code, SENTINEL="0").wait()
    finished.assert_clean()
    assert not json.loads(finished.out)["active"]
