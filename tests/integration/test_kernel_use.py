"""An image is a file system that one can live in, not only look at."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from integration.conftest import Judge, Stores
from integration.oracle import judge, kernel, mounts, product
from integration.oracle.compare import differences, report
from integration.oracle.dump import dump
from integration.oracle.layer import Chain

pytestmark = pytest.mark.root

#: What images of the default profile are made of: no more, or old kernels and
#: old e2fsprogs refuse them.
FEATURES = {
    *("has_journal", "ext_attr", "resize_inode", "dir_index", "filetype", "extent", "64bit"),
    *("flex_bg", "sparse_super", "large_file", "huge_file", "dir_nlink", "extra_isize"),
    "metadata_csum",
}


@pytest.fixture
def image(stores: Stores, tmp_path: Path) -> Path:
    """An image of a small tree."""
    chain = Chain(stores("ext4") / "chain", "ext4")
    base, top = chain.two()
    for number in range(300):
        base.file(f"d{number % 3}/{number}", b"data" * number)
    base.symlink("d0/link", "1")
    base.file("shared1", xattrs={"user.big": b"b" * 2000})
    base.file("shared2", xattrs={"user.big": b"b" * 2000})
    top.whiteout("d1")
    output = tmp_path / "image.ext4"
    product.build(chain.finish(), output)
    return output


@contextmanager
def writable(path: Path, scratch: Path) -> Iterator[tuple[Path, str]]:
    """The image mounted read-write; its mount point and its device."""
    target = scratch / "writable"
    target.mkdir()
    with kernel.loop_device(path, writable=True) as device:
        kernel.mount(device, target, "ext4")
    try:
        yield target, device
    finally:
        kernel.unmount(target)
        target.rmdir()


def test_features_are_those_of_the_profile(image: Path) -> None:
    found = judge.superblock(image)
    assert set(found["Filesystem features"].split()) == FEATURES
    assert found["Reserved block count"] == "0"
    assert found["Filesystem state"] == "clean"
    assert found["Block size"] == "4096"
    assert found["Inode size"] == "256"


def test_all_times_are_the_mtime(image: Path) -> None:
    """A layer carries no others."""
    with mounts.image(image) as mounted:
        for directory, names, files in os.walk(mounted):
            for name in [*names, *files, "."]:
                status = os.stat(os.path.join(directory, name), follow_symlinks=False)
                assert status.st_ctime_ns == status.st_mtime_ns, name
                assert status.st_atime_ns == status.st_mtime_ns, name


def test_written_to_by_the_kernel(image: Path, tmp_path: Path, judge_image: Judge) -> None:
    numbers = random.Random(5)
    with writable(image, tmp_path) as (mounted, _):
        shutil.rmtree(mounted / "d2")
        (mounted / "shared1").unlink()
        os.setxattr(mounted / "shared2", "user.more", b"m" * 500)
        for number in range(2000):
            (mounted / "d0" / f"new{number}").write_bytes(b"n" * numbers.randrange(9000))
        (mounted / "big").write_bytes(numbers.randbytes(30 << 20))
        (mounted / "lost+found" / "x").touch()
        for number in range(0, 2000, 2):
            (mounted / "d0" / f"new{number}").unlink()
        os.sync()
    judge_image(image)
    with mounts.image(image) as mounted:
        assert (mounted / "d0/3").read_bytes() == b"data" * 3
        assert (mounted / "big").stat().st_size == 30 << 20
        assert not (mounted / "d2").exists()


def test_grown_offline(
    image: Path, releases: list[judge.E2fsprogs], tmp_path: Path, judge_image: Judge
) -> None:
    """By the reserved descriptor blocks: nothing is moved, all stays."""
    with mounts.image(image) as mounted:
        before = dump(mounted)
    for tools in releases:
        grown = tmp_path / f"grown-{tools.version}.ext4"
        shutil.copyfile(image, grown)
        os.truncate(grown, 20 << 30)
        done = tools.run("resize2fs", str(grown))
        assert done.returncode == 0, done.stderr
        judge_image(grown)
        with mounts.image(grown) as mounted:
            space = os.statvfs(mounted)
            lines = differences(before, dump(mounted))
        assert space.f_blocks * space.f_frsize > 19 << 30
        assert not lines, report(lines)


def test_an_image_of_many_groups(stores: Stores, tmp_path: Path, judge_image: Judge) -> None:
    """Inode tables, bitmaps and data of more than one group, and of flex groups."""
    chain = Chain(stores("ext4") / "chain", "ext4")
    base, top = chain.two()
    numbers = random.Random(11)
    # A group has 8,192 inodes and 128 MiB.
    for number in range(9_000):
        layer = top if number % 5 == 0 else base
        layer.file(f"d{number % 97}/e{number % 3}/{number}", b"x" * numbers.randrange(6000))
    block = numbers.randbytes(1 << 20)
    base.file("big", block * 140)
    top.file("d0/big", block * 20)
    for number in range(1, 9_000, 70):
        if number % 5:
            top.whiteout(f"d{number % 97}/e{number % 3}/{number}")
    base.file("far", pieces={9 << 30: b"end"})
    layers = chain.finish()
    output = tmp_path / "image.ext4"
    # Beyond the end of the data: two flex groups that are never touched.
    product.build(layers, output, size=5 << 30)
    judge_image(output)
    with mounts.overlay(layers) as merged, mounts.image(output) as mounted:
        lines = differences(dump(merged), dump(mounted))
    assert not lines, report(lines)
    with writable(output, tmp_path) as (mounted, _):
        for number in range(3000):
            (mounted / f"new{number}").write_bytes(b"n" * 5000)
        os.sync()
    judge_image(output)
