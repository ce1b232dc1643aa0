"""Chain directories of both stores."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from layermelt import sources
from layermelt.errors import (
    CorruptStoreError,
    LayermeltError,
    SourceNotFoundError,
    UnsupportedSourceError,
)
from unit.stores import ContainersStore, DockerRoot, digest, relink, short_name


def chain_directory(root: DockerRoot, layers: int = 3) -> Path:
    """The top layer's directory."""
    return root.layers(root.add_image("a:1", layers=layers))[-1].parent


@pytest.mark.parametrize("layers", [1, 2, 128])
def test_layers_are_base_first(docker_root: DockerRoot, layers: int) -> None:
    top = chain_directory(docker_root, layers)
    chain = sources.resolve(top)
    assert len(chain.layers) == layers
    assert chain.layers[-1] == top / "diff"
    assert [layer.parent.name for layer in chain.layers] == [
        layer.parent.name for layer in sources.resolve("docker:a:1", docker_root=docker_root.root).layers
    ]


def test_every_way_to_write_the_path(docker_root: DockerRoot, monkeypatch: pytest.MonkeyPatch) -> None:
    top = chain_directory(docker_root)
    layers = sources.resolve(top).layers
    link = docker_root.root / "a link"
    link.symlink_to(top)
    for path in (f"{top}/", f"{top}/../{top.name}", os.fsencode(top), link, str(top)):
        assert sources.resolve(path).layers == layers
    monkeypatch.chdir(top.parent)
    assert sources.resolve(top.name).layers == layers
    assert sources.resolve(f"./{top.name}").layers == layers


@pytest.mark.parametrize(
    "target",
    [
        "/etc/diff",
        "../../../etc/diff",
        "../{id}/diff/",
        "../{id}/diff/..",
        "../../overlay2/{id}/diff",
        "../{id}",
        "../../diff",
        "../.././diff",
        "..//diff",
        ".",
        "../{id}/diff\n",
        b"../\xff/diff",
        "../" + "x" * 300 + "/diff",
    ],
)
def test_links_point_to_a_sibling_or_nowhere(docker_root: DockerRoot, target: str | bytes) -> None:
    top = chain_directory(docker_root)
    base = sources.resolve(top).layers[0].parent.name
    wrong = target if isinstance(target, bytes) else target.format(id=base)
    relink(docker_root.overlay, short_name(base), wrong)
    with pytest.raises(CorruptStoreError, match=r"exactly \.\./<id>/diff"):
        sources.resolve(top)


def test_a_link_that_is_none(docker_root: DockerRoot) -> None:
    top = chain_directory(docker_root)
    base = sources.resolve(top).layers[0].parent.name
    link = docker_root.overlay / "l" / short_name(base)
    link.unlink()
    with pytest.raises(SourceNotFoundError) as caught:
        sources.resolve(top)
    assert caught.value.path == os.fspath(link)
    link.write_text("../x/diff")
    with pytest.raises(CorruptStoreError, match="not a symlink"):
        sources.resolve(top)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b":",
        b"l/",
        b"l/..",
        b"l/../../etc",
        b"/etc",
        b"x/AAAA",
        b"l/AAAA:",
        b"l/AAAA:l/AAAA",
        b"l/AAAA l/BBBB",
        b"\xff\xfe",
        b"\0",
        b"l/A" * 100_000,
        b":".join(b"l/A%d" % n for n in range(600)),
    ],
)
def test_hostile_lower_files(docker_root: DockerRoot, content: bytes) -> None:
    top = chain_directory(docker_root)
    (top / "lower").write_bytes(content)
    with pytest.raises(CorruptStoreError) as caught:
        sources.resolve(top)
    assert caught.value.path == os.fspath(top / "lower")


def test_a_lower_that_is_a_symlink(docker_root: DockerRoot) -> None:
    top = chain_directory(docker_root)
    (top / "lower").rename(top / "elsewhere")
    (top / "lower").symlink_to("elsewhere")
    with pytest.raises(CorruptStoreError, match="a symlink"):
        sources.resolve(top)


