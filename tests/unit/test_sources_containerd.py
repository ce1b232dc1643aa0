"""Docker's images in containerd's form, by name, from the files alone."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from layermelt import sources
from layermelt.errors import (
    CorruptStoreError,
    InvalidOptionError,
    SourceNotFoundError,
    UnknownImageError,
    UnsupportedSourceError,
)
from layermelt.sources import containerd
from layermelt.sources.oci import chain_ids
from unit.bolt_files import Tree, write_bolt
from unit.stores import DockerRoot, digest, write

OWN = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
OTHER = "riscv64" if OWN != "riscv64" else "amd64"


class ContainerdRoot:
    """What containerd keeps, with plain files as layers."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.snapshots = root / "io.containerd.snapshotter.v1.overlayfs"
        self.images: Tree = {}
        self.names: Tree = {}
        self.entries: Tree = {}
        self.save()

    def save(self, namespace: bytes = b"moby") -> None:
        found: Tree = {b"images": self.images, b"snapshots": {b"overlayfs": self.names}}
        write_bolt(
            self.root / "io.containerd.metadata.v1.bolt/meta.db", {b"v1": {namespace: found}}, per_leaf=4
        )
        write_bolt(self.snapshots / "metadata.db", {b"v1": {b"snapshots": self.entries}}, per_leaf=3)

    def blob(self, content: Any) -> str:
        """Stores JSON; returns its digest."""
        text = json.dumps(content)
        write(self.path(f"sha256:{digest(text)}"), text)
        return f"sha256:{digest(text)}"

    def path(self, blob: str) -> Path:
        return self.root / "io.containerd.content.v1.content/blobs/sha256" / blob.removeprefix("sha256:")

    def add_manifest(
        self, seed: str, *, layers: int = 2, architecture: str = OWN, unpack: bool = True
    ) -> dict[str, Any]:
        """A manifest with its layers; how an index names it."""
        diff_ids = ["sha256:" + digest(f"{seed} {number}") for number in range(layers)]
        told = {"os": "linux", "architecture": architecture}
        config = self.blob({**told, "rootfs": {"type": "layers", "diff_ids": diff_ids}})
        if unpack:
            self.unpack(diff_ids)
        return {"digest": self.blob({"config": {"digest": config}, "layers": []}), "platform": told}

    def unpack(self, diff_ids: Sequence[str], parent: bytes = b"") -> bytes:
        for chain in chain_ids(list(diff_ids)):
            number = len(self.entries) + 130
            name = f"moby/{number}/{chain}".encode()
            self.names[chain.encode()] = {b"name": name, b"createdat": b"now"}
            # As uvarint: two bytes from 128 on.
            entry: Tree = {b"kind": b"\x03", b"id": bytes([number & 127 | 128, number >> 7])}
            if parent:
                entry[b"parent"] = parent
            self.entries[name] = entry
            write(self.snapshots / "snapshots" / str(number) / "fs" / chain[7:15], chain)
            parent = name
        return parent

    def add_image(self, name: str, target: str) -> None:
        self.images[name.encode()] = {b"target": {b"digest": target.encode(), b"mediatype": b"any"}}
        self.save()

    def trees(self, seed: str, layers: int = 2) -> list[Path]:
        """Where the layers of a manifest are, base first."""
        found = []
        for chain in chain_ids(["sha256:" + digest(f"{seed} {number}") for number in range(layers)]):
            (tree,) = self.snapshots.glob(f"snapshots/*/fs/{chain[7:15]}")
            found.append(tree.parent)
        return found


@pytest.fixture
def docker(tmp_path: Path) -> Path:
    """A data root without a storage driver of its own."""
    (tmp_path / "docker/buildkit").mkdir(parents=True)
    return tmp_path / "docker"


@pytest.fixture
def store(docker: Path) -> ContainerdRoot:
    return ContainerdRoot(docker / "containerd/daemon")


def resolve(name: str, docker: Path) -> list[Path]:
    return list(sources.resolve(f"docker:{name}", docker_root=docker).layers)


@pytest.mark.parametrize("layers", [1, 2, 125])
def test_layers_are_base_first(layers: int, docker: Path, store: ContainerdRoot) -> None:
    manifest = store.add_manifest("a", layers=layers)
    store.add_image("docker.io/library/a:1", manifest["digest"])
    assert resolve("a:1", docker) == store.trees("a", layers)
    chain = sources.resolve("docker:a:1", docker_root=docker)
    assert (chain.store, chain.userxattr) == (store.snapshots, os.geteuid() != 0)
    assert chain.description.startswith(f"Docker image a:1 ({manifest['digest'][:19]}, linux/{OWN}, ")


