"""Says how an image's tree differs from the kernel's merged tree."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import fields, replace
from datetime import datetime, timedelta, timezone

from integration.oracle.dump import Entry, Tree

#: A file may use this much more than its source: the host rounds otherwise.
DENSER_BY = 131072
#: xfs lists an ACL twice, once in a form of its own, also through an overlay; and
#: a file's compression is an attribute on btrfs. No image may show these.
OF_THE_HOST = (b"trusted.SGI_ACL_", b"btrfs.")


def differences(expected: Tree, actual: Tree) -> list[str]:
    """One readable line for each field of each entry that is not equal.

    ``expected`` is the kernel's view of the chain, ``actual`` that of the image.
    """
    return list(_differences(expected, actual))


def report(lines: list[str], limit: int = 40) -> str:
    """The first lines, and how many there are."""
    shown = lines[:limit]
    if len(lines) > limit:
        shown.append(f"... and {len(lines) - limit} more")
    return "\n".join(["the image is not what the kernel shows:", *shown])


def _differences(expected: Tree, actual: Tree) -> Iterator[str]:
    wanted = {path: _without_the_host_s(entry) for path, entry in expected.entries.items()}
    found = dict(actual.entries)
    yield from _made_lost_and_found(wanted, found)
    for path in sorted(wanted.keys() - found.keys()):
        yield f"{show(path)}: MISSING in the image ({wanted[path].kind})"
    for path in sorted(found.keys() - wanted.keys()):
        yield f"{show(path)}: NOT in the kernel's view ({found[path].kind})"
    for path in sorted(wanted.keys() & found.keys()):
        yield from _entry_differences(path, wanted[path], found[path])
    for path, code in sorted(actual.refused.items()):
        yield f"{show(path)}: the image's kernel view answers {code}"
    for path, code in sorted(expected.refused.items()):
        yield f"{show(path)}: the chain's kernel view answers {code}"
    for path, entry in sorted(found.items()):
        if path and entry.kind != "directory":
            names = max(1, len(entry.group))
            if actual.links[path] != names:
                yield f"{show(path)}: st_nlink {actual.links[path]}, visible {names}"
    for path in sorted(wanted.keys() & found.keys()):
        if wanted[path].kind == "file" and path in actual.allocated:
            ours, theirs = actual.allocated[path], expected.allocated[path]
            if ours > theirs + DENSER_BY:
                yield f"{show(path)}: uses {ours} bytes, its source {theirs}: holes lost"


def _entry_differences(path: bytes, wanted: Entry, found: Entry) -> Iterator[str]:
    for one in fields(Entry):
        left, right = getattr(wanted, one.name), getattr(found, one.name)
        if left != right:
            yield (
                f"{show(path)}: {one.name}: kernel {_value(one.name, left)}, image {_value(one.name, right)}"
            )


def _without_the_host_s(entry: Entry) -> Entry:
    if not any(name.startswith(OF_THE_HOST) for name, _ in entry.xattrs):
        return entry
    kept = tuple(pair for pair in entry.xattrs if not pair[0].startswith(OF_THE_HOST))
    return replace(entry, xattrs=kept)


def _made_lost_and_found(wanted: dict[bytes, Entry], found: dict[bytes, Entry]) -> Iterator[str]:
    """/lost+found is the file system's own where the chain has none."""
    name = b"lost+found"
    if name in wanted or name not in found:
        return
    own = found.pop(name)
    as_made = (own.kind, own.mode, own.uid, own.gid, own.xattrs)
    if as_made != ("directory", stat.S_IRWXU, 0, 0, ()):
        yield f"/lost+found: not as mke2fs makes it: {own}"


def _value(name: str, value: object) -> str:
    if name == "mode" and isinstance(value, int):
        return f"{value:04o}"
    if name == "mtime_ns" and isinstance(value, int):
        seconds, nanoseconds = divmod(value, 10**9)
        start = datetime(1970, 1, 1, tzinfo=timezone.utc)
        try:
            text = (start + timedelta(seconds=seconds)).isoformat()
        except OverflowError:
            text = "beyond the calendar"
        return f"{seconds}.{nanoseconds:09d} ({text})"
    if isinstance(value, frozenset):
        return "{" + ", ".join(show(path) for path in sorted(value)) + "}"
    if name == "xattrs" and isinstance(value, tuple):
        return "{" + ", ".join(f"{k!r}: {_short(v)}" for k, v in value) + "}"
    return _short(value)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:100]}... ({len(text)} characters)"


def show(path: bytes) -> str:
    """A path as messages show it."""
    text = "/" + path.decode("utf-8", "backslashreplace")
    return text if len(text) <= 300 else f"{text[:140]}...{text[-140:]}"
