"""Rust by cargo: an offline, locked build of the whole workspace is one action. See docs/wheel.md for why."""

load("@local_rust//:rust.bzl", "SYSROOT")
load("@build_python//:python.bzl", "PYTHON")

_TOOLS = {
    "_action": attr.label(allow_single_file = True, default = Label("//tools/bazel:cargo_action.py")),
    "_python": attr.label(allow_single_file = True, default = Label("@build_python//:version.txt")),
    "_rust": attr.label(allow_single_file = True, default = Label("@local_rust//:version.txt")),
    "_tools": attr.label(default = Label("//tools/bazel:native_tools")),
    "srcs": attr.label_list(allow_files = True, mandatory = True, doc = "files that cargo may read"),
    "vendor": attr.label(allow_single_file = True, default = Label("@crates//:vendor.tar")),
    "workspace": attr.string(mandatory = True, doc = "folder of Cargo.toml"),
}

def _inputs(ctx):
    return ctx.files.srcs + ctx.files._tools + [ctx.file.vendor, ctx.file._action, ctx.file._python, ctx.file._rust]

def _common_arguments(ctx, vendor):
    arguments = ["--sysroot", SYSROOT, "--vendor", vendor, "--workspace", ctx.attr.workspace]
    for source in ctx.files.srcs:
        arguments += ["--source", source.path]
    return arguments

def _cargo_build_impl(ctx):
    arguments = _common_arguments(ctx, ctx.file.vendor.path)
    for name in ctx.attr.libraries:
        arguments += ["--library", name]
    for name in ctx.attr.programs:
        arguments += ["--program", name]
    for out, pattern in zip(ctx.outputs.outs, ctx.attr.patterns):
        arguments += ["--copy", "%s=%s" % (out.path, pattern)]
    arguments += ["--licences", ctx.outputs.licences.path]
    cache = ctx.var.get("cargo_cache", "")
    if cache and ctx.attr.may_use_cache:
        arguments += ["--cache", cache]
    parameters = ctx.actions.declare_file(ctx.label.name + ".arguments")
    ctx.actions.write(parameters, "\n".join(arguments) + "\n")
    outputs = ctx.outputs.outs + [ctx.outputs.licences]
    ctx.actions.run(
        executable = PYTHON,
        arguments = ["-B", "-E", "-s", ctx.file._action.path, "@" + parameters.path],
        inputs = _inputs(ctx) + [parameters],
        outputs = outputs,
        mnemonic = "CargoBuild",
        progress_message = "Building %s with cargo, offline" % ", ".join(ctx.attr.libraries + ctx.attr.programs),
        env = {"LC_ALL": "C", "PATH": "/usr/bin:/bin"},
        execution_requirements = {"block-network": "1"},
    )
    return [DefaultInfo(files = depset(outputs))]

cargo_build = rule(
    implementation = _cargo_build_impl,
    attrs = dict(
        _TOOLS,
        libraries = attr.string_list(doc = "packages"),
        programs = attr.string_list(doc = "PACKAGE:NAME; linked for old systems"),
        outs = attr.output_list(mandatory = True),
        patterns = attr.string_list(mandatory = True, doc = "for each of outs, what it is in cargo's target folder"),
        licences = attr.output(mandatory = True, doc = "licence texts of all crates that are linked"),
        may_use_cache = attr.bool(default = True, doc = "False: from nothing, whatever --define=cargo_cache says"),
    ),
)

def _cargo_test_impl(ctx):
    script = ctx.actions.declare_file(ctx.label.name + ".sh")
    arguments = _common_arguments(ctx, ctx.file.vendor.short_path.replace("../", "external/", 1)) + ["--test"]
    parameters = ctx.actions.declare_file(ctx.label.name + ".arguments")
    ctx.actions.write(parameters, "\n".join(arguments) + "\n")
    ctx.actions.write(script, "\n".join([
        "#!/bin/bash",
        "export PATH=/usr/bin:/bin",
        "cd -P \"$TEST_SRCDIR/$TEST_WORKSPACE\"",
        "exec \"%s\" -B -E -s %s @%s" % (PYTHON, ctx.file._action.short_path, parameters.short_path),
        "",
    ]), is_executable = True)
    return [DefaultInfo(executable = script, runfiles = ctx.runfiles(_inputs(ctx) + [parameters]))]

cargo_test = rule(
    implementation = _cargo_test_impl,
    attrs = _TOOLS,
    test = True,
)

def cargo_static_library(name, archive, headers, linkopts = ["-lpthread", "-ldl", "-lm"]):
    """A static library that cargo built, for C++ targets to depend on."""
    native.cc_library(
        name = name,
        srcs = [archive],
        linkopts = linkopts,
        deps = [headers],
        visibility = ["//visibility:public"],
    )

def cxx_bridge(name, headers, include):
    """The C++ side of the cxx bridge.

    The headers are those of the very build that made the static library, so the two cannot disagree.
    """
    native.cc_library(
        name = name,
        hdrs = headers,
        includes = [include],
        visibility = ["//visibility:public"],
    )
