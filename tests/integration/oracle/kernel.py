"""The few system calls that Python 3.10 does not offer."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import stat
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)

MS_RDONLY = 1
MS_NOATIME = 1024
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18
MNT_DETACH = 2
CLONE_NEWNS = 0x00020000

LOOP_CTL_GET_FREE = 0x4C82
LOOP_CONFIGURE = 0x4C0A
LO_FLAGS_READ_ONLY = 1
LO_FLAGS_AUTOCLEAR = 4
LOOP_MAJOR = 7

FS_IOC_GETFLAGS = 0x80086601
FS_IOC_SETFLAGS = 0x40086602
FS_COMPR_FL = 0x4
FS_IMMUTABLE_FL = 0x10
FS_APPEND_FL = 0x20
FS_NODUMP_FL = 0x40
FS_NOATIME_FL = 0x80
#: The flags that an image keeps when it is asked to.
KEPT_FLAGS = FS_IMMUTABLE_FL | FS_APPEND_FL | FS_NODUMP_FL | FS_NOATIME_FL


def _check(result: int, what: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def mount(source: str, target: Path, fstype: str | None, flags: int = 0, data: str = "") -> None:
    """mount(2). The kernel takes one page of ``data`` and no more."""
    option_bytes = os.fsencode(data)
    if len(option_bytes) >= 4096:
        raise ValueError(f"{len(option_bytes)} bytes of mount options")
    result = _libc.mount(
        os.fsencode(source),
        os.fsencode(target),
        fstype.encode() if fstype else None,
        ctypes.c_ulong(flags),
        option_bytes or None,
    )
    _check(result, f"mount {fstype} at {target} with {data[:200]!r}")


def unmount(target: Path) -> None:
    """umount2(2); a mount that is still busy is at least detached."""
    if _libc.umount2(os.fsencode(target), 0) == 0:
        return
    busy = ctypes.get_errno() == errno.EBUSY
    _check(
        _libc.umount2(os.fsencode(target), MNT_DETACH) if busy else -1,
        f"umount {target}",
    )
    if busy:
        raise OSError(errno.EBUSY, f"{target} was still in use when it was unmounted")


def enter_private_mount_namespace() -> None:
    """No mount made from now on is seen outside or outlives this process."""
    _check(_libc.unshare(CLONE_NEWNS), "unshare(CLONE_NEWNS)")
    mount("none", Path("/"), None, MS_REC | MS_PRIVATE)


@contextmanager
def loop_device(image: Path, *, writable: bool = False) -> Iterator[str]:
    """A loop device over ``image``.

    With AUTOCLEAR the kernel frees it with its last user, so that it cannot
    leak whatever happens to this process.
    """
    backing = os.open(image, os.O_RDWR if writable else os.O_RDONLY)
    try:
        device, path = _configure_loop(backing, image, writable)
    finally:
        os.close(backing)
    try:
        yield path
    finally:
        os.close(device)


def _configure_loop(backing: int, image: Path, writable: bool) -> tuple[int, str]:
    flags = LO_FLAGS_AUTOCLEAR | (0 if writable else LO_FLAGS_READ_ONLY)
    # struct loop_config { fd, block_size, struct loop_info64, reserved[8] }
    info = struct.pack(
        "=QQQQQIIII64s64s32sQQ",
        *(0, 0, 0, 0, 0, 0, 0, 0, flags),
        os.fsencode(image)[-63:],
        *(b"", b"", 0, 0),
    )
    config = struct.pack("=II", backing, 0) + info + bytes(64)
    control = os.open("/dev/loop-control", os.O_RDWR)
    try:
        # Between "which is free" and "take it" somebody else may take it.
        for _ in range(100):
            number = fcntl.ioctl(control, LOOP_CTL_GET_FREE)
            path = f"/dev/loop{number}"
            if not os.path.exists(path):
                os.mknod(path, stat.S_IFBLK | 0o600, os.makedev(LOOP_MAJOR, number))
            device = os.open(path, os.O_RDWR if writable else os.O_RDONLY)
            try:
                fcntl.ioctl(device, LOOP_CONFIGURE, config)
            except OSError as error:
                os.close(device)
                if error.errno != errno.EBUSY:
                    raise
                time.sleep(0.01)
            else:
                return device, path
    finally:
        os.close(control)
    raise OSError(errno.EBUSY, f"no free loop device for {image}")


def inode_flags(fd: int) -> int:
    """What ``lsattr`` shows of an open file, all flags of it."""
    found: int = struct.unpack("=i", fcntl.ioctl(fd, FS_IOC_GETFLAGS, bytes(4)))[0]
    return found


def set_inode_flags(path: bytes, flags: int, *, among: int) -> None:
    """What ``chattr`` does: of the flags ``among``, those of ``flags`` are on and the others off."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        wished = inode_flags(fd) & ~among | flags
        fcntl.ioctl(fd, FS_IOC_SETFLAGS, struct.pack("=i", wished))
    finally:
        os.close(fd)


def set_immutable(path: bytes, immutable: bool) -> None:
    """What ``chattr +i`` and ``chattr -i`` do."""
    set_inode_flags(path, FS_IMMUTABLE_FL if immutable else 0, among=FS_IMMUTABLE_FL)


def fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    """fallocate(2): posix_fallocate takes no mode, and would write zeros."""
    _libc.fallocate.argtypes = [
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_int64,
        ctypes.c_int64,
    ]
    _check(_libc.fallocate(fd, mode, offset, length), "fallocate")
