"""An image of Docker by its name, read from the data root; no daemon need run.

The way from a name to its layers, in ``<data root>/image/overlay2``::

    repositories.json                    name -> image id
    imagedb/content/sha256/<id>          the config; its sha256 is the id
      rootfs.diff_ids                    digests of the layers' tars, base first
    layerdb/sha256/<chain id>/cache-id   the directory in overlay2
                             /diff       the diff id again
                             /parent     the chain id below

where chain id 0 is diff id 0 and chain id n is sha256("<chain id n-1> <diff id n>").
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import Any

from layermelt.errors import (
    CorruptStoreError,
    InvalidOptionError,
    SourceNotFoundError,
    UnknownImageError,
    UnsupportedSourceError,
)
from layermelt.settings import MAX_LAYERS
from layermelt.sources import overlay2, store
from layermelt.sources.chain import Chain, layers_text

__all__ = ["resolve"]

_DIGEST = re.compile(r"sha256:([0-9a-f]{64})", re.ASCII)
_ID_PREFIX = re.compile(r"(?:sha256:)?([0-9a-f]{4,64})", re.ASCII)
_REFERENCE = re.compile(
    r"(?P<name>[a-zA-Z0-9][a-zA-Z0-9._:/-]*?)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?",
    re.ASCII,
)
#: Registries refuse configs above 4 MiB.
_MAX_CONFIG = 16 << 20


def resolve(reference: str, data_root: str) -> Chain:
    """The chain of the image that `reference` (without ``docker:``) names."""
    root = os.path.realpath(data_root)
    _demand_overlay2(root, data_root)
    image = _find_image(root, reference)
    config_path = os.path.join(root, "image/overlay2/imagedb/content/sha256", image)
    content = store.read_small(config_path, _MAX_CONFIG)
    if hashlib.sha256(content).hexdigest() != image:
        raise CorruptStoreError(
            f"{config_path}: its sha256 is not its name; pull {reference!r} again",
            path=config_path,
        )
    diff_ids = _diff_ids(store.parse_json(content, config_path), config_path, reference)
    ids = _cache_ids(root, diff_ids)

    overlay = os.path.join(root, "overlay2")
    trees = [os.path.join(overlay, layer, "diff") for layer in ids]
    store.check_trees([*(os.path.dirname(tree) for tree in trees), *trees])
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
        description=f"Docker image {reference} (sha256:{image[:12]}, {layers_text(len(ids))})",
    )


def _demand_overlay2(root: str, named: str) -> None:
    if not os.path.isdir(root):
        # Tells apart what is missing and what may not be seen.
        store.exists(root)
        raise SourceNotFoundError(
            f"{named}: no such directory; give the Docker Root Dir that `docker info` prints as --docker-root",
            path=named,
        )
    if store.exists(os.path.join(root, "image/overlay2/repositories.json")):
        return
    if _has_containerd_store(root):
        raise UnsupportedSourceError(_containerd_text(named), path=named)
    try:
        drivers = sorted(os.listdir(os.path.join(root, "image")))
    except OSError:
        drivers = []
    if drivers and drivers != ["overlay2"]:
        raise UnsupportedSourceError(
            f"{named}: this Docker uses the storage driver {', '.join(drivers)}; only overlay2 can be read",
            path=named,
        )
    raise SourceNotFoundError(
        f"{named}: holds no images of Docker (there is no image/overlay2/repositories.json); give the Docker "
        "Root Dir that `docker info` prints as --docker-root",
        path=named,
    )


def _has_containerd_store(root: str) -> bool:
    """Whether Docker's images are in containerd: its own, or the system's."""
    own = os.path.join(root, "containerd/daemon/io.containerd.metadata.v1.bolt")
    if store.exists(own):
        return True
    if store.exists(os.path.join(root, "image")):
        return False
    system = os.path.join(os.path.dirname(root), "containerd/io.containerd.metadata.v1.bolt")
    return store.exists(os.path.join(root, "buildkit")) and store.exists(system)


def _containerd_text(named: str) -> str:
    return (
        f"{named}: this Docker keeps its images in the containerd image store, the default of new "
        "installations since Docker 29, which cannot be read yet. Either set "
        '{"features": {"containerd-snapshotter": false}} in /etc/docker/daemon.json, restart Docker and pull '
        "the image again, or give the layers' directories with --layer, base first"
    )


def _find_image(root: str, reference: str) -> str:
    """The id of the image, 64 hex digits."""
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        raise InvalidOptionError(
            f"invalid image name {reference!r}: expected docker:NAME[:TAG], docker:NAME@sha256:... or an id"
        )
    path = os.path.join(root, "image/overlay2/repositories.json")
    repositories = store.read_json(path)
    known = repositories.get("Repositories") if isinstance(repositories, dict) else None
    if not isinstance(known, dict):
        raise CorruptStoreError(f"{path}: has no table of repositories", path=path)

    name = _familiar(match["name"])
    tags = known.get(name, {})
    if not isinstance(tags, dict):
        raise CorruptStoreError(f"{path}: the entry of {name!r} is no table", path=path)
    wanted = f"{name}@{match['digest']}" if match["digest"] else f"{name}:{match['tag'] or 'latest'}"
    if wanted in tags:
        digest = _DIGEST.fullmatch(str(tags[wanted]))
        if digest is None:
            raise CorruptStoreError(f"{path}: {wanted!r} has no valid image id", path=path)
        return digest[1]
    by_id = _ID_PREFIX.fullmatch(reference)
    if by_id is not None:
        return _find_id(root, by_id[1], reference)
    raise _unknown(root, wanted, known, tags)


def _familiar(name: str) -> str:
    """The short form that Docker writes: without its own registry's name."""
    domain, slash, rest = name.partition("/")
    if slash and domain in ("docker.io", "index.docker.io"):
        name = rest
        if name.startswith("library/") and name.count("/") == 1:
            return name.removeprefix("library/")
    elif slash and domain == "library" and "/" not in rest:
        return rest
    return name


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
    elif _has_containerd_store(root):
        text += f"; newer images may be elsewhere. {_containerd_text(root)}"
    return UnknownImageError(text, path=root)


