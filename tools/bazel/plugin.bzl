"""libsentinel.so from the shim's and Rust's static libraries, and what checks it."""

load("@build_python//:python.bzl", "PYTHON")

def _plugin_library_impl(ctx):
    archives = [file for file in ctx.files.deps if file.extension in ["a", "lo"] and not file.path.endswith(".pic.lo")]
    framework = ctx.file._framework
    ctx.actions.run(
        executable = PYTHON,
        arguments = ["-B", "-E", "-s", ctx.file._native.path, "link", "--tensorflow", framework.dirname] +
                    ["--exports", ctx.file.exports.path, "--out", ctx.outputs.out.path] +
                    [archive.path for archive in archives],
        inputs = archives + ctx.files._tools + [framework, ctx.file._native, ctx.file.exports, ctx.file._python],
        outputs = [ctx.outputs.out],
        mnemonic = "LinkPlugin",
        progress_message = "Linking %s for old systems" % ctx.outputs.out.short_path,
        # PATH as everywhere in this build; the linker is the compiler's own.
        env = {"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
    )
    return [DefaultInfo(files = depset([ctx.outputs.out]))]

plugin_library = rule(
    implementation = _plugin_library_impl,
    attrs = {
        "deps": attr.label_list(allow_files = True, mandatory = True, doc = "static libraries, of which everything is taken"),
        "exports": attr.label(allow_single_file = True, default = Label("//tools/bazel:exports.lds")),
        "out": attr.output(mandatory = True),
        "_framework": attr.label(allow_single_file = True, default = Label("@tensorflow_wheel//:libtensorflow_framework.so")),
        "_native": attr.label(allow_single_file = True, default = Label("//tools/bazel:native.py")),
        "_python": attr.label(allow_single_file = True, default = Label("@build_python//:version.txt")),
        "_tools": attr.label(default = Label("//tools/bazel:native_tools")),
    },
)

def _python_check_impl(ctx):
    script = ctx.actions.declare_file(ctx.label.name + ".sh")
    words = ["-B", "-E", "-s", ctx.file.script.short_path]
    for target in ctx.attr.arguments:
        words += [file.short_path for file in target.files.to_list()]
    ctx.actions.write(script, "\n".join([
        "#!/bin/bash",
        "cd \"$TEST_SRCDIR/$TEST_WORKSPACE\"",
        "exec \"%s\" %s" % (ctx.file.python.short_path if ctx.file.python else PYTHON, " ".join(words)),
        "",
    ]), is_executable = True)
    files = [ctx.file.script] + ctx.files.arguments + ctx.files.data + ctx.files.python
    return [DefaultInfo(executable = script, runfiles = ctx.runfiles(files))]

python_check_test = rule(
    implementation = _python_check_impl,
    attrs = {
        "arguments": attr.label_list(allow_files = True, doc = "files whose paths the script is given, in order"),
        "data": attr.label_list(allow_files = True),
        "python": attr.label(allow_single_file = True, doc = "runs the script; without it, the Python that builds"),
        "script": attr.label(allow_single_file = [".py"], mandatory = True),
    },
    test = True,
)

def _program_test_impl(ctx):
    script = ctx.actions.declare_file(ctx.label.name + ".sh")
    program = ctx.executable.program
    ctx.actions.write(script, "\n".join([
        "#!/bin/bash",
        "exec \"$TEST_SRCDIR/$TEST_WORKSPACE/%s\"" % program.short_path,
        "",
    ]), is_executable = True)
    runfiles = ctx.runfiles([program]).merge(ctx.attr.program.default_runfiles)
    return [DefaultInfo(executable = script, runfiles = runfiles)]

# A program whose exit code is the result. Bazel 0.21's own cc_test cannot be used: it wants a JDK from the network.
program_test = rule(
    implementation = _program_test_impl,
    attrs = {
        "program": attr.label(cfg = "target", executable = True, mandatory = True),
    },
    test = True,
)
