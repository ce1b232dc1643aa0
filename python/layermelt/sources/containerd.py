"""An image in containerd's store by its name, read from its root; no daemon need run.

The way from a name to its layers, below ``/var/lib/containerd`` or Docker's own::

    io.containerd.metadata.v1.bolt/meta.db
        v1/<namespace>/images/<reference>/target/digest
        v1/<namespace>/snapshots/overlayfs/<chain id>/name      <namespace>/<number>/<chain id>
    io.containerd.content.v1.content/blobs/sha256/<hex>         indexes, manifests, configs
    io.containerd.snapshotter.v1.overlayfs                      see `snapshots`

An index leads to a manifest for each platform, a manifest to its config, and that has the digests
of the layers' tars, of which the chain ids are made. What can be compared is: a blob's name is its
digest, and the snapshots' parents are the chain that the config tells.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from layermelt.errors import CorruptStoreError, SourceNotFoundError, UnknownImageError, UnsupportedSourceError
from layermelt.settings import NAMESPACE_VARIABLE, default_containerd_namespace, default_containerd_root
from layermelt.sources import bolt, oci, snapshots, store
from layermelt.sources.chain import Chain, layers_text

__all__ = ["DOCKER_NAMESPACE", "Store", "resolve"]

#: Where Docker has its images.
DOCKER_NAMESPACE = "moby"
_METADATA = "io.containerd.metadata.v1.bolt/meta.db"
_BLOBS = "io.containerd.content.v1.content/blobs/sha256"
_SNAPSHOTTER = "overlayfs"
_SNAPSHOTS = f"io.containerd.snapshotter.v1.{_SNAPSHOTTER}"
#: An index may name indexes.
_MAX_DEPTH = 4
#: What the kernel calls a machine, and what images call it.
_ARCHITECTURES = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv7l": "arm",
    "armv6l": "arm",
    "i386": "386",
    "i686": "386",
}


def resolve(text: str) -> Chain:
    """The chain of the image that `text` (without ``containerd:``) names."""
    reference = oci.Reference.parse(text, "containerd")
    found = Store(os.path.realpath(default_containerd_root()), default_containerd_namespace())
    if not found.exists():
        raise SourceNotFoundError(
            f"{found.root}: holds no store of containerd (there is no {_METADATA}); name its root in "
            "LAYERMELT_CONTAINERD_ROOT",
            path=found.root,
        )
    namespaces = found.namespaces()
    if found.namespace not in namespaces:
        raise UnknownImageError(
            f"{found.root}: has no namespace {found.namespace!r}; it has {', '.join(namespaces) or 'none'}; name one "
            f"in {NAMESPACE_VARIABLE}",
            path=found.root,
        )
    return found.resolve(reference, "containerd image")


@dataclass(frozen=True)
class _Candidate:
    """An image's form for one platform.

    Attributes:
        platform: ``linux/amd64`` and the like.
        diff_ids: The digests of its layers' tars, base first.
        names: Its layers' snapshots, base first; `None`: it was not unpacked.
    """

    platform: str
    diff_ids: list[str]
    names: list[bytes] | None


@dataclass(frozen=True)
class Store:
    """What one containerd keeps for one of those that it serves.

    Attributes:
        root: Its directory, as ``/var/lib/containerd``.
        namespace: Whose images are meant.
    """

    root: str
    namespace: str

    def exists(self) -> bool:
        """Whether there is one."""
        return store.exists(self._metadata)

    def names(self) -> list[str]:
        """The names of all images."""
        return sorted(self._images())

    def find(self, reference: oci.Reference) -> str | None:
        """The digest of the index or manifest that a name means; `None`: there is no such image."""
        images = self._images()
        if reference.digest is not None:
            # Known by its digest alone, or by a tag that led to it.
            own = (f"{reference.repository}:", f"{reference.repository}@")
            known = any(
                name.startswith(own) and digest == reference.digest for name, digest in images.items()
            )
            return reference.digest if known else None
        for name in (reference.full, reference.text):
            if name in images:
                return images[name]
        if reference.id_prefix is None:
            return None
        found = {digest for digest in images.values() if digest.startswith(f"sha256:{reference.id_prefix}")}
        if len(found) > 1:
            raise UnknownImageError(
                f"{len(found)} images have ids that begin with {reference.id_prefix!r}", path=self.root
            )
        return found.pop() if found else None

    def namespaces(self) -> list[str]:
        """All of them."""

        def look(root: bolt.Bucket) -> list[str]:
            return [_text(name) for name, value in root.bucket(b"v1") or () if isinstance(value, bolt.Bucket)]

        return bolt.read(self._metadata, look)

    def resolve(self, reference: oci.Reference, kind: str) -> Chain:
        """The chain of an image; `kind` is what messages call it."""
        target = self.find(reference)
        if target is None:
            raise self._unknown(reference)
        chosen = self._choose(self._candidates(target, reference), reference)
        trees = snapshots.trees(self._snapshots, chosen.names or [], reference.text)
        parts = (target[:19], chosen.platform, layers_text(len(trees)))
        return Chain(
            layers=tuple(map(Path, trees)),
            userxattr=store.is_users_store(self._snapshots),
            store=Path(self._snapshots),
            description=f"{kind} {reference.text} ({', '.join(filter(None, parts))})",
        )

    @property
    def _metadata(self) -> str:
        return os.path.join(self.root, _METADATA)

    @property
    def _snapshots(self) -> str:
        return os.path.join(self.root, _SNAPSHOTS)

    def _images(self) -> dict[str, str]:
        """Digests by name."""

        def look(root: bolt.Bucket) -> dict[str, str]:
            images = root.bucket(b"v1", self.namespace.encode(), b"images")
            found: dict[str, str] = {}
            for name, image in images or ():
                target = image.bucket(b"target") if isinstance(image, bolt.Bucket) else None
                digest = _text(target.value(b"digest") if target is not None else None)
                if oci.DIGEST.fullmatch(digest) is not None:
                    found[_text(name)] = digest
            return found

        return bolt.read(self._metadata, look)

    def _candidates(self, target: str, reference: oci.Reference) -> list[_Candidate]:
        """All forms of an image whose config is here."""
        found = []
        for config, told in self._configs(target, reference, _MAX_DEPTH, set()):
            path = self._blob(config)
            if not store.exists(path):
                # Of a platform that was not pulled.
                continue
            content = oci.read_blob(path, reference.text)
            diff_ids = oci.diff_ids(content, path, reference.text)
            found.append(_Candidate(told or _platform(content), diff_ids, self._snapshot_names(diff_ids)))
        return found

    def _configs(
        self, digest: str, reference: oci.Reference, depth: int, seen: set[str]
    ) -> Iterator[tuple[str, str]]:
        """The digests of all configs below an index or a manifest, with what their platform is said to be."""
        path = self._blob(digest)
        # An index may name one thing as often as it likes, and so may those below it.
        seen.add(digest)
        if depth == 0:
            raise CorruptStoreError(f"{path}: an index too far below others", path=path)
        content = oci.read_blob(path, reference.text)
        if not isinstance(content, dict):
            raise CorruptStoreError(f"{path}: neither an index nor a manifest of an image", path=path)
        manifests = content.get("manifests")
        if manifests is None:
            yield _digest_of(content.get("config"), path), ""
            return
        if not isinstance(manifests, list):
            raise CorruptStoreError(f"{path}: the index has no list of manifests", path=path)
        for manifest in manifests:
            below = _digest_of(manifest, path)
            told = _platform(manifest.get("platform"))
            annotations = manifest.get("annotations")
            attests = isinstance(annotations, dict) and "vnd.docker.reference.type" in annotations
            # What tells something about another manifest, and what was not pulled.
            if attests or below in seen or not store.exists(self._blob(below)):
                continue
            for config, nearer in self._configs(below, reference, depth - 1, seen):
                yield config, nearer or told

    def _snapshot_names(self, diff_ids: list[str]) -> list[bytes] | None:
        def look(root: bolt.Bucket) -> list[bytes] | None:
            snapshots = root.bucket(b"v1", self.namespace.encode(), b"snapshots", _SNAPSHOTTER.encode())
            names = []
            for chain in oci.chain_ids(diff_ids):
                entry = None if snapshots is None else snapshots.bucket(chain.encode())
                name = None if entry is None else entry.value(b"name")
                if name is None:
                    return None
                names.append(name)
            return names

        return bolt.read(self._metadata, look)

    def _choose(self, candidates: list[_Candidate], reference: oci.Reference) -> _Candidate:
        """The form for this machine's platform; the only one that is unpacked, if it is another's."""
        unpacked = [one for one in candidates if one.names is not None]
        machine = os.uname().machine
        own = f"linux/{_ARCHITECTURES.get(machine, machine)}"
        fitting = [one for one in unpacked if one.platform == own or one.platform.startswith(f"{own}/")]
        if fitting:
            return fitting[0]
        if len(unpacked) == 1:
            return unpacked[0]
        if unpacked:
            known = ", ".join(one.platform for one in unpacked)
            raise UnsupportedSourceError(
                f"{self.root}: the image {reference.text!r} is there for {known}, but not for {own}; remove all but one",
                path=self.root,
            )
        raise UnsupportedSourceError(
            f"{self.root}: the layers of {reference.text!r} are not unpacked by the {_SNAPSHOTTER} snapshotter, the only "
            f"one that can be read; with it, a container of the image or a new pull unpacks them",
            path=self.root,
        )

    def _blob(self, digest: str) -> str:
        return os.path.join(self.root, _BLOBS, digest.removeprefix("sha256:"))

    def _unknown(self, reference: oci.Reference) -> UnknownImageError:
        text = f"{self.root}: the containerd image store has no image {reference.short!r}"
        if self.namespace != DOCKER_NAMESPACE:
            text += f" in the namespace {self.namespace!r} (see {NAMESPACE_VARIABLE})"
        names = self.names()
        names = [name for name in names if name.startswith(f"{reference.repository}:")] or names
        if names:
            text += f"; it has {', '.join(names[:10])}{', ...' if len(names) > 10 else ''}"
        return UnknownImageError(text, path=self.root)


def _digest_of(descriptor: Any, path: str) -> str:
    digest = descriptor.get("digest") if isinstance(descriptor, dict) else None
    if not isinstance(digest, str) or oci.DIGEST.fullmatch(digest) is None:
        raise CorruptStoreError(f"{path}: {str(digest)[:80]!r} is no digest", path=path)
    return digest


def _platform(told: Any) -> str:
    """Of an index's entry or of a config: both name it alike. Empty: it is not told."""
    if not isinstance(told, dict):
        return ""
    parts = [told.get("os"), told.get("architecture"), told.get("variant")]
    return "/".join(part for part in parts if isinstance(part, str) and part)


def _text(value: bytes | None) -> str:
    return "" if value is None else value.decode("utf-8", "backslashreplace")
