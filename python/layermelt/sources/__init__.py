"""From what the user named to a chain of layer directories.

One file per kind of source. None of them reads a layer's tree; that is the core's work.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence

from layermelt.errors import InvalidOptionError, SourceNotFoundError, UnreadableError, UnsupportedSourceError
from layermelt.settings import default_docker_root
from layermelt.sources import containers_storage, directories, docker, overlay2, snapshots, store
from layermelt.sources.chain import Chain

__all__ = ["Chain", "choose_marks", "is_chain_directory", "names_image", "resolve"]

_DOCKER = "docker:"
_CONTAINERD = "containerd:"


def resolve(
    source: str | bytes | os.PathLike[str] | None,
    *,
    layers: Sequence[str | bytes | os.PathLike[str]] = (),
    docker_root: str | bytes | os.PathLike[str] | None = None,
) -> Chain:
    """The chain that the user means.

    Args:
        source: A chain directory (``overlay2/<id>`` of Docker, ``overlay/<id>`` of
            containers/storage, ``snapshots/<id>`` of containerd), ``docker:NAME[:TAG]``, ``docker:NAME@DIGEST``, ``docker:ID``, or the same with ``containerd:``.
        layers: Instead of a source: the layers' directories, base first.
        docker_root: Docker's data root, for ``docker:``.
    """
    if layers:
        if source is not None:
            raise InvalidOptionError("a source and layers exclude each other; give one of them")
        if isinstance(layers, (str, bytes)):
            # It would be taken for a list of its letters, the first of which is the root directory.
            raise InvalidOptionError(f"invalid layers {layers!r}: expected a list of directories, base first")
        return directories.resolve([os.fsdecode(layer) for layer in layers])
    if source is None:
        raise InvalidOptionError("there is no source; give a chain directory, docker:NAME or layers")
    named = os.fsdecode(source)
    if isinstance(source, str) and named.startswith(_CONTAINERD):
        from layermelt.sources import containerd

        return containerd.resolve(named.removeprefix(_CONTAINERD))
    if isinstance(source, str) and named.startswith(_DOCKER):
        root = default_docker_root() if docker_root is None else os.fsdecode(docker_root)
        return docker.resolve(named.removeprefix(_DOCKER), root)
    return _resolve_path(named)


def names_image(source: str | bytes | os.PathLike[str]) -> bool:
    """Whether it is the name of an image in a store, and no path."""
    return isinstance(source, str) and source.startswith((_DOCKER, _CONTAINERD))


def is_chain_directory(path: str) -> bool:
    """Whether a directory stands for a chain, as a layer in one of the stores, and not for its own content."""
    return overlay2.is_chain_directory(path) or snapshots.is_snapshot(path)


def choose_marks(chain: Chain, *, userxattr: bool | None) -> bool:
    """Whether the marks are ``user.overlay.*``: as the user says, or as the store does.

    A store whose marks cannot be seen would make an image that shows what upper layers deleted.
    """
    if userxattr is not None:
        return userxattr
    marked = chain.store is not None and len(chain.layers) > 1
    if marked and not chain.userxattr and not chain.fuse_overlayfs and not store.sees_trusted():
        raise UnreadableError(
            f"{chain.store}: its layers' marks are trusted.overlay.* attributes, which the kernel shows to root "
            "only (CAP_SYS_ADMIN, in no user namespace); run as root: without them, what was deleted would show "
            "(to ignore them nevertheless, say --no-userxattr)",
            path=chain.store,
        )
    return chain.userxattr


def _resolve_path(named: str) -> Chain:
    if not named or "\0" in named:
        raise InvalidOptionError(f"invalid source {named!r}: expected a path or docker:NAME")
    try:
        path = os.path.realpath(named, strict=True)
        mode = os.stat(path).st_mode
    except OSError as error:
        if error.errno == errno.ENOENT and not os.path.isabs(named) and not named.startswith("."):
            raise SourceNotFoundError(
                f"{named}: no such file or directory; for an image of Docker write docker:{named}",
                path=named,
            ) from None
        raise store.failed("open", named, error) from None
    if not stat.S_ISDIR(mode):
        raise UnsupportedSourceError(
            f"{named}: not a directory; archives cannot be read: load it into Docker and name docker:NAME, "
            "or unpack its layers and give them with --layer",
            path=named,
        )
    if overlay2.is_chain_directory(path):
        if containers_storage.is_store(os.path.dirname(path)):
            return containers_storage.resolve(path)
        return overlay2.resolve(path)
    if snapshots.is_snapshot(path):
        return snapshots.resolve(path)
    raise UnsupportedSourceError(_what_else(path, named), path=named)


def _what_else(path: str, named: str) -> str:
    """What to do with a directory that is no chain directory."""

    def has(*names: str) -> bool:
        return all(store.exists(os.path.join(path, name)) for name in names)

    if has("image/overlay2") or has("containerd/daemon"):
        return f"{named}: is a data root of Docker; name an image: docker:NAME with --docker-root {named}"
    if has("overlay-layers"):
        return f"{named}: is a store of containers/storage; give a layer in it: {named}/overlay/<id>"
    if has("oci-layout", "index.json"):
        return (
            f"{named}: is an OCI layout, which cannot be read yet; load it into Docker and name docker:NAME"
        )
    if has("io.containerd.metadata.v1.bolt"):
        return (
            f"{named}: is a root of containerd; give a snapshot in it, io.containerd.snapshotter.v1.overlayfs/"
            "snapshots/<id>, or, of Docker's images, docker:NAME"
        )
    if has("fs") and os.path.basename(os.path.dirname(path)) == "snapshots":
        return (
            f"{named}: is a snapshot of containerd, but its snapshotter's metadata.db is not there, which tells "
            "what lies below it; give the fs/ directories of all snapshots with --layer, base first"
        )
    parent = os.path.dirname(path)
    if os.path.basename(path) == "diff" and overlay2.is_chain_directory(parent):
        return f"{named}: is one layer; its chain is {parent}, or give it alone with --layer"
    if has("diff"):
        return (
            f"{named}: has a diff/ but no link file, so that it is no layer of overlay2; give it with --layer"
        )
    return (
        f"{named}: is no chain directory (overlay2/<id> or overlay/<id>, with diff/ and link, or snapshots/<id>, "
        f"with fs/); to build from a plain directory use --layer {named}"
    )
