"""Compares pairs of files, or of folders with one file each, byte for byte.

Usage: reproducible_test.py FIRST SECOND [FIRST SECOND ...]
"""

import hashlib
import sys
from pathlib import Path


def content(path):
    """Name and bytes of a file, or of the only file in a folder."""
    if path.is_dir():
        (path,) = path.iterdir()
    return path.name, path.read_bytes()


def main(arguments):
    """Returns 1 when any pair differs, and when there is none or a file without its pair."""
    paths = [Path(argument) for argument in arguments]
    different = not paths or len(paths) % 2 == 1
    for first, second in zip(paths[::2], paths[1::2]):
        same = content(first) == content(second)
        digest = hashlib.sha256(content(first)[1]).hexdigest()
        print(
            "%s: %s, sha256 %s"
            % (first, "the same bytes" if same else "NOT the same bytes", digest)
        )
        different = different or not same
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
