"""One build: what goes in, what makes the image, and how it is finished."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from layermelt import sources
from layermelt.errors import EngineTimeoutError, InvalidOptionError, UnsoundImageError
from layermelt.images import check_image, grave_problems
from layermelt.results import BuildResult, Clock, image_result

if TYPE_CHECKING:
    from typing_extensions import Self

    from layermelt._core import Counts
    from layermelt.options import Progress, StrPath
    from layermelt.publish import Publication

__all__ = ["Job", "Limit", "Made", "Way", "finish"]


class Limit:
    """How long a build may take.

    Args:
        seconds: From now on; `None`: as long as it takes.
    """

    def __init__(self, seconds: float | None) -> None:
        if seconds is not None and not seconds > 0:
            raise InvalidOptionError(f"invalid timeout {seconds!r}: expected a number of seconds above 0")
        self._seconds = seconds
        self._end = None if seconds is None else time.monotonic() + seconds

    def left(self) -> float | None:
        """Seconds that are left, never 0 or less."""
        return None if self._end is None else max(self._end - time.monotonic(), 0.001)

    def watch(self, progress: Progress | None) -> Progress | None:
        """What is called instead of `progress`: it also ends a build that takes too long."""
        if self._end is None:
            return progress

        def watching(phase: str, done: int, total: int) -> None:
            if progress is not None:
                progress(phase, done, total)
            self.demand()

        return watching

    def demand(self) -> None:
        """Raises when the time is over."""
        if self._end is not None and time.monotonic() > self._end:
            raise EngineTimeoutError(
                f"the build took longer than {self._seconds:g} s and was stopped; allow more time"
            )


@dataclass(frozen=True)
class Job:
    """What is to be built.

    Attributes:
        chain: The layers.
        options: The core's options (`layermelt.options.core_options`) and ``userxattr``.
        clock: Seconds by phase.
        limit: How long it may take; ``options["progress"]`` watches it as well.
        injecting: Called when files are about to be put in.
    """

    chain: sources.Chain
    options: Mapping[str, Any]
    clock: Clock
    limit: Limit
    injecting: Callable[[], object] | None = None

    @classmethod
    def of(
        cls,
        source: StrPath | None,
        options: Mapping[str, Any],
        *,
        layers: Sequence[StrPath] = (),
        docker_root: StrPath | None = None,
        userxattr: bool | None = None,
        clock: Clock | None = None,
        limit: Limit | None = None,
        injecting: Callable[[], object] | None = None,
    ) -> Self:
        """The job of a source, with the options of `layermelt.options.core_options`."""
        clock = Clock() if clock is None else clock
        chain = sources.resolve(source, layers=layers, docker_root=docker_root)
        marks = sources.choose_marks(chain, userxattr=userxattr)
        clock.lap("resolve")
        return cls(
            chain=chain,
            options={**options, "userxattr": marks},
            clock=clock,
            limit=Limit(None) if limit is None else limit,
            injecting=injecting,
        )

    def begin_injecting(self) -> None:
        """Tells that files are about to be put in, if there are any."""
        if self.injecting is not None and self.options["files"]:
            self.injecting()

    def without_files(self) -> Job:
        """The same, with nothing to be put in."""
        return dataclasses.replace(self, options={**self.options, "files": [], "check_agent": False})

    def stop_check(self, phase: str) -> Callable[[], object] | None:
        """What long work outside the core calls now and then."""
        progress = self.options["progress"]
        return None if progress is None else (lambda: progress(phase, 0, 0))


@dataclass(frozen=True)
class Made:
    """What a way made in the temporary file.

    Attributes:
        copy_method: How the data came into the image.
        counts: What is in it, where that is known.
        written: Bytes that were written, where that is known.
        warnings: What the user should know, a sentence each.
    """

    copy_method: str
    counts: Counts | None = None
    written: int | None = None
    warnings: Sequence[str] = ()


class Way(Protocol):
    """How an image is made.

    Attributes:
        engine: What makes it.
        injector: What puts files in.
    """

    @property
    def engine(self) -> str:
        """What makes the image."""
        ...

    @property
    def injector(self) -> str:
        """What puts files in."""
        ...

    def identity(self) -> list[str]:
        """What its images' bytes hang on beside the input: part of a cache key."""
        ...

    def make(self, job: Job, publication: Publication) -> Made:
        """Makes the image, with all files in it, in the publication's temporary file."""
        ...


def finish(
    way: Way, job: Job, publication: Publication, made: Made, *, mode: int | None = None
) -> BuildResult:
    """Checks what was made and publishes it, with that mode of the file.

    Raises:
        UnsoundImageError: It is not to be used. Of our own images nothing may be wrong, of
            others' what would hinder a guest.
    """
    report = check_image(publication.temporary)
    problems = report.problems if way.engine == "native" else grave_problems(report)
    if problems:
        texts = tuple(problem.text for problem in problems)
        listed = "\n  ".join(texts[:10])
        raise UnsoundImageError(
            f"{publication.target}: the image that was just written is not sound; something else wrote to it, "
            f"or this is a fault of {'layermelt' if way.engine == 'native' else way.engine}:\n  {listed}",
            path=publication.target,
            problems=texts,
        )
    job.clock.lap("check")
    publication.commit(sync=job.options["sync"], mode=mode)
    allocated = publication.allocated_bytes()
    job.clock.lap("publish")
    return image_result(
        os.fspath(publication.target),
        report,
        source=job.chain.description,
        counts=made.counts,
        allocated=allocated,
        written=allocated if made.written is None else made.written,
        copy_method=made.copy_method,
        warnings=made.warnings,
        clock=job.clock,
        engine=way.engine,
        injector=way.injector,
    )
