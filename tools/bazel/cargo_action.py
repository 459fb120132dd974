"""One offline run of cargo as an action of Bazel: sources and vendored crates in, built files out.

Usage: cargo_action.py @FILE, where FILE holds the arguments below, one a line. With --cache, cargo's own files live in
that folder and later runs compile only what changed; without it everything is compiled from nothing. Both give the same
bytes: no path of the machine is left in what is built.
"""

import argparse
import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import native


class Failed(Exception):
    """A step failed. The text says which."""


def parse(arguments):
    """The options of the command line."""
    parser = argparse.ArgumentParser(fromfile_prefix_chars="@")
    parser.add_argument("--sysroot", required=True, help="of the Rust toolchain")
    parser.add_argument(
        "--vendor", type=Path, required=True, help="tar archive of the vendored crates"
    )
    parser.add_argument("--cache", help="folder that is kept between runs")
    parser.add_argument(
        "--workspace", required=True, help="folder of Cargo.toml, in the source tree"
    )
    parser.add_argument("--source", action="append", default=[], help="a file that cargo may read")
    parser.add_argument("--library", action="append", default=[], help="package to build")
    parser.add_argument(
        "--program",
        action="append",
        default=[],
        help="PACKAGE:NAME to build and link for old systems",
    )
    parser.add_argument(
        "--copy", action="append", default=[], help="OUTPUT=PATTERN in cargo's target folder"
    )
    parser.add_argument("--licences", help="where to write the crates' licence texts")
    parser.add_argument("--test", action="store_true", help="run the tests of the workspace")
    return parser.parse_args(arguments)


def main(arguments):
    """Does what the command line says."""
    options = parse(arguments)
    if options.cache:
        folder = Path(options.cache)
        folder.mkdir(parents=True, exist_ok=True)
        with open(str(folder / "lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            return run(options, folder)
    with tempfile.TemporaryDirectory(dir=os.getcwd(), prefix="cargo.") as folder:
        return run(options, Path(folder))


def run(options, folder):
    """Builds in `folder` and copies the results to where Bazel expects them."""
    unpack(options.vendor, folder)
    sync(options.source, folder / "tree")
    env = environment(options.sysroot, folder)
    workspace = folder / "tree" / options.workspace
    cargo = [options.sysroot + "/bin/cargo"]
    flags = ["--offline", "--locked", "--quiet"]
    if options.library:
        packages = [part for name in options.library for part in ("-p", name)]
        call(cargo + ["build", "--release"] + flags + packages, workspace, env)
    for each in options.program:
        package, name = each.split(":")
        native.prepare(folder / "prepared")
        command = cargo + ["rustc", "--release"] + flags + ["-p", package, "--bin", name, "--"]
        call(command + native.program_flags(folder / "prepared"), workspace, env)
    if options.test:
        call(
            cargo + ["test", "--workspace", "--no-fail-fast", "--offline", "--locked"],
            workspace,
            env,
        )
    for each in options.copy:
        target, pattern = each.split("=")
        shutil.copyfile(str(newest(folder / "target", pattern)), target)
        shutil.copymode(str(newest(folder / "target", pattern)), target)
    if options.licences:
        write_licences(options, workspace, env)
    return 0


def unpack(vendor, folder):
    """Unpacks the crates unless that very archive is unpacked already."""
    stamp = folder / "vendor.sum"
    with open(str(vendor), "rb") as stream:
        key = native.digest(stream)
    if stamp.exists() and stamp.read_text() == key:
        return
    shutil.rmtree(str(folder / "vendor"), ignore_errors=True)
    call(["tar", "-xf", str(vendor.resolve()), "-C", str(folder)], folder, dict(os.environ))
    stamp.write_text(key)


def sync(sources, tree):
    """Makes `tree` hold these files and no others. What has not changed keeps its time, by which cargo goes."""
    wanted = set()
    for source in sources:
        content, target = Path(source).read_bytes(), tree / source
        wanted.add(target)
        if not (target.is_file() and target.read_bytes() == content):
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
    for path in list(tree.rglob("*")):
        if path.is_file() and path not in wanted:
            path.unlink()


def environment(sysroot, folder):
    """An environment that depends on nothing but the arguments."""
    home = folder / "home"
    home.mkdir(exist_ok=True)
    (home / "config.toml").write_text(
        '[source.crates-io]\nreplace-with = "vendored"\n[source.vendored]\ndirectory = "%s"\n'
        % (folder / "vendor")
    )
    # The compiler applies the last rule that fits.
    places = [(folder, "/sentinel"), (folder / "vendor", "/crates"), (folder / "tree", "")]
    rust = " ".join("--remap-path-prefix=%s=%s" % place for place in places)
    cxx = " ".join("-ffile-prefix-map=%s=%s" % place for place in places)
    return {
        "PATH": "%s/bin:/usr/bin:/bin" % sysroot,
        "HOME": str(home),
        "CARGO_HOME": str(home),
        "CARGO_TARGET_DIR": str(folder / "target"),
        "CARGO_INCREMENTAL": "0",
        "RUSTC": sysroot + "/bin/rustc",
        "RUSTFLAGS": rust,
        "CFLAGS": cxx,
        "CXXFLAGS": "%s %s" % (cxx, native.read_flags()["ABI_FLAG"]),
        "SOURCE_DATE_EPOCH": "0",
        "ZERO_AR_DATE": "1",
        "LC_ALL": "C",
    }


def write_licences(options, workspace, env):
    """Writes the licence texts of what was built."""
    command = [
        options.sysroot + "/bin/cargo",
        "metadata",
        "--offline",
        "--locked",
        "--format-version=1",
    ]
    command.append("--filter-platform=x86_64-unknown-linux-gnu")
    metadata = subprocess.check_output(command, cwd=str(workspace), env=env)
    licences = str(native.HERE / "licences.py")
    subprocess.run([sys.executable, licences, options.licences], input=metadata, check=True)


def newest(target, pattern):
    """The file that fits; a folder that is kept may hold those of earlier runs too."""
    found = sorted(target.glob(pattern), key=lambda path: path.stat().st_mtime)
    if not found:
        raise Failed("cargo made no %s" % pattern)
    return found[-1]


def call(command, folder, env):
    """Runs a command that must succeed."""
    if subprocess.call([str(part) for part in command], cwd=str(folder), env=env):
        raise Failed("%s failed (see above)" % " ".join(str(part) for part in command[:4]))


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except Failed as failed:
        sys.exit("cargo_action.py: %s" % failed)
    except FileNotFoundError as missing:
        sys.exit("cargo_action.py: %s is missing" % missing.filename)
