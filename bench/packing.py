"""Packing of published instances and recorded steps: builds the command-line tool and runs `sentinel bench packing` with the given options."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MANIFEST = ROOT / "sentinel_rs" / "Cargo.toml"


def main():
    cargo = ["cargo", "run", "--quiet", "--release", "--locked", "--manifest-path", str(MANIFEST)]
    command = cargo + ["--package", "cli", "--", "bench", "packing"] + sys.argv[1:]
    return subprocess.call(command, cwd=str(ROOT))


if __name__ == "__main__":
    sys.exit(main())
