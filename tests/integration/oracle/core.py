"""Drives the core itself, for what no command asks of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from layermelt import _core


def build(layers: Sequence[Path], output: Path, **options: Any) -> _core.BuildReport:
    """An image of ``layers`` (base first) in the new file ``output``.

    ``options`` are those of ``_core.build_image``; nobody waits for the disk.
    """
    output.touch(exist_ok=False)
    given: dict[str, Any] = {
        "userxattr": False,
        "fuse_overlayfs": False,
        "files": [],
        "size": "auto",
        "free_space": 256 << 20,
        "inodes": None,
        "label": b"",
        "uuid": None,
        "timestamp": None,
        "threads": 2,
        "sync": False,
        "progress": None,
        **options,
    }
    return _core.build_image([str(layer) for layer in layers], str(output), str(output), **given)
