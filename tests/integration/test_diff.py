"""`layermelt diff` against the kernel: what it says is equal, and what it finds."""

from __future__ import annotations

import os
import random
import struct
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from integration.conftest import Stores
from integration.oracle import chains, mounts, product
from integration.oracle.chains import Case
from integration.oracle.compare import OF_THE_HOST
from layermelt import _core

pytestmark = pytest.mark.root

#: Left out are those that the kernel refuses or shows corrupt, and those in which
#: the overlay's inode numbers mislead about hard links.
CASES = [
    pytest.param(case, id=f"{case.section}-{case.name}")
    for case in chains.load().values()
    if case.refused is None and case.groups is None and case.name != "metacopy_of_another_size"
]


def can_be_imaged(parameter: Any) -> bool:
    """Whether the case can be an image that has all of it."""
    case = parameter.values[0]
    return case.unrepresentable is None and not case.clamped


Side = tuple[str, Sequence[str], bool, bool]


def chain_side(layers: Sequence[Path], *, userxattr: bool = False) -> Side:
    """A chain that lies in no store."""
    return ("chain", [str(layer) for layer in layers], userxattr, False)


def compare(a: Side, b: Side, *, strict: bool = False) -> list[Any]:
    """The differences as the core tells them."""
    told: list[Any] = []
    _core.diff_trees(
        a,
        b,
        ignore=[],
        exclude=[],
        all_names=True,
        strict=strict,
        threads=2,
        tell=told.append,
        progress=None,
    )
    return told


def only_of_the_host(difference: Any) -> bool:
    """Whether it is nothing but attributes that no image can have, of which the build warned."""
    *_, changes = difference
    return bool(changes) and all(
        field == "xattr" and name.startswith(OF_THE_HOST) for field, name, *_ in changes
    )


def image_side(image: Path) -> Side:
    return ("image", [str(image)], False, False)


def directory_side(directory: Path) -> Side:
    return ("directory", [str(directory)], False, False)


@pytest.mark.parametrize("case", CASES)
def test_a_chain_is_what_the_kernel_mounts_of_it(case: Case, stores: Stores) -> None:
    """Our merge against a plain directory that is the kernel's merge."""
    fs = case.stores[0]
    layers, _ = case.build(stores(fs), fs)
    with mounts.overlay(layers, userxattr=case.userxattr, metacopy=case.metacopy) as merged:
        ours = chain_side(layers, userxattr=case.userxattr)
        assert compare(ours, directory_side(merged), strict=True) == []


@pytest.mark.parametrize("case", [case for case in CASES if can_be_imaged(case)])
def test_an_image_is_its_chain_and_what_the_kernel_mounts(case: Case, stores: Stores, tmp_path: Path) -> None:
    """Our image of a chain, read by us, against the chain and against a mount of the image."""
    fs = case.stores[0]
    layers, _ = case.build(stores(fs), fs)
    output = tmp_path / "image.ext4"
    product.build(layers, output, userxattr=case.userxattr)
    told = compare(chain_side(layers, userxattr=case.userxattr), image_side(output))
    assert [one for one in told if not only_of_the_host(one)] == []
    with mounts.image(output) as mounted:
        assert compare(image_side(output), directory_side(mounted), strict=True) == []


@contextmanager
def writable(image: Path, options: str = "") -> Iterator[Path]:
    """The image mounted, to be changed by the kernel."""
    target = image.with_name(f"{image.name}.mounted")
    target.mkdir()
    subprocess.run(["mount", "-o", f"loop,{options}", "-t", "ext4", str(image), str(target)], check=True)
    try:
        yield target
    finally:
        subprocess.run(["umount", str(target)], check=True)
        target.rmdir()


def mke2fs(output: Path, *options: str, source: Path | None = None, size: str = "64M") -> Path:
    """An image that mke2fs made, of a directory if need be."""
    filled = ["-d", str(source)] if source else []
    command = ["mkfs.ext4", "-q", "-F", *options, *filled, str(output), size]
    subprocess.run(command, check=True, capture_output=True)
    return output


