"""Reading bbolt databases: whole ones, damaged ones, and those that somebody writes to."""

from __future__ import annotations

import os
import random
import struct
import time
from pathlib import Path

import pytest

from layermelt.errors import CorruptStoreError, SourceError, SourceNotFoundError
from layermelt.sources import bolt
from unit.bolt_files import PAGE, Tree, meta, write_bolt


def plain(bucket: bolt.Bucket) -> Tree:
    """All that is in it."""
    return {key: plain(value) if isinstance(value, bolt.Bucket) else value for key, value in bucket}


TREE: Tree = {
    b"v1": {
        b"many": {b"%05d" % number: b"value %d" % number for number in range(3000)},
        b"buckets": {b"b%03d" % number: {b"a": b"1", b"c": {b"d": b"2"}} for number in range(50)},
        b"empty": {},
        b"small": {b"x": b"", b"y": b"yy"},
        b"long": b"l" * 10_000,
    },
    b"version": b"\x03",
}


@pytest.mark.parametrize("per_leaf", [2, 7, 50])
def test_everything_is_found(per_leaf: int, tmp_path: Path) -> None:
    write_bolt(tmp_path / "db", TREE, per_leaf=per_leaf)
    assert bolt.read(os.fspath(tmp_path / "db"), plain) == TREE

    def look(root: bolt.Bucket) -> None:
        many = root.bucket(b"v1", b"many")
        assert many is not None
        for number in range(3000):
            assert many.value(b"%05d" % number) == b"value %d" % number
        for absent in (b"", b"0", b"00000x", b"02999z", b"zzz"):
            assert many.get(absent) is None
        last = root.bucket(b"v1", b"buckets", b"b049", b"c")
        assert last is not None
        assert last.value(b"d") == b"2"
        # What is no bucket, and what is none of bytes.
        assert root.bucket(b"version") is None
        assert root.bucket(b"v1", b"nothing", b"more") is None
        assert root.value(b"v1") is None

    bolt.read(os.fspath(tmp_path / "db"), look)


def test_the_newest_valid_state_counts(tmp_path: Path) -> None:
    path = tmp_path / "db"
    write_bolt(path, {b"key": b"old"}, transaction=8)
    data = bytearray(path.read_bytes())
    # Page 0 is older; what follows is as a transaction that made page 4 leaves it.
    leaf = data[3 * PAGE : 4 * PAGE].replace(b"old", b"new")
    data += struct.pack("<Q", 4) + leaf[8:]
    data[:PAGE] = meta(0, root=4, pages=5, transaction=9)
    path.write_bytes(data)
    assert bolt.read(os.fspath(path), plain) == {b"key": b"new"}
    # Half written: the state before it.
    data[20] ^= 1
    path.write_bytes(data)
    assert bolt.read(os.fspath(path), plain) == {b"key": b"old"}


def test_what_is_overwritten_meanwhile_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "db"
    write_bolt(path, {b"key": b"1"}, transaction=2)
    turns: list[Tree] = []

    def look(root: bolt.Bucket) -> Tree:
        if len(turns) < 2:
            # Its pages are used again by the second transaction from here.
            write_bolt(path, {b"key": b"%d" % (len(turns) + 2)}, transaction=4 + len(turns))
        turns.append(plain(root))
        return turns[-1]

    assert bolt.read(os.fspath(path), look) == {b"key": b"3"}
    assert len(turns) == 3


def test_one_that_never_rests(tmp_path: Path) -> None:
    path = tmp_path / "db"
    count = 2
    write_bolt(path, {b"key": b"1"}, transaction=count)

    def look(root: bolt.Bucket) -> None:
        nonlocal count
        count += 1
        write_bolt(path, {b"key": b"1"}, transaction=count)

    with pytest.raises(SourceError, match="written to all the time"):
        bolt.read(os.fspath(path), look)


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"x" * 20_000, b"\0" * (1 << 20)])
def test_what_is_none(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "db").write_bytes(content)
    with pytest.raises(CorruptStoreError, match="is no bbolt database"):
        bolt.read(os.fspath(tmp_path / "db"), plain)


def test_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFoundError):
        bolt.read(os.fspath(tmp_path / "none"), plain)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(CorruptStoreError, match="not a plain file"):
        bolt.read(os.fspath(tmp_path / "fifo"), plain)
    write_bolt(tmp_path / "db", TREE)
    (tmp_path / "link").symlink_to("db")
    with pytest.raises(CorruptStoreError, match="symlink"):
        bolt.read(os.fspath(tmp_path / "link"), plain)


def test_pages_in_a_circle(tmp_path: Path) -> None:
    path = tmp_path / "db"
    write_bolt(path, {b"k%d" % number: b"" for number in range(20)}, per_leaf=2)
    data = bytearray(path.read_bytes())
    for start in range(3 * PAGE, len(data), PAGE):
        flags, count = struct.unpack_from("<HH", data, start + 8)
        if flags == 1:
            for at in range(count):
                # Its own number, in each of its elements.
                struct.pack_into("<Q", data, start + 16 + at * 16 + 8, start // PAGE)
    path.write_bytes(data)
    for look in (plain, lambda root: root.get(b"k5")):
        with pytest.raises(CorruptStoreError, match="circle"):
            bolt.read(os.fspath(path), look)


def test_damage_is_told_and_never_more(tmp_path: Path) -> None:
    path = tmp_path / "db"
    small: Tree = {b"v1": {b"k%02d" % number: {b"a": b"b"} for number in range(30)}, b"x": {b"y": b"z"}}
    write_bolt(path, small, per_leaf=4)
    good = path.read_bytes()
    random_ = random.Random(1)
    outcomes = {"told": 0, "read": 0}
    begin = time.monotonic()
    for _ in range(1500):
        data = bytearray(good)
        for _change in range(random_.choice((1, 1, 3))):
            start = random_.randrange(len(data) // PAGE) * PAGE
            data[start + random_.randrange(120)] = random_.choice((0, 1, 2, 3, 4, 127, 255))
        path.write_bytes(data)
        try:
            bolt.read(os.fspath(path), plain)
        except CorruptStoreError:
            outcomes["told"] += 1
        else:
            outcomes["read"] += 1
    assert min(outcomes.values()) > 100
    assert time.monotonic() - begin < 60
