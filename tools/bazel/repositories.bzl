"""What the build takes from outside, through the ordinary clients of the package registries: pip and cargo."""

_DEVTOOL = Label("//tools/devtool:__main__.py")

def _run(rctx, what, command, timeout = 1200):
    """Runs a command and returns what it printed; fails with one line that says what went wrong."""
    result = rctx.execute(command, timeout = timeout)
    if result.return_code != 0:
        said = (result.stdout + result.stderr).strip().split("\n")
        fail("%s: %s" % (what, said[-1]))
    return result.stdout.strip()

def _program(rctx, name, package):
    """The path of a program on PATH."""
    path = rctx.which(name)
    if not path:
        fail("%s is missing: %s" % (name, package))
    return path

def _devtool(rctx, arguments):
    """Runs a command of tools/devtool that prints one value."""
    python3 = _program(rctx, "python3", "apt-get install python3")
    folder = rctx.path(_DEVTOOL).dirname
    return _run(rctx, "tools/devtool " + arguments[0], [python3, "-B", folder] + arguments).split("\n")[-1]

def _python_venv_impl(rctx):
    python = _devtool(rctx, [rctx.attr.find])
    _run(rctx, "venv", [python, "-m", "venv", "venv"])
    pip = ["venv/bin/python", "-m", "pip", "install", "--require-hashes", "--disable-pip-version-check"]
    for lock in rctx.attr.locks:
        _run(rctx, "pip install", pip + ["-q", "--no-build-isolation", "-r", rctx.path(lock)])
    venv_python = str(rctx.path("venv/bin/python"))
    rctx.file("python.bzl", "PYTHON = \"%s\"\n" % venv_python)

    # Actions have this file as an input: another interpreter or other packages make them run again.
    rctx.file("version.txt", _run(rctx, "pip", [venv_python, "-m", "pip", "freeze", "--all"]) + "\n" + python + "\n")

    # Tests run it by its label, so that only they ask for this repository.
    rctx.file("python", "#!/bin/bash\nexec \"%s\" \"$@\"\n" % venv_python)
    rctx.file("BUILD", "exports_files([\"version.txt\", \"python.bzl\", \"python\"])\n")

python_venv = repository_rule(
    implementation = _python_venv_impl,
    attrs = {
        "find": attr.string(mandatory = True, doc = "the command of tools/devtool that prints which Python it is"),
        "locks": attr.label_list(mandatory = True, doc = "pip requirements with hashes, in order"),
    },
    environ = ["SENTINEL_PYTHON", "PATH"],
)

_EXTRACT = """
import os, sys, zipfile
archive = zipfile.ZipFile(sys.argv[1])
prefix = "tensorflow-1.13.1.data/purelib/tensorflow/"
for name in archive.namelist():
    path = name[len(prefix):]
    if name.startswith(prefix) and (path.startswith("include/") or path == "libtensorflow_framework.so"):
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        with open(path, "wb") as stream:
            stream.write(archive.read(name))
with open("libtensorflow_framework.so", "rb") as stream:
    if b"NewStringB5cxx11Ev" not in stream.read():
        sys.exit("libtensorflow_framework.so has another string layout (_GLIBCXX_USE_CXX11_ABI) than flags.bzl says")
"""

def _tf_wheel_impl(rctx):
    python = rctx.path(rctx.attr.python).dirname.get_child("venv").get_child("bin").get_child("python")
    rctx.path(rctx.attr.lock)
    wheel = _devtool(rctx, ["stock-wheel", str(python)])
    name = wheel.split("/")[-1]

    # Not a link: the build goes on when the cache is emptied.
    _run(rctx, "copying " + name, ["cp", "--reflink=auto", wheel, name])
    _run(rctx, "unpacking " + name, [python, "-c", _EXTRACT, name])
    rctx.file("BUILD", """
package(default_visibility = ["//visibility:public"])

exports_files(["%s", "libtensorflow_framework.so"])

alias(name = "wheel", actual = "%s")

cc_library(
    name = "framework",
    srcs = ["libtensorflow_framework.so"],
    hdrs = glob(["include/**"], exclude = ["include/**/*.so"]),
    includes = ["include", "include/external/nsync/public"],
)
""" % (name, name))

tf_wheel = repository_rule(
    implementation = _tf_wheel_impl,
    attrs = {
        "lock": attr.label(mandatory = True, doc = "names the wheel and its sha256"),
        "python": attr.label(default = Label("@build_python//:python.bzl")),
    },
    environ = ["SENTINEL_CACHE", "XDG_CACHE_HOME", "HOME"],
)

def _local_rust_impl(rctx):
    rustc = rctx.os.environ.get("RUSTC") or _program(rctx, "rustc", "see https://rustup.rs (Debian's own is too old)")

    # Past rustup's proxy, which needs a HOME, to the toolchain itself.
    sysroot = _run(rctx, "rustc", [rustc, "--print", "sysroot"])
    rctx.file("rust.bzl", "SYSROOT = \"%s\"\n" % sysroot)
    rctx.file("version.txt", _run(rctx, "rustc", [sysroot + "/bin/rustc", "-vV"]) + "\n")
    rctx.file("BUILD", "exports_files([\"version.txt\", \"rust.bzl\"])\n")

local_rust = repository_rule(
    implementation = _local_rust_impl,
    environ = ["RUSTC", "RUSTUP_TOOLCHAIN", "PATH"],
    local = True,
)

def _cargo_vendor_impl(rctx):
    cargo = _program(rctx, "cargo", "see https://rustup.rs (Debian's own is too old)")
    manifest = rctx.path(rctx.attr.lockfile).dirname.get_child("Cargo.toml")
    flags = ["--locked", "--versioned-dirs", "--manifest-path", manifest]
    _run(rctx, "cargo vendor", [cargo, "vendor"] + flags + ["vendor"])

    # One file, because some crates hold files that Bazel would take for its own. Sorted and without times.
    tar = ["tar", "--sort=name", "--mtime=@0", "--owner=0", "--group=0", "--numeric-owner", "--mode=go-w"]
    _run(rctx, "tar", tar + ["-cf", "vendor.tar", "vendor"])
    _run(rctx, "rm", ["rm", "-rf", "vendor"])
    rctx.file("BUILD", "exports_files([\"vendor.tar\"])\n")

cargo_vendor = repository_rule(
    implementation = _cargo_vendor_impl,
    attrs = {"lockfile": attr.label(mandatory = True, doc = "Cargo.lock of the workspace")},
    environ = ["CARGO_HOME", "PATH"],
)

def _python_packages_impl(rctx):
    python = rctx.path(rctx.attr.python).dirname.get_child("venv").get_child("bin").get_child("python")
    flags = ["--require-hashes", "--no-deps", "--no-build-isolation", "--disable-pip-version-check", "-q", "-d", "."]
    for lock in rctx.attr.locks:
        _run(rctx, "pip download", [python, "-m", "pip", "download"] + flags + ["-r", rctx.path(lock)])
    rctx.file("BUILD", """
package(default_visibility = ["//visibility:public"])

filegroup(name = "files", srcs = glob(["*.whl", "*.tar.gz"]))

# By this one, which exists only as source, a test finds the folder.
filegroup(name = "gast", srcs = glob(["gast-*.tar.gz"]))
""")

python_packages = repository_rule(
    implementation = _python_packages_impl,
    attrs = {
        "locks": attr.label_list(mandatory = True, doc = "pip requirements with hashes"),
        "python": attr.label(default = Label("@python37//:python.bzl")),
    },
)
