"""An image of Docker by its name, read from the data root; no daemon need run.

The way from a name to its layers, in ``<data root>/image/overlay2``::

    repositories.json                    name -> image id
    imagedb/content/sha256/<id>          the config; its sha256 is the id
      rootfs.diff_ids                    digests of the layers' tars, base first
    layerdb/sha256/<chain id>/cache-id   the directory in overlay2
                             /diff       the diff id again
                             /parent     the chain id below

A Docker with the containerd image store, the default of new installations since Docker 29, has
its images in `containerd`'s form, in the namespace ``moby`` of its own containerd or of the
system's. A Docker that was switched over has both.
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layermelt.errors import (
    CorruptStoreError,
    SourceError,
    SourceNotFoundError,
    UnknownImageError,
    UnsupportedSourceError,
)
from layermelt.sources import oci, overlay2, store
from layermelt.sources.chain import Chain, layers_text

if TYPE_CHECKING:
    from layermelt.sources import containerd

__all__ = ["resolve"]

_REPOSITORIES = "image/overlay2/repositories.json"


def resolve(text: str, data_root: str) -> Chain:
    """The chain of the image that `text` (without ``docker:``) names."""
    reference = oci.Reference.parse(text, "docker")
    root = os.path.realpath(data_root)
    if not os.path.isdir(root):
        # Tells apart what is missing and what may not be seen.
        store.exists(root)
        raise SourceNotFoundError(
            f"{data_root}: no such directory; give the Docker Root Dir that `docker info` prints as "
            "--docker-root",
            path=data_root,
        )
    if not store.exists(os.path.join(root, _REPOSITORIES)):
        newer = _containerd_store(root)
        if newer is None:
            raise _no_images(root, data_root)
        return newer.resolve(reference, "Docker image")
    try:
        chain = _resolve_overlay2(root, reference)
    except UnknownImageError as error:
        newer = _containerd_store(root)
        if newer is None:
            raise
        try:
            return newer.resolve(reference, "Docker image")
        except UnknownImageError as other:
            raise UnknownImageError(f"{error}; and {other}", path=root) from None
    return replace(chain, warnings=(*chain.warnings, *_also_newer(root, reference)))


def _resolve_overlay2(root: str, reference: oci.Reference) -> Chain:
    image = _find_image(root, reference)
    config_path = os.path.join(root, "image/overlay2/imagedb/content/sha256", image)
    config = oci.read_blob(config_path, reference.text)
    ids = _cache_ids(root, oci.diff_ids(config, config_path, reference.text))

    overlay = os.path.join(root, "overlay2")
    trees = [os.path.join(overlay, layer, "diff") for layer in ids]
    store.check_layers(trees)
    # The driver's own view of the chain, from the other side.
    if overlay2.chain_ids(overlay, ids[-1]) != ids[::-1]:
        lower = os.path.join(overlay, ids[-1], "lower")
        raise CorruptStoreError(
            f"{lower}: names other layers than the image's config ({config_path})", path=lower
        )
    return Chain(
        layers=tuple(map(Path, trees)),
        userxattr=store.is_users_store(overlay),
        store=Path(overlay),
        description=f"Docker image {reference.text} (sha256:{image[:12]}, {layers_text(len(ids))})",
    )


def _no_images(root: str, named: str) -> SourceError:
    try:
        drivers = sorted(os.listdir(os.path.join(root, "image")))
    except OSError:
        drivers = []
    if drivers and drivers != ["overlay2"]:
        return UnsupportedSourceError(
            f"{named}: this Docker uses the storage driver {', '.join(drivers)}; only overlay2 and the "
            "containerd image store can be read",
            path=named,
        )
    return SourceNotFoundError(
        f"{named}: holds no images of Docker (there is neither {_REPOSITORIES} nor a containerd image "
        "store); give the Docker Root Dir that `docker info` prints as --docker-root",
        path=named,
    )


def _containerd_store(root: str) -> containerd.Store | None:
    """Where Docker's images are in containerd's form: in its own, or in the system's."""
    # Most stores have no use for it.
    from layermelt.sources import containerd

    own = containerd.Store(os.path.join(root, "containerd/daemon"), containerd.DOCKER_NAMESPACE)
    if own.exists():
        return own
    # It serves others as well, and Docker runs its containers there whatever its image store is.
    system = containerd.Store(os.path.join(os.path.dirname(root), "containerd"), containerd.DOCKER_NAMESPACE)
    return system if system.exists() and system.names() else None


