"""What a user gets wrong stops before training and says how to put it right; what a machine lacks is the user's choice.

Every message names the option, the value it has and the values that are accepted.
"""

import json
import os
from pathlib import Path

import pytest

SMALL_TRAINING = Path(__file__).parent / "scenarios/small_training.py"
EMULATED = {"slow": "emulated:optane", "fast_fraction": 0.5, "warmup_steps": 1}
MIB = 1 << 20
# The published policy names the fast bytes it needs; ours needs next to none.
NEEDY = {**EMULATED, "policy": "hpca21", "fast_fraction": 0}


@pytest.fixture
def train(start, sentinel_python):
    """train(options, sessions=1, **variables) runs the small training to its end."""

    def train(options, sessions=1, **variables):
        arguments = [SMALL_TRAINING, json.dumps(options), str(sessions)]
        finished = start(sentinel_python, *arguments, **variables).wait()
        finished.assert_no_crash()
        return finished

    return train


def stats_of(finished):
    finished.assert_clean()
    return json.loads(finished.out.splitlines()[-1])


def assert_refused(finished, parts):
    """The training ended before it began, and the message has all these parts."""
    assert finished.code != 0, finished.text
    assert "trained" not in finished.out, finished.text
    message = [line for line in finished.err.splitlines() if "sentinel" in line.lower()]
    assert any(all(part in line for part in parts) for line in message), (parts, finished.text)


BAD_OPTIONS = {
    "unknown policy": (
        {"policy": "hpca22"},
        ["policy", "hpca22", "hpca21", "first_touch", "fast_only", "slow_only"],
    ),
    "unknown slow tier": ({"slow": "tape"}, ["slow", "tape", "emulated:MACHINE", "numa", "node:"]),
    "unknown machine": ({"slow": "emulated:abacus"}, ["slow", "abacus", "optane", "cxl"]),
    "unparsable node": ({"slow": "node:x"}, ["slow", "node:x", "node:N"]),
    "unparsable fast node": ({"fast_nodes": "first"}, ["fast_nodes", "first", "node:N"]),
    "negative bytes": ({"fast_fraction": 0, "fast_bytes": -5}, ["fast_bytes", "-5", "above 0"]),
    "bytes and share": (
        {"fast_bytes": 5 * MIB},
        ["fast_bytes", "fast_fraction", str(5 * MIB), "0.5"],
    ),
    "share above one": ({"fast_fraction": 1.5}, ["fast_fraction", "1.5", "above 0", "at most 1"]),
    "negative share": ({"fast_fraction": -0.2}, ["fast_fraction", "-0.2", "above 0", "at most 1"]),
    "negative bandwidth": ({"migration_gbps": -1}, ["migration_gbps", "-1", "0.0001 to 1000000"]),
    "a policy without the budget it needs": (
        {"fast_fraction": 0, "policy": "first_touch"},
        ["policy", "first_touch", "fast_bytes", "fast_fraction", "SENTINEL_FAST"],
    ),
}


@pytest.mark.parametrize("case", BAD_OPTIONS)
def test_a_bad_option_stops_before_training(train, case):
    options, parts = BAD_OPTIONS[case]
    assert_refused(train({**EMULATED, **options}), parts)


BAD_VARIABLES = {
    "unknown variable": (
        {"SENTINEL_XYZ": "1"},
        ["SENTINEL_XYZ", "1", "SENTINEL_FAST", "SENTINEL_SLOW"],
    ),
    "unparsable budget": ({"SENTINEL_FAST": "lots"}, ["SENTINEL_FAST", "lots", "20%", "G"]),
    "share above all": ({"SENTINEL_FAST": "120%"}, ["SENTINEL_FAST", "120%", "100%"]),
    "unknown policy": ({"SENTINEL_POLICY": "best"}, ["olicy", "best", "hpca21", "first_touch"]),
    "unknown slow tier": ({"SENTINEL_SLOW": "disk"}, ["disk", "emulated:MACHINE", "numa", "node:"]),
    "unknown failure mode": (
        {"SENTINEL_FAILURE": "loud"},
        ["SENTINEL_FAILURE", "loud", "advisory", "strict", "off"],
    ),
    "unparsable steps": (
        {"SENTINEL_WARMUP_STEPS": "few"},
        ["SENTINEL_WARMUP_STEPS", "few", "from 0"],
    ),
    "unparsable bandwidth": (
        {"SENTINEL_MIGRATION_GBPS": "fast"},
        ["SENTINEL_MIGRATION_GBPS", "fast", "10^9 bytes"],
    ),
    "neither on nor off": ({"SENTINEL": "yes"}, ["SENTINEL", "yes", "0", "1"]),
}


