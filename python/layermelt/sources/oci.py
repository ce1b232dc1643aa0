"""What the stores of images have in common: names, digests, configs and chain ids.

Chain id 0 is diff id 0, and chain id n is sha256("<chain id n-1> <diff id n>"): the name of a
layer together with all below it (image-spec, "Layer ChainID").
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from typing import Any

from layermelt.errors import CorruptStoreError, InvalidOptionError, UnsupportedSourceError
from layermelt.settings import MAX_LAYERS
from layermelt.sources import store

__all__ = ["DIGEST", "Reference", "chain_ids", "diff_ids", "read_blob"]

#: Of the only kind that images have in practice, with its hex digits as group 1.
DIGEST = re.compile(r"sha256:([0-9a-f]{64})", re.ASCII)
#: Registries refuse manifests and configs above 4 MiB.
_MAX_BLOB = 16 << 20
_ID_PREFIX = re.compile(r"(?:sha256:)?([0-9a-f]{4,64})", re.ASCII)
_REFERENCE = re.compile(
    r"(?P<name>[a-zA-Z0-9][a-zA-Z0-9._:/-]*?)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?",
    re.ASCII,
)
_DEFAULT_TAG = "latest"
_OWN_DOMAINS = ("docker.io", "index.docker.io")


@dataclass(frozen=True)
class Reference:
    """What a user calls an image.

    Attributes:
        text: As it was given.
        name: The repository in the short form that Docker shows: without its own registry's name.
        tag: The tag; `None`: none was given.
        digest: ``sha256:...``; `None`: none was given.
        id_prefix: The hex digits, if the text may also be the beginning of an id.
    """

    text: str
    name: str
    tag: str | None
    digest: str | None
    id_prefix: str | None

    @classmethod
    def parse(cls, text: str, store: str) -> Reference:
        """The parts of NAME[:TAG][@sha256:...], or of an id; `store` is what is written before."""
        match = _REFERENCE.fullmatch(text)
        if match is None:
            raise InvalidOptionError(
                f"invalid image name {text!r}: expected {store}:NAME[:TAG], {store}:NAME@sha256:... or {store}:ID"
            )
        by_id = _ID_PREFIX.fullmatch(text)
        return cls(
            text, _familiar(match["name"]), match["tag"], match["digest"], None if by_id is None else by_id[1]
        )

    @property
    def short(self) -> str:
        """As Docker's own table has it: the digest, where there is one, is what counts."""
        return f"{self.name}@{self.digest}" if self.digest else self.tagged

    @property
    def tagged(self) -> str:
        """Name and tag."""
        return f"{self.name}:{self.tag or _DEFAULT_TAG}"

    @property
    def repository(self) -> str:
        """The name in its long form, with a registry."""
        domain, slash, _ = self.name.partition("/")
        if slash and ("." in domain or ":" in domain or domain == "localhost" or domain != domain.lower()):
            return self.name
        return f"docker.io/{self.name}" if slash else f"docker.io/library/{self.name}"

    @property
    def full(self) -> str:
        """Repository and tag, as containerd has it."""
        return f"{self.repository}:{self.tag or _DEFAULT_TAG}"


def _familiar(name: str) -> str:
    domain, slash, rest = name.partition("/")
    if slash and domain in _OWN_DOMAINS:
        name = rest
        if name.startswith("library/") and name.count("/") == 1:
            return name.removeprefix("library/")
    elif slash and domain == "library" and "/" not in rest:
        return rest
    return name


def read_blob(path: str, reference: str) -> Any:
    """The JSON in a file whose name is the sha256 of what it holds."""
    content = store.read_small(path, _MAX_BLOB)
    if hashlib.sha256(content).hexdigest() != os.path.basename(path):
        raise CorruptStoreError(f"{path}: its sha256 is not its name; pull {reference!r} again", path=path)
    return store.parse_json(content, path)


def diff_ids(config: Any, path: str, reference: str) -> list[str]:
    """The digests of the layers' tars, base first, in the config that `path` held."""
    rootfs = config.get("rootfs") if isinstance(config, dict) else None
    found = rootfs.get("diff_ids", []) if isinstance(rootfs, dict) else None
    if found is None:
        # What Go writes for an empty list.
        found = []
    if not isinstance(rootfs, dict) or rootfs.get("type") != "layers" or not isinstance(found, list):
        raise CorruptStoreError(f"{path}: the config has no list of layers", path=path)
    if not found:
        raise UnsupportedSourceError(
            f"the image {reference!r} has no layers, so that there is nothing to build"
        )
    if len(found) > MAX_LAYERS:
        raise CorruptStoreError(f"{path}: the config names {len(found)} layers", path=path)
    for diff_id in found:
        if not isinstance(diff_id, str) or DIGEST.fullmatch(diff_id) is None:
            raise CorruptStoreError(f"{path}: {str(diff_id)[:80]!r} is no digest of a layer", path=path)
    return found


def chain_ids(layers: list[str]) -> list[str]:
    """The names of the layers with what is below each, of their digests, base first."""
    chains: list[str] = []
    for diff_id in layers:
        chain = diff_id
        if chains:
            chain = "sha256:" + hashlib.sha256(f"{chains[-1]} {diff_id}".encode()).hexdigest()
        chains.append(chain)
    return chains
