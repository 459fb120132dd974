"""The kernel page-access profiler: its pure logic under the sanitizers, how guests are judged, and a guest itself."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PROFILER = ROOT / "linux-4.9-profiler"
GOOD = "ok 1 - a\nok 2 - b\n1..2\nheld sessions 0\nheld pages 0\n"


@pytest.fixture(scope="module")
def kernels():
    folder = str(ROOT / "tools/devtool")
    if folder not in sys.path:
        sys.path.insert(0, folder)
    path = ROOT / "tools/devtool/kernels.py"
    spec = importlib.util.spec_from_file_location(path.stem, str(path))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_pure_logic_under_the_sanitizers(tmp_path):
    program = tmp_path / "regions_test"
    command = ["gcc", "-std=gnu11", "-g", "-Wall", "-Wextra", "-Werror"]
    command += ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    command += ["-I", PROFILER / "core", "-I", PROFILER / "include/uapi", "-o", program]
    command += [PROFILER / "tests/regions_test.c", PROFILER / "core/sentinel_regions.c"]
    subprocess.run([str(part) for part in command], check=True)
    done = subprocess.run([str(program)], stdout=subprocess.PIPE, text=True)
    assert done.returncode == 0 and "not ok" not in done.stdout, done.stdout


def test_a_good_guest_is_good(kernels):
    assert kernels.judge(GOOD, "", 0, False, False) == (0, 0, 0, [])
    searched = GOOD + "searched for leaks\n"
    assert kernels.judge(searched, "", 0, False, True) == (0, 0, 0, [])
    assert kernels.judge(GOOD, "", 0, False, True)[3]


@pytest.mark.parametrize(
    "out, console",
    [
        (GOOD.replace("ok 2", "not ok 2"), ""),
        (GOOD.replace("1..2", ""), ""),
        (GOOD.replace("ok 2 - b\n", ""), ""),
        (GOOD.replace("sessions 0", "sessions 1"), ""),
        (GOOD.replace("held pages 0\n", ""), ""),
        (GOOD, "[   1.0] BUG: Bad page map in process x"),
        (GOOD + "[   1.0] WARNING: possible circular locking dependency", ""),
        (GOOD + "unreferenced object 0xffff888004d0d0c0 (size 96):", ""),
        (GOOD, "[   9.0] INFO: task guest_tests:66 blocked for more than 120 seconds."),
    ],
)
def test_what_is_wrong_with_a_guest_is_seen(kernels, out, console):
    assert kernels.judge(out, console, 0, False, False)[3]


def test_a_later_configuration_counts(kernels):
    fragments = ["CONFIG_A=y\n# CONFIG_B is not set\n", "# CONFIG_A is not set\nCONFIG_C=8\n"]
    assert kernels.merged(fragments).splitlines() == [
        "# CONFIG_A is not set",
        "# CONFIG_B is not set",
        "CONFIG_C=8",
    ]


def test_fuzzers_must_have_run_and_seen_nothing_of_others(kernels):
    fuzzed = "fuzzed 500 foreign 0\nfuzzed 600 foreign 0\n"
    assert kernels.judge(GOOD + fuzzed, "", 0, True, False) == (0, 1100, 0, [])
    assert kernels.judge(GOOD, "", 0, True, False)[3]
    assert kernels.judge(GOOD + fuzzed.replace("foreign 0", "foreign 3"), "", 0, True, False)[3]


def test_the_training_that_is_profiled_in_the_guest_trains(start, stock_python, tmp_path):
    """In the guest it runs only with --full, so what breaks it is to be seen here."""
    losses = tmp_path / "losses"
    scenario = ROOT / "tests/scenarios/page_counts.py"
    finished = start(stock_python, scenario, "stock", "--losses", losses).wait()
    assert finished.code == 0, finished.err
    assert len(losses.read_text().split()) == 9


def test_a_test_that_is_skipped_under_the_module_is_seen(kernels):
    assert kernels.SKIPPED.findall(GOOD) == []
    skipped = GOOD.replace("ok 2 - b", "ok 2 - b # SKIP this kernel has none")
    assert kernels.SKIPPED.findall(skipped) == ["ok 2 - b # SKIP this kernel has none"]


def test_the_module_is_made_of_the_core_and_not_of_copies():
    module = PROFILER / "module"
    names = {path.name for path in (PROFILER / "core").glob("*.c")}
    assert not names & {path.name for path in module.glob("*.c")}
    kbuild = (module / "Kbuild").read_text()
    (cores,) = [
        line.split(":=")[1].split() for line in kbuild.splitlines() if line.startswith("core :=")
    ]
    assert names == {"sentinel_%s.c" % core for core in cores}


def test_guest(kernels):
    reason = kernels.why_impossible()
    if reason:
        pytest.skip("skipped: " + reason)
    done = subprocess.run(
        [str(ROOT / "tools/dev"), "qemu", "kernel"], stdout=subprocess.PIPE, text=True
    )
    assert done.returncode == 0, done.stdout
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["guest_tests_failed"] == 0 and result["kernel_reports"] == 0
    assert result["ioctls_fuzzed"] >= 20000
