"""Collects the licence texts of the Rust crates that are in libsentinel.so and in the command, to go into the wheel.

Usage: licences.py OUT, with the output of `cargo metadata` on standard input.
"""

import json
import sys
from pathlib import Path

_PRODUCTS = ("ffi", "cli")
_INTRODUCTION = """libsentinel.so and the command `sentinel` contain parts of the Rust standard library
(MIT OR Apache-2.0) and these crates.
"""


def licences(metadata):
    """One text with name, version, licence and licence files of every linked crate that is not our own."""
    packages = {package["id"]: package for package in metadata["packages"]}
    linked = [packages[key] for key in _linked(metadata) if packages[key]["source"]]
    linked.sort(key=lambda package: (package["name"], package["version"]))
    return _INTRODUCTION + "".join(_section(package) for package in linked)


def _linked(metadata):
    """Identities of the crates that the products reach by normal dependencies; procedural macros are not linked."""
    macros = {
        package["id"]
        for package in metadata["packages"]
        if any("proc-macro" in target["kind"] for target in package["targets"])
    }
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    waiting = [package["id"] for package in metadata["packages"] if package["name"] in _PRODUCTS]
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


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(licences(json.load(sys.stdin)), encoding="utf-8")
