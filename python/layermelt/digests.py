"""What tells whether two layers, chains or files are the same."""

from __future__ import annotations

import os
from collections.abc import Sequence

from layermelt import _core, sources
from layermelt.errors import InvalidOptionError
from layermelt.options import Progress, StrPath, worker_threads

__all__ = ["chain_digest", "file_digest", "layer_digest", "path_key", "stat_fingerprint"]


def layer_digest(path: StrPath, *, threads: int | None = None, progress: Progress | None = None) -> str:
    """The digest of a layer directory: 64 hex digits.

    It is BLAKE3 over every entry's name, type, mode, owner, mtime in ns, device number,
    extended attributes, hard links and data, with overlay's marks as they lie on the disk.
    Equal layers have equal digests on any file system, in any order of reading, with any
    number of threads. Holes are not read, and make no difference from zeros.

    Args:
        path: The layer's tree.
        threads: `None`: one for each processor.
        progress: Called some 20 times a second with (phase, units done, units in all or 0).
            What it raises ends the work and is raised here.
    """
    [tree] = sources.resolve(None, layers=[path]).paths()
    return _core.layer_digest(tree, threads=worker_threads(threads), progress=progress).hex()


def chain_digest(
    source: StrPath | None,
    *,
    layers: Sequence[StrPath] = (),
    docker_root: StrPath | None = None,
    userxattr: bool | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> str:
    """The digest of a source's chain: 64 hex digits over its layers' digests, base first.

    How the layers' marks are understood is part of it. The arguments are those of
    `layermelt.build_rootfs`.
    """
    chain = sources.resolve(source, layers=layers, docker_root=docker_root)
    digest = _core.chain_digest(
        chain.paths(),
        userxattr=sources.choose_marks(chain, userxattr=userxattr),
        fuse_overlayfs=chain.fuse_overlayfs,
        threads=worker_threads(threads),
        progress=progress,
    )
    return digest.hex()


def stat_fingerprint(
    source: StrPath | None,
    *,
    layers: Sequence[StrPath] = (),
    docker_root: StrPath | None = None,
    userxattr: bool | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> str:
    """What says, without reading any data, that a source's chain did not change: 64 hex digits.

    In place of each file's data stand its inode number and its ctime, which moves with every
    write and which no program can set back. So a copy of a chain has another fingerprint, and
    so has one whose files were linked or renamed. The arguments are those of
    `layermelt.build_rootfs`.
    """
    chain = sources.resolve(source, layers=layers, docker_root=docker_root)
    fingerprint = _core.stat_fingerprint(
        chain.paths(),
        userxattr=sources.choose_marks(chain, userxattr=userxattr),
        fuse_overlayfs=chain.fuse_overlayfs,
        threads=worker_threads(threads),
        progress=progress,
    )
    return fingerprint.hex()


def file_digest(path: StrPath, *, threads: int | None = None, progress: Progress | None = None) -> str:
    """The digest of a file's data: 64 hex digits. Symlinks are followed.

    It has the form that files' data has in `layer_digest`, so that all threads work on one
    large file; it is not the digest that ``b3sum`` prints.
    """
    return _core.file_digest(_path(path), threads=worker_threads(threads), progress=progress).hex()


def path_key(path: StrPath) -> str:
    """The key by which older agents name the image of a path: 16 hex digits.

    It is what Rust's default ``Hasher`` makes of the path as a ``str``, of the text as it is:
    neither made absolute nor otherwise changed.

    Raises:
        InvalidOptionError: The path is no UTF-8, of which no such agent could make a ``str``.
    """
    try:
        # The path's bytes tell, whatever Python takes their encoding for (LC_ALL=C, Latin-1).
        return _core.path_key(os.fsencode(path).decode())
    except UnicodeError:
        raise InvalidOptionError(
            f"invalid path {os.fspath(path)!r} for a path key: it is no UTF-8; rename it or use another key"
        ) from None


def _path(path: StrPath) -> str:
    text = os.fsdecode(path)
    if not text or "\0" in text:
        raise InvalidOptionError(f"invalid path {text!r}: expected the path of a file")
    return text
