"""In what two trees differ: chains, images and directories, as the kernel would show them."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from layermelt import _core, busy, sources
from layermelt.errors import InvalidOptionError, UnsupportedSourceError
from layermelt.options import Progress, StrPath, worker_threads
from layermelt.settings import IGNORABLE
from layermelt.sources import store

__all__ = ["DiffResult", "Difference", "FieldChange", "LinkGroup", "diff_trees"]

#: Prefixes that say what a path is.
_DIRECTORY = "dir:"
_IMAGE = "image:"


class LinkGroup(NamedTuple):
    """The names of one inode.

    Attributes:
        names: How many there are.
        first: The first 8 of their paths, in the order of their bytes.
    """

    names: int
    first: tuple[bytes, ...]


@dataclass(frozen=True)
class FieldChange:
    """One thing that differs of a path that both trees have.

    Attributes:
        field: ``type``, ``mode``, ``uid``, ``gid``, ``mtime``, ``size``, ``target``, ``device``,
            ``xattr``, ``links`` or ``content``.
        a: The value in the first tree: a `str` of ``type``; an `int` of ``mode`` (its 12 low
            bits), ``uid``, ``gid``, ``mtime`` (ns since 1970) and ``size`` (bytes); the bytes of
            ``target``; (major, minor) of ``device``; the bytes of ``xattr``, or `None` where
            there is none of that name; a `LinkGroup` of ``links``; of ``content`` the offset
            of the first byte that differs, in both.
        b: The value in the second tree.
        name: Of ``xattr``: the attribute's name.
    """

    field: str
    a: Any
    b: Any
    name: bytes | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON: the values of attributes in hex, names and targets as `os.fsdecode` tells them."""
        if self.field == "content":
            return {"field": "content", "offset": self.a}
        named = {} if self.name is None else {"name": text(self.name)}
        return {"field": self.field, **named, "a": _plain(self, self.a), "b": _plain(self, self.b)}


@dataclass(frozen=True)
class Difference:
    """A path at which two trees differ.

    Attributes:
        path: The absolute path in the trees; ``b"/"`` is the root.
        kind: ``only-a``, ``only-b`` or ``changed``.
        type: Of a path that one tree alone has: ``file``, ``directory``, ``symlink``,
            ``character device``, ``block device``, ``fifo`` or ``socket``.
        size: Of a regular file that one tree alone has, in bytes.
        below: When it is a directory in one tree alone: the names at all depths below it.
        changes: What differs of a ``changed`` one.
    """

    path: bytes
    kind: str
    type: str | None = None
    size: int | None = None
    below: int = 0
    changes: tuple[FieldChange, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        found: dict[str, Any] = {"path": text(self.path), "kind": self.kind}
        if self.type is not None:
            found["type"] = self.type
        if self.size is not None:
            found["size"] = self.size
        if self.below or self.type == "directory":
            found["below"] = self.below
        if self.changes:
            found["changes"] = [change.as_dict() for change in self.changes]
        return found


@dataclass(frozen=True)
class DiffResult:
    """In what two trees differ.

    Attributes:
        a: What the first tree is.
        b: What the second tree is.
        entries_a: Names in the first tree.
        entries_b: Names in the second tree.
        only_a: Paths that the first tree alone has. A directory counts once, unless all names
            below were asked for.
        only_b: The same of the second tree.
        changed: Paths that both have and that differ.
        differences: The differences by the order of their paths' bytes; those beyond the limit
            are left out, and all when they were given to a callback.
        warnings: What the user should know, a sentence each.
        seconds: How long it took.
    """

    a: str
    b: str
    entries_a: int
    entries_b: int
    only_a: int
    only_b: int
    changed: int
    differences: tuple[Difference, ...]
    warnings: tuple[str, ...]
    seconds: float

    @property
    def equal(self) -> bool:
        """Whether there is no difference."""
        return self.count == 0

    @property
    def count(self) -> int:
        """How many differences there are, with those that were left out."""
        return self.only_a + self.only_b + self.changed

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            **self.__dict__,
            "equal": self.equal,
            "differences": [one.as_dict() for one in self.differences],
            "warnings": list(self.warnings),
        }


