"""Docker's images in containerd's store: a real containerd keeps them, and the kernel mounts them."""

from __future__ import annotations

import os
import platform
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from integration.conftest import Judge
from integration.oracle import mounts, product
from integration.oracle.compare import differences, report
from integration.oracle.dump import dump
from integration.real import containerd
from layermelt.sources.oci import chain_ids

pytestmark = [pytest.mark.root, pytest.mark.docker]

NAME = "docker.io/library/made:1"
OWN = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
OTHER = "riscv64"


@dataclass(frozen=True)
class Store:
    """A daemon that has one image of three layers."""

    daemon: containerd.Containerd
    diff_ids: list[str]
    #: The same image for another machine is in it.
    archive: Path


def make_layers(folder: Path) -> list[bytes]:
    """What an upper layer can do to lower ones, as tars tell it."""
    for number in range(3):
        (folder / f"{number}/etc").mkdir(parents=True)
    base, middle, top = (folder / str(number) for number in range(3))
    (base / "etc/gone").write_text("gone")
    (base / "etc/kept").write_text("kept")
    (base / "etc/kept").chmod(0o4755)
    os.chown(base / "etc/kept", 1000, 70_000)
    os.setxattr(base / "etc/kept", "user.attribute", b"value")
    (base / "opaque/below").mkdir(parents=True)
    (base / "opaque/file").write_text("hidden")
    for number in range(500):
        (base / f"etc/{number:03}").write_text(str(number))
    (middle / "etc/.wh.gone").touch()
    (middle / "opaque").mkdir()
    (middle / "opaque/.wh..wh..opq").touch()
    (middle / "opaque/new").write_text("new")
    (middle / "etc/link").symlink_to("kept")
    os.mkfifo(middle / "etc/fifo")
    (top / "etc/first").write_text("linked")
    (top / "etc/second").hardlink_to(top / "etc/first")
    (top / "etc/.wh.link").touch()
    return [containerd.tar_of(layer) for layer in (base, middle, top)]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    lacking = containerd.missing()
    if lacking:
        pytest.skip(f"no containerd: {lacking}")
    folder = tmp_path_factory.mktemp("containerd")
    layers = make_layers(folder / "layers")
    archive = containerd.Archive()
    archive.add_manifest(OTHER, layers[:1])
    diff_ids = archive.add_manifest(OWN, layers)
    archive.write(folder / "made.tar", NAME)
    with containerd.running(folder / "daemon") as daemon:
        daemon.load(folder / "made.tar")
        yield Store(daemon, diff_ids, folder / "made.tar")


def build(store: Store, name: str, output: Path) -> subprocess.CompletedProcess[str]:
    source = (f"docker:{name}", "--docker-root", store.daemon.docker_root)
    return product.run(product.command("build", *source, "-o", output, "--no-sync"))


def test_an_image_is_what_containerd_mounts(store: Store, tmp_path: Path, judge_image: Judge) -> None:
    output = tmp_path / "image.ext4"
    done = build(store, "made:1", output)
    assert done.returncode == 0, done.stderr
    assert f"linux/{OWN}, 3 layers" in done.stderr
    judge_image(output)
    top = chain_ids(store.diff_ids)[-1]
    with store.daemon.mounted(top, tmp_path / "mount") as mounted:
        expected = dump(mounted)
    assert {b"etc/kept", b"opaque/new"} <= expected.entries.keys()
    assert not {b"etc/gone", b"etc/link", b"opaque/file"} & expected.entries.keys()
    with mounts.image(output) as mounted:
        different = differences(expected, dump(mounted))
    assert not different, report(different)


def test_by_digest_and_by_id(store: Store, tmp_path: Path) -> None:
    lines = store.daemon.ctr("images", "ls").splitlines()
    digest = next(line.split()[2] for line in lines if line.startswith(NAME))
    for name in (f"made@{digest}", digest, digest[7:19]):
        assert build(store, name, tmp_path / "image.ext4").returncode == 0
    done = build(store, "made:2", tmp_path / "image.ext4")
    assert done.returncode == 3
    assert f"has no image 'made:2'; it has {NAME}" in done.stderr


def test_one_that_was_not_unpacked(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "layer"
    folder.mkdir()
    (folder / "file").write_text("x")
    archive = containerd.Archive()
    archive.add_manifest(OWN, [containerd.tar_of(folder)])
    archive.write(tmp_path / "packed.tar", "docker.io/library/packed:1")
    store.daemon.load(tmp_path / "packed.tar", "--no-unpack")
    done = build(store, "packed:1", tmp_path / "image.ext4")
    assert done.returncode != 0
    assert "not unpacked by the overlayfs snapshotter" in done.stderr


def test_many_names_while_it_writes(store: Store, tmp_path: Path) -> None:
    """No lock is taken, and none that containerd holds is waited for."""
    done = threading.Event()
    written = 0

    def write() -> None:
        nonlocal written
        while not done.is_set():
            store.daemon.ctr("images", "tag", NAME, f"registry.example/{'n' * 60}/number-{written}:tag")
            written += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        while written < 150:
            assert build(store, "made:1", tmp_path / "image.ext4").returncode == 0
    finally:
        done.set()
        writer.join()
    assert (
        build(store, f"registry.example/{'n' * 60}/number-149:tag", tmp_path / "image.ext4").returncode == 0
    )


def test_without_docker(store: Store, tmp_path: Path) -> None:
    """The same image by containerd's own names."""
    by_docker, by_containerd = tmp_path / "docker.ext4", tmp_path / "containerd.ext4"
    assert build(store, "made:1", by_docker).returncode == 0
    command = product.command("build", f"containerd:{NAME}", "-o", by_containerd, "--no-sync")
    told = {"LAYERMELT_CONTAINERD_ROOT": str(store.daemon.root), "CONTAINERD_NAMESPACE": containerd.NAMESPACE}
    done = product.run(command, env={**os.environ, **told})
    assert done.returncode == 0, done.stderr
    assert by_docker.read_bytes() == by_containerd.read_bytes()
