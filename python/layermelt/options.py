"""The options of a build: what users give, as the core takes it."""

from __future__ import annotations

import os
import uuid as _uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from layermelt import settings
from layermelt.errors import InvalidOptionError

__all__ = [
    "BLOCK_SIZES",
    "PROFILES",
    "SHAPE",
    "InjectedFile",
    "Progress",
    "StrPath",
    "agent_file",
    "core_options",
    "image_shape",
    "injection",
    "worker_threads",
]

StrPath = str | bytes | os.PathLike[str]
Progress = Callable[[str, int, int], object]

#: What images are made for; see `layermelt.build_rootfs`.
PROFILES = ("default", "compat", "readonly")
#: Bytes that a block may have.
BLOCK_SIZES = (1024, 2048, 4096)

_MAX_THREADS = 256
#: (uid_t)-1 and (gid_t)-1 mean "no change" to the kernel.
_MAX_ID = (1 << 32) - 2

#: The options that shape an image, with the values that say nothing.
SHAPE: dict[str, Any] = {
    "size": "auto",
    "free_space": settings.DEFAULT_FREE_SPACE,
    "inodes": None,
    "label": b"",
    "uuid": None,
    "profile": "default",
    "journal": None,
    "reserved": 0,
    "block_size": 4096,
    "inode_flags": False,
}


@dataclass(frozen=True)
class InjectedFile:
    """A file to put into the image, as if one more layer held it.

    Attributes:
        destination: Its absolute path in the image. Symlinks in its directories are followed
            inside the image, missing ones are made; a symlink at the path itself is replaced.
        source: The host's file, through symlinks.
        content: Its bytes, instead of a source.
        mode: Its permissions. `None`: 0755 when the source is executable for its owner, else 0644.
        uid: Its owner.
        gid: Its group.
    """

    destination: str | bytes
    source: StrPath | None = None
    content: bytes | None = None
    mode: int | None = None
    uid: int = 0
    gid: int = 0


def image_shape(
    *,
    size: int | str = "auto",
    free_space: int | str = settings.DEFAULT_FREE_SPACE,
    inodes: int | None = None,
    label: str | bytes = "",
    uuid: str | bytes | _uuid.UUID | None = None,
    profile: str = "default",
    journal: int | str = "auto",
    reserved: int | str = 0,
    block_size: int = 4096,
    inode_flags: bool = False,
) -> dict[str, Any]:
    """The options that shape an image, as the core takes them: those of `SHAPE`."""
    if profile not in PROFILES:
        raise InvalidOptionError(f"invalid profile {profile!r}: expected one of {', '.join(PROFILES)}")
    if isinstance(block_size, bool) or block_size not in BLOCK_SIZES:
        expected = ", ".join(map(str, BLOCK_SIZES))
        raise InvalidOptionError(f"invalid block size {block_size!r}: expected one of {expected} bytes")
    return {
        "size": size if size in ("auto", "min") else settings.parse_size(size, "size"),
        "free_space": settings.parse_size(free_space, "free space"),
        "inodes": _inodes(inodes),
        "label": _label(label),
        "uuid": _uuid_bytes(uuid),
        "profile": profile,
        "journal": _journal(journal),
        "reserved": settings.parse_size(reserved, "reserved space"),
        "block_size": block_size,
        "inode_flags": bool(inode_flags),
    }


def core_options(
    shape: dict[str, Any],
    *,
    agent: StrPath | InjectedFile | None,
    files: Sequence[InjectedFile],
    threads: int | None,
    agent_check: bool,
    sync: bool,
    progress: Progress | None,
) -> dict[str, Any]:
    """All options of `layermelt.build_rootfs` as the core takes them; the agent is the last of the files."""
    injected = [injection(file, "file") for file in files]
    if agent is not None:
        injected.append(injection(agent_file(agent), "agent"))
    return {
        **shape,
        "files": injected,
        "timestamp": settings.source_date_epoch(),
        "threads": worker_threads(threads),
        "check_agent": agent is not None and agent_check,
        "sync": sync,
        "progress": progress,
    }


def agent_file(agent: StrPath | InjectedFile) -> InjectedFile:
    """The agent, as one file of those to be put in."""
    if isinstance(agent, InjectedFile):
        return agent
    return InjectedFile(settings.AGENT_DESTINATION, source=agent, mode=settings.AGENT_MODE)


def injection(file: InjectedFile, option: str) -> tuple[str | bytes, bytes, int, int, int]:
    """The file as the core takes it."""
    if (file.source is None) == (file.content is None):
        raise InvalidOptionError(
            f"invalid {option} {file.destination!r}: give either a source or its content"
        )
    what: str | bytes
    if file.content is not None:
        what = bytes(file.content)
    else:
        assert file.source is not None
        what = os.fsdecode(file.source)
        if not what or "\0" in what:
            raise InvalidOptionError(f"invalid {option} {what!r}: expected the path of a file")
    mode = (
        _default_mode(what) if file.mode is None else settings.parse_mode(file.mode, f"mode of the {option}")
    )
    for name, number in (("owner", file.uid), ("group", file.gid)):
        if not 0 <= number <= _MAX_ID:
            raise InvalidOptionError(f"invalid {name} {number!r} of the {option}: expected 0 to {_MAX_ID}")
    return what, os.fsencode(file.destination), mode, file.uid, file.gid


def _default_mode(source: str | bytes) -> int:
    """As git keeps it: the rest of a host file's mode is its umask's."""
    try:
        executable = not isinstance(source, bytes) and os.stat(source).st_mode & 0o100
    except (OSError, ValueError):
        # The core tells what is wrong with the file.
        executable = False
    return 0o755 if executable else 0o644


def _inodes(inodes: int | None) -> int | None:
    if inodes is not None and not 0 < inodes < 1 << 32:
        raise InvalidOptionError(f"invalid inodes {inodes!r}: expected 1 to 2^32-1")
    return inodes


def _journal(journal: int | str) -> int | None:
    """Bytes; 0: none; `None`: as mke2fs sizes it."""
    if journal == "auto":
        return None
    if journal == "none":
        return 0
    size = settings.parse_size(journal, "journal size")
    if size == 0:
        raise InvalidOptionError(f"invalid journal size {journal!r}: for no journal say none")
    return size


def _label(label: str | bytes) -> bytes:
    raw = os.fsencode(label)
    if len(raw) > settings.MAX_LABEL or b"\0" in raw:
        raise InvalidOptionError(
            f"invalid label {label!r}: expected at most {settings.MAX_LABEL} bytes without NUL"
        )
    return raw


def _uuid_bytes(uuid: str | bytes | _uuid.UUID | None) -> bytes | None:
    if uuid is None:
        return None
    try:
        raw = (_uuid.UUID(bytes=uuid) if isinstance(uuid, bytes) else _uuid.UUID(str(uuid))).bytes
    except ValueError:
        raise InvalidOptionError(
            f"invalid UUID {uuid!r}: expected 32 hex digits such as 123e4567-e89b-12d3-a456-426614174000"
        ) from None
    if not any(raw):
        # Checksums and hashes of values begin with the UUID, and e2fsck gives a new one.
        raise InvalidOptionError(
            f"invalid UUID {uuid!r}: all zeros mean that there is none; expected another"
        )
    return raw


def worker_threads(threads: int | None) -> int:
    """The number of threads as the core takes it: 0 is one for each processor."""
    if threads is None:
        return 0
    if not 1 <= threads <= _MAX_THREADS:
        raise InvalidOptionError(f"invalid threads {threads!r}: expected 1 to {_MAX_THREADS}")
    return threads
