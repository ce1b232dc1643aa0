"""Boots an image as a virtual machine: Debian's kernel and initramfs under QEMU.

No KVM is asked for, so that it works, and takes as long, everywhere. The first
process is the tests' own agent (tests/agent/agent.c), which reports on the
console and powers off.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

AGENT_SOURCE = Path(__file__).resolve().parents[2] / "agent" / "agent.c"

#: The agent leaves this file behind.
LEFT_BEHIND = "/agent-was-here"

#: What Debian's initramfs moves its mounts onto.
MOUNT_POINTS = ("dev", "proc", "sys", "run")


@dataclass(frozen=True)
class Booted:
    """What a machine said until it was off."""

    console: str
    seconds: float

    @property
    def agent(self) -> list[str]:
        """The agent's lines."""
        lines = self.console.replace("\r", "").splitlines()
        return [line.partition("agent: ")[2] for line in lines if "agent: " in line]


def kernel() -> tuple[Path, Path] | None:
    """The newest Debian kernel for virtual machines with its initramfs."""
    for image in sorted(Path("/boot").glob("vmlinuz-*-cloud-*"), reverse=True):
        initrd = image.with_name(image.name.replace("vmlinuz-", "initrd.img-"))
        if os.access(image, os.R_OK) and os.access(initrd, os.R_OK):
            return image, initrd
    return None


def missing() -> str | None:
    """What is not there to boot with, or None."""
    if shutil.which("qemu-system-x86_64") is None:
        return "qemu-system-x86_64 (Debian: qemu-system-x86)"
    if kernel() is None:
        return "a readable /boot/vmlinuz-*-cloud-* with its initrd (Debian: linux-image-cloud-amd64)"
    return missing_compiler()


def missing_compiler() -> str | None:
    """What is not there to make the agent with, or None."""
    return None if shutil.which("cc") else "a C compiler for the agent (Debian: gcc libc6-dev)"


def build_agent(folder: Path) -> Path:
    """The agent, compiled and static, below `folder`."""
    digest = hashlib.sha256(AGENT_SOURCE.read_bytes()).hexdigest()[:16]
    agent = folder / f"vm-agent-{digest}"
    if not agent.exists():
        scratch = agent.with_suffix(f".{os.getpid()}")
        command = ["cc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-static"]
        subprocess.run([*command, "-o", str(scratch), str(AGENT_SOURCE)], check=True)
        scratch.rename(agent)
    return agent


def boot(
    image: Path,
    hashes: Sequence[str] = (),
    *,
    grow: bool = False,
    runs: Sequence[str] = (),
    timeout: float = 180,
) -> Booted:
    """Starts a machine from `image`, which it may write to, and waits until it is off.

    `hashes` are paths inside the image whose SHA-256 the agent is to tell; with `grow` it
    makes the file system as large as the disk. `runs` are programs inside the image that it runs;
    what they say is in the console.
    """
    found = kernel()
    assert found is not None, missing()
    words = ["console=ttyS0", "root=/dev/vda", "rw", "init=/sbin/vm-agent", "quiet"]
    # Whatever goes wrong ends the machine at once instead of waiting for a hand.
    words += ["panic=-1", "rootdelay=5"]
    words += [f"agent.hash={path}" for path in hashes]
    words += ["agent.grow"] if grow else []
    words += [f"agent.run={path}" for path in runs]
    command = ["qemu-system-x86_64", "-accel", "tcg", "-m", "512", "-no-reboot", "-nic", "none"]
    command += ["-display", "none", "-monitor", "none", "-serial", "stdio"]
    command += ["-kernel", str(found[0]), "-initrd", str(found[1]), "-append", " ".join(words)]
    command += ["-drive", f"file={image},format=raw,if=virtio,cache=unsafe"]
    begin = time.monotonic()
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        said = (error.stdout or b"").decode(errors="replace")
        raise TimeoutError(f"{image} was not off after {timeout} s; console:\n{said}") from error
    console = done.stdout.decode(errors="replace")
    assert done.returncode == 0, f"QEMU ended with {done.returncode}:\n{console}"
    return Booted(console, time.monotonic() - begin)
