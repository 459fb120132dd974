"""Builds libsentinel.so and the command `sentinel`: Rust by cargo, the C++ shim by g++, and one link of the two.

The compiler sees the headers of the official wheel in .venv-stock, and the library is linked against the
libtensorflow_framework.so in it.
"""

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from util import (
    BUILD,
    ROOT,
    STOCK_VENV,
    Stop,
    clean_env,
    is_fresh,
    key_of,
    need_programs,
    say,
    write_stamp,
)

sys.path.insert(0, str(ROOT / "tools" / "bazel"))

import licences  # noqa: E402
import native  # noqa: E402

CARGO_WORKSPACE = ROOT / "sentinel_rs"
SHIM = ROOT / "tensorflow" / "core" / "sentinel"
TOOLS = ROOT / "tools" / "bazel"
EXPORTS = TOOLS / "exports.lds"
OUT = BUILD / "plugin"
LIBRARY = OUT / "libsentinel.so"
# Stand-ins for the C library, so that the products run on older systems than this one.
PREPARED = OUT / "old-systems"
FLAGS = native.read_flags()
# No message names the folder in which the library was built.
CXX_FLAGS = FLAGS["SHIM_FLAGS"] + ["-ffile-prefix-map=%s/=" % ROOT]


def cargo_env():
    """The environment in which cargo compiles C++ that agrees with TensorFlow.

    It is left alone where the compiler agrees by itself, as nearly all do, so that a plain `cargo build` in the same
    checkout does not compile anew.
    """
    command = ["g++", "-x", "c++", "-dM", "-E", "-include", "string", "/dev/null"]
    macros = subprocess.run(command, env=clean_env(), stdout=subprocess.PIPE).stdout.decode()
    if "#define _GLIBCXX_USE_CXX11_ABI 1\n" in macros:
        return clean_env()
    return clean_env(CXXFLAGS=(os.environ.get("CXXFLAGS", "") + " " + FLAGS["ABI_FLAG"]).strip())


def build_plugin():
    """Brings libsentinel.so and the command `sentinel` up to date and returns their paths."""
    need_programs("cargo", "g++", "nm", "ldd")
    sources = sorted(SHIM.glob("*.cc"))
    sources = [source for source in sources if not source.name.endswith("_test.cc")]
    if not sources:
        raise Stop("there is no C++ source in %s" % SHIM.relative_to(ROOT))
    _prepare()
    archive, bridge = _build_rust()
    program = _build_command()
    tensorflow = _tensorflow_folder()
    compile_command = _compile_command(tensorflow, bridge)
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        objects = list(pool.map(lambda source: _compile(compile_command, source), sources))
    command = native.link_command(objects + [archive], tensorflow, EXPORTS, PREPARED, LIBRARY)
    key = key_of(command, EXPORTS, archive, PREPARED / "key", *objects)
    stamp = OUT / "link-key"
    if not (LIBRARY.is_file() and is_fresh(stamp, key)):
        say("linking libsentinel.so")
        if subprocess.call(command, env=clean_env()):
            raise Stop("libsentinel.so does not link (see above)")
        _check_library(tensorflow)
        write_stamp(stamp, key)
    return LIBRARY, program


def _prepare():
    """Makes the stand-ins for the C library anew when they, or what is installed here, have changed."""
    version = subprocess.check_output(["ldd", "--version"], env=clean_env(LC_ALL="C")).decode()
    key = key_of(version, *native.inputs())
    stamp = PREPARED / "key"
    if is_fresh(stamp, key):
        return
    shutil.rmtree(str(PREPARED), ignore_errors=True)
    native.prepare(PREPARED)
    write_stamp(stamp, key)


def _tensorflow_folder():
    """The folder of the official TensorFlow, from which headers and the framework library come."""
    return STOCK_VENV / "lib" / "python3.7" / "site-packages" / "tensorflow"


