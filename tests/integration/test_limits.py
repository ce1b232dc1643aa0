"""The ends of what ext4 holds, and of what a chain brings."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from integration.conftest import Judge, Stores
from integration.oracle import core, judge, kernel, mounts
from integration.oracle.compare import differences, report
from integration.oracle.dump import dump
from integration.oracle.layer import CAP_NET_RAW, RICH_ACL, Chain

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
@pytest.mark.parametrize("fs", ["xfs", "btrfs"])
def test_the_longest_value(fs: str, size: int, stores: Stores, tmp_path: Path, judge_image: Judge) -> None:
    if fs == "btrfs":
        size = 16_000  # a value of btrfs fits into one of its nodes
    chain = Chain(stores(fs) / "chain", fs)
    layer = chain.layer()
    layer.file("f", xattrs={"user.v": b"v" * size})
    layer.directory("d", xattrs={"user.v": b"v" * size, "user.w": b"w" * size})
    layer.symlink("s", "target", xattrs={"trusted.v": b"t" * size})
    layers = chain.finish()
    output = tmp_path / "image.ext4"
    core.build(layers, output)
    judge_image(output)
    with mounts.overlay(layers) as merged, mounts.image(output) as mounted:
        lines = differences(dump(merged), dump(mounted))
    assert not lines, report(lines)