def test_layers_are_compared_with_each_other(docker_root: DockerRoot) -> None:
    top = chain_directory(docker_root, 4)
    ids = [layer.parent.name for layer in sources.resolve(top).layers]
    # Without the base, though the layer above it names it.
    (top / "lower").write_text(":".join(f"l/{short_name(one)}" for one in (ids[2], ids[1])))
    with pytest.raises(CorruptStoreError, match="does not name the same layers"):
        sources.resolve(top)
    # In another order.
    (top / "lower").write_text(":".join(f"l/{short_name(one)}" for one in (ids[1], ids[2], ids[0])))
    with pytest.raises(CorruptStoreError, match="does not name the same layers"):
        sources.resolve(top)


def test_short_names_are_compared(docker_root: DockerRoot) -> None:
    top = chain_directory(docker_root)
    base = sources.resolve(top).layers[0].parent
    (base / "link").write_text("A" * 26)
    with pytest.raises(CorruptStoreError, match="/link: says"):
        sources.resolve(top)


def test_a_container_with_an_index(docker_root: DockerRoot) -> None:
    top = chain_directory(docker_root)
    assert sources.resolve(top).warnings == ()
    (top / "work/index").mkdir()
    sources.resolve(top)
    (top / "work/index/00fb").touch()
    with pytest.raises(UnsupportedSourceError, match=r"index=on.*commit it"):
        sources.resolve(top)


def test_what_is_no_chain_directory(docker_root: DockerRoot, tmp_path: Path, layer: Path) -> None:
    top = chain_directory(docker_root)
    archive = tmp_path / "image.tar"
    archive.touch()
    (tmp_path / "oci").mkdir()
    (tmp_path / "oci/oci-layout").touch()
    (tmp_path / "oci/index.json").touch()
    (tmp_path / "snapshots/7/fs").mkdir(parents=True)
    (tmp_path / "half/diff").mkdir(parents=True)
    for path, text in (
        (docker_root.root, "docker:NAME"),
        (top / "diff", f"its chain is {top}"),
        (layer, "--layer"),
        (archive, "archives"),
        (tmp_path / "oci", "OCI layout"),
        (tmp_path / "snapshots/7", "snapshot of containerd"),
        (tmp_path / "half", "no link file"),
    ):
        with pytest.raises(UnsupportedSourceError, match=text) as caught:
            sources.resolve(path)
        assert caught.value.path == os.fspath(path)


def test_a_missing_source() -> None:
    with pytest.raises(SourceNotFoundError, match="docker:alpine:3"):
        sources.resolve("alpine:3")
    with pytest.raises(FileNotFoundError):
        sources.resolve("/nowhere/at/all")
    for senseless in (None, "", "a\0b"):
        with pytest.raises(LayermeltError):
            sources.resolve(senseless)


