// What Rust's standard library and crate sys expect of glibc and its shared libraries do not export, or only since 2.33.
// Linked into libsentinel.so and the command `sentinel`, where the names stay inside. See old_glibc.py beside this.
#define _LARGEFILE64_SOURCE
#include <sys/stat.h>

// Before 2.33 these were functions of a static part of glibc, around the ones below, which every version exports.
enum { kStatVersion = 1 };  // of x86-64
int __xstat64(int version, const char* path, struct stat64* out);
int __fxstat64(int version, int file, struct stat64* out);
int __lxstat64(int version, const char* path, struct stat64* out);
int __fxstatat64(int version, int folder, const char* path, struct stat64* out, int flags);

int stat64(const char* path, struct stat64* out) { return __xstat64(kStatVersion, path, out); }
int fstat64(int file, struct stat64* out) { return __fxstat64(kStatVersion, file, out); }
int lstat64(const char* path, struct stat64* out) { return __lxstat64(kStatVersion, path, out); }
int fstatat64(int folder, const char* path, struct stat64* out, int flags) {
  return __fxstatat64(kStatVersion, folder, path, out, flags);
}

// A function of glibc's static part in every version: the library or program that calls it is named by its own handle.
int __cxa_atexit(void (*call)(void* argument), void* argument, void* owner);
extern void* __dso_handle __attribute__((visibility("hidden")));

static void call(void* function) { ((void (*)(void))function)(); }

int atexit(void (*function)(void)) { return __cxa_atexit(call, (void*)function, __dso_handle); }
