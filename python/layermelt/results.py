"""What builds tell."""

from __future__ import annotations

import os
import time
import uuid as _uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from layermelt._core import Counts
    from layermelt.images import ImageReport

__all__ = ["BuildResult", "Clock", "InspectResult", "image_result"]


class Clock:
    """Seconds by phase."""

    def __init__(self) -> None:
        self.phases: dict[str, float] = {}
        self._since = time.perf_counter()

    def lap(self, phase: str) -> None:
        """Ends a phase, which may be one that went on before."""
        now = time.perf_counter()
        self.phases[phase] = self.phases.get(phase, 0.0) + now - self._since
        self._since = now

    def add(self, phases: Mapping[str, float]) -> None:
        """What was measured elsewhere meanwhile."""
        self.phases.update(phases)
        self._since = time.perf_counter()


@dataclass(frozen=True)
class BuildResult:
    """What a build did.

    Attributes:
        path: The image.
        source: What it was made from.
        size: Size of the image in bytes.
        allocated: Bytes of it that take room on the disk; the rest are holes.
        written: Bytes that were written.
        content: Sum of the sizes of all files in it, holes included.
        entries: Names in it, without "." and "..".
        directories: Directories, with the root.
        files: Regular files, a hard-linked one once.
        symlinks: Symbolic links.
        special: Device nodes, FIFOs and sockets.
        hard_links: Names beyond the first of an inode.
        block_size: Bytes of a block.
        blocks: Blocks of the file system.
        free_blocks: Free ones of them.
        inodes: Inodes of the file system.
        free_inodes: Free ones of them.
        uuid: The file system's UUID.
        copy_method: How the data came into the image.
        warnings: What the user should know, a sentence each.
        phases: Seconds by phase, in their order.
        engine: What made the image. Another one than ``native`` does not tell how much it put
            in: `content` and all counts of entries are 0.
        injector: What puts files in.
        key: The key of the cache's entry; empty for an image at a path of the user's.
        cached: It was in the cache, and nothing was built. `content`, `written` and all counts
            of entries are 0 then, and `copy_method` is ``"cache"``.
    """

    path: Path
    source: str
    size: int
    allocated: int
    written: int
    content: int
    entries: int
    directories: int
    files: int
    symlinks: int
    special: int
    hard_links: int
    block_size: int
    blocks: int
    free_blocks: int
    inodes: int
    free_inodes: int
    uuid: str
    copy_method: str
    warnings: tuple[str, ...]
    phases: Mapping[str, float]
    engine: str = "native"
    injector: str = "plan"
    key: str = ""
    cached: bool = False

    @property
    def seconds(self) -> float:
        """How long all phases took."""
        return sum(self.phases.values())

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        fields = dict(self.__dict__)
        fields.update(
            path=os.fspath(self.path),
            warnings=list(self.warnings),
            phases=dict(self.phases),
            seconds=self.seconds,
        )
        return fields

    def __reduce__(self) -> tuple[Any, ...]:
        # A read-only mapping cannot be pickled.
        return _restore_result, ({**self.__dict__, "phases": dict(self.phases)},)


def image_result(
    path: str | Path,
    report: ImageReport,
    *,
    source: str,
    counts: Counts | None,
    allocated: int,
    written: int,
    copy_method: str,
    warnings: Sequence[str],
    clock: Clock,
    engine: str,
    injector: str,
) -> BuildResult:
    """The result for an image that was looked at."""
    return BuildResult(
        path=Path(path),
        source=source,
        size=report.size,
        allocated=allocated,
        written=written,
        content=0 if counts is None else counts.bytes,
        entries=0 if counts is None else counts.entries,
        directories=0 if counts is None else counts.directories,
        files=0 if counts is None else counts.files,
        symlinks=0 if counts is None else counts.symlinks,
        special=0 if counts is None else counts.special,
        hard_links=0 if counts is None else counts.hard_links,
        block_size=report.block_size,
        blocks=report.blocks,
        free_blocks=report.free_blocks,
        inodes=report.inodes,
        free_inodes=report.free_inodes,
        uuid=str(_uuid.UUID(report.uuid)),
        copy_method=copy_method,
        warnings=tuple(warnings),
        phases=MappingProxyType(clock.phases),
        engine=engine,
        injector=injector,
    )


def _restore_result(fields: dict[str, Any]) -> BuildResult:
    return BuildResult(**{**fields, "phases": MappingProxyType(fields["phases"])})


@dataclass(frozen=True)
class InspectResult:
    """What a source holds when it is merged. The counts are those of `BuildResult`.

    Attributes:
        source: What it is.
        layers: The layers' directories, base first.
        userxattr: Whether the marks are ``user.overlay.*``.
        fuse_overlayfs: Whether fuse-overlayfs wrote the store.
        warnings: What the user should know, a sentence each.
        seconds: How long it took.
    """

    source: str
    layers: tuple[str, ...]
    userxattr: bool
    fuse_overlayfs: bool
    content: int
    entries: int
    directories: int
    files: int
    symlinks: int
    special: int
    hard_links: int
    warnings: tuple[str, ...]
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**self.__dict__, "layers": list(self.layers), "warnings": list(self.warnings)}
