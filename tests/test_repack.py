"""The drop-in wheel: what it accepts, what it changes, and that nothing else is changed."""

import base64
import csv
import hashlib
import io
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PIP_PACKAGE = ROOT / "tensorflow" / "tools" / "pip_package"
sys.path.insert(0, str(PIP_PACKAGE))

import platform_tag  # noqa: E402
import repack  # noqa: E402
import wheelfile  # noqa: E402

STOCK_NAME = "tensorflow-1.13.1-cp37-cp37m-manylinux1_x86_64.whl"
METADATA = """Metadata-Version: 2.1
Name: %s
Version: %s
Summary: A framework.
Requires-Dist: gast (>=0.2.0)
Requires-Dist: numpy (>=1.13.3)
Requires-Dist: protobuf (>=3.6.1)
"""
WHEEL = "Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: %s\n"
FILES = {
    "purelib/tensorflow/__init__.py": "__all__ = []\n",
    "purelib/tensorflow/python/pywrap_tensorflow.py": "from somewhere import *\n",
    "purelib/tensorflow/core/protobuf/config_pb2.py": "DESCRIPTOR = None\n",
    "purelib/tensorflow/include/a.h": "int a;\n" * 1000,
    "scripts/freeze_graph": "#!python\n",
}


def checksum(content):
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    return "sha256=" + digest


def make_wheel(path, name="tensorflow", version="1.13.1", tag=repack.STOCK_TAG, extra=()):
    """Writes a small wheel with the shape of the official one and returns its sha256."""
    stem = "%s-%s" % (name.replace("-", "_"), version)
    files = {"%s.data/%s" % (stem, key): text for key, text in FILES.items()}
    files.update({key: "" for key in extra})
    files["%s.dist-info/METADATA" % stem] = METADATA % (name, version)
    files["%s.dist-info/WHEEL" % stem] = WHEEL % tag
    rows = ["%s,%s,%d" % (key, checksum(text.encode()), len(text)) for key, text in files.items()]
    files["%s.dist-info/RECORD" % stem] = "\n".join(rows + [stem + ".dist-info/RECORD,,", ""])
    with zipfile.ZipFile(str(path), "w", zipfile.ZIP_DEFLATED) as archive:
        for key, text in files.items():
            archive.writestr(key, text)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def repacked(folder):
    """Repacks a small wheel and returns the path of the result."""
    stock_path = folder / STOCK_NAME
    sha256 = make_wheel(stock_path)
    repack.check_stock(stock_path, sha256)
    stock = wheelfile.read(stock_path)
    generated = {"tensorflow/core/protobuf/config_pb2.py": b"new\n"}
    additions = repack.additions_for(stock, b"\x7fELF", generated)
    path = folder / "out.whl"
    members = repack.repack(stock, additions, b"\x7fELF", "licences", "manylinux_2_35_x86_64")
    wheelfile.write(path, members)
    return path


@pytest.mark.parametrize(
    "changed, said",
    [
        ({"name": "tensorflow-gpu"}, "a GPU build (tensorflow-gpu 1.13.1)"),
        ({"name": "intel-tensorflow"}, "an MKL build (intel-tensorflow 1.13.1)"),
        ({"extra": ["tensorflow/libmklml_intel.so"]}, "an MKL build (tensorflow 1.13.1)"),
        ({"name": "tf-nightly", "version": "1.14.1.dev1"}, "tf-nightly 1.14.1.dev1"),
        ({"version": "1.13.2"}, "is tensorflow 1.13.2"),
        ({"version": "1.13.1+sentinel"}, "repacked already (tensorflow 1.13.1+sentinel)"),
        ({"tag": "cp36-cp36m-manylinux1_x86_64"}, "1.13.1 for cp36-cp36m-manylinux1_x86_64"),
        ({}, "not the official file, though it calls itself tensorflow 1.13.1"),
    ],
)
def test_other_wheels_are_refused_by_name(tmp_path, changed, said):
    path = tmp_path / "input.whl"
    make_wheel(path, **changed)
    with pytest.raises(repack.Refused) as refused:
        repack.check_stock(path, repack.stock_sha256())
    text = str(refused.value)
    assert said in text and str(path) in text and STOCK_NAME in text


