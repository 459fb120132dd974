# Added by Sentinel: the lines from here to the end are not in the official TensorFlow.
def _load_sentinel():
    """Loads libsentinel.so before anything in this process can have allocated a tensor."""
    import os  # pylint: disable=g-import-not-at-top

    choice = os.environ.get("SENTINEL", "1")
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
        TF_DeleteLibraryHandle(TF_LoadLibrary(path))
    except Exception as error:
        raise ImportError(
            "TensorFlow cannot load Sentinel from %s: %s. Set SENTINEL=0 to run without it."
            % (path, error)
        ) from error
    finally:
        del os.environ["SENTINEL_EARLY_LOAD"]


_load_sentinel()
