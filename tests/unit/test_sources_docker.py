"""Images of Docker, by name, from the data root alone."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from layermelt import sources
from layermelt.errors import (
    CorruptStoreError,
    InvalidOptionError,
    SourceNotFoundError,
    UnknownImageError,
    UnsupportedSourceError,
)
from unit.stores import DockerRoot, digest, short_name, write


def resolve(reference: str, root: DockerRoot) -> list[Path]:
    chain = sources.resolve(f"docker:{reference}", docker_root=root.root)
    assert not chain.fuse_overlayfs
    return list(chain.layers)


@pytest.mark.parametrize("layers", [1, 2, 7, 125])
def test_layers_are_base_first(docker_root: DockerRoot, layers: int) -> None:
    image = docker_root.add_image("debian:12", layers=layers)
    found = resolve("debian:12", docker_root)
    assert found == docker_root.layers(image)
    assert len(found) == layers
    lowest = found[0].parent
    assert not (lowest / "lower").exists()


@pytest.mark.parametrize(
    ("name", "references"),
    [
        ("debian:latest", ["debian", "debian:latest", "library/debian", "docker.io/library/debian"]),
        ("me/tool:1.2", ["me/tool:1.2", "docker.io/me/tool:1.2", "index.docker.io/me/tool:1.2"]),
        ("localhost:5000/a/b:v1", ["localhost:5000/a/b:v1"]),
        ("registry.example/x:latest", ["registry.example/x"]),
        ("localhost:5000/x:latest", ["localhost:5000/x"]),
    ],
)
def test_names(docker_root: DockerRoot, name: str, references: list[str]) -> None:
    docker_root.add_image("other:latest")
    image = docker_root.add_image(name)
    for reference in references:
        assert resolve(reference, docker_root) == docker_root.layers(image)


def test_digests_and_ids(docker_root: DockerRoot) -> None:
    manifest = "sha256:" + "ab" * 32
    image = docker_root.add_image("deb:1", f"deb@{manifest}")
    layers = docker_root.layers(image)
    for reference in (f"deb@{manifest}", f"deb:1@{manifest}", image, f"sha256:{image}", image[:12]):
        assert resolve(reference, docker_root) == layers
    # A digest decides, not the tag beside it.
    with pytest.raises(UnknownImageError):
        resolve("deb:1@sha256:" + "cd" * 32, docker_root)


def test_a_name_wins_over_an_id(docker_root: DockerRoot) -> None:
    image = docker_root.add_image("one:latest")
    other = docker_root.add_image(f"{image[:8]}:latest")
    assert resolve(image[:8], docker_root) == docker_root.layers(other)


def test_unknown_names(docker_root: DockerRoot) -> None:
    docker_root.add_image("debian:11", "debian:12")
    with pytest.raises(UnknownImageError, match=r"debian:13.*it has debian:11, debian:12"):
        resolve("debian:13", docker_root)
    with pytest.raises(UnknownImageError, match=r"alpine:latest"):
        resolve("alpine", docker_root)
    with pytest.raises(UnknownImageError, match="name or id"):
        resolve("0123456789ab", docker_root)
    (docker_root.root / "100000.100000").mkdir()
    with pytest.raises(UnknownImageError, match=r"--docker-root .*/100000\.100000"):
        resolve("alpine", docker_root)


def test_an_ambiguous_id(docker_root: DockerRoot) -> None:
    for number in range(2):
        write(docker_root.image / "imagedb/content/sha256" / (f"abcd{number}" + "0" * 59), "{}")
    with pytest.raises(UnknownImageError, match="2 images"):
        resolve("abcd", docker_root)


@pytest.mark.parametrize(
    "reference", ["", "a b", "../x", "x:", "x@y", "/etc", "x\n", "x@sha256:12", "a\x00b"]
)
def test_names_that_are_none(docker_root: DockerRoot, reference: str) -> None:
    with pytest.raises((InvalidOptionError, UnknownImageError)):
        resolve(reference, docker_root)


def test_a_changed_config(docker_root: DockerRoot) -> None:
    image = docker_root.add_image("a:1")
    path = docker_root.config(image)
    path.write_text(path.read_text() + " ")
    with pytest.raises(CorruptStoreError, match="sha256") as caught:
        resolve("a:1", docker_root)
    assert caught.value.path == os.fspath(path)


@pytest.mark.parametrize(
    "config",
    [
        [],
        "text",
        {},
        {"rootfs": None},
        {"rootfs": {"type": "layers", "diff_ids": {}}},
        {"rootfs": {"type": "layers", "diff_ids": [1]}},
        {"rootfs": {"type": "layers", "diff_ids": ["sha256:../../etc"]}},
        {"rootfs": {"type": "layers", "diff_ids": ["sha256:" + "0" * 64] * 501}},
        {"rootfs": {"type": "windows", "diff_ids": ["sha256:" + "0" * 64]}},
    ],
)
def test_senseless_configs(docker_root: DockerRoot, config: object) -> None:
    docker_root.add_config(config, "a:1")
    with pytest.raises(CorruptStoreError):
        resolve("a:1", docker_root)


@pytest.mark.parametrize("diff_ids", [[], None])
def test_an_image_without_layers(docker_root: DockerRoot, diff_ids: object) -> None:
    docker_root.add_config({"rootfs": {"type": "layers", "diff_ids": diff_ids}}, "scratch:1")
    with pytest.raises(UnsupportedSourceError, match="no layers"):
        resolve("scratch:1", docker_root)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", '{"Repositories": []}', "[" * 100_000, "\xff\xfe"]
)
def test_a_senseless_list_of_repositories(docker_root: DockerRoot, content: str) -> None:
    (docker_root.image / "repositories.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(CorruptStoreError, match=r"repositories\.json"):
        resolve("a:1", docker_root)


@pytest.mark.parametrize(
    "tags", [[], "text", {"a:1": 7}, {"a:1": "sha256:../../../etc/passwd"}, {"a:1": None}]
)
def test_a_senseless_repository(docker_root: DockerRoot, tags: object) -> None:
    write(docker_root.image / "repositories.json", json.dumps({"Repositories": {"a": tags}}))
    with pytest.raises(CorruptStoreError):
        resolve("a:1", docker_root)


def test_a_huge_file_is_not_read(docker_root: DockerRoot) -> None:
    path = docker_root.image / "repositories.json"
    os.truncate(path, 1 << 40)
    with pytest.raises(CorruptStoreError, match="more than"):
        resolve("a:1", docker_root)


@pytest.mark.parametrize("kind", ["fifo", "symlink", "directory"])
def test_a_file_that_is_none(docker_root: DockerRoot, kind: str) -> None:
    image = docker_root.add_image("a:1")
    path = docker_root.config(image)
    saved = path.read_bytes()
    path.unlink()
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "symlink":
        elsewhere = docker_root.root / "elsewhere"
        elsewhere.write_bytes(saved)
        path.symlink_to(elsewhere)
    else:
        path.mkdir()
    with pytest.raises(CorruptStoreError, match=str(path)):
        resolve("a:1", docker_root)


@pytest.mark.parametrize(
    "content", ["..", "../../../etc", "a/b", "", "/etc", ".", "x" * 300, "a\nb", "\xff", "y" * 10_000]
)
def test_hostile_cache_ids(docker_root: DockerRoot, content: str) -> None:
    image = docker_root.add_image("a:1")
    entry = docker_root.chain_entry(docker_root.diff_ids(image))
    (entry / "cache-id").write_bytes(content.encode("latin-1"))
    with pytest.raises(CorruptStoreError, match="cache-id"):
        resolve("a:1", docker_root)


@pytest.mark.parametrize("name", ["diff", "parent"])
def test_the_layer_database_is_compared(docker_root: DockerRoot, name: str) -> None:
    image = docker_root.add_image("a:1")
    path = docker_root.chain_entry(docker_root.diff_ids(image)) / name
    path.write_text("sha256:" + "0" * 64)
    with pytest.raises(CorruptStoreError, match=f"/{name}: does not hold"):
        resolve("a:1", docker_root)


def test_a_missing_layer(docker_root: DockerRoot) -> None:
    image = docker_root.add_image("a:1")
    entry = docker_root.chain_entry(docker_root.diff_ids(image)[:2])
    entry.rename(entry.with_name("gone"))
    with pytest.raises(SourceNotFoundError, match="pull the image again") as caught:
        resolve("a:1", docker_root)
    assert caught.value.path == os.fspath(entry)


def test_the_driver_must_say_the_same(docker_root: DockerRoot) -> None:
    image = docker_root.add_image("a:1", layers=4)
    other = docker_root.add_image("b:1", layers=4)
    top = docker_root.layers(image)[-1].parent
    # Consistent in itself, but another chain.
    wrong = docker_root.layers(other)[:-1][::-1]
    (top / "lower").write_text(":".join(f"l/{short_name(tree.parent.name)}" for tree in wrong))
    with pytest.raises(CorruptStoreError, match="names other layers than the image's config"):
        resolve("a:1", docker_root)


def test_a_tree_that_is_a_symlink(docker_root: DockerRoot, tmp_path: Path) -> None:
    image = docker_root.add_image("a:1")
    tree = docker_root.layers(image)[0]
    tree.rename(tmp_path / "moved")
    tree.symlink_to(tmp_path / "moved")
    with pytest.raises(CorruptStoreError, match="not a directory"):
        resolve("a:1", docker_root)


def test_a_missing_tree(docker_root: DockerRoot) -> None:
    image = docker_root.add_image("a:1")
    tree = docker_root.layers(image)[1]
    (tree / digest("")).parent.rename(tree.with_name("gone"))
    with pytest.raises(SourceNotFoundError) as caught:
        resolve("a:1", docker_root)
    assert caught.value.path == os.fspath(tree)


def test_roots_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFoundError, match=r"no such directory.*--docker-root"):
        sources.resolve("docker:a", docker_root=tmp_path / "none")
    with pytest.raises(SourceNotFoundError, match=r"repositories\.json"):
        sources.resolve("docker:a", docker_root=tmp_path)


def test_another_storage_driver(tmp_path: Path) -> None:
    write(tmp_path / "image/btrfs/repositories.json", "{}")
    with pytest.raises(UnsupportedSourceError, match="btrfs"):
        sources.resolve("docker:a", docker_root=tmp_path)


def test_the_root_may_be_a_symlink_and_from_the_environment(
    docker_root: DockerRoot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = docker_root.add_image("a:1")
    (tmp_path / "link").symlink_to(docker_root.root)
    monkeypatch.setenv("LAYERMELT_DOCKER_ROOT", os.fspath(tmp_path / "link"))
    assert list(sources.resolve("docker:a:1").layers) == docker_root.layers(image)
