"""Larger images."""

from __future__ import annotations

import os
import stat
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from layermelt import _core
from layermelt.busy import claim
from layermelt.errors import (
    ImageBusyError,
    InvalidOptionError,
    LayerChangedError,
    OutputPermissionError,
    UnsoundImageError,
    UnsupportedImageError,
    from_os_error,
)
from layermelt.images import check_image
from layermelt.options import Progress, StrPath
from layermelt.publish import Publication, absolute
from layermelt.settings import parse_size

__all__ = ["FileSystemSize", "GrowReport", "grow_image"]


@dataclass(frozen=True)
class FileSystemSize:
    """How large a file system is.

    Attributes:
        size: Bytes.
        blocks: Blocks.
        free_blocks: Free ones of them.
        groups: Block groups.
        inodes: Inodes.
        free_inodes: Free ones of them.
    """

    size: int
    blocks: int
    free_blocks: int
    groups: int
    inodes: int
    free_inodes: int


@dataclass(frozen=True)
class GrowReport:
    """What growing did.

    Attributes:
        path: The image.
        changed: Whether there was anything to do.
        method: ``"journal"``: in place, by way of the image's own journal; ``"copy"``: a copy was
            grown and put in its place; ``"none"``.
        reason: Why not by way of the journal; empty for other methods.
        block_size: Bytes of a block.
        old: The file system as it was.
        new: The file system as it is.
        file_size: Bytes of the file or device.
        meta_bg: Whether new groups keep their descriptors themselves (feature ``meta_bg``).
        written_bytes: Bytes written, without those of a copy.
    """

    path: Path
    changed: bool
    method: str
    reason: str
    block_size: int
    old: FileSystemSize
    new: FileSystemSize
    file_size: int
    meta_bg: bool
    written_bytes: int

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "path": os.fspath(self.path)}


def grow_image(
    path: StrPath,
    size: int | str,
    *,
    sync: bool = True,
    progress: Progress | None = None,
) -> GrowReport:
    """Makes the ext4 file system in an image larger; no block of it is moved.

    The image may be of any origin. Whatever happens meanwhile, it is the old file system or the
    new one: the change goes through the image's own journal. An image without a journal (that has
    room) is copied, by reflink where that goes, and the grown copy takes its place, with owner,
    mode and attributes; other names of the file (hard links) keep the old one. Of a block device
    there is no copy.

    Args:
        path: A file, which becomes longer, or a block device; nothing may have it in use.
        size: Bytes in all (also ``"4G"``), ``"+1G"`` for that many more, or ``"max"`` for all
            that the file or device has. A last group that would hold nothing but itself is left
            out, as resize2fs does.
        sync: Whether to wait until the disk has everything; without it a power failure can leave
            neither the old nor the new file system.
        progress: Called some 20 times a second with (phase, bytes done, 0). What it raises ends
            the work, while it can be undone, and is raised here.

    Raises:
        InvalidOptionError: The size is smaller than the image, or larger than it can be.
        ImageBusyError: The image is mounted, or in use by a machine.
        UncleanImageError: It must be unmounted, or repaired by e2fsck, before.
        UnsoundImageError: It is no sound ext4.
        UnsupportedImageError: It has a feature under which it is not grown here.
        OutputError: It cannot be written; it is still the old one.
    """
    image = os.fsdecode(path)
    if not image or "\0" in image:
        raise InvalidOptionError(f"invalid image {image!r}: expected the path of a file or block device")
    target, count = _target(size)
    image = os.path.realpath(absolute(image))
    with claim(image) as status:
        identity = (status.st_dev, status.st_ino)
        report, reason = _grow(image, identity, target, count, atomic=True, sync=sync, progress=progress)
        if report is not None:
            changed = report.new != report.old
            return _report(image, report, method="journal" if changed else "none", reason="")
        assert reason is not None
        if stat.S_ISBLK(status.st_mode):
            raise UnsupportedImageError(
                f"{image}: {reason}, and not by way of a journal a device is not grown here: a crash meanwhile "
                "would destroy it; use resize2fs",
                path=image,
            )
        report = _grow_copy(image, status, target, count, sync=sync, progress=progress)
        return _report(image, report, method="copy", reason=reason)


def _target(size: int | str) -> tuple[str, int]:
    if isinstance(size, str):
        text = size.strip()
        if text == "max":
            return "whole", 0
        if text.startswith("+"):
            return "more", parse_size(text[1:], "size")
    return "bytes", parse_size(size, "size")


