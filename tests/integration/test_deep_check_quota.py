"""check_image(deep=True) compares quota files with what is in use, as e2fsck does."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from integration.corrupt import Image
from integration.oracle import judge, mounts
from layermelt import check_image

ALL = "-O quota,project -E quotatype=usrquota:grpquota:prjquota"
LAYOUTS = (
    f"-t ext4 {ALL}",
    f"-t ext4 -b 1024 {ALL}",
    f"-t ext4 -O bigalloc -C 16384 {ALL}",
    f"-t ext4 -O ea_inode {ALL}",
    f"-t ext4 -O inline_data {ALL}",
    "-t ext4 -O quota",
    "-t ext4 -O quota -I 128",
    "-t ext4 -O quota -E quotatype=grpquota",
    "-t ext4 -O quota,^extent,^64bit",
)
#: What e2fsck says of a user, group or project; and of none of ours.
WRONG = re.compile(
    rb"Usage inconsistent for ID (\d+):actual \((\d+), (\d+)\) != expected \((\d+), (\d+)\)"
    rb"|Missing quota entry ID (-?\d+)"
)
OURS = re.compile(
    r"\w+ (\d+) has (\d+) inodes with (\d+) bytes; the \w+' quota tells (\d+) with (\d+)"
    r"|\w+ (\d+) has inodes, but no entry in the \w+' quota"
)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of more users than a leaf of the file has room for."""
    tree = tmp_path_factory.mktemp("owners") / "tree"
    (tree / "d").mkdir(parents=True)
    for number in range(20):
        file = tree / "d" / f"{number}"
        file.write_bytes(b"f" * 700 * number)
        os.chown(file, number * 10_007 % 4_294_967_291, number // 3)
    os.chown(tree / "d" / "19", 4_294_967_290, 0)
    os.symlink("t" * 70, tree / "long")
    os.chown(tree / "long", 77, 77, follow_symlinks=False)
    os.mkfifo(tree / "fifo")
    for name in ("d/3", "d/4"):
        os.setxattr(tree / name, "user.shared", b"s" * 600)
    return tree


def mke2fs(path: Path, options: str, tree: Path) -> None:
    options = options if "-b " in options else f"-b 4096 {options}"
    command = ["mke2fs", "-q", "-F", *options.split(), "-d", str(tree), str(path), "32M"]
    subprocess.run(command, check=True, capture_output=True)


def by_e2fsck(image: Path, tools: judge.E2fsprogs) -> list[tuple[int, ...]]:
    """Numbers of all that differs, sorted."""
    said = tools.run("e2fsck", "-fn", str(image)).stderr
    told: list[tuple[int, ...]] = []
    for match in WRONG.finditer(said):
        if match[6] is not None:
            told.append((int(match[6]) % 2**32,))
            continue
        id_, space, inodes, told_space, told_inodes = (int(number) for number in match.groups()[:5])
        told.append((id_, inodes, space, told_inodes, told_space))
    return sorted(told)


def by_us(image: Path) -> list[tuple[int, ...]]:
    report = check_image(image, deep=True)
    assert report.more_problems == 0
    told = []
    for problem in report.problems:
        match = OURS.fullmatch(problem.text)
        assert match is not None, problem
        assert problem.code == ("quota-missing" if match[6] else "quota-usage")
        told.append(tuple(int(number) for number in match.groups() if number is not None))
    return sorted(told)


@pytest.mark.root
@pytest.mark.parametrize("options", LAYOUTS)
def test_usage_is_compared_as_by_e2fsck(
    options: str, tree: Path, tmp_path: Path, releases: list[judge.E2fsprogs]
) -> None:
    image = tmp_path / "image"
    # mke2fs writes the quota before the files, so that all of it is wrong.
    mke2fs(image, options, tree)
    told = by_us(image)
    assert len(told) > 5
    for tools in releases:
        assert by_e2fsck(image, tools) == told
    assert releases[0].run("e2fsck", "-fy", str(image)).returncode == 1
    assert releases[0].run("e2fsck", "-fn", str(image)).returncode == 0
    assert check_image(image, deep=True).problems == ()


@pytest.mark.root
@pytest.mark.parametrize("features", ["ea_inode", "bigalloc -b 1024 -C 8192", "inline_data -I 1024"])
def test_files_of_the_kernel_are_counted_as_by_e2fsck(
    features: str, tree: Path, tmp_path: Path, releases: list[judge.E2fsprogs]
) -> None:
    image = tmp_path / "image"
    mke2fs(image, f"-t ext4 -O {features}", tree)
    # Few kernels have the quota itself: the files are theirs, the quota is tune2fs's.
    with mounts.writable(image) as mount:
        for number in range(300):
            file = mount / "d" / f"more-{number}"
            file.write_bytes(b"m" * 50 * number)
            os.chown(file, number * 7919, number % 5)
        (mount / "d" / "8").unlink()
        for name in ("more-1", "more-2"):
            os.setxattr(mount / "d" / name, "user.block", b"B" * 900)
            if "ea_inode" in features:
                os.setxattr(mount / "d" / name, "user.large", b"L" * 9000)
    kinds = "usrquota,grpquota,prjquota"
    subprocess.run(["tune2fs", "-O", "quota,project", "-Q", kinds, image], check=True, capture_output=True)
    for name, project in (("7", 4711), ("more-9", 4711), ("more-10", 5)):
        command = f"set_inode_field /d/{name} projid {project}"
        subprocess.run(["debugfs", "-w", "-R", command, image], check=True, capture_output=True)
    told = by_us(image)
    assert len(told) >= 3
    for tools in releases:
        assert by_e2fsck(image, tools) == told
    assert releases[0].run("e2fsck", "-fy", str(image)).returncode == 1
    for tools in releases:
        assert tools.run("e2fsck", "-fn", str(image)).returncode == 0
    assert check_image(image, deep=True).problems == ()


def _header(image: Image, at: int, value: int) -> None:
    image.put(image.block_of("<3>", 0) + at, value, 4)


def _tree_block(image: Image) -> int:
    """The byte of the first reference in the tree's root."""
    return image.block_of("<3>", 1024 // image.block_size) + 1024 % image.block_size


def _leaf(image: Image) -> int:
    """The byte of the first leaf, of user 0: a hundred of users share it or not."""
    block = 1
    for _ in range(4):
        block = image.u32(image.block_of("<3>", block))
    return image.block_of("<3>", block) + 16


def _entry(at: int, value: int) -> Callable[[Image], None]:
    def change(image: Image) -> None:
        image.put(_leaf(image) + at, value, 8)

    return change


def _root_reference(image: Image) -> None:
    image.put(_tree_block(image) + 4 * 200, 5000, 4)


def _leaf_named_twice(image: Image) -> None:
    image.put(_tree_block(image) + 4 * 200, image.u32(_tree_block(image)), 4)


def _loop(image: Image) -> None:
    for index in range(256):
        image.put(_tree_block(image) + 4 * index, 1, 4)


#: Damage in the file of users, and whether e2fsck minds.
DAMAGE: dict[str, tuple[str, Callable[[Image], None], bool]] = {
    "version": ("quota-file", lambda image: _header(image, 4, 7), True),
    "blocks": ("quota-file", lambda image: _header(image, 20, 0x7FFF_FFFF), True),
    "free-block": ("quota-file", lambda image: _header(image, 24, 0x7FFF_FFFF), True),
    "free-entry": ("quota-file", lambda image: _header(image, 28, 0x7FFF_FFFF), True),
    "reference": ("quota-file", _root_reference, True),
    "space": ("quota-usage", _entry(48, 12345), True),
    "inodes": ("quota-usage", _entry(24, 12345), True),
    "id": ("quota-usage", _entry(0, 999_999), True),
    "loop": ("quota-missing", _loop, True),
    # The kernel does not use such files, which e2fsck does not look at.
    "magic": ("quota-file", lambda image: _header(image, 0, 0xD9C01927), False),
    "free-block-root": ("quota-file", lambda image: _header(image, 24, 1), False),
    "same-again": ("", _leaf_named_twice, False),
}


@pytest.fixture(scope="module")
def right(tree: Path) -> Path:
    image = tree.parent / "right.ext4"
    mke2fs(image, f"-t ext4 -b 1024 {ALL}", tree)
    subprocess.run(["e2fsck", "-fy", image], check=False, capture_output=True)
    return image


@pytest.mark.root
@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_found(name: str, right: Path, tmp_path: Path, releases: list[judge.E2fsprogs]) -> None:
    code, change, minds = DAMAGE[name]
    path = tmp_path / "damaged"
    shutil.copyfile(right, path)
    image = Image(path)
    change(image)
    image.save()
    report = check_image(path, deep=True)
    assert {problem.code for problem in report.problems} >= ({code} if code else set())
    assert report.sound == (not code)
    for tools in releases:
        # A loop costs it minutes.
        if name != "loop":
            assert (tools.run("e2fsck", "-fn", str(path)).returncode != 0) == minds
