"""Layers named one by one, and who may read what."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from layermelt import sources
from layermelt.errors import (
    InvalidOptionError,
    LayermeltError,
    SourceNotFoundError,
    UnreadableError,
)
from layermelt.sources import store
from unit.stores import DockerRoot

NOBODY = 65534


def test_base_first(tmp_path: Path) -> None:
    layers = [tmp_path / name for name in ("b", "a", "c")]
    for layer in layers:
        layer.mkdir()
    chain = sources.resolve(None, layers=[layers[0], os.fsencode(layers[1]), f"{layers[2]}/"])
    assert list(chain.layers) == layers
    assert (chain.userxattr, chain.fuse_overlayfs) == (False, False)
    assert chain.description == "3 layers"


def test_a_source_and_layers(tmp_path: Path) -> None:
    with pytest.raises(InvalidOptionError, match="exclude each other"):
        sources.resolve(tmp_path, layers=[tmp_path])
    with pytest.raises(InvalidOptionError, match="no source"):
        sources.resolve(None)


def test_what_is_no_layer(tmp_path: Path, docker_root: DockerRoot) -> None:
    file = tmp_path / "file"
    file.touch()
    loop = tmp_path / "loop"
    loop.symlink_to("loop")
    for path in (tmp_path / "none", file, file / "x"):
        with pytest.raises(SourceNotFoundError) as caught:
            sources.resolve(None, layers=[path])
        assert caught.value.path == os.fspath(path)
    for senseless in ("", "a\0b", loop):
        with pytest.raises(LayermeltError):
            sources.resolve(None, layers=[senseless])
    top = docker_root.layers(docker_root.add_image("a:1"))[0].parent
    with pytest.raises(InvalidOptionError, match="chain directory"):
        sources.resolve(None, layers=[top])


def test_overlapping_layers(tmp_path: Path) -> None:
    inner = tmp_path / "a/b"
    inner.mkdir(parents=True)
    (tmp_path / "a b").mkdir()
    (tmp_path / "link").symlink_to("a")
    for layers in (
        [tmp_path / "a", inner],
        [inner, tmp_path / "a"],
        [inner, inner],
        [tmp_path / "a", tmp_path / "link"],
    ):
        with pytest.raises(InvalidOptionError, match="twice, or lies in"):
            sources.resolve(None, layers=layers)
    assert len(sources.resolve(None, layers=[tmp_path / "a", tmp_path / "a b"]).layers) == 2


def test_as_many_as_the_kernel_takes(tmp_path: Path) -> None:
    layers = [tmp_path / str(number) for number in range(501)]
    for layer in layers:
        layer.mkdir()
    assert len(sources.resolve(None, layers=layers[:500]).layers) == 500
    with pytest.raises(InvalidOptionError, match="500"):
        sources.resolve(None, layers=layers)


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that every user can enter: pytest's own are for one user."""
    directory = Path(tempfile.mkdtemp())
    directory.chmod(0o755)
    yield directory
    for root, directories, _ in os.walk(directory):
        for name in directories:
            Path(root, name).chmod(0o755)
    shutil.rmtree(directory)


