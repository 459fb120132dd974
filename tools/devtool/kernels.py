"""`tools/dev qemu kernel`: builds kernels with the page-access profiler, boots them and runs its tests.

What is built lies in the cache under a key of patches, core and configuration; without the cache it is built anew.
"""

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import kernel_module
import venvs
from util import ROOT, Stop, clean_env, file_digest, key_of, run_logged, say

PROFILER = ROOT / "linux-4.9-profiler"
HARNESS = PROFILER / "qemu"
# What it takes to build a kernel and to boot it: a program or a file, and Debian's package of it.
TOOLS = {
    "gcc": "gcc",
    "make": "make",
    "bc": "bc",
    "bison": "bison",
    "flex": "flex",
    "patch": "patch",
    "xz": "xz-utils",
    "qemu-system-x86_64": "qemu-system-x86",
    "/usr/include/stdio.h": "libc6-dev",
    "/usr/include/libelf.h": "libelf-dev",
    "/usr/include/numaif.h": "libnuma-dev",
}
# What the kernel writes when something is wrong with it.
REPORT = re.compile(
    r"BUG:|WARNING:|Bad page|KASAN|Oops|general protection|unreferenced object|"
    r"possible (circular|recursive)|inconsistent lock state|rcu.*stall|blocked for more than|Kernel panic"
)
FUZZED = re.compile(r"^fuzzed (\d+) foreign (\d+)$", re.MULTILINE)
HELD = re.compile(r"^held (\w+) (\d+)$", re.MULTILINE)
SKIPPED = re.compile(r"^ok .*# SKIP.*$", re.MULTILINE)
SEARCHED = re.compile(r"^searched for leaks$", re.MULTILINE)
FAILED = re.compile(r"^(not ok .*|Bail out!.*)$", re.MULTILINE)
TENSORFLOW_KEYS = ("rank_correlation", "profiled_step_ratio", "losses_identical_to_stock")
# (name, processor, with self-checks, calls of each fuzzer, limit of what takes long, groups of tests)
SHORT = (
    ("6.1", "max", False, 10000, 100, ()),
    ("6.1", "max,phys-bits=52", False, 0, 100, ("exact", "memory", "processes")),
)
FULL = (
    ("6.1", "max", False, 500000, 10000, ()),
    ("6.1", "max,phys-bits=52", False, 50000, 1000, ()),
    ("6.1", "max", True, 20000, 200, ()),
)
# Debian's unmodified kernel with the module: it counts all that the patched one does, so no test may be skipped; and it
# refuses where it cannot work.
MODULE = "module"
FULL_MODULE = (
    (MODULE, "max", False, 50000, 10000, ()),
    (MODULE, "max,phys-bits=52", False, 0, 0, ()),
)
SHORT_49 = (("4.9", "max", False, 10000, 100, ()),)
FULL_49 = (("4.9", "max", False, 50000, 10000, ()), ("4.9", "max,phys-bits=52", False, 0, 1000, ()))
# Sources that no guest is built from, two thirds of a gigabyte. Their Kconfigs and Makefiles stay, which others name.
UNUSED = """
    Documentation/*.rst Documentation/*.yaml arch/*.dts arch/*.dtsi drivers/gpu/*.[ch] drivers/infiniband/*.[ch]
    drivers/media/*.[ch] drivers/net/ethernet/*.[ch] drivers/net/wireless/*.[ch] drivers/staging/*.[ch] sound/*.[ch]
    tools/perf/* tools/testing/*
""".split()
# Boots of each of the two kernels that are compared.
COST_BOOTS = 10


