"""Stores as Docker and containers/storage lay them out, with plain files as layers."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

BASE32 = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def short_name(identity: str) -> str:
    """26 characters, as both stores make them."""
    number = int(digest(identity), 16)
    return "".join(BASE32[number >> (5 * place) & 31] for place in range(26))


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def add_layer(overlay: Path, identity: str, below: Sequence[str]) -> Path:
    """`overlay`/<id> over the layers `below`, nearest first."""
    layer = overlay / identity
    (layer / "diff").mkdir(parents=True)
    (layer / "diff" / identity[:8]).write_text(f"from {identity}\n")
    name = short_name(identity)
    write(layer / "link", name)
    (overlay / "l").mkdir(exist_ok=True)
    (overlay / "l" / name).symlink_to(f"../{identity}/diff")
    if below:
        write(layer / "lower", ":".join(f"l/{short_name(one)}" for one in below))
        (layer / "work").mkdir()
        write(overlay / below[0] / "committed", "")
    return layer


class DockerRoot:
    """A data root of Docker with the overlay2 driver."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.overlay = root / "overlay2"
        self.image = root / "image/overlay2"
        self.overlay.mkdir(parents=True)
        self._repositories: dict[str, dict[str, str]] = {}
        self._write_repositories()

    def _write_repositories(self) -> None:
        write(self.image / "repositories.json", json.dumps({"Repositories": self._repositories}))

    def chain_entry(self, diff_ids: Sequence[str]) -> Path:
        """The layerdb entry of the last of these layers."""
        chain = diff_ids[0]
        for diff_id in diff_ids[1:]:
            chain = "sha256:" + digest(f"{chain} {diff_id}")
        return self.image / "layerdb/sha256" / chain.removeprefix("sha256:")

    def add_image(self, *names: str, layers: int = 3, seed: str = "") -> str:
        """Makes an image of so many layers and returns its id."""
        seed = seed or "+".join(names)
        ids = [digest(f"{seed} cache {number}") for number in range(layers)]
        diff_ids = ["sha256:" + digest(f"{seed} diff {number}") for number in range(layers)]
        for number, identity in enumerate(ids):
            add_layer(self.overlay, identity, ids[:number][::-1])
            entry = self.chain_entry(diff_ids[: number + 1])
            write(entry / "cache-id", identity)
            write(entry / "diff", diff_ids[number])
            write(entry / "size", "7")
            if number:
                write(entry / "parent", "sha256:" + self.chain_entry(diff_ids[:number]).name)
        return self.add_config({"os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}}, *names)

    def add_config(self, config: object, *names: str) -> str:
        """Adds an image with that config and returns its id."""
        content = json.dumps(config)
        image = digest(content)
        write(self.image / "imagedb/content/sha256" / image, content)
        for name in names:
            repository = name.partition("@")[0] if "@" in name else name.rpartition(":")[0]
            self._repositories.setdefault(repository, {})[name] = f"sha256:{image}"
        self._write_repositories()
        return image

    def config(self, image: str) -> Path:
        return self.image / "imagedb/content/sha256" / image

    def diff_ids(self, image: str) -> list[str]:
        diff_ids: list[str] = json.loads(self.config(image).read_text())["rootfs"]["diff_ids"]
        return diff_ids

    def layers(self, image: str) -> list[Path]:
        """The layers' trees, base first."""
        diff_ids = self.diff_ids(image)
        entries = (self.chain_entry(diff_ids[: number + 1]) for number in range(len(diff_ids)))
        return [self.overlay / (entry / "cache-id").read_text() / "diff" for entry in entries]


class ContainersStore:
    """A store of containers/storage."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.overlay = root / "overlay"
        self.overlay.mkdir(parents=True)
        self.table = root / "overlay-layers/layers.json"
        self.entries: list[dict[str, str]] = []
        self.save()

    def save(self) -> None:
        write(self.table, json.dumps(self.entries))

    def add(self, *names: str, base: Sequence[str] = ()) -> list[str]:
        """Adds a chain of layers, base first, and returns their ids."""
        ids = list(base)
        for name in names:
            identity = digest(name)
            layer = add_layer(self.overlay, identity, ids[::-1])
            entry = {"id": identity}
            if ids:
                entry["parent"] = ids[-1]
            else:
                (layer / "empty").mkdir()
            self.entries.append(entry)
            ids.append(identity)
        self.save()
        return ids

    def tree(self, identity: str) -> Path:
        return self.overlay / identity / "diff"


def relink(overlay: Path, name: str, target: str | bytes) -> None:
    """Makes a link of the store point elsewhere."""
    link = overlay / "l" / name
    link.unlink()
    os.symlink(target, os.fsencode(link) if isinstance(target, bytes) else link)
