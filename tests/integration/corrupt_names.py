"""Kinds of damage, continued: attributes, directories and their indexes."""

from __future__ import annotations

from integration.corrupt import ROOT_INODE, Change, Image
from integration.corrupt_kinds import EA_INODE, KINDS, kind

__all__ = ["KINDS"]


def _attributes(image: Image) -> int:
    """The byte of the block of attributes of /d/file."""
    block = image.u32(image.inode(image.number("/d/file")) + 0x68)
    assert block
    return block * image.block_size


# Attributes.


@kind("xattr-checksum")
def _attributes_checksum(image: Image) -> None:
    image.put(_attributes(image) + 16, 1, 4)


@kind("xattr-block")
def _attributes_magic(image: Image) -> None:
    at = _attributes(image)
    image.put(at, 0, 4)
    image.sum_attributes(at)


@kind("xattr-refcount")
def _attributes_refcount(image: Image) -> None:
    at = _attributes(image)
    image.put(at + 4, 5, 4)
    image.sum_attributes(at)


@kind("xattr-hash")
def _attributes_hash(image: Image) -> None:
    at = _attributes(image)
    image.put(at + 32 + 12, 5, 4)
    image.sum_attributes(at)


@kind("xattr-value")
def _attributes_value_behind(image: Image) -> None:
    at = _attributes(image)
    image.put(at + 32 + 2, 0xFFF0, 2)
    image.sum_attributes(at)


@kind("xattr-value")
def _attributes_value_upon_entry(image: Image) -> None:
    at = _attributes(image)
    image.put(at + 32 + 2, 32, 2)
    image.sum_attributes(at)


@kind("xattr-entry")
def _attributes_prefix(image: Image) -> None:
    at = _attributes(image)
    image.put(at + 32 + 1, 0, 1)
    image.sum_attributes(at)


@kind("xattr-entry")
def _attributes_up_to_the_end_of_an_inode(image: Image) -> None:
    number = image.number("/d/deep")
    first = image.inode(number) + 0x80 + image.u16(image.inode(number) + 0x80)
    image.put(first, 0xEA020000, 4)
    # No room is left for what ends the list.
    length = image.inode(number) + image.inode_size - first - 4 - 16
    image.put(first + 4, length, 1)
    image.put(first + 5, 1, 1)
    image.data[first + 20 : first + 20 + length] = b"n" * length
    image.sum_inode(number)


@kind("xattr-block")
def _attributes_block_behind(image: Image) -> None:
    image.field(image.number("/d/file"), 0x68, 0x7FFFFFF)


@kind("xattr-value")
def _attribute_inside_size(image: Image) -> None:
    number = image.number("/d/plain")
    at = image.inode(number) + 128 + image.u16(image.inode(number) + 0x80) + 4
    image.put(at + 8, 5000, 4)
    image.sum_inode(number)


def _value_inode(image: Image) -> int:
    """The number of the inode that holds a value of /d/sub."""
    for number in range(12, image.inodes_per_group):
        at = image.inode(number)
        if image.u32(at + 0x20) & EA_INODE and image.u16(at + 0x1A):
            return number
    raise AssertionError("no inode holds a value")


@kind("xattr-refcount")
def _value_inode_references(image: Image) -> None:
    image.field(_value_inode(image), 0x24, 5)


@kind("xattr-value")
def _value_inode_flag(image: Image) -> None:
    image.flag(_value_inode(image), EA_INODE, on=False)


# Directories.


def _directory(image: Image) -> tuple[int, int, dict[bytes, int]]:
    """/d, the byte of its block, and of its records."""
    at = image.block_of("/d", 0)
    return image.number("/d"), at, image.records(at)


def _record(name: bytes, at: int, value: int, size: int) -> Change:
    def change(image: Image) -> None:
        number, block, records = _directory(image)
        image.put(records[name] + at, value, size)
        image.sum_directory(number, block)

    return change


for _name, _code, _change in (
    ("record_inode_too_large", "directory-inode", _record(b"file", 0, 0x7FFFFFFF, 4)),
    ("record_inode_reserved", "directory-inode", _record(b"fifo", 0, 9, 4)),
    ("record_inode_free", "directory-inode", _record(b"fifo", 0, 2000, 4)),
    ("record_inode_root", "directory-inode", _record(b"fifo", 0, ROOT_INODE, 4)),
    ("record_removed", "unattached", _record(b"fifo", 0, 0, 4)),
    ("record_length", "directory-record", _record(b"file", 4, 3, 2)),
    ("record_length_behind", "directory-record", _record(b"file", 4, 0xFFFC, 2)),
    ("record_name_length", "directory-record", _record(b"file", 6, 250, 1)),
    ("record_no_name", "directory-name", _record(b"file", 6, 0, 1)),
    ("record_slash", "directory-name", _record(b"file", 8, ord("/"), 1)),
    ("record_nul", "directory-name", _record(b"file", 9, 0, 1)),
    ("record_duplicate", "directory-duplicate", _record(b"fast", 8, int.from_bytes(b"fifo", "little"), 4)),
    ("record_type", "directory-type", _record(b"file", 7, 2, 1)),
    ("dot_inode", "directory-dot", _record(b".", 0, 12, 4)),
    ("dot_name", "directory-dot", _record(b".", 8, ord("x"), 1)),
    ("dotdot_inode", "directory-dotdot", _record(b"..", 0, 12, 4)),
    ("dotdot_name", "directory-dot", _record(b"..", 9, ord("x"), 1)),
):
    KINDS[_name] = (_code, _change)


