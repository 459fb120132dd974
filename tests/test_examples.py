"""The example trains to the same bits with and without Sentinel, and the demo says what does not hold."""

import importlib
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
# The filter gradients' scratch does not shrink with the batch, so a small batch needs a larger share of fast memory.
TRAINING = "--batch 16 --steps 7 --inter-op 1 --intra-op 1 --quiet --eval".split()
TIERS = (
    "--policy gap --fast 50% --slow emulated:optane --migration-gbps 2.15 --warmup-steps 1".split()
)


@pytest.fixture(scope="module")
def trained(train_both, tmp_path_factory):
    """Losses as text and results, of the stock run and of the one with Sentinel."""
    script = EXAMPLES / "digits_resnet.py"
    return train_both(tmp_path_factory.mktemp("digits"), script, TRAINING, TIERS)


def test_the_digits_example_has_the_same_losses(trained):
    (stock_losses, stock), (sentinel_losses, sentinel) = trained["stock"], trained["sentinel"]
    assert stock_losses == sentinel_losses
    assert len(stock_losses.split()) == 7
    assert stock["accuracy"] == sentinel["accuracy"]


def test_the_digits_example_is_managed(trained):
    assert not trained["stock"][1]["sentinel"]
    stats = trained["sentinel"][1]["stats"]
    assert stats["steps_managed"] >= 3, stats
    assert stats["promoted_bytes"] > 0, stats
    assert stats["demoted_bytes"] > 0, stats
    assert stats["fast_bytes_peak"] <= stats["fast_bytes_allowed"], stats
    # The training's own plan, before the evaluation made another: a stem and two convolutions in each of 15 blocks,
    # forwards and backwards.
    plan = trained["sentinel"][1]["step_stats"][-1]
    assert plan["layer_source"] == "marked", plan
    assert plan["layers"] >= 2 * 31, plan


GOOD_SUMMARY = {
    "throughput_vs_fast_only": 0.85,
    "first_touch_vs_fast_only": 0.8,
    "losses_identical_to_stock": True,
    "steps_managed_single_threaded": 3,
    "fast_bytes_peak": 100,
    "fast_bytes_allowed": 100,
    "promoted_bytes": 1,
    "demoted_bytes": 1,
    "slot_hit_rate": 0.99,
    "slot_hit_rate_default_threads": 0.98,
    "test_accuracy": 0.95,
}


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("throughput_vs_fast_only", 0.83, "gap runs at 1.037 x first touch"),
        ("losses_identical_to_stock", False, "losses differ"),
        ("steps_managed_single_threaded", 2, "only 2 managed steps"),
        ("fast_bytes_peak", 101, "fast_bytes_peak 101"),
        ("promoted_bytes", 0, "nothing was promoted"),
        ("demoted_bytes", 0, "nothing was demoted"),
        ("slot_hit_rate", 0.9899, "slot_hit_rate is 0.9899"),
        ("slot_hit_rate", None, "slot_hit_rate is None"),
        ("slot_hit_rate_default_threads", 0.97, "slot_hit_rate_default_threads is 0.97"),
        ("test_accuracy", 0.94, "test_accuracy is 0.94"),
    ],
)
def test_the_demo_names_what_does_not_hold(monkeypatch, key, value, named):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    failed_checks = importlib.import_module("demo_report").failed_checks
    assert failed_checks(GOOD_SUMMARY) == []
    failures = failed_checks({**GOOD_SUMMARY, key: value})
    assert len(failures) == 1
    assert named in failures[0]


def good_prediction():
    """A prediction that is as good as it should be."""
    own = {"prediction_error": -0.05}
    for name in ("promoted_bytes", "demoted_bytes"):
        own.update({f"predicted_{name}_per_step": 102, f"measured_{name}_per_step": 100})
    return {"gap": own, "predicted_order": ["gap", "slow"], "measured_order": ["gap", "slow"]}


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("prediction_error", 0.051, "the step of gap is +5.1% off"),
        ("predicted_demoted_bytes_per_step", 97, "demoted_bytes of gap"),
        ("measured_order", ["slow", "gap"], "another one"),
    ],
)
def test_the_demo_names_what_was_predicted_badly(monkeypatch, key, value, named):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    from demo_prediction import missed_predictions

    prediction = good_prediction()
    assert missed_predictions(prediction, ["gap"]) == []
    (prediction if key in prediction else prediction["gap"])[key] = value
    missed = missed_predictions(prediction, ["gap"])
    assert len(missed) == 1
    assert named in missed[0]
