"""Makes layers with the marks that overlayfs itself uses.

Whatever a case does not say is filled in so that a wrong provider shows:
content, owner and mtime depend on the layer and the path.
"""

from __future__ import annotations

import os
import socket
import stat
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path

from integration.oracle import kernel

PathLike = str | bytes
Xattrs = Mapping[str, bytes]


def _bytes(path: PathLike) -> bytes:
    return path.encode() if isinstance(path, str) else path


class Layer:
    """One layer's directory while it is filled."""

    def __init__(self, root: Path, number: int, prefix: str, owner: tuple[int, int] | None = None) -> None:
        self.root = root
        self.number = number
        #: "trusted.overlay." or "user.overlay."
        self.prefix = prefix
        self._times: dict[bytes, int] = {}
        self._flags: dict[bytes, int] = {}
        root.mkdir()
        #: Of whatever says no other; else each layer has an owner of its own.
        self.owner = (1000 + number, 2000 + number) if owner is None else owner
        os.chown(root, *((0, 0) if owner is None else owner))
        os.chmod(root, 0o755)
        self._times[b""] = self._default_time(b"")

    def at(self, path: PathLike) -> bytes:
        """The host path of ``path`` in this layer."""
        return os.path.join(os.fsencode(self.root), _bytes(path))

    # -- nodes

    def directory(
        self,
        path: PathLike,
        *,
        mode: int = 0o755,
        uid: int | None = None,
        gid: int | None = None,
        mtime: int | None = None,
        xattrs: Xattrs | None = None,
        opaque: bytes | None = None,
        redirect: bytes | None = None,
    ) -> None:
        """A directory; exists already: takes the new attributes."""
        name = _bytes(path)
        self._parents(name)
        if not os.path.isdir(self.at(name)):
            os.mkdir(self.at(name))
        marks = dict(xattrs or {})
        if opaque is not None:
            marks[self.prefix + "opaque"] = opaque
        if redirect is not None:
            marks[self.prefix + "redirect"] = redirect
        self._finish(name, mode, uid, gid, mtime, marks)

    def file(
        self,
        path: PathLike,
        data: bytes | None = None,
        *,
        mode: int = 0o644,
        uid: int | None = None,
        gid: int | None = None,
        mtime: int | None = None,
        xattrs: Xattrs | None = None,
        size: int | None = None,
        pieces: Mapping[int, bytes] | None = None,
        compressed: bool = False,
    ) -> None:
        """A regular file; ``pieces`` at offsets and ``size`` make a sparse one; btrfs can compress it."""
        name = _bytes(path)
        self._parents(name)
        if data is None and pieces is None and size is None:
            data = b"layer %d: %b\n" % (self.number, name)
        with open(self.at(name), "wb") as file:
            if compressed:
                kernel.set_inode_flags(self.at(name), kernel.FS_COMPR_FL, among=kernel.FS_COMPR_FL)
            if data:
                file.write(data)
            for offset, piece in (pieces or {}).items():
                file.seek(offset)
                file.write(piece)
            if size is not None:
                file.truncate(size)
        self._finish(name, mode, uid, gid, mtime, xattrs)

    def symlink(
        self,
        path: PathLike,
        target: PathLike,
        *,
        uid: int | None = None,
        gid: int | None = None,
        mtime: int | None = None,
        xattrs: Xattrs | None = None,
    ) -> None:
        """A symbolic link."""
        name = _bytes(path)
        self._parents(name)
        os.symlink(_bytes(target), self.at(name))
        self._finish(name, None, uid, gid, mtime, xattrs)

    def node(
        self,
        path: PathLike,
        kind: str,
        major: int = 0,
        minor: int = 0,
        *,
        mode: int = 0o600,
        uid: int | None = None,
        gid: int | None = None,
        mtime: int | None = None,
        xattrs: Xattrs | None = None,
    ) -> None:
        """A "char" or "block" device, a "fifo" or a "socket"."""
        name = _bytes(path)
        self._parents(name)
        if kind == "socket":
            self._socket(name)
        else:
            types = {"char": stat.S_IFCHR, "block": stat.S_IFBLK, "fifo": stat.S_IFIFO}
            device = os.makedev(major, minor)
            os.mknod(self.at(name), types[kind] | mode, device)
        self._finish(name, mode, uid, gid, mtime, xattrs)

    def link(self, existing: PathLike, path: PathLike) -> None:
        """One more name of an inode of this layer."""
        self._parents(_bytes(path))
        os.link(self.at(existing), self.at(path), follow_symlinks=False)

    # -- marks

    def whiteout(self, path: PathLike, *, mode: int = 0) -> None:
        """A whiteout as dockerd makes it: char 0:0."""
        self.node(path, "char", 0, 0, mode=mode, uid=0, gid=0)

    def xattr_whiteout(self, path: PathLike, value: bytes = b"y") -> None:
        """A whiteout without a device: an empty file with the mark."""
        self.file(path, b"", xattrs={self.prefix + "whiteout": value})

    def metacopy(self, path: PathLike, size: int, value: bytes = b"", **attributes: object) -> None:
        """A file that has its attributes here and its data in a lower layer."""
        marks = {self.prefix + "metacopy": value}
        extra = attributes.pop("xattrs", None)
        if isinstance(extra, dict):
            marks.update(extra)
        self.file(path, b"", size=size, xattrs=marks, **attributes)  # type: ignore[arg-type]

    def root_attributes(
        self,
        *,
        mode: int = 0o755,
        uid: int = 0,
        gid: int = 0,
        mtime: int | None = None,
        xattrs: Xattrs | None = None,
    ) -> None:
        """Attributes of the layer's own directory."""
        self._finish(b"", mode, uid, gid, mtime, xattrs)

    def time(self, path: PathLike, mtime: int) -> None:
        """Sets the mtime that ``path`` has at last."""
        self._times[_bytes(path)] = mtime

    def forget(self, path: PathLike) -> None:
        """The case has removed or renamed ``path`` itself."""
        self._times.pop(_bytes(path), None)
        self._flags.pop(_bytes(path), None)

    def flags(self, path: PathLike, flags: int) -> None:
        """The inode flags (``chattr``) that ``path`` has at last."""
        self._flags[_bytes(path)] = flags

    def finish(self) -> None:
        """Sets all times, when nothing will change a directory any more, and then flags, which forbid it."""
        for name, mtime in self._times.items():
            os.utime(self.at(name), ns=(mtime, mtime), follow_symlinks=False)
        for name, flags in self._flags.items():
            kernel.set_inode_flags(self.at(name), flags, among=kernel.KEPT_FLAGS)

    def unlock(self) -> None:
        """Takes all flags away again, or nobody could remove the layer."""
        for name in self._flags:
            kernel.set_inode_flags(self.at(name), 0, among=kernel.KEPT_FLAGS)

    # -- inside

    def _parents(self, name: bytes) -> None:
        parent = os.path.dirname(name)
        if parent and not os.path.lexists(self.at(parent)):
            self.directory(parent)

    def _socket(self, name: bytes) -> None:
        """Bound under a short name: an address takes 107 bytes."""
        directory = os.open(os.path.dirname(self.at(name)), os.O_PATH)
        try:
            with socket.socket(socket.AF_UNIX) as one:
                one.bind(b"/proc/self/fd/%d/.s" % directory)
            os.rename(b".s", os.path.basename(name), src_dir_fd=directory, dst_dir_fd=directory)
        finally:
            os.close(directory)

    def _finish(
        self,
        name: bytes,
        mode: int | None,
        uid: int | None,
        gid: int | None,
        mtime: int | None,
        xattrs: Xattrs | None,
    ) -> None:
        path = self.at(name)
        owner = self.owner[0] if uid is None else uid
        group = self.owner[1] if gid is None else gid
        os.chown(path, owner, group, follow_symlinks=False)
        if mode is not None:
            os.chmod(path, mode)
        for key, value in (xattrs or {}).items():
            os.setxattr(path, key, value, follow_symlinks=False)
        self._times[name] = self._default_time(name) if mtime is None else mtime

    def _default_time(self, name: bytes) -> int:
        seed = zlib.crc32(b"%d/%b" % (self.number, name))
        return (1_000_000_000 + seed % 500_000_000) * 10**9 + seed % 10**9


