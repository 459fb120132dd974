"""Stands in for @bazel_skylib, of which rules_rust uses this to list its own files."""

def bzl_library(name, srcs = []):
    native.filegroup(name = name, srcs = srcs)
