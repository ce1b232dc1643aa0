"""Every profile with blocks of every size and every journal: the kernel shows the chain, by the features it has."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from integration.conftest import Judge, Stores
from integration.oracle import judge, kernel, mounts, product
from integration.oracle.compare import differences, report
from integration.oracle.dump import Tree, dump, inode_flags
from integration.oracle.layer import CAP_NET_RAW, RICH_ACL, Chain

pytestmark = pytest.mark.root

#: Those that old kernels and old e2fsprogs know.
COMPAT = {
    *("has_journal", "ext_attr", "resize_inode", "dir_index", "filetype", "extent", "flex_bg"),
    *("sparse_super", "large_file", "huge_file", "dir_nlink", "extra_isize"),
}
FEATURES = {
    "default": COMPAT | {"64bit", "metadata_csum"},
    "compat": COMPAT | {"uninit_bg"},
    "readonly": (COMPAT | {"64bit", "metadata_csum"}) - {"has_journal", "resize_inode"},
}


def everything(chain: Chain) -> list[Path]:
    """One of everything that blocks of 1,024 bytes hold."""
    base, top = chain.two()
    base.file("small", b"data", xattrs={"user.a": b"1"})
    base.link("small", "d/also")
    base.file("large", bytes(range(256)) * 9000)
    base.file("extents", pieces={8192 * n: b"%d" % n for n in range(1400)})
    base.file("sparse", pieces={1 << 40: b"far"}, size=(1 << 40) + 5000)
    for number in range(2000):
        base.file(f"wide/{'n' * 60}{number}", b"")
    for number in range(300):
        base.file(f"shared/{number}", b"", xattrs={"trusted.same": b"s" * 300})
    base.file("value", xattrs={"user.v": b"v" * 65_536, "user.w": b"w" * 5000})
    base.directory("acl", xattrs={"system.posix_acl_default": RICH_ACL, "system.posix_acl_access": RICH_ACL})
    top.file("capable", xattrs={"security.capability": CAP_NET_RAW}, mode=0o4755)
    top.symlink("link", "t" * 1000, xattrs={"trusted.a": b"1" * 500}, mtime=-(2**31) * 10**9)
    top.node("char", "char", 511, 262_143, uid=2**32 - 2, gid=2**32 - 2)
    top.node("fifo", "fifo", mtime=0x3_7FFF_FFFE * 10**9 + 1)
    top.file(b"\xff" * 255)
    top.whiteout(f"wide/{'n' * 60}1000")
    top.flags("capable", kernel.FS_NODUMP_FL)
    return chain.finish()


@pytest.fixture(scope="module")
def chain(stores: Stores) -> Iterator[tuple[list[Path], Tree]]:
    """On xfs, which has room for all of it, and what the kernel shows of it."""
    made = Chain(stores("xfs") / "chain", "xfs")
    layers = everything(made)
    with mounts.overlay(layers) as merged:
        kernel_view = dump(merged)
    yield layers, kernel_view
    made.unlock()


#: No multiple of a block.
NUMBER = (5 << 30) + 1


# Random chains (test_random_trees.py) have all three together in any combination.
@pytest.mark.parametrize(("block_size", "size"), [(1024, "min"), (2048, NUMBER), (4096, "auto")])
@pytest.mark.parametrize(
    ("profile", "journal"),
    [
        ("default", "auto"),
        ("default", "none"),
        ("default", 5 << 20),
        ("compat", "auto"),
        ("compat", "none"),
        ("readonly", "auto"),
    ],
)
def test_the_kernel_shows_the_chain(
    profile: str,
    block_size: int,
    journal: str | int,
    size: str | int,
    chain: tuple[list[Path], Tree],
    tmp_path: Path,
    judge_image: Judge,
) -> None:
    layers, kernel_view = chain
    image = tmp_path / "image.ext4"
    wish: dict[str, Any] = {"profile": profile, "block_size": block_size, "journal": journal, "size": size}
    result = product.build(layers, image, inode_flags=True, **wish)
    judge_image(image)
    with mounts.image(image) as mounted:
        lines = differences(kernel_view, dump(mounted))
        assert inode_flags(mounted) == {b"capable": kernel.FS_NODUMP_FL}
    assert not lines, report(lines)
    found = judge.superblock(image)
    without = {"has_journal"} if journal == "none" else set()
    assert set(found["Filesystem features"].split()) == (FEATURES[profile] - without) | {"ea_inode"}
    assert int(found["Block size"]) == block_size
    blocks = int(found["Block count"])
    assert blocks * block_size == image.stat().st_size == result.size
    if isinstance(size, int):
        assert result.size == size // block_size * block_size
    if isinstance(journal, int):
        assert int(found["Total journal blocks"]) * block_size == journal
    if profile == "readonly":
        assert found.get("Reserved GDT blocks", "0") == "0"
        assert size == NUMBER or found["Free blocks"] == "0"
    else:
        assert int(found["Inode count"]) >= result.size // 16_384
        assert int(found["Free inodes"]) >= (int(found["Inode count"]) - int(found["Free inodes"])) // 11
