"""Sentinel changes addresses only: every value of every scenario has the same bits as under stock TensorFlow.

Each module of scenarios/ runs in one process per TensorFlow, the two side by side.
"""

import json
from pathlib import Path

import numpy as np
import pytest

PLAY = Path(__file__).parent / "scenarios/play.py"
SETTINGS = {
    "SENTINEL_FAST": "40%",
    "SENTINEL_SLOW": "emulated:optane",
    "SENTINEL_WARMUP_STEPS": "1",
}

# Scenarios whose steps are repeated often enough, under one session, to be profiled, planned and managed.
MANAGED = {
    "control_flow": ("cond", "while_loop_gradient", "map_fn", "tensor_array"),
    "layers": ("dynamic_rnn_lstm", "defun", "marked_layers", "unmarked_layers"),
    "inputs": ("fifo_queue", "dataset", "py_func", "strings"),
    "state": ("ref_variables", "resource_variables", "two_cpu_devices"),
    "sessions": (
        "partial_run",
        "two_at_once",
        "outliving_values",
        "changing_shapes",
        "many_graphs",
    ),
    "forking": ("fork_of_quiet_process",),
    "leaving": ("exit_with_open_session",),
}
# Of these, the ones whose results do not depend on the order of independent operations.
SEVERAL_THREADS = {
    "control_flow": ("cond", "while_loop_gradient", "map_fn", "tensor_array"),
    "layers": ("dynamic_rnn_lstm", "defun", "marked_layers", "unmarked_layers"),
    "state": ("ref_variables", "resource_variables", "two_cpu_devices"),
}
# Without a session there is no step to manage; the values must be the same all the same.
UNMANAGED = {"eager": ("eager_training", "eager_function")}


def cases(modules):
    return [
        pytest.param(module, scenario, id=f"{module}-{scenario}")
        for module, scenarios in modules.items()
        for scenario in scenarios
    ]


class Played:
    """The values and reports of one module under both TensorFlows."""

    def __init__(self, start, pythons, module, folder, threads):
        children = {}
        for kind, python in pythons.items():
            settings = dict(SETTINGS) if kind == "sentinel" else {}
            settings["PLAY_INTER_OP_THREADS"] = str(threads)
            children[kind] = start(
                python, PLAY, module, folder / f"{kind}.npz", folder / f"{kind}.json", **settings
            )
        self.finished = {kind: child.wait() for kind, child in children.items()}
        for finished in self.finished.values():
            finished.assert_clean()
        self.stock = dict(np.load(str(folder / "stock.npz")))
        self.sentinel = dict(np.load(str(folder / "sentinel.npz")))
        self.report = json.loads((folder / "sentinel.json").read_text())

    def grown(self, scenario, counter):
        report = self.report[scenario]
        return report["after"][counter] - report["before"][counter]

    def assert_same_bits(self, scenario):
        names = sorted(name for name in self.stock if name.startswith(scenario + "/"))
        assert names, f"{scenario} saved nothing"
        assert names == sorted(name for name in self.sentinel if name.startswith(scenario + "/"))
        for name in names:
            stock, sentinel = self.stock[name], self.sentinel[name]
            assert (stock.dtype, stock.shape) == (sentinel.dtype, sentinel.shape), name
            assert stock.tobytes() == sentinel.tobytes(), (
                f"{name}: {stock} under stock, {sentinel} under Sentinel"
            )


@pytest.fixture(scope="module")
def play(start, stock_python, sentinel_python, tmp_path_factory):
    """play(module) runs the module under both TensorFlows, once for all of its scenarios, even when it fails."""
    results = {}

    def play(module, threads=1):
        key = module, threads
        if key not in results:
            try:
                pythons = {"stock": stock_python, "sentinel": sentinel_python}
                folder = tmp_path_factory.mktemp(module)
                results[key] = Played(start, pythons, module, folder, threads)
            except (AssertionError, pytest.fail.Exception) as failure:
                results[key] = failure
        if isinstance(results[key], BaseException):
            raise results[key]
        return results[key]

    return play


@pytest.mark.parametrize(("module", "scenario"), cases({**MANAGED, **UNMANAGED}))
def test_values_have_the_same_bits(play, module, scenario):
    play(module).assert_same_bits(scenario)


@pytest.mark.parametrize(("module", "scenario"), cases(MANAGED))
def test_steps_were_managed(play, module, scenario):
    """Equal values prove something only when Sentinel had a plan and put tensors where it said."""
    played = play(module)
    after = played.report[scenario]["after"]
    assert after["active"], after
    assert after["tiers"] == "emulated", after
    assert after["fast_bytes_peak"] <= after["fast_bytes_allowed"], after
    assert played.grown(scenario, "plans_made") >= 1, after
    assert played.grown(scenario, "steps_managed") >= 3, after
    assert played.grown(scenario, "slot_hits") > 0, after


@pytest.mark.parametrize(("module", "scenario"), cases(SEVERAL_THREADS))
def test_several_operations_at_a_time_give_the_same_bits(play, module, scenario):
    """Slots are busy, layers overlap and pages travel under several threads; values must not notice."""
    played = play(module, threads=4)
    played.assert_same_bits(scenario)
    assert played.grown(scenario, "steps_managed") >= 3, played.report[scenario]["after"]


def test_layers_come_from_the_marks_or_are_inferred(play):
    report = play("layers").report
    marked, unmarked = report["marked_layers"]["during"], report["unmarked_layers"]["during"]
    assert marked["layer_source"] == "marked", marked
    # Three marks divide the forward pass, and their gradients the backward pass.
    assert marked["layers"] >= 6, marked
    assert unmarked["layer_source"] == "inferred", unmarked
    assert unmarked["layers"] > 1, unmarked


def test_every_scenario_is_compared(play):
    """A scenario that is written but not listed above would never be looked at."""
    for module, scenarios in {**MANAGED, **UNMANAGED}.items():
        assert sorted(play(module).report) == sorted(scenarios)
