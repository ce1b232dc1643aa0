"""Locks of files that live as long as whoever holds them: the kernel drops those of the dead."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
import time
from collections.abc import Callable, Iterator

__all__ = ["exclusive", "is_named", "try_lock", "try_range"]

_POLL = 0.05


def try_lock(fd: int) -> bool | None:
    """Whether the file's lock was taken; `None` where the file system has no locks."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def try_range(fd: int, start: int = 0, length: int = 0) -> bool:
    """Whether that range of the open file (0: to its end) is not locked by others, and now is by us.

    The lock is of the kind that virtual machines hold (``F_OFD_SETLK``): the open file's, and so a
    child's as well. `try_lock`'s is of the other kind, and neither meets the other.
    """
    # struct flock: type, whence, start, length, pid.
    wanted = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, start, length, 0)
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, wanted)
    except OSError as error:
        # Some file systems have no locks: then there are none to respect.
        return error.errno not in (errno.EAGAIN, errno.EACCES)
    return True


def is_named(fd: int, name: str, *, dir_fd: int | None = None) -> bool:
    """Whether the open file still has that name."""
    try:
        there = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(there, os.fstat(fd))


@contextlib.contextmanager
def exclusive(path: str, *, wait: Callable[[], object] | None = None) -> Iterator[bool]:
    """Holds the lock of that name: one holder across all threads and processes.

    The file is made, and removed again by its holder. Where the file system has no locks,
    everybody holds it.

    Args:
        path: The lock's file.
        wait: Called some 20 times a second while somebody else holds it; what it raises ends
            the waiting.

    Yields:
        Whether somebody else held it meanwhile.

    Raises:
        OSError: The file cannot be made.
    """
    waited = False
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            taken = try_lock(fd)
            # Its last holder may have removed it since it was opened: then it locks nobody out.
            if taken is None or (taken and is_named(fd, path)):
                try:
                    yield waited
                finally:
                    with contextlib.suppress(OSError):
                        os.unlink(path)
                return
        finally:
            os.close(fd)
        if taken is False:
            waited = True
            if wait is not None:
                wait()
            time.sleep(_POLL)
