"""Clones of images."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from layermelt import _core
from layermelt.errors import ImageError, ImageNotFoundError, InvalidOptionError, LayerChangedError
from layermelt.options import Progress, StrPath
from layermelt.publish import Publication

__all__ = ["CloneReport", "clone_image"]


@dataclass(frozen=True)
class CloneReport:
    """What a clone did.

    Attributes:
        path: The clone.
        method: ``"reflink"``, ``"copy_file_range"`` or ``"read+write"``.
        bytes_cloned: Bytes that both files share until one of them is written to.
        bytes_copied: Bytes that were copied.
        holes: Bytes that are holes in the clone; with a reflink holes are not counted.
        reasons: Why not in a faster way, a sentence for each one that was refused.
    """

    path: Path
    method: str
    bytes_cloned: int
    bytes_copied: int
    holes: int
    reasons: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**self.__dict__, "path": os.fspath(self.path), "reasons": list(self.reasons)}


def clone_image(
    src: StrPath,
    dst: StrPath,
    *,
    sync: bool = True,
    progress: Progress | None = None,
) -> CloneReport:
    """Clones an image file, in the fastest way that the file systems allow.

    That is a reflink, else ``copy_file_range`` over the parts with data, else reading and
    writing them. Holes stay holes in every way. The clone appears at `dst` whole or not at
    all; it is a file of its own, with a new file's mode, even of a read-only image.

    Args:
        src: A regular file.
        dst: Path of the clone; its directory must exist. An older file is replaced.
        sync: Whether to wait until the disk has everything.
        progress: Called some 20 times a second with (phase, bytes done, bytes in all). What it
            raises ends the work and is raised here.
    """
    source = os.fsdecode(src)
    if not source or "\0" in source:
        raise InvalidOptionError(f"invalid image {source!r}: expected the path of a file")
    # First of all: opening a FIFO or a device can have effects.
    if not os.path.isfile(source):
        if os.path.exists(source):
            raise ImageError(f"{source}: not a regular file; only those are cloned", path=source)
        raise ImageNotFoundError(f"{source}: no such file", path=source, errno=errno.ENOENT)
    publication = Publication(dst)
    if os.path.exists(publication.target) and os.path.samefile(source, publication.target):
        raise InvalidOptionError(
            f"{publication.target}: is the image itself; give another path for the clone"
        )
    with publication:
        try:
            report = _core.clone_file(source, publication.temporary, publication.target, progress=progress)
        except LayerChangedError:
            raise ImageError(
                f"{source}: was written to while it was cloned; clone an image that nothing uses",
                path=source,
            ) from None
        publication.commit(sync=sync)
    return CloneReport(
        path=Path(publication.target),
        method=report.method,
        bytes_cloned=report.bytes_cloned,
        bytes_copied=report.bytes_copied,
        holes=report.holes,
        reasons=tuple(report.reasons),
    )
