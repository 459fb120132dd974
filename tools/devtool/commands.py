"""The commands of tools/dev, each a function that takes the rest of the command line and returns an exit code."""

import shutil
import subprocess
import time

import plugin
import venvs
from pythons import find_build_python, find_python
from util import (
    BUILD,
    ROOT,
    STOCK_VENV,
    TOOLS_VENV,
    VENV,
    Stop,
    clean_env,
    is_fresh,
    key_of,
    need_programs,
    need_rust,
    one_at_a_time,
    run_logged,
    say,
    write_stamp,
)

PIP_PACKAGE = ROOT / "tensorflow" / "tools" / "pip_package"
PYTHON_API = ROOT / "tensorflow" / "python" / "sentinel"
SCHEMA = ROOT / "tensorflow" / "core" / "protobuf" / "sentinel.proto"
WHEELS = BUILD / "wheel"

# Benchmarks that need no TensorFlow: `sentinel bench NAME`.
PLANNER_BENCHES = ("packing", "planning", "policies")


def setup(arguments=()):
    """Makes everything that a checkout needs to run; what is up to date is left alone."""
    _no_arguments("setup", arguments)
    began = time.monotonic()
    need_programs("cargo", "g++", "nm", "ldd", "readelf")
    need_rust()
    python = find_python()
    with one_at_a_time():
        _setup(python)
    say("ready after %.1f s" % (time.monotonic() - began))
    return 0


def _setup(python):
    """The steps of setup, in the order in which they need each other."""
    runtime_lock = venvs.TOOLS / "requirements.lock"
    make_tools_venv(python)
    venvs.make_venv(STOCK_VENV, python, runtime_lock)
    venvs.make_venv(VENV, python, runtime_lock)
    stock_key = venvs.stock_sha256()
    if not is_fresh(STOCK_VENV / "sentinel-wheel", stock_key):
        venvs.install_wheel(STOCK_VENV, venvs.stock_wheel(tools_python()), stock_key)
    library, command = plugin.build_plugin()
    wheel, wheel_key = _repack(library, command)
    venvs.install_wheel(VENV, wheel, wheel_key)


def make_tools_venv(python):
    """Makes the environment with protoc, ruff, clang-format and pip-compile."""
    venvs.make_venv(TOOLS_VENV, python, venvs.TOOLS / "requirements-tools.lock")


def tools_python():
    """The Python that has protoc and runs build steps."""
    return TOOLS_VENV / "bin" / "python"


def _repack(library, program):
    """Brings the wheel with Sentinel up to date. Returns its path and a key of its inputs."""
    inputs = sorted(PIP_PACKAGE.glob("*")) + sorted(PYTHON_API.glob("*.py"))
    inputs += [SCHEMA, ROOT / "LICENSE"]
    inputs = [path for path in inputs if path.is_file()]
    key = key_of([str(path) for path in inputs], venvs.stock_sha256(), library, program, *inputs)
    stamp = WHEELS / "key"
    made = sorted(WHEELS.glob("*.whl"))
    if len(made) == 1 and is_fresh(stamp, key):
        return made[0], key
    say("repacking TensorFlow with Sentinel")
    for old in made:
        old.unlink()
    stock = venvs.stock_wheel(tools_python())
    licences = BUILD / "licences-rust-crates.txt"
    plugin.write_licences(licences)
    command = [tools_python(), PIP_PACKAGE / "repack.py", "--stock", stock, "--library", library]
    command += ["--command", program, "--licences", licences, "--out", WHEELS]
    run_logged("repack", command)
    write_stamp(stamp, key)
    return next(WHEELS.glob("*.whl")), key


def print_stock_wheel(arguments):
    """Prints the path of the official wheel; the Python that is the only argument downloads it when it is missing."""
    print(venvs.stock_wheel(arguments[0]))
    return 0


def demo(arguments):
    """Runs the demo in the environment with Sentinel; its options are those of examples/demo.py."""
    setup()
    return _call([VENV / "bin" / "python", ROOT / "examples" / "demo.py"] + list(arguments))


