"""Layers named one by one: ``--layer DIR``, base first."""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Sequence
from pathlib import Path

from layermelt.errors import InvalidOptionError, SourceNotFoundError
from layermelt.settings import MAX_LAYERS
from layermelt.sources import overlay2, snapshots, store
from layermelt.sources.chain import Chain, layers_text

__all__ = ["resolve"]


def resolve(layers: Sequence[str]) -> Chain:
    """The chain of these directories, base first."""
    if len(layers) > MAX_LAYERS:
        raise InvalidOptionError(f"{len(layers)} layers are given; the kernel takes at most {MAX_LAYERS}")
    trees: list[str] = []
    for layer in layers:
        if not layer:
            raise InvalidOptionError("a layer's path is empty")
        try:
            tree = os.path.realpath(layer, strict=True)
            is_directory = os.path.isdir(tree)
        except (OSError, ValueError) as error:
            failure = error if isinstance(error, OSError) else OSError(errno.EINVAL, str(error))
            raise store.failed("open the layer", layer, failure) from None
        if not is_directory:
            raise SourceNotFoundError(
                f"{layer}: not a directory; a layer is a directory of changes",
                path=layer,
                errno=errno.ENOTDIR,
            )
        trees.append(tree)
    store.check_trees(trees)
    for layer, tree in zip(layers, trees, strict=True):
        for is_chain, name in ((overlay2.is_chain_directory, "diff"), (snapshots.is_snapshot, "fs")):
            if is_chain(tree):
                raise InvalidOptionError(
                    f"{layer}: is a chain directory, whose layer is its {name}/; name it as the source, without "
                    f"--layer, or give {os.path.join(layer, name)}",
                    path=layer,
                )
    # The kernel refuses such chains as well (ELOOP, "overlapping lowerdir path").
    ordered = sorted(tree.rstrip("/") + "/" for tree in trees)
    for above, below in itertools.pairwise(ordered):
        if below.startswith(above):
            raise InvalidOptionError(f"{below}: is given twice, or lies in the layer {above}", path=below)
    return Chain(
        layers=tuple(map(Path, trees)),
        description=layers_text(len(trees)),
    )
