"""An image appears at its path whole, or not at all.

It is written to a temporary file in the target's own directory and renamed when it is
complete and on the disk. However a build ends, the target is the old file or the new one.
A build that is killed leaves its temporary file; the next build of the same target removes
it, for nobody holds its lock any more.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import secrets
import shutil
import stat
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

from layermelt.errors import (
    LayermeltError,
    OutputError,
    OutputIsADirectoryError,
    OutputNotFoundError,
    from_os_error,
)
from layermelt.locks import is_named, try_lock

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Publication", "TemporaryNames", "absolute"]

#: Names have at most 255 bytes; this leaves room for what is put around one.
_MAX_KEPT = 200
_ATTEMPTS = 100
_UMASK = re.compile(rb"^Umask:\s*([0-7]+)$", re.MULTILINE)


class TemporaryNames(Protocol):
    """The names of temporary files."""

    def make(self) -> str:
        """A new name."""
        ...

    def matches(self, name: str) -> bool:
        """Whether a file of that name is a temporary file that this made, in any process."""
        ...


class _TargetNames:
    """Names by which the next publication of a target knows its leftovers."""

    def __init__(self, name: str) -> None:
        self._prefix = _temporary_prefix(name)

    def make(self) -> str:
        return f"{self._prefix}{secrets.token_hex(8)}.tmp"

    def matches(self, name: str) -> bool:
        rest = name.removeprefix(self._prefix)
        return rest != name and re.fullmatch(r"[0-9a-f]{16}\.tmp", rest, re.ASCII) is not None


class Publication:
    """A temporary file that becomes `target`.

    Entering makes the file, `commit` renames it, and leaving removes it unless it was
    committed::

        with Publication(target) as publication:
            write(publication.temporary)
            publication.commit(sync=True)

    Args:
        output: The path of the image.
        names: Makes and knows the temporary files' names; `None`: those by which the next
            publication of this target knows them.

    Attributes:
        target: The path that is to become the image: absolute, without symlinks.
        temporary: The path of the temporary file.
    """

    def __init__(
        self, output: str | bytes | os.PathLike[str], *, names: TemporaryNames | None = None
    ) -> None:
        self.target = _real_target(os.fsdecode(output))
        self.temporary = ""
        self._pid = os.getpid()
        directory, name = os.path.split(self.target)
        self._directory = directory
        self._name = name
        self._names = _TargetNames(name) if names is None else names
        self._dir_fd = -1
        self._fd = -1

    def __enter__(self) -> Self:
        try:
            self._dir_fd = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            self._sweep()
            self._create()
        except OSError as error:
            self._remove()
            raise self._failed("write into", self._directory, error) from None
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._remove()

    def __del__(self) -> None:
        # An interrupt may come between entering and the body of a `with`. A child process that
        # inherited this by fork has no say in it.
        if getattr(self, "_pid", None) == os.getpid():
            self._remove()

    def commit(self, *, sync: bool, mode: int | None = None) -> None:
        """Makes the temporary file the target. With `sync` it is on the disk then, name and all.

        The file gets `mode`, or what the umask leaves of 0644.
        """
        try:
            os.fchmod(self._fd, 0o644 & ~_umask() if mode is None else mode)
            if sync:
                os.fsync(self._fd)
            os.rename(
                os.path.basename(self.temporary), self._name, src_dir_fd=self._dir_fd, dst_dir_fd=self._dir_fd
            )
            self.temporary = ""
            if sync:
                os.fsync(self._dir_fd)
        except OSError as error:
            raise self._failed("write", self.target, error) from None

    def adopt(self) -> None:
        """Takes the temporary file as it is now: another program may have put a new one there."""
        try:
            flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
            fd = os.open(os.path.basename(self.temporary), flags, dir_fd=self._dir_fd)
        except OSError as error:
            raise self._failed("open", self.temporary, error) from None
        if is_named(self._fd, os.path.basename(self.temporary), dir_fd=self._dir_fd):
            os.close(fd)
            return
        try_lock(fd)
        os.close(self._fd)
        self._fd = fd

    def allocated_bytes(self) -> int:
        """What the file takes of the disk: holes are free."""
        return os.fstat(self._fd).st_blocks * 512

    def _create(self) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        for _ in range(_ATTEMPTS):
            name = self._names.make()
            # Known before it is there: an interrupt may come as soon as it is.
            self.temporary = os.path.join(self._directory, name)
            try:
                self._fd = os.open(name, flags, 0o600, dir_fd=self._dir_fd)
            except FileExistsError:
                self.temporary = ""
                continue
            # Until it is locked, somebody who sweeps may take it for a leftover.
            if try_lock(self._fd) is not False and is_named(self._fd, name, dir_fd=self._dir_fd):
                return
            os.close(self._fd)
            self._fd = -1
            self.temporary = ""
        raise OutputError(f"cannot make a temporary file in {self._directory}", path=self._directory)

    def _sweep(self) -> None:
        """Removes what killed builds of this target left. Nothing here is an error."""
        with os.scandir(self._directory) as entries:
            names = [entry.name for entry in entries if self._names.matches(entry.name)]
        for name in names:
            flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
            with contextlib.suppress(OSError):
                fd = os.open(name, flags, dir_fd=self._dir_fd)
                try:
                    if (
                        stat.S_ISREG(os.fstat(fd).st_mode)
                        and try_lock(fd) is True
                        and is_named(fd, name, dir_fd=self._dir_fd)
                    ):
                        os.unlink(name, dir_fd=self._dir_fd)
                finally:
                    os.close(fd)

    def _remove(self) -> None:
        if self.temporary:
            with contextlib.suppress(OSError):
                try:
                    os.unlink(os.path.basename(self.temporary), dir_fd=self._dir_fd)
                except IsADirectoryError:
                    # Another program was to write it, and can have put anything there.
                    shutil.rmtree(self.temporary)
            self.temporary = ""
        self._close()

    def _close(self) -> None:
        for fd in (self._fd, self._dir_fd):
            if fd >= 0:
                with contextlib.suppress(OSError):
                    os.close(fd)
        self._fd = self._dir_fd = -1

    def _failed(self, action: str, path: str, error: OSError) -> LayermeltError:
        if isinstance(error, LayermeltError):
            return error
        return from_os_error("output", f"cannot {action} {path}: {error.strerror}", path, error.errno)


def _real_target(output: str) -> str:
    """The path that a finished image is renamed to, or a clear error before any work."""
    name = os.path.basename(output)
    if not output or "\0" in output:
        raise OutputError(f"invalid output {output!r}: expected the path of the image to be written")
    if name in ("", ".", ".."):
        raise OutputIsADirectoryError(f"{output}: names a directory; give the path of the image", path=output)
    # A symlink is a way to the file that is meant: it stays, and the file behind it is replaced.
    target = os.path.realpath(absolute(output))
    directory = os.path.dirname(target)
    try:
        if not stat.S_ISDIR(os.stat(directory).st_mode):
            raise OutputNotFoundError(f"{directory}: not a directory", path=directory, errno=errno.ENOTDIR)
        mode = _mode_of(output, target)
    except LayermeltError:
        raise  # some are a FileNotFoundError
    except FileNotFoundError:
        if os.path.lexists(directory):
            return target
        raise OutputNotFoundError(
            f"{directory}: no such directory; make it before an image is written into it", path=directory
        ) from None
    except OSError as error:
        raise from_os_error(
            "output", f"cannot write {output}: {error.strerror}", output, error.errno
        ) from None
    if stat.S_ISDIR(mode):
        raise OutputIsADirectoryError(
            f"{output}: is a directory; give the path of the image in it", path=output
        )
    if not stat.S_ISREG(mode):
        kind = "symlink loop" if stat.S_ISLNK(mode) else "device, FIFO or socket"
        raise OutputError(
            f"{output}: is a {kind}; an image is written as a regular file (copy it to a device afterwards)",
            path=output,
        )
    return target


def _mode_of(output: str, target: str) -> int:
    """Type and permissions of what is there."""
    try:
        return os.lstat(target).st_mode
    except FileNotFoundError:
        # A link of /proc, such as /dev/stdout, can lead to what has no path.
        there = os.stat(output)
        if stat.S_ISREG(there.st_mode) and there.st_nlink == 0:
            raise OutputError(
                f"{output}: is a file that was removed; give a path for the image", path=output
            ) from None
        if stat.S_ISREG(there.st_mode):
            raise  # somebody has just made it
        return there.st_mode


def absolute(path: str) -> str:
    """The path from the root on, with whatever symlinks are in it."""
    try:
        return path if os.path.isabs(path) else os.path.join(os.getcwd(), path)
    except FileNotFoundError:
        raise OutputNotFoundError(
            f"{path}: the working directory, from where it is meant, was removed; give an absolute path",
            path=path,
        ) from None


def _temporary_prefix(name: str) -> str:
    raw = os.fsencode(name)
    if len(raw) > _MAX_KEPT:
        # Another long name must not be taken for this one.
        digest = hashlib.blake2b(raw, digest_size=8).hexdigest()
        raw = raw[: _MAX_KEPT - 17] + b"-" + digest.encode()
    return f".{os.fsdecode(raw)}."


def _umask() -> int:
    # To ask the system is to set it, which other threads would notice; the kernel tells it as well.
    with contextlib.suppress(OSError), open("/proc/self/status", "rb") as status:
        match = _UMASK.search(status.read())
        if match is not None:
            return int(match[1], 8)
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
