"""Entry point of tools/dev: one command, with its options, and one line when it cannot be carried out."""

import sys

import bazel
import commands
import qemu
import tests
from util import Stop

COMMANDS = {
    "setup": commands.setup,
    "demo": commands.demo,
    "wheel": bazel.wheel,
    "test": tests.run,
    "check": commands.check,
    "bench": commands.bench,
    "qemu": qemu.run,
    "lock": commands.lock,
    "clean": commands.clean,
    # For scripts: prints the Python 3.7 that setup would use.
    "python": commands.print_python,
    # For Bazel: prints the Python that its build steps run under.
    "build-python": commands.print_build_python,
    # For Bazel: prints the path of the official wheel, which the Python that is named downloads when it is missing.
    "stock-wheel": commands.print_stock_wheel,
}


def main():
    """Runs the command and returns the exit code."""
    try:
        return COMMANDS[sys.argv[1]](sys.argv[2:])
    except Stop as stop:
        print("tools/dev: %s" % stop, file=sys.stderr)
    except KeyboardInterrupt:
        print("tools/dev: interrupted", file=sys.stderr)
    return 1


sys.exit(main())