def _also_newer(root: str, reference: oci.Reference) -> list[str]:
    """A warning where the other store has an image of that name too: it may be the newer one."""
    try:
        newer = _containerd_store(root)
        if newer is None or newer.find(reference) is None:
            return []
    except (SourceError, OSError):
        return []
    text = (
        f"{newer.root}: the containerd image store has an image {reference.text!r} as well; this is the one of "
        f"the overlay2 storage driver, in {root}"
    )
    return [text]


def _find_image(root: str, reference: oci.Reference) -> str:
    """The id of the image, 64 hex digits."""
    path = os.path.join(root, _REPOSITORIES)
    repositories = store.read_json(path)
    known = repositories.get("Repositories") if isinstance(repositories, dict) else None
    if not isinstance(known, dict):
        raise CorruptStoreError(f"{path}: has no table of repositories", path=path)

    tags = known.get(reference.name, {})
    if not isinstance(tags, dict):
        raise CorruptStoreError(f"{path}: the entry of {reference.name!r} is no table", path=path)
    wanted = reference.short
    if wanted in tags:
        digest = oci.DIGEST.fullmatch(str(tags[wanted]))
        if digest is None:
            raise CorruptStoreError(f"{path}: {wanted!r} has no valid image id", path=path)
        return digest[1]
    if reference.id_prefix is not None:
        return _find_id(root, reference.id_prefix, reference.text)
    raise _unknown(root, wanted, known, tags)


def _find_id(root: str, prefix: str, reference: str) -> str:
    directory = os.path.join(root, "image/overlay2/imagedb/content/sha256")
    if len(prefix) == 64:
        found = [prefix] if store.exists(os.path.join(directory, prefix)) else []
    else:
        try:
            names = os.listdir(directory)
        except OSError as error:
            raise store.failed("open", directory, error) from None
        found = [name for name in names if name.startswith(prefix) and re.fullmatch(r"[0-9a-f]{64}", name)]
    if not found:
        raise UnknownImageError(f"no image has the name or id {reference!r}", path=directory)
    if len(found) > 1:
        raise UnknownImageError(f"{len(found)} images have ids that begin with {prefix!r}", path=directory)
    return found[0]


def _unknown(root: str, wanted: str, known: dict[str, Any], tags: dict[str, Any]) -> UnknownImageError:
    text = f"{root}: has no image {wanted!r}"
    candidates = sorted(tags) or sorted(known)
    if candidates:
        more = ", ..." if len(candidates) > 10 else ""
        text += f"; it has {', '.join(map(str, candidates[:10]))}{more}"
    try:
        remapped = [name for name in os.listdir(root) if re.fullmatch(r"[0-9]+\.[0-9]+", name, re.ASCII)]
    except OSError:
        remapped = []
    if remapped:
        text += f"; with remapped users, give --docker-root {os.path.join(root, min(remapped))}"
    return UnknownImageError(text, path=root)


def _cache_ids(root: str, diff_ids: list[str]) -> list[str]:
    """The layers' directories in overlay2, base first."""
    ids: list[str] = []
    parent = ""
    for diff_id, chain in zip(diff_ids, oci.chain_ids(diff_ids), strict=True):
        entry = os.path.join(root, "image/overlay2/layerdb/sha256", chain.removeprefix("sha256:"))
        if not store.exists(entry):
            raise SourceNotFoundError(
                f"{entry}: missing, so that the layer {diff_id} is not there; pull the image again",
                path=entry,
            )
        _compare(os.path.join(entry, "diff"), diff_id)
        if parent:
            _compare(os.path.join(entry, "parent"), parent)
        path = os.path.join(entry, "cache-id")
        cache_id = store.read_text(path)
        if store.ID.fullmatch(cache_id) is None:
            raise CorruptStoreError(f"{path}: {cache_id[:80]!r} is no layer's id", path=path)
        ids.append(cache_id)
        parent = chain
    return ids


def _compare(path: str, expected: str) -> None:
    if store.read_text(path) != expected:
        raise CorruptStoreError(f"{path}: does not hold {expected}; the store is damaged", path=path)