def bench(arguments):
    """Runs one benchmark by name, or lists them: those of the planner by its command-line tool, others from bench/."""
    names = sorted(PLANNER_BENCHES + tuple(path.stem for path in (ROOT / "bench").glob("*.py")))
    if not arguments or arguments[0] not in names:
        have = ", ".join(names)
        if arguments:
            raise Stop("there is no benchmark '%s'; there are: %s" % (arguments[0], have))
        print("benchmarks: " + have)
        return 0
    setup()
    name, options = arguments[0], list(arguments[1:])
    if name in PLANNER_BENCHES:
        # Setup has put its release build there; cargo would link it anew, with other flags.
        return _call([VENV / "bin" / "sentinel", "bench", name] + options)
    return _call([VENV / "bin" / "python", ROOT / "bench" / (name + ".py")] + options)


def check(arguments):
    """Runs every formatter in its checking mode and every linter; tells which of them object."""
    _no_arguments("check", arguments)
    need_programs("cargo", "g++")
    make_tools_venv(find_python())
    tools = TOOLS_VENV / "bin"
    rust = plugin.CARGO_WORKSPACE
    clippy = ["cargo", "clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"]
    steps = [
        ("cargo fmt", ["cargo", "fmt", "--all", "--check"], rust),
        ("cargo clippy", clippy, rust),
        ("ruff check", [tools / "ruff", "check", "."], ROOT),
        ("ruff format", [tools / "ruff", "format", "--check", "."], ROOT),
    ]
    shim = sorted(path for path in plugin.SHIM.glob("*") if path.suffix in (".cc", ".h"))
    if shim:
        command = [tools / "clang-format", "--dry-run", "-Werror"] + shim
        steps.append(("clang-format", command, ROOT))
    failed = []
    for name, command, folder in steps:
        say(name)
        if subprocess.call([str(part) for part in command], cwd=str(folder), env=clean_env()):
            failed.append(name)
    if failed:
        raise Stop("these object: %s" % ", ".join(failed))
    say("all checks pass")
    return 0


def lock(arguments):
    """Compiles the lock files anew. Versions stay as they are unless the .in file asks for others."""
    _no_arguments("lock", arguments)
    make_tools_venv(find_python())
    flags = ["--quiet", "--generate-hashes", "--allow-unsafe", "--no-header", "--strip-extras"]
    flags += ["--no-emit-index-url", "--no-emit-find-links", "--resolver=backtracking"]
    for source in sorted(venvs.TOOLS.glob("*.in")):
        target = source.with_suffix(".lock")
        say("%s -> %s" % (source.name, target.name))
        command = [TOOLS_VENV / "bin" / "pip-compile"] + flags + ["-o", target.name, source.name]
        run_logged("lock", command, cwd=str(venvs.TOOLS))
    return 0


def clean(arguments):
    """Removes what the other commands made in this checkout; downloads are kept for the next one."""
    _no_arguments("clean", arguments)
    for folder in (VENV, STOCK_VENV, BUILD, plugin.CARGO_WORKSPACE / "target"):
        if folder.exists():
            say("removing %s" % folder.relative_to(ROOT))
            shutil.rmtree(str(folder))
    # Bazel's own files lie in its cache; these links lead there.
    for link in ROOT.glob("bazel-*"):
        link.unlink()
    return 0


def print_python(arguments):
    """Prints the path of the Python 3.7 that setup would use."""
    _no_arguments("python", arguments)
    print(find_python())
    return 0


def print_build_python(arguments):
    """Prints the path of the Python that Bazel's build steps run under."""
    _no_arguments("build-python", arguments)
    print(find_build_python())
    return 0


def _call(command):
    """Runs a program in the foreground, from the top of the checkout, and returns its exit code."""
    return subprocess.call([str(part) for part in command], cwd=str(ROOT), env=clean_env())


def _no_arguments(name, arguments):
    """Stops when a command that has no options was given some."""
    if arguments:
        raise Stop("%s takes no options, but got: %s" % (name, " ".join(arguments)))
