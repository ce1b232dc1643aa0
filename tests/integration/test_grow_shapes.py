"""What ``layermelt grow`` makes of our own images, at borders, and beside what resize2fs makes."""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import layermelt
from integration.conftest import Judge
from integration.oracle import judge
from integration.oracle.judge import superblock
from integration.test_grow import MAKES, G, K, M, digests, grow, make, numbers
from integration.test_kernel_use import writable


@pytest.fixture
def layer(tmp_path: Path) -> Path:
    """Some files, one of them in many pieces."""
    dice = random.Random(3)
    folder = tmp_path / "layer"
    (folder / "d").mkdir(parents=True)
    for number in range(60):
        (folder / f"d/{number}").write_bytes(dice.randbytes(dice.randrange(20_000)))
    with (folder / "sparse").open("wb") as file:
        for number in range(40):
            file.seek(number * 3 * 4096)
            file.write(dice.randbytes(4096))
    return folder


def fill(mounted: Path) -> int:
    """Takes all blocks, writing but few of them; bytes taken."""
    taken = 0
    for number, size in enumerate((G, 16 * M, M, 64 * K)):
        with (mounted / f"filler{number}").open("wb") as file, contextlib.suppress(OSError):
            while True:
                os.posix_fallocate(file.fileno(), os.fstat(file.fileno()).st_size, size)
        taken += (mounted / f"filler{number}").stat().st_size
    return taken


#: Options of the build, and the size that is grown to in the end.
OURS: dict[str, tuple[dict[str, object], int]] = {
    "auto": ({}, 64 * G),
    "1k": ({"block_size": 1024}, 40 * G),
    "2k": ({"block_size": 2048}, 70 * G),
    "compat": ({"profile": "compat"}, 9 * G),
    "compat-1k": ({"profile": "compat", "block_size": 1024}, 3 * G),
    "readonly": ({"profile": "readonly"}, 2 * G),
    "readonly-1k": ({"profile": "readonly", "block_size": 1024}, 2 * G),
    "min": ({"size": "min"}, 2 * G),
    "min-1k": ({"size": "min", "block_size": 1024}, 3 * G),
    "reserved": ({"reserved": "40M", "free_space": "80M"}, 9 * G),
    "no-journal": ({"journal": "none"}, 9 * G),
    "journal-1k": ({"journal": "4M", "block_size": 1024, "free_space": "20M"}, 9 * G),
}


@pytest.mark.root
@pytest.mark.parametrize("name", OURS)
def test_ours(name: str, layer: Path, tmp_path: Path, judge_image: Judge) -> None:
    """To the border of a group, a block past it, a group on; and the kernel fills what is new."""
    options, size = OURS[name]
    image = tmp_path / "image"
    layermelt.build_rootfs(None, image, layers=[layer], sync=False, **options)  # type: ignore[arg-type]
    block = int(superblock(image)["Block size"])
    group = 8 * block * block
    files = digests(layer)
    border = -(-(image.stat().st_size + 1) // group) * group + (K if block == K else 0)
    last = layermelt.grow_image(image, "+0").old
    for target in (border, border + block, border + group, border + 5 * group):
        report = grow(image, target)
        judge_image(image)
        assert report.old == last, target
        last = report.new
        # A block past a border is of no use.
        assert report.new.size == (border if target == border + block else target), target
    with writable(image, tmp_path) as (mounted, _):
        free = os.statvfs(mounted).f_bavail * block
        assert fill(mounted) > free * 0.99 - M
        assert files.items() <= digests(mounted).items()
        for number in range(4):
            (mounted / f"filler{number}").unlink()
    judge_image(image)
    report = grow(image, size)
    judge_image(image)
    assert report.new.size > size - group
    assert image.stat().st_blocks * 512 < 200 * M
    with writable(image, tmp_path) as (mounted, _):
        assert files.items() <= digests(mounted).items()
        (mounted / "written").write_bytes(b"w")
        if size < 10 * G:
            free = os.statvfs(mounted).f_bavail * block
            assert fill(mounted) > free * 0.99 - M
    judge_image(image)


BESIDE = {
    **{name: MAKES[name] for name in ("default", "1k", "uninit_bg", "no-flex_bg", "no-checksums")},
    "reserved": "-b 2048 -m 30",
}


def beside(name: str, size: int, tmp_path: Path, tools: judge.E2fsprogs) -> tuple[Path, Path]:
    """The same image, grown by us and by resize2fs."""
    ours = make(tmp_path / "ours", 20 * M, BESIDE[name])
    theirs = tmp_path / "theirs"
    shutil.copyfile(ours, theirs)
    grow(ours, size)
    done = tools.run("resize2fs", "-f", str(theirs), f"{size // 1024}K")
    assert done.returncode == 0, done.stderr
    return ours, theirs


@pytest.mark.parametrize("name", BESIDE)
def test_borders_as_resize2fs_has_them(name: str, tmp_path: Path, tools: judge.E2fsprogs) -> None:
    """A last group is left out unless it holds 50 blocks beside its own."""
    image = make(tmp_path / "ours", 20 * M, BESIDE[name])
    found = superblock(image)
    block, per_group = int(found["Block size"]), int(found["Blocks per group"])
    first, table = int(found["First block"]), int(found["Inode blocks per group"])
    reserved = int(found.get("Reserved GDT blocks", 0))
    # Groups 1 (with a copy of the superblock) and 4 (without), the last but for 0.
    for group, own in ((1, 1 + 1 + reserved + 2 + table), (4, 2 + table)):
        border = first + group * per_group
        for more in (0, 1, own + 49, own + 50, per_group - 1, per_group):
            size = (border + more) * block
            if size < 20 * M:
                continue
            ours, theirs = beside(name, size, tmp_path, tools)
            assert numbers(ours) == numbers(theirs), (group, more)


@pytest.mark.parametrize("name", BESIDE)
def test_superblock_beside_resize2fs(name: str, tmp_path: Path, tools: judge.E2fsprogs) -> None:
    """All fields are the same but for those that are named here."""
    for size in (300 * M, 5 * G):
        ours, theirs = (superblock(path) for path in beside(name, size, tmp_path, tools))
        different = {key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key)}
        share = [int(found["Reserved block count"]) for found in (ours, theirs)]
        # resize2fs computes it in floating point.
        assert abs(share[0] - share[1]) <= 1
        # It uses no journal and drops the overhead, which the kernel then counts without what is
        # reserved for descriptors (mke2fs with). The others come of what was written, and when.
        allowed = {
            *("Journal sequence", "Journal checksum", "Overhead clusters"),
            *("Last write time", "Lifetime writes", "Checksum", "Reserved block count"),
        }
        assert different <= allowed, {key: (ours.get(key), theirs.get(key)) for key in different - allowed}


