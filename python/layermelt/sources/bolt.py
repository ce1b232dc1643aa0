"""Reads bbolt databases, in which containerd keeps its names.

A file of pages, the first two of which describe a state of the database each::

    page      id u64, flags u16, count u16, overflow u32, then elements of 16 bytes
    meta      magic u32, version u32, page size u32, flags u32, root page u64, sequence u64,
              freelist u64, pages u64, transaction u64, FNV-1a of all that u64
    branch    key's place u32, its size u32, page u64
    leaf      flags u32 (1: a bucket), key's place u32, its size u32, the value's size u32
    bucket    root page u64, sequence u64; root 0: the bucket's only page follows

Nobody need be asked, and no lock is taken: containerd holds one for as long as it runs. A
transaction writes to pages only that the state before it does not use, and then the older of the
two meta pages; so what was read is of one state as long as that state is still the newest.
"""

from __future__ import annotations

import os
import struct
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator
from typing import TypeVar

from layermelt.errors import CorruptStoreError, SourceError
from layermelt.sources import store

__all__ = ["Bucket", "read"]

_MAGIC = 0xED0CDAED
_VERSION = 2
_PAGE = struct.Struct("<QHHI")
_META = struct.Struct("<IIIIQQQQQQ")
_BRANCH = struct.Struct("<IIQ")
_LEAF = struct.Struct("<IIII")
_BUCKET = struct.Struct("<QQ")
_IS_BRANCH, _IS_LEAF = 1, 2
_HOLDS_BUCKET = 1
#: From the smallest page size to the largest.
_PAGE_SIZES = tuple(1 << shift for shift in range(9, 17))
#: A page has room for two keys at the least: more levels are a circle.
_MAX_DEPTH = 40
#: A value with the pages that it runs over; those looked at are small.
_MAX_PAGE = 64 << 20
#: How often a database may be written to while it is read.
_ATTEMPTS = 50
_FNV_OFFSET, _FNV_PRIME = 0xCBF29CE484222325, 0x100000001B3

_Found = TypeVar("_Found")


def read(path: str, look: Callable[[Bucket], _Found]) -> _Found:
    """What `look` finds in the database, whose root bucket it is given."""
    fd, _ = store.open_plain(path)
    try:
        for attempt in range(_ATTEMPTS):
            time.sleep(min(attempt, 10) * 0.001)
            state = _State(fd, path)
            try:
                found = look(state.root())
            except SourceError:
                if state.is_newest():
                    raise
            else:
                if state.is_newest():
                    return found
    finally:
        os.close(fd)
    raise SourceError(f"{path}: is written to all the time; try again", path=path)


class Bucket:
    """A sorted table of keys, whose values are bytes or buckets."""

    def __init__(self, state: _State, root: bytes) -> None:
        self._state = state
        self._root = root

    def get(self, key: bytes) -> bytes | Bucket | None:
        """The value of a key; `None`: there is no such key."""
        page = self._root
        for _ in range(_MAX_DEPTH):
            if self._state.is_leaf(page):
                for other, value, is_bucket in self._state.leaf(page):
                    if other == key:
                        return self._state.bucket(value) if is_bucket else value
                return None
            branch = self._state.branch(page)
            at = bisect_right([other for other, _ in branch], key) - 1
            page = self._state.page(branch[max(at, 0)][1])
        raise self._state.corrupt("its pages make a circle")

    def bucket(self, *keys: bytes) -> Bucket | None:
        """The bucket at the end of a way of buckets; `None`: there is none."""
        at: bytes | Bucket | None = self
        for key in keys:
            if not isinstance(at, Bucket):
                return None
            at = at.get(key)
        return at if isinstance(at, Bucket) else None

    def value(self, key: bytes) -> bytes | None:
        """The bytes of a key; `None`: there are none."""
        found = self.get(key)
        return found if isinstance(found, bytes) else None

    def __iter__(self) -> Iterator[tuple[bytes, bytes | Bucket]]:
        """All keys with their values, in the order of the keys."""
        seen: set[int] = set()
        rest = [self._root]
        while rest:
            page = rest.pop()
            if self._state.is_leaf(page):
                for key, value, is_bucket in self._state.leaf(page):
                    yield key, (self._state.bucket(value) if is_bucket else value)
                continue
            for _, number in reversed(self._state.branch(page)):
                if number in seen:
                    raise self._state.corrupt("its pages make a circle")
                seen.add(number)
                rest.append(self._state.page(number))


