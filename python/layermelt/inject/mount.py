"""The injector ``mount``: a loop mount of the finished image, seen by one child process alone.

The child is `layermelt.inject.mounter`, which says why nothing of it stays however it dies.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import time
from collections.abc import Iterator

from layermelt import _core, helpers, settings
from layermelt.busy import demand_writable, loop_device_of
from layermelt.errors import (
    AgentError,
    Area,
    ImageBusyError,
    ImageError,
    ImageFullError,
    InjectionError,
    InjectionPermissionError,
    InjectionTimeoutError,
    InjectionVerifyError,
    InternalError,
    LayermeltError,
    LoopDeviceError,
    MountError,
    from_os_error,
)
from layermelt.helpers import StopCheck
from layermelt.locks import try_range

__all__ = ["MountInjector"]

_MOUNTER = os.path.join(os.path.dirname(__file__), "mounter.py")
_POLL = 0.02
#: How long a loop device that is going anyway is waited for.
_RELEASE = 5.0
#: Where programs are that a service's PATH may not name.
_SYSTEM_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
#: Injectors exclude each other by this byte, far behind all that other programs lock: QEMU holds
#: bytes 100 to 203 of the image of a running machine, and whoever has any of them has the image.
_OWN_BYTE = 1 << 62
_NAME_MAX = 255
#: What the kernel may write beside the file itself: directories, bitmaps, the journal.
_MARGIN = 1 << 20


class MountInjector:
    """Mounts the image in a private mount namespace and puts the file in. Needs root.

    Args:
        busybox: Path of busybox. `None`, or nothing there: the one on PATH, else ``mount``.
    """

    name = "mount"
    #: ``own``: the child makes the loop device. ``program``: the mount program does, as on kernels
    #: before 5.8; tests have a kernel that is newer.
    _loop = "own"

    def __init__(self, *, busybox: str | None = None) -> None:
        self._busybox = busybox

    def inject(
        self,
        image: str,
        agent: str | bytes,
        destination: bytes,
        *,
        mode: int = 0o755,
        uid: int = 0,
        gid: int = 0,
        check: bool = False,
        timeout: float | None = None,
        should_stop: StopCheck | None = None,
    ) -> None:
        """See `layermelt.inject.Injector`."""
        _demand_file_path(destination)
        named = "" if not check else os.fsdecode(destination) if isinstance(agent, bytes) else agent
        limit = _Limit(timeout, should_stop, image)
        with contextlib.ExitStack() as stack:
            agent_fd = stack.enter_context(_closing(helpers.above_standard(_open_agent(agent, destination))))
            image_fd = stack.enter_context(_closing(helpers.above_standard(_open_image(image))))
            _demand_mountable(image)
            _lock_image(image_fd, image, limit)
            _demand_detached(image_fd, image, limit)
            _demand_room(image_fd, image, agent_fd)
            try:
                ended = helpers.run(
                    _MOUNTER,
                    [
                        *(str(image_fd), str(agent_fd), named, self._loop, os.path.realpath(image)),
                        *(destination, f"{mode:o}", str(uid), str(gid)),
                        *self._programs(),
                    ],
                    # The image's lock is held as long as any of us lives.
                    pass_fds=(image_fd, agent_fd),
                    cwd="/",
                    timeout=limit.left(),
                    should_stop=should_stop,
                )
            except helpers.HelperTimeoutError:
                raise limit.exceeded() from None
            except helpers.HelperStartError as error:
                raise InjectionError(
                    f"cannot start the process that mounts {image}: {error}", path=image
                ) from None
            finally:
                # Of a child that was killed the kernel unmounts a moment later: until then it writes.
                _await_release(image_fd)
            _demand_success(ended, image, agent, destination)
            os.fsync(image_fd)

    def _programs(self) -> list[str]:
        """What can mount, in the order in which it is tried."""
        path = f"{os.environ.get('PATH', '')}:{_SYSTEM_PATH}"
        found = []
        busybox = self._busybox
        if busybox is None or not os.access(busybox, os.X_OK):
            busybox = shutil.which("busybox", path=path)
        if busybox is not None:
            found.append(f"busybox={os.path.abspath(busybox)}")
        mount = shutil.which("mount", path=path)
        # On Alpine and the like this is busybox again.
        if mount is not None and not (busybox is not None and os.path.samefile(mount, busybox)):
            found.append(f"mount={os.path.abspath(mount)}")
        return found


class _Limit:
    """The time that is left, and the wish to stop."""

    def __init__(self, timeout: float | None, should_stop: StopCheck | None, image: str) -> None:
        self._timeout = timeout
        self._end = None if timeout is None else time.monotonic() + timeout
        self._should_stop = should_stop
        self._image = image

    def left(self) -> float | None:
        return None if self._end is None else max(0.0, self._end - time.monotonic())

    def exceeded(self) -> InjectionTimeoutError:
        return InjectionTimeoutError(
            f"{self._image}: to put a file into it took longer than {self._timeout:g} s, and was stopped",
            path=self._image,
        )

    def pause(self) -> None:
        """Waits a little for something else."""
        if self._should_stop is not None:
            self._should_stop()
        if self.left() == 0.0:
            raise self.exceeded()
        time.sleep(_POLL)


@contextlib.contextmanager
def _closing(fd: int) -> Iterator[int]:
    try:
        yield fd
    finally:
        os.close(fd)


def _demand_file_path(destination: bytes) -> None:
    """As the native engine's `tree/inject.rs` has it."""
    name = destination.rpartition(b"/")[2]
    if not destination.startswith(b"/"):
        reason = f"a destination is an absolute path in the image, such as {settings.AGENT_DESTINATION}"
    elif b"\0" in destination:
        reason = "a path cannot hold a NUL byte"
    elif name in (b"", b".", b".."):
        reason = "this names a directory; give the path of the file itself"
    elif max(map(len, destination.split(b"/"))) > _NAME_MAX:
        reason = f"one of its names is too long; ext4 holds names of at most {_NAME_MAX} bytes"
    else:
        return
    raise _refused(destination, reason)


