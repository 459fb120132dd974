"""`tools/dev test`: Rust tests, then Python tests, then one line with the sum of both."""

import re
import shutil
import subprocess
import tempfile
import xml.etree.ElementTree
from pathlib import Path

import commands
import plugin
import venvs
from util import BUILD, ROOT, VENV, Stop, clean_env, say

# Less than this is too little even where everything is built already.
ROOM_BYTES = 1e9
_CARGO_RESULT = re.compile(r"^test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored;")


def run(arguments):
    """Runs all tests and prints `N passed, N failed, N skipped` last. Returns 0 when none failed and some passed."""
    if any(argument != "--long" for argument in arguments):
        raise Stop("test takes only --long, but got: %s" % " ".join(arguments))
    long = bool(arguments)
    _tell_room("before", ROOM_BYTES)
    commands.setup()
    passed, failed, skipped = (a + b for a, b in zip(_cargo(long), _pytest(long)))
    _tell_room("after")
    print("%d passed, %d failed, %d skipped" % (passed, failed, skipped), flush=True)
    return 0 if passed and not failed else 1


def _tell_room(when, least_bytes=0):
    """Says how much room the disks have, because without any, tests fail in strange ways."""
    cache = venvs.cache_home()
    while not cache.exists():
        cache = cache.parent
    scratch = Path(tempfile.gettempdir())
    for what, place in (("checkout", ROOT), ("cache", cache), ("scratch files", scratch)):
        free_bytes = shutil.disk_usage(str(place)).free
        say("%s the tests: %.1f GB free for the %s (%s)" % (when, free_bytes / 1e9, what, place))
        if free_bytes < least_bytes and place != scratch:
            raise Stop("the tests need at least %.1f GB free there" % (least_bytes / 1e9))


def _cargo(long):
    """Runs the Rust tests; tests marked `#[ignore]` are the long ones. Returns (passed, failed, ignored)."""
    say("cargo test")
    command = ["cargo", "test", "--workspace", "--locked", "--no-fail-fast"]
    command += ["--", "--include-ignored"] if long else []
    process = subprocess.Popen(
        command,
        cwd=str(plugin.CARGO_WORKSPACE),
        env=clean_env(),
        stdout=subprocess.PIPE,
        universal_newlines=True,
    )
    counts = [0, 0, 0]
    for line in process.stdout:
        print(line, end="", flush=True)
        match = _CARGO_RESULT.match(line)
        if match:
            counts = [count + int(number) for count, number in zip(counts, match.groups())]
    return _with_failure(counts, process.wait())


def _pytest(long):
    """Runs the Python tests; tests marked `long` are the long ones. Returns (passed, failed, skipped)."""
    say("pytest")
    report = BUILD / "pytest.xml"
    if report.exists():
        report.unlink()
    command = [VENV / "bin" / "python", "-m", "pytest", "tests", "--junitxml", report]
    command += [
        "-o",
        "junit_family=xunit2",
        # What a test that passed has written to a folder of its own goes at once.
        "-o",
        "tmp_path_retention_policy=failed",
        "-o",
        "markers=long: takes minutes; only with tools/dev test --long",
    ]
    command += [] if long else ["-m", "not long"]
    code = subprocess.call([str(part) for part in command], cwd=str(ROOT), env=clean_env())
    counts = [0, 0, 0]
    try:
        suites = list(xml.etree.ElementTree.parse(str(report)).iter("testsuite"))
    except (OSError, xml.etree.ElementTree.ParseError) as error:
        say(
            "%s cannot be read, which counts as one failure: %s" % (report.relative_to(ROOT), error)
        )
        code = code or 1
    else:
        for suite in suites:
            failed = int(suite.get("failures")) + int(suite.get("errors"))
            skipped = int(suite.get("skipped"))
            counts = [
                counts[0] + int(suite.get("tests")) - failed - skipped,
                counts[1] + failed,
                counts[2] + skipped,
            ]
    return _with_failure(counts, code)


def _with_failure(counts, code):
    """A runner that failed without a failed test, such as one whose tests do not compile, counts as one failure."""
    if code and not counts[1]:
        return [counts[0], 1, counts[2]]
    return counts