class _State:
    """The newest state of a database when this was made."""

    def __init__(self, fd: int, path: str) -> None:
        self._fd = fd
        self._path = path
        self._size = os.fstat(fd).st_size
        self._page_size, self._root, self._pages, self._transaction = self._newest()
        self._known: dict[int, bytes] = {}

    def root(self) -> Bucket:
        return Bucket(self, self.page(self._root))

    def is_newest(self) -> bool:
        return self._newest()[3] == self._transaction

    def corrupt(self, what: str) -> CorruptStoreError:
        return CorruptStoreError(f"{self._path}: the database is damaged: {what}", path=self._path)

    def _read(self, length: int, place: int) -> bytes:
        try:
            return os.pread(self._fd, length, place)
        except OSError as error:
            raise store.failed("read", self._path, error) from None

    def _newest(self) -> tuple[int, int, int, int]:
        """Page size, root page, number of pages and transaction of the newest valid meta page."""
        found = []
        for place in (0, *_PAGE_SIZES):
            meta = self._read(_PAGE.size + _META.size, place)
            if len(meta) < _PAGE.size + _META.size:
                break
            magic, version, size, _, root, _, _, pages, transaction, checksum = _META.unpack_from(
                meta, _PAGE.size
            )
            valid = magic == _MAGIC and version == _VERSION and size in _PAGE_SIZES and place in (0, size)
            if valid and _fnv(meta[_PAGE.size : -8]) == checksum:
                found.append((transaction, size, root, pages))
        if not found:
            raise CorruptStoreError(f"{self._path}: is no bbolt database", path=self._path)
        transaction, size, root, pages = max(found)
        return size, root, pages, transaction

    def page(self, number: int) -> bytes:
        if number in self._known:
            return self._known[number]
        if not 2 <= number < self._pages:
            raise self.corrupt(f"there is no page {number}")
        start = number * self._page_size
        page = self._read(self._page_size, start)
        if len(page) < self._page_size:
            raise self.corrupt(f"page {number} lies behind the end of the file")
        own, _, _, overflow = _PAGE.unpack_from(page)
        if own != number:
            raise self.corrupt(f"page {number} says that it is page {own}")
        length = (1 + overflow) * self._page_size
        if length > min(_MAX_PAGE, self._size - start):
            raise self.corrupt(f"page {number} has {length} bytes")
        if overflow:
            page = self._read(length, start)
        self._known[number] = page
        return page

    def is_leaf(self, page: bytes) -> bool:
        flags: int = _PAGE.unpack_from(page)[1]
        if flags not in (_IS_BRANCH, _IS_LEAF):
            raise self.corrupt(f"a page of type {flags:#x} where keys are expected")
        return flags == _IS_LEAF

    def branch(self, page: bytes) -> list[tuple[bytes, int]]:
        """Keys, and the pages of what is not below them."""
        found = []
        for at in self._elements(page, _BRANCH.size):
            place, size, number = _BRANCH.unpack_from(page, at)
            found.append((self._cut(page, at + place, size), number))
        if not found:
            raise self.corrupt("a branch without a page")
        return found

    def leaf(self, page: bytes) -> Iterator[tuple[bytes, bytes, bool]]:
        """Keys, values, and whether the value is a bucket."""
        for at in self._elements(page, _LEAF.size):
            flags, place, key_size, value_size = _LEAF.unpack_from(page, at)
            start = at + place
            key = self._cut(page, start, key_size)
            value = self._cut(page, start + key_size, value_size)
            yield key, value, bool(flags & _HOLDS_BUCKET)

    def bucket(self, value: bytes) -> Bucket:
        if len(value) < _BUCKET.size:
            raise self.corrupt(f"a bucket of {len(value)} bytes")
        root, _ = _BUCKET.unpack_from(value)
        if root != 0:
            return Bucket(self, self.page(root))
        inline = value[_BUCKET.size :]
        if len(inline) < _PAGE.size:
            raise self.corrupt(f"a bucket of {len(value)} bytes")
        return Bucket(self, inline)

    def _elements(self, page: bytes, size: int) -> range:
        count = _PAGE.unpack_from(page)[2]
        end = _PAGE.size + count * size
        if end > len(page):
            raise self.corrupt(f"a page of {count} keys, which it has no room for")
        return range(_PAGE.size, end, size)

    def _cut(self, page: bytes, start: int, size: int) -> bytes:
        if start + size > len(page):
            raise self.corrupt("a key behind the end of its page")
        return page[start : start + size]


def _fnv(data: bytes) -> int:
    """FNV-1a, 64 bits."""
    value = _FNV_OFFSET
    for byte in data:
        value = (value ^ byte) * _FNV_PRIME & 0xFFFF_FFFF_FFFF_FFFF
    return value
