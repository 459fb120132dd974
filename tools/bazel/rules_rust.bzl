"""The second way to the static library: upstream rules_rust, from the tree that RULES_RUST_SRC names.

    RULES_RUST_SRC=/path/to/tree bazel build --config=opt --config=rules_rust //tools/bazel/rules_rust:sentinel_ffi

Nothing else in this build refers to what is here. See docs/decisions/0009-cargo-inside-bazel.md.
"""

_VARIABLE = "RULES_RUST_SRC"

# Names of files and of what must be in them: proc macros need the edition, and later versions need a later Bazel.
_FITS = {
    "rust/private/rust.bzl": ["out_dir_tar", "edition"],
    "rust/private/rustc.bzl": ["@bazel_version//:def.bzl", "find_cpp_toolchain"],
    "rust/toolchain.bzl": ["default_edition"],
}
_ACCEPTED = "accepted is a tree of rules_rust of between January and March 2019, such as commit 4b2e0df6b"

_SKIPPED = """
package(default_visibility = ["//visibility:public"])

toolchain_type(name = "type")

toolchain(name = "toolchain", toolchain = ":sentinel_ffi", toolchain_type = ":type")

filegroup(name = "sentinel_ffi")
"""

def _tree_impl(rctx):
    source = rctx.os.environ.get(_VARIABLE, "")
    for name, words in _FITS.items():
        path = rctx.path(source + "/" + name)
        if not path.exists:
            fail("%s = %s: there is no %s; %s" % (_VARIABLE, source, name, _ACCEPTED))
        text = rctx.execute(["cat", path]).stdout
        for word in words:
            if word not in text:
                fail("%s = %s: %s knows no %s; %s" % (_VARIABLE, source, name, word, _ACCEPTED))
    rctx.symlink(source + "/rust", "rust")
    rctx.file("BUILD", "")

rules_rust_tree = repository_rule(
    implementation = _tree_impl,
    environ = [_VARIABLE],
    local = True,
)

def _version_impl(rctx):
    rctx.file("BUILD", "")
    rctx.file("def.bzl", "BAZEL_VERSION = \"%s\"\n" % native.bazel_version.split(" ")[0])

# Under the name that rules_rust expects.
bazel_version = repository_rule(implementation = _version_impl)

def _crates_impl(rctx):
    if not rctx.os.environ.get(_VARIABLE):
        print("skipped: %s not set" % _VARIABLE)
        rctx.file("BUILD", _SKIPPED)
        return
    if not native.bazel_version.startswith("0.21."):
        fail("%s is for Bazel 0.21, but this is %s" % (_VARIABLE, native.bazel_version))

    # A tree that does not fit is refused before cargo begins.
    rctx.path(Label("@io_bazel_rules_rust//:BUILD"))
    python = rctx.path(rctx.attr.python).dirname.get_child("venv").get_child("bin").get_child("python")
    command = [python, "-B", "-E", "-s", rctx.path(rctx.attr.generator), rctx.path(rctx.attr.lockfile).dirname]
    result = rctx.execute(command + [rctx.path(rctx.attr.vendor), rctx.path(rctx.attr.sysroot)], timeout = 1800)
    if result.return_code != 0:
        fail("rules_rust: %s" % (result.stdout + result.stderr).strip().split("\n")[-1])

rules_rust_crates = repository_rule(
    implementation = _crates_impl,
    attrs = {
        "generator": attr.label(default = Label("//tools/bazel:rules_rust_crates.py")),
        "lockfile": attr.label(default = Label("//sentinel_rs:Cargo.lock")),
        "python": attr.label(default = Label("@build_python//:python.bzl")),
        "sysroot": attr.label(default = Label("@local_rust//:rust.bzl")),
        "vendor": attr.label(default = Label("@crates//:vendor.tar")),
    },
    environ = [_VARIABLE],
    local = True,
)