@kind("directory-checksum")
def _directory_checksum(image: Image) -> None:
    _, at, _ = _directory(image)
    image.put(at + image.block_size - 4, 1, 4)


@kind("directory-checksum")
def _directory_tail(image: Image) -> None:
    _, at, _ = _directory(image)
    image.put(at + image.block_size - 5, 0, 1)


@kind("unattached")
def _directory_detached(image: Image) -> None:
    number, block, records = _directory(image)
    image.put(records[b"sub"], 0, 4)
    image.sum_directory(number, block)


@kind("directory-links")
def _directory_two_names(image: Image) -> None:
    number, block, records = _directory(image)
    image.put(records[b"fifo"], image.number("/d/sub"), 4)
    image.put(records[b"fifo"] + 7, 2, 1)
    image.sum_directory(number, block)


@kind("directory-loop")
def _directory_loop(image: Image) -> None:
    # The name of /d/sub moves into /d/sub/below.
    number, block, records = _directory(image)
    sub = image.number("/d/sub")
    image.put(records[b"sub"], 0, 4)
    image.sum_directory(number, block)
    below, at = image.number("/d/sub/below"), image.block_of("/d/sub/below", 0)
    dots = image.records(at)
    image.put(dots[b".."] + 4, 12, 2)
    free = dots[b".."] + 12
    image.put(free, sub, 4)
    image.put(free + 4, at + image.block_size - 12 - free, 2)
    image.put(free + 6, 3 | 2 << 8, 2)
    image.data[free + 8 : free + 11] = b"sub"
    image.sum_directory(below, at)


@kind("inode-size")
def _directory_size(image: Image) -> None:
    image.field(image.number("/d"), 0x04, 500)


@kind("inode-size")
def _directory_size_too_large(image: Image) -> None:
    image.field(image.number("/d"), 0x04, 8192)


# Indexes.


def _index(image: Image) -> tuple[int, int]:
    return image.number("/big"), image.block_of("/big", 0)


def _index_root(at: int, value: int, size: int) -> Change:
    def change(image: Image) -> None:
        number, root = _index(image)
        image.put(root + at, value, size)
        image.sum_index(number, root, root=True)

    return change


for _name, _code, _change in (
    ("index_hash_version", "htree-root", _index_root(28, 9, 1)),
    ("index_info_length", "htree-root", _index_root(29, 4, 1)),
    ("index_levels", "htree-root", _index_root(30, 7, 1)),
    ("index_one_level_less", "htree-depth", _index_root(30, 0, 1)),
    ("index_reserved", "htree-root", _index_root(24, 1, 4)),
    ("index_limit", "htree-limit", _index_root(32, 100, 2)),
    ("index_count", "htree-count", _index_root(34, 0x7FFF, 2)),
    ("index_block_behind", "htree-block", _index_root(36, 0x0FFFFFF, 4)),
    ("index_block_twice", "htree-reference", _index_root(44, 2, 4)),
):
    KINDS[_name] = (_code, _change)


@kind("htree-checksum")
def _index_checksum(image: Image) -> None:
    _, root = _index(image)
    image.put(root + image.block_size - 4, 1, 4)


def _index_node(image: Image) -> tuple[int, int]:
    """The directory, and the byte of the first node below its root."""
    number, root = _index(image)
    return number, image.block_of("/big", image.u32(root + 36))


@kind("htree-order")
def _index_node_order(image: Image) -> None:
    number, at = _index_node(image)
    image.put(at + 8 + 8 * 3, 2, 4)
    image.sum_index(number, at, root=False)


@kind("htree-hash")
def _index_node_hash(image: Image) -> None:
    number, at = _index_node(image)
    hashes = [image.u32(at + 8 + 8 * entry) for entry in (1, 2)]
    image.put(at + 8 + 8, (hashes[0] + hashes[1]) // 2 & ~1, 4)
    image.sum_index(number, at, root=False)


@kind("htree-checksum")
def _index_node_checksum(image: Image) -> None:
    _, at = _index_node(image)
    image.put(at + image.block_size - 4, 1, 4)


@kind("htree-hash")
def _index_name_in_the_wrong_leaf(image: Image) -> None:
    number, node = _index_node(image)
    at = image.block_of("/big", image.u32(node + 8 + 8 * 5 + 4))
    name = next(iter(image.records(at).values()))
    image.data[name + 8 + 10] ^= 1
    image.sum_directory(number, at)
