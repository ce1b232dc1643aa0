"""The way of a build: a source is resolved, its image made, checked and published."""

from __future__ import annotations

import os
import time
import uuid as _uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from layermelt import _core, settings, sources
from layermelt.errors import InvalidOptionError, UnsoundImageError
from layermelt.publish import Publication

__all__ = ["BuildResult", "InjectedFile", "InspectResult", "build_rootfs", "inspect_source"]

StrPath = str | bytes | os.PathLike[str]
Progress = Callable[[str, int, int], object]

_MAX_THREADS = 256
#: (uid_t)-1 and (gid_t)-1 mean "no change" to the kernel.
_MAX_ID = (1 << 32) - 2


@dataclass(frozen=True)
class InjectedFile:
    """A file to put into the image, as if one more layer held it.

    Attributes:
        destination: Its absolute path in the image. Symlinks in its directories are followed
            inside the image, missing ones are made; a symlink at the path itself is replaced.
        source: The host's file, through symlinks.
        content: Its bytes, instead of a source.
        mode: Its permissions. `None`: 0755 when the source is executable for its owner, else 0644.
        uid: Its owner.
        gid: Its group.
    """

    destination: str | bytes
    source: StrPath | None = None
    content: bytes | None = None
    mode: int | None = None
    uid: int = 0
    gid: int = 0


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


def build_rootfs(
    source: StrPath | None,
    output: StrPath,
    *,
    layers: Sequence[StrPath] = (),
    docker_root: StrPath | None = None,
    agent: StrPath | InjectedFile | None = None,
    files: Sequence[InjectedFile] = (),
    size: int | str = "auto",
    free_space: int | str = settings.DEFAULT_FREE_SPACE,
    inodes: int | None = None,
    label: str | bytes = "",
    uuid: str | bytes | _uuid.UUID | None = None,
    threads: int | None = None,
    userxattr: bool | None = None,
    agent_check: bool = True,
    engine: str = "native",
    engine_args: Sequence[str] = (),
    injector: str = "auto",
    sync: bool = True,
    progress: Progress | None = None,
) -> BuildResult:
    """Merges a chain of container layers into one ext4 image.

    The image appears at `output` whole or not at all. The same input makes the same bytes,
    whatever the number of threads and the host's file system. ``SOURCE_DATE_EPOCH`` is
    honoured for the superblock's times.

    Args:
        source: A chain directory (``overlay2/<id>`` or ``overlay/<id>``), ``docker:NAME[:TAG]``,
            ``docker:NAME@DIGEST`` or ``docker:ID``; `None` with `layers`.
        output: Path of the image; its directory must exist. An older image is replaced.
        layers: Instead of a source: the layers' directories, base first.
        docker_root: Docker's data root, for ``docker:``.
        agent: The program to put at ``/sbin/vm-agent``, 0755 and root's, or another file.
        files: Further files to put in. The agent wins over one of the same path.
        size: ``"auto"`` (what is needed and `free_space`), ``"min"``, or bytes (also ``"2G"``).
        free_space: Bytes that are to be free with ``size="auto"``; they are holes.
        inodes: How many inodes there are to be at the least; `None`: one for each 16 KiB.
        label: The file system's label, at most 16 bytes.
        uuid: The file system's UUID; `None`: one derived from the tree.
        threads: `None`: one for each processor.
        userxattr: Whether the layers' marks are ``user.overlay.*``; `None`: what the store says.
        agent_check: Whether to see that the image can run the agent: it is of the image's
            architecture, and static or its interpreter exists in the image.
        engine: What makes the image: ``"native"``, ``"oci2rootfs"``, or one that was registered
            (`layermelt.engines`). Others than the native one take none of the options that
            shape the image.
        engine_args: Further arguments for an external engine's program.
        injector: What puts files in: ``"plan"`` (part of a native build), ``"mount"`` (a loop
            mount of the finished image; needs root), one that was registered, or ``"auto"``:
            ``plan`` where it can be, else ``mount``.
        sync: Whether to wait until the disk has everything.
        progress: Called some 20 times a second with (phase, units done, units in all or 0).
            What it raises ends the build and is raised here.

    Raises:
        LayermeltError: One of `layermelt.errors`.
    """
    clock = Clock()
    options = core_options(
        agent=agent,
        files=files,
        size=size,
        free_space=free_space,
        inodes=inodes,
        label=label,
        uuid=uuid,
        threads=threads,
        agent_check=agent_check,
        sync=sync,
        progress=progress,
    )
    way = None
    if engine != "native" or engine_args or injector not in ("auto", "plan"):
        from layermelt.external import choose_way

        way = choose_way(engine, engine_args, injector)
    publication = Publication(output)
    chain = sources.resolve(source, layers=layers, docker_root=docker_root)
    marks = sources.choose_marks(chain, userxattr=userxattr)
    clock.lap("resolve")
    with publication:
        if way is not None:
            from layermelt.external import build_externally

            return build_externally(way, publication, chain, {**options, "userxattr": marks}, clock)
        return build_into(publication, chain, {**options, "userxattr": marks}, clock)


