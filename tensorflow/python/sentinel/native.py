"""Talks to libsentinel.so, which TensorFlow has loaded, through its few C functions."""

import ctypes
import json
import os

_NAME = "libsentinel.so"
# What the version is called when the native library, which knows it, is not loaded.
_NO_VERSION = "not loaded"


def _open():
    """Returns the native library if this process has loaded it, else None. It is never loaded here."""
    folder = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    try:
        library = ctypes.CDLL(os.path.join(folder, _NAME), mode=os.RTLD_NOW | os.RTLD_NOLOAD)
    except OSError:
        return None
    library.sentinel_version.restype = ctypes.c_char_p
    library.sentinel_version.argtypes = []
    library.sentinel_stats_json.restype = ctypes.c_size_t
    library.sentinel_stats_json.argtypes = [ctypes.c_char_p, ctypes.c_size_t]
    return library


# The library is loaded while TensorFlow is imported, or never.
_LIBRARY = _open()


def is_loaded():
    """True when the native library is in this process, and with it Sentinel's operations."""
    return _LIBRARY is not None


def version():
    """The version of the native library, such as `1.13.1+sentinel-0.1.0`, or `not loaded`."""
    return _LIBRARY.sentinel_version().decode() if is_loaded() else _NO_VERSION


def is_active():
    """Tells whether Sentinel manages memory in this process.

    Returns:
      True when the native library is loaded and takes part; False with `SENTINEL=0`, when its options turn it off, and
      when it stepped down because a resource was missing.
    """
    return bool(stats()["active"])


def stats():
    """Reports what Sentinel has done in this process so far.

    Sizes are in bytes and times in nanoseconds, as the ends of the names say. Among the keys are `policy`, `state`,
    `fast_bytes_allowed`, `fast_bytes_peak`, `promoted_bytes`, `demoted_bytes`, `slot_hit_rate` and `message`;
    docs/statistics.md in the sources explains each. What is
    not known yet, such as the hit rate before the first managed step, is None.

    Returns:
      A `dict`. Its key `active` is always there; it is the only one besides `state` and `message` when the native
      library is not loaded.

    Raises:
      RuntimeError: the native library gave figures that cannot be read.
    """
    if not is_loaded():
        return {
            "active": False,
            "state": "off",
            "message": "the native library is not loaded (SENTINEL=0)",
        }
    size = 4096
    while True:
        buffer = ctypes.create_string_buffer(size)
        needed = _LIBRARY.sentinel_stats_json(buffer, size)
        if needed <= size:
            break
        # The figures can grow between two calls, so this may take more than two.
        size = 2 * needed
    try:
        return dict({"active": False}, **json.loads(buffer.value.decode("utf-8")))
    except ValueError as error:
        raise RuntimeError("Sentinel's statistics are not JSON: %s" % error) from error
