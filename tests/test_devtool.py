"""tools/dev: its help, its messages, and how it knows what is up to date."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DEV = ROOT / "tools" / "dev"
sys.path.insert(0, str(ROOT / "tools" / "devtool"))

import pythons  # noqa: E402
import util  # noqa: E402
import venvs  # noqa: E402


def run_dev(*arguments, **settings):
    """Runs tools/dev. Returns its exit code, output and error output."""
    environment = dict(os.environ, **settings)
    result = subprocess.run(
        [str(DEV)] + list(arguments),
        env=environment,
        capture_output=True,
    )
    return result.returncode, result.stdout.decode(), result.stderr.decode()


def test_help_lists_the_commands():
    code, output, _ = run_dev("--help")
    assert code == 0
    for command in ("setup", "demo", "wheel", "test", "check", "bench", "clean"):
        assert "\n  %s " % command in output
    assert run_dev()[0] != 0


def test_bench_alone_lists_the_benchmarks():
    code, output, _ = run_dev("bench")
    assert code == 0 and {"packing", "planning", "policies"} <= set(
        output.strip().split(": ")[1].split(", ")
    )


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["strat"], "there is no command 'strat'; the commands are setup,"),
        (["setup", "--fast"], "setup takes no options, but got: --fast"),
        (["test", "--fast"], "test takes only --long, but got: --fast"),
        (
            ["wheel", "--fast"],
            "wheel takes only --verify and --bazel=0.21.0 or --bazel=4.2.3, but got: --fast",
        ),
        (["bench", "nothing-such"], "there is no benchmark 'nothing-such'; there are:"),
    ],
)
def test_a_wrong_command_line_gets_one_clear_line(arguments, said):
    code, _, errors = run_dev(*arguments)
    assert code != 0 and said in errors and len(errors.splitlines()) == 1


def test_a_wrong_sentinel_python_is_named():
    code, _, errors = run_dev("setup", SENTINEL_PYTHON="/nonexistent/python")
    assert code == 1
    assert (
        "SENTINEL_PYTHON=/nonexistent/python cannot be used: it does not run as a Python" in errors
    )


def test_python_is_found_by_running_it(monkeypatch, tmp_path):
    shim = tmp_path / "python3.7"
    shim.write_text("#!/bin/sh\necho 'pyenv: version 3.7 is not chosen' >&2\nexit 127\n")
    shim.chmod(0o755)
    monkeypatch.delenv("SENTINEL_PYTHON", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    with pytest.raises(util.Stop, match="Python 3.7 was not found: get it with"):
        pythons.find_python()
    versions = tmp_path / "pyenv" / "versions" / "3.7.9" / "bin"
    versions.mkdir(parents=True)
    (versions / "python").symlink_to(sys.executable)
    assert Path(pythons.find_python()).name == "python"


def test_the_wheel_takes_no_python_of_its_own_to_build(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("SENTINEL_PYTHON", "/nonexistent/python")
    assert pythons.find_build_python() == sys.executable
    monkeypatch.setattr(pythons.sys, "version_info", (3, 6, 9))
    with pytest.raises(util.Stop, match="python3 is Python 3.6; 3.7 or later is needed"):
        pythons.find_build_python()


def test_a_python_without_venv_is_told_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ensurepip", None)
    with pytest.raises(util.Stop, match="cannot make environments: apt-get install python3-venv"):
        pythons.find_build_python()


def test_newest_pyenv_version_first():
    paths = ["/p/versions/3.7.%d/bin/python" % patch for patch in (9, 16, 10)]
    assert sorted(paths, key=pythons._numbers)[-1] == "/p/versions/3.7.16/bin/python"


def test_keys_follow_content_and_order(tmp_path):
    path = tmp_path / "input"
    path.write_text("a")
    before = util.key_of(path, "x")
    assert before == util.key_of(path, "x") != util.key_of("x", path)
    path.write_text("b")
    assert util.key_of(path, "x") != before
    stamp = tmp_path / "stamp"
    assert not util.is_fresh(stamp, before)
    util.write_stamp(stamp, before)
    assert util.is_fresh(stamp, before) and not util.is_fresh(stamp, "other")


def test_private_variables_do_not_reach_programs(monkeypatch):
    monkeypatch.setenv("SENTINEL_CACHE", "/somewhere")
    monkeypatch.setenv("SENTINEL_FAST", "20%")
    assert "SENTINEL_CACHE" not in util.clean_env() and util.clean_env()["SENTINEL_FAST"] == "20%"


def test_a_cache_that_cannot_be_written_is_passed_over(monkeypatch, tmp_path):
    blocker = tmp_path / "file"
    blocker.write_text("")
    monkeypatch.setenv("SENTINEL_CACHE", str(blocker / "cache"))
    monkeypatch.setattr(venvs, "BUILD", tmp_path / "build")
    asked = []
    monkeypatch.setattr(
        venvs, "_download", lambda python, scratch, wheel, sha256: asked.append(wheel) or wheel
    )
    wheel = venvs.stock_wheel("python")
    assert asked == [wheel] and str(wheel).startswith(str(tmp_path / "build" / "cache"))


def test_a_damaged_download_is_not_used(monkeypatch, tmp_path):
    monkeypatch.setenv("SENTINEL_CACHE", str(tmp_path))
    folder = tmp_path / "wheels" / venvs.stock_sha256()
    folder.mkdir(parents=True)
    (folder / venvs.STOCK_WHEEL_NAME).write_text("damaged")
    monkeypatch.setattr(venvs, "BUILD", tmp_path / "build")
    monkeypatch.setattr(venvs, "_download", lambda *arguments: "downloaded again")
    assert venvs.stock_wheel("python") == "downloaded again"
