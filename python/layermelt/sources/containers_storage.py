"""A layer of containers/storage (podman, buildah, CRI-O): ``overlay/<id>``.

It is like Docker's, with these differences: the parents are also in
``overlay-layers/layers.json``; links may be missing after a crash; a layer may be in
another store (``additionalimagestores``); beside ``diff`` there may be ``diff1``,
``diff2``, ..., which lie below it; fuse-overlayfs may have written it; and with composefs
``diff`` is no tree at all.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from layermelt.errors import CorruptStoreError, SourceNotFoundError, UnsupportedSourceError
from layermelt.settings import MAX_LAYERS
from layermelt.sources import store
from layermelt.sources.chain import Chain

__all__ = ["is_store", "resolve"]


def is_store(directory: str) -> bool:
    """Whether `directory` is an ``overlay`` of containers/storage."""
    if store.exists(os.path.join(directory, ".has-mount-program")):
        return True
    if store.exists(os.path.join(os.path.dirname(directory), "overlay-layers")):
        return True
    return os.path.basename(directory) == "overlay"


def resolve(path: str) -> Chain:
    """The chain that ends with the layer at `path`, which is a real path."""
    overlay, top = os.path.split(path)
    stores = [overlay, *_additional_stores()]
    layers = _by_lower(path, stores)
    parents = _by_parents(top, stores)
    if parents is not None and parents != [os.path.basename(layer) for layer in layers]:
        table = os.path.join(os.path.dirname(overlay), "overlay-layers/layers.json")
        raise CorruptStoreError(
            f"{os.path.join(path, 'lower')}: names other layers than {table}; the store is damaged", path=path
        )
    trees: list[str] = []
    for layer in layers:
        _refuse_composefs(layer)
        trees.append(os.path.join(layer, "diff"))
        trees.extend(_further_trees(layer))
    trees.reverse()
    if len(trees) > MAX_LAYERS:
        raise UnsupportedSourceError(
            f"{path}: has {len(trees)} layers; the kernel takes at most {MAX_LAYERS}"
        )
    store.check_trees([*layers, *trees])
    for tree in trees:
        _refuse_override(tree)
    return Chain(
        layers=tuple(map(Path, trees)),
        userxattr=store.is_users_store(overlay),
        fuse_overlayfs=_has_mount_program(overlay),
        store=Path(overlay),
        description=f"containers-storage layer {top} with {len(trees) - 1} below it",
        warnings=tuple(store.check_container_layer(path)),
    )


def _by_lower(path: str, stores: list[str]) -> list[str]:
    """The layers' directories, top first, as ``lower`` names them."""
    layers = [path, *(_by_link(name, stores, path) for name in store.lower_links(path) or [])]
    store.cross_check(layers)
    return layers


def _by_link(name: str, stores: list[str], path: str) -> str:
    for overlay in stores:
        try:
            return os.path.join(overlay, store.resolve_link(overlay, name))
        except SourceNotFoundError:
            continue
    # The links were lost: podman makes them anew from the `link` files.
    for overlay in stores:
        found = _links(overlay).get(name)
        if found is not None:
            return os.path.join(overlay, found)
    raise SourceNotFoundError(
        f"{os.path.join(path, 'lower')}: names l/{name}, which no layer in {', '.join(stores)} has; if it is "
        "in another store, give the layers' directories with --layer, base first",
        path=path,
    )


def _links(overlay: str) -> dict[str, str]:
    """Short name to id, from every layer's ``link``."""
    links: dict[str, str] = {}
    try:
        names = os.listdir(overlay)
    except OSError as error:
        raise store.failed("open", overlay, error) from None
    for layer in names:
        if store.ID.fullmatch(layer) is None or layer == "l":
            continue
        try:
            links[store.read_text(os.path.join(overlay, layer, "link"))] = layer
        except (SourceNotFoundError, CorruptStoreError):
            continue
    return links