def test_what_is_no_wheel_is_refused(tmp_path):
    path = tmp_path / "input.whl"
    with pytest.raises(repack.Refused, match="cannot be read: No such file"):
        repack.check_stock(path, repack.stock_sha256())
    path.write_bytes(b"not a zip file")
    with pytest.raises(repack.Refused, match="not a wheel, or it is damaged"):
        repack.check_stock(path, repack.stock_sha256())
    with zipfile.ZipFile(str(path), "w") as archive:
        archive.writestr("hello", "world")
    with pytest.raises(repack.Refused, match="not a wheel, or it is damaged"):
        repack.check_stock(path, repack.stock_sha256())


@pytest.mark.parametrize("place, byte", [(8, 99), (6, 1), (-40, 0)])
def test_a_wheel_with_damaged_members_is_refused(tmp_path, place, byte):
    path = tmp_path / "input.whl"
    with zipfile.ZipFile(str(path), "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x-1.dist-info/METADATA", "Name: x\n" * 50)
        archive.writestr("x-1.dist-info/WHEEL", "Tag: any\n")
    content = bytearray(path.read_bytes())
    # Compression method or flags of the first member, in its own header and in the directory; or its contents.
    for header, fields in ((b"PK\x03\x04", 0), (b"PK\x01\x02", 2)):
        at = content.index(header)
        if place > 0:
            content[at + place + fields] = byte
    if place < 0:
        begin = content.index(b"METADATA") + len("METADATA")
        content[begin : begin + 12] = bytes(12)
    path.write_bytes(bytes(content))
    with pytest.raises(repack.Refused, match="not a wheel, or it is damaged"):
        repack.check_stock(path, repack.stock_sha256())


def test_the_command_refuses_with_one_line(tmp_path):
    path = tmp_path / "input.whl"
    make_wheel(path, version="2.0.0")
    command = [sys.executable, str(PIP_PACKAGE / "repack.py"), "--stock", str(path)]
    command += [
        "--library",
        "none",
        "--command",
        "none",
        "--licences",
        "none",
        "--out",
        str(tmp_path),
    ]
    result = subprocess.run(command, capture_output=True)
    assert result.returncode == 1
    lines = result.stderr.decode().splitlines()
    assert len(lines) == 1 and "is tensorflow 2.0.0: only the official" in lines[0]


def test_record_lists_every_file_with_its_checksum(tmp_path):
    with zipfile.ZipFile(str(repacked(tmp_path))) as archive:
        assert archive.testzip() is None
        names = archive.namelist()
        record = "tensorflow-1.13.1+sentinel.dist-info/RECORD"
        rows = list(csv.reader(io.StringIO(archive.read(record).decode())))
        assert sorted(row[0] for row in rows) == sorted(names) and len(set(names)) == len(names)
        for name, digest, size in rows:
            content = archive.read(name)
            expected = ["", ""] if name == record else [checksum(content), str(len(content))]
            assert [digest, size] == expected, name


def test_only_the_named_files_change(tmp_path):
    path = repacked(tmp_path)
    with zipfile.ZipFile(str(tmp_path / STOCK_NAME)) as old, zipfile.ZipFile(str(path)) as new:
        before = {name.replace("1.13.1", "V", 1): old.read(name) for name in old.namelist()}
        after = {name.replace("1.13.1+sentinel", "V", 1): new.read(name) for name in new.namelist()}
    changed = {name for name in before if before[name] != after[name]}
    purelib, info = "tensorflow-V.data/purelib/tensorflow/", "tensorflow-V.dist-info/"
    assert changed == {
        purelib + "__init__.py",
        purelib + "core/protobuf/config_pb2.py",
        purelib + "python/pywrap_tensorflow.py",
        info + "METADATA",
        info + "RECORD",
        info + "WHEEL",
    }
    added = {name for name in set(after) - set(before)}
    api = {path.name for path in (ROOT / "tensorflow" / "python" / "sentinel").glob("*.py")}
    assert added == {
        purelib + "libsentinel.so",
        "tensorflow-V.data/scripts/sentinel",
        info + "NOTICE",
        info + "LICENSE",
        info + "LICENSES-rust-crates",
    } | {purelib + "python/sentinel/" + name for name in api}
    for name in ("__init__.py", "python/pywrap_tensorflow.py"):
        assert after[purelib + name].startswith(before[purelib + name])
        compile(after[purelib + name], name, "exec")


