"""Is an image in use? Writing to it then would destroy it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import struct
from collections.abc import Iterator

from layermelt.errors import (
    ImageBusyError,
    ImageError,
    ImageNotFoundError,
    OutputPermissionError,
    from_os_error,
)

__all__ = ["claim"]

_LOOPS = "/sys/block"
_LOOP_GET_STATUS64 = 0x4C05
#: ``struct loop_info64`` begins with the device and the inode behind it.
_LOOP_INFO_SIZE = 232
_LOOP_MAJOR = 7


@contextlib.contextmanager
def claim(path: str) -> Iterator[os.stat_result]:
    """Holds an image, a file or a block device, so that nobody else takes it for writing.

    Another layermelt and QEMU are kept out by a lock on the open file; what the kernel has in
    use, by a loop device or as a mounted block device, is refused.

    Yields:
        What `os.fstat` says about it.

    Raises:
        ImageBusyError: It is in use.
        ImageError: It is missing, or neither a file nor a block device.
        OutputPermissionError: It may not be written to.
    """
    fd = _open(path)
    try:
        status = os.fstat(fd)
        _lock(fd, path)
        device = _loop_with(status, path)
        if device is not None:
            raise ImageBusyError(
                f"{path}: is in use as {device}; unmount it, or end it with `losetup -d {device}`", path=path
            )
        yield status
    finally:
        os.close(fd)


def _open(path: str) -> int:
    try:
        status = os.stat(path)
        # First of all: opening a FIFO or another device can have effects.
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISBLK(status.st_mode)):
            raise ImageError(f"{path}: neither a file nor a block device", path=path)
        # On a block device O_EXCL fails while it is mounted or in use otherwise.
        exclusive = os.O_EXCL if stat.S_ISBLK(status.st_mode) else 0
        return os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC | exclusive)
    except FileNotFoundError:
        raise ImageNotFoundError(f"{path}: no such file", path=path, errno=errno.ENOENT) from None
    except PermissionError as error:
        raise OutputPermissionError(
            f"{path}: may not be written to: {error.strerror}", path=path, errno=error.errno
        ) from None
    except ImageError:
        raise
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise ImageBusyError(f"{path}: the device is mounted or in use; unmount it", path=path) from None
        if error.errno == errno.ETXTBSY:
            raise ImageBusyError(f"{path}: is in use", path=path) from None
        raise from_os_error("image", f"cannot open {path}: {error.strerror}", path, error.errno) from None


def _lock(fd: int, path: str) -> None:
    # struct flock: the whole file, for this open file and not for the process.
    request = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, request)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            raise ImageBusyError(
                f"{path}: another process has it locked (a virtual machine, or another layermelt)", path=path
            ) from None
        # Not every file system has locks.


def _loop_with(status: os.stat_result, path: str) -> str | None:
    """The loop device that this file is behind."""
    with contextlib.suppress(OSError):
        for name in sorted(os.listdir(_LOOPS)):
            backing = f"{_LOOPS}/{name}/loop/backing_file"
            if (
                name.startswith("loop")
                and os.path.exists(backing)
                and _is_behind(name, backing, status, path)
            ):
                return f"/dev/{name}"
    return None


def _is_behind(name: str, backing: str, status: os.stat_result, path: str) -> bool:
    try:
        fd = os.open(f"/dev/{name}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        # Without permission the path has to do.
        with contextlib.suppress(OSError), open(backing, "rb") as file:
            return os.path.samestat(os.stat(file.read().rstrip(b"\n")), status)
        return False
    try:
        info = fcntl.ioctl(fd, _LOOP_GET_STATUS64, bytes(_LOOP_INFO_SIZE))
    except OSError:
        return False
    finally:
        os.close(fd)
    device, inode = struct.unpack_from("=QQ", info)
    if inode != status.st_ino:
        return False
    if device == status.st_dev:
        return True
    # On btrfs and overlayfs a file's device is not the kernel's.
    with contextlib.suppress(OSError), open(backing, "rb") as file:
        return os.path.realpath(file.read().rstrip(b"\n")) == os.path.realpath(os.fsencode(path))
    return False
