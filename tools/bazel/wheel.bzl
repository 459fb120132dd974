"""The wheel, and the command that people know from TensorFlow's own build."""

load("@build_python//:python.bzl", "PYTHON")

def _repacked_wheel_impl(ctx):
    # A folder, because the wheel's name tells the systems that it runs on, and that shows only in what was built.
    folder = ctx.actions.declare_directory(ctx.label.name)
    ctx.actions.run(
        executable = PYTHON,
        arguments = ["-B", "-E", "-s", ctx.file._repack.path, "--stock", ctx.file.stock.path] +
                    ["--library", ctx.file.library.path, "--command", ctx.file.command.path] +
                    ["--licences", ctx.file.licences.path, "--out", folder.path],
        inputs = ctx.files._tools + [
            ctx.file.stock,
            ctx.file.library,
            ctx.file.command,
            ctx.file.licences,
            ctx.file._repack,
            ctx.file._python,
        ],
        outputs = [folder],
        mnemonic = "RepackWheel",
        progress_message = "Repacking TensorFlow with Sentinel",
        env = {"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
    )
    return [DefaultInfo(files = depset([folder]))]

repacked_wheel = rule(
    implementation = _repacked_wheel_impl,
    attrs = {
        "command": attr.label(allow_single_file = True, mandatory = True, doc = "the program `sentinel`"),
        "library": attr.label(allow_single_file = True, mandatory = True, doc = "libsentinel.so"),
        "licences": attr.label(allow_single_file = True, mandatory = True),
        "stock": attr.label(allow_single_file = True, default = Label("@tensorflow_wheel//:wheel")),
        "_python": attr.label(allow_single_file = True, default = Label("@build_python//:version.txt")),
        "_repack": attr.label(
            allow_single_file = True,
            default = Label("//tensorflow/tools/pip_package:repack.py"),
        ),
        "_tools": attr.label(default = Label("//tensorflow/tools/pip_package:files")),
    },
)

_BUILD_PIP_PACKAGE = """#!/bin/bash
# build_pip_package FOLDER: copies the wheel that Bazel has built into FOLDER.
set -euo pipefail
if [ $# -ne 1 ]; then
    echo "usage: build_pip_package FOLDER" >&2
    exit 2
fi
here="$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")"
mkdir -p "$1"
for wheel in "$here"/%s/*.whl; do
    target="$1/$(basename "$wheel")"
    cp -fL --no-preserve=mode "$wheel" "$target"
    echo "Output wheel file is in: $target"
done
"""

def _pip_package_impl(ctx):
    wheel = ctx.file.wheel
    script = ctx.actions.declare_file(ctx.label.name)
    ctx.actions.write(script, _BUILD_PIP_PACKAGE % wheel.basename, is_executable = True)
    return [DefaultInfo(
        executable = script,
        files = depset([script, wheel]),
        runfiles = ctx.runfiles([wheel]),
    )]

tf_wheel_package = rule(
    implementation = _pip_package_impl,
    attrs = {"wheel": attr.label(allow_single_file = True, mandatory = True, doc = "a repacked_wheel of this package")},
    executable = True,
)