@pytest.mark.parametrize("case", BAD_VARIABLES)
def test_a_bad_variable_stops_before_training(train, case):
    variables, parts = BAD_VARIABLES[case]
    assert_refused(train(EMULATED, **variables), parts)


@pytest.mark.parametrize("path", ["/nowhere/at/all/step.trace", "/"])
@pytest.mark.parametrize("by_variable", [False, True])
def test_an_unwritable_trace_path_stops_before_training(train, path, by_variable):
    if by_variable:
        finished = train(EMULATED, SENTINEL_TRACE=path)
    else:
        finished = train({**EMULATED, "trace_path": path})
    assert_refused(finished, ["trace_path", path, "accepted"])


def test_a_pipe_as_trace_path_is_refused_and_not_waited_for(train, tmp_path):
    pipe = tmp_path / "step.trace"
    os.mkfifo(str(pipe))
    finished = train({**EMULATED, "trace_path": str(pipe)})
    assert_refused(finished, ["trace_path", str(pipe), "regular file"])


def test_a_good_option_is_not_refused(train):
    """Otherwise the refusals above could all have one other cause."""
    stats = stats_of(train(EMULATED))
    assert stats["active"], stats
    assert stats["steps_managed"] > 0, stats


def test_a_variable_wins_over_the_option(train):
    stats = stats_of(train({**EMULATED, "policy": "hpca22"}, SENTINEL_POLICY="first_touch"))
    assert stats["policy"] == "first_touch", stats


def test_without_a_budget_nothing_is_done(train):
    stats = stats_of(train({}))
    assert not stats["active"], stats
    assert stats["steps_managed"] == 0, stats


MISSING_NODE = ["slow", "node:9", "no such node", "accepted"]


def test_a_missing_node_stops_a_strict_training(train):
    options = {"fast_fraction": 0.5, "failure": "STRICT"}
    assert_refused(train(options, SENTINEL_SLOW="node:9"), MISSING_NODE)


def test_a_missing_node_is_said_once_and_training_goes_on(train):
    finished = train({"fast_fraction": 0.5}, sessions=2, SENTINEL_SLOW="node:9")
    stats = stats_of(finished)
    said = [
        line for line in finished.err.splitlines() if all(part in line for part in MISSING_NODE)
    ]
    assert len(said) == 1, finished.text
    assert not stats["active"], stats
    assert "node:9" in stats["message"], stats


def test_failure_off_takes_no_part(train):
    stats = stats_of(train({**EMULATED, "failure": "OFF"}))
    assert not stats["active"], stats


def test_too_little_fast_memory_stops_a_strict_training(train):
    too_little = 64 << 10
    finished = train({**NEEDY, "fast_bytes": too_little, "failure": "STRICT"})
    assert_refused(finished, ["fast_bytes", str(too_little), "needs at least"])


def test_too_little_fast_memory_overflows_into_slow_memory(train):
    too_little = 64 << 10
    stats = stats_of(train({**NEEDY, "fast_bytes": too_little}))
    assert stats["active"], stats
    assert stats["fast_bytes_allowed"] == too_little, stats
    assert stats["fast_bytes_needed"] > too_little, stats
    assert stats["fast_bytes_peak"] <= too_little, stats
    assert stats["overflow_bytes"] > 0, stats
    for part in ("fast_bytes", str(too_little), str(stats["fast_bytes_needed"])):
        assert part in stats["message"], stats


def test_a_second_session_with_other_options_is_refused(start, sentinel_python, tmp_path):
    """The tiers belong to the process; two sessions cannot have different ones."""
    script = tmp_path / "two_sessions.py"
    script.write_text(
        "import tensorflow as tf\n"
        "for fast_bytes in (1 << 20, 1 << 21):\n"
        "    config = tf.ConfigProto()\n"
        "    config.experimental.sentinel.policy = 'first_touch'\n"
        "    config.experimental.sentinel.slow = 'emulated:optane'\n"
        "    config.experimental.sentinel.fast_bytes = fast_bytes\n"
        "    with tf.Session(config=config) as session:\n"
        "        session.run(tf.constant(1))\n"
        "print('trained')\n"
    )
    finished = start(sentinel_python, script).wait()
    finished.assert_no_crash()
    assert_refused(finished, ["fast", str(2 * MIB), str(MIB), "one set of options"])
