#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Runs a command of the host's file system in a virtual machine with two memory nodes, of which one has no CPUs.

    guest.py [--cache DIR] [--job DIR] [--seconds N] [--kernel FILE] [--cpu MODEL] -- COMMAND...

The guest emulates its processors (no KVM is needed), sees the host's files read-only under a layer that is lost at the
end, and can write to the job's folder, which has the same path inside as outside. There, `out`, `err`, `status` and
`console` are found afterwards. The exit status is the command's.
"""

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from kernel import GuestError, boot_files

QEMU = "qemu-system-x86_64"
# Emulated processors are slow, and on a loaded machine four to ten times slower still.
SECONDS_AT_MOST = 1800


class Result:
    """What a guest left.

    Attributes:
      status: The command's exit status.
      out, err: What it printed.
      seconds: Time from switching on to switching off.
    """

    def __init__(self, status, out, err, seconds):
        self.status, self.out, self.err, self.seconds = status, out, err, seconds


def run(
    command,
    job,
    cache,
    env=None,
    cwd="/",
    seconds=SECONDS_AT_MOST,
    node_mib=(2048, 2048),
    kernel=None,
    cpu="max",
):
    """Boots a guest, runs a command in it and waits for its end.

    Args:
      command: Program and arguments; paths are those of the host.
      job: Folder that the guest may write to; it must exist.
      cache: Folder for packages and boot files.
      env: Variables of the command besides PATH and HOME.
      cwd: Where the command runs.
      seconds: Time after which the guest is given up.
      node_mib: MiB of memory of node 0, which has the CPUs, and of node 1, which has none.
      kernel: Path of a kernel that has all it needs built in, instead of Debian's stock kernel.
      cpu: What QEMU is to emulate, with its flags.

    Returns:
      A `Result`.

    Raises:
      GuestError: the guest cannot be made, did not end in time, or ended without running the command to its end.
    """
    if shutil.which(QEMU) is None:
        raise GuestError("%s is missing: apt-get install qemu-system-x86" % QEMU)
    image, initramfs = boot_files(Path(cache), kernel)
    job = Path(job).resolve()
    if any(letter.isspace() or letter == "," for letter in str(job)):
        raise GuestError("the job's folder '%s' has a blank or a comma in its name" % job)
    for name in ("out", "err", "status", "console"):
        if (job / name).exists():
            (job / name).unlink()
    (job / "command").write_text(_script(command, env or {}, cwd))
    began = time.monotonic()
    try:
        subprocess.run(
            _qemu(image, initramfs, job, node_mib, cpu),
            stdin=subprocess.DEVNULL,
            timeout=seconds,
            check=True,
        )
    except subprocess.TimeoutExpired as error:
        raise GuestError(
            "the guest did not end within %d s; see %s" % (seconds, job / "console")
        ) from error
    except subprocess.CalledProcessError as error:
        raise GuestError("%s failed with exit status %d" % (QEMU, error.returncode)) from error
    taken = time.monotonic() - began
    if not (job / "status").is_file():
        raise GuestError("the guest ended before the command did; see %s" % (job / "console"))
    read = [(job / name).read_text(errors="replace") for name in ("out", "err")]
    return Result(int((job / "status").read_text()), read[0], read[1], taken)


def _script(command, env, cwd):
    """What the guest's shell runs."""
    lines = [
        "export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root",
        "export PYTHONDONTWRITEBYTECODE=1",
    ]
    lines += [
        "export %s=%s" % (name, shlex.quote(str(value))) for name, value in sorted(env.items())
    ]
    lines.append("cd %s || exit 126" % shlex.quote(str(cwd)))
    lines.append("exec " + " ".join(shlex.quote(str(part)) for part in command))
    return "\n".join(lines) + "\n"


def _qemu(image, initramfs, job, node_mib, cpu="max"):
    """QEMU's command line. Without no_timer_check, an emulated machine under load panics while it boots."""
    options = "console=ttyS0 panic=-1 loglevel=4 no_timer_check sentinel_job=%s" % job
    command = [QEMU, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]
    command += ["-machine", "q35", "-accel", "tcg,thread=multi,tb-size=512", "-cpu", cpu]
    command += ["-smp", "2", "-m", "size=%dM" % sum(node_mib)]
    for node, mib in enumerate(node_mib):
        command += ["-object", "memory-backend-ram,id=m%d,size=%dM" % (node, mib)]
        cpus = ",cpus=0-1" if node == 0 else ""
        command += ["-numa", "node,nodeid=%d%s,memdev=m%d" % (node, cpus, node)]
    command += ["-numa", "dist,src=0,dst=1,val=20"]
    command += ["-kernel", str(image), "-initrd", str(initramfs), "-append", options]
    shares = (("hostroot", "/", ",readonly=on"), ("job", job, ""))
    for tag, path, more in shares:
        share = "local,id=%s,path=%s,security_model=none,multidevs=remap%s" % (tag, path, more)
        command += [
            "-fsdev",
            share,
            "-device",
            "virtio-9p-pci,fsdev=%s,mount_tag=%s" % (tag, tag),
        ]
    return command + ["-serial", "file:%s" % (job / "console")]


def _arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    parser.add_argument("--cache", default=os.path.join(default, "sentinel", "qemu"))
    parser.add_argument(
        "--job", help="folder that the guest may write to (default: one that is removed)"
    )
    parser.add_argument("--seconds", type=int, default=SECONDS_AT_MOST)
    parser.add_argument(
        "--kernel", help="a kernel without modules, instead of Debian's stock kernel"
    )
    parser.add_argument("--cpu", default="max", help="processor to emulate, as for qemu -cpu")
    parser.add_argument("--node0-mib", type=int, default=2048)
    parser.add_argument("--node1-mib", type=int, default=2048)
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="-- COMMAND")
    arguments = parser.parse_args()
    if arguments.command[:1] == ["--"]:
        del arguments.command[0]
    if not arguments.command:
        parser.error("there is no command to run")
    return arguments


def main():
    """Runs the command of the command line."""
    arguments = _arguments()
    with tempfile.TemporaryDirectory() as scratch:
        node_mib = (arguments.node0_mib, arguments.node1_mib)
        try:
            result = run(
                arguments.command,
                arguments.job or scratch,
                arguments.cache,
                cwd=os.getcwd(),
                seconds=arguments.seconds,
                node_mib=node_mib,
                kernel=arguments.kernel,
                cpu=arguments.cpu,
            )
        except GuestError as error:
            print("guest.py: %s" % error, file=sys.stderr)
            return 125
    sys.stdout.write(result.out)
    sys.stderr.write(result.err)
    return result.status


if __name__ == "__main__":
    sys.exit(main())
