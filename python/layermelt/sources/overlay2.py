"""A chain directory of Docker's overlay2 driver: ``overlay2/<id>``."""

from __future__ import annotations

import os
from pathlib import Path

from layermelt.sources import store
from layermelt.sources.chain import Chain

__all__ = ["chain_ids", "is_chain_directory", "resolve"]


def is_chain_directory(path: str) -> bool:
    """Whether it looks like one, of Docker or of containers/storage."""
    return all(store.exists(os.path.join(path, name)) for name in ("diff", "link"))


def chain_ids(root: str, top: str) -> list[str]:
    """The ids of the layers of `root`/`top`, top first, compared with each other."""
    links = store.lower_links(os.path.join(root, top)) or []
    ids = [top, *(store.resolve_link(root, name) for name in links)]
    store.cross_check(os.path.join(root, layer) for layer in ids)
    return ids


def resolve(path: str) -> Chain:
    """The chain that ends with the layer at `path`, which is a real path."""
    root, top = os.path.split(path)
    ids = chain_ids(root, top)
    trees = [os.path.join(root, layer, "diff") for layer in reversed(ids)]
    store.check_layers(trees)
    warnings = store.check_container_layer(path)
    return Chain(
        layers=tuple(map(Path, trees)),
        userxattr=store.is_users_store(root),
        store=Path(root),
        description=f"overlay2 layer {top} with {len(ids) - 1} below it",
        warnings=tuple(warnings),
    )
