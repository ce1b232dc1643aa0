"""Reads a mounted tree entry by entry, everything an image must carry.

All access is through directory descriptors, so that names of any bytes and
trees deeper than PATH_MAX are read like any other.

Known deviations of the kernel's overlay view are taken out here:

- phantoms: a directory backed by one layer is listed raw, whiteouts and all;
  a name that lstat refuses with ENOENT is not there;
- st_nlink of an overlay counts hidden names: groups are told by identity;
- extents are advisory: content is compared, not where its holes lie.
"""

from __future__ import annotations

import errno
import hashlib
import os
import resource
import stat
from collections import defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path

from integration.oracle import kernel

#: Content is hashed in pieces of this size; those that are all zero are left
#: out, so that a hole and written zeros are one content and 1 TiB of hole is
#: read in no time.
PIECE = 65536

_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFCHR: "char",
    stat.S_IFBLK: "block",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
}


@dataclass(frozen=True)
class Entry:
    """One name of a tree with all that an image must carry of it."""

    kind: str
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    rdev: tuple[int, int] | None = None
    size: int | None = None
    content: str | None = None
    target: bytes | None = None
    #: Every visible name of the inode, when it has more than one.
    group: frozenset[bytes] = frozenset()


@dataclass
class Tree:
    """A dumped tree. The root's path is empty."""

    entries: dict[bytes, Entry] = field(default_factory=dict)
    #: Paths at which the kernel answered with an error, and which one.
    refused: dict[bytes, str] = field(default_factory=dict)
    #: st_nlink and allocated bytes as the file system says them.
    links: dict[bytes, int] = field(default_factory=dict)
    allocated: dict[bytes, int] = field(default_factory=dict)


def dump(root: Path) -> Tree:
    """Everything below and including ``root``."""
    _allow_many_descriptors()
    tree = Tree()
    groups: defaultdict[tuple[int, int], list[bytes]] = defaultdict(list)
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    status = os.stat(fd)
    tree.entries[b""] = _common(status, _xattrs(fd))
    # Each open directory with its path and the names still to be gone into.
    stack: list[tuple[int, bytes, list[bytes]]] = [(fd, b"", _read_directory(tree, groups, fd, b""))]
    try:
        while stack:
            parent, path, todo = stack[-1]
            if not todo:
                os.close(stack.pop()[0])
                continue
            name = todo.pop()
            child = _join(path, name)
            try:
                fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
            except OSError as error:
                tree.refused[child] = _code(error)
                continue
            stack.append((fd, child, []))
            stack[-1] = (fd, child, _read_directory(tree, groups, fd, child))
    finally:
        for open_fd, _, _ in stack:
            os.close(open_fd)
    for paths in groups.values():
        if len(paths) > 1:
            group = frozenset(paths)
            for one in paths:
                tree.entries[one] = replace(tree.entries[one], group=group)
    return tree


def inode_flags(root: Path) -> dict[bytes, int]:
    """Those that an image can keep, of each file and directory that has some, as the kernel tells them."""
    found = {}
    for directory, _, files, fd in os.fwalk(os.fsencode(root)):
        for name in [b".", *files]:
            try:
                mode = os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode
            except FileNotFoundError:
                continue
            if name != b"." and not stat.S_ISREG(mode):
                continue
            opened = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=fd)
            try:
                flags = kernel.inode_flags(opened) & kernel.KEPT_FLAGS
            finally:
                os.close(opened)
            if flags:
                path = os.path.relpath(os.path.join(directory, name), os.fsencode(root))
                found[b"" if path == b"." else path] = flags
    return found


def _read_directory(
    tree: Tree,
    groups: defaultdict[tuple[int, int], list[bytes]],
    fd: int,
    path: bytes,
) -> list[bytes]:
    """Records the entries of a directory; its sub-directories' names."""
    subdirectories = []
    try:
        names = sorted(os.fsencode(name) for name in os.listdir(fd))
    except OSError as error:
        tree.refused[path] = _code(error)
        return []
    for name in names:
        child = _join(path, name)
        try:
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
        except OSError as error:
            if error.errno != errno.ENOENT:
                tree.refused[child] = _code(error)
            continue
        try:
            tree.entries[child] = _entry(fd, name, status)
        except OSError as error:
            tree.refused[child] = _code(error)
            continue
        tree.links[child] = status.st_nlink
        tree.allocated[child] = status.st_blocks * 512
        if stat.S_ISDIR(status.st_mode):
            subdirectories.append(name)
        else:
            # Whatever st_nlink: by redirects one name can show at two places.
            groups[status.st_dev, status.st_ino].append(child)
    subdirectories.reverse()
    return subdirectories


def _entry(fd: int, name: bytes, status: os.stat_result) -> Entry:
    entry = _common(status, _xattrs(b"/proc/self/fd/%d/%b" % (fd, name)))
    if entry.kind == "file":
        content = _content(fd, name, status.st_size)
        return replace(entry, size=status.st_size, content=content)
    if entry.kind == "symlink":
        target = os.readlink(name, dir_fd=fd)
        return replace(entry, size=status.st_size, target=target)
    if entry.kind in ("char", "block"):
        device = (os.major(status.st_rdev), os.minor(status.st_rdev))
        return replace(entry, rdev=device)
    return entry


def _common(status: os.stat_result, xattrs: tuple[tuple[bytes, bytes], ...]) -> Entry:
    return Entry(
        kind=_KINDS[stat.S_IFMT(status.st_mode)],
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        mtime_ns=status.st_mtime_ns,
        xattrs=xattrs,
    )


def _xattrs(where: int | bytes) -> tuple[tuple[bytes, bytes], ...]:
    follow = isinstance(where, int)
    found = []
    for name in os.listxattr(where, follow_symlinks=follow):
        value = os.getxattr(where, name, follow_symlinks=follow)
        found.append((os.fsencode(name), value))
    return tuple(sorted(found))


def _content(directory: int, name: bytes, size: int) -> str:
    """A digest of the bytes, blind to where holes are."""
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory)
    try:
        return _content_by_descriptor(fd, size)
    finally:
        os.close(fd)


def content_of_file(path: Path) -> str:
    """The same digest of any file: equal for equal bytes, quick where it is sparse."""
    fd = os.open(path, os.O_RDONLY)
    try:
        return _content_by_descriptor(fd, os.fstat(fd).st_size)
    finally:
        os.close(fd)


def _content_by_descriptor(fd: int, size: int) -> str:
    digest = hashlib.sha256()
    position = 0
    while position < size:
        try:
            position = os.lseek(fd, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                break
            raise
        position -= position % PIECE
        piece = os.pread(fd, PIECE, position)
        if not piece:
            raise OSError(errno.EIO, "the file is shorter than its size says")
        if piece.count(0) != len(piece):
            digest.update(position.to_bytes(8, "little"))
            digest.update(piece)
        position += PIECE
    return digest.hexdigest()


def content_of(data: bytes) -> str:
    """The ``content`` that a file of these bytes has."""
    digest = hashlib.sha256()
    for position in range(0, len(data), PIECE):
        piece = data[position : position + PIECE]
        if piece.count(0) != len(piece):
            digest.update(position.to_bytes(8, "little"))
            digest.update(piece)
    return digest.hexdigest()


def _join(path: bytes, name: bytes) -> bytes:
    return path + b"/" + name if path else name


def _code(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, str(error))


def _allow_many_descriptors() -> None:
    """One descriptor is open for each level of the tree."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
