# Added by Sentinel: the lines from here to the end are not in the official TensorFlow.
def _load_sentinel():
    """Loads libsentinel.so before anything in this process can have allocated a tensor."""
    import os  # pylint: disable=g-import-not-at-top

    choice = os.environ.get("SENTINEL") or "1"
    if choice == "0":
        return
    if choice != "1":
        raise ImportError(
            "SENTINEL=%s is not understood; accepted are 0 (off) and 1 (on, as without it)."
            % choice
        )
    folder = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    path = os.path.join(folder, "libsentinel.so")
    # The library asks for this once, while it is being loaded; later it could no longer replace TensorFlow's allocator.
    os.environ["SENTINEL_EARLY_LOAD"] = "1"
    try:
        fault = "the file is cut short" if _is_cut_short(path) else _load_library(path)
    finally:
        del os.environ["SENTINEL_EARLY_LOAD"]
    if fault:
        raise ImportError(
            "TensorFlow cannot load Sentinel from %s: %s. Set SENTINEL=0 to run without it."
            % (path, fault)
        )


def _is_cut_short(path):
    """Whether an ELF file ends before its last part, the section headers: loading it would kill the process."""
    import os  # pylint: disable=g-import-not-at-top
    import struct  # pylint: disable=g-import-not-at-top

    if not os.path.isfile(path):
        return False
    with open(path, "rb") as library:
        header = library.read(64)
    if len(header) < 64 or not header.startswith(b"\x7fELF"):
        return False
    (offset,), (size, count) = (
        struct.unpack_from("<Q", header, 40),
        struct.unpack_from("<HH", header, 58),
    )
    return os.path.getsize(path) < offset + size * count


def _load_library(path):
    """Loads the library as tf.load_op_library does, and returns why that failed, or None.

    By TensorFlow's C functions themselves: their Python counterparts end the process when they fail so early, because
    the classes of TensorFlow's exceptions are not known yet.
    """
    import ctypes  # pylint: disable=g-import-not-at-top
    import os  # pylint: disable=g-import-not-at-top

    from tensorflow.python.pywrap_tensorflow_internal import _pywrap_tensorflow_internal

    framework = ctypes.CDLL(_pywrap_tensorflow_internal.__file__)
    framework.TF_NewStatus.restype = ctypes.c_void_p
    framework.TF_LoadLibrary.restype = ctypes.c_void_p
    framework.TF_LoadLibrary.argtypes = [ctypes.c_char_p, ctypes.c_void_p]
    framework.TF_Message.restype = ctypes.c_char_p
    for name in ("TF_Message", "TF_GetCode", "TF_DeleteStatus", "TF_DeleteLibraryHandle"):
        getattr(framework, name).argtypes = [ctypes.c_void_p]
    status = framework.TF_NewStatus()
    try:
        handle = framework.TF_LoadLibrary(os.fsencode(path), status)
        if framework.TF_GetCode(status) != 0:
            return framework.TF_Message(status).decode(errors="replace")
        framework.TF_DeleteLibraryHandle(handle)
        return None
    finally:
        framework.TF_DeleteStatus(status)


_load_sentinel()