def _by_parents(top: str, stores: list[str]) -> list[str] | None:
    """The layers' ids, top first, by the stores' tables; `None` when `top` is in none."""
    table: dict[str, Any] = {}
    for overlay in stores:
        directory = os.path.join(os.path.dirname(overlay), "overlay-layers")
        for name in ("layers.json", "volatile-layers.json"):
            _add_layers(os.path.join(directory, name), table)
    if top not in table:
        return None
    ids: list[str] = []
    following: Any = top
    while following:
        if following not in table or len(ids) > MAX_LAYERS:
            raise CorruptStoreError(
                f"layers.json: the parents of {top} end in a loop or with {str(following)[:80]!r}, which is "
                "not there; the store is damaged",
                path=os.path.join(stores[0], top),
            )
        ids.append(following)
        following = table[following]
    return ids


def _add_layers(path: str, table: dict[str, Any]) -> None:
    try:
        layers = store.read_json(path)
    except SourceNotFoundError:
        return
    # What Go writes for an empty list.
    for layer in [] if layers is None else layers if isinstance(layers, list) else [None]:
        identity = layer.get("id") if isinstance(layer, dict) else None
        parent = layer.get("parent", "") if isinstance(layer, dict) else None
        if not isinstance(identity, str) or not isinstance(parent, str):
            raise CorruptStoreError(f"{path}: is no list of layers", path=path)
        table.setdefault(identity, parent)


def _further_trees(layer: str) -> list[str]:
    """``diff1``, ``diff2``, ...: they lie below ``diff``, in this order."""
    trees: list[str] = []
    while len(trees) <= MAX_LAYERS:
        tree = os.path.join(layer, f"diff{len(trees) + 1}")
        if not store.exists(tree):
            break
        trees.append(tree)
    return trees


def _refuse_composefs(layer: str) -> None:
    blob = os.path.join(layer, "composefs-data", "composefs.blob")
    if store.exists(blob):
        raise UnsupportedSourceError(
            f"{blob}: this layer is kept by composefs, so that its diff/ is a pool of objects and no tree; "
            "pull the image into a store without composefs (use_composefs in storage.conf)",
            path=blob,
        )


def _refuse_override(tree: str) -> None:
    """Owners and modes are in an attribute with ``force_mask``; ignoring it makes a wrong image."""
    try:
        os.getxattr(tree, "user.containers.override_stat", follow_symlinks=False)
    except OSError:
        return
    raise UnsupportedSourceError(
        f"{tree}: this store keeps owners and modes in user.containers.override_stat (force_mask in "
        "storage.conf), which is not supported; use a store without force_mask",
        path=tree,
    )


def _has_mount_program(overlay: str) -> bool:
    try:
        return store.read_text(os.path.join(overlay, ".has-mount-program")) == "true"
    except SourceNotFoundError:
        return False


def _parse_toml(text: str) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib

        return tomllib.loads(text)
    else:
        # Without a parser the stores are not known: a layer in one is missing then.
        return {}


def _additional_stores() -> list[str]:
    """``<store>/overlay`` of the additional image stores that storage.conf names."""
    home = os.path.expanduser("~")
    candidates = [
        os.environ.get("CONTAINERS_STORAGE_CONF"),
        os.path.join(
            os.environ.get("XDG_CONFIG_HOME") or os.path.join(home, ".config"), "containers/storage.conf"
        ),
        "/etc/containers/storage.conf",
        "/usr/share/containers/storage.conf",
    ]
    for path in filter(None, candidates):
        try:
            options = _parse_toml(store.read_small(path, 1 << 20).decode())["storage"]["options"]
            named = [*options.get("additionalimagestores", []), options.get("imagestore")]
        except (SourceNotFoundError, CorruptStoreError, ValueError, KeyError, TypeError, AttributeError):
            continue
        return [os.path.join(one, "overlay") for one in named if isinstance(one, str) and os.path.isabs(one)]
    return []
