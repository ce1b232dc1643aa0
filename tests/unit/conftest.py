"""What the unit tests share."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from unit.stores import ContainersStore, DockerRoot

# A shell that starts the tests in the background has SIGINT ignored, and what is
# ignored stays so in every child: then nothing could be interrupted.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# Below nohup(1) it is as with SIGHUP.
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the user's environment changes a result."""
    for name in list(os.environ):
        if name.startswith("LAYERMELT_") or name in ("SOURCE_DATE_EPOCH", "CONTAINERS_STORAGE_CONF"):
            monkeypatch.delenv(name)


@pytest.fixture
def docker_root(tmp_path: Path) -> DockerRoot:
    return DockerRoot(tmp_path / "docker")


@pytest.fixture
def containers_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ContainersStore:
    # An empty one: the machine's own must not add stores.
    configuration = tmp_path / "storage.conf"
    configuration.write_text("[storage.options]\n")
    monkeypatch.setenv("CONTAINERS_STORAGE_CONF", os.fspath(configuration))
    return ContainersStore(tmp_path / "storage")


@pytest.fixture
def layer(tmp_path: Path) -> Path:
    """A small layer."""
    tree = tmp_path / "layer"
    (tree / "etc").mkdir(parents=True)
    (tree / "etc/hostname").write_text("melted\n")
    (tree / "sbin").symlink_to("usr/sbin")
    return tree


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Where an image is to be written, in a directory of its own."""
    directory = tmp_path / "images"
    directory.mkdir()
    return directory / "rootfs.ext4"


@pytest.fixture
def overlay2(tmp_path: Path) -> Path:
    """A chain directory of one layer, as Docker lays it out."""
    directory = tmp_path / "overlay2" / "top"
    (directory / "diff/etc").mkdir(parents=True)
    (directory / "diff/etc/hostname").write_text("melted\n")
    (directory / "link").write_text("L")
    return directory


@pytest.fixture
def agent(tmp_path: Path) -> Path:
    """Something to put in as agent; it is no program, so it goes without the agent check."""
    path = tmp_path / "vm-agent"
    path.write_text("agent\n")
    return path