@pytest.mark.parametrize(
    ("name", "references"),
    [
        ("docker.io/library/a:latest", ["a", "a:latest", "library/a", "docker.io/library/a", "docker.io/a"]),
        ("docker.io/me/tool:1.2", ["me/tool:1.2", "docker.io/me/tool:1.2", "index.docker.io/me/tool:1.2"]),
        ("localhost:5000/a/b:v1", ["localhost:5000/a/b:v1"]),
        ("localhost/a:latest", ["localhost/a"]),
        ("registry.example/x:latest", ["registry.example/x"]),
    ],
)
def test_names(name: str, references: list[str], docker: Path, store: ContainerdRoot) -> None:
    store.add_image("docker.io/library/other:latest", store.add_manifest("other")["digest"])
    target = store.add_manifest("wanted")["digest"]
    store.add_image(name, target)
    for reference in [*references, target, target[:19], target[7:15]]:
        assert resolve(reference, docker) == store.trees("wanted")
    repository = name.rpartition(":")[0]
    assert resolve(f"{repository}@{target}", docker) == store.trees("wanted")
    assert resolve(f"{repository}:another@{target}", docker) == store.trees("wanted")


def test_names_that_are_none(docker: Path, store: ContainerdRoot) -> None:
    store.add_image("docker.io/library/a:1", store.add_manifest("a")["digest"])
    store.add_image("docker.io/library/b:1", store.add_manifest("b")["digest"])
    with pytest.raises(UnknownImageError, match=r"has no image 'a:2'; it has docker.io/library/a:1$"):
        resolve("a:2", docker)
    with pytest.raises(UnknownImageError, match=r"it has docker.io/library/a:1, docker.io/library/b:1$"):
        resolve("c", docker)
    with pytest.raises(UnknownImageError, match="has no image"):
        resolve("a@sha256:" + "0" * 64, docker)
    # The digest of one, and the name of the other.
    target = store.add_manifest("b")["digest"]
    with pytest.raises(UnknownImageError):
        resolve(f"a@{target}", docker)


def test_the_machines_platform_is_chosen(docker: Path, store: ContainerdRoot) -> None:
    manifests = [
        store.add_manifest("other", architecture=OTHER),
        # What attests something about another one, and what was not pulled.
        {
            "digest": store.blob({"config": {"digest": store.blob({"no": "image"})}}),
            "platform": {"os": "unknown", "architecture": "unknown"},
            "annotations": {"vnd.docker.reference.type": "attestation-manifest"},
        },
        {"digest": "sha256:" + "2" * 64, "platform": {"os": "linux", "architecture": OWN}},
        store.add_manifest("own"),
    ]
    inner = store.blob({"manifests": manifests})
    store.add_image("docker.io/library/a:1", store.blob({"manifests": [{"digest": inner}]}))
    assert resolve("a:1", docker) == store.trees("own")


def test_the_only_one_that_is_there(docker: Path, store: ContainerdRoot) -> None:
    manifests = [store.add_manifest("other", architecture=OTHER), store.add_manifest("own", unpack=False)]
    store.add_image("docker.io/library/a:1", store.blob({"manifests": manifests}))
    assert resolve("a:1", docker) == store.trees("other")
    manifests.append(store.add_manifest("third", architecture="s390x"))
    store.add_image("docker.io/library/a:1", store.blob({"manifests": manifests}))
    with pytest.raises(
        UnsupportedSourceError, match=rf"for linux/{OTHER}, linux/s390x, but not for linux/{OWN}"
    ):
        resolve("a:1", docker)


def test_an_image_that_is_not_unpacked(docker: Path, store: ContainerdRoot) -> None:
    store.add_image("docker.io/library/a:1", store.add_manifest("a", unpack=False)["digest"])
    with pytest.raises(UnsupportedSourceError, match="not unpacked by the overlayfs snapshotter"):
        resolve("a:1", docker)


