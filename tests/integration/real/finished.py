"""Finished images by several makers, and what e2fsprogs and the kernel say of them."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import layermelt

PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


def program(name: str) -> str:
    """One of e2fsprogs' programs."""
    found = shutil.which(name, path=PATH)
    assert found is not None, f"{name} is missing"
    return found


def by_layermelt(layer: Path, image: Path) -> None:
    """Our own image of one layer."""
    layermelt.build_rootfs(None, image, layers=[layer], free_space="16M", sync=False)


def by_mke2fs(layer: Path, image: Path) -> None:
    """mke2fs's image of one layer."""
    command = [program("mke2fs"), "-q", "-F", "-t", "ext4", "-d", str(layer), str(image), "24M"]
    subprocess.run(command, check=True, capture_output=True)


MAKERS = {"layermelt": by_layermelt, "mke2fs": by_mke2fs}


def content(image: Path, path: str) -> bytes:
    """A file of the image, as debugfs reads it; it must be a regular one."""
    assert "Type: regular" in status(image, path), status(image, path)
    done = subprocess.run(
        [program("debugfs"), "-R", f"cat {path}", str(image)], capture_output=True, check=True
    )
    return done.stdout


def status(image: Path, path: str) -> str:
    """What debugfs's ``stat`` says; of what is not there, nothing."""
    done = subprocess.run(
        [program("debugfs"), "-R", f"stat {path}", str(image)], capture_output=True, check=True
    )
    return done.stdout.decode()


def names(image: Path, path: str) -> set[str]:
    """The names in a directory of the image."""
    done = subprocess.run(
        [program("debugfs"), "-R", f"ls -p {path}", str(image)], capture_output=True, text=True, check=True
    )
    return {line.split("/")[5] for line in done.stdout.splitlines() if line.count("/") == 7} - {".", "..", ""}


def complaints(image: Path) -> str:
    """What ``e2fsck -fn`` has against it; nothing when it is clean."""
    done = subprocess.run([program("e2fsck"), "-fn", str(image)], capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 and "WARNING" not in done.stdout else done.stdout + done.stderr


def loop_devices(folder: Path) -> list[str]:
    """The loop devices over files in `folder`, of all mount namespaces."""
    found = []
    for entry in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            backing = entry.read_text().strip()
        except OSError:
            # Released meanwhile.
            continue
        if backing.startswith(f"{folder}/"):
            found.append(f"{entry.parts[3]} has {backing}")
    return found


def mounts_of_all() -> set[str]:
    """Every mount of every process that is about loop devices or ours."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*/mountinfo"):
        try:
            lines = entry.read_text().splitlines()
        except OSError:
            continue
        found |= {line.split(" ", 2)[2] for line in lines if "/dev/loop" in line or "layermelt" in line}
    return found


def processes(words: bytes) -> list[bytes]:
    """The command lines of running processes that hold these words."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = entry.read_bytes()
        except OSError:
            continue
        if words in command:
            found.append(command)
    return found


def await_end(words: bytes) -> None:
    """Until none of those is left: the kernel ends a namespace's processes a moment after its first."""
    end = time.monotonic() + 20
    while left := processes(words):
        assert time.monotonic() < end, left
        time.sleep(0.002)