@pytest.fixture
def ordinary_user() -> Iterator[None]:
    """Root sees everything: be somebody else."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    yield
    os.seteuid(0)


@pytest.fixture
def closed_store(open_directory: Path) -> DockerRoot:
    root = DockerRoot(open_directory / "docker")
    root.add_image("a:1", layers=4)
    return root


def test_all_unreadable_layers_are_told(closed_store: DockerRoot, ordinary_user: None) -> None:
    trees = [layer for layer in closed_store.overlay.glob("*/diff") if not layer.is_symlink()]
    if os.getuid() == 0:
        os.seteuid(0)
    for tree in trees[:3]:
        tree.chmod(0)
    if os.getuid() == 0:
        os.seteuid(NOBODY)
    with pytest.raises(UnreadableError, match="run as their owner, or as root") as caught:
        sources.resolve("docker:a:1", docker_root=closed_store.root)
    assert isinstance(caught.value, PermissionError)
    assert set(caught.value.paths) == {os.fspath(tree) for tree in trees[:3]}


@pytest.mark.parametrize("place", [".", "image/overlay2", "overlay2"])
def test_a_closed_data_root(closed_store: DockerRoot, place: str, ordinary_user: None) -> None:
    if os.getuid() == 0:
        os.seteuid(0)
    (closed_store.root / place).chmod(0)
    if os.getuid() == 0:
        os.seteuid(NOBODY)
    with pytest.raises(UnreadableError, match="root"):
        sources.resolve("docker:a:1", docker_root=closed_store.root)


def test_a_closed_layer(open_directory: Path, ordinary_user: None) -> None:
    if os.getuid() == 0:
        os.seteuid(0)
    layer = open_directory / "layer"
    layer.mkdir(mode=0)
    if os.getuid() == 0:
        os.seteuid(NOBODY)
    with pytest.raises(UnreadableError) as caught:
        sources.resolve(None, layers=[layer])
    assert caught.value.path == os.fspath(layer)


def test_whose_marks_a_store_has(closed_store: DockerRoot) -> None:
    if os.getuid() != 0:
        assert sources.resolve("docker:a:1", docker_root=closed_store.root).userxattr
        pytest.skip("needs root: gives a store to another user")
    assert not sources.resolve("docker:a:1", docker_root=closed_store.root).userxattr
    os.chown(closed_store.overlay, 1000, 1000)
    assert sources.resolve("docker:a:1", docker_root=closed_store.root).userxattr
    # Remapped users: still written by root.
    remapped = closed_store.root.with_name("100000.100000")
    closed_store.root.rename(remapped)
    assert stat.S_ISDIR((remapped / "overlay2").stat().st_mode)
    assert not store.is_users_store(os.fspath(remapped / "overlay2"))


def test_marks_that_cannot_be_seen(closed_store: DockerRoot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "is_users_store", lambda _store: False)
    chain = sources.resolve("docker:a:1", docker_root=closed_store.root)
    monkeypatch.setattr(store, "sees_trusted", lambda: True)
    assert not sources.choose_marks(chain, userxattr=None)
    monkeypatch.setattr(store, "sees_trusted", lambda: False)
    with pytest.raises(UnreadableError, match=r"trusted\.overlay\.\*.*run as root") as caught:
        sources.choose_marks(chain, userxattr=None)
    assert caught.value.path == os.fspath(closed_store.overlay)
    # Who says it knows it.
    assert sources.choose_marks(chain, userxattr=True)
    assert not sources.choose_marks(chain, userxattr=False)
    # Nothing lies below a single layer, and plain directories are the user's own business.
    base = sources.resolve(chain.layers[0].parent)
    assert not sources.choose_marks(base, userxattr=None)
    plain = sources.resolve(None, layers=chain.layers[:2])
    assert not sources.choose_marks(plain, userxattr=None)


@pytest.mark.parametrize(
    ("prefix", "sees"),
    [
        ([], True),
        (["setpriv", "--bounding-set=-sys_admin"], False),
        (["setpriv", "--reuid=65534", "--clear-groups"], False),
        (["unshare", "--user", "--map-root-user"], False),
    ],
)
def test_what_the_kernel_shows(open_directory: Path, prefix: list[str], sees: bool) -> None:
    if not store.sees_trusted():
        pytest.skip("needs root (CAP_SYS_ADMIN): writes a trusted attribute")
    os.setxattr(open_directory, "trusted.layermelt", b"y")
    program = (
        "import os, sys; from layermelt.sources.store import sees_trusted; "
        "print(sees_trusted(), 'trusted.layermelt' in os.listxattr(sys.argv[1]))"
    )
    command = [*prefix, sys.executable, "-c", program, os.fspath(open_directory)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"{' '.join(prefix)} does not work here: {done.stderr}")
    assert done.stdout.split() == [str(sees), str(sees)]


def test_owners_in_a_user_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_uid_map", lambda: [(0, 1000, 1), (1, 100_000, 65_536)])
    assert store._outer_uid(0) == 1000
    assert store._outer_uid(5) == 100_004
    # Not mapped: the kernel shows it as nobody, and it may well be root.
    monkeypatch.setattr(store, "_uid_map", lambda: [(0, 1000, 1)])
    assert store._outer_uid(65_534) == 0


def test_one_path_is_no_list(layer: Path) -> None:
    for layers in (os.fspath(layer), os.fsencode(layer), "/"):
        with pytest.raises(InvalidOptionError, match="expected a list of directories"):
            sources.resolve(None, layers=layers)  # type: ignore[arg-type]
