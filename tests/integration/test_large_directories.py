"""Directories of many names: the kernel finds each by the index, whatever its depth."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from integration.conftest import Judge
from integration.oracle import core, judge, mounts
from integration.oracle.layer import Chain
from layermelt.cloning import clone_image

pytestmark = pytest.mark.root


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Path]:
    """In memory: what is asked here is the image, and making the layer is most of the work."""
    with mounts.tmpfs(tmp_path, size="4g") as mounted:
        yield mounted


def made(store: Path, count: int, name: Callable[[int], str], *, directories: bool = False) -> list[Path]:
    """A layer with one directory of so many empty files, or directories."""
    chain = Chain(store / "chain", "tmpfs")
    layer = chain.layer()
    layer.directory("d")
    fd = os.open(layer.at("d"), os.O_RDONLY)
    try:
        for number in range(count):
            if directories:
                os.mkdir(name(number), dir_fd=fd)
            else:
                os.mknod(name(number), 0o644, dir_fd=fd)
            # The hash's seed comes from all that is said of the entries.
            os.utime(name(number), ns=(0, 0), dir_fd=fd)
    finally:
        os.close(fd)
    return chain.finish()


def index_of(image: Path) -> str:
    """The index of /d, as debugfs reads it."""
    tools = judge.installed()
    assert tools is not None
    return tools.run("debugfs", "-R", "htree_dump /d", str(image)).stdout.decode("utf-8", "replace")


def levels(index: str) -> int:
    """Levels between root and leaves."""
    found = re.search(r"Indirect levels: (\d)", index)
    assert found is not None, index[:500]
    return int(found[1])


def continued(index: str) -> list[str]:
    """Hashes that end one block and begin the next one: they are odd."""
    return re.findall(r"^Entry #\d+: Hash 0x([0-9a-f]{7}[13579bdf]), block", index, re.MULTILINE)


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
        # Seven names a leaf, and 251 leaves below the root alone.
        pytest.param(4_000, 2048, 255, 1, id="blocks-of-2048"),
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
    judge_image: Judge,
    releases: list[judge.E2fsprogs],
) -> None:
    def name(number: int) -> str:
        # With this beginning two names of three levels have one hash and lie in
        # two leaves: where that is no more so, another beginning has to be found.
        return f"08{number:0{length - 2}}"

    layers = made(store, count, name)
    image = store / "image.ext4"
    core.build(layers, image, block_size=block_size)
    judge_image(image)
    index = index_of(image)
    assert levels(index) == depth
    assert depth < 2 or continued(index)
    look_up_all(image, count, name)
    with mounts.image(image) as mounted:
        ours = (mounted / "d").stat().st_size
    # e2fsck makes the index anew, and what it makes is no smaller.
    tools = releases[-1]
    again = store / "again.ext4"
    clone_image(image, again)
    assert tools.run("e2fsck", "-fyD", str(again)).returncode in (0, 1)
    judge_image(again)
    with mounts.image(again) as mounted:
        assert (mounted / "d").stat().st_size >= ours


def test_more_subdirectories_than_links_are_counted(store: Path, judge_image: Judge) -> None:
    """Beyond 65,000 the number of links is 1 (dir_nlink): the kernel itself begins with so many."""
    count = 64_999
    layers = made(store, count, str, directories=True)
    image = store / "image.ext4"
    core.build(layers, image)
    judge_image(image)
    look_up_all(image, count, str)
    with mounts.image(image) as mounted:
        assert (mounted / "d").stat().st_nlink == 1
        assert (mounted / "d/64998").stat().st_nlink == 2