@dataclass(frozen=True)
class _Side:
    kind: str
    paths: tuple[str, ...]
    description: str
    userxattr: bool = False
    fuse_overlayfs: bool = False
    warnings: tuple[str, ...] = ()

    def argument(self) -> tuple[str, tuple[str, ...], bool, bool]:
        return self.kind, self.paths, self.userxattr, self.fuse_overlayfs


def diff_trees(
    a: StrPath,
    b: StrPath,
    *,
    docker_root: StrPath | None = None,
    threads: int | None = None,
    userxattr: bool | None = None,
    ignore: Sequence[str] = (),
    exclude: Sequence[str | bytes] = (),
    all_names: bool = False,
    strict: bool = False,
    limit: int | None = 10_000,
    on_difference: Callable[[Difference], object] | None = None,
    progress: Progress | None = None,
) -> DiffResult:
    """Compares two trees entry by entry, as the kernel would show them.

    Compared are type, mode, owner, mtime in ns, size, content, symlinks' targets, device numbers,
    extended attributes (POSIX ACLs among them) and which names are one inode. What cannot be equal
    is not: inode numbers, atime, ctime, crtime, the sizes of directories, where a file has holes.

    A plain directory is taken as ``lstat`` and ``listxattr`` show it to this process: overlay's
    marks in it are device nodes and attributes like others (a user other than root sees no
    ``trusted.*``). It is refused when something is mounted in it.

    Args:
        a: A chain directory, ``docker:NAME``, a directory, or an image: a file or block device
            with an ext2, ext3 or ext4 of any origin. ``dir:PATH`` is a plain directory even if it
            looks like a chain's, ``image:PATH`` an image.
        b: What to compare it with, of any of these kinds.
        docker_root: Docker's data root, for ``docker:``.
        threads: `None`: one for each processor.
        userxattr: Whether chains' marks are ``user.overlay.*``; `None`: what the store says.
        ignore: What not to compare: of ``content`` (with the size), ``links``, ``mode``,
            ``mtime``, ``owner``, ``xattrs``.
        exclude: Absolute paths that are left out in both trees, with all below them.
        all_names: Whether to tell each name below a directory that one tree alone has.
        strict: Whether to tell of an empty ``/lost+found`` that one tree alone has, too.
        limit: How many differences are kept in the result at the most; `None`: all. They are
            counted in any case.
        on_difference: Called with each difference instead, in another thread, after all was
            compared. What it raises ends the work and is raised here.
        progress: Called some 20 times a second with (phase, units done, units in all or 0).
            What it raises ends the work and is raised here.

    Raises:
        LayermeltError: One of `layermelt.errors`.
    """
    since = time.monotonic()
    unknown = sorted(set(ignore) - set(IGNORABLE))
    if unknown:
        raise InvalidOptionError(f"cannot ignore {unknown[0]!r}: expected one of {', '.join(IGNORABLE)}")
    if limit is not None and limit < 0:
        raise InvalidOptionError(f"invalid limit {limit}: expected a number of differences, or None")
    excluded = [_excluded(path) for path in exclude]
    sides = [_side(side, docker_root, userxattr=userxattr) for side in (a, b)]
    kept: list[Difference] = []

    def tell(found: tuple[Any, ...]) -> None:
        if on_difference is not None:
            on_difference(_difference(found))
        elif limit is None or len(kept) < limit:
            kept.append(_difference(found))

    counts, tree_a, tree_b, warnings = _core.diff_trees(
        sides[0].argument(),
        sides[1].argument(),
        ignore=list(ignore),
        exclude=excluded,
        all_names=all_names,
        strict=strict,
        threads=worker_threads(threads),
        tell=tell,
        progress=progress,
    )
    return DiffResult(
        a=sides[0].description,
        b=sides[1].description,
        entries_a=tree_a.entries,
        entries_b=tree_b.entries,
        only_a=counts[0],
        only_b=counts[1],
        changed=counts[2],
        differences=tuple(kept),
        warnings=(*sides[0].warnings, *sides[1].warnings, *warnings),
        seconds=time.monotonic() - since,
    )


