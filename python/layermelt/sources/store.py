"""What the overlay stores of Docker and of containers/storage have in common.

Both keep a layer's tree in ``<id>/diff``, a short name for it in ``<id>/link``, and the
short names of all layers below it, nearest first, in ``<id>/lower``::

    overlay2/<id>/diff/
    overlay2/<id>/link       26 characters
    overlay2/<id>/lower      "l/AAA:l/BBB:..."
    overlay2/l/AAA        -> ../<id>/diff

A store may hold whatever somebody put there: files are read up to a limit and never
through a symlink, and nothing that a file says is used as a path before it was found to
be a plain name.
"""

from __future__ import annotations

import errno
import json
import os
import re
import stat
from collections.abc import Iterable, Sequence
from typing import Any

from layermelt.errors import (
    CorruptStoreError,
    SourceError,
    SourceNotFoundError,
    UnreadableError,
    UnsupportedSourceError,
)
from layermelt.settings import MAX_LAYERS

__all__ = [
    "ID",
    "check_container_layer",
    "check_layers",
    "check_trees",
    "cross_check",
    "exists",
    "is_users_store",
    "lower_links",
    "open_plain",
    "read_json",
    "read_small",
    "read_text",
    "resolve_link",
    "sees_trusted",
]

#: Layer ids: 64 hex digits of either store, 25 base-36 ones of BuildKit, and "-init".
ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,254}", re.ASCII)
_LINK = re.compile(r"l/([A-Za-z0-9]{1,64})", re.ASCII)
_TARGET = re.compile(rf"\.\./({ID.pattern})/diff", re.ASCII)
#: 500 layers of "l/" and 26 characters have 14,500 bytes.
_MAX_LOWER = 64 << 10
_EFFECTIVE = re.compile(rb"^CapEff:\s*([0-9a-f]+)$", re.MULTILINE)
_CAP_SYS_ADMIN = 21
_FIRST_NAMESPACE = (0, 0, (1 << 32) - 1)
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def exists(path: str) -> bool:
    """Whether there is anything of that name; no permission to see is an error."""
    try:
        os.lstat(path)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return False
        raise failed("look at", path, error) from None
    return True


def failed(action: str, path: str, error: OSError) -> SourceError | UnreadableError:
    """The error for a failed system call on a path of a store."""
    text = f"cannot {action} {path}: {error.strerror}"
    if error.errno in (errno.EACCES, errno.EPERM):
        return UnreadableError(
            f"{text}; reading a store needs its owner's permissions: run as its owner or as root",
            path=path,
            errno=error.errno,
        )
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return SourceNotFoundError(text, path=path, errno=error.errno)
    if error.errno == errno.ELOOP:
        return CorruptStoreError(f"{path}: a symlink; a plain file or directory is expected", path=path)
    return SourceError(text, path=path)


def open_plain(path: str) -> tuple[int, os.stat_result]:
    """A descriptor of a plain file, to be read and closed, and its status."""
    try:
        fd = os.open(path, _READ)
    except OSError as error:
        raise failed("open", path, error) from None
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise CorruptStoreError(f"{path}: not a plain file", path=path)
    except BaseException:
        os.close(fd)
        raise
    return fd, status


def read_small(path: str, limit: int) -> bytes:
    """The content of a plain file of at most `limit` bytes."""
    fd, status = open_plain(path)
    try:
        content = b""
        if status.st_size <= limit:
            with open(fd, "rb", closefd=False) as file:
                content = file.read(limit + 1)
    except OSError as error:
        raise failed("read", path, error) from None
    finally:
        os.close(fd)
    if max(status.st_size, len(content)) > limit:
        raise CorruptStoreError(f"{path}: has more than {limit} bytes, far above what it should", path=path)
    return content


def read_text(path: str, limit: int = 4096) -> str:
    """The content of a small file of one line of ASCII."""
    content = read_small(path, limit)
    try:
        return content.decode("ascii").strip()
    except UnicodeDecodeError:
        raise CorruptStoreError(f"{path}: holds bytes that do not belong there", path=path) from None


def read_json(path: str, limit: int = 64 << 20) -> Any:
    """The content of a JSON file."""
    return parse_json(read_small(path, limit), path)


def parse_json(content: bytes, path: str) -> Any:
    """Parses what `path` held."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise CorruptStoreError(f"{path}: not valid JSON ({error})", path=path) from None


def lower_links(layer: str) -> list[str] | None:
    """The short names in a layer's ``lower``, nearest first; `None` when it has none."""
    path = os.path.join(layer, "lower")
    try:
        text = read_text(path, _MAX_LOWER)
    except SourceNotFoundError:
        return None
    names: list[str] = []
    for item in text.split(":"):
        match = _LINK.fullmatch(item)
        if match is None:
            raise CorruptStoreError(
                f"{path}: {item[:80]!r} is no link of the form l/NAME; the layer is damaged", path=path
            )
        names.append(match[1])
    if len(names) >= MAX_LAYERS:
        raise CorruptStoreError(
            f"{path}: names {len(names)} layers; the kernel takes at most {MAX_LAYERS}", path=path
        )
    if len(set(names)) != len(names):
        raise CorruptStoreError(f"{path}: names a layer twice", path=path)
    return names