def fill(root: Path) -> None:
    """Something of each type, as the kernel writes it."""
    content = random.Random(1)
    for number in range(300):
        directory = root / f"dir{number % 7}/sub{number % 3}"
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / f"file{number}-{'x' * (number % 200)}"
        path.write_bytes(content.randbytes(number * number % 40_000))
        os.chmod(path, content.randrange(0o10000))
        os.chown(path, content.randrange(1 << 32) - 1 & 0x7FFFFFFF, content.randrange(70_000))
        os.utime(path, ns=(0, content.randrange(-(1 << 31) * 10**9, (1 << 31) * 10**9)))
    (root / "dir0/fast").symlink_to("x" * 59)
    (root / "dir0/slow").symlink_to("y" * 900)
    os.link(root / "dir0/fast", root / "dir1/fast")
    os.mknod(root / "dir1/null", 0o20666, os.makedev(1, 3))
    os.mknod(root / "dir1/large", 0o60600, os.makedev(4000, 70_000))
    os.mkfifo(root / "dir1/fifo")
    for name in ("user.a", "trusted.b", "security.c"):
        os.setxattr(root / "dir2", name, b"value of " + name.encode())
    os.setxattr(root / "dir2/sub2", "user.large", bytes(content.randbytes(900)))
    none = 0xFFFFFFFF
    entries = [(1, 6, none), (2, 7, 1000), (4, 5, none), (16, 7, none), (32, 1, none)]
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    os.setxattr(root / "dir3", "system.posix_acl_access", acl)
    os.setxattr(root / "dir3", "system.posix_acl_default", acl)
    with (root / "sparse").open("wb") as file:
        for at in (0, 13_000, 400_000, 5_000_000, 300_000_000):
            file.seek(at)
            file.write(content.randbytes(5_000))
        file.truncate(1 << 30)
    with (root / "unwritten").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, 1_000_000)
        os.pwrite(file.fileno(), b"some", 500_000)
    (root / "many").mkdir()
    for number in range(700):
        (root / f"many/{number:0240}").touch()


FORMATS = {
    "default": [],
    "1k": ["-b", "1024"],
    "2k-128": ["-b", "2048", "-I", "128"],
    "ext3": ["-t", "ext3"],
    "ext2": ["-t", "ext2", "-b", "1024"],
    "inline": ["-O", "inline_data", "-I", "512"],
    "ea-inode": ["-O", "ea_inode,large_dir"],
    "no-filetype": ["-O", "^filetype,^dir_index,^metadata_csum"],
    "bigalloc": ["-O", "bigalloc"],
    "meta-bg": ["-O", "meta_bg,^resize_inode,^64bit,^metadata_csum"],
    "csum-seed": ["-O", "metadata_csum_seed"],
}


@pytest.mark.parametrize("options", FORMATS.values(), ids=FORMATS)
def test_what_the_kernel_wrote_is_what_it_shows(options: list[str], tmp_path: Path) -> None:
    output = tmp_path / "image"
    # What was never written must not show: the disk is full of something.
    with output.open("wb") as file:
        for _ in range(96):
            file.write(b"stale..." * (1 << 17))
    mke2fs(output, *options, "-E", "nodiscard", size="96M")
    with writable(output) as mounted:
        fill(mounted)
        if "inline" in " ".join(options):
            for size in range(0, 300, 7):
                (mounted / f"inline{size}").write_bytes(b"i" * size)
                (mounted / f"inlinedir{size}").mkdir()
                for number in range(size // 40):
                    (mounted / f"inlinedir{size}/n{number}").touch()
        if "ea_inode" in " ".join(options):
            os.setxattr(mounted / "dir4", "user.huge", os.urandom(50_000))
    with mounts.image(output) as mounted:
        told = compare(image_side(output), directory_side(mounted), strict=True)
        assert told == []


def test_inline_data_that_ends_before_the_file(tmp_path: Path) -> None:
    """Older kernels leave it where a small file is made longer; e2fsck has nothing against it."""
    output = mke2fs(tmp_path / "image", "-O", "inline_data")
    with writable(output) as mounted:
        for name, size in (("short", 30), ("long", 150)):
            (mounted / name).write_bytes(b"i" * size)
    for command in ("sif /short size 4000", "sif /long size 300000"):
        subprocess.run(["debugfs", "-w", "-R", command, output], check=True, capture_output=True)
    assert subprocess.run(["e2fsck", "-fn", output], check=False, capture_output=True).returncode == 0
    with mounts.image(output) as mounted:
        assert (mounted / "short").read_bytes() == b"i" * 30 + bytes(3970)
        assert (mounted / "long").read_bytes() == b"i" * 150 + bytes(299_850)
        assert compare(image_side(output), directory_side(mounted), strict=True) == []
