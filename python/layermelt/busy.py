"""Is an image in use? Writing to it then would destroy it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import os
import stat
import struct
from collections.abc import Iterator

from layermelt.errors import (
    ImageBusyError,
    ImageError,
    ImageNotFoundError,
    LayermeltError,
    OutputPermissionError,
    from_os_error,
)
from layermelt.locks import try_range

__all__ = ["claim", "demand_writable", "device_in_use", "loop_device_of"]


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
        if not try_range(fd):
            raise ImageBusyError(
                f"{path}: another process has it locked (a virtual machine, or another layermelt)", path=path
            )
        device = loop_device_of(status)
        if device is not None:
            raise ImageBusyError(
                f"{path}: is in use as /dev/{device}; unmount it, or end it with `losetup -d /dev/{device}`",
                path=path,
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
        demand_writable(path, status)
        # On a block device O_EXCL fails while it is mounted or in use otherwise.
        exclusive = os.O_EXCL if stat.S_ISBLK(status.st_mode) else 0
        return os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC | exclusive)
    except LayermeltError:
        raise  # some are an OSError
    except FileNotFoundError:
        raise ImageNotFoundError(f"{path}: no such file", path=path, errno=errno.ENOENT) from None
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise OutputPermissionError(
                f"{path}: may not be written to: {error.strerror}", path=path, errno=error.errno
            ) from None
        if error.errno == errno.EBUSY:
            raise ImageBusyError(f"{path}: the device is mounted or in use; unmount it", path=path) from None
        if error.errno == errno.ETXTBSY:
            raise ImageBusyError(f"{path}: is in use", path=path) from None
        raise from_os_error("image", f"cannot open {path}: {error.strerror}", path, error.errno) from None


def demand_writable(path: str, status: os.stat_result) -> None:
    """Refuses a file that is read-only, which root is not kept from writing to.

    An entry of the cache is, and would go on to be handed out under its key with what was changed.

    Raises:
        OutputPermissionError: It is.
    """
    if stat.S_ISREG(status.st_mode) and not status.st_mode & 0o222:
        raise OutputPermissionError(
            f"{path}: is a read-only file, as entries of the cache are; change a clone of it (layermelt clone), "
            "or make it writable (chmod u+w)",
            path=path,
            errno=errno.EACCES,
        )


def device_in_use(path: str, image: os.stat_result) -> str | None:
    """The block device by which the kernel may write to an image, if it has it in use: ``/dev/loop0``."""
    if stat.S_ISBLK(image.st_mode):
        number = f"{os.major(image.st_rdev)}:{os.minor(image.st_rdev)}"
        return path if _may_be_written(f"/sys/dev/block/{number}") and _is_held(path) else None
    device = loop_device_of(image)
    if device is None or not _may_be_written(f"/sys/block/{device}"):
        return None
    return f"/dev/{device}"


def _may_be_written(device: str) -> bool:
    with contextlib.suppress(OSError), open(f"{device}/ro", "rb") as file:
        return file.read().strip() == b"0"
    return True


def _is_held(path: str) -> bool:
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_EXCL | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError as error:
        return error.errno == errno.EBUSY
    return False


def loop_device_of(image: os.stat_result) -> str | None:
    """The loop device that has the image, by any of its names, in any mount namespace: ``loop0``."""
    for entry in sorted(glob.glob("/sys/block/loop*/loop/backing_file")):
        device = entry.split("/")[3]
        with contextlib.suppress(OSError), open(entry, "rb") as file:
            if os.path.samestat(os.stat(file.read().removesuffix(b"\n")), image):
                return device
        # That path may be another mount namespace's, or one that was renamed. The device itself
        # knows the inode, where /dev has it.
        with contextlib.suppress(OSError):
            if _backing_inode(device) == (image.st_dev, image.st_ino):
                return device
    return None


def _backing_inode(device: str) -> tuple[int, int]:
    fd = os.open(f"/dev/{device}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        # LOOP_GET_STATUS64; struct loop_info64 begins with lo_device and lo_inode.
        return struct.unpack_from("=QQ", fcntl.ioctl(fd, 0x4C05, bytes(232)))
    finally:
        os.close(fd)