def run(arguments):
    """Builds, boots and tests; prints one JSON object last. Returns 0 when everything is as promised."""
    if arguments not in ([], ["--full"], ["--cost"]):
        raise Stop("qemu kernel takes only --full or --cost, but got: %s" % " ".join(arguments))
    reason = why_impossible()
    if reason:
        raise Stop(reason)
    _install_tools()
    if arguments == ["--cost"]:
        return _cost()
    full = bool(arguments)
    plan = list(FULL + FULL_MODULE if full else SHORT)
    if os.environ.get("LINUX49_SRC"):
        plan += FULL_49 if full else SHORT_49
    else:
        print("skipped: LINUX49_SRC not set", flush=True)
    result = {"guest_tests_failed": 0, "ioctls_fuzzed": 0, "kernel_reports": 0}
    faults = []
    for version, cpu, debug, calls, stress, groups in plan:
        image = _timed("building", build, version, "debug" if debug else "")
        amount = (calls, stress, groups)
        _timed("testing", _test, image, (version, cpu, debug), amount, result, faults)
    if full:
        faults += _timed("TensorFlow", _tensorflow, result, build("6.1"))
    for fault in faults:
        say("not as promised: " + fault)
    print(json.dumps(result), flush=True)
    return 1 if faults else 0


def _timed(what, function, *arguments):
    """Calls a function and says how long it took, unless that was a moment."""
    began = time.monotonic()
    result = function(*arguments)
    seconds = time.monotonic() - began
    if seconds >= 1:
        say("%s took %.0f s" % (what, seconds))
    return result


def _missing_packages():
    """Debian's packages of what is not there."""
    return [
        package
        for tool, package in TOOLS.items()
        if not (Path(tool).is_file() if tool.startswith("/") else shutil.which(tool))
    ]


def why_impossible():
    """Why no kernel can be tested here, in one line, or None."""
    if shutil.which("apt-get") is None:
        return "apt-get is missing: the guest is made of Debian's packages"
    missing = _missing_packages()
    if missing and os.geteuid():
        return "these packages are missing: apt-get install %s" % " ".join(missing)
    return None


def _install_tools():
    missing = _missing_packages()
    if missing:
        say("installing %s" % ", ".join(missing))
        command = ["apt-get", "install", "-q", "-y", "--no-install-recommends", *missing]
        run_logged("apt-get", command, env=clean_env(DEBIAN_FRONTEND="noninteractive"))


def _tensorflow(result, image):
    """Adds the figures of TensorFlow in the guest. Returns what is wrong with them."""
    try:
        from kernel_tensorflow import tensorflow_figures
    except ImportError:
        return ["%s are missing: there is no kernel_tensorflow.py" % ", ".join(TENSORFLOW_KEYS)]
    figures, faults = tensorflow_figures(image)
    result.update(figures)
    missing = [key for key in TENSORFLOW_KEYS if key not in figures]
    return faults + (["%s are missing" % ", ".join(missing)] if missing else [])


def _test(image, what, amount, result, faults):
    """Boots one kernel and adds what its tests say to `result` and `faults`."""
    version, cpu, debug = what
    calls, stress, groups = amount
    name = "%s on %s%s" % (version, cpu, " with self-checks" if debug else "")
    say("testing Linux " + name)
    with tempfile.TemporaryDirectory(prefix="sentinel-kernel-") as job:
        run_logged("guest-tests", ["make", "-C", PROFILER / "tests", "OUT=" + job])
        script = ["run.sh"]
        if version == MODULE:
            # It calls run.sh.
            script = ["module.sh", image, kernel_module.ram_disks()]
        command = ["sh", PROFILER / "tests" / script[0], *script[1:], job, calls, 1, *groups]
        status = guest(image, cpu, job, command, {"SENTINEL_STRESS": stress})
        out, console = (_text(Path(job) / name) for name in ("out", "console"))
    log = ROOT / "build" / "logs" / ("kernel-%s.log" % re.sub(r"\W+", "-", name))
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text(out + console)
    failed, fuzzed, reports, complaints = judge(out, console, status, bool(calls), debug)
    if version == MODULE:
        complaints += SKIPPED.findall(out)
    result["guest_tests_failed"] += failed
    result["ioctls_fuzzed"] += fuzzed
    result["kernel_reports"] += reports
    faults += ["%s: %s (see %s)" % (name, text, log.relative_to(ROOT)) for text in complaints]


def _text(path):
    """What a guest has left in a file, or nothing when it came to an end before."""
    return path.read_text(errors="replace") if path.is_file() else ""


