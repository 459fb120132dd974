// What the headers of today's compilers expect of a system, and systems of TensorFlow 1.13.1's age lack. The names stay
// inside libsentinel.so. See docs/decisions/0008-old-systems.md.
#include <new>

// glibc 2.32: libstdc++ skips atomic operations where this says that there is one thread. Zero is always right.
extern "C" const char __libc_single_threaded;
extern "C" const char __libc_single_threaded = 0;

namespace std {

// libstdc++ of GCC 11 exports this one; the exception that it throws is older.
[[noreturn]] void __throw_bad_array_new_length();
void __throw_bad_array_new_length() { throw std::bad_array_new_length(); }

}  // namespace std
