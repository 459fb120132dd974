"""With all memory fast, and no slow tier asked for, a network trains to the bits of stock TensorFlow."""

from pathlib import Path

import pytest

MODELS = Path(__file__).resolve().parent.parent / "examples/models"
COMMON = "--batch 4 --steps 24 --intra-op 1 --quiet".split()
ALL_FAST = "--policy fast_only --warmup-steps -1".split()


@pytest.fixture(scope="module", params=[1, 2], ids=["one operation at a time", "two"])
def trained(request, train_both, tmp_path_factory):
    """Operations at a time; losses and results under both TensorFlows."""
    options = [*COMMON, "--inter-op", str(request.param)]
    folder = tmp_path_factory.mktemp("all-fast")
    return request.param, train_both(folder, MODELS / "cnn.py", options, ALL_FAST)


def test_losses_have_the_same_bits(trained):
    _, runs = trained
    assert runs["stock"][0] == runs["sentinel"][0]
    assert len(set(runs["stock"][0].split())) == 24, "the network does not learn"


def test_everything_is_fast_and_an_arena_is_as_low_as_its_buffers_allow(trained):
    threads, runs = trained
    stats = runs["sentinel"][1]["stats"]
    assert stats["active"] and stats["overflow_bytes"] == 0, stats
    assert stats["foreign_frees"] == 0 and stats["panics_caught"] == 0, stats
    assert stats["steps_profiled"] >= 1 and stats["peak_bytes"] > 1 << 20, stats
    if threads == 1:
        assert stats["steps_managed"] >= 3 and stats["slot_hit_rate"] > 0.99, stats
        assert (
            stats["arena_load_bytes"] <= stats["arena_bytes"] <= 1.02 * stats["arena_load_bytes"]
        ), stats
    else:
        assert stats["steps_managed"] == 0 and stats["arena_bytes"] == 0, stats
