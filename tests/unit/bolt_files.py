"""Writes bbolt databases, by their format alone, for what reads them to be tested."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Union

PAGE = 4096
Tree = dict[bytes, Union[bytes, "Tree"]]


def fnv(data: bytes) -> int:
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 & (1 << 64) - 1
    return value


def meta(number: int, *, root: int, pages: int, transaction: int) -> bytes:
    """One of the two pages that tell where everything is."""
    told = struct.pack("<IIIIQQQQQ", 0xED0CDAED, 2, PAGE, 0, root, 0, 2, pages, transaction)
    return (struct.pack("<QHHI", number, 4, 0, 0) + told + struct.pack("<Q", fnv(told))).ljust(PAGE, b"\0")


class Writer:
    """Lays out pages, from page 3 on; at most `per_leaf` keys to a leaf."""

    def __init__(self, per_leaf: int) -> None:
        self._per_leaf = per_leaf
        self.pages: dict[int, bytes] = {2: struct.pack("<QHHI", 2, 0x10, 0, 0)}
        self._next = 3

    def write(self, path: Path, tree: Tree, *, transaction: int = 1) -> None:
        """The database that holds `tree`."""
        root = self._bucket(tree)
        pages = self._next
        head = b"".join(
            meta(number, root=root, pages=pages, transaction=transaction - 1 + number) for number in (0, 1)
        )
        data = bytearray(head.ljust(pages * PAGE, b"\0"))
        for number, page in self.pages.items():
            data[number * PAGE : number * PAGE + len(page)] = page
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def _bucket(self, tree: Tree) -> int:
        items = sorted(tree.items())
        leaves = [items[at : at + self._per_leaf] for at in range(0, len(items), self._per_leaf)] or [[]]
        level = [(leaf[0][0] if leaf else b"", self._leaf(leaf)) for leaf in leaves]
        while len(level) > 1:
            groups = [level[at : at + self._per_leaf] for at in range(0, len(level), self._per_leaf)]
            level = [(group[0][0], self._branch(group)) for group in groups]
        return level[0][1]

    def _leaf(self, items: list[tuple[bytes, bytes | Tree]]) -> int:
        elements = []
        for key, value in items:
            flags = int(isinstance(value, dict))
            stored = self._stored(value) if isinstance(value, dict) else value
            elements.append((struct.pack("<I", flags), key, stored))
        return self._place(leaf_bytes(elements))

    def _stored(self, tree: Tree) -> bytes:
        """A bucket's value: a page's number, or the page itself where all is small."""
        plain = [(bytes(4), key, value) for key, value in sorted(tree.items()) if isinstance(value, bytes)]
        if len(plain) < len(tree) or len(tree) > 4:
            return struct.pack("<QQ", self._bucket(tree), 0)
        return bytes(16) + leaf_bytes(plain)

    def _branch(self, group: list[tuple[bytes, int]]) -> int:
        head, keys = bytearray(struct.pack("<QHHI", 0, 1, len(group), 0)), b""
        for at, (key, number) in enumerate(group):
            place = (len(group) - at) * 16 + len(keys)
            head += struct.pack("<IIQ", place, len(key), number)
            keys += key
        return self._place(bytes(head) + keys)

    def _place(self, page: bytes) -> int:
        number, overflow = self._next, (len(page) - 1) // PAGE
        self._next += 1 + overflow
        self.pages[number] = struct.pack("<Q", number) + page[8:12] + struct.pack("<I", overflow) + page[16:]
        return number


def leaf_bytes(elements: list[tuple[bytes, bytes, bytes]]) -> bytes:
    """A leaf page of (flags, key, value)."""
    head, data = bytearray(struct.pack("<QHHI", 0, 2, len(elements), 0)), b""
    for at, (flags, key, value) in enumerate(elements):
        place = (len(elements) - at) * 16 + len(data)
        head += flags + struct.pack("<III", place, len(key), len(value))
        data += key + value
    return bytes(head) + data


def write_bolt(path: Path, tree: Tree, *, per_leaf: int = 20, transaction: int = 1) -> None:
    """A database at `path`."""
    Writer(per_leaf).write(path, tree, transaction=transaction)