def _build_rust():
    """Runs cargo. Returns the static library and the folder that holds the generated headers of the bridge."""
    command = [
        "cargo",
        "build",
        "--release",
        "--locked",
        "-p",
        "ffi",
        "--message-format=json-render-diagnostics",
    ]
    result = subprocess.run(
        command, cwd=str(CARGO_WORKSPACE), env=cargo_env(), stdout=subprocess.PIPE
    )
    if result.returncode:
        raise Stop("the Rust part does not build (see above)")
    archive = bridge = None
    for line in result.stdout.decode().splitlines():
        message = json.loads(line)
        if "/crates/ffi#" not in message.get("package_id", ""):
            continue
        if message["reason"] == "build-script-executed":
            bridge = Path(message["out_dir"]) / "cxxbridge" / "include"
        for name in message.get("filenames", []):
            if name.endswith(".a"):
                archive = Path(name)
    if archive is None or bridge is None:
        raise Stop("cargo built crate ffi but named no static library or no generated headers")
    return archive, bridge


def _build_command():
    """Builds the command `sentinel`, which goes into the wheel as well, and returns its path."""
    command = ["cargo", "rustc", "--release", "--locked", "-p", "cli", "--bin", "sentinel"]
    command += ["--message-format=json-render-diagnostics", "--"] + native.program_flags(PREPARED)
    result = subprocess.run(
        command, cwd=str(CARGO_WORKSPACE), env=cargo_env(), stdout=subprocess.PIPE
    )
    if result.returncode:
        raise Stop("the command `sentinel` does not build (see above)")
    for line in reversed(result.stdout.decode().splitlines()):
        message = json.loads(line)
        if message.get("executable"):
            return Path(message["executable"])
    raise Stop("cargo built crate cli but named no program")


def write_licences(path):
    """Writes the licence texts of the Rust crates in what is built here."""
    command = ["cargo", "metadata", "--locked", "--format-version=1"]
    command += ["--filter-platform=x86_64-unknown-linux-gnu"]
    result = subprocess.run(
        command, cwd=str(CARGO_WORKSPACE), env=clean_env(), stdout=subprocess.PIPE
    )
    if result.returncode:
        raise Stop("cargo cannot tell which crates are used (see above)")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(licences.licences(json.loads(result.stdout.decode())), encoding="utf-8")


def _compile_command(tensorflow, bridge):
    """The command that compiles one file, without the file."""
    include = tensorflow / "include"
    command = ["g++"] + CXX_FLAGS + ["-I", str(ROOT), "-I", str(SHIM), "-I", str(bridge)]
    return command + [
        "-isystem",
        str(include),
        "-isystem",
        str(include / "external" / "nsync" / "public"),
    ]


def _compile(command, source):
    """Compiles one file unless its object was made from these very contents by this very command."""
    target = OUT / "objects" / (source.stem + ".o")
    target.parent.mkdir(parents=True, exist_ok=True)
    depends, stamp = target.with_suffix(".d"), target.with_suffix(".key")
    if target.is_file() and is_fresh(stamp, _object_key(command, depends)):
        return target
    say("compiling %s" % source.relative_to(ROOT))
    if subprocess.call(
        command + ["-MMD", "-MF", str(depends), "-c", str(source), "-o", str(target)],
        env=clean_env(),
    ):
        raise Stop("%s does not compile (see above)" % source.relative_to(ROOT))
    write_stamp(stamp, _object_key(command, depends))
    return target


def _object_key(command, depends):
    """A digest of the command and of every file, other than TensorFlow's and the system's, that the compiler read."""
    try:
        words = depends.read_text().replace("\\\n", " ").split()[1:]
        return key_of(command, *[Path(word) for word in words])
    except OSError:
        return None


def _check_library(tensorflow):
    """Stops when the library would not load, or shows the process more names than it should."""
    try:
        names = native.check(LIBRARY, tensorflow)
    except native.Faulty as fault:
        raise Stop(str(fault)) from fault
    megabytes = LIBRARY.stat().st_size / 1e6
    say("libsentinel.so: %.1f MB, exports %s" % (megabytes, ", ".join(names)))
