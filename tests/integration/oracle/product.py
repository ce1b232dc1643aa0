"""Drives layermelt by its public face, as these tests use it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import layermelt
from layermelt import errors


def build(
    layers: Sequence[Path],
    output: Path,
    *,
    userxattr: bool = False,
    threads: int | None = 2,
    **shape: Any,
) -> layermelt.BuildResult:
    """An image of ``layers`` (base first), without waiting for the disk."""
    return layermelt.build_rootfs(
        None, output, layers=layers, userxattr=userxattr, threads=threads, sync=False, **shape
    )


def build_source(source: Path, output: Path) -> layermelt.BuildResult:
    """An image of a chain directory of a store."""
    return layermelt.build_rootfs(source, output, threads=2, sync=False)


def refusal(layers: Sequence[Path], output: Path, *, userxattr: bool = False) -> str:
    """The message with which layermelt refuses ``layers``, leaving nothing."""
    before = sorted(os.listdir(output.parent))
    try:
        build(layers, output, userxattr=userxattr)
    except errors.LayermeltError as error:
        after = sorted(os.listdir(output.parent))
        assert after == before, f"left behind: {set(after) - set(before)}"
        return str(error)
    raise AssertionError("an image was made of layers that must be refused")


def command(*arguments: str | Path) -> list[str]:
    """The command line of layermelt with these arguments."""
    return [sys.executable, "-m", "layermelt.cli", *map(str, arguments)]


def build_command(layers: Sequence[Path], output: Path, *more: str) -> list[str]:
    """``layermelt build`` of ``layers``, base first."""
    named = [word for layer in layers for word in ("--layer", str(layer))]
    return command("build", *named, "-o", output, *more)


def run(arguments: Sequence[str], **options: object) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end; output is text, undecodable bytes escaped."""
    return subprocess.run(  # type: ignore[call-overload, no-any-return]
        list(arguments),
        capture_output=True,
        check=False,
        encoding="utf-8",
        errors="backslashreplace",
        timeout=300,
        **options,
    )
