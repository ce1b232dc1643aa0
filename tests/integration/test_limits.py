"""The ends of what ext4 holds, and of what a chain brings."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import layermelt
from integration.conftest import Judge, Stores
from integration.oracle import core, judge, kernel, mounts, product
from integration.oracle.compare import differences, report
from integration.oracle.dump import dump
from integration.oracle.layer import CAP_NET_RAW, RICH_ACL, Chain, Layer

pytestmark = pytest.mark.root

#: Blocks of a file are numbered with 32 bits, and the last number is taken.
LARGEST = (2**32 - 1) * 4096


@pytest.mark.parametrize("fs", ["ext4", "xfs", "btrfs"])
def test_the_largest_file(fs: str, stores: Stores, tmp_path: Path, judge_image: Judge) -> None:
    """16 TiB less one block, with data at its ends and around 4 GiB."""
    chain = Chain(stores(fs) / "chain", fs)
    base, top = chain.two()
    base.file("largest", pieces={0: b"first", (1 << 32) - 3: b"around", LARGEST - 4: b"last"})
    base.file("hole", size=LARGEST)
    top.file("five", pieces={5 << 30: b"data" * 5000})
    layers = chain.finish()
    output = tmp_path / "image.ext4"
    core.build(layers, output)
    judge_image(output)
    with mounts.overlay(layers) as merged, mounts.image(output) as mounted:
        assert (mounted / "largest").stat().st_size == LARGEST
        lines = differences(dump(merged), dump(mounted))
    assert not lines, report(lines)


@pytest.mark.parametrize("fs", ["xfs", "btrfs"])
def test_a_file_beyond_the_largest(fs: str, stores: Stores, tmp_path: Path) -> None:
    chain = Chain(stores(fs) / "chain", fs)
    layer = chain.layer()
    layer.file("d/beyond", size=LARGEST + 1)
    with pytest.raises(Exception, match=rf"^/d/beyond: a file of {LARGEST + 1} bytes"):
        core.build(chain.finish(), tmp_path / "image.ext4")


#: Sets that fit into an inode, in the order in which ext4 sorts them.
IN_INODE: dict[str, dict[str, bytes]] = {
    "one": {"user.a": b"1"},
    "empty": {"user.empty": b""},
    "odd": {"user.a": b"12345", "user.bb": b"1", "user.ccc": b"1234567"},
    "namespaces": {"user.a": b"u", "trusted.a": b"t", "security.a": b"s"},
    "full": {"user.a": b"x" * 68},
    "capability": {"security.capability": CAP_NET_RAW},
    "acl": {"system.posix_acl_access": RICH_ACL},
}


def test_attributes_lie_in_the_inode_as_the_kernel_puts_them(
    stores: Stores, tmp_path: Path, releases: list[judge.E2fsprogs]
) -> None:
    """Byte by byte: the kernel's ext4 is given the same sets, one by one."""
    chain = Chain(stores("ext4") / "chain", "ext4")
    layer = chain.layer()
    for name, xattrs in IN_INODE.items():
        layer.file(name, xattrs=xattrs)
    ours = tmp_path / "ours.ext4"
    core.build(chain.finish(), ours)
    theirs = tmp_path / "theirs.ext4"
    theirs.touch()
    os.truncate(theirs, 64 << 20)
    subprocess.run(["mkfs.ext4", "-q", theirs], check=True, capture_output=True)
    target = tmp_path / "target"
    target.mkdir()
    with kernel.loop_device(theirs, writable=True) as device:
        kernel.mount(device, target, "ext4")
    try:
        for name, xattrs in IN_INODE.items():
            (target / name).touch()
            for attribute, value in xattrs.items():
                os.setxattr(target / name, attribute, value)
    finally:
        kernel.unmount(target)
    tools = releases[-1]

    def raw(image: Path, name: str) -> bytes:
        dumped = tools.run("debugfs", "-R", f"inode_dump -x /{name}", str(image)).stdout
        assert dumped.count(b"\n") >= 6, dumped
        return dumped

    for name in IN_INODE:
        assert raw(ours, name) == raw(theirs, name), name


@pytest.mark.parametrize("size", [65_535, 65_536])
@pytest.mark.parametrize("fs", ["ext4-ea_inode", "xfs", "btrfs"])
def test_the_longest_value(fs: str, size: int, stores: Stores, tmp_path: Path, judge_image: Judge) -> None:
    if fs == "btrfs":
        size = 16_000  # a value of btrfs fits into one of its nodes
    chain = Chain(stores(fs) / "chain", fs)
    layer = chain.layer()
    layer.file("f", xattrs={"user.v": b"v" * size})
    layer.directory("d", xattrs={"user.v": b"v" * size, "user.w": b"w" * size})
    layer.symlink("s", "target", xattrs={"trusted.v": b"t" * size})
    layer.node("c", "char", 1, 3, xattrs={"trusted.v": b"c" * size})
    layers = chain.finish()
    output = tmp_path / "image.ext4"
    core.build(layers, output)
    judge_image(output)
    with mounts.overlay(layers) as merged, mounts.image(output) as mounted:
        lines = differences(dump(merged), dump(mounted))
    assert not lines, report(lines)


