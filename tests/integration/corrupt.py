"""Changes single fields of ext4 images, and repairs the checksums over them.

What is damaged is then the field itself and not the checksum. Decoding is done
here, and by debugfs, so that nothing of layermelt's is trusted.
"""

from __future__ import annotations

import re
import struct
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path

ROOT_INODE = 2
RESIZE_INODE = 7
JOURNAL_INODE = 8
#: Where superblock fields are that are read here.
_BLOCK_LOG, _INODES_PER_GROUP, _INODE_SIZE, _UUID, _DESC_SIZE = 0x18, 0x28, 0x58, 0x68, 0xFE


@cache
def _table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return tuple(table)


def crc32c(register: int, data: bytes | bytearray) -> int:
    """Continues a checksum as the kernel's ``ext4_chksum`` does: no inversion."""
    table = _table()
    for byte in data:
        register = register >> 8 ^ table[(register ^ byte) & 0xFF]
    return register


class Image:
    """An image with ``metadata_csum``, in memory until it is saved."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.data = bytearray(path.read_bytes())
        self.block_size = 1024 << self.u32(1024 + _BLOCK_LOG)
        self.inode_size = self.u16(1024 + _INODE_SIZE)
        self.desc_size = self.u16(1024 + _DESC_SIZE)
        self.inodes_per_group = self.u32(1024 + _INODES_PER_GROUP)
        self.seed = crc32c(0xFFFFFFFF, self.data[1024 + _UUID : 1024 + _UUID + 16])
        self._first_desc = (1 if self.block_size > 1024 else 2) * self.block_size

    def save(self) -> None:
        """Writes it back."""
        self.path.write_bytes(self.data)

    def u16(self, at: int) -> int:
        """A number at a byte."""
        return int(struct.unpack_from("<H", self.data, at)[0])

    def u32(self, at: int) -> int:
        """A number at a byte."""
        return int(struct.unpack_from("<I", self.data, at)[0])

    def put(self, at: int, value: int, size: int) -> None:
        """Puts a number of ``size`` bytes."""
        self.data[at : at + size] = value.to_bytes(size, "little")

    def debugfs(self, request: str) -> str:
        """Asks debugfs about the image as it is on the disk."""
        done = subprocess.run(
            ["debugfs", "-R", request, self.path], capture_output=True, text=True, check=True
        )
        return done.stdout

    def number(self, path: str) -> int:
        """The inode of a path."""
        found = re.search(r"Inode: (\d+)", self.debugfs(f"stat {path}"))
        assert found is not None, path
        return int(found[1])

    def block_of(self, path: str, logical: int) -> int:
        """Byte of a block of a file."""
        return int(self.debugfs(f"bmap {path} {logical}").split()[-1]) * self.block_size

    # The superblock and the descriptors.

    def superblock(self, at: int, value: int, size: int = 4) -> None:
        """Changes a field of the superblock."""
        self.put(1024 + at, value, size)
        self.put(1024 + 0x3FC, crc32c(0xFFFFFFFF, self.data[1024 : 1024 + 0x3FC]), 4)

    def descriptor(self, group: int) -> int:
        """Byte of a descriptor."""
        return self._first_desc + group * self.desc_size

    def group(self, group: int, at: int, value: int, size: int = 2) -> None:
        """Changes a field of a descriptor."""
        self.put(self.descriptor(group) + at, value, size)
        self.sum_group(group)

    def sum_group(self, group: int) -> None:
        """Repairs the checksum of a descriptor."""
        first = self.descriptor(group)
        raw = bytearray(self.data[first : first + self.desc_size])
        raw[0x1E:0x20] = b"\0\0"
        self.put(first + 0x1E, crc32c(crc32c(self.seed, group.to_bytes(4, "little")), raw) & 0xFFFF, 2)

    def bitmap(self, group: int, which: str, bit: int) -> None:
        """Turns a bit of a bitmap around: of ``blocks`` or ``inodes``."""
        desc = self.descriptor(group)
        pointer, low, high = (0x00, 0x18, 0x38) if which == "blocks" else (0x04, 0x1A, 0x3A)
        at = self.u32(desc + pointer) * self.block_size
        self.data[at + bit // 8] ^= 1 << bit % 8
        bits = self.u32(1024 + 0x20) if which == "blocks" else self.inodes_per_group
        value = crc32c(self.seed, self.data[at : at + bits // 8])
        self.put(desc + low, value & 0xFFFF, 2)
        if self.desc_size > 32:
            self.put(desc + high, value >> 16, 2)
        self.sum_group(group)

    # Inodes.

    def inode(self, number: int) -> int:
        """Byte of an inode."""
        group, index = divmod(number - 1, self.inodes_per_group)
        return self.u32(self.descriptor(group) + 0x08) * self.block_size + index * self.inode_size

    def field(self, number: int, at: int, value: int, size: int = 4) -> None:
        """Changes a field of an inode."""
        self.put(self.inode(number) + at, value, size)
        self.sum_inode(number)

    def sum_inode(self, number: int) -> None:
        """Repairs the checksum of an inode."""
        first = self.inode(number)
        raw = bytearray(self.data[first : first + self.inode_size])
        raw[0x7C:0x7E] = raw[0x82:0x84] = b"\0\0"
        value = crc32c(self.inode_seed(number), raw)
        self.put(first + 0x7C, value & 0xFFFF, 2)
        self.put(first + 0x82, value >> 16, 2)

    def inode_seed(self, number: int) -> int:
        """What the checksums of an inode and its blocks start from."""
        generation = self.data[self.inode(number) + 0x64 : self.inode(number) + 0x68]
        return crc32c(crc32c(self.seed, number.to_bytes(4, "little")), generation)

    def flag(self, number: int, flag: int, *, on: bool = True) -> None:
        """Sets or clears a flag of an inode."""
        flags = self.u32(self.inode(number) + 0x20)
        self.field(number, 0x20, flags | flag if on else flags & ~flag)

    # Blocks of inodes.

    def sum_extent_block(self, number: int, at: int) -> None:
        """Repairs the checksum of a node of an extent tree."""
        end = at + 12 * (1 + self.u16(at + 4))
        self.put(end, crc32c(self.inode_seed(number), self.data[at:end]), 4)

    def sum_directory(self, number: int, at: int) -> None:
        """Repairs the checksum of a block of records."""
        end = at + self.block_size - 12
        self.put(end + 8, crc32c(self.inode_seed(number), self.data[at:end]), 4)

    def sum_index(self, number: int, at: int, *, root: bool) -> None:
        """Repairs the checksum of a block of a directory's index."""
        first = at + (0x20 if root else 8)
        limit, count = self.u16(first), self.u16(first + 2)
        value = crc32c(self.inode_seed(number), self.data[at : first + 8 * count])
        tail = first + 8 * limit
        if tail + 8 <= at + self.block_size:
            value = crc32c(value, self.data[tail : tail + 4] + b"\0\0\0\0")
            self.put(tail + 4, value, 4)

    def sum_attributes(self, at: int) -> None:
        """Repairs the checksum of a block of attributes."""
        raw = bytearray(self.data[at : at + self.block_size])
        raw[16:20] = b"\0\0\0\0"
        self.put(at + 16, crc32c(crc32c(self.seed, (at // self.block_size).to_bytes(8, "little")), raw), 4)

    def records(self, at: int) -> dict[bytes, int]:
        """Bytes of the records of a directory's block, by name."""
        found, offset = {}, 0
        while offset < self.block_size:
            length, name_len = self.u16(at + offset + 4), self.data[at + offset + 6]
            if self.u32(at + offset):
                found[bytes(self.data[at + offset + 8 : at + offset + 8 + name_len])] = at + offset
            offset += length
        return found


Change = Callable[[Image], None]