class Chain:
    """The layers of one case, base first, below one directory of a store."""

    def __init__(
        self,
        directory: Path,
        fs: str,
        *,
        userxattr: bool = False,
        owner: tuple[int, int] | None = None,
    ) -> None:
        self.directory = directory
        #: The store's file system: its limits differ.
        self.fs = fs
        self.userxattr = userxattr
        self.owner = owner
        self.layers: list[Layer] = []
        directory.mkdir()

    @property
    def prefix(self) -> str:
        """What marks' names begin with in this store."""
        return "user.overlay." if self.userxattr else "trusted.overlay."

    def layer(self) -> Layer:
        """One more layer on top."""
        number = len(self.layers)
        made = Layer(self.directory / f"layer{number}", number, self.prefix, self.owner)
        self.layers.append(made)
        return made

    def two(self) -> tuple[Layer, Layer]:
        """A base and one layer above it."""
        return self.layer(), self.layer()

    def three(self) -> tuple[Layer, Layer, Layer]:
        """A base, one layer above it and one above both."""
        return self.layer(), self.layer(), self.layer()

    def finish(self) -> list[Path]:
        """Completes the layers; their directories, base first."""
        for one in self.layers:
            one.finish()
        return [one.root for one in self.layers]

    def unlock(self) -> None:
        """Takes the inode flags away that ``finish`` has set."""
        for one in self.layers:
            one.unlock()


# -- values of well-known xattrs


def acl(*entries: tuple[int, int, int]) -> bytes:
    """The kernel's form (version 2) of a POSIX ACL of (tag, permissions, id)."""
    value = struct.pack("<I", 2)
    for tag, permissions, who in entries:
        value += struct.pack("<HHI", tag, permissions, who)
    return value


ACL_USER_OBJ = 0x01
ACL_USER = 0x02
ACL_GROUP_OBJ = 0x04
ACL_GROUP = 0x08
ACL_MASK = 0x10
ACL_OTHER = 0x20
ACL_NOBODY = 0xFFFFFFFF

#: u::rwx u:1234:rw- g::r-x g:77:r-- m::rwx o::---
RICH_ACL = acl(
    (ACL_USER_OBJ, 7, ACL_NOBODY),
    (ACL_USER, 6, 1234),
    (ACL_GROUP_OBJ, 5, ACL_NOBODY),
    (ACL_GROUP, 4, 77),
    (ACL_MASK, 7, ACL_NOBODY),
    (ACL_OTHER, 0, ACL_NOBODY),
)

#: cap_net_raw=ep in the form of VFS_CAP_REVISION_2.
CAP_NET_RAW = struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0)
