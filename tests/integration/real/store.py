"""Makes Docker `overlay2` chain directories out of real package files.

What a `docker build` leaves below `overlay2/` - one directory per layer with
`diff/`, `link`, `lower` and the `l/` links - is written here without Docker, so
that it can be done by anybody, anywhere, and comes out the same every time.
The marks are the kernel's: a character device 0:0 for a deletion and an
`overlay.opaque` attribute for a replaced directory. Who may not make those
(an ordinary user, root in a container) gets the `user.overlay.*` form.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import shutil
import stat
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

#: What a directory or whiteout of ours, that no package dates, is dated.
EPOCH = 1_700_000_000

#: Debian 12 merges these into /usr; its package files still name them.
MERGED_USR = ("bin", "lib", "lib64", "sbin")

# A directory's name comes without its closing slash.
_TRANSFORM = r"flags=rh;s,^\./\(" + r"\|".join(MERGED_USR) + r"\)\(/\|$\),./usr/\1\2,"


@dataclass(frozen=True)
class Marks:
    """How deletions are written down in a store."""

    #: Prefix of the attributes: `trusted.overlay.` or `user.overlay.`.
    prefix: str
    #: Whether deletions are character devices 0:0; else attributes on files.
    devices: bool

    @property
    def userxattr(self) -> bool:
        """Whether a reader must be told `userxattr`."""
        return self.prefix == "user.overlay."


def probe_marks(folder: Path) -> Marks:
    """The best form of marks that we may write below `folder`."""
    probe = folder / f".probe-{os.getpid()}"
    probe.mkdir(parents=True)
    try:
        devices = True
        try:
            os.mknod(probe / "c", stat.S_IFCHR, os.makedev(0, 0))
        except OSError:
            devices = False
        for prefix in ("trusted.overlay.", "user.overlay."):
            # An attribute whiteout needs the same prefix as the opaque mark.
            with contextlib.suppress(OSError):
                os.setxattr(probe, prefix + "opaque", b"y")
                if os.getxattr(probe, prefix + "opaque") == b"y":
                    return Marks(prefix, devices)
        raise OSError(
            f"{folder}: neither trusted.* nor user.* attributes can be set here; "
            "use a folder on ext4, xfs or btrfs"
        )
    finally:
        shutil.rmtree(probe)


@dataclass
class Layer:
    """One `overlay2/<id>` directory."""

    directory: Path
    link: str
    #: Names that went away in this layer, for the curious.
    deletions: int = 0
    #: Deletions of this layer that are written down as whiteouts.
    whiteouts: set[bytes] = field(default_factory=set)
    #: Directory times to be put back when the layer is complete.
    times: dict[bytes, int] = field(default_factory=dict)

    @property
    def diff(self) -> Path:
        """The layer's tree."""
        return self.directory / "diff"