def _grow(
    image: str,
    identity: tuple[int, int],
    target: str,
    count: int,
    *,
    atomic: bool,
    sync: bool,
    progress: Progress | None,
) -> tuple[_core.GrowReport | None, str | None]:
    found = check_image(image)
    # What is unclean is told by the core, with what to do.
    if found.problems and all(problem.code not in _TOLD_BY_THE_CORE for problem in found.problems):
        texts = tuple(problem.text for problem in found.problems)
        foreign = any(problem.code in _NO_FILE_SYSTEM for problem in found.problems)
        raise UnsoundImageError(
            f"{image}: not a sound ext4: {'; '.join(texts[:3])}{'' if foreign else '; run `e2fsck -f` on it'}",
            path=image,
            problems=texts,
        )
    try:
        return _core.grow_file(
            image, identity, target, count, atomic=atomic, sync=sync, record=False, progress=progress
        )
    except LayerChangedError as error:
        raise ImageBusyError(
            f"{image}: was changed by somebody else meanwhile ({error})", path=image
        ) from None


_TOLD_BY_THE_CORE = frozenset({"needs-recovery", "not-clean", "errors"})
#: With these it is something else, to which e2fsck could do harm.
_NO_FILE_SYSTEM = frozenset({"bad-magic", "journal-device", "too-short"})


def _grow_copy(
    image: str,
    status: os.stat_result,
    target: str,
    count: int,
    *,
    sync: bool,
    progress: Progress | None,
) -> _core.GrowReport:
    with Publication(image) as publication:
        temporary = publication.temporary
        # Before anything is written: it is what may be forbidden.
        _keep_owner(image, status, temporary)
        _core.clone_file(image, temporary, publication.target, progress=progress)
        copy = os.stat(temporary)
        identity = (copy.st_dev, copy.st_ino)
        report, _ = _grow(temporary, identity, target, count, atomic=False, sync=False, progress=progress)
        assert report is not None
        _keep_attributes(image, temporary)
        publication.commit(sync=sync, mode=stat.S_IMODE(status.st_mode))
    return report


def _keep_owner(image: str, status: os.stat_result, copy: str) -> None:
    made = os.stat(copy)
    if (made.st_uid, made.st_gid) == (status.st_uid, status.st_gid):
        return
    try:
        os.chown(copy, status.st_uid, status.st_gid)
    except OSError as error:
        raise OutputPermissionError(
            f"{image}: is grown by way of a copy, which cannot be given to its owner, "
            f"{status.st_uid}:{status.st_gid} ({error.strerror}); run as that user or as root",
            path=image,
            errno=error.errno,
        ) from None


def _keep_attributes(image: str, copy: str) -> None:
    """Who may read or write the image, and what else was noted of it.

    A directory may give new files an ACL; and of a file with one the mode does not tell what its
    group may do, so that without the ACL it might do more.
    """
    kept = _attributes(image) - _OF_THE_BYTES
    if _ACL in _attributes(copy) - kept:
        os.removexattr(copy, _ACL)
    for name in sorted(kept):
        try:
            os.setxattr(copy, name, os.getxattr(image, name))
        except OSError as error:
            # Labels, which a policy gives and forbids.
            if name == _ACL or name.startswith("user."):
                raise from_os_error(
                    "output",
                    f"cannot give {name} of {image} to its copy: {error.strerror}",
                    image,
                    error.errno,
                ) from None


def _attributes(path: str) -> set[str]:
    try:
        return set(os.listxattr(path))
    except OSError:
        # There are none on this file system.
        return set()


_ACL = "system.posix_acl_access"
#: Digests and signatures of the old bytes.
_OF_THE_BYTES = frozenset({"security.evm", "security.ima"})


def _report(image: str, report: _core.GrowReport, *, method: str, reason: str) -> GrowReport:
    def size(counts: tuple[int, int, int, int, int]) -> FileSystemSize:
        return FileSystemSize(counts[0] * report.block_size, *counts)

    return GrowReport(
        path=Path(image),
        changed=report.new != report.old,
        method=method,
        reason=reason,
        block_size=report.block_size,
        old=size(report.old),
        new=size(report.new),
        file_size=report.file_bytes,
        meta_bg=report.meta_bg,
        written_bytes=report.written_bytes,
    )