class TestContainersStorage:
    def test_layers_are_base_first(self, containers_store: ContainersStore) -> None:
        ids = containers_store.add("one", "two", "three")
        chain = sources.resolve(containers_store.overlay / ids[-1])
        assert list(chain.layers) == [containers_store.tree(one) for one in ids]
        assert not chain.fuse_overlayfs
        single = sources.resolve(containers_store.overlay / ids[0])
        assert list(single.layers) == [containers_store.tree(ids[0])]

    def test_lost_links_are_found_again(self, containers_store: ContainersStore) -> None:
        ids = containers_store.add("one", "two", "three")
        (containers_store.overlay / "l" / short_name(ids[0])).unlink()
        chain = sources.resolve(containers_store.overlay / ids[-1])
        assert list(chain.layers) == [containers_store.tree(one) for one in ids]
        (containers_store.overlay / ids[0] / "link").unlink()
        with pytest.raises(SourceNotFoundError, match="no layer in"):
            sources.resolve(containers_store.overlay / ids[-1])

    def test_the_table_is_compared(self, containers_store: ContainersStore) -> None:
        ids = containers_store.add("one", "two", "three")
        containers_store.entries[2]["parent"] = ids[0]
        containers_store.save()
        with pytest.raises(CorruptStoreError, match="names other layers than"):
            sources.resolve(containers_store.overlay / ids[-1])

    def test_without_a_table_links_are_enough(self, containers_store: ContainersStore) -> None:
        ids = containers_store.add("one", "two")
        containers_store.table.unlink()
        assert len(sources.resolve(containers_store.overlay / ids[-1]).layers) == 2

    def test_the_volatile_table_counts(self, containers_store: ContainersStore) -> None:
        ids = containers_store.add("one", "two")
        containers_store.table.with_name("volatile-layers.json").write_text(
            json.dumps(containers_store.entries[1:])
        )
        containers_store.table.write_text(json.dumps(containers_store.entries[:1]))
        assert len(sources.resolve(containers_store.overlay / ids[-1]).layers) == 2

    @pytest.mark.parametrize(
        "content", ["{}", "[1]", '[{"id": 1}]', '[{"id": "a", "parent": 3}]', "[", "\xff"]
    )
    def test_senseless_tables(self, containers_store: ContainersStore, content: str) -> None:
        ids = containers_store.add("one", "two")
        containers_store.table.write_bytes(content.encode("latin-1"))
        with pytest.raises(CorruptStoreError, match=r"layers\.json"):
            sources.resolve(containers_store.overlay / ids[-1])

    def test_parents_in_a_loop(self, containers_store: ContainersStore) -> None:
        ids = containers_store.add("one", "two")
        containers_store.entries[0]["parent"] = ids[1]
        containers_store.save()
        with pytest.raises(CorruptStoreError, match="loop"):
            sources.resolve(containers_store.overlay / ids[-1])

    def test_further_trees_lie_below(self, containers_store: ContainersStore) -> None:
        ids = containers_store.add("one", "two")
        top = containers_store.overlay / ids[1]
        for name in ("diff1", "diff2", "diff4"):
            (top / name).mkdir()
        chain = sources.resolve(top)
        assert [layer.name for layer in chain.layers] == ["diff", "diff2", "diff1", "diff"]
        assert chain.layers[0] == containers_store.tree(ids[0])

    def test_fuse_overlayfs(self, containers_store: ContainersStore) -> None:
        ids = containers_store.add("one")
        for content, expected in (("true", True), ("false", False), ("", False)):
            (containers_store.overlay / ".has-mount-program").write_text(content)
            assert sources.resolve(containers_store.overlay / ids[0]).fuse_overlayfs is expected

    def test_composefs_is_refused(self, containers_store: ContainersStore) -> None:
        ids = containers_store.add("one", "two")
        blob = containers_store.overlay / ids[0] / "composefs-data/composefs.blob"
        blob.parent.mkdir()
        blob.touch()
        with pytest.raises(UnsupportedSourceError, match="composefs") as caught:
            sources.resolve(containers_store.overlay / ids[1])
        assert caught.value.path == os.fspath(blob)

    def test_force_mask_is_refused(self, containers_store: ContainersStore) -> None:
        ids = containers_store.add("one", "two")
        try:
            os.setxattr(containers_store.tree(ids[0]), "user.containers.override_stat", b"0:0:0755")
        except OSError as error:
            pytest.skip(f"the file system of the temporary directory has no user.* attributes: {error}")
        with pytest.raises(UnsupportedSourceError, match="force_mask"):
            sources.resolve(containers_store.overlay / ids[1])

    def test_an_additional_store(
        self, containers_store: ContainersStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pytest.importorskip("tomllib", reason="storage.conf is read since Python 3.11")
        other = ContainersStore(tmp_path / "other")
        base = other.add("base", "middle")
        top = digest("top")
        layer = containers_store.overlay / top
        (layer / "diff").mkdir(parents=True)
        (layer / "link").write_text(short_name(top))
        (layer / "lower").write_text(":".join(f"l/{short_name(one)}" for one in base[::-1]))
        containers_store.entries.append({"id": top, "parent": base[-1]})
        containers_store.save()
        configuration = tmp_path / "stores.conf"
        monkeypatch.setenv("CONTAINERS_STORAGE_CONF", os.fspath(configuration))
        configuration.write_text("[storage.options]\n")
        with pytest.raises((SourceNotFoundError, CorruptStoreError)):
            sources.resolve(layer)
        configuration.write_text(f'[storage.options]\nadditionalimagestores = ["{other.root}"]\n')
        chain = sources.resolve(layer)
        assert list(chain.layers) == [*(other.tree(one) for one in base), layer / "diff"]
