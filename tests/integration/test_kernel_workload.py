"""The kernel works inside images of each profile and block size; e2fsck is silent afterwards."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from integration.conftest import Judge, Stores
from integration.oracle import core, judge, mounts
from integration.oracle.compare import differences, report
from integration.oracle.dump import dump
from integration.oracle.layer import RICH_ACL, Chain

pytestmark = pytest.mark.root

BLOCK_SIZES = (1024, 2048, 4096)
WRITABLE = ("default", "compat")
FREE = 48 << 20
#: What ENOSPC is called.
NO_ROOM = "No space left on device"


def made(store: Path) -> list[Path]:
    """Layers with something of each kind that a block size matters to."""
    chain = Chain(store / "chain", "ext4")
    base, top = chain.two()
    numbers = random.Random(3)
    for number in range(700):
        layer = top if number % 3 else base
        layer.file(f"d{number % 7}/{number:0100}", numbers.randbytes(numbers.randrange(5000)))
    for size in (1, 1023, 1024, 1025, 2048, 4095, 4096, 4097, 65_537):
        base.file(f"size{size}", numbers.randbytes(size))
    base.file("holes", pieces={1025: b"a", 70_000: b"b" * 3000, 5 << 30: b"end"})
    base.file("fragments", pieces={8192 * n: b"%d" % n for n in range(1500)})
    base.file("far", pieces={(4 << 40) - 2048: b"end"})
    top.file("large", numbers.randbytes(10 << 20))
    top.file("value", xattrs={"user.v": b"v" * 1500, "user.w": b"w" * 700})
    top.file("again", xattrs={"user.v": b"v" * 1500, "user.w": b"w" * 700})
    top.file("acl", xattrs={"system.posix_acl_access": RICH_ACL})
    top.symlink("long", "t" * 1000, xattrs={"trusted.x": b"1" * 200})
    top.node("device", "block", 259, 70_000)
    base.file("gone/x")
    top.whiteout("gone")
    return chain.finish()


def work(root: Path, numbers: random.Random) -> None:
    """Creates, writes, links, renames, gives attributes, removes."""
    new = root / "new"
    new.mkdir()
    for number in range(1500):
        path = new / f"{number:060}"
        path.write_bytes(numbers.randbytes(numbers.randrange(3000)))
        if number % 5 == 0:
            os.setxattr(path, "user.a", b"a" * (number % 900))
        if number % 7 == 0:
            os.link(path, root / f"link{number}")
        if number % 3 == 0:
            path.rename(root / "d0" / f"moved{number}")
        elif number % 4 == 0:
            path.unlink()
    for name in os.listdir(root / "d1"):
        (root / "d1" / name).unlink()
    (root / "d1").rmdir()
    (root / "again").unlink()
    os.setxattr(root / "value", "user.v", b"V" * 1500)
    os.truncate(root / "large", 3 << 20)
    with open(root / "holes", "r+b") as file:
        file.seek(1 << 20)
        file.write(b"in the middle")
    for number in range(300):
        (new / f"sub{number}").mkdir()
    os.symlink("x" * 900, new / "symlink")


def fill(root: Path) -> None:
    """Writes until nothing is free, then frees some of it."""
    block = bytes(1 << 20)
    with (root / "fill").open("wb", buffering=0) as file, pytest.raises(OSError, match=NO_ROOM):
        while True:
            file.write(block)
    with pytest.raises(OSError, match=NO_ROOM):
        for number in range(100_000):
            (root / f"one{number}").write_bytes(b"x" * 5000)
    (root / "one0").unlink(missing_ok=True)


@pytest.mark.parametrize("block_size", BLOCK_SIZES)
@pytest.mark.parametrize("profile", WRITABLE)
def test_the_kernel_works_in_it(
    profile: str, block_size: int, stores: Stores, tmp_path: Path, judge_image: Judge
) -> None:
    layers = made(stores("ext4"))
    image = tmp_path / "image.ext4"
    built = core.build(layers, image, profile=profile, block_size=block_size, free_space=FREE)
    assert built.block_size == block_size
    judge_image(image)
    with mounts.overlay(layers) as merged, mounts.image(image) as mounted:
        assert os.statvfs(mounted).f_bsize == block_size
        # f_bavail is less: the kernel keeps some for itself.
        assert os.statvfs(mounted).f_bfree * block_size >= FREE
        lines = differences(dump(merged), dump(mounted))
    assert not lines, report(lines)
    with mounts.writable(image) as mounted:
        work(mounted, random.Random(4))
        os.sync()
    judge_image(image)
    with mounts.writable(image) as mounted:
        fill(mounted)
    judge_image(image)


@pytest.mark.parametrize("block_size", BLOCK_SIZES)
def test_nothing_is_free_in_a_readonly_image(
    block_size: int, stores: Stores, tmp_path: Path, judge_image: Judge
) -> None:
    layers = made(stores("ext4"))
    image = tmp_path / "image.ext4"
    built = core.build(layers, image, profile="readonly", block_size=block_size)
    assert built.free_blocks == 0
    judge_image(image)
    with mounts.overlay(layers) as merged, mounts.image(image) as mounted:
        assert os.statvfs(mounted).f_bfree == 0
        lines = differences(dump(merged), dump(mounted))
    assert not lines, report(lines)
    # It can be mounted read-write, and then there is room for nothing.
    with mounts.writable(image) as mounted:
        with pytest.raises(OSError, match=NO_ROOM):
            (mounted / "size1").write_bytes(bytes(200_000))
            os.sync()
        with pytest.raises(OSError, match=NO_ROOM):
            (mounted / "directory").mkdir()
    judge_image(image)


@pytest.mark.parametrize("block_size", [1024, 2048])
def test_grown_offline(
    block_size: int, stores: Stores, tmp_path: Path, releases: list[judge.E2fsprogs], judge_image: Judge
) -> None:
    """The reserved descriptors of small blocks are where resize2fs looks for them."""
    layers = made(stores("ext4"))
    for tools in releases:
        image = tmp_path / f"{tools.version}.ext4"
        core.build(layers, image, block_size=block_size)
        os.truncate(image, 4 << 30)
        done = tools.run("resize2fs", str(image))
        assert done.returncode == 0, done.stderr
        judge_image(image)
