"""Puts one file into an image that it mounts where nobody else sees it.

    mounter.py PARENT STATUS IMAGE AGENT NAMED LOOP PATH DESTINATION MODE UID GID PROGRAM...

IMAGE and AGENT are descriptors; NAMED, unless it is empty, is what to call the agent when the
image is asked whether it can run it; LOOP is ``own`` or ``program``, PATH the image's path, PROGRAM
``busybox=PATH`` or ``mount=PATH``, tried in this order. What happened is written to the descriptor
STATUS: ``ok``, or a kind of failure, an errno and a message with NULs between them. It is a program
of its own and imports nothing of layermelt, but for that question: see `layermelt.helpers`.

However it dies, nothing stays. Its mounts are in a mount namespace of its own, which ends with
it, and lie over a directory that is there anyway: this file's, which in that namespace nobody
misses. Its loop device is made by the one call LOOP_CONFIGURE with LO_FLAGS_AUTOCLEAR, so that there
is no moment at which the device has a file and would not lose it with its last user: ``busybox
mount -o loop`` calls LOOP_SET_FD and then LOOP_SET_STATUS64, and killed in between it leaks the
device. So busybox is given the device.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import signal
import stat
import struct
import sys
import time
from collections.abc import Callable
from typing import NoReturn

# linux/prctl.h, linux/sched.h, linux/mount.h, sys/mount.h
PR_SET_PDEATHSIG = 1
CLONE_NEWNS, CLONE_NEWPID = 0x00020000, 0x20000000
MS_NOSUID, MS_NOEXEC, MS_REC, MS_PRIVATE = 2, 8, 1 << 14, 1 << 18
MNT_DETACH, UMOUNT_NOFOLLOW = 2, 8
# linux/loop.h
LOOP_SET_STATUS64, LOOP_GET_STATUS64, LOOP_CONFIGURE, LOOP_CTL_GET_FREE = 0x4C04, 0x4C05, 0x4C0A, 0x4C82
LO_FLAGS_AUTOCLEAR = 4
LOOP_MAJOR, LOOP_CONTROL = 7, (10, 237)
#: struct loop_info64: device, inode, rdevice, offset, sizelimit, number, encrypt_type,
#: encrypt_key_size, flags, file_name, crypt_name, encrypt_key, init.
LOOP_INFO = struct.Struct("=QQQQQIIII64s64s32s2Q")
INFO_FLAGS = 8
# linux/openat2.h; the number is the same on all machines that Python is built for.
SYS_OPENAT2 = 437
RESOLVE_NO_XDEV, RESOLVE_NO_MAGICLINKS, RESOLVE_IN_ROOT = 0x01, 0x02, 0x10
# linux/fcntl.h
AT_EMPTY_PATH = 0x1000
# linux/statfs.h
ST_RDONLY, ST_NOSUID, ST_NODEV, ST_NOEXEC = 1, 2, 4, 8

#: What the image is mounted with. Its superblock may ask for a panic of the kernel at the first
#: error that is found in it ("errors=panic"); it is not to have that wish.
OPTIONS = "nodev,nosuid,noexec,errors=remount-ro"
#: The kernel follows as many symlinks on one path (MAXSYMLINKS).
MAX_SYMLINKS = 40
#: The name of a complete file, for the moment until it replaces another one.
TEMPORARY = b".layermelt-injecting"
CHUNK = 1 << 20
ATTEMPTS = 100
#: How long the kernel, or udev, may take to let go of the device.
PATIENCE = 5.0

libc = ctypes.CDLL(None, use_errno=True)


class Refusal(Exception):  # noqa: N818 - what it is
    """Why it cannot be done."""

    def __init__(self, kind: str, message: str, number: int | None = 0) -> None:
        super().__init__(message)
        self.kind = kind
        self.number = number or 0


def main() -> int:
    """Does it, and tells."""
    parent, status = int(sys.argv[1]), int(sys.argv[2])
    os.set_inheritable(status, False)  # noqa: FBT003 - its name says it
    die_with_parent(parent)
    os.umask(0)
    try:
        work(sys.argv[3:])
        told = b"ok"
    except Refusal as refusal:
        told = b"%s\0%d\0%s" % (refusal.kind.encode(), refusal.number, os.fsencode(str(refusal)))
    os.write(status, told[:4096])
    return 0


def work(arguments: list[str]) -> None:
    """Mounts, puts, unmounts."""
    image, agent, named = int(arguments[0]), int(arguments[1]), arguments[2]
    path, destination = (os.fsencode(arguments[index]) for index in (4, 5))
    mode, owner = int(arguments[6], 8), (int(arguments[7]), int(arguments[8]))
    point = os.fsencode(os.path.dirname(os.path.abspath(__file__)))
    check = agent_check() if named else None
    enter_private_namespace(point)
    root = os.path.join(point, b"root")
    os.mkdir(root, 0o700)
    device = None if arguments[3] == "program" else attach(image, point)
    os.set_inheritable(image, device is None)
    os.set_inheritable(agent, False)  # noqa: FBT003
    source = path if device is None else device.path
    mount(arguments[9:], source, root, needs_loop=device is None)
    number = check_mount(root, point, image, device)
    try:
        # Only from here on is the device in use by the mount alone.
        if device is not None:
            os.close(device.fd)
        if check is not None:
            check(root, agent, named, mode)
        Guest(root).put(agent, destination, mode, owner)
    finally:
        unmount(root)
    await_release(number)


def agent_check() -> Callable[[bytes, int, str, int], None]:
    """What refuses an agent that the image cannot run."""
    # Now: the file lies in the directory that is going to be covered.
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
    from layermelt import _core, errors

    def check(root: bytes, agent: int, named: str, mode: int) -> None:
        try:
            _core.check_agent_mounted(os.fsdecode(root), f"/proc/self/fd/{agent}", named=named, mode=mode)
        except errors.AgentError as error:
            raise Refusal("unfit", str(error)) from None
        except errors.LayermeltError as error:
            number = error.errno if isinstance(error, OSError) else 0
            raise Refusal("mount", f"the image's programs cannot be read: {error}", number) from None

    return check


def die_with_parent(parent: int) -> None:
    """Killed when the thread that started this process is no more."""
    libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:
        # It died before the kernel was asked to tell.
        os._exit(1)


def enter_private_namespace(point: bytes) -> None:
    """No mount from here on is seen elsewhere, and all end with this process."""
    try:
        demand(libc.unshare(CLONE_NEWNS))
        demand(libc.mount(b"none", b"/", None, ctypes.c_ulong(MS_REC | MS_PRIVATE), None))
    except PermissionError as error:
        raise Refusal("root", "mounting an image needs root with CAP_SYS_ADMIN", error.errno) from None
    except OSError as error:
        raise Refusal("mount", f"no private mount namespace: {error.strerror}", error.errno) from None
    # For the device's node and the real mount point: /dev may be of a container, with too few nodes.
    flags = ctypes.c_ulong(MS_NOSUID | MS_NOEXEC)
    if all(libc.mount(b"layermelt", point, kind, flags, b"mode=0700") for kind in (b"tmpfs", b"ramfs")):
        number = ctypes.get_errno()
        raise Refusal("mount", f"cannot mount a tmpfs: {os.strerror(number)}", number)


class Device:
    """A loop device over the image."""

    def __init__(self, number: int, path: bytes, fd: int) -> None:
        self.number = number
        self.path = path
        self.fd = fd


def attach(image: int, point: bytes) -> Device | None:
    """A loop device that the kernel takes back with its last user; `None` before Linux 5.8."""
    info = LOOP_INFO.pack(0, 0, 0, 0, 0, 0, 0, 0, LO_FLAGS_AUTOCLEAR, b"layermelt", b"", b"", 0, 0)
    # struct loop_config: fd, block_size, info, reserved.
    config = struct.pack("=II", image, 0) + info + bytes(64)
    try:
        control = os.open(node(point, b"loop-control", os.makedev(*LOOP_CONTROL)), os.O_RDWR | os.O_CLOEXEC)
        try:
            for _ in range(ATTEMPTS):
                number = fcntl.ioctl(control, LOOP_CTL_GET_FREE)
                path = node(point, b"loop%d" % number, os.makedev(LOOP_MAJOR, number))
                device = os.open(path, os.O_RDWR | os.O_CLOEXEC)
                try:
                    fcntl.ioctl(device, LOOP_CONFIGURE, config)
                except OSError as error:
                    os.close(device)
                    if error.errno in (errno.EINVAL, errno.ENOTTY):
                        return None
                    # Somebody else was quicker; ENXIO: and has already given it back.
                    if error.errno not in (errno.EBUSY, errno.ENXIO):
                        raise
                    time.sleep(0.01)
                else:
                    return Device(number, path, device)
        finally:
            os.close(control)
    except OSError as error:
        raise Refusal("loop", f"there is no loop device: {error.strerror}", error.errno) from None
    raise Refusal("loop", "all loop devices are in use", errno.EBUSY)


def node(point: bytes, name: bytes, number: int) -> bytes:
    """The path of a device, in the private tmpfs or, where those are forbidden, in /dev."""
    path = os.path.join(point, name)
    try:
        os.mknod(path, stat.S_IFCHR | 0o600 if name == b"loop-control" else stat.S_IFBLK | 0o600, number)
    except FileExistsError:
        pass
    except PermissionError:
        return os.path.join(b"/dev", name)
    return path


def mount(programs: list[str], source: bytes, root: bytes, *, needs_loop: bool) -> None:
    """Mounts the image by the first program that can."""
    failures = []
    for program in programs:
        kind, _, path = program.partition("=")
        # busybox sees itself whether it needs a loop device.
        options = f"loop,{OPTIONS}" if needs_loop or kind == "busybox" else OPTIONS
        command = [os.fsencode(path), *([b"mount"] if kind == "busybox" else [])]
        command += [b"-i", b"-n", b"-t", b"ext4", b"-o", options.encode(), source, root]
        code, said = run(command, may_be_killed=not needs_loop)
        if code == 0:
            return
        failures.append(said or f"{path} ended with {code}")
    reason = failures[0] if failures else "there is neither busybox nor mount on this machine"
    raise Refusal("mount", f"mounting it was refused: {reason}", errno.EINVAL)


def run(command: list[bytes], *, may_be_killed: bool) -> tuple[int, str]:
    """The exit code of a program (0 for success) and what it said."""
    reading, writing = os.pipe()
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        execute(command, writing, parent, may_be_killed=may_be_killed)
    os.close(writing)
    said = b""
    while data := os.read(reading, 4096):
        said = (said + data)[:2048]
    os.close(reading)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code, " ".join(said.decode("utf-8", "backslashreplace").split())


def contain() -> None:
    """Goes on in a process with which all ends that it starts: the first of a PID namespace."""
    if libc.unshare(CLONE_NEWPID) != 0:
        return
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        # Fails when the parent died before: nobody else reads this.
        os.write(writing, b".")
        return
    os.close(writing)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os._exit(code if code >= 0 else 128 - code)


def execute(command: list[bytes], output: int, parent: int, *, may_be_killed: bool) -> NoReturn:
    """The child's part."""
    try:
        # A program that makes the loop device itself is let finish: it holds the device and the
        # image's lock, and so all ends in an orderly way a moment after us.
        if may_be_killed:
            die_with_parent(parent)
            contain()
        else:
            os.setsid()
        os.dup2(output, 1)
        os.dup2(output, 2)
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        environment = {b"PATH": b"/usr/sbin:/usr/bin:/sbin:/bin", b"LC_ALL": b"C"}
        os.execve(command[0], command, environment)  # noqa: S606 - without a shell is what is wanted
    except OSError as error:
        os.write(2, f"{os.fsdecode(command[0])}: {error.strerror}".encode())
    finally:
        os._exit(127)


