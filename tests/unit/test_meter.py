"""The line that tells how far long work is."""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING

from layermelt import meter

if TYPE_CHECKING:
    import pytest


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def at_a_terminal(monkeypatch: pytest.MonkeyPatch) -> _Terminal:
    # Not in a fixture: pytest has a stderr of its own for each phase of a test.
    stream = _Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    return stream


def shown(terminal: _Terminal) -> str:
    """What stands in the terminal's line."""
    line = ""
    for part in terminal.getvalue().split("\r"):
        line = part + line[len(part) :]
    return line.rstrip()


def test_one_line_is_kept_and_none_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = at_a_terminal(monkeypatch)
    monkeypatch.setattr(meter, "_PATIENCE", -1.0)
    with meter.meter() as progress:
        assert progress is not None
        progress("directories", 1, 3)
        assert shown(terminal) == "layermelt: directories  33 %"
        progress("links", 5, 0)
        assert shown(terminal) == "layermelt: links"
        progress("bitmaps", 9, 8)
        assert shown(terminal) == "layermelt: bitmaps 100 %"
    assert shown(terminal) == ""
    assert "\n" not in terminal.getvalue()


def test_what_is_fast_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = at_a_terminal(monkeypatch)
    with meter.meter() as progress:
        assert progress is not None
        progress("inodes", 1, 2)
    assert terminal.getvalue() == ""


def test_only_at_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with meter.meter() as progress:
        assert progress is None
    monkeypatch.setattr(sys, "stderr", None)
    with meter.meter() as progress:
        assert progress is None