def judge(out, console, status, fuzz, debug):
    """Reads what a guest has printed.

    Args:
      out: Output of the tests, the fuzzers and dmesg.
      console: What came over the serial line.
      status: Exit status of the guest's command.
      fuzz: True when fuzzers were to run.
      debug: True for a kernel that was to look for leaks.

    Returns:
      Failed tests, calls that were fuzzed, reports of the kernel, and a list of what is not as promised.
    """
    failed = FAILED.findall(out)
    faults = list(failed)
    passed = len(re.findall(r"^ok ", out, re.MULTILINE))
    plan = re.search(r"^1\.\.(\d+)$", out, re.MULTILINE)
    if plan is None or int(plan.group(1)) != passed + sum(f.startswith("not") for f in failed):
        faults.append("the tests did not run to their end")
    fuzzers = FUZZED.findall(out)
    if fuzz and (len(fuzzers) != 2 or any(foreign != "0" for _, foreign in fuzzers)):
        faults.append("the fuzzers say %s" % (fuzzers or "nothing"))
    held = dict(HELD.findall(out))
    if held != {"sessions": "0", "pages": "0"}:
        faults.append("the kernel still holds %s" % (held or "what it does not say"))
    if debug and not SEARCHED.search(out):
        faults.append("nothing has searched for leaks")
    # What dmesg has may be on the console too.
    reports = {
        line.split("] ", 1)[-1] for line in (out + console).splitlines() if REPORT.search(line)
    }
    faults += sorted(reports)
    if status and not faults:
        faults.append("the guest's command ended with status %d" % status)
    failures = len(failed) + (1 if faults and not failed and not reports else 0)
    return failures, sum(int(calls) for calls, _ in fuzzers), len(reports), faults


def guest(image, cpu, job, command, env):
    """Runs a command in a guest with this kernel and processor; `job` gets its output. Returns the status."""
    whole = [sys.executable, HARNESS / "guest.py", "--cache", venvs.cache_home() / "qemu"]
    # A module is for Debian's kernel, which is what boots when none is named.
    whole += [] if image.suffix == ".ko" else ["--kernel", image]
    whole += ["--cpu", cpu, "--job", job, "--seconds", 7200, "--"]
    whole += ["env"] + ["%s=%s" % pair for pair in env.items()] + list(command)
    return subprocess.call([str(part) for part in whole], cwd=str(ROOT), stdout=subprocess.DEVNULL)


def _cost():
    """Boots a kernel with hooks that nobody uses and one without, in turn; prints the ratio of their times per load."""
    images = [build("6.1"), build("6.1", "without")]
    times = [[], []]
    with tempfile.TemporaryDirectory(prefix="sentinel-kernel-cost-") as job:
        run_logged("guest-tests", ["make", "-C", PROFILER / "tests", "OUT=" + job])
        for boot in range(2 * COST_BOOTS):
            status = guest(images[boot % 2], "max", job, ["taskset", "1", job + "/cost"], {})
            if status:
                raise Stop("the guest's command ended with status %d" % status)
            times[boot % 2].append(json.loads(_text(Path(job) / "out").splitlines()[-1]))
    # What else runs on the host makes times longer and never shorter.
    best = [{load: min(one[load] for one in side) for load in side[0]} for side in times]
    ratios = {"ratio_" + load: round(best[0][load] / best[1][load], 3) for load in best[0]}
    print(json.dumps({**ratios, "boots": 2 * COST_BOOTS}), flush=True)
    return 0


def build(version, variant=""):
    """Builds a kernel, or finds it in the cache.

    Args:
      version: "6.1", from Debian's source package, "4.9", from LINUX49_SRC, or MODULE.
      variant: "debug" for a kernel that checks its locks and memory, "without" for one without the profiler.

    Returns:
      Path of the kernel's image, or of the module.
    """
    if version == MODULE:
        return kernel_module.build()
    names = ["common", version] + ([variant] if variant else [])
    fragment = merged([(HARNESS / "config" / name).read_text() for name in names])
    source, source_key = _source(version)
    key = key_of(source_key, fragment)[:16]
    kernels = venvs.cache_home() / "kernels"
    image = kernels / ("linux-%s%s-%s" % (version, variant and "-" + variant, key))
    if image.is_file():
        return image
    kernels.mkdir(parents=True, exist_ok=True)
    with open(str(kernels / "lock"), "w") as lock:
        # Another checkout may be building in the same cache.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not image.is_file():
            _make(version, variant, fragment, _patched_tree(version, source), image)
    return image