def _refused(destination: bytes, reason: str) -> InjectionError:
    shown = os.fsdecode(destination)
    return InjectionError(f"cannot put a file at {shown}: {reason}", path=shown)


def _open_agent(agent: str | bytes, destination: bytes) -> int:
    if isinstance(agent, bytes):
        fd = os.memfd_create("layermelt-agent", os.MFD_CLOEXEC)
        with open(fd, "wb", closefd=False) as file:
            file.write(agent)
        return fd
    try:
        # The type first: opening a device can have effects.
        regular = stat.S_ISREG(os.stat(agent).st_mode)
        if regular:
            fd = os.open(agent, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
            if stat.S_ISREG(os.fstat(fd).st_mode):
                return fd
            os.close(fd)
    except OSError as error:
        raise from_os_error("file", f"cannot read {agent}: {error.strerror}", agent, error.errno) from None
    raise _refused(destination, f"{agent} is no regular file")


def _open_image(image: str) -> int:
    try:
        status = os.stat(image)
        if stat.S_ISREG(status.st_mode):
            demand_writable(image, status)
            return os.open(image, os.O_RDWR | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except LayermeltError:
        raise  # some are an OSError
    except OSError as error:
        message = f"cannot open {image} to write into it: {error.strerror}"
        area: Area = "output" if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS) else "image"
        raise from_os_error(area, message, image, error.errno) from None
    raise ImageError(f"{image}: is no regular file; the injector mount takes image files only", path=image)


def _demand_mountable(image: str) -> None:
    if not _core.has_ext4_magic(image):
        raise MountError(f"{image}: is no ext4 image", path=image, errno=errno.EINVAL)
    if _core.check_image(image).journal.startswith("device"):
        # The kernel would open, replay and write whatever device of the host the image names.
        raise MountError(
            f"{image}: has its journal on another device; such an image is not mounted",
            path=image,
            errno=errno.EINVAL,
        )


def _lock_image(image_fd: int, image: str, limit: _Limit) -> None:
    """Waits for other injectors, and refuses an image that a machine runs from.

    The lock is the open file's and so the child's as well; it does not meet `Publication`'s, which
    is of the other kind (flock).
    """
    while not try_range(image_fd, _OWN_BYTE, 1):
        limit.pause()
    if not try_range(image_fd, 0, _OWN_BYTE):
        raise ImageBusyError(
            f"{image}: another program has locked it (does a virtual machine run from it?); end that first",
            path=image,
        )


def _await_release(image_fd: int) -> None:
    """Waits until no loop device has the image any more, but not for ever."""
    end = time.monotonic() + _RELEASE
    status = os.fstat(image_fd)
    while loop_device_of(status) is not None and time.monotonic() < end:
        time.sleep(_POLL)


def _demand_detached(image_fd: int, image: str, limit: _Limit) -> None:
    """Two file systems over one file would destroy it."""
    end = time.monotonic() + _RELEASE
    status = os.fstat(image_fd)
    while (device := loop_device_of(status)) is not None:
        if time.monotonic() > end:
            raise ImageBusyError(
                f"{image}: is attached to /dev/{device}; unmount it, or detach it (losetup -d /dev/{device})",
                path=image,
            )
        limit.pause()


def _demand_room(image_fd: int, image: str, agent_fd: int) -> None:
    """Refuses what the disk cannot hold: a write to a hole that fails leaves the image damaged."""
    status, disk = os.fstat(image_fd), os.fstatvfs(image_fd)
    holes = max(0, status.st_size - status.st_blocks * 512)
    # Some file systems do not tell.
    if disk.f_blocks and min(holes, os.fstat(agent_fd).st_size + _MARGIN) > disk.f_bfree * disk.f_frsize:
        raise ImageFullError(
            f"{image}: the disk that it lies on has no room for what is to be put in; free some space",
            path=image,
            errno=errno.ENOSPC,
        )


def _demand_success(ended: helpers.Ended, image: str, agent: str | bytes, destination: bytes) -> None:
    if ended.status == b"ok":
        return
    kind, _, rest = ended.status.decode("utf-8", "surrogateescape").partition("\0")
    text, _, reason = rest.partition("\0")
    number = int(text) if text.isdigit() else 0
    raise _failure(kind, number, reason, ended, image, agent, destination)


def _failure(
    kind: str,
    number: int,
    reason: str,
    ended: helpers.Ended,
    image: str,
    agent: str | bytes,
    destination: bytes,
) -> LayermeltError:
    """The error for a kind of failure that the child tells."""
    shown = os.fsdecode(destination)
    named = "its content" if isinstance(agent, bytes) else agent
    if kind == "root":
        return InjectionPermissionError(
            f"{image}: {reason}; be root, or build natively with the agent in the plan (no root, no mount)",
            path=image,
            errno=number,
        )
    if kind == "loop":
        advice = "load the loop module (modprobe loop), or allow its devices in this container"
        return LoopDeviceError(f"{image}: {reason}; {advice}", path=image, errno=number)
    if kind == "mount":
        return MountError(f"{image}: {reason}", path=image, errno=number)
    if kind == "space":
        return ImageFullError(
            f"{image}: cannot put a file at {shown}: {reason}; make a larger image", path=image, errno=number
        )
    if kind == "agent":
        return from_os_error("file", f"{named}: {reason}", named, number)
    if kind == "verify":
        return InjectionVerifyError(
            f"{image}: {reason}; was {named} written to meanwhile? else the disk is not to be trusted",
            path=shown,
        )
    if kind == "unfit":
        return AgentError(reason, path=shown if isinstance(agent, bytes) else agent)
    if kind == "path":
        return InjectionError(f"cannot put a file at {shown}: {reason}", path=shown)
    said = helpers.last_lines(ended.stderr)
    if ended.returncode < 0:
        return InjectionError(
            f"{image}: the process that mounted it was killed by signal {-ended.returncode}; nothing of it is "
            "left, try again",
            path=image,
        )
    return InternalError(
        f"a fault of layermelt itself: the mounter said {said!r}; please report it", path=image
    )