def check_mount(root: bytes, point: bytes, image: int, device: Device | None) -> int:
    """That the image is mounted, as it was asked for; the loop device's number."""
    mounted = os.stat(root).st_dev
    if os.major(mounted) != LOOP_MAJOR or (device is not None and os.minor(mounted) != device.number):
        raise Refusal("mount", "the mount program reported success, but nothing is mounted", errno.EINVAL)
    if device is None:
        make_autoclear(node(point, b"mounted", mounted), image)
    flags = os.statvfs(root).f_flag
    if flags & ST_RDONLY:
        raise Refusal("mount", "it was mounted read-only; is the image write-protected?", errno.EROFS)
    if ~flags & (ST_NODEV | ST_NOSUID | ST_NOEXEC):
        raise Refusal("mount", "the mount program ignored nodev, nosuid or noexec", errno.EINVAL)
    return os.minor(mounted)


def make_autoclear(path: bytes, image: int) -> None:
    """Old programs set up a device that outlives its mount: this one must not."""
    device = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        info = list(LOOP_INFO.unpack(fcntl.ioctl(device, LOOP_GET_STATUS64, bytes(LOOP_INFO.size))))
        if info[1] != os.fstat(image).st_ino:
            raise Refusal("mount", "the mount program mounted something else", errno.EINVAL)
        if not info[INFO_FLAGS] & LO_FLAGS_AUTOCLEAR:
            info[INFO_FLAGS] |= LO_FLAGS_AUTOCLEAR
            fcntl.ioctl(device, LOOP_SET_STATUS64, LOOP_INFO.pack(*info))
    finally:
        os.close(device)


