"""Kinds of damage: one field each of the image that `make_image` makes.

Attributes and directories are in `corrupt_names`.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

from integration.corrupt import JOURNAL_INODE, RESIZE_INODE, ROOT_INODE, Change, Image

EXTENTS, INDEX, INLINE, EA_INODE, IMMUTABLE = 0x80000, 0x1000, 0x10000000, 0x200000, 0x10
#: Codes of problems by kind, and how the kind is made.
KINDS: dict[str, tuple[str, Change]] = {}


def kind(code: str) -> Callable[[Change], Change]:
    """Registers a kind of damage that is to be told by that code."""

    def register(change: Change) -> Change:
        KINDS[change.__name__.strip("_")] = (code, change)
        return change

    return register


def make_image(folder: Path) -> Path:
    """An image that has one of everything, in blocks of 1 KiB."""
    tree = folder / "tree"
    (tree / "d" / "sub" / "below").mkdir(parents=True)
    (tree / "big").mkdir()
    for number in range(700):
        # Names so long that the index has two levels.
        (tree / "big" / f"{number:05d}{'n' * 195}").touch()
    (tree / "d" / "file").write_bytes(bytes(range(256)) * 20)
    (tree / "d" / "second").write_bytes(b"2" * 3000)
    (tree / "d" / "hard").hardlink_to(tree / "d" / "file")
    with (tree / "d" / "deep").open("wb") as file:
        for part in range(400):
            file.seek(part * 3072)
            file.write(b"d" * 1024)
    (tree / "d" / "fast").symlink_to("target")
    (tree / "d" / "slow").symlink_to("t" * 100)
    os.mkfifo(tree / "d" / "fifo")
    (tree / "d" / "plain").write_bytes(b"p" * 100)
    for name in ("file", "second"):
        os.setxattr(tree / "d" / name, "user.shared", b"s" * 300)
    os.setxattr(tree / "d" / "plain", "user.inside", b"value")
    os.setxattr(tree / "d" / "sub", "user.large", b"L" * 900)
    os.setxattr(tree / "d" / "sub", "user.larger", b"M" * 900)
    image = folder / "good.ext4"
    options = ["-q", "-F", "-t", "ext4", "-b", "1024", "-O", "ea_inode", "-d", str(tree)]
    subprocess.run(["mke2fs", *options, str(image), "16M"], check=True, capture_output=True)
    # mke2fs makes no indexes.
    done = subprocess.run(["e2fsck", "-fyD", image], check=False, capture_output=True)
    assert done.returncode in (0, 1), done.stdout
    # Other images of the tree have no inodes for values.
    os.removexattr(tree / "d" / "sub", "user.larger")
    return image


# Superblock.


@kind("superblock-checksum")
def _superblock_checksum(image: Image) -> None:
    image.put(1024 + 0x3FC, 1, 4)


@kind("free-blocks")
def _superblock_free_blocks(image: Image) -> None:
    image.superblock(0x0C, 77)


@kind("free-inodes")
def _superblock_free_inodes(image: Image) -> None:
    image.superblock(0x10, 77)


@kind("superblock")
def _superblock_reserved_blocks(image: Image) -> None:
    image.superblock(0x08, image.u32(1024 + 4) - 1)


@kind("superblock")
def _superblock_first_inode(image: Image) -> None:
    image.superblock(0x54, 5)


@kind("superblock")
def _superblock_want_extra_isize(image: Image) -> None:
    image.superblock(0x15E, 33, 2)


@kind("geometry")
def _superblock_inodes_count(image: Image) -> None:
    image.superblock(0x00, image.u32(1024) + 8)


@kind("geometry")
def _superblock_cluster_size(image: Image) -> None:
    image.superblock(0x1C, image.u32(1024 + 0x1C) + 1)


@kind("geometry")
def _superblock_clusters_per_group(image: Image) -> None:
    image.superblock(0x24, image.u32(1024 + 0x24) - 8)


@kind("geometry")
def _superblock_groups_per_flex(image: Image) -> None:
    image.superblock(0x174, 32, 1)


@kind("truncated")
def _superblock_blocks_count(image: Image) -> None:
    image.superblock(0x04, image.u32(1024 + 4) + 4096)


@kind("superblock")
def _superblock_uninit_bg_as_well(image: Image) -> None:
    image.superblock(0x64, image.u32(1024 + 0x64) | 0x10)


# Descriptors and bitmaps.


@kind("group-checksum")
def _group_checksum(image: Image) -> None:
    image.put(image.descriptor(1) + 0x1E, 1, 2)


@kind("free-blocks")
def _group_free_blocks(image: Image) -> None:
    image.group(1, 0x0C, 1)


@kind("free-inodes")
def _group_free_inodes(image: Image) -> None:
    image.group(0, 0x0E, image.u16(image.descriptor(0) + 0x0E) - 1)


@kind("directory-count")
def _group_directories(image: Image) -> None:
    image.group(0, 0x10, 1)


@kind("group-position")
def _group_inode_table(image: Image) -> None:
    image.group(1, 0x08, 0, 4)


@kind("metadata-overlap")
def _group_bitmap_upon_bitmap(image: Image) -> None:
    image.group(1, 0x00, image.u32(image.descriptor(0)), 4)


@kind("group-flags")
def _group_last_uninit(image: Image) -> None:
    image.group(1, 0x12, image.u16(image.descriptor(1) + 0x12) | 2)


@kind("directory-inode")
def _group_inodes_unused(image: Image) -> None:
    free = image.u16(image.descriptor(0) + 0x0E)
    image.group(0, 0x1C, min(free, image.inodes_per_group) + 40)


@kind("bitmap-checksum")
def _block_bitmap_checksum(image: Image) -> None:
    image.group(0, 0x18, 1)


@kind("block-bitmap")
def _block_bitmap_used(image: Image) -> None:
    image.bitmap(0, "blocks", image.block_of("/d/file", 0) // image.block_size - 1)


@kind("block-bitmap")
def _block_bitmap_free(image: Image) -> None:
    # The last block of the second group holds nothing.
    image.bitmap(1, "blocks", 8190)


@kind("inode-bitmap")
def _inode_bitmap_used(image: Image) -> None:
    image.bitmap(0, "inodes", image.number("/d/file") - 1)


@kind("inode-bitmap")
def _inode_bitmap_free(image: Image) -> None:
    image.bitmap(0, "inodes", image.inodes_per_group - 1)


@kind("bitmap-checksum")
def _inode_bitmap_checksum(image: Image) -> None:
    image.group(0, 0x1A, 1)


# Inodes.


@kind("inode-checksum")
def _inode_checksum(image: Image) -> None:
    image.put(image.inode(image.number("/d/file")) + 0x7C, 1, 2)


@kind("inode-mode")
def _inode_mode(image: Image) -> None:
    image.field(image.number("/d/plain"), 0x00, 0o30644, 2)


@kind("inode-size")
def _inode_size(image: Image) -> None:
    image.field(image.number("/d/deep"), 0x04, 10)


@kind("inode-blocks")
def _inode_blocks(image: Image) -> None:
    image.field(image.number("/d/file"), 0x1C, 2)


@kind("link-count")
def _inode_links(image: Image) -> None:
    image.field(image.number("/d/file"), 0x1A, 7, 2)


@kind("link-count")
def _directory_links(image: Image) -> None:
    image.field(image.number("/d"), 0x1A, 9, 2)


@kind("directory-inode")
def _inode_no_links(image: Image) -> None:
    image.field(image.number("/d/plain"), 0x1A, 0, 2)


@kind("inode-deleted")
def _inode_dtime(image: Image) -> None:
    image.field(image.number("/d/plain"), 0x14, 1700000000)


@kind("orphan")
def _inode_low_dtime(image: Image) -> None:
    image.field(image.number("/d/plain"), 0x14, 30)


@kind("inode-fields")
def _inode_fragment(image: Image) -> None:
    image.field(image.number("/d/plain"), 0x70, 5)


@kind("inode-extra-size")
def _inode_extra_size(image: Image) -> None:
    image.field(image.number("/d/fifo"), 0x80, 30, 2)


@kind("inode-flags")
def _inode_inline_without_feature(image: Image) -> None:
    image.flag(image.number("/d/plain"), INLINE)


@kind("inode-flags")
def _inode_extents_flag_lost(image: Image) -> None:
    image.flag(image.number("/d/file"), EXTENTS, on=False)


@kind("inode-flags")
def _inode_index_of_a_file(image: Image) -> None:
    image.flag(image.number("/d/plain"), INDEX)


@kind("inode-flags")
def _fifo_immutable(image: Image) -> None:
    image.flag(image.number("/d/fifo"), IMMUTABLE)


@kind("inode-size")
def _fifo_size(image: Image) -> None:
    image.field(image.number("/d/fifo"), 0x04, 5)


@kind("symlink")
def _symlink_size(image: Image) -> None:
    image.field(image.number("/d/fast"), 0x04, 9)


@kind("symlink")
def _symlink_slow_size(image: Image) -> None:
    image.field(image.number("/d/slow"), 0x04, 99)


@kind("symlink")
def _symlink_empty(image: Image) -> None:
    image.field(image.number("/d/fast"), 0x04, 0)


@kind("root-inode")
def _root_is_a_file(image: Image) -> None:
    image.field(ROOT_INODE, 0x00, 0o100644, 2)


@kind("reserved-inode")
def _reserved_mode(image: Image) -> None:
    image.field(9, 0x00, 0o100644, 2)


@kind("reserved-inode")
def _bad_blocks_owner(image: Image) -> None:
    image.field(1, 0x02, 5, 2)


@kind("resize-inode")
def _resize_inode_block(image: Image) -> None:
    image.field(RESIZE_INODE, 0x28, 500)


@kind("resize-inode")
def _resize_inode_map(image: Image) -> None:
    double = image.u32(image.inode(RESIZE_INODE) + 0x28 + 13 * 4) * image.block_size
    # Behind the one block of descriptors; e2fsck looks at the first quarter only.
    image.put(double + 4, image.u32(double + 4) + 1, 4)


@kind("reserved-inode")
def _journal_mode(image: Image) -> None:
    image.field(JOURNAL_INODE, 0x00, 0o40644, 2)


@kind("journal")
def _journal_magic(image: Image) -> None:
    image.put(image.block_of("<8>", 0), 0, 4)


@kind("journal")
def _journal_beside_an_external_one(image: Image) -> None:
    image.superblock(0xD0, 0x1234)


@kind("journal")
def _journal_of_two_file_systems(image: Image) -> None:
    image.put(image.block_of("<8>", 0) + 0x40, 2 << 24, 4)


@kind("journal")
def _journal_length(image: Image) -> None:
    image.data[image.block_of("<8>", 0) + 16] = 0x7F


@kind("journal")
def _journal_file_with_a_begun_block(image: Image) -> None:
    image.field(JOURNAL_INODE, 0x04, image.u32(image.inode(JOURNAL_INODE) + 0x04) + 1)


# Extents.


@kind("extent-header")
def _extent_root_magic(image: Image) -> None:
    image.field(image.number("/d/file"), 0x28, 0, 2)


@kind("extent-header")
def _extent_root_entries(image: Image) -> None:
    image.field(image.number("/d/file"), 0x2A, 9, 2)


@kind("extent-range")
def _extent_start(image: Image) -> None:
    image.field(image.number("/d/file"), 0x3C, 0x7FFFFFF)


@kind("extent-length")
def _extent_length(image: Image) -> None:
    image.field(image.number("/d/file"), 0x38, 0, 2)


@kind("block-shared")
def _extent_shared(image: Image) -> None:
    image.field(image.number("/d/plain"), 0x3C, image.block_of("/d/file", 0) // image.block_size)


@kind("block-shared")
def _extent_upon_metadata(image: Image) -> None:
    image.field(image.number("/d/plain"), 0x3C, image.u32(image.descriptor(0) + 8) + 3)


def _extent_node(image: Image) -> tuple[int, int]:
    """The deep file, and the byte of the first node below its root."""
    number = image.number("/d/deep")
    return number, image.u32(image.inode(number) + 0x28 + 12 + 4) * image.block_size


def _extent_leaf(image: Image) -> tuple[int, int]:
    number, node = _extent_node(image)
    return number, image.u32(node + 12 + 4) * image.block_size


@kind("extent-checksum")
def _extent_leaf_checksum(image: Image) -> None:
    _, at = _extent_leaf(image)
    image.put(at + 12 * (1 + image.u16(at + 4)), 1, 4)


@kind("extent-header")
def _extent_leaf_magic(image: Image) -> None:
    number, at = _extent_leaf(image)
    image.put(at, 0, 2)
    image.sum_extent_block(number, at)


@kind("extent-order")
def _extent_leaf_order(image: Image) -> None:
    number, at = _extent_leaf(image)
    image.put(at + 12 * 3, 1, 4)
    image.sum_extent_block(number, at)


@kind("extent-order")
def _extent_index_start(image: Image) -> None:
    number, at = _extent_node(image)
    image.put(at + 12 * 2, image.u32(at + 12 * 2) - 1, 4)
    image.sum_extent_block(number, at)


@kind("extent-range")
def _extent_index_block(image: Image) -> None:
    number, at = _extent_node(image)
    image.put(at + 12 * 2 + 4, 0x7FFFFFF, 4)
    image.sum_extent_block(number, at)


@kind("block-shared")
def _extent_loop(image: Image) -> None:
    number, at = _extent_node(image)
    image.put(at + 12 * 2 + 4, at // image.block_size, 4)
    image.sum_extent_block(number, at)
