"""Directories of many names: the kernel finds each by the index, whatever its depth."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from integration.conftest import Judge
from integration.oracle import core, judge, mounts
from integration.oracle.layer import Chain

pytestmark = pytest.mark.root


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Path]:
    """A store of its own: the others have too few inodes."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with mounts.loop_store("ext4", scratch, size=8 << 30) as mounted:
        yield mounted


def made(store: Path, count: int, name: Callable[[int], str], *, directories: bool = False) -> list[Path]:
    """A layer with one directory of so many empty files, or directories."""
    chain = Chain(store / "chain", "ext4")
    layer = chain.layer()
    layer.directory("d")
    fd = os.open(layer.at("d"), os.O_RDONLY)
    try:
        for number in range(count):
            if directories:
                os.mkdir(name(number), dir_fd=fd)
            else:
                os.mknod(name(number), 0o644, dir_fd=fd)
    finally:
        os.close(fd)
    return chain.finish()


def levels(image: Path) -> int:
    """Levels between root and leaves of the index of /d, as debugfs reads it."""
    tools = judge.installed()
    assert tools is not None
    dump = tools.run("debugfs", "-R", "htree_dump /d", str(image)).stdout
    found = re.search(rb"Indirect levels: (\d)", dump)
    assert found is not None, dump[:500]
    return int(found[1])


def look_up_all(image: Path, count: int, name: Callable[[int], str]) -> None:
    """Each name by itself, none that is not there, and the listing has each once."""
    with mounts.image(image) as mounted:
        fd = os.open(mounted / "d", os.O_RDONLY)
        try:
            # Before anything is listed: nothing but the index leads to a name.
            numbers = {os.stat(name(number), dir_fd=fd).st_ino for number in range(count)}
            assert len(numbers) == count
            for number in range(count, count + 500):
                with pytest.raises(FileNotFoundError):
                    os.stat(name(number), dir_fd=fd)
            assert sorted(os.listdir(fd)) == sorted(map(name, range(count)))
        finally:
            os.close(fd)


@pytest.mark.parametrize(
    ("count", "block_size", "length", "depth"),
    [
        pytest.param(300_000, 4096, 20, 1, id="300000"),
        pytest.param(60_000, 4096, 255, 1, id="longest-names"),
        # 123 blocks below the root and 126 below each node, three names a leaf.
        pytest.param(60_000, 1024, 255, 2, id="three-levels"),
    ],
)
def test_every_name_is_found(
    count: int,
    block_size: int,
    length: int,
    depth: int,
    store: Path,
    tmp_path: Path,
    judge_image: Judge,
    releases: list[judge.E2fsprogs],
) -> None:
    def name(number: int) -> str:
        return f"{number:0{length}}"

    layers = made(store, count, name)
    image = tmp_path / "image.ext4"
    core.build(layers, image, block_size=block_size)
    judge_image(image)
    assert levels(image) == depth
    look_up_all(image, count, name)
    with mounts.image(image) as mounted:
        ours = (mounted / "d").stat().st_size
    # e2fsck makes the index anew, and what it makes is no smaller.
    tools = releases[-1]
    again = tmp_path / "again.ext4"
    shutil.copyfile(image, again)
    assert tools.run("e2fsck", "-fyD", str(again)).returncode in (0, 1)
    judge_image(again)
    with mounts.image(again) as mounted:
        assert (mounted / "d").stat().st_size >= ours


def test_more_subdirectories_than_links_are_counted(store: Path, tmp_path: Path, judge_image: Judge) -> None:
    """Beyond 65,000 the number of links is 1 (dir_nlink)."""
    count = 66_000
    layers = made(store, count, str, directories=True)
    image = tmp_path / "image.ext4"
    core.build(layers, image)
    judge_image(image)
    look_up_all(image, count, str)
    with mounts.image(image) as mounted:
        assert (mounted / "d").stat().st_nlink == 1
        assert (mounted / "d/65999").stat().st_nlink == 2
