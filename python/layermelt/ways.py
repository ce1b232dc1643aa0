"""The ways to an image: wholly the core's, or with another engine or a mount."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from layermelt import _core, engines, inject, settings, sources
from layermelt.errors import InvalidOptionError, UnsupportedSourceError
from layermelt.job import Job, Made, Way
from layermelt.options import SHAPE
from layermelt.publish import Publication

__all__ = ["EngineWay", "InjectedWay", "NativeWay", "choose_way"]


def choose_way(
    engine: str,
    engine_args: Sequence[str],
    injector: str,
    *,
    oci2rootfs: str | None = None,
    busybox: str | None = None,
) -> Way:
    """The way that is meant.

    Args:
        engine: ``"native"`` or another engine's name.
        engine_args: Further arguments for an external engine's program.
        injector: ``"auto"``, ``"plan"`` or an injector's name.
        oci2rootfs: That program's path; `None`: it is looked for.
        busybox: Path of busybox; `None`: it is looked for.

    Raises:
        InvalidOptionError: There is no such thing, or they do not go together.
    """
    found = engines.find_engine(engine, oci2rootfs=oci2rootfs, engine_args=engine_args)
    chosen = inject.choose_injector(injector, engine)
    maker: Way = NativeWay() if engine == "native" else EngineWay(found)
    if chosen == inject.PLAN:
        return maker
    return InjectedWay(maker, inject.find_injector(chosen, busybox=busybox or settings.busybox()))


class NativeWay:
    """All is the core's work, in one go."""

    engine = "native"
    injector = inject.PLAN

    def identity(self) -> list[str]:
        """See `layermelt.job.Way`."""
        return [self.engine, str(_core.FORMAT_EPOCH)]

    def make(self, job: Job, publication: Publication) -> Made:
        """See `layermelt.job.Way`."""
        job.begin_injecting()
        report = _core.build_image(
            job.chain.paths(),
            publication.temporary,
            publication.target,
            fuse_overlayfs=job.chain.fuse_overlayfs,
            **job.options,
        )
        job.clock.add(report.phases)
        return Made(
            copy_method=report.copy_method,
            counts=report.counts,
            written=report.written_bytes,
            warnings=(*job.chain.warnings, *report.warnings),
        )


@dataclass(frozen=True)
class EngineWay:
    """Another engine makes an image, without files of ours in it."""

    maker: engines.Engine
    injector = inject.PLAN

    @property
    def engine(self) -> str:
        """See `layermelt.job.Way`."""
        return self.maker.name

    def identity(self) -> list[str]:
        """See `layermelt.job.Way`."""
        return [self.maker.fingerprint()]

    def make(self, job: Job, publication: Publication) -> Made:
        """See `layermelt.job.Way`."""
        _demand_no_shape(self.engine, job.options)
        layer = _chain_directory(self.engine, job)
        job.clock.lap("resolve")
        found = self.maker.build(
            layer, publication.temporary, timeout=job.limit.left(), should_stop=job.stop_check("engine")
        )
        publication.adopt()
        job.clock.lap("engine")
        return Made(
            copy_method=self.engine,
            warnings=(*job.chain.warnings, *_doubts(self.engine, job), *found),
        )


@dataclass(frozen=True)
class InjectedWay:
    """An image is made without the files, which are then put in."""

    maker: Way
    putter: inject.Injector

    @property
    def engine(self) -> str:
        """See `layermelt.job.Way`."""
        return self.maker.engine

    @property
    def injector(self) -> str:
        """See `layermelt.job.Way`."""
        return self.putter.name

    def identity(self) -> list[str]:
        """See `layermelt.job.Way`."""
        return [*self.maker.identity(), self.injector]

    def make(self, job: Job, publication: Publication) -> Made:
        """See `layermelt.job.Way`."""
        if job.options["check_agent"]:
            # Before anything is made, and of the merged layers: a finished image is not asked.
            _core.check_agent(
                job.chain.paths(),
                userxattr=job.options["userxattr"],
                fuse_overlayfs=job.chain.fuse_overlayfs,
                agent=job.options["files"][-1],
                threads=job.options["threads"],
                progress=job.options["progress"],
            )
            job.clock.lap("agent check")
        made = self.maker.make(job.without_files(), publication)
        job.begin_injecting()
        for content, destination, mode, uid, gid in job.options["files"]:
            self.putter.inject(
                publication.temporary,
                content,
                destination,
                mode=mode,
                uid=uid,
                gid=gid,
                timeout=job.limit.left(),
                should_stop=job.stop_check("inject"),
            )
        job.clock.lap("inject")
        return made


def _demand_no_shape(engine: str, options: Any) -> None:
    """What another program decides by itself is not asked for in vain."""
    for name, default in SHAPE.items():
        if options.get(name, default) != default:
            raise InvalidOptionError(
                f"invalid {name.replace('_', ' ')} with the engine {engine}: it is the native engine's option; "
                "give the engine its own with --engine-arg"
            )


def _chain_directory(engine: str, job: Job) -> str:
    """What the engine is given: the directory of the top layer, which tells the others."""
    top = os.fspath(job.chain.layers[-1])
    directory = os.path.dirname(top)
    if os.path.basename(top) != "diff" or not os.path.isfile(os.path.join(directory, "link")):
        raise UnsupportedSourceError(
            f"{top}: the engine {engine} takes a chain directory of Docker's (overlay2/<id>); build natively "
            "from what is none",
            path=top,
        )
    named = sources.resolve(directory).paths()
    if list(map(os.path.realpath, named)) != list(map(os.path.realpath, job.chain.paths())):
        raise UnsupportedSourceError(
            f"{directory}: the engine {engine} would take the {len(named)} layers that this chain directory names, "
            f"and other ones were given; give the chain directory itself, or build natively",
            path=directory,
        )
    return directory


def _doubts(engine: str, job: Job) -> list[str]:
    """What the engine is not known to understand."""
    userxattr = job.options["userxattr"]
    marks = "fuse-overlayfs" if job.chain.fuse_overlayfs else "user.overlay.*" if userxattr else None
    if marks is None:
        return []
    doubt = f"the layers have marks of {marks}, which the engine {engine} may not understand"
    return [f"{doubt}: what they delete may be in the image"]