def core_options(
    *,
    agent: StrPath | InjectedFile | None,
    files: Sequence[InjectedFile],
    size: int | str,
    free_space: int | str,
    inodes: int | None,
    label: str | bytes,
    uuid: str | bytes | _uuid.UUID | None,
    threads: int | None,
    agent_check: bool,
    sync: bool,
    progress: Progress | None,
) -> dict[str, Any]:
    """The options of `build_rootfs` as the core takes them."""
    injected = [injection(file, "file") for file in files]
    if agent is not None:
        injected.append(injection(agent_file(agent), "agent"))
    return {
        "files": injected,
        "size": size if size in ("auto", "min") else settings.parse_size(size, "size"),
        "free_space": settings.parse_size(free_space, "free space"),
        "inodes": _inodes(inodes),
        "label": _label(label),
        "uuid": _uuid_bytes(uuid),
        "timestamp": settings.source_date_epoch(),
        "threads": worker_threads(threads),
        "check_agent": agent is not None and agent_check,
        "sync": sync,
        "progress": progress,
    }


def agent_file(agent: StrPath | InjectedFile) -> InjectedFile:
    """The agent, as one file of those to be put in."""
    if isinstance(agent, InjectedFile):
        return agent
    return InjectedFile(settings.AGENT_DESTINATION, source=agent, mode=settings.AGENT_MODE)


def build_into(
    publication: Publication,
    chain: sources.Chain,
    options: dict[str, Any],
    clock: Clock,
    *,
    mode: int | None = None,
    finish: Callable[[], None] | None = None,
) -> BuildResult:
    """Builds with the core's `options`, checks, and publishes with that mode of the file.

    `finish` is called when the temporary file is an image.
    """
    sync = options["sync"]
    report = _core.build_image(
        chain.paths(),
        publication.temporary,
        publication.target,
        fuse_overlayfs=chain.fuse_overlayfs,
        **options,
    )
    clock.add(report.phases)
    if finish is not None:
        finish()
    _demand_sound(publication)
    clock.lap("check")
    publication.commit(sync=sync, mode=mode)
    allocated = publication.allocated_bytes()
    clock.lap("publish")
    counts = report.counts
    return BuildResult(
        path=Path(publication.target),
        source=chain.description,
        size=report.image_bytes,
        allocated=allocated,
        written=report.written_bytes,
        content=counts.bytes,
        entries=counts.entries,
        directories=counts.directories,
        files=counts.files,
        symlinks=counts.symlinks,
        special=counts.special,
        hard_links=counts.hard_links,
        block_size=report.block_size,
        blocks=report.blocks,
        free_blocks=report.free_blocks,
        inodes=report.inodes,
        free_inodes=report.free_inodes,
        uuid=str(_uuid.UUID(bytes=report.uuid)),
        copy_method=report.copy_method,
        warnings=(*chain.warnings, *report.warnings),
        phases=MappingProxyType(clock.phases),
    )


