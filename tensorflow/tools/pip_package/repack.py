"""Makes a wheel of the official TensorFlow 1.13.1 with Sentinel inside: a drop-in replacement, version 1.13.1+sentinel.

Usage: repack.py --stock WHEEL --library libsentinel.so --command sentinel --licences FILE --out FOLDER

Runs under a Python 3.7 or later with what tools/requirements-build.lock lists; Bazel and tools/dev each make such an
environment. The same inputs give the same bytes.
"""

import argparse
import hashlib
import os
import re
import sys
import zipfile
import zlib
from pathlib import Path

import platform_tag
import wheelfile

# Symbolic links stay as they are: Bazel shows a step only the files that it has declared.
HERE = Path(os.path.abspath(__file__)).parent
ROOT = HERE.parents[2]
STOCK_LOCK = ROOT / "third_party" / "tensorflow" / "stock.lock"
PYTHON_API = ROOT / "tensorflow" / "python" / "sentinel"
SCHEMA = ROOT / "tensorflow" / "core" / "protobuf" / "sentinel.proto"

STOCK_VERSION = "1.13.1"
VERSION = "1.13.1+sentinel"
PYTHON_TAG = "cp37-cp37m"
STOCK_TAG = PYTHON_TAG + "-manylinux1_x86_64"
# Where the files of package tensorflow are in the wheel; the folder carries the wheel's version.
STOCK_DATA = "tensorflow-%s.data/purelib/" % STOCK_VERSION
DATA = "tensorflow-%s.data/purelib/" % VERSION
# Where pip takes programs from that it puts on PATH.
SCRIPTS = "tensorflow-%s.data/scripts/" % VERSION
STOCK_INFO = "tensorflow-%s.dist-info/" % STOCK_VERSION
INFO = "tensorflow-%s.dist-info/" % VERSION
# From these releases on TensorFlow 1.13.1 does not work with them: AutoGraph fails with gast, Keras cannot read weights
# through h5py, message classes do not load, numpy warns at every import. `pip install` of the official wheel takes all.
CAPS = {"gast": "<0.3", "numpy": "<1.17", "protobuf": "<3.21"}
# The official wheel gets it through keras-applications, which caps nothing.
ADDED_REQUIREMENT = "Requires-Dist: h5py (<3)\n"
# What `pip show` says after the official summary.
MODIFIED = " (modified: with Sentinel, see NOTICE)"
ACCEPTED = "only the official tensorflow-%s-%s.whl is accepted" % (STOCK_VERSION, STOCK_TAG)


# What reading a damaged or unusual archive ends with.
UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    KeyError,
    NotImplementedError,
    RuntimeError,
    StopIteration,
    UnicodeDecodeError,
)


class Refused(Exception):
    """The input is not the wheel that Sentinel is made for. The text says what it is instead."""


def stock_sha256():
    """The sha256 of the accepted wheel, in hexadecimal, from the one place that pins it."""
    return STOCK_LOCK.read_text().rsplit("sha256:", 1)[1].strip()


def check_stock(path, sha256):
    """Raises Refused, with a text that names what the file is, unless it is the wheel with this checksum."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise Refused("%s cannot be read: %s" % (path, error.strerror)) from error
    if hashlib.sha256(content).hexdigest() == sha256:
        return
    try:
        with zipfile.ZipFile(str(path)) as archive:
            names = archive.namelist()
            info = next(
                name.split("/")[0]
                for name in names
                if re.match(r"[^/]+\.dist-info/METADATA$", name)
            )
            metadata = archive.read(info + "/METADATA").decode()
            tags = archive.read(info + "/WHEEL").decode()
    except UNREADABLE as error:
        raise Refused("%s is not a wheel, or it is damaged: %s" % (path, ACCEPTED)) from error
    raise Refused("%s is %s: %s" % (path, _what_it_is(metadata, tags, names), ACCEPTED))


def _what_it_is(metadata, tags, names):
    """Describes a wheel that is not the accepted one by the first thing that makes it differ."""
    name = _header("Name", metadata)
    version = _header("Version", metadata)
    tag = _header("Tag", tags)
    if "gpu" in name.lower():
        return "a GPU build (%s %s)" % (name, version)
    if re.search("mkl|intel", name.lower()) or any(
        re.search(r"lib(mklml|iomp5)", each) for each in names
    ):
        return "an MKL build (%s %s)" % (name, version)
    if name != "tensorflow":
        return "%s %s" % (name, version)
    if version == VERSION:
        return "repacked already (tensorflow %s)" % version
    if version != STOCK_VERSION:
        return "tensorflow %s" % version
    if tag != STOCK_TAG:
        return "tensorflow %s for %s" % (version, tag)
    return (
        "not the official file, though it calls itself tensorflow %s (its sha256 differs)" % version
    )


def _header(name, text):
    """The value of the first header line with this name, or an empty string."""
    match = re.search(r"^%s: *(.*?)\s*$" % name, text, re.MULTILINE)
    return match.group(1) if match else ""


def repack(stock, additions, command, licences, tag):
    """Returns the members of the wheel with Sentinel.

    Args:
      stock: members of the official wheel by name, see wheelfile.read.
      additions: contents (bytes) of the files that are added or replaced, by path, such as `tensorflow/libsentinel.so`.
      command: contents of the program `sentinel`.
      licences: licence texts of what is linked into libsentinel.so and the program.
      tag: platform tag, such as `manylinux_2_34_x86_64`.
    """
    members = {}
    for each in stock.values():
        name = _renamed(each.name)
        if name != INFO + "RECORD":
            members[name] = each._replace(name=name)
    for path, content in additions.items():
        mode = 0o755 if path.endswith(".so") else 0o644
        members[DATA + path] = wheelfile.member(DATA + path, content, mode)
    members[SCRIPTS + "sentinel"] = wheelfile.member(SCRIPTS + "sentinel", command, 0o755)
    metadata = _metadata(stock[STOCK_INFO + "METADATA"].content().decode())
    wheel = _once(
        "Tag: " + STOCK_TAG,
        "Tag: %s-%s" % (PYTHON_TAG, tag),
        stock[STOCK_INFO + "WHEEL"].content().decode(),
    )
    texts = {"METADATA": metadata, "WHEEL": wheel, "NOTICE": (HERE / "NOTICE").read_text()}
    texts.update({"LICENSE": (ROOT / "LICENSE").read_text(), "LICENSES-rust-crates": licences})
    for name, text in texts.items():
        members[INFO + name] = wheelfile.member(INFO + name, text.encode())
    ordered = sorted(members.values())
    return ordered + [wheelfile.record(ordered, INFO + "RECORD")]


def _renamed(name):
    """The member's name under the new version."""
    for old, new in ((STOCK_DATA, DATA), (STOCK_INFO, INFO)):
        if name.startswith(old):
            return new + name[len(old) :]
    return name.replace("tensorflow-%s.data/" % STOCK_VERSION, "tensorflow-%s.data/" % VERSION, 1)


