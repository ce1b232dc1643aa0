"""What every kind of source becomes: an ordered chain of layer directories."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Chain", "layers_text"]


@dataclass(frozen=True)
class Chain:
    """The layers of one image, and how they are to be understood.

    Attributes:
        layers: The layers' trees, base first.
        userxattr: The marks are ``user.overlay.*``, as in stores of ordinary users.
        fuse_overlayfs: The store was written by fuse-overlayfs.
        store: The store's directory; `None` for layers that are in none.
        description: What the source is, for messages.
        warnings: What the user should know about it, a sentence each.
    """

    layers: tuple[Path, ...]
    userxattr: bool = False
    fuse_overlayfs: bool = False
    store: Path | None = None
    description: str = ""
    warnings: tuple[str, ...] = field(default=())

    def paths(self) -> list[str]:
        """The layers as the core takes them."""
        return [os.fspath(layer) for layer in self.layers]


def layers_text(number: int) -> str:
    """So many layers, in words."""
    return f"{number} layer{'' if number == 1 else 's'}"
