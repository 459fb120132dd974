"""Marks that a training script may place: the bounds of layers, and of the step to profile."""

from tensorflow.python.eager import context, execute
from tensorflow.python.framework import errors, op_def_library, ops
from tensorflow.python.ops import array_ops, control_flow_ops, variables
from tensorflow.python.sentinel import native

START_PROFILE = "SentinelStartProfile"
END_PROFILE = "SentinelEndProfile"
ADD_LAYER = "SentinelAddLayer"


def _define_ops():
    """Returns a library of Sentinel's operations as the native library has registered them; None when it is absent."""
    if not native.is_loaded():
        return None
    graph = ops.Graph()
    library = op_def_library.OpDefLibrary()
    try:
        for name in (START_PROFILE, END_PROFILE, ADD_LAYER):
            library.add_op(graph._get_op_def(name))  # pylint: disable=protected-access
    except errors.NotFoundError as error:
        raise ImportError(
            "Sentinel refuses to take part in this TensorFlow (the line that it logged says why). "
            "Set SENTINEL=0 to run without it."
        ) from error
    return library


_OPS = _define_ops()


def start_profile(name=None):
    """Marks the place where the step to profile begins.

    Run the returned operation before the training step that Sentinel is to learn from. Without it, Sentinel profiles
    the step that follows the warm-up steps.

    Args:
      name: A name for the operation (optional).

    Returns:
      An `Operation`. In eager mode the mark takes effect at once, and None is returned.
    """
    return _mark_profile(START_PROFILE, name)


def end_profile(name=None):
    """Marks the place where the step to profile ends; see `tf.sentinel.start_profile`.

    Args:
      name: A name for the operation (optional).

    Returns:
      An `Operation`. In eager mode the mark takes effect at once, and None is returned.
    """
    return _mark_profile(END_PROFILE, name)


def add_layer(x, name=None):
    """Marks `x` as the output of a layer: a layer ends where `x` is computed and the next begins.

    The value is that of `x`. The gradient is passed on unchanged and carries the mark for the backward pass.

    Args:
      x: One `Tensor` of any type, or a `Variable`.
      name: A name for the operation (optional).

    Returns:
      A `Tensor` with the value of `x`.

    Raises:
      TypeError: `x` is not one tensor.
    """
    if not isinstance(x, (ops.Tensor, variables.Variable)):
        raise TypeError(
            "tf.sentinel.add_layer needs one Tensor, but x is a %s; mark each tensor of a structure by itself"
            % type(x).__name__
        )
    x = ops.convert_to_tensor(x)
    if _OPS is None:
        return array_ops.identity(x, name=name)
    return _add_layer(x, backward=False, name=name)


def _mark_profile(op_type, name):
    """Makes one of the two operations without inputs and outputs, or runs it in eager mode."""
    if _OPS is None:
        return control_flow_ops.no_op(name=name)
    eager = context.context()
    if eager.executing_eagerly():
        execute.execute(op_type.encode(), 0, inputs=[], attrs=None, ctx=eager, name=name)
        return None
    return _OPS.apply_op(op_type, name=name)


def _add_layer(x, backward, name):
    """Makes the marking operation in the graph, or runs it in eager mode."""
    eager = context.context()
    if not eager.executing_eagerly():
        return _OPS.apply_op(ADD_LAYER, x=x, backward=backward, name=name)
    attributes = ("T", x.dtype.as_datatype_enum, "backward", backward)
    result = execute.execute(
        ADD_LAYER.encode(), 1, inputs=[x], attrs=attributes, ctx=eager, name=name
    )
    execute.record_gradient(ADD_LAYER, [x], attributes, result, name)
    return result[0]


def _add_layer_gradient(op, grad):
    """Passes the gradient through a marking operation. A sparse gradient has its values marked."""
    if isinstance(grad, ops.IndexedSlices):
        values = _add_layer(grad.values, backward=True, name=None)
        return ops.IndexedSlices(values, grad.indices, grad.dense_shape)
    return _add_layer(grad, backward=True, name=None)


if _OPS is not None:
    ops.RegisterGradient(ADD_LAYER)(_add_layer_gradient)
    ops.NotDifferentiable(START_PROFILE)
    ops.NotDifferentiable(END_PROFILE)
