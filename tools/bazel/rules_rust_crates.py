"""Describes the crates of the static library to rules_rust, in the current folder: one package of Bazel for each.

Usage: rules_rust_crates.py WORKSPACE VENDOR_TAR RUST_BZL

Cargo says which crates with which features there are, and runs their build scripts; old rules_rust can do neither. What
the scripts have made and said goes into the description. Every crate is then compiled by rules_rust.
"""

import collections
import json
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

PACKAGE, TRIPLE = "ffi", "x86_64-unknown-linux-gnu"
TOOLCHAIN = """
load("@io_bazel_rules_rust//rust:toolchain.bzl", "rust_toolchain")

package(default_visibility = ["//visibility:public"])

toolchain(
    name = "toolchain",
    toolchain = ":local",
    toolchain_type = "@io_bazel_rules_rust//rust:toolchain",
)

# The compiler finds its libraries beside itself, where the link leads.
filegroup(name = "libraries", srcs = ["@local_rust//:version.txt"])

rust_toolchain(
    name = "local",
    dylib_ext = ".so",
    exec_triple = "{triple}",
    os = "linux",
    rust_doc = "rustdoc",
    rust_lib = ":libraries",
    rustc = "rustc",
    rustc_lib = ":libraries",
    staticlib_ext = ".a",
    target_triple = "{triple}",
)

genrule(
    name = "sentinel_ffi",
    srcs = ["{target}"],
    outs = ["libsentinel_ffi.a"],
    cmd = "cp $< $@",
)
"""
HEAD = """
load("@io_bazel_rules_rust//rust:rust.bzl", "rust_library")

package(default_visibility = ["//visibility:public"])
"""
CRATE = """
rust_library(
    name = "%(name)s",
    srcs = glob(["**/*.rs"]),
    crate_features = %(features)s,
    crate_root = "%(root)s",
    crate_type = "%(kind)s",
    data = glob(["**/*.md", "**/*.toml"]),
    edition = "%(edition)s",
    out_dir_tar = %(out)s,
    rustc_flags = %(flags)s,
    version = "%(version)s",
    deps = %(deps)s,
)
"""


def ask(cargo, verb, workspace, *flags):
    """Runs cargo with the vendored crates and returns what it prints."""
    vendor = Path("vendor").resolve()
    sources = [
        'source.crates-io.replace-with="vendored"',
        'source.vendored.directory="%s"' % vendor,
    ]
    command = [cargo, verb, "--offline", "--locked"] + [
        word for each in sources for word in ("--config", each)
    ]
    env = dict(os.environ, CARGO_TARGET_DIR=str(Path("cargo").resolve()))
    return subprocess.check_output(command + list(flags), cwd=str(workspace), env=env).decode()


def built(cargo, workspace):
    """What cargo built: the library of each package, with all features that it needs, and what its script said."""
    crates, scripts = {}, {}
    flags = ["--release", "--quiet", "-p", PACKAGE, "--message-format=json"]
    for line in ask(cargo, "check", workspace, *flags).splitlines():
        message = json.loads(line)
        if message["reason"] == "build-script-executed":
            if message["env"]:
                sys.exit("%s sets variables, which rules_rust cannot" % message["package_id"])
            scripts[message["package_id"]] = message
        elif message["reason"] == "compiler-artifact" and message["target"]["kind"][0] not in (
            "bin",
            "custom-build",
        ):
            crate = crates.setdefault(
                message["package_id"], dict(message["target"], features=set())
            )
            crate["features"].update(message["features"])
    return crates, scripts


def flags_of(script, crate):
    """Flags for rustc: what cargo itself would give, and what the build script asked for."""
    flags = ["--cap-lints=allow"]
    if crate["kind"] == ["proc-macro"]:
        flags += ["--extern", "proc_macro"]
    if script:
        flags += [word for cfg in script["cfgs"] for word in ("--cfg", cfg)]
        flags += ["-L%s" % path for path in script["linked_paths"]]
        flags += ["-l%s" % library for library in script["linked_libs"]]
    return flags


def describe(crate, names, package, script, deps):
    """Writes the description of one crate, once for each name that others give it: old rules_rust renames nothing."""
    folder = Path(crate["package"])
    out = None
    if script:
        out = "out_dir.tar.gz"
        with tarfile.open(str(folder / out), "w:gz") as archive:
            archive.add(script["out_dir"], arcname=".")
    kind = (
        "staticlib"
        if package["name"] == PACKAGE
        else "proc-macro"
        if crate["kind"] == ["proc-macro"]
        else "rlib"
    )
    values = dict(
        crate, kind=kind, version=package["version"], out=repr(out), deps=json.dumps(deps)
    )
    values["root"] = os.path.relpath(crate["src_path"], str(Path(package["manifest_path"]).parent))
    values["features"] = json.dumps(sorted(crate["features"]))
    values["flags"] = json.dumps(flags_of(script, crate))
    text = "".join(CRATE % dict(values, name=name) for name in sorted(names))
    (folder / "BUILD").write_text(HEAD + text)


def closure(nodes, crates, first):
    """The packages that `first` is linked with, each with those that it uses directly and its names for them."""
    found, waiting = collections.OrderedDict(), [first]
    while waiting:
        one = waiting.pop()
        if one not in found:
            uses = [
                dep
                for dep in nodes[one]["deps"]
                if any(kind["kind"] is None for kind in dep["dep_kinds"])
            ]
            found[one] = [(dep["pkg"], dep["name"]) for dep in uses if dep["pkg"] in crates]
            waiting += [used for used, _ in found[one]]
    return found


def main(arguments):
    """Unpacks, asks cargo, describes."""
    workspace, vendor, rust = Path(arguments[0]), arguments[1], Path(arguments[2])
    binaries = Path(re.search('"(.*)"', rust.read_text()).group(1)) / "bin"
    with tarfile.open(vendor) as archive:
        archive.extractall()
    crates, scripts = built(str(binaries / "cargo"), workspace)
    metadata = json.loads(
        ask(
            str(binaries / "cargo"),
            "metadata",
            workspace,
            "--format-version=1",
            "--filter-platform=" + TRIPLE,
        )
    )
    # Some crates bring files that Bazel would take for its own. Cargo, which knows their checksums, has done its part.
    for path in [*Path("vendor").rglob("BUILD*"), *Path("vendor").rglob("WORKSPACE*")]:
        path.unlink()
    packages = {package["id"]: package for package in metadata["packages"]}
    (first,) = (key for key in metadata["workspace_members"] if packages[key]["name"] == PACKAGE)
    linked = closure({node["id"]: node for node in metadata["resolve"]["nodes"]}, crates, first)
    for key in linked:
        source = Path(packages[key]["manifest_path"]).parent
        crates[key]["package"] = "packages/" + source.name
        folder = Path(crates[key]["package"])
        folder.mkdir(parents=True)
        for child in source.iterdir():
            (folder / child.name).symlink_to(child)
    names = {
        key: {name for uses in linked.values() for used, name in uses if used == key}
        for key in linked
    }
    names[first] = {PACKAGE}
    for key, uses in linked.items():
        deps = sorted("//%s:%s" % (crates[used]["package"], name) for used, name in uses)
        describe(crates[key], names[key], packages[key], scripts.get(key), deps)
    for name in ("rustc", "rustdoc"):
        Path(name).symlink_to(binaries / name)
    Path("BUILD").write_text(
        TOOLCHAIN.format(triple=TRIPLE, target="//%s:%s" % (crates[first]["package"], PACKAGE))
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
