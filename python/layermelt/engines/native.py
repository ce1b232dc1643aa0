"""layermelt's own engine, as one among others."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from layermelt import _core, sources
from layermelt.errors import EngineTimeoutError, InvalidOptionError, from_os_error
from layermelt.helpers import StopCheck
from layermelt.options import core_options, image_shape

__all__ = ["NativeEngine"]


class NativeEngine:
    """Merges the chain and writes the image in this process, with default options."""

    name = "native"

    def __init__(self, *, program: str | None = None, arguments: Sequence[str] = ()) -> None:
        # A program is a setting that holds for whatever engine is chosen; it is of no use here.
        del program
        if arguments:
            raise InvalidOptionError("the native engine runs no program that takes arguments")

    def build(
        self,
        layer: str,
        output: str,
        *,
        timeout: float | None = None,
        should_stop: StopCheck | None = None,
    ) -> list[str]:
        """See `layermelt.engines.Engine`."""
        chain = sources.resolve(layer)
        try:
            os.close(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        except OSError as error:
            raise from_os_error(
                "output", f"cannot write {output}: {error.strerror}", output, error.errno
            ) from None
        options = core_options(
            image_shape(),
            agent=None,
            files=(),
            threads=None,
            agent_check=False,
            sync=False,
            progress=_watch(layer, timeout, should_stop),
        )
        marks = sources.choose_marks(chain, userxattr=None)
        report = _core.build_image(
            chain.paths(), output, output, userxattr=marks, fuse_overlayfs=chain.fuse_overlayfs, **options
        )
        return [*chain.warnings, *report.warnings]

    def fingerprint(self) -> str:
        """See `layermelt.engines.Engine`: the version, and the epoch of the image's format."""
        return f"{self.name} {_core.__version__} format {_core.FORMAT_EPOCH}"


def _watch(
    layer: str, timeout: float | None, should_stop: StopCheck | None
) -> Callable[[str, int, int], object] | None:
    """What is called 20 times a second during the build."""
    if timeout is None and should_stop is None:
        return None
    import time

    end = None if timeout is None else time.monotonic() + timeout

    def progress(_phase: str, _done: int, _total: int) -> None:
        if should_stop is not None:
            should_stop()
        if end is not None and time.monotonic() > end:
            raise EngineTimeoutError(
                f"the native engine took longer than {timeout:g} s for {layer} and was stopped; allow more time",
                path=layer,
            )

    return progress
