"""How far long work is, for whoever waits for it at a terminal."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator

from layermelt.options import Progress

__all__ = ["meter"]

#: Seconds after which somebody may wonder.
_PATIENCE = 0.5


@contextlib.contextmanager
def meter() -> Iterator[Progress | None]:
    """Something to be called as ``progress``: it keeps one line on stderr, and leaves none.

    `None` where stderr is no terminal: nobody is watching.
    """
    if not _is_terminal():
        yield None
        return
    line = _Line()
    try:
        yield line.tell
    finally:
        line.write("")


class _Line:
    def __init__(self) -> None:
        self._begin = time.monotonic()
        self._width = 0

    def tell(self, phase: str, done: int, total: int) -> None:
        if time.monotonic() - self._begin < _PATIENCE:
            return
        share = f" {min(done, total) * 100 // total:3} %" if total else ""
        self.write(f"layermelt: {phase}{share}")

    def write(self, text: str) -> None:
        if not text and not self._width:
            return
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(f"\r{text.ljust(self._width)}" + ("" if text else "\r"))
            sys.stderr.flush()
        self._width = len(text)


def _is_terminal() -> bool:
    try:
        return sys.stderr.isatty()
    except (AttributeError, ValueError):
        return False
