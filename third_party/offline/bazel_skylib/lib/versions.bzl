"""Stands in for @bazel_skylib, of which rules_rust compares versions of Bazel."""

def _numbers(version):
    return [int(part) for part in version.split("-")[0].split(" ")[0].split(".")]

def _is_at_least(threshold, version):
    return _numbers(version) >= _numbers(threshold)

versions = struct(is_at_least = _is_at_least)
