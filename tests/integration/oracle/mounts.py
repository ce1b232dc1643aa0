"""Mounts of chains, images and stores, each undone whatever happens."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from integration.oracle import kernel

#: How each file system that can hold a store is made, and its mount options.
#: xattrs in the inode stay at their default; xfs takes no less than 300 MiB.
MKFS: dict[str, list[str]] = {
    "ext4": ["mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=1"],
    # Takes values of more than a block, as xfs does.
    "ext4-ea_inode": ["mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=1", "-O", "ea_inode"],
    "xfs": ["mkfs.xfs", "-q", "-f", "-l", "size=64m"],
    "btrfs": ["mkfs.btrfs", "-q", "-f"],
}


def kind(fs: str) -> str:
    """The kernel's name of the file system of a store."""
    return fs.partition("-")[0]


@contextmanager
def overlay(
    layers: Sequence[Path],
    *,
    userxattr: bool = False,
    metacopy: bool = False,
    options: str = "",
) -> Iterator[Path]:
    """The kernel's own merged view of ``layers`` (base first), read only.

    ``index=off`` is what dockerd, containerd and containers/storage mount
    with. The layers are named by short relative links, because the kernel
    takes 4096 bytes of options and a chain can have 500 layers.
    """
    with tempfile.TemporaryDirectory(prefix="overlay-") as name:
        scratch = Path(name)
        links = scratch / "l"
        links.mkdir()
        target = scratch / "merged"
        target.mkdir()
        stack = list(reversed(layers))
        empty: Path | None = None
        if len(stack) == 1:
            # The kernel refuses one lower without an upper. The second is
            # made in the store, so that all is one file system as in Docker.
            empty = Path(tempfile.mkdtemp(prefix=".empty-", dir=layers[0].parent))
            stack.append(empty)
        for number, layer in enumerate(stack):
            (links / str(number)).symlink_to(layer.resolve())
        data = "index=off"
        data += ",userxattr" if userxattr else ""
        data += ",metacopy=on" if metacopy else ""
        data += f",{options}" if options else ""
        data += ",lowerdir=" + ":".join(str(n) for n in range(len(stack)))
        here = os.open(".", os.O_PATH | os.O_DIRECTORY)
        try:
            os.chdir(links)
            try:
                kernel.mount("overlay", target, "overlay", kernel.MS_RDONLY, data)
            finally:
                os.fchdir(here)
            try:
                yield target
            finally:
                kernel.unmount(target)
        finally:
            os.close(here)
            if empty is not None:
                empty.rmdir()


@contextmanager
def upper(
    layers: Sequence[Path], directory: Path, *, userxattr: bool = False, options: str = ""
) -> Iterator[Path]:
    """A writable overlay as a container has it: changes land in ``directory``."""
    with tempfile.TemporaryDirectory(prefix="upper-") as name:
        target = Path(name)
        work = Path(tempfile.mkdtemp(prefix=".work-", dir=directory.parent))
        lower = ":".join(str(layer) for layer in reversed(layers))
        data = f"index=off,lowerdir={lower},upperdir={directory},workdir={work}"
        data += ",userxattr" if userxattr else ""
        data += f",{options}" if options else ""
        try:
            kernel.mount("overlay", target, "overlay", 0, data)
            try:
                yield target
            finally:
                kernel.unmount(target)
        finally:
            shutil.rmtree(work)


@contextmanager
def image(path: Path) -> Iterator[Path]:
    """The kernel's ext4 view of an image, through a read-only loop device.

    Not ``noload``: a journal that asks for recovery must be noticed, and on a
    read-only device the kernel then refuses the mount.
    """
    with tempfile.TemporaryDirectory(prefix="image-") as name:
        target = Path(name) / "root"
        target.mkdir()
        with kernel.loop_device(path) as device:
            kernel.mount(device, target, "ext4", kernel.MS_RDONLY, "errors=continue")
            state = Path("/sys/fs/ext4") / Path(device).name
        try:
            yield target
            # What the kernel only writes into its log must not be overlooked.
            for name in ("errors_count", "warning_count"):
                count = int((state / name).read_text())
                assert count == 0, f"{path}: kernel ext4 counts {count} in {name}"
        finally:
            kernel.unmount(target)


@contextmanager
def writable(path: Path, options: str = "") -> Iterator[Path]:
    """An image mounted as ext4, for writing."""
    with tempfile.TemporaryDirectory(prefix="writable-") as name:
        target = Path(name) / "root"
        target.mkdir()
        with kernel.loop_device(path, writable=True) as device:
            kernel.mount(device, target, "ext4", 0, options)
        try:
            yield target
        finally:
            kernel.unmount(target)


@contextmanager
def loop_store(fs: str, scratch: Path, *, size: int = 4 << 30) -> Iterator[Path]:
    """A fresh file system of the given kind on a loop device, read-write."""
    backing = scratch / f"store-{fs}.img"
    target = scratch / f"store-{fs}"
    target.mkdir()
    with backing.open("xb") as file:
        file.truncate(size)
    try:
        subprocess.run([*MKFS[fs], str(backing)], check=True, capture_output=True)
        with kernel.loop_device(backing, writable=True) as device:
            kernel.mount(device, target, kind(fs), kernel.MS_NOATIME)
        try:
            yield target
        finally:
            kernel.unmount(target)
    finally:
        backing.unlink()
        target.rmdir()


@contextmanager
def tmpfs(scratch: Path, *, size: str) -> Iterator[Path]:
    """A tmpfs of the given size."""
    target = Path(tempfile.mkdtemp(prefix="tmpfs-", dir=scratch))
    kernel.mount("tmpfs", target, "tmpfs", 0, f"size={size},mode=0755")
    try:
        yield target
    finally:
        kernel.unmount(target)
        target.rmdir()


def missing_tools(fs: str) -> str | None:
    """What this machine lacks for stores of that kind, or None."""
    tool = MKFS[fs][0]
    if shutil.which(tool, path=f"{os.environ.get('PATH', '')}:/sbin:/usr/sbin") is None:
        return f"{tool} is not installed"
    known = Path("/proc/filesystems").read_text().split()
    if kind(fs) not in known and shutil.which("modprobe"):
        subprocess.run(["modprobe", kind(fs)], capture_output=True, check=False)
        known = Path("/proc/filesystems").read_text().split()
    return None if kind(fs) in known else f"this kernel has no {kind(fs)}"