def unmount(root: bytes) -> None:
    """Unmounts; what is busy goes with the namespace."""
    if libc.umount2(root, UMOUNT_NOFOLLOW) != 0:
        libc.umount2(root, UMOUNT_NOFOLLOW | MNT_DETACH)


def await_release(number: int) -> None:
    """Waits until the loop device has no file: udev may be looking at it."""
    end = time.monotonic() + PATIENCE
    while os.path.exists(f"/sys/block/loop{number}/loop/backing_file") and time.monotonic() < end:
        time.sleep(0.005)


class OpenHow(ctypes.Structure):
    """What openat2 is told: ``struct open_how``."""

    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


class Guest:
    """The tree of the image. No path in it leads out of it."""

    def __init__(self, root: bytes) -> None:
        self.root = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def put(self, agent: int, destination: bytes, mode: int, owner: tuple[int, int]) -> None:
        """Replaces the file in one step, and reads it back."""
        shown = os.fsdecode(destination)
        parents, name = os.path.split(destination)
        folder = file = -1
        try:
            folder = self.directory(parents)
            # Without a name until it is complete: however this ends, no half of it is in the image.
            file = self.open(b".", os.O_TMPFILE | os.O_RDWR, 0o600, at=folder)
            copy(agent, file)
            finish(file, mode, owner)
            # As well without a name: what is there already stays if this is not what was to be put in.
            verify(agent, file, shown)
            self.name(file, folder, name)
            os.fsync(folder)
            written = self.open(destination, os.O_PATH | os.O_NOFOLLOW)
            there = os.fstat(written)
            os.close(written)
            expected = (os.fstat(file).st_ino, stat.S_IFREG | mode, *owner)
            if (there.st_ino, there.st_mode, there.st_uid, there.st_gid) != expected:
                raise Refusal(
                    "verify", f"{shown} is another file, or of another mode or owner, than was written"
                )
        except IsADirectoryError:
            raise Refusal(
                "path", "there is a directory of that name; give the path of the file itself", errno.EISDIR
            ) from None
        except OSError as error:
            raise refusal(error) from None
        finally:
            for fd in (file, folder, self.root):
                if fd >= 0:
                    os.close(fd)

    def name(self, file: int, folder: int, name: bytes) -> None:
        """Gives a file that has none its name, in one step, also where another one has it."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(TEMPORARY, dir_fd=folder)
        try:
            link(file, folder, name)
        except FileExistsError:
            link(file, folder, TEMPORARY)
            try:
                os.rename(TEMPORARY, name, src_dir_fd=folder, dst_dir_fd=folder)
            finally:
                with contextlib.suppress(OSError):
                    os.unlink(TEMPORARY, dir_fd=folder)

    def open(self, path: bytes, flags: int, mode: int = 0, *, at: int = -1) -> int:
        """Opens a path as a process would whose root is the image, or the directory `at`."""
        how = OpenHow(flags | os.O_CLOEXEC, mode, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV)
        where = self.root if at < 0 else at
        for attempt in range(10 * ATTEMPTS):
            fd: int = libc.syscall(
                ctypes.c_long(SYS_OPENAT2),
                ctypes.c_long(where),
                ctypes.c_char_p(path),
                ctypes.byref(how),
                ctypes.c_size_t(ctypes.sizeof(how)),
            )
            if fd >= 0:
                return fd
            number = ctypes.get_errno()
            # Of a rename anywhere on the machine while ".." was walked (openat2(2)).
            if number not in (errno.EAGAIN, errno.EINTR):
                raise OSError(number, os.strerror(number), path)
            time.sleep(0.0001 * min(attempt, 10))
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN), path)

    def directory(self, path: bytes, links: int = MAX_SYMLINKS) -> int:
        """Opens a directory; what of it is missing, also behind a dangling symlink, is made."""
        flags = os.O_RDONLY | os.O_DIRECTORY
        with contextlib.suppress(FileNotFoundError):
            return self.open(path or b"/", flags)
        parents, name = os.path.split(path.rstrip(b"/"))
        parent = self.directory(parents, links)
        try:
            # "made/.." is there as soon as "made" is.
            with contextlib.suppress(FileNotFoundError):
                return self.open(path, flags)
            try:
                target = os.readlink(name, dir_fd=parent)
            except FileNotFoundError:
                return self.make_directory(parent, name)
        finally:
            os.close(parent)
        if links == 0:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        # The kernel takes a relative target from where the link lies: so does this, for it walks there.
        return self.directory(target if target[:1] == b"/" else parents + b"/" + target, links - 1)

    def make_directory(self, parent: int, name: bytes) -> int:
        """A new directory, root's."""
        os.mkdir(name, 0o755, dir_fd=parent)
        made = self.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, at=parent)
        finish(made, 0o755, (0, 0))
        os.fsync(parent)
        return made


