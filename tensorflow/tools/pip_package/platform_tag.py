"""Tells which systems native files run on, as the platform tag of a wheel.

A tag manylinux_2_N promises that they load on every common distribution with glibc 2.N or newer. That takes
the newest symbol version of glibc that they need, and the newest of libstdc++, which such distributions have from the
compiler of their time.
"""

import re
import subprocess

# By newest GLIBCXX_3.4.x symbol: the first glibc 2.x of which every common distribution has it (auditwheel's policies).
_GLIBC_FOR_GLIBCXX = {21: 23, 22: 24, 24: 27, 28: 31, 29: 34, 30: 35, 33: 39}
# Libraries that every such distribution has, and TensorFlow's own, which lies beside ours.
_ALLOWED = {
    "ld-linux-x86-64.so.2", "libc.so.6", "libdl.so.2", "libgcc_s.so.1", "libm.so.6", "libpthread.so.0", "librt.so.1",
    "libstdc++.so.6", "libtensorflow_framework.so",
}  # fmt: skip
# The official wheel, though labelled manylinux1, itself needs glibc 2.23 and GLIBCXX_3.4.21.
_OLDEST = 23
# What systems of that age, with GCC 5, have of other libraries' symbol versions: CXXABI_1.3.9 and GCC_4.8.0.
_NEWEST_CXXABI, _NEWEST_GCC = 9, 4


def platform_tag(files):
    """Returns `manylinux_2_N_x86_64`, or `linux_x86_64` when no such promise can be made."""
    needed, glibc, glibcxx = needs(files)
    known = [minor for version, minor in sorted(_GLIBC_FOR_GLIBCXX.items()) if version >= glibcxx]
    if not needed <= _ALLOWED or not known or _needs_newer(files):
        return "linux_x86_64"
    return "manylinux_2_%d_x86_64" % max(_OLDEST, glibc, known[0])


def needs(files):
    """What libraries and programs need: the names of libraries, N of the newest GLIBC_2.N, M of GLIBCXX_3.4.M."""
    output = "".join(_readelf(file) for file in files)
    needed = set(re.findall(r"\(NEEDED\).*\[(.*)\]", output))
    return needed, _newest(r"\bGLIBC_2\.(\d+)", output), _newest(r"\bGLIBCXX_3\.4\.(\d+)", output)


def _needs_newer(files):
    """Whether they need more of the C++ run-time library, the compiler's or the loader than such systems have."""
    output = "".join(_readelf(file) for file in files)
    cxxabi, gcc = _newest(r"\bCXXABI_1\.3\.(\d+)", output), _newest(r"\bGCC_(\d+)", output)
    return cxxabi > _NEWEST_CXXABI or gcc > _NEWEST_GCC or "GLIBC_ABI_" in output


def _newest(pattern, text):
    """The greatest number that the pattern finds, or 0."""
    return max([int(number) for number in re.findall(pattern, text)], default=0)


def _readelf(library):
    """Needed libraries and needed symbol versions, as text."""
    command = ["readelf", "--wide", "--dynamic", "--version-info", str(library)]
    return subprocess.check_output(command, env={"LC_ALL": "C", "PATH": "/usr/bin:/bin"}).decode()