def _diff_ids(config: Any, path: str, reference: str) -> list[str]:
    rootfs = config.get("rootfs") if isinstance(config, dict) else None
    diff_ids = rootfs.get("diff_ids", []) if isinstance(rootfs, dict) else None
    if diff_ids is None:
        # What Go writes for an empty list.
        diff_ids = []
    if not isinstance(rootfs, dict) or rootfs.get("type") != "layers" or not isinstance(diff_ids, list):
        raise CorruptStoreError(f"{path}: the config has no list of layers", path=path)
    if not diff_ids:
        raise UnsupportedSourceError(
            f"the image {reference!r} has no layers, so that there is nothing to build"
        )
    if len(diff_ids) > MAX_LAYERS:
        raise CorruptStoreError(f"{path}: the config names {len(diff_ids)} layers", path=path)
    for diff_id in diff_ids:
        if not isinstance(diff_id, str) or _DIGEST.fullmatch(diff_id) is None:
            raise CorruptStoreError(f"{path}: {str(diff_id)[:80]!r} is no digest of a layer", path=path)
    return diff_ids


def _cache_ids(root: str, diff_ids: list[str]) -> list[str]:
    """The layers' directories in overlay2, base first."""
    ids: list[str] = []
    chain = ""
    for diff_id in diff_ids:
        parent = chain
        chain = diff_id
        if parent:
            chain = "sha256:" + hashlib.sha256(f"{parent} {diff_id}".encode()).hexdigest()
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
    return ids


def _compare(path: str, expected: str) -> None:
    if store.read_text(path) != expected:
        raise CorruptStoreError(f"{path}: does not hold {expected}; the store is damaged", path=path)
