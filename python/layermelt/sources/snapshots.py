"""The snapshots of containerd's overlayfs snapshotter: ``snapshots/<id>``.

Each has its layer's tree in ``fs``, and what lies below it is told by a database beside them::

    <snapshotter>/metadata.db         v1/snapshots/<name>/{id,parent,kind}
    <snapshotter>/snapshots/<id>/fs/
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from layermelt.errors import CorruptStoreError, SourceNotFoundError
from layermelt.settings import MAX_LAYERS
from layermelt.sources import store
from layermelt.sources.chain import Chain, layers_text

if TYPE_CHECKING:
    from layermelt.sources import bolt

__all__ = ["is_snapshot", "resolve", "trees"]

_DATABASE = "metadata.db"
_ACTIVE, _COMMITTED = b"\x02", b"\x03"


def is_snapshot(path: str) -> bool:
    """Whether that directory looks like one, with a database that tells of it."""
    folder, name = os.path.split(os.path.dirname(path))
    return (
        name == "snapshots"
        and store.exists(os.path.join(path, "fs"))
        and store.exists(os.path.join(folder, _DATABASE))
    )


def resolve(path: str) -> Chain:
    """The chain that ends with the snapshot at `path`, which is a real path."""
    from layermelt.sources import bolt

    snapshots, number = os.path.split(path)
    folder = os.path.dirname(snapshots)
    database = os.path.join(folder, _DATABASE)

    def look(root: bolt.Bucket) -> tuple[list[int], bool]:
        entries = root.bucket(b"v1", b"snapshots")
        entry = None if entries is None else _with_number(entries, number, database)
        if entries is None or entry is None:
            raise SourceNotFoundError(f"{database}: has no snapshot of the number {number}", path=database)
        active = entry.value(b"kind") == _ACTIVE
        ids: list[int] = []
        while True:
            ids.append(_number(entry, database))
            name = entry.value(b"parent")
            if not name:
                return ids[::-1], active
            if len(ids) >= MAX_LAYERS:
                raise CorruptStoreError(f"{database}: snapshot {number} has no base", path=database)
            entry = _entry(entries, name, database)

    ids, active = bolt.read(database, look)
    warnings = store.check_container_layer(path)
    if active:
        warnings.append(f"{path}: is a container's, which may write to it during the build")
    found = _checked(folder, ids)
    return Chain(
        layers=tuple(map(Path, found)),
        userxattr=store.is_users_store(folder),
        store=Path(folder),
        description=f"containerd snapshot {number} ({layers_text(len(found))})",
        warnings=tuple(warnings),
    )


def trees(folder: str, names: Sequence[bytes], what: str) -> list[str]:
    """The trees of an image's layers, base first, of their snapshots' names; `what` is the image."""
    from layermelt.sources import bolt

    database = os.path.join(folder, _DATABASE)

    def look(root: bolt.Bucket) -> list[int]:
        entries = root.bucket(b"v1", b"snapshots")
        ids = []
        for at, name in enumerate(names):
            if entries is None:
                raise CorruptStoreError(f"{database}: has no table of snapshots", path=database)
            entry = _entry(entries, name, database)
            below = names[at - 1] if at else b""
            if entry.value(b"kind") != _COMMITTED or _image_parent(entries, entry) != below:
                raise CorruptStoreError(
                    f"{database}: the snapshot {_shown(name)} is not that of a layer of {what!r}; pull it again",
                    path=database,
                )
            ids.append(_number(entry, database))
        return ids

    return _checked(folder, bolt.read(database, look))


def _checked(folder: str, ids: Sequence[int]) -> list[str]:
    found = [os.path.join(folder, "snapshots", str(number), "fs") for number in ids]
    store.check_layers(found)
    return found


def _image_parent(entries: bolt.Bucket, entry: bolt.Bucket) -> bytes:
    """The snapshot of an image's layer below; empty: there is none.

    A layer that `docker commit` made lies upon what Docker put below the container, empty files such
    as /etc/hosts in a snapshot "<container>-init": that is no part of the image.
    """
    parent = entry.value(b"parent") or b""
    init = entries.bucket(parent) if parent.endswith(b"-init") else None
    return parent if init is None else init.value(b"parent") or b""


def _entry(entries: bolt.Bucket, name: bytes, database: str) -> bolt.Bucket:
    entry = entries.bucket(name)
    if entry is None:
        raise SourceNotFoundError(
            f"{database}: has no snapshot {_shown(name)}; pull the image again", path=database
        )
    return entry


def _with_number(entries: bolt.Bucket, number: str, database: str) -> bolt.Bucket | None:
    for _, entry in entries:
        if not isinstance(entry, bytes) and str(_number(entry, database)) == number:
            return entry
    return None


def _number(entry: bolt.Bucket, database: str) -> int:
    """As Go's `binary.PutUvarint` writes it: seven bits a byte, the lowest first."""
    value = entry.value(b"id")
    if not value or len(value) > 10 or value[-1] & 0x80:
        raise CorruptStoreError(f"{database}: a snapshot has no valid number", path=database)
    return sum((byte & 0x7F) << 7 * at for at, byte in enumerate(value))


def _shown(name: bytes) -> str:
    return repr(name.decode("utf-8", "backslashreplace"))
