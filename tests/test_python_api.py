"""tf.sentinel: marks in graphs and in eager mode, with and without the native library, and late loading by hand."""

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LATE = ROOT / "tensorflow" / "python" / "sentinel" / "late.py"

IN_A_GRAPH = """
import numpy as np, tensorflow as tf
x = tf.placeholder(tf.float32, [4])
y = tf.sentinel.add_layer(x * 2, name="layer")
whole = tf.sentinel.add_layer(tf.constant([1, 2]))
table = tf.Variable(tf.ones([5, 2]))
rows = tf.gather(tf.sentinel.add_layer(table), [0, 1])
sparse = tf.gradients(tf.reduce_sum(rows), table)[0]
assert isinstance(sparse, tf.IndexedSlices) and y.shape == [4] and y.op.name == "layer"
begin, end = tf.sentinel.start_profile(), tf.sentinel.end_profile(name="end")
assert isinstance(begin, tf.Operation) and end.name == "end"
fetches = [y, tf.gradients(y * y, x)[0], whole, tf.convert_to_tensor(sparse), begin, end]
with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    values = session.run(fetches, {x: np.arange(4)})
assert values[0].tolist() == [0, 2, 4, 6] and values[1].tolist() == [0, 8, 16, 24]
assert values[2].tolist() == [1, 2] and values[3].tolist() == [[1, 1], [1, 1], [0, 0], [0, 0], [0, 0]]
nodes = [node for node in tf.get_default_graph().as_graph_def().node if node.op == "SentinelAddLayer"]
print([sum(node.attr["backward"].b == backward for node in nodes) for backward in (False, True)])
"""

EAGER = """
import tensorflow as tf
tf.enable_eager_execution()
assert tf.sentinel.start_profile() is None
with tf.GradientTape() as tape:
    x = tf.constant([1.0, 2.0])
    tape.watch(x)
    y = tf.sentinel.add_layer(x * 3) * x
assert y.numpy().tolist() == [3, 12] and tape.gradient(y, x).numpy().tolist() == [6, 12]
assert tf.sentinel.end_profile() is None
"""

NOT_ONE_TENSOR = """
import tensorflow as tf
x = tf.constant([1.0])
sparse = tf.SparseTensor([[0]], [1.0], [1])
for wrong in ([x, x], (x,), {"a": x}, None, 3.0, sparse):
    try:
        tf.sentinel.add_layer(wrong)
        raise SystemExit("accepted %r" % (wrong,))
    except TypeError as error:
        assert "needs one Tensor, but x is a " + type(wrong).__name__ in str(error), error
"""

LATE_LOADING = """
import importlib.util, json, sys
specification = importlib.util.spec_from_file_location("late", sys.argv[1])
late = importlib.util.module_from_spec(specification)
specification.loader.exec_module(late)
for path in sys.argv[2:]:
    try:
        module = late.load(path)
        print(sorted(name for name in dir(module) if name in ("sentinel_add_layer", "sentinel_end_profile")))
    except RuntimeError as error:
        print(error)
"""


@pytest.mark.parametrize("switch, marked", [("1", "[3, 2]"), ("0", "[0, 0]")])
def test_marks_in_a_graph_keep_values_and_gradients(start, sentinel_python, switch, marked):
    finished = start(sentinel_python, "-c", IN_A_GRAPH, SENTINEL=switch).wait()
    finished.assert_clean()
    assert finished.out.strip() == marked


@pytest.mark.parametrize("switch", ["1", "0"])
def test_marks_in_eager_mode_keep_values_and_gradients(start, sentinel_python, switch):
    start(sentinel_python, "-c", EAGER, SENTINEL=switch).wait().assert_clean()


def test_a_layer_is_one_tensor(start, sentinel_python):
    start(sentinel_python, "-c", NOT_ONE_TENSOR).wait().assert_clean()


def test_statistics_before_any_session(start, sentinel_python):
    code = "import json, tensorflow as tf; print(json.dumps([tf.sentinel.stats(), tf.sentinel.__version__]))"
    finished = start(sentinel_python, "-c", code).wait()
    finished.assert_clean()
    stats, version = json.loads(finished.out)
    assert not stats["active"] and stats["state"] == "off" and stats["promoted_bytes"] == 0
    assert version.startswith("1.13.1+sentinel-")


def test_the_switch_is_0_or_1(start, sentinel_python):
    finished = start(sentinel_python, "-c", "import tensorflow", SENTINEL="off").wait()
    finished.assert_no_crash()
    assert finished.code == 1
    assert (
        "SENTINEL=off is not understood; accepted are 0 (off) and 1 (on"
        in finished.err.splitlines()[-1]
    )


def test_late_loading_by_hand(start, stock_python, sentinel_python):
    library = (
        sentinel_python.parent.parent / "lib/python3.7/site-packages/tensorflow/libsentinel.so"
    )
    finished = start(stock_python, "-c", LATE_LOADING, LATE, "/none.so", library, library).wait()
    finished.assert_clean()
    lines = finished.out.splitlines()
    assert lines[0].startswith("Sentinel cannot be loaded from /none.so: ")
    assert lines[1] == "['sentinel_add_layer', 'sentinel_end_profile']"
    assert (
        lines[2]
        == "Sentinel cannot be loaded: this process has loaded it already, from %s" % library
    )
    finished = start(sentinel_python, "-c", LATE_LOADING, LATE, library).wait()
    finished.assert_clean()
    assert "loaded it already" in finished.out
