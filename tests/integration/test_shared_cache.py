"""One cache directory, shared with older agents: each side takes the other's images as hits."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from layermelt import Settings, build_rootfs, check_image, convert_layer_to_rootfs, has_ext4_magic
from layermelt.digests import path_key

pytestmark = pytest.mark.root


class OldAgent:
    """What older agents do, step by step, with their own programs."""

    def __init__(self, cache: Path, program: Path, agent: Path, scratch: Path) -> None:
        self._cache = cache
        self._program = program
        self._agent = agent
        self._scratch = scratch
        self.conversions = 0

    def convert(self, layer: Path) -> Path:
        image = self._cache / f"rootfs-{path_key(layer)}.ext4"
        if image.exists() and has_ext4_magic(image):
            return image
        temporary = self._cache / f".rootfs-{uuid.uuid4()}.ext4.tmp"
        subprocess.run([self._program, layer, "--output", temporary], check=True, capture_output=True)
        self._scratch.mkdir()
        subprocess.run(["mount", "-o", "loop", temporary, self._scratch], check=True)
        try:
            (self._scratch / "sbin").mkdir(exist_ok=True)
            shutil.copyfile(self._agent, self._scratch / "sbin/vm-agent")
            (self._scratch / "sbin/vm-agent").chmod(0o755)
        finally:
            subprocess.run(["umount", self._scratch], check=True)
            self._scratch.rmdir()
        temporary.rename(image)
        self.conversions += 1
        return image


def link_layers(lower: Path, upper: Path) -> None:
    """Makes one lie upon the other, as Docker notes it."""
    store = lower.parent
    (store / "l").mkdir()
    for layer in (lower, upper):
        (store / "l" / (layer / "link").read_text()).symlink_to(f"../{layer.name}/diff")
    (upper / "lower").write_text(f"l/{(lower / 'link').read_text()}")


@pytest.fixture
def layers(tmp_path: Path) -> list[Path]:
    """Two chain directories of one store."""
    made = []
    for name in ("first", "second"):
        directory = tmp_path / "overlay2" / name
        (directory / "diff/etc").mkdir(parents=True)
        (directory / "diff/etc/hostname").write_text(f"{name}\n")
        (directory / "link").write_text(name.upper())
        made.append(directory)
    return made


def content(image: Path, path: str) -> bytes:
    command = ["debugfs", "-R", f"cat {path}", os.fspath(image)]
    return subprocess.run(command, capture_output=True, check=True).stdout


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_each_side_takes_the_others(
    layers: list[Path],
    tmp_path: Path,
    oci2rootfs: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "layermelt")
    busybox = shutil.which("busybox")
    assert busybox is not None, "busybox is missing; .ci/setup test installs busybox-static"
    cache = tmp_path / "bin"
    cache.mkdir()
    agent = cache / "vm-agent"
    shutil.copyfile(busybox, agent)
    old = OldAgent(cache, oci2rootfs, agent, tmp_path / "mnt")
    native = Settings(cache_dir=os.fspath(cache), agent=os.fspath(agent))
    legacy = Settings.legacy(
        cache_dir=os.fspath(cache), agent=os.fspath(agent), oci2rootfs=os.fspath(oci2rootfs)
    )
    first, second = layers

    # Ours, by the older way and by our own, is a hit for the old one and for each other.
    by_legacy = convert_layer_to_rootfs(first, settings=legacy)
    before = sha256(by_legacy)
    assert old.convert(first) == by_legacy
    assert old.conversions == 0
    assert convert_layer_to_rootfs(first, settings=native) == by_legacy
    by_native = convert_layer_to_rootfs(second, settings=native)
    assert old.convert(second) == by_native
    assert old.conversions == 0
    assert convert_layer_to_rootfs(second, settings=legacy) == by_native
    assert sha256(by_legacy) == before

    # The old one's are hits for ours, however they are made.
    for image in (by_legacy, by_native):
        image.unlink()
    assert old.convert(first) == by_legacy
    assert old.convert(second) == by_native
    assert old.conversions == 2
    marks = [sha256(by_legacy), sha256(by_native)]
    for settings in (native, legacy):
        assert convert_layer_to_rootfs(first, settings=settings) == by_legacy
        assert convert_layer_to_rootfs(second, settings=settings) == by_native
    assert [sha256(by_legacy), sha256(by_native)] == marks

    for image, name in ((by_legacy, "first"), (by_native, "second")):
        assert content(image, "/etc/hostname") == f"{name}\n".encode()
        assert content(image, "/sbin/vm-agent") == agent.read_bytes()
    assert sorted(os.listdir(cache)) == sorted([by_legacy.name, by_native.name, "vm-agent"])
    said = [record.getMessage() for record in caplog.records]
    assert said.count("rootfs ready") == 2
    assert said.count("using cached rootfs") == 6


def test_the_older_way_puts_the_agent_in(
    layers: list[Path], tmp_path: Path, oci2rootfs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "layermelt")
    settings = Settings.legacy(
        cache_dir=os.fspath(tmp_path / "cache"), agent="/bin/busybox", oci2rootfs=os.fspath(oci2rootfs)
    )
    image = convert_layer_to_rootfs(layers[0], settings=settings)
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.INFO] == [
        "converting overlay2 layer to ext4",
        "injecting vm-agent into rootfs",
        "rootfs ready",
    ]
    assert caplog.records[0].__dict__["engine"] == "oci2rootfs"
    assert content(image, "/sbin/vm-agent") == Path("/bin/busybox").read_bytes()
    command = ["debugfs", "-R", "stat /sbin/vm-agent", os.fspath(image)]
    told = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    assert "Mode:  0755" in told
    assert "User:     0   Group:     0" in told


def test_what_e2fsck_finds_in_its_image_is_a_warning(
    layers: list[Path], tmp_path: Path, oci2rootfs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """oci2rootfs 0.3.0 leaves the inodes of a directory that another layer replaced."""
    monkeypatch.setenv("LAYERMELT_OCI2ROOTFS", os.fspath(oci2rootfs))
    lower, upper = layers
    target = tmp_path / "rootfs.ext4"
    assert build_rootfs(lower, target, engine="oci2rootfs").warnings == ()
    link_layers(lower, upper)
    for number in range(12):
        (lower / f"diff/opt/{number}").mkdir(parents=True)
    (upper / "diff/opt").write_text("a file now")
    result = build_rootfs(upper, target, engine="oci2rootfs")
    judged = subprocess.run(["e2fsck", "-fn", target], capture_output=True, text=True, check=False)
    assert "Unattached inode" in judged.stdout
    assert len(result.warnings) == 11
    assert "has a fault: inode" in result.warnings[0]
    assert "further faults" in result.warnings[-1]


@pytest.mark.parametrize(
    "arguments",
    [
        "LAYER --output OUT",
        "LAYER/ -o OUT",
        "--output OUT LAYER",
        "LAYER -oOUT",
        "LAYER --output=OUT",
        "--output OUT -- LAYER",
        "LAYER --output OUT --size 64M --label root --uuid 123e4567-e89b-12d3-a456-426614174000",
        "LAYER --output OUT --size 1g --platform linux/arm64 --insecure",
        # It is the least size.
        "LAYER --output OUT --size 1M",
        "LAYER --output OUT --size 4K",
        "LAYER --output OUT --size 1.5G",
        "LAYER --output OUT --size abc",
        "LAYER --output OUT --label more-than-16-bytes",
        "LAYER --output OUT --uuid x",
        "LAYER --output DIRECTORY",
        "LAYER --output OUT/below",
        "LAYER --output DIRECTORY/none/OUT",
        "DIRECTORY --output OUT",
        "LAYER LAYER --output OUT",
        "LAYER --output OUT --unknown",
        "LAYER",
        "--output OUT",
        "",
        "--help",
        "-h",
        "--version",
        "-V",
    ],
)
def test_the_program_of_that_name_answers_alike(
    arguments: str, layers: list[Path], tmp_path: Path, oci2rootfs: Path
) -> None:
    """Exit code, and whether there is an image; agents see nothing else."""
    ours = tmp_path / "ours/oci2rootfs"
    ours.parent.mkdir()
    ours.symlink_to(Path(sys.executable).parent / "layermelt")
    seen = []
    for program in (oci2rootfs, ours):
        directory = tmp_path / f"by-{program.parent.name}"
        (directory / "plain").mkdir(parents=True)
        words = arguments.replace("LAYER", os.fspath(layers[0])).replace("DIRECTORY", "plain").split()
        done = subprocess.run([program, *words], cwd=directory, capture_output=True, check=False)
        output = directory / "OUT"
        seen.append((done.returncode, has_ext4_magic(output), sorted(os.listdir(directory))))
    assert seen[0] == seen[1]
    if seen[0][1]:
        assert check_image(tmp_path / "by-ours/OUT").sound