def resolve_link(store: str, name: str) -> str:
    """The id of the layer with that short name."""
    path = os.path.join(store, "l", name)
    try:
        target = os.readlink(path)
    except OSError as error:
        if error.errno == errno.EINVAL:
            raise CorruptStoreError(f"{path}: not a symlink", path=path) from None
        raise failed("read the link", path, error) from None
    match = _TARGET.fullmatch(target)
    if match is None:
        raise CorruptStoreError(
            f"{path}: points to {target[:200]!r}; exactly ../<id>/diff is expected", path=path
        )
    return match[1]


def cross_check(layers: Iterable[str]) -> None:
    """Compares what the layers (paths, top first) say of each other.

    A ``lower`` is complete: each layer's is its parent's short name and the parent's
    ``lower``. Whatever disagrees would make another image than the one meant.
    """
    rest: list[str] | None = None
    for layer in layers:
        own = lower_links(layer) or []
        if rest is not None:
            link_path = os.path.join(layer, "link")
            link = read_text(link_path)
            if link != rest[0]:
                raise CorruptStoreError(
                    f"{link_path}: says {link[:80]!r}, but the layer above it names {rest[0]!r}",
                    path=link_path,
                )
            if own != rest[1:]:
                path = os.path.join(layer, "lower")
                raise CorruptStoreError(
                    f"{path}: does not name the same layers as the layer above it", path=path
                )
        rest = own


def check_layers(trees: Sequence[str]) -> None:
    """Demands of trees that lie in their layers' directories that all of both are there and may be read."""
    check_trees([*map(os.path.dirname, trees), *trees])


def check_trees(trees: Iterable[str]) -> None:
    """Demands that each of the directories is one and may be read, telling all at once."""
    unreadable: list[str] = []
    for tree in trees:
        try:
            mode = os.lstat(tree).st_mode
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EPERM):
                raise failed("open", tree, error) from None
            unreadable.append(tree)
            continue
        if not stat.S_ISDIR(mode):
            raise CorruptStoreError(f"{tree}: not a directory", path=tree)
        if not os.access(tree, os.R_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
            unreadable.append(tree)
    if unreadable:
        listed = "\n  ".join(unreadable[:50])
        more = f"\n  and {len(unreadable) - 50} more" if len(unreadable) > 50 else ""
        raise UnreadableError(
            f"these layers cannot be read (run as their owner, or as root):\n  {listed}{more}",
            path=unreadable[0],
            paths=tuple(unreadable),
        )


def check_container_layer(layer: str) -> list[str]:
    """Refuses a container's own layer that does not hold all its changes; warnings.

    With ``index=on`` a hard link that was copied up is known by an entry of
    ``work/index`` alone: its other names would show the old content.
    """
    index = os.path.join(layer, "work", "index")
    try:
        with os.scandir(index) as entries:
            used = next(entries, None) is not None
    except (FileNotFoundError, NotADirectoryError):
        used = False
    except OSError as error:
        raise failed("open", index, error) from None
    if used:
        raise UnsupportedSourceError(
            f"{index}: is not empty: this container was mounted with index=on, and its layer alone does not "
            "hold its hard links; commit it to an image and build from that",
            path=index,
        )
    if os.path.ismount(os.path.join(layer, "merged")):
        return [f"{layer}: is mounted, so that something may write to it during the build"]
    return []


def is_users_store(store: str) -> bool:
    """Whether an ordinary user's daemon wrote the store, with ``user.overlay.*`` marks.

    Nothing in a store says it. But only root can write ``trusted.*``, so that a store that
    is not root's has the other form, except where Docker remaps users: then it is
    ``<data root>/<uid>.<gid>/overlay2``, still written by root.
    """
    try:
        owner = _outer_uid(os.stat(store).st_uid)
    except OSError as error:
        raise failed("look at", store, error) from None
    remapped = re.fullmatch(r"[0-9]+\.[0-9]+", os.path.basename(os.path.dirname(store)), re.ASCII)
    return owner != 0 and not remapped


def sees_trusted() -> bool:
    """Whether the kernel shows us ``trusted.*`` attributes.

    It asks for CAP_SYS_ADMIN in the first user namespace, and lists nothing to all others.
    """
    try:
        with open("/proc/self/status", "rb") as status:
            match = _EFFECTIVE.search(status.read())
    except OSError:
        # Without /proc this is hardly a container; the core asks in its own way and warns.
        return True
    held = match is not None and int(match[1], 16) >> _CAP_SYS_ADMIN & 1 == 1
    return held and _uid_map() == [_FIRST_NAMESPACE]


def _uid_map() -> list[tuple[int, int, int]]:
    """(first id here, first id outside, how many) of this user namespace."""
    try:
        with open("/proc/self/uid_map", encoding="ascii") as lines:
            ranges = [tuple(map(int, line.split())) for line in lines]
    except OSError:
        return [_FIRST_NAMESPACE]
    return [(here, outside, count) for here, outside, count in ranges]


def _outer_uid(uid: int) -> int:
    """Who that is outside this user namespace; root where it cannot be said."""
    for here, outside, count in _uid_map():
        if here <= uid < here + count:
            return outside + uid - here
    return 0
