"""Policies on recorded steps: builds the command-line tool and runs its `bench policies`."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MANIFEST = ROOT / "sentinel_rs" / "Cargo.toml"


def main():
    """Passes this script's arguments on and returns the tool's exit code."""
    cargo = ["cargo", "run", "--quiet", "--release", "--locked", "--manifest-path", str(MANIFEST)]
    command = cargo + ["--package", "cli", "--", "bench", "policies"] + sys.argv[1:]
    return subprocess.call(command, cwd=str(ROOT))


if __name__ == "__main__":
    sys.exit(main())