def text(name: bytes) -> str:
    """A name in a tree as a `str` from which its bytes can be had again, in any locale."""
    return name.decode("utf-8", "surrogateescape")


def _excluded(path: str | bytes) -> bytes:
    name = path.encode("utf-8", "surrogateescape") if isinstance(path, str) else path
    if not name.startswith(b"/") or not name.strip(b"/"):
        raise InvalidOptionError(f"invalid path {path!r} to leave out: expected an absolute one below /")
    if {b".", b".."} & set(name.split(b"/")):
        raise InvalidOptionError(f"invalid path {path!r} to leave out: expected one without . and ..")
    return name


def _side(named: StrPath, docker_root: StrPath | None, *, userxattr: bool | None) -> _Side:
    path = os.fsdecode(named)
    if isinstance(named, str):
        if path.startswith(_DIRECTORY):
            return _directory(path.removeprefix(_DIRECTORY))
        if path.startswith(_IMAGE):
            return _image(path.removeprefix(_IMAGE))
    if not sources.names_image(named) and path and "\0" not in path:
        mode = _mode(path)
        if stat.S_ISREG(mode) or stat.S_ISBLK(mode):
            return _image(path)
        if stat.S_ISDIR(mode) and not _is_chain_directory(path):
            return _directory(path)
        if mode and not stat.S_ISDIR(mode):
            raise UnsupportedSourceError(
                f"{path}: neither a directory nor an image, which is a regular file or a block device",
                path=path,
            )
    chain = sources.resolve(named, docker_root=docker_root)
    return _Side(
        kind="chain",
        paths=tuple(chain.paths()),
        description=chain.description,
        userxattr=sources.choose_marks(chain, userxattr=userxattr),
        fuse_overlayfs=chain.fuse_overlayfs,
        warnings=chain.warnings,
    )


def _is_chain_directory(path: str) -> bool:
    try:
        return sources.is_chain_directory(os.path.realpath(path))
    except FileNotFoundError:
        # The working directory was removed, as whoever reads it tells.
        return False


def _mode(path: str) -> int:
    try:
        return os.stat(path).st_mode
    except OSError:
        # Whoever opens it tells what is wrong.
        return 0


def _directory(path: str) -> _Side:
    if not path or "\0" in path:
        raise InvalidOptionError(f"invalid path {path!r}: expected a directory")
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        raise store.failed("open", path, error) from None
    if not stat.S_ISDIR(mode):
        raise UnsupportedSourceError(f"{path}: not a directory", path=path)
    return _Side(kind="directory", paths=(path,), description=f"directory {path}")


def _image(path: str) -> _Side:
    if not path or "\0" in path:
        raise InvalidOptionError(f"invalid path {path!r}: expected an image")
    return _Side(kind="image", paths=(path,), description=f"image {path}", warnings=_written_to(path))


def _written_to(path: str) -> tuple[str, ...]:
    """A warning if the kernel may have newer blocks than the image, or write to it meanwhile."""
    try:
        status = os.stat(path)
    except OSError:
        # Whoever opens it tells what is wrong.
        return ()
    device = busy.device_in_use(path, status)
    if device is None:
        return ()
    return (f"{path}: is in use as {device}: what was not written to it yet is not seen",)


def _difference(found: tuple[Any, ...]) -> Difference:
    path, kind, type_, size, below, changes = found
    return Difference(path, kind, type_, size, below, tuple(_change(*change) for change in changes))


def _change(field: str, name: bytes | None, a: Any, b: Any) -> FieldChange:
    if field == "links":
        return FieldChange(field, LinkGroup(*a), LinkGroup(*b))
    return FieldChange(field, a, b, name)


def _plain(change: FieldChange, value: Any) -> Any:
    if isinstance(value, LinkGroup):
        return {"names": value.names, "first": [text(path) for path in value.first]}
    if isinstance(value, bytes):
        return value.hex() if change.field == "xattr" else text(value)
    return list(value) if isinstance(value, tuple) else value
