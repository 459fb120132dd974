"""How the C++ shim is compiled: the one place that says it, for Bazel and, read as Python, for tools/dev."""

# The official cp37 wheel was built with the newer of libstdc++'s two string layouts; everything must agree with it.
ABI_FLAG = "-D_GLIBCXX_USE_CXX11_ABI=1"

# NDEBUG as in the official build, so that inline functions of TensorFlow's headers are the same on both sides.
SHIM_FLAGS = [
    "-std=c++14",
    "-O2",
    "-fPIC",
    "-fvisibility=hidden",
    "-Wall",
    "-Wextra",
    "-Wno-unused-parameter",
    "-DNDEBUG",
    ABI_FLAG,
]
