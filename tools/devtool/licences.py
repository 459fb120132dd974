"""Collects the licence texts of the Rust crates that are linked into libsentinel.so, to go into the wheel with it."""

import json
import subprocess
from pathlib import Path

from plugin import CARGO_WORKSPACE
from util import Stop, clean_env

_TARGET = "x86_64-unknown-linux-gnu"
_INTRODUCTION = """libsentinel.so contains parts of the Rust standard library (MIT OR Apache-2.0) and these crates.
"""


def write_licences(path):
    """Writes one text with name, version, licence and licence files of every linked crate that is not our own."""
    command = [
        "cargo",
        "metadata",
        "--locked",
        "--format-version=1",
        "--filter-platform=" + _TARGET,
    ]
    result = subprocess.run(
        command, cwd=str(CARGO_WORKSPACE), env=clean_env(), stdout=subprocess.PIPE
    )
    if result.returncode:
        raise Stop("cargo cannot tell which crates are used (see above)")
    metadata = json.loads(result.stdout.decode())
    packages = {package["id"]: package for package in metadata["packages"]}
    linked = [packages[key] for key in _linked(metadata) if packages[key]["source"]]
    linked.sort(key=lambda package: (package["name"], package["version"]))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_INTRODUCTION + "".join(_section(package) for package in linked))


def _linked(metadata):
    """Identities of the crates that crate ffi reaches by normal dependencies; procedural macros are not linked."""
    macros = {
        package["id"]
        for package in metadata["packages"]
        if any("proc-macro" in target["kind"] for target in package["targets"])
    }
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    waiting = [package["id"] for package in metadata["packages"] if package["name"] == "ffi"]
    seen = set(waiting)
    while waiting:
        for needed in nodes[waiting.pop()]["deps"]:
            normal = any(kind["kind"] is None for kind in needed["dep_kinds"])
            if normal and needed["pkg"] not in seen | macros:
                seen.add(needed["pkg"])
                waiting.append(needed["pkg"])
    return seen


def _section(package):
    """One crate's part of the text."""
    folder = Path(package["manifest_path"]).parent
    heading = "%s %s (%s)" % (package["name"], package["version"], package["license"])
    parts = ["\n" + "=" * 80 + "\n" + heading + "\n"]
    for pattern in ("LICENSE*", "LICENCE*", "COPYING*", "NOTICE*"):
        for path in sorted(folder.glob(pattern)):
            if path.is_file():
                parts.append("\n---- %s\n%s" % (path.name, path.read_text(errors="replace")))
    return "".join(parts)
