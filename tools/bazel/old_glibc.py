"""Makes stand-ins for the system's C libraries that know only what an older glibc had.

A program is tied to the glibc of the machine that links it: the linker takes every function in its newest version. A
library that is linked against these stand-ins takes each in the newest version that the chosen older glibc has, which
every later glibc still has. The stand-ins are made from the dynamic symbol tables of the libraries that are installed
here; they hold names and versions and no code, and nothing of them goes into the product.
"""

import re
import subprocess
import tempfile
from pathlib import Path

# TensorFlow 1.13.1 itself needs this one; reaching further back would help nobody.
OLDEST = (2, 23)
LOADER = "ld-linux-x86-64.so.2"
_LIBRARIES = ("libc.so.6", "libm.so.6", "libpthread.so.0", "libdl.so.2", "librt.so.1", LOADER)
_NODE = re.compile(r"^(?P<name>[^@]+)@@?GLIBC_(?P<version>[0-9.]+)$")
# Until 2.34 these lived in libraries of their own. Names that libc has always had as well stay where they are found.
_MOVED = ((re.compile("(pthread|sem)_"), "libpthread.so.0"), (re.compile("dl[^_]"), "libdl.so.2"))


class Unreadable(Exception):
    """The C library of this machine cannot be read. The text says why."""


def make_stand_ins(compiler, folder, oldest=OLDEST):
    """Writes the stand-ins into `folder`, as the linker looks for them: libc.so, libm.so, ...; the loader as LOADER.

    Args:
      compiler: the C compiler, whose libraries are read and which assembles.
      folder: pathlib.Path, which exists.
      oldest: version of glibc as a pair of numbers.
    """
    exported = {}
    for soname in _LIBRARIES:
        for symbol, kind in _symbols(compiler, soname).items():
            home = _home(symbol, soname) if soname == "libc.so.6" else soname
            exported.setdefault(home, {}).setdefault(symbol, {}).update(kind)
    for soname in _LIBRARIES:
        chosen = {name: _newest(kinds, oldest) for name, kinds in exported.get(soname, {}).items()}
        chosen = {name: version for name, version in chosen.items() if version}
        if chosen:
            name = soname if soname == LOADER else soname.rsplit(".", 1)[0]
            _assemble(compiler, folder / name, soname, chosen, exported[soname])


def _symbols(compiler, soname):
    """Every public symbol of one installed library: its kinds (`T`, `D`, ...) by version, by name."""
    path = subprocess.check_output([compiler, "-print-file-name=" + soname]).decode().strip()
    if "/" not in path:
        raise Unreadable(
            "%s was not found: the C library is not glibc, or not installed as usual" % soname
        )
    output = subprocess.check_output(["nm", "-D", "--defined-only", "--with-symbol-versions", path])
    symbols = {}
    for line in output.decode().splitlines():
        words = line.split()
        match = _NODE.match(words[-1])
        if match and words[-2] in "TWiBDVR":
            version = tuple(int(part) for part in match.group("version").split("."))
            symbols.setdefault(match.group("name"), {})[version] = words[-2]
    return symbols


def _home(symbol, soname):
    """The library that an old system has the symbol in."""
    return next((home for pattern, home in _MOVED if pattern.match(symbol)), soname)


def _newest(versions, oldest):
    """The newest version that an old system has; None when the symbol is younger."""
    return max((version for version in versions if version <= oldest), default=None)


def _assemble(compiler, path, soname, chosen, kinds):
    """Makes one stand-in: each symbol one byte, with its version as the default one."""
    code, data, nodes = [".text"], [".data"], {}
    for number, (name, version) in enumerate(sorted(chosen.items())):
        is_code = kinds[name][version] in "TWi"
        node = "GLIBC_" + ".".join(str(part) for part in version)
        nodes[version] = node
        code_or_data = code if is_code else data
        kind = "function" if is_code else "object"
        code_or_data += [
            ".globl s%d" % number,
            ".type s%d, @%s" % (number, kind),
            "s%d: .byte 0" % number,
            ".size s%d, 1" % number,
            ".symver s%d, %s@@@%s" % (number, name, node),
        ]
    with tempfile.TemporaryDirectory() as scratch:
        source, script = Path(scratch) / "stand_in.s", Path(scratch) / "versions"
        source.write_text("\n".join(code + data + ['.section .note.GNU-stack,"",@progbits', ""]))
        script.write_text("".join("%s { };\n" % nodes[version] for version in sorted(nodes)))
        command = [compiler, "-shared", "-nostdlib", "-o", str(path), str(source)]
        command += ["-Wl,-soname," + soname, "-Wl,--version-script=%s" % script]
        subprocess.check_call(command)