def groups(image: Path, tools: judge.E2fsprogs) -> list[tuple[str, str, int]]:
    """Each group's first line, its flags and its free inodes."""
    text = tools.run("dumpe2fs", str(image)).stdout.decode()
    found = re.findall(
        r"^Group (\d+): \(Blocks (\S+)\).*?^  \d+ free blocks, (\d+) free inodes",
        text,
        re.MULTILINE | re.DOTALL,
    )
    return [(number, blocks, int(inodes)) for number, blocks, inodes in found]


@pytest.mark.parametrize("name", BESIDE)
def test_groups_beside_resize2fs(name: str, tmp_path: Path, tools: judge.E2fsprogs) -> None:
    ours, theirs = beside(name, 5 * G, tmp_path, tools)
    assert groups(ours, tools) == groups(theirs, tools)
    assert len(groups(ours, tools)) == -(
        -5 * G // int(superblock(ours)["Block size"]) // int(superblock(ours)["Blocks per group"])
    )


@pytest.mark.parametrize("name", ["default", "1k", "uninit_bg", "meta_bg-1k", "no-sparse_super"])
def test_each_backup_restores_it(name: str, tmp_path: Path, tools: judge.E2fsprogs) -> None:
    """The first superblock and all descriptors behind it are lost; a copy has all."""
    image = make(tmp_path / "image", 20 * M, MAKES[name])
    content = random.Random(2).randbytes(300_000)
    (tmp_path / "content").write_bytes(content)
    tools.run("debugfs", "-w", "-R", f"write {tmp_path}/content file", str(image))
    # In two steps: in the second one, blocks of descriptors that do not change get new copies.
    grow(image, 400 * M if name.endswith("1k") else 9 * G)
    grow(image, 1800 * M if name.endswith("1k") else 31 * G)
    found = superblock(image)
    block, per_group = int(found["Block size"]), int(found["Blocks per group"])
    text = tools.run("dumpe2fs", str(image)).stdout.decode()
    backups = [int(at) for at in re.findall(r"Backup superblock at (\d+)", text)]
    assert {at // per_group for at in backups} >= {1, 3, 5, 7, 9, 25, 27, 49, 125, 81 * 3 if block > K else 1}
    # Where descriptors lie in their own groups, a superblock there has none of the older groups behind it.
    meta = int(found.get("First meta block group", 0))
    if meta > 0:
        backups = [at for at in backups if at // per_group < meta * block // 64][::20]
    for at in backups:
        lost = tmp_path / "lost"
        subprocess.run(["cp", "--sparse=always", image, lost], check=True)
        with lost.open("r+b") as file:
            file.seek(1024)
            file.write(bytes(2 * block - (K if block > K else 0)))
        done = tools.run("e2fsck", "-fy", "-b", str(at), "-B", str(block), str(lost))
        assert done.returncode == 1, (at, done.stdout)
        # Not made anew from what is there.
        assert not re.search(rb"UNEXPECTED|Relocat|missing|invalid|corrupt|conflict", done.stdout), at
        assert tools.run("e2fsck", "-fn", str(lost)).returncode == 0, at
        assert numbers(lost) == numbers(image)
        assert tools.run("debugfs", "-R", "cat file", str(lost)).stdout == content
