"""The way of a build: a source is resolved, its image made, checked and published."""

from __future__ import annotations

import uuid as _uuid
from collections.abc import Sequence

from layermelt import _core, settings, sources
from layermelt.errors import InvalidOptionError
from layermelt.job import Job, Limit, finish
from layermelt.options import InjectedFile, Progress, StrPath, core_options, image_shape, worker_threads
from layermelt.publish import Publication
from layermelt.results import BuildResult, Clock, InspectResult
from layermelt.ways import choose_way

__all__ = ["BuildResult", "InjectedFile", "InspectResult", "build_rootfs", "inspect_source"]


def build_rootfs(
    source: StrPath | None,
    output: StrPath | None = None,
    *,
    layers: Sequence[StrPath] = (),
    docker_root: StrPath | None = None,
    cache_dir: StrPath | None = None,
    agent: StrPath | InjectedFile | None = None,
    files: Sequence[InjectedFile] = (),
    size: int | str = "auto",
    free_space: int | str = settings.DEFAULT_FREE_SPACE,
    inodes: int | None = None,
    label: str | bytes = "",
    uuid: str | bytes | _uuid.UUID | None = None,
    profile: str = "default",
    journal: int | str = "auto",
    reserved: int | str = 0,
    block_size: int = 4096,
    inode_flags: bool = False,
    threads: int | None = None,
    userxattr: bool | None = None,
    agent_check: bool = True,
    engine: str = "native",
    engine_args: Sequence[str] = (),
    injector: str = "auto",
    timeout: float | None = None,
    sync: bool = True,
    progress: Progress | None = None,
) -> BuildResult:
    """Merges a chain of container layers into one ext4 image.

    The image appears at its path whole or not at all. The same input makes the same bytes,
    whatever the number of threads and the host's file system. ``SOURCE_DATE_EPOCH`` is
    honoured for the superblock's times.

    Args:
        source: A chain directory (``overlay2/<id>``, ``overlay/<id>`` or containerd's ``snapshots/<id>``), ``docker:NAME[:TAG]``,
            ``docker:NAME@DIGEST``, ``docker:ID`` or ``containerd:NAME[:TAG]``; `None` with `layers`.
        output: Path of the image; its directory must exist. An older image is replaced. `None`:
            the image is an entry of the cache, and is built only if it is not there. The entry's
            key covers the chain's content, all files that are put in, and every option that
            changes bytes; entries are read-only files.
        layers: Instead of a source: the layers' directories, base first.
        docker_root: Docker's data root, for ``docker:``.
        cache_dir: Where the cache is, without `output`. `None`: ``LAYERMELT_CACHE_DIR``, else
            ``/var/cache/layermelt`` for root and ``$XDG_CACHE_HOME/layermelt`` for users.
        agent: The program to put at ``/sbin/vm-agent``, 0755 and root's, or another file.
        files: Further files to put in. The agent wins over one of the same path.
        size: ``"auto"`` (what is needed and `free_space`), ``"min"``, or bytes (also ``"2G"``).
        free_space: Bytes that are to be free with ``size="auto"``; they are holes.
        inodes: How many inodes there are to be at the least; `None`: one for each 16 KiB.
        label: The file system's label, at most 16 bytes.
        uuid: The file system's UUID; `None`: one derived from the tree.
        profile: What the image is made for: ``"default"``, ``"compat"`` (Linux 3.x and old
            e2fsprogs: no 64bit, no metadata_csum), or ``"readonly"`` (nothing is ever written to
            it: no journal, nothing free, nothing to grow).
        journal: ``"auto"`` (as mke2fs sizes it), ``"none"``, or its size in bytes (also ``"16M"``).
        reserved: Bytes that only root may fill.
        block_size: Bytes of a block: 1024, 2048 or 4096.
        inode_flags: Whether files and directories keep the flags immutable, append, nodump and
            noatime that they have in their layer.
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
        timeout: Seconds the build may take.
        sync: Whether to wait until the disk has everything.
        progress: Called some 20 times a second with (phase, units done, units in all or 0).
            What it raises ends the build and is raised here.

    Raises:
        LayermeltError: One of `layermelt.errors`.
    """
    clock = Clock()
    limit = Limit(timeout)
    shape = image_shape(
        size=size,
        free_space=free_space,
        inodes=inodes,
        label=label,
        uuid=uuid,
        profile=profile,
        journal=journal,
        reserved=reserved,
        block_size=block_size,
        inode_flags=inode_flags,
    )
    options = core_options(
        shape,
        agent=agent,
        files=files,
        threads=threads,
        agent_check=agent_check,
        sync=sync,
        progress=limit.watch(progress),
    )
    way = choose_way(engine, engine_args, injector)
    if output is not None and cache_dir is not None:
        raise InvalidOptionError("an output and a cache directory exclude each other; give one of them")
    publication = None if output is None else Publication(output)
    job = Job.of(
        source,
        options,
        layers=layers,
        docker_root=docker_root,
        userxattr=userxattr,
        clock=clock,
        limit=limit,
    )
    if publication is None:
        from layermelt.cache import build_cached

        return build_cached(settings.default_cache_dir() if cache_dir is None else cache_dir, way, job)
    with publication:
        return finish(way, job, publication, way.make(job, publication))


def inspect_source(
    source: StrPath | None,
    *,
    layers: Sequence[StrPath] = (),
    docker_root: StrPath | None = None,
    threads: int | None = None,
    userxattr: bool | None = None,
    progress: Progress | None = None,
) -> InspectResult:
    """Merges a source and tells what is in it, without writing anything.

    The arguments are those of `build_rootfs`.
    """
    chain = sources.resolve(source, layers=layers, docker_root=docker_root)
    marks = sources.choose_marks(chain, userxattr=userxattr)
    counts, warnings, seconds = _core.inspect_layers(
        chain.paths(),
        userxattr=marks,
        fuse_overlayfs=chain.fuse_overlayfs,
        threads=worker_threads(threads),
        progress=progress,
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