class ChainMaker:
    """Writes one chain, layer after layer, below `root/overlay2`."""

    def __init__(self, root: Path, marks: Marks) -> None:
        self.overlay = root / "overlay2"
        self.marks = marks
        self.layers: list[Layer] = []
        #: The merged tree so far: a path -> its names, or None where it is no directory.
        self._tree: dict[bytes, set[bytes] | None] = {b"": set()}
        #: What of the layers below the top one is still to be seen.
        self._below: set[bytes] = set()
        #: Which packages hold a path.
        self._owners: dict[bytes, set[str]] = {}
        self._paths: dict[str, list[bytes]] = {}
        (self.overlay / "l").mkdir(parents=True)

    @contextlib.contextmanager
    def layer(self, name: str) -> Iterator[Layer]:
        """A new layer on top; what is done inside the block goes into it."""
        digest = hashlib.sha256(f"{len(self.layers)} {name}".encode()).digest()
        directory = self.overlay / digest.hex()
        link = base64.b32encode(digest).decode()[:26]
        layer = Layer(directory, link)
        layer.diff.mkdir(parents=True)
        layer.diff.chmod(0o755)
        (directory / "link").write_text(link)
        (self.overlay / "l" / link).symlink_to(f"../{directory.name}/diff")
        if self.layers:
            lower = ":".join(f"l/{below.link}" for below in reversed(self.layers))
            (directory / "lower").write_text(lower)
            (directory / "work").mkdir()
            (self.layers[-1].directory / "committed").touch()
        self.layers.append(layer)
        self._below = set(self._tree)
        umask = os.umask(0o022)
        try:
            yield layer
        finally:
            os.umask(umask)
        layer.times[b""] = EPOCH * 10**9
        for path, mtime in layer.times.items():
            os.utime(self._full(path), ns=(mtime, mtime))

    def merged_usr(self) -> None:
        """`/bin -> usr/bin` and the like, as in every Debian since 12."""
        for name in MERGED_USR:
            self._directory(b"usr/" + name.encode())
            self.symlink(name, f"usr/{name}")

    def install(self, package: str, file: Path) -> None:
        """Unpacks a package; an older version of it goes away, as dpkg would."""
        before = self._paths.get(package, [])
        paths = self._unpack(file)
        new = set(paths)
        for path in paths:
            self._owners.setdefault(path, set()).add(package)
        self._paths[package] = paths
        for path in reversed(before):
            if path not in new:
                self._disown(package, path)

    def purge(self, package: str) -> None:
        """Removes what only this package holds."""
        for path in reversed(self._paths.pop(package)):
            self._disown(package, path)

    def remove(self, path: str) -> None:
        """`rm -rf path`."""
        self._remove(os.fsencode(path))

    def clear(self, path: str) -> None:
        """`rm -rf path && mkdir path`: an opaque directory."""
        target = os.fsencode(path)
        below = self._lower(target)
        self._remove(target, whiteout=False)
        self._directory(target)
        if below is not None and stat.S_ISDIR(below.st_mode):
            self._opaque(target)

    def write(self, path: str, content: bytes, mode: int = 0o644) -> None:
        """Writes a small file of the image's own."""
        full = self._place(path)
        full.write_bytes(content)
        full.chmod(mode)
        os.utime(full, (EPOCH, EPOCH))

    def make_directory(self, path: str) -> None:
        """Makes a directory where there is none."""
        self._directory(os.fsencode(path))

    def symlink(self, path: str, target: str) -> None:
        """Makes a symbolic link."""
        full = self._place(path)
        full.symlink_to(target)
        os.utime(full, (EPOCH, EPOCH), follow_symlinks=False)

    def hard_link(self, existing: str, path: str) -> None:
        """One more name for a file of this layer."""
        full = self._place(path)
        os.link(self.layers[-1].diff / existing, full, follow_symlinks=False)

    def capability(self, path: str, bits: int) -> None:
        """`setcap ...+ep` on a file of this layer, as package scripts do; only root may."""
        value = struct.pack("<IIIII", 0x02000001, bits, 0, 0, 0)
        os.setxattr(self.layers[-1].diff / path, "security.capability", value)

    @property
    def top(self) -> Path:
        """The chain directory: the topmost layer's."""
        return self.layers[-1].directory

    @property
    def diffs(self) -> list[Path]:
        """The layers' trees, base first."""
        return [layer.diff for layer in self.layers]

    def shows(self, path: str) -> bool:
        """Whether the merged tree has a name."""
        return os.fsencode(path) in self._tree

    @property
    def entries(self) -> int:
        """How many names the merged tree has, the root not counted."""
        return len(self._tree) - 1

    def _place(self, path: str) -> Path:
        name = os.fsencode(path)
        self._directory(os.path.dirname(name))
        self._dated(os.path.dirname(name))
        self._add(name, directory=False)
        full = self.layers[-1].diff / path
        full.unlink(missing_ok=True)
        return full

    def _full(self, path: bytes) -> bytes:
        """Where `path` lies in the top layer."""
        return os.path.join(os.fsencode(self.layers[-1].diff), path)

    def _add(self, path: bytes, directory: bool) -> None:
        """Enters a name of the top layer into the merged tree."""
        siblings = self._tree[os.path.dirname(path)]
        assert siblings is not None, f"{path!r} lies below a non-directory"
        siblings.add(os.path.basename(path))
        if not directory:
            self._tree[path] = None
        elif self._tree.get(path) is None:
            self._tree[path] = set()
        if path in self.layers[-1].whiteouts:
            self.layers[-1].whiteouts.discard(path)
            if directory:
                self._opaque(path)

    def _opaque(self, path: bytes) -> None:
        os.setxattr(self._full(path), self.marks.prefix + "opaque", b"y")

    def _unpack(self, file: Path) -> list[bytes]:
        """Unpacks `file` into the top layer; its paths, parents first."""
        diff = self.layers[-1].diff
        # Packages hold their symlinks last: directories are dated after that.
        command = ["tar", "-x", "-p", "-v", "--delay-directory-restore", "-C", str(diff), "-f", "-"]
        command += ["--show-transformed-names", "--quoting-style=literal", f"--transform={_TRANSFORM}"]
        with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(file)], stdout=subprocess.PIPE) as source:
            listing = subprocess.run(
                command,
                stdin=source.stdout,
                stdout=subprocess.PIPE,
                env={**os.environ, "LC_ALL": "C"},
                check=True,
            ).stdout
        if source.returncode != 0:
            raise OSError(f"{file}: dpkg-deb could not unpack it")
        listed = [(line.endswith(b"/"), line.strip(b"/")[2:]) for line in listing.splitlines()]
        paths = []
        for is_directory, path in listed:
            if not path:
                continue
            self._implied(os.path.dirname(path))
            if is_directory:
                self.layers[-1].times[path] = os.lstat(self._full(path)).st_mtime_ns
            self._add(path, is_directory)
            paths.append(path)
        return paths

    def _implied(self, path: bytes) -> None:
        """Dates a directory that tar had to make because no package lists it."""
        if path and path not in self.layers[-1].times:
            self._implied(os.path.dirname(path))
            self._add(path, directory=True)
            self._adopt(path)

    def _adopt(self, path: bytes) -> None:
        """Gives a directory of the top layer its lower one's attributes."""
        full = self._full(path)
        below = self._lower(path)
        mtime = EPOCH * 10**9
        if below is not None and stat.S_ISDIR(below.st_mode):
            mtime = below.st_mtime_ns
            os.chmod(full, stat.S_IMODE(below.st_mode))
            if os.geteuid() == 0:
                os.chown(full, below.st_uid, below.st_gid)
        self.layers[-1].times[path] = mtime

    def _dated(self, path: bytes) -> None:
        """Remembers the time of a directory of the top layer before we touch it."""
        if path not in self.layers[-1].times:
            self.layers[-1].times[path] = os.lstat(self._full(path)).st_mtime_ns

    def _directory(self, path: bytes) -> None:
        """Makes a directory, and its parents, in the top layer: a copy-up."""
        if not path or os.path.isdir(self._full(path)):
            return
        parent = os.path.dirname(path)
        self._directory(parent)
        self._dated(parent)
        if path in self.layers[-1].whiteouts:
            os.unlink(self._full(path))
        os.mkdir(self._full(path))
        self._add(path, directory=True)
        self._adopt(path)

    def _lower(self, path: bytes) -> os.stat_result | None:
        """What the layers below the top one still show at `path`."""
        if path not in self._below:
            return None
        for layer in reversed(self.layers[:-1]):
            with contextlib.suppress(OSError):
                return os.lstat(os.path.join(os.fsencode(layer.diff), path))
        raise AssertionError(f"{path!r} was recorded and is in no layer")

    def _disown(self, package: str, path: bytes) -> None:
        owners = self._owners.get(path, set())
        owners.discard(package)
        if owners or path not in self._tree:
            return
        if self._tree[path]:  # a directory that others still use
            return
        self._remove(path)

    def _remove(self, path: bytes, whiteout: bool = True) -> None:
        siblings = self._tree[os.path.dirname(path)]
        assert siblings is not None
        siblings.remove(os.path.basename(path))
        below = self._lower(path)
        layer = self.layers[-1]
        self._forget(path)
        layer.deletions += 1
        parent = os.path.dirname(path)
        full = self._full(path)
        if os.path.lexists(full):
            self._dated(parent)
            if os.path.isdir(full) and not os.path.islink(full):
                shutil.rmtree(full)
            else:
                os.unlink(full)
        if whiteout and below is not None:
            self._directory(parent)
            self._dated(parent)
            self._whiteout(path)

    def _forget(self, path: bytes) -> None:
        """Takes a whole subtree out of the records."""
        for name in self._tree.pop(path) or ():
            self._forget(os.path.join(path, name))
        self._below.discard(path)
        self.layers[-1].times.pop(path, None)

    def _whiteout(self, path: bytes) -> None:
        full = self._full(path)
        self.layers[-1].whiteouts.add(path)
        if self.marks.devices:
            os.mknod(full, stat.S_IFCHR, os.makedev(0, 0))
        else:
            os.close(os.open(full, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
            os.setxattr(full, self.marks.prefix + "whiteout", b"y")
            # A listing looks for such whiteouts only where the directory says
            # that it holds some.
            directory = os.path.dirname(full)
            with contextlib.suppress(OSError):
                if os.getxattr(directory, self.marks.prefix + "opaque") == b"y":
                    return
            os.setxattr(directory, self.marks.prefix + "opaque", b"x")
        os.utime(full, (EPOCH, EPOCH))
