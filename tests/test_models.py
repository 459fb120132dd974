"""Every network of examples/models trains to the same bits with and without Sentinel, with and without marks."""

import json
from pathlib import Path

import pytest

MODELS = Path(__file__).resolve().parent.parent / "examples/models"
# The smallest shapes that still have all parts of the network and a peak that is worth a plan.
SMALL = {
    "resnet32": "--batch 4",
    "lstm": "--batch 8 --hidden 64 --unroll 6 --vocabulary 300",
    "dcgan": "--batch 4 --side 32 --filters 16",
    "mobilenet": "--batch 2",
    "cnn": "--batch 4",
    "bert": "--batch 2 --layers 2 --hidden 64 --heads 4 --length 32 --vocabulary 1000",
}
# Layers at least: the marks on the way forward, and as many on the way back.
LAYERS = {
    "resnet32": 2 * 31,
    "lstm": 2 * 6,
    "dcgan": 2 * 4,
    "mobilenet": 2 * 27,
    "cnn": 2 * 7,
    "bert": 2 * 5,
}
# A plan takes a moment to be made, during which steps of these sizes go on: a few, or hundreds where others keep the
# processor busy. Training ends with the second managed one.
STEPS_EXPECTED = 16
STEPS_AT_MOST = 1000
MANAGED_STEPS = 2
ALL = f"--steps {STEPS_AT_MOST} --inter-op 1 --intra-op 1 --quiet".split()
TIERS = "--policy gap --fast 60% --slow emulated:optane --warmup-steps -1".split()
TIERS += ["--managed-steps", str(MANAGED_STEPS)]


@pytest.fixture(scope="module", params=sorted(SMALL))
def trained(request, start, stock_python, sentinel_python, tmp_path_factory):
    """The network's name, and losses as text and results of its runs under stock TensorFlow, with and without marks."""
    name, folder = request.param, tmp_path_factory.mktemp(request.param)

    def begin(kind, python, *options):
        outputs = ["--losses-out", folder / f"{kind}.losses", "--json-out", folder / f"{kind}.json"]
        return start(python, MODELS / f"{name}.py", *SMALL[name].split(), *ALL, *options, *outputs)

    def result(kind, child):
        child.wait().assert_clean()
        losses = (folder / f"{kind}.losses").read_text().split()
        return losses, json.loads((folder / f"{kind}.json").read_text())

    children = {
        "stock": begin("stock", stock_python, "--stop-after", STEPS_EXPECTED),
        "marked": begin("marked", sentinel_python, *TIERS),
        "unmarked": begin("unmarked", sentinel_python, *TIERS, "--no-marks"),
    }
    results = {kind: result(kind, child) for kind, child in children.items()}
    steps = max(len(losses) for losses, _ in results.values())
    if steps > STEPS_EXPECTED:
        results["stock"] = result("stock", begin("stock", stock_python, "--stop-after", steps))
    return name, results


@pytest.mark.parametrize("kind", ["marked", "unmarked"])
def test_losses_have_the_same_bits(trained, kind):
    _, runs = trained
    stock, losses = runs["stock"][0], runs[kind][0]
    assert not runs["stock"][1]["sentinel"]
    assert len(stock) >= len(losses) > MANAGED_STEPS
    assert losses == stock[: len(losses)]
    first = losses[:STEPS_EXPECTED]
    assert len(set(first)) == len(first), "the network does not learn"


@pytest.mark.parametrize("kind", ["marked", "unmarked"])
def test_steps_were_managed(trained, kind):
    """Equal losses prove something only when Sentinel had a plan."""
    stats = trained[1][kind][1]["stats"]
    assert stats["steps_managed"] >= MANAGED_STEPS, stats
    assert stats["slot_hits"] > 0, stats
    assert stats["fast_bytes_peak"] <= stats["fast_bytes_allowed"], stats


def test_layers_are_marked_unless_marks_are_left_out(trained):
    name, runs = trained
    marked, unmarked = runs["marked"][1]["stats"], runs["unmarked"][1]["stats"]
    assert marked["layer_source"] == "marked", marked
    assert marked["layers"] >= LAYERS[name], marked
    assert unmarked["layer_source"] == "inferred", unmarked
    assert unmarked["layers"] > 1, unmarked