def _make(version, variant, fragment, tree, image):
    """Configures and builds a kernel beside its image, where an earlier build has left what need not be made again."""
    out = image.parent / ("build-%s%s" % (version, variant and "-" + variant))
    out.mkdir(parents=True, exist_ok=True)
    (out / "fragment").write_text(fragment)
    kind = {"": "", "debug": " with self-checks", "without": " without the profiler"}[variant]
    say("building Linux %s%s, which takes minutes" % (version, kind))
    make = ["nice", "-n", "10", "make", "-C", tree, "O=%s" % out, "-j%d" % min(2, os.cpu_count())]
    run_logged("kernel-config", make + ["KCONFIG_ALLCONFIG=%s" % (out / "fragment"), "allnoconfig"])
    _check_config((out / ".config").read_text(), fragment)
    run_logged("kernel-build", make + ["bzImage"])
    shutil.copyfile(str(out / "arch/x86/boot/bzImage"), str(image) + ".new")
    os.replace(str(image) + ".new", str(image))


def merged(fragments):
    """One configuration of several; where two speak of the same symbol, the later one counts."""
    lines = {}
    for line in "".join(fragments).splitlines():
        symbol = re.match(r"(?:# )?(CONFIG_\w+)(?:=| is not set$)", line)
        if symbol:
            lines[symbol.group(1)] = line
    return "".join(line + "\n" for line in lines.values())


def _check_config(config, fragment):
    """Stops when a line of the fragment did not survive: its symbol depends on something that is missing."""
    have = set(config.splitlines())
    for line in fragment.splitlines():
        off = re.match(r"# (CONFIG_\w+) is not set$", line)
        if off and any(text.startswith(off.group(1) + "=") for text in have):
            raise Stop("the kernel's configuration has %s on" % off.group(1))
        if line.startswith("CONFIG_") and line not in have:
            raise Stop("the kernel's configuration lost the line %s" % line)


def _source(version):
    """The kernel's source, a tree or an archive, and a key of it and of all that is put into it."""
    ours = sorted((PROFILER / "core").glob("*")) + sorted(
        (PROFILER / "patches" / version).glob("*")
    )
    ours += [PROFILER / "apply.sh", PROFILER / "include/uapi/sentinel.h"]
    if version == "4.9":
        source = Path(os.environ["LINUX49_SRC"]).resolve()
        if not (source / "Makefile").is_file():
            raise Stop("LINUX49_SRC is '%s', which is no kernel source tree" % source)
        return source, key_of(str(source), source / "Makefile", *ours)
    archive = kernel_module.unpacked("linux-source-6.1") / "usr/src/linux-source-6.1.tar.xz"
    return archive, key_of(file_digest(archive), *ours)


def _patched_tree(version, source):
    """A tree of sources with the profiler in it. It keeps its place, so that make builds only what has changed."""
    patches = key_of(str(source), *UNUSED, *sorted((PROFILER / "patches" / version).glob("*")))
    kernels = venvs.cache_home() / "kernels"
    tree = kernels / ("source-%s-%s" % (version, patches[:16]))
    if not tree.is_dir():
        for old in kernels.glob("source-%s-*" % version):
            shutil.rmtree(str(old))
        say("unpacking Linux %s" % version)
        # Whole or not at all: this may be stopped at any time.
        new = Path(str(tree) + ".new")
        new.mkdir()
        if source.is_dir():
            run_logged("kernel-copy", ["cp", "-a", "%s/." % source, new])
            run_logged("kernel-clean", ["make", "-C", new, "mrproper"])
        else:
            unused = ["--exclude=linux-source-%s/%s" % (version, pattern) for pattern in UNUSED]
            command = ["tar", "-xf", source, "-C", new, "--strip-components=1", *unused]
            run_logged("kernel-unpack", command)
        run_logged("kernel-patch", ["sh", PROFILER / "apply.sh", new])
        new.rename(tree)
    run_logged("kernel-apply", ["sh", PROFILER / "apply.sh", tree])
    return tree
