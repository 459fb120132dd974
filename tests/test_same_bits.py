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

    def __init__(self, start, pythons, module, folder):
        children = {}
        for kind, python in pythons.items():
            settings = SETTINGS if kind == "sentinel" else {}
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

    def play(module):
        if module not in results:
            try:
                pythons = {"stock": stock_python, "sentinel": sentinel_python}
                results[module] = Played(start, pythons, module, tmp_path_factory.mktemp(module))
            except (AssertionError, pytest.fail.Exception) as failure:
                results[module] = failure
        if isinstance(results[module], BaseException):
            raise results[module]
        return results[module]

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
