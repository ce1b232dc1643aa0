"""Builds that are not wholly the core's: another engine makes the image, or a mount puts files in."""

from __future__ import annotations

import dataclasses
import os
import uuid as _uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from layermelt import _core, engines, inject, settings, sources
from layermelt.errors import InvalidOptionError, UnsupportedSourceError
from layermelt.images import check_image

if TYPE_CHECKING:
    from layermelt.builder import BuildResult, Clock
    from layermelt.publish import Publication

__all__ = ["Way", "build_externally", "choose_way"]

#: The options of the core that shape an image, with the values that say nothing.
_SHAPE = {
    "size": "auto",
    "free_space": settings.DEFAULT_FREE_SPACE,
    "inodes": None,
    "label": b"",
    "uuid": None,
    "profile": "default",
    "journal": None,
    "reserved": 0,
}


@dataclass(frozen=True)
class Way:
    """How an image is made.

    Attributes:
        engine: What makes it; `None`: the core.
        injector: What puts files in; `None`: the core, as part of the plan.
    """

    engine: engines.Engine | None
    injector: inject.Injector | None


def choose_way(engine: str, engine_args: Sequence[str], injector: str) -> Way | None:
    """The way that is meant; `None` when all is the core's work."""
    found = engines.find_engine(engine, engine_args=engine_args)
    chosen = inject.choose_injector(injector, engine)
    if engine == "native" and chosen == inject.PLAN:
        return None
    return Way(
        engine=None if engine == "native" else found,
        injector=None if chosen == inject.PLAN else inject.find_injector(chosen, busybox=_busybox()),
    )


def build_externally(
    way: Way, publication: Publication, chain: sources.Chain, options: dict[str, Any], clock: Clock
) -> BuildResult:
    """As `layermelt.builder.build_into`, by that way."""
    progress = options["progress"]
    stop = None if progress is None else (lambda: progress("engine", 0, 0))
    if options["check_agent"]:
        # The agent is the last of the files.
        _core.check_agent(
            chain.paths(),
            userxattr=options["userxattr"],
            fuse_overlayfs=chain.fuse_overlayfs,
            agent=options["files"][-1],
            threads=options["threads"],
            progress=progress,
        )
        clock.lap("agent check")

    def finish() -> None:
        assert way.injector is not None
        for content, destination, mode, uid, gid in options["files"]:
            way.injector.inject(
                publication.temporary, content, destination, mode=mode, uid=uid, gid=gid, should_stop=stop
            )
        clock.lap("inject")

    if way.engine is None:
        return _build_natively(way, publication, chain, options, clock, finish)
    _demand_no_shape(way.engine, options)
    layer = _chain_directory(way.engine, chain)
    warnings = [*chain.warnings, *_doubts(way.engine, chain, options)]
    clock.lap("resolve")
    warnings += way.engine.build(layer, publication.temporary, should_stop=stop)
    publication.adopt()
    clock.lap("engine")
    finish()
    return _published(way, publication, chain, clock, warnings, sync=options["sync"])


def _build_natively(
    way: Way,
    publication: Publication,
    chain: sources.Chain,
    options: dict[str, Any],
    clock: Clock,
    finish: Callable[[], None],
) -> BuildResult:
    from layermelt.builder import build_into

    assert way.injector is not None
    result = build_into(
        publication, chain, {**options, "files": [], "check_agent": False}, clock, finish=finish
    )
    report = check_image(result.path)
    return dataclasses.replace(
        result,
        free_blocks=report.free_blocks,
        free_inodes=report.free_inodes,
        injector=way.injector.name,
    )


def _published(
    way: Way,
    publication: Publication,
    chain: sources.Chain,
    clock: Clock,
    warnings: Sequence[str],
    *,
    sync: bool,
) -> BuildResult:
    from layermelt.builder import BuildResult

    assert way.engine is not None
    assert way.injector is not None
    report = check_image(publication.temporary)
    clock.lap("check")
    publication.commit(sync=sync)
    allocated = publication.allocated_bytes()
    clock.lap("publish")
    return BuildResult(
        path=Path(publication.target),
        source=chain.description,
        size=report.size,
        allocated=allocated,
        written=allocated,
        content=0,
        entries=0,
        directories=0,
        files=0,
        symlinks=0,
        special=0,
        hard_links=0,
        block_size=report.block_size,
        blocks=report.blocks,
        free_blocks=report.free_blocks,
        inodes=report.inodes,
        free_inodes=report.free_inodes,
        uuid=str(_uuid.UUID(report.uuid)),
        copy_method=way.engine.name,
        warnings=tuple(warnings),
        phases=MappingProxyType(clock.phases),
        engine=way.engine.name,
        injector=way.injector.name,
    )


def _busybox() -> str | None:
    return os.environ.get("LAYERMELT_BUSYBOX")


def _demand_no_shape(engine: engines.Engine, options: dict[str, Any]) -> None:
    """What another program decides by itself is not asked for in vain."""
    for name, default in _SHAPE.items():
        if options.get(name, default) != default:
            raise InvalidOptionError(
                f"invalid {name.replace('_', ' ')} with the engine {engine.name}: it is the native engine's option; "
                "give the engine its own with --engine-arg"
            )


def _chain_directory(engine: engines.Engine, chain: sources.Chain) -> str:
    """What the engine is given: the directory of the top layer, which tells the others."""
    top = os.fspath(chain.layers[-1])
    directory = os.path.dirname(top)
    if os.path.basename(top) != "diff" or not os.path.isfile(os.path.join(directory, "link")):
        raise UnsupportedSourceError(
            f"{top}: the engine {engine.name} takes a chain directory (overlay2/<id>); build natively from layers "
            "given one by one",
            path=top,
        )
    return directory


def _doubts(engine: engines.Engine, chain: sources.Chain, options: dict[str, Any]) -> list[str]:
    """What the engine is not known to understand."""
    marks = "fuse-overlayfs" if chain.fuse_overlayfs else "user.overlay.*" if options["userxattr"] else None
    if marks is None:
        return []
    doubt = f"the layers have marks of {marks}, which the engine {engine.name} may not understand"
    return [f"{doubt}: what they delete may be in the image"]