def inspect_source(
    source: StrPath | None,
    *,
    layers: Sequence[StrPath] = (),
    docker_root: StrPath | None = None,
    threads: int | None = None,
    userxattr: bool | None = None,
) -> InspectResult:
    """Merges a source and tells what is in it, without writing anything.

    The arguments are those of `build_rootfs`.
    """
    chain = sources.resolve(source, layers=layers, docker_root=docker_root)
    marks = sources.choose_marks(chain, userxattr=userxattr)
    counts, warnings, seconds = _core.inspect_layers(
        chain.paths(), userxattr=marks, fuse_overlayfs=chain.fuse_overlayfs, threads=worker_threads(threads)
    )
    return InspectResult(
        source=chain.description,
        layers=tuple(chain.paths()),
        userxattr=marks,
        fuse_overlayfs=chain.fuse_overlayfs,
        content=counts.bytes,
        entries=counts.entries,
        directories=counts.directories,
        files=counts.files,
        symlinks=counts.symlinks,
        special=counts.special,
        hard_links=counts.hard_links,
        warnings=(*chain.warnings, *warnings),
        seconds=seconds,
    )


class Clock:
    """Seconds by phase."""

    def __init__(self) -> None:
        self.phases: dict[str, float] = {}
        self._since = time.perf_counter()

    def lap(self, phase: str) -> None:
        now = time.perf_counter()
        self.phases[phase] = now - self._since
        self._since = now

    def add(self, phases: Mapping[str, float]) -> None:
        self.phases.update(phases)
        self._since = time.perf_counter()


def _demand_sound(publication: Publication) -> None:
    problems = _core.check_image(publication.temporary).problems
    if problems:
        texts = tuple(problem.text for problem in problems)
        listed = "\n  ".join(texts[:10])
        raise UnsoundImageError(
            f"{publication.target}: the image that was just written is not sound; something else wrote to it, "
            f"or this is a fault of layermelt:\n  {listed}",
            path=publication.target,
            problems=texts,
        )


def injection(file: InjectedFile, option: str) -> tuple[str | bytes, bytes, int, int, int]:
    """The file as the core takes it."""
    if (file.source is None) == (file.content is None):
        raise InvalidOptionError(
            f"invalid {option} {file.destination!r}: give either a source or its content"
        )
    what: str | bytes
    if file.content is not None:
        what = bytes(file.content)
    else:
        assert file.source is not None
        what = os.fsdecode(file.source)
        if not what or "\0" in what:
            raise InvalidOptionError(f"invalid {option} {what!r}: expected the path of a file")
    mode = (
        _default_mode(what) if file.mode is None else settings.parse_mode(file.mode, f"mode of the {option}")
    )
    for name, number in (("owner", file.uid), ("group", file.gid)):
        if not 0 <= number <= _MAX_ID:
            raise InvalidOptionError(f"invalid {name} {number!r} of the {option}: expected 0 to {_MAX_ID}")
    return what, os.fsencode(file.destination), mode, file.uid, file.gid


def _default_mode(source: str | bytes) -> int:
    """As git keeps it: the rest of a host file's mode is its umask's."""
    try:
        executable = not isinstance(source, bytes) and os.stat(source).st_mode & 0o100
    except (OSError, ValueError):
        # The core tells what is wrong with the file.
        executable = False
    return 0o755 if executable else 0o644


def _inodes(inodes: int | None) -> int | None:
    if inodes is not None and not 0 < inodes < 1 << 32:
        raise InvalidOptionError(f"invalid inodes {inodes!r}: expected 1 to 2^32-1")
    return inodes


def _label(label: str | bytes) -> bytes:
    raw = os.fsencode(label)
    if len(raw) > settings.MAX_LABEL or b"\0" in raw:
        raise InvalidOptionError(
            f"invalid label {label!r}: expected at most {settings.MAX_LABEL} bytes without NUL"
        )
    return raw


def _uuid_bytes(uuid: str | bytes | _uuid.UUID | None) -> bytes | None:
    if uuid is None:
        return None
    try:
        if isinstance(uuid, bytes):
            return _uuid.UUID(bytes=uuid).bytes
        return _uuid.UUID(str(uuid)).bytes
    except ValueError:
        raise InvalidOptionError(
            f"invalid UUID {uuid!r}: expected 32 hex digits such as 123e4567-e89b-12d3-a456-426614174000"
        ) from None


def worker_threads(threads: int | None) -> int:
    if threads is None:
        return 0
    if not 1 <= threads <= _MAX_THREADS:
        raise InvalidOptionError(f"invalid threads {threads!r}: expected 1 to {_MAX_THREADS}")
    return threads
