"""The crates depend on each other as docs/architecture.md says, and on nothing else of this workspace."""

import json
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
WORKSPACE = ROOT / "sentinel_rs"
DOCUMENT = ROOT / "docs/architecture.md"
MAY_BE_UNSAFE = {"sys", "ffi"}
NAMES_THAT_SAY_NOTHING = {"common", "utils", "util", "types", "error", "errors", "config"}
UNSAFE_CODE = re.compile(r"\bunsafe\s*(\{|fn\b|impl\b|extern\b|trait\b)")


@pytest.fixture(scope="module")
def packages():
    command = ["cargo", "metadata", "--no-deps", "--offline", "--locked", "--format-version", "1"]
    output = subprocess.run(
        command, cwd=str(WORKSPACE), stdout=subprocess.PIPE, check=True, text=True
    ).stdout
    return {package["name"]: package for package in json.loads(output)["packages"]}


def documented_edges(crates):
    """Crate to the set of crates it may depend on, from the table with the columns 'crate' and 'may depend on'."""
    edges, crate_column, depends_column = {}, None, None
    for line in DOCUMENT.read_text().splitlines():
        cells = [cell.strip().strip("`") for cell in line.strip().strip("|").split("|")]
        if "crate" in cells and "may depend on" in cells:
            crate_column, depends_column = cells.index("crate"), cells.index("may depend on")
        elif crate_column is not None and not line.startswith("|"):
            break
        elif crate_column is not None and cells[crate_column] in crates:
            names = set(re.findall(r"[a-z_]+", cells[depends_column]))
            edges[cells[crate_column]] = names & set(crates)
    return edges


def test_edges_are_those_of_the_table(packages):
    real = {
        name: {dep["name"] for dep in package["dependencies"] if dep["kind"] != "dev"}
        & set(packages)
        for name, package in packages.items()
    }
    assert real == documented_edges(packages), (
        f"cargo metadata on the left, {DOCUMENT.name} on the right"
    )


def test_a_crate_lies_in_the_folder_of_its_name(packages):
    for name, package in packages.items():
        assert Path(package["manifest_path"]).parent == WORKSPACE / "crates" / name


def test_no_crate_has_a_name_that_says_nothing(packages):
    assert not NAMES_THAT_SAY_NOTHING & set(packages)


def test_stages_make_no_system_calls(packages):
    for stage in {"trace", "profile", "plan", "place", "sim"} & set(packages):
        outside = {dep["name"] for dep in packages[stage]["dependencies"]}
        assert not outside & {"libc", "nix", "sys", "rustix"}, stage


def test_unsafe_code_is_in_two_crates_only(packages):
    for name in set(packages) - MAY_BE_UNSAFE:
        roots = [
            Path(target["src_path"])
            for target in packages[name]["targets"]
            if target["kind"] != ["custom-build"]
        ]
        sources = [root for root in roots if root.parent.name == "src"]
        assert sources, name
        for root in sources:
            assert "#![forbid(unsafe_code)]" in root.read_text(), root
        for source in (WORKSPACE / "crates" / name / "src").rglob("*.rs"):
            assert not UNSAFE_CODE.search(source.read_text()), source
