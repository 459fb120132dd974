"""Links libsentinel.so, and says how to link the command `sentinel`, for systems as old as TensorFlow 1.13.1's.

Bazel and tools/dev share this. Usage, as Bazel does it:

  native.py link --tensorflow FOLDER --exports FILE --out libsentinel.so ARCHIVE...
"""

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import old_glibc

HERE = Path(__file__).resolve().parent
_C_LIBRARIES = ["-lm", "-lpthread", "-ldl", "-lrt", "-lc"]
_OLD_GLIBC_OBJECT = "old_glibc.o"


class Faulty(Exception):
    """The product does not link, or what was linked cannot be used. The text says why, in one line."""


def compiler():
    """The C++ compiler: $CXX, or g++."""
    return os.environ.get("CXX") or "g++"


def digest(stream):
    """The sha256 of a stream's bytes, in hexadecimal."""
    total = hashlib.sha256()
    for block in iter(lambda: stream.read(1 << 20), b""):
        total.update(block)
    return total.hexdigest()


def read_flags():
    """The values that flags.bzl defines, by name."""
    values = {}
    exec((HERE / "flags.bzl").read_text(), values)
    return values


def prepare(folder):
    """Fills `folder` with the stand-ins for glibc and with what an older one lacks."""
    folder.mkdir(parents=True, exist_ok=True)
    old_glibc.make_stand_ins(compiler(), folder)
    source = HERE / "old_glibc.c"
    flags = ["-O2", "-fPIC", "-fvisibility=hidden", "-x", "c", "-c", str(source)]
    subprocess.check_call([compiler()] + flags + ["-o", str(folder / _OLD_GLIBC_OBJECT)])


def inputs():
    """The files on which the result of `prepare` depends, besides the system's libraries."""
    return [HERE / "old_glibc.py", HERE / "old_glibc.c", HERE / "native.py"]


def link_command(parts, tensorflow, exports, prepared, out):
    """The command that makes libsentinel.so. Debug information is left out: it is most of the size.

    Args:
      parts: objects and archives; of an archive, everything is taken.
      tensorflow: the folder with libtensorflow_framework.so.
      exports: the linker script that names what is exported.
      prepared: a folder filled by `prepare`.
      out: the library to make.
    """
    command = [compiler(), "-shared", "-nodefaultlibs", "-o", str(out), "-Wl,--whole-archive"]
    command += [str(part) for part in parts] + ["-Wl,--no-whole-archive"]
    command += [str(prepared / _OLD_GLIBC_OBJECT), "-Wl,--gc-sections", "-Wl,--strip-debug"]
    # At run time the framework library is the one in the folder where libsentinel.so lies.
    command += ["-L", str(tensorflow), "-l:libtensorflow_framework.so", "-Wl,-rpath,$ORIGIN"]
    command += ["-Wl,--as-needed", "-L", str(prepared), "-lstdc++"] + _C_LIBRARIES
    command += [str(prepared / old_glibc.LOADER), "-lgcc_s", "-lgcc"]
    return command + ["-Wl,-z,defs", "-Wl,--version-script=%s" % exports]


def program_flags(prepared):
    """Flags for rustc that link a program, without debug information, for the same systems."""
    arguments = [prepared / _OLD_GLIBC_OBJECT, prepared / old_glibc.LOADER]
    # libgcc_s.so.1 of this machine may itself need its glibc; that of the system where the program runs does not.
    arguments += ["-Wl,--allow-shlib-undefined"]
    flags = ["-C", "strip=symbols", "-L", "native=%s" % prepared]
    for argument in arguments:
        flags += ["-C", "link-arg=%s" % argument]
    return flags


def undefined(library, tensorflow):
    """What `ldd -r` finds missing when the library is loaded beside TensorFlow: lines of text."""
    env = dict(os.environ, LD_LIBRARY_PATH=str(tensorflow), LC_ALL="C")
    output = subprocess.run(
        ["ldd", "-r", str(library)], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ).stdout.decode()
    return [
        line.strip()
        for line in output.splitlines()
        if "undefined symbol" in line or "not found" in line
    ]


def check(library, tensorflow):
    """Raises Faulty when the library would not load, or shows the process more names than it should.

    Returns the exported names.
    """
    bad = undefined(library, tensorflow)
    if bad:
        raise Faulty("libsentinel.so cannot be loaded: %s" % "; ".join(bad[:3]))
    output = subprocess.check_output(["nm", "-D", "--defined-only", str(library)])
    names = sorted(line.split()[-1] for line in output.decode().splitlines())
    strangers = [name for name in names if not name.startswith("sentinel_")]
    if strangers:
        raise Faulty("libsentinel.so exports names of others: %s" % ", ".join(strangers[:3]))
    if not names:
        raise Faulty(
            "libsentinel.so exports nothing; sentinel_version and sentinel_stats_json are expected"
        )
    return names


def main(arguments):
    """Links and checks as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("verb", choices=["link"])
    parser.add_argument("--tensorflow", type=Path, required=True)
    parser.add_argument("--exports", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("parts", type=Path, nargs="+")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        try:
            prepare(Path(scratch))
            command = link_command(
                options.parts, options.tensorflow, options.exports, Path(scratch), options.out
            )
            if subprocess.call(command):
                raise Faulty("libsentinel.so does not link (see above)")
            check(options.out, options.tensorflow)
        except FileNotFoundError as error:
            return "native.py: %s is missing: apt-get install g++ binutils" % error.filename
        except (Faulty, old_glibc.Unreadable) as fault:
            return "native.py: %s" % fault
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