def _metadata(text):
    """METADATA with the new version and the caps on requirements."""
    text = _once("\nVersion: %s\n" % STOCK_VERSION, "\nVersion: %s\n" % VERSION, text)
    summary = re.search(r"^Summary: .*$", text, re.MULTILINE).group(0)
    text = _once(summary + "\n", summary + MODIFIED + "\n", text)
    for name, cap in CAPS.items():
        bound = re.search(r"^Requires-Dist: %s \((.*)\)$" % name, text, re.MULTILINE)
        if not bound:
            raise ValueError("the official wheel does not require %s" % name)
        text = _once(
            bound.group(0), "Requires-Dist: %s (%s,%s)" % (name, bound.group(1), cap), text
        )
    first = text.index("Requires-Dist: ")
    return text[:first] + ADDED_REQUIREMENT + text[first:]


def _once(old, new, text):
    """Replaces the only occurrence of `old`."""
    if text.count(old) != 1:
        raise ValueError("expected %r once, found it %d times" % (old, text.count(old)))
    return text.replace(old, new)


def additions_for(stock, library, generated):
    """Contents of the files that are added or replaced, by path.

    Args:
      stock: members of the official wheel by name.
      library: contents of libsentinel.so.
      generated: contents of the generated message classes by path.
    """
    additions = dict(generated)
    additions["tensorflow/libsentinel.so"] = library
    for source in sorted(PYTHON_API.glob("*.py")):
        additions["tensorflow/python/sentinel/" + source.name] = source.read_bytes()
    tails = {
        "tensorflow/__init__.py": "init_tail.py",
        "tensorflow/python/pywrap_tensorflow.py": "pywrap_tensorflow_tail.py",
    }
    for path, tail in tails.items():
        additions[path] = stock[STOCK_DATA + path].content() + (HERE / tail).read_bytes()
    return additions


def main(arguments):
    """Repacks as the command line says and prints the new wheel's path."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--stock", type=Path, required=True, help="the official wheel")
    parser.add_argument("--library", type=Path, required=True, help="libsentinel.so")
    parser.add_argument("--command", type=Path, required=True, help="the program `sentinel`")
    parser.add_argument(
        "--licences", type=Path, required=True, help="licence texts of what the library contains"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the new wheel")
    options = parser.parse_args(arguments)
    try:
        check_stock(options.stock, stock_sha256())
        for path in (options.library, options.command, options.licences):
            path.open("rb").close()
    except Refused as refused:
        return "repack.py: %s" % refused
    except OSError as error:
        return "repack.py: %s cannot be read: %s" % (error.filename, error.strerror)
    # protoc is needed only from here on, and a refusal should not need it.
    import protos

    stock = wheelfile.read(options.stock)
    generated = protos.generate(lambda path: stock[STOCK_DATA + path].content(), SCHEMA)
    additions = additions_for(stock, options.library.read_bytes(), generated)
    tag = platform_tag.platform_tag([options.library, options.command])
    licences = options.licences.read_text(encoding="utf-8")
    members = repack(stock, additions, options.command.read_bytes(), licences, tag)
    options.out.mkdir(parents=True, exist_ok=True)
    wheel = options.out / ("tensorflow-%s-%s-%s.whl" % (VERSION, PYTHON_TAG, tag))
    wheelfile.write(wheel, members)
    print(wheel)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