@pytest.fixture(scope="module")
def large_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An xfs of 8 TiB, which has inode numbers of more than 32 bits, and files of 16 TiB."""
    if missing := mounts.missing_tools("xfs"):
        pytest.skip(f"no xfs store: {missing}")
    with mounts.loop_store("xfs", tmp_path_factory.mktemp("large"), size=8 << 40) as mounted:
        yield mounted


def test_inode_numbers_of_64_bits(large_store: Path, tmp_path: Path, judge_image: Judge) -> None:
    """xfs puts directories into its groups by turns, and the group is the number's upper part."""
    chain = Chain(large_store / "chain", "xfs")
    layer = chain.layer()
    low: dict[int, list[int]] = {}
    for number in range(16):
        layer.file(f"d{number}/f", b"%d" % number)
        layer.link(f"d{number}/f", f"d{number}/same")
        found = os.stat(layer.at(f"d{number}/f")).st_ino
        low.setdefault(found & 0xFFFF_FFFF, []).append(found)
    assert any(len(set(numbers)) > 1 for numbers in low.values()), "no two are alike in 32 bits"
    layers = chain.finish()
    output = tmp_path / "image.ext4"
    core.build(layers, output)
    judge_image(output)
    with mounts.overlay(layers) as merged, mounts.image(output) as mounted:
        lines = differences(dump(merged), dump(mounted))
    assert not lines, report(lines)


def test_the_largest_image(large_store: Path) -> None:
    """16 TiB. e2fsck goes through its 131,072 groups in 75 s, silently, and is not asked each time."""
    chain = Chain(large_store / "one", "xfs")
    chain.layer().file("f")
    layers = chain.finish()
    output = large_store / "image.ext4"
    made = core.build(layers, output, size=16 << 40)
    assert made.image_bytes == output.stat().st_size == 16 << 40
    assert judge.own_complaints(output) == []
    with mounts.overlay(layers) as merged, mounts.image(output) as mounted:
        lines = differences(dump(merged), dump(mounted))
        # One for each 16 KiB.
        assert os.statvfs(mounted).f_files == 1 << 30
    assert not lines, report(lines)
    assert output.stat().st_blocks * 512 < 300 << 20
    with pytest.raises(Exception, match=r"an image of \d+ bytes would be larger"):
        core.build(layers, large_store / "larger.ext4", size=(16 << 40) + 4096)


def nodes_of(layer: Layer, directory: str, time: int) -> list[str]:
    """One node of each kind with that mtime; their paths."""
    layer.directory(directory)
    layer.file(f"{directory}/file", mtime=time)
    layer.directory(f"{directory}/directory", mtime=time)
    layer.symlink(f"{directory}/symlink", "t", mtime=time)
    for kind in ("char", "block", "fifo", "socket"):
        layer.node(f"{directory}/{kind}", kind, 1, 3, mtime=time)
    return [f"{directory}/{name}" for name in os.listdir(os.fsdecode(layer.at(directory)))]


@pytest.mark.parametrize("fs", ["xfs", "btrfs"])
def test_times_beyond_ext4_are_the_nearest_ones(
    fs: str, stores: Stores, tmp_path: Path, judge_image: Judge
) -> None:
    chain = Chain(stores(fs) / "chain", fs)
    layer = chain.layer()
    # The end of xfs' own time is in 2486.
    late = nodes_of(layer, "late", 0x3_C000_0000 * 10**9 if fs == "xfs" else 2**40 * 10**9)
    early = [] if fs == "xfs" else nodes_of(layer, "early", -(2**40) * 10**9)
    output = tmp_path / "image.ext4"
    result = product.build(chain.finish(), output)
    (warning,) = result.warnings
    assert f"({len(late) + len(early) - 1} more such)" in warning
    judge_image(output)
    with mounts.image(output) as mounted:
        times = {(mounted / path).lstat().st_mtime_ns for path in late}
        assert times == {0x3_7FFF_FFFF * 10**9}
        assert {(mounted / path).lstat().st_mtime_ns for path in early} <= {-(2**31) * 10**9}


@pytest.mark.parametrize("block_size", [1024, 2048, 4096])
def test_a_tree_of_extents_in_each_block_size(block_size: int, tmp_path: Path, judge_image: Judge) -> None:
    """A node holds 84, 169 or 340 records: more pieces than one of each has."""
    layer, image = tmp_path / "layer", tmp_path / "image"
    layer.mkdir()
    with (layer / "file").open("wb") as file:
        for number in range(1000):
            file.seek(number << 14)
            file.write(b"%04d" % number)
    content = (layer / "file").read_bytes()
    layermelt.build_rootfs(None, image, layers=[layer], block_size=block_size, sync=False)
    judge_image(image)
    shown = subprocess.run(["debugfs", "-R", "cat /file", image], capture_output=True, check=True)
    assert shown.stdout == content
