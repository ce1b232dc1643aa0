"""Every way in which layermelt fails.

All errors are a `LayermeltError`. Each says in one message what was expected, which
path is meant and what to do, and knows the exit code of the command line. A missing
file or a missing permission is the matching `OSError` subclass as well, so that code
that handles those needs to know nothing of layermelt:

====================  =========  ======================================================
error                 exit code  meaning
====================  =========  ======================================================
UnsoundImageError     1          the image is no sound ext4 (also: `check` found faults)
InvalidOptionError    2          an option or argument that cannot be
SourceError           3          the source is missing, of another kind, or inconsistent
UnreadableError       4          a permission to read is missing
LayerError            5          a layer is corrupt, changed meanwhile or failed to read
UnrepresentableError  6          ext4, or the size asked for, cannot hold the tree
InjectionError        7          a file cannot be put into the image
OutputError           8          the image cannot be written
ImageError            9          an image to be looked at cannot be read
EngineError           10         an external engine cannot make the image
InternalError         70         a fault of layermelt itself
====================  =========  ======================================================

An interrupt is no `LayermeltError`: it stays Python's `KeyboardInterrupt` (130).
"""

from __future__ import annotations

import errno as _errno
import os
import re
from typing import Any, ClassVar, Literal

__all__ = [
    "AgentError",
    "CorruptImageError",
    "CorruptLayerError",
    "CorruptStoreError",
    "DiskFullError",
    "EngineError",
    "EngineExitError",
    "EngineNotExecutableError",
    "EngineNotFoundError",
    "EngineOutputError",
    "EngineSignalError",
    "EngineSpawnError",
    "EngineTimeoutError",
    "ImageBusyError",
    "ImageError",
    "ImageFullError",
    "ImageNotFoundError",
    "InjectionError",
    "InjectionNotFoundError",
    "InjectionPermissionError",
    "InjectionReadError",
    "InjectionTimeoutError",
    "InjectionVerifyError",
    "InternalError",
    "InvalidOptionError",
    "LayerChangedError",
    "LayerError",
    "LayerNotFoundError",
    "LayerReadError",
    "LayermeltError",
    "LoopDeviceError",
    "MountError",
    "OutputError",
    "OutputIsADirectoryError",
    "OutputNotFoundError",
    "OutputPermissionError",
    "SourceError",
    "SourceNotFoundError",
    "TooSmallError",
    "UncleanImageError",
    "UnknownImageError",
    "UnreadableError",
    "UnrepresentableError",
    "UnsoundImageError",
    "UnsupportedImageError",
    "UnsupportedSourceError",
]


