"""What a user meets: the wheel is installed over the official one in a clean environment, used, checked and removed.

Usage: wheel_test.py WHEEL STOCK EXAMPLE SDIST

WHEEL may be the folder that holds it. The packages that TensorFlow needs are installed from the folder in which SDIST
lies; nothing is downloaded. Everything happens in a folder of its own, far from the sources, to which the example is
copied with all that lies beside it.
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

VERSION = "import tensorflow as tf; print(tf.sentinel.__version__)"
OFF = "import tensorflow as tf; print(tf.sentinel.stats()['active'], tf.sentinel.__version__)"
MOST_SECONDS = 600
# A training that knows nothing of Sentinel, and is large enough to be planned.
SCRIPT = """
import numpy, tensorflow as tf
x = tf.placeholder(tf.float32, [512, 256])
y = x
for layer in range(4):
    weights = tf.get_variable("w%d" % layer, [256, 256])
    y = tf.tanh(tf.matmul(y, weights))
train = tf.train.MomentumOptimizer(0.1, 0.9).minimize(tf.reduce_mean(tf.square(y - 0.5)))
with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    for step in range(60):
        session.run(train, {x: numpy.ones([512, 256], "f")})
print("trained")
"""


class Failed(Exception):
    """A promise is broken. The text says which, with what was printed."""


class Environment:
    """A clean virtual environment."""

    def __init__(self, folder, packages):
        self.folder, self._packages = folder, packages
        subprocess.check_call([sys.executable, "-m", "venv", str(folder)])

    def run(self, program, *arguments, **settings):
        """Runs a program of the environment and returns its output, or raises Failed."""
        command, code, output = self.call(program, arguments, settings)
        expect(code == 0, "%s: exit code %d\n%s" % (command, code, output[-4000:]))
        return output

    def fails(self, program, *arguments):
        """Runs a program that must refuse, and returns what it said."""
        command, code, output = self.call(program, arguments, {})
        expect(code > 0, "%s: exit code %d\n%s" % (command, code, output[-4000:]))
        return output.strip()

    def call(self, program, arguments, settings):
        """Runs a program of the environment, and returns the command, its exit code and its output."""
        env = {
            "PATH": "%s/bin:/usr/bin:/bin" % self.folder,
            "HOME": str(self.folder),
            "TF_CPP_MIN_LOG_LEVEL": "1",
        }
        env.update(settings)
        command = [str(self.folder / "bin" / program)] + [str(argument) for argument in arguments]
        result = subprocess.run(
            command,
            env=env,
            cwd=str(self.folder),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=MOST_SECONDS,
        )
        return " ".join(command), result.returncode, result.stdout.decode(errors="replace")

    def pip(self, *arguments):
        """Runs pip without any package index."""
        flags = ["--no-index", "--find-links", self._packages, "--disable-pip-version-check"]
        return self.run("python", "-m", "pip", "install", "-q", *flags, *arguments)

    def files(self):
        """All files, but for what Python compiles on the way."""
        return {path for path in self.folder.rglob("*") if path.is_file() and path.suffix != ".pyc"}


def expect(holds, text):
    """Raises Failed with the text unless the promise holds."""
    if not holds:
        raise Failed(text)


def say(began, text):
    """Prints what was done, and the seconds since the begin."""
    print("%5.1f s: %s" % (time.monotonic() - began, text), flush=True)


def requirements(folder):
    """Every package in the folder, as a requirement with its version; pip itself is there already."""
    names = [path.name for path in folder.iterdir()]
    found = [re.match(r"(.+?)-([0-9][^-]*?)(-.*\.whl|\.tar\.gz)$", name) for name in names]
    pairs = sorted({(match.group(1), match.group(2)) for match in found if match})
    return ["%s==%s" % pair for pair in pairs]


def use(environment, example):
    """Uses the installed wheel as its users do."""
    version = environment.run("python", "-W", "ignore", "-c", VERSION).split()[-1]
    expect(version.startswith("1.13.1+sentinel-"), "tf.sentinel.__version__ is %s" % version)
    off = environment.run("python", "-W", "ignore", "-c", OFF, SENTINEL="0").split()
    expect(off[-3:] == ["False", "not", "loaded"], "with SENTINEL=0 it says %s" % off)
    expect("Usage: sentinel" in environment.run("sentinel", "--help"), "sentinel --help")
    refused = environment.fails("sentinel", "trace", "show", "nothing-such")
    expect(
        len(refused.splitlines()) == 1 and "nothing-such" in refused,
        "of a missing trace it says %s" % refused,
    )
    arguments = ["--batch", "16", "--steps", "30", "--warmup-steps", "1", "--fast", "50%"]
    arguments += ["--slow", "emulated:optane", "--json-out", "result.json"]
    environment.run("python", "-W", "ignore", example, *arguments)
    result = json.loads((environment.folder / "result.json").read_text())
    expect(
        result["stats"]["steps_managed"] > 0,
        "the example trained without a plan: %s" % result["stats"],
    )
    use_command(environment)


def use_command(environment):
    """Uses the command `sentinel` that the wheel brings, with the TensorFlow that it brings."""
    (environment.folder / "script.py").write_text(SCRIPT)
    options = ["--fast", "50%", "--slow", "emulated:optane"]
    python = ["python", "-W", "ignore", "script.py"]
    told = environment.run("sentinel", "run", *options, "--", *python, SENTINEL_WARMUP_STEPS="1")
    expect("trained\n" in told, "sentinel run hides what the script prints: %s" % told)
    steps = re.search(r"^sentinel: steps: (\d+) followed a plan", told, re.MULTILINE)
    expect(steps and int(steps.group(1)) > 0, "sentinel run managed no step: %s" % told[-4000:])
    # It exits with 1 where the machine has no second tier, and tells about the plugin in any case.
    command, code, told = environment.call("sentinel", ["doctor"], {})
    expect(code in (0, 1), "%s: exit code %d\n%s" % (command, code, told))
    active = re.search(r"^ +Sentinel +active in a session", told, re.MULTILINE)
    expect(active, "sentinel doctor does not say that Sentinel is active:\n%s" % told)


def main(arguments):
    """Installs, uses, checks and removes; says what took how long."""
    # Links stay as they are: they lead out of what the test has declared.
    wheel, stock, example, sdist = (Path(argument).absolute() for argument in arguments)
    if wheel.is_dir():
        (wheel,) = wheel.glob("*.whl")
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        environment = Environment(Path(scratch) / "venv", sdist.parent)
        environment.pip("--upgrade", "pip", "setuptools", "wheel")
        environment.pip("--no-build-isolation", "--no-deps", *requirements(sdist.parent))
        before = environment.files()
        environment.pip("--no-deps", stock)
        environment.pip(wheel)
        say(began, "installed over the official wheel")
        environment.run("python", "-m", "pip", "check")
        examples = Path(scratch) / "examples"
        shutil.copytree(str(example.parent), str(examples))
        use(environment, examples / example.name)
        say(began, "used")
        environment.run("python", "-m", "pip", "uninstall", "-q", "-y", "tensorflow")
        left = sorted(
            str(path)
            for path in environment.files() - before
            if path.parent.name == "bin" or "/site-packages/" in str(path)
        )
        expect(not left, "left after uninstalling: %s" % left[:3])
        say(began, "removed, and nothing is left of it")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except Failed as failed:
        sys.exit("wheel_test.py: %s" % failed)