def link(file: int, folder: int, name: bytes) -> None:
    """A name for a file that was opened with O_TMPFILE."""
    if libc.linkat(file, b"", folder, name, AT_EMPTY_PATH) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), name)


def copy(agent: int, file: int) -> None:
    """All bytes of the agent."""
    offset = 0
    while data := read_agent(agent, offset):
        offset += len(data)
        view = memoryview(data)
        while view:
            view = view[os.write(file, view) :]


def read_agent(agent: int, offset: int) -> bytes:
    """Some bytes of the host's file."""
    try:
        return os.pread(agent, CHUNK, offset)
    except OSError as error:
        raise Refusal("agent", f"cannot read it: {error.strerror}", error.errno) from None


def finish(file: int, mode: int, owner: tuple[int, int]) -> None:
    """Owner and mode, whatever a default ACL or a setgid directory gave it, and to the disk."""
    for name in ("system.posix_acl_access", "system.posix_acl_default"):
        with contextlib.suppress(OSError):
            os.removexattr(file, name)
    # The mode last: to change the owner takes setuid away.
    os.fchown(file, *owner)
    os.fchmod(file, mode)
    os.fsync(file)


def verify(agent: int, file: int, shown: str) -> None:
    """That the file holds what was to be put there."""
    # It is on the device: what is read now comes from there.
    with contextlib.suppress(OSError):
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    offset = 0
    while True:
        wanted = read_agent(agent, offset)
        if os.pread(file, len(wanted), offset) != wanted:
            raise Refusal("verify", f"what was read back of {shown} differs from what was written")
        if not wanted:
            if (size := os.fstat(file).st_size) != offset:
                raise Refusal("verify", f"{shown} has {size} bytes instead of {offset}")
            return
        offset += len(wanted)


def refusal(error: OSError) -> Refusal:
    """What a failed call inside the image means."""
    where = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
    text = f"{where}{error.strerror}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Refusal("space", "the image has no room or no inode left", error.errno)
    if error.errno in (errno.EIO, errno.EUCLEAN, errno.EROFS, errno.EBADMSG):
        return Refusal("mount", f"the image is damaged ({text}); run e2fsck on it", error.errno)
    if error.errno == errno.ENOSYS:
        return Refusal("mount", "this kernel has no openat2: it needs Linux 5.6", error.errno)
    if error.errno == errno.EPERM:
        return Refusal("path", f"in the image, {text}: is it immutable (chattr -i)?", error.errno)
    return Refusal("path", f"in the image, {text}", error.errno)


def demand(result: int) -> None:
    """A failed call of the C library is an exception."""
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


if __name__ == "__main__":
    sys.exit(main())