class LayermeltError(Exception):
    """The base of all errors of layermelt.

    Attributes:
        message: The whole text, as the command line prints it.
        path: The host path or the path in the image that is meant, if it is one.
        return_code: The exit code of the command line.
    """

    return_code: ClassVar[int] = 70

    def __init__(
        self,
        message: str,
        *,
        path: str | bytes | os.PathLike[str] | None = None,
        errno: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.path = None if path is None else os.fsdecode(path)
        if isinstance(self, OSError):
            _complete(self, self.path, errno)

    def __str__(self) -> str:
        # OSError would print errno, text and file name a second time.
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:
        number = self.errno if isinstance(self, OSError) else None
        return _restore, (type(self), self.message, self.path, number), self.__dict__


_DEFAULT_ERRNO = (
    (FileNotFoundError, _errno.ENOENT),
    (PermissionError, _errno.EACCES),
    (IsADirectoryError, _errno.EISDIR),
    (TimeoutError, _errno.ETIMEDOUT),
)


def _complete(error: OSError, path: str | None, number: int | None) -> None:
    """Gives an error what an `OSError` has."""
    if number is None:
        number = next((known for kind, known in _DEFAULT_ERRNO if isinstance(error, kind)), None)
    error.errno = number
    error.strerror = None if number is None else os.strerror(number)
    error.filename = path


def _restore(cls: type[LayermeltError], message: str, path: str | None, number: int | None) -> LayermeltError:
    """Unpickles an error; the subclass's further attributes come with its `__dict__`."""
    error = cls.__new__(cls, message)
    LayermeltError.__init__(error, message, path=path, errno=number)
    return error


class InvalidOptionError(LayermeltError, ValueError):
    """An option or argument has a value that cannot be."""

    return_code = 2


class SourceError(LayermeltError):
    """What was named as source is no chain of layers that can be read."""

    return_code = 3


class SourceNotFoundError(SourceError, FileNotFoundError):
    """The source, or a part of it that must be there, is missing."""


class LayerNotFoundError(SourceNotFoundError):
    """The layer directory to be converted is missing."""


class UnsupportedSourceError(SourceError):
    """The source is of a kind that is not supported, or of none that is known."""


class CorruptStoreError(SourceError):
    """The store's own files contradict each other, or are not what they must be."""


class UnknownImageError(SourceError, LookupError):
    """The store has no image of that name or id."""


class UnreadableError(LayermeltError, PermissionError):
    """Paths that there is no permission to read; all of them are named at once.

    Attributes:
        paths: The paths that were named.
    """

    return_code = 4

    def __init__(
        self,
        message: str,
        *,
        path: str | bytes | os.PathLike[str] | None = None,
        paths: tuple[str, ...] = (),
        errno: int | None = None,
    ) -> None:
        super().__init__(message, path=path, errno=errno)
        self.paths = paths or (() if self.path is None else (self.path,))


class LayerError(LayermeltError):
    """A layer cannot be merged."""

    return_code = 5


class CorruptLayerError(LayerError):
    """A layer's overlay marks say what the kernel itself refuses."""


class LayerChangedError(LayerError):
    """Something wrote to a layer during the build."""


class LayerReadError(LayerError, OSError):
    """Reading a layer failed for a reason other than a missing file or permission."""


class UnrepresentableError(LayermeltError):
    """The tree holds something that the image cannot."""

    return_code = 6


class TooSmallError(UnrepresentableError):
    """The size asked for does not hold the tree.

    Attributes:
        given: The size asked for, in bytes.
        needed: The least size that is enough, in bytes.
    """

    def __init__(self, message: str, *, given: int = 0, needed: int = 0) -> None:
        super().__init__(message)
        self.given = given
        self.needed = needed


class InjectionError(LayermeltError):
    """A file cannot be put into the image."""

    return_code = 7


class InjectionNotFoundError(InjectionError, FileNotFoundError):
    """The host file to be put into the image is missing."""


class InjectionReadError(InjectionError, OSError):
    """The host file to be put into the image cannot be read."""


class InjectionPermissionError(InjectionError, PermissionError):
    """Mounting an image is not allowed: it needs root with CAP_SYS_ADMIN."""


class InjectionTimeoutError(InjectionError, TimeoutError):
    """Putting a file into the image took longer than allowed."""


class InjectionVerifyError(InjectionError):
    """What was read back from the image is not what was written."""


class ImageBusyError(InjectionError):
    """Something else has the image in use; to write to it now would destroy it."""


class ImageFullError(InjectionError, OSError):
    """The image has no room, or no inode, for the file."""


class LoopDeviceError(InjectionError, OSError):
    """There is no loop device to be had for the image."""


class MountError(InjectionError, OSError):
    """The image is no ext4, or mounting it was refused."""


class AgentError(InjectionError):
    """The agent could not be started in the image.

    It is of another architecture, linked with what the image lacks, or no program at all.
    """


class OutputError(LayermeltError, OSError):
    """The image cannot be written."""

    return_code = 8


class OutputNotFoundError(OutputError, FileNotFoundError):
    """The directory of the image to be written is missing."""


class OutputPermissionError(OutputError, PermissionError):
    """There is no permission to write the image."""


class OutputIsADirectoryError(OutputError, IsADirectoryError):
    """The path of the image to be written is a directory."""


class DiskFullError(OutputError):
    """The file system of the image, or the user's quota on it, is full."""


class ImageError(LayermeltError, OSError):
    """An image to be looked at cannot be read."""

    return_code = 9


class ImageNotFoundError(ImageError, FileNotFoundError):
    """There is no file of that name."""


class CorruptImageError(ImageError):
    """What an image to be read says makes no sense, or cannot be shown."""


class EngineError(LayermeltError):
    """An external engine cannot make the image."""

    return_code = 10


class EngineNotFoundError(EngineError, FileNotFoundError):
    """The engine's program is not there."""


class EngineNotExecutableError(EngineError, PermissionError):
    """The engine's program is there but may not be executed."""


class EngineSpawnError(EngineError, OSError):
    """The engine's program cannot be started."""


class EngineExitError(EngineError):
    """The engine ended with an exit code other than 0.

    Attributes:
        exit_code: That code.
        stderr: The last lines it wrote to stderr.
    """

    def __init__(
        self,
        message: str,
        *,
        path: str | bytes | os.PathLike[str] | None = None,
        exit_code: int = 1,
        stderr: str = "",
    ) -> None:
        super().__init__(message, path=path)
        self.exit_code = exit_code
        self.stderr = stderr


class EngineSignalError(EngineError):
    """The engine was killed by a signal.

    Attributes:
        signal: Its number.
        stderr: The last lines it wrote to stderr.
    """

    def __init__(
        self,
        message: str,
        *,
        path: str | bytes | os.PathLike[str] | None = None,
        signal: int = 9,
        stderr: str = "",
    ) -> None:
        super().__init__(message, path=path)
        self.signal = signal
        self.stderr = stderr


class EngineTimeoutError(EngineError, TimeoutError):
    """The engine took longer than allowed and was killed."""


class EngineOutputError(EngineError):
    """The engine reported success, but there is no ext4 image."""


class UnsoundImageError(LayermeltError):
    """An image is no sound ext4.

    Attributes:
        problems: What is wrong with it, a sentence each.
    """

    return_code = 1

    def __init__(
        self,
        message: str,
        *,
        path: str | bytes | os.PathLike[str] | None = None,
        problems: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message, path=path)
        self.problems = problems


class UncleanImageError(UnsoundImageError):
    """An image has to be unmounted, or repaired by e2fsck, before it is changed."""


class UnsupportedImageError(ImageError):
    """An image has a feature under which it is not changed here."""


class InternalError(LayermeltError):
    """A fault of layermelt itself."""


Area = Literal["layer", "file", "output", "image"]

_FULL = frozenset({_errno.ENOSPC, _errno.EDQUOT, _errno.EFBIG})
_MISSING = frozenset({_errno.ENOENT, _errno.ENOTDIR})
_FORBIDDEN = frozenset({_errno.EACCES, _errno.EPERM})

_ADVICE = {
    _errno.ENOSPC: "free some space there or choose another place",
    _errno.EDQUOT: "raise the quota or choose another place",
    _errno.EFBIG: "the file system there, or a limit (ulimit -f), does not allow a file of this size",
}


def from_os_error(area: Area, message: str, path: str, number: int | None) -> LayermeltError:
    """The error for a failed system call on `path`, by what that path is to the build."""
    # Rust appends the number, which is an attribute here.
    message = re.sub(r" \(os error [0-9]+\)", "", message)
    advice = _ADVICE.get(number or 0) if area == "output" else None
    if advice:
        message = f"{message}; {advice}"
    cls: type[LayermeltError]
    if number in _FORBIDDEN and area != "output":
        return UnreadableError(
            f"{message}; reading it needs another user or group, or root",
            path=path,
            errno=number,
        )
    if area == "layer":
        cls = SourceNotFoundError if number in _MISSING else LayerReadError
    elif area == "file":
        cls = InjectionNotFoundError if number in _MISSING else InjectionReadError
    elif area == "image":
        cls = ImageNotFoundError if number in _MISSING else ImageError
    elif number in _FULL:
        cls = DiskFullError
    elif number in _MISSING:
        cls = OutputNotFoundError
    elif number in _FORBIDDEN:
        cls = OutputPermissionError
    elif number == _errno.EISDIR:
        cls = OutputIsADirectoryError
    else:
        cls = OutputError
    return cls(message, path=path, errno=number)