def test_a_commit_lies_upon_its_containers_files(docker: Path, store: ContainerdRoot) -> None:
    """`docker commit` makes the layer's parent the snapshot below the container."""
    diff_ids = ["sha256:" + digest(f"a {number}") for number in range(3)]
    top = store.unpack(diff_ids)
    entry = store.entries[top]
    assert isinstance(entry, dict)
    init = b"moby/99/0123abcd-init"
    store.entries[init] = {b"kind": b"\x03", b"id": b"\x63", b"parent": entry[b"parent"]}
    entry[b"parent"] = init
    config = store.blob({"os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}})
    store.add_image("docker.io/library/a:1", store.blob({"config": {"digest": config}}))
    assert resolve("a:1", docker) == store.trees("a", 3)


def test_what_does_not_agree(docker: Path, store: ContainerdRoot) -> None:
    manifest = store.add_manifest("a")
    store.add_image("docker.io/library/a:1", manifest["digest"])
    names = list(store.entries)
    good = {name: dict(entry) for name, entry in store.entries.items() if isinstance(entry, dict)}
    for key, value, said in [
        (b"parent", b"moby/1/another", "is not that of a layer"),
        (b"parent", b"", "is not that of a layer"),
        (b"kind", b"\x02", "is not that of a layer"),
        (b"id", b"\xff", "no valid number"),
        (b"id", b"", "no valid number"),
    ]:
        store.entries[names[1]] = {**good[names[1]], key: value}
        store.save()
        with pytest.raises(CorruptStoreError, match=said):
            resolve("a:1", docker)
    del store.entries[names[1]]
    store.save()
    with pytest.raises(SourceNotFoundError, match=r"has no snapshot .*pull the image again"):
        resolve("a:1", docker)


def test_blobs_that_are_not_what_they_should(docker: Path, store: ContainerdRoot) -> None:
    for content, said in [
        ([], "neither an index nor a manifest"),
        ({}, "is no digest"),
        ({"config": {"digest": "../../etc/passwd"}}, "is no digest"),
        ({"manifests": {}}, "no list of manifests"),
        ({"manifests": [3]}, "is no digest"),
        ({"config": {"digest": store.blob({"rootfs": {}})}}, "no list of layers"),
        (
            {"manifests": [{"digest": store.blob([]), "annotations": 7, "platform": [8]}]},
            "neither an index nor a manifest",
        ),
    ]:
        store.add_image("docker.io/library/a:1", store.blob(content))
        with pytest.raises(CorruptStoreError, match=said):
            resolve("a:1", docker)
    target = store.add_manifest("a")["digest"]
    store.add_image("docker.io/library/a:1", target)
    store.path(target).write_text("{}")
    with pytest.raises(CorruptStoreError, match="its sha256 is not its name"):
        resolve("a:1", docker)
    store.path(target).unlink()
    with pytest.raises(SourceNotFoundError):
        resolve("a:1", docker)
    # An index below an index below an index, and so on.
    deep = store.add_manifest("a")["digest"]
    for _ in range(10):
        deep = store.blob({"manifests": [{"digest": deep}]})
    store.add_image("docker.io/library/a:1", deep)
    with pytest.raises(CorruptStoreError, match="too far"):
        resolve("a:1", docker)


def test_the_systems_containerd(docker: Path, tmp_path: Path) -> None:
    """Docker uses it where there is one; its images are in a namespace of their own."""
    with pytest.raises(SourceNotFoundError, match="nor a containerd image store"):
        resolve("a:1", docker)
    store = ContainerdRoot(tmp_path / "containerd")
    store.images[b"docker.io/library/a:1"] = {
        b"target": {b"digest": store.add_manifest("a")["digest"].encode()}
    }
    store.save(b"k8s.io")
    with pytest.raises(SourceNotFoundError, match="nor a containerd image store"):
        resolve("a:1", docker)
    store.save()
    assert resolve("a:1", docker) == store.trees("a")
    assert containerd.Store(os.fspath(tmp_path / "containerd"), "moby").names() == ["docker.io/library/a:1"]


def test_a_docker_with_both(tmp_path: Path) -> None:
    """It was switched over: either store may have an image, or both."""
    older = DockerRoot(tmp_path / "docker")
    newer = ContainerdRoot(tmp_path / "docker/containerd/daemon")
    image = older.add_image("old:1")
    both = older.add_image("both:1")
    newer.add_image("docker.io/library/new:1", newer.add_manifest("new")["digest"])
    newer.add_image("docker.io/library/both:1", newer.add_manifest("both")["digest"])
    assert resolve("old:1", older.root) == older.layers(image)
    assert sources.resolve("docker:old:1", docker_root=older.root).warnings == ()
    assert resolve("new:1", older.root) == newer.trees("new")
    found = sources.resolve("docker:both:1", docker_root=older.root)
    assert list(found.layers) == older.layers(both)
    assert len(found.warnings) == 1
    assert "has an image 'both:1' as well" in found.warnings[0]
    with pytest.raises(UnknownImageError, match=r"it has both, old; and .*docker.io/library/both:1"):
        resolve("none:1", older.root)
    # What only stands beside does not hinder.
    (newer.root / "io.containerd.metadata.v1.bolt/meta.db").write_bytes(b"damaged")
    assert resolve("both:1", older.root) == older.layers(both)


def test_a_snapshot_by_its_directory(docker: Path, store: ContainerdRoot) -> None:
    store.add_image("docker.io/library/a:1", store.add_manifest("a", layers=3)["digest"])
    trees = store.trees("a", 3)
    for top in range(3):
        chain = sources.resolve(trees[top].parent)
        assert list(chain.layers) == trees[: top + 1]
        assert (chain.store, chain.warnings) == (store.snapshots, ())
    with pytest.raises(InvalidOptionError, match="whose layer is its fs/"):
        sources.resolve(None, layers=[trees[0].parent])
    with pytest.raises(UnsupportedSourceError, match=r"root of containerd.*snapshots/<id>"):
        sources.resolve(store.root)
    # A container's: what Docker puts below it is part of it.
    parent = list(store.entries)[-1]
    for number, name, kind in ((7, b"moby/7/c-init", b"\x03"), (8, b"moby/8/c", b"\x02")):
        store.entries[name] = {b"kind": kind, b"id": bytes([number]), b"parent": parent}
        write(store.snapshots / f"snapshots/{number}/fs/x", "")
        parent = name
    store.save()
    chain = sources.resolve(store.snapshots / "snapshots/8")
    assert list(chain.layers) == [*trees, *(store.snapshots / f"snapshots/{n}/fs" for n in (7, 8))]
    assert ["may write to it" in warning for warning in chain.warnings] == [True]
    write(store.snapshots / "snapshots/9/fs/x", "")
    with pytest.raises(SourceNotFoundError, match="no snapshot of the number 9"):
        sources.resolve(store.snapshots / "snapshots/9")
    entry = store.entries[b"moby/7/c-init"]
    assert isinstance(entry, dict)
    entry[b"parent"] = b"moby/8/c"
    store.save()
    with pytest.raises(CorruptStoreError, match="has no base"):
        sources.resolve(store.snapshots / "snapshots/8")


def test_an_image_of_containerd_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAYERMELT_CONTAINERD_ROOT", os.fspath(tmp_path / "containerd"))
    monkeypatch.delenv("CONTAINERD_NAMESPACE", raising=False)
    with pytest.raises(SourceNotFoundError, match=r"no store of containerd.*LAYERMELT_CONTAINERD_ROOT"):
        sources.resolve("containerd:a:1")
    store = ContainerdRoot(tmp_path / "containerd")
    target = store.add_manifest("a")["digest"]
    # As Kubernetes has it: an image's id is that of its config, and a name.
    config = "sha256:" + "5" * 64
    for name in ("docker.io/library/a:1", "registry.k8s.io/pause:3.9", config):
        store.images[name.encode()] = {b"target": {b"digest": target.encode()}}
    store.save(b"k8s.io")
    with pytest.raises(
        UnknownImageError, match=r"no namespace 'default'; it has k8s.io; .*CONTAINERD_NAMESPACE"
    ):
        sources.resolve("containerd:a:1")
    monkeypatch.setenv("CONTAINERD_NAMESPACE", "k8s.io")
    for name in ("a:1", "docker.io/library/a:1", "registry.k8s.io/pause:3.9", config, target[7:19]):
        chain = sources.resolve(f"containerd:{name}")
        assert list(chain.layers) == store.trees("a")
        assert chain.description.startswith(f"containerd image {name} (")
    with pytest.raises(UnknownImageError, match=r"no image 'b:latest' in the namespace 'k8s.io'"):
        sources.resolve("containerd:b")
    with pytest.raises(InvalidOptionError, match="expected containerd:NAME"):
        sources.resolve("containerd:")
    # A path is none.
    with pytest.raises(SourceNotFoundError):
        sources.resolve(Path("containerd:a:1"))


def test_indexes_that_name_each_other_many_times(docker: Path, store: ContainerdRoot) -> None:
    below = store.add_manifest("a")
    for _ in range(3):
        below = {"digest": store.blob({"manifests": [below] * 2000})}
    store.add_image("docker.io/library/a:1", below["digest"])
    assert resolve("a:1", docker) == store.trees("a")
