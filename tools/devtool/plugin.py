"""Builds libsentinel.so: the Rust static library by cargo, the C++ shim by g++, and one link of the two.

The compiler sees the headers of the official wheel in .venv-stock, and the library is linked against the
libtensorflow_framework.so in it.
"""

import json
import os
import subprocess
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

CARGO_WORKSPACE = ROOT / "sentinel_rs"
SHIM = ROOT / "tensorflow" / "core" / "sentinel"
EXPORTS = ROOT / "tools" / "devtool" / "exports.lds"
OUT = BUILD / "plugin"
LIBRARY = OUT / "libsentinel.so"
# The official cp37 wheel was built with the newer of libstdc++'s two string layouts; everything must agree with it.
ABI_FLAG = "-D_GLIBCXX_USE_CXX11_ABI=1"
# NDEBUG as in the official build, so that inline functions of TensorFlow's headers are the same on both sides.
CXX_FLAGS = [
    "-std=c++14",
    "-O2",
    "-fPIC",
    "-fvisibility=hidden",
    "-Wall",
    "-Wextra",
    "-Wno-unused-parameter",
    "-DNDEBUG",
    # No message names the folder in which the library was built.
    "-ffile-prefix-map=%s/=" % ROOT,
    ABI_FLAG,
]


def cargo_env():
    """The environment in which cargo compiles C++ that agrees with TensorFlow.

    It is left alone where the compiler agrees by itself, as nearly all do, so that a plain `cargo build` in the same
    checkout does not compile anew.
    """
    command = ["g++", "-x", "c++", "-dM", "-E", "-include", "string", "/dev/null"]
    macros = subprocess.run(command, env=clean_env(), stdout=subprocess.PIPE).stdout.decode()
    if "#define _GLIBCXX_USE_CXX11_ABI 1\n" in macros:
        return clean_env()
    return clean_env(CXXFLAGS=(os.environ.get("CXXFLAGS", "") + " " + ABI_FLAG).strip())


def build_plugin():
    """Brings libsentinel.so up to date and returns its path."""
    need_programs("cargo", "g++", "nm", "ldd")
    sources = sorted(SHIM.glob("*.cc"))
    if not sources:
        raise Stop("there is no C++ source in %s" % SHIM.relative_to(ROOT))
    archive, bridge = _build_rust()
    tensorflow = _tensorflow_folder()
    compile_command = _compile_command(tensorflow, bridge)
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        objects = list(pool.map(lambda source: _compile(compile_command, source), sources))
    command = _link_command(tensorflow, objects, archive)
    key = key_of([str(part) for part in command], EXPORTS, archive, *objects)
    stamp = OUT / "link-key"
    if not (LIBRARY.is_file() and is_fresh(stamp, key)):
        say("linking libsentinel.so")
        if subprocess.call(command, env=clean_env()):
            raise Stop("libsentinel.so does not link (see above)")
        _check_library(tensorflow)
        write_stamp(stamp, key)
    return LIBRARY


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


def _link_command(tensorflow, objects, archive):
    """The command that makes libsentinel.so. Debug information is left out: it is most of the size."""
    command = ["g++", "-shared", "-o", str(LIBRARY)] + [str(path) for path in objects]
    command += [
        "-Wl,--whole-archive",
        str(archive),
        "-Wl,--no-whole-archive",
        "-Wl,--gc-sections",
        "-Wl,--strip-debug",
    ]
    # At run time the framework library is the one in the folder where libsentinel.so lies.
    command += [
        "-L",
        str(tensorflow),
        "-l:libtensorflow_framework.so",
        "-Wl,-rpath,$ORIGIN",
        "-lpthread",
        "-ldl",
        "-lm",
    ]
    return command + ["-Wl,-z,defs", "-Wl,--version-script=%s" % EXPORTS]


def _check_library(tensorflow):
    """Stops when the library would not load, or shows the process more names than it should."""
    env = clean_env(LD_LIBRARY_PATH=str(tensorflow), LC_ALL="C")
    output = subprocess.run(
        ["ldd", "-r", str(LIBRARY)], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ).stdout
    bad = [
        line.strip()
        for line in output.decode().splitlines()
        if "undefined symbol" in line or "not found" in line
    ]
    if bad:
        raise Stop("libsentinel.so cannot be loaded: %s" % "; ".join(bad[:3]))
    output = subprocess.check_output(["nm", "-D", "--defined-only", str(LIBRARY)], env=env)
    names = [line.split()[-1] for line in output.decode().splitlines()]
    strangers = [name for name in names if not name.startswith("sentinel_")]
    if strangers:
        raise Stop("libsentinel.so exports names of others: %s" % ", ".join(strangers[:3]))
    if not names:
        raise Stop(
            "libsentinel.so exports nothing; sentinel_version and sentinel_stats_json are expected"
        )
    say(
        "libsentinel.so: %.1f MB, exports %s"
        % (LIBRARY.stat().st_size / 1e6, ", ".join(sorted(names)))
    )