def test_metadata_names_the_version_the_caps_and_the_tag(tmp_path):
    with zipfile.ZipFile(str(repacked(tmp_path))) as archive:
        info = "tensorflow-1.13.1+sentinel.dist-info/"
        metadata = archive.read(info + "METADATA").decode()
        wheel = archive.read(info + "WHEEL").decode()
    assert "\nVersion: 1.13.1+sentinel\n" in metadata
    assert "\nSummary: A framework. (modified: with Sentinel, see NOTICE)\n" in metadata
    assert "Requires-Dist: gast (>=0.2.0,<0.3)\n" in metadata
    assert "Requires-Dist: h5py (<3)\n" in metadata
    assert "Requires-Dist: numpy (>=1.13.3,<1.17)\n" in metadata
    assert "Requires-Dist: protobuf (>=3.6.1,<3.21)\n" in metadata
    assert "Tag: cp37-cp37m-manylinux_2_35_x86_64\n" in wheel


def test_the_same_inputs_give_the_same_bytes(tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    first.mkdir()
    second.mkdir()
    assert repacked(first).read_bytes() == repacked(second).read_bytes()


@pytest.mark.parametrize(
    "versions, needed, tag",
    [
        ("GLIBC_2.2.5 GLIBC_2.34 GLIBCXX_3.4.21", "libc.so.6", "manylinux_2_34_x86_64"),
        ("GLIBC_2.17 GLIBCXX_3.4.30", "libstdc++.so.6", "manylinux_2_35_x86_64"),
        ("GLIBC_2.4 GLIBCXX_3.4.9", "libm.so.6", "manylinux_2_23_x86_64"),
        ("GLIBC_2.4 CXXABI_1.3.15", "libstdc++.so.6", "linux_x86_64"),
        ("GLIBC_2.4 GCC_13.0.0", "libgcc_s.so.1", "linux_x86_64"),
        ("GLIBC_2.4 GLIBC_ABI_DT_RELR", "libc.so.6", "linux_x86_64"),
        ("GLIBC_2.4 GLIBCXX_3.4.99", "libstdc++.so.6", "linux_x86_64"),
        ("GLIBC_2.4", "libnuma.so.1", "linux_x86_64"),
    ],
)
def test_the_tag_is_what_the_library_needs(monkeypatch, versions, needed, tag):
    output = " 0x01 (NEEDED)   Shared library: [%s]\n Name: %s\n" % (needed, versions)
    monkeypatch.setattr(platform_tag, "_readelf", lambda library: output)
    assert platform_tag.platform_tag(["libsentinel.so"]) == tag


def test_the_installed_wheel_is_as_its_record_says(sentinel_python):
    site = sentinel_python.parent.parent / "lib" / "python3.7" / "site-packages"
    record = site / "tensorflow-1.13.1+sentinel.dist-info" / "RECORD"
    count = 0
    for name, digest, _ in csv.reader(io.StringIO(record.read_text())):
        if digest:
            assert checksum((site / name).read_bytes()) == digest, name
            count += 1
    assert count > 5000


def test_options_are_a_typed_field_of_the_config(sentinel_python):
    program = """
import tensorflow as tf
assert tf.__version__ == "1.13.1"
config = tf.ConfigProto()
config.experimental.sentinel.fast_fraction = 0.2
config.experimental.sentinel.failure = tf.sentinel.Options.STRICT
copy = tf.ConfigProto.FromString(config.SerializeToString())
assert copy == config and copy.experimental.sentinel.failure == 1
assert tf.ConfigProto.Experimental.DESCRIPTOR.fields_by_name["sentinel"].number == 200
"""
    environment = {"PATH": "/usr/bin:/bin", "TF_CPP_MIN_LOG_LEVEL": "1", "SENTINEL": "0"}
    subprocess.run([str(sentinel_python), "-c", program], env=environment, check=True)
