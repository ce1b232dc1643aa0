"""The Python face of growing: arguments, and who else has the image."""

from __future__ import annotations

import asyncio
import fcntl
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

import layermelt
from layermelt import aio, busy, errors


@pytest.fixture
def image(layer: Path, target: Path) -> Path:
    layermelt.build_rootfs(None, target, layers=[layer], sync=False)
    return target


def test_sizes(image: Path) -> None:
    old = image.stat().st_size
    report = layermelt.grow_image(os.fsencode(image), f" +{4 << 20} ", sync=False)
    assert (report.path, report.changed) == (image, True)
    assert report.new.size == report.file_size == image.stat().st_size == old + (4 << 20)
    assert report.new.inodes == report.old.inodes
    assert report.new.free_blocks - report.old.free_blocks == (4 << 20) // report.block_size
    assert report.as_dict()["new"]["blocks"] == report.new.blocks
    assert not layermelt.grow_image(image, "max", sync=False).changed
    for size in ("", "+", "4Q", "+-1", -1, old):
        with pytest.raises(errors.InvalidOptionError):
            layermelt.grow_image(image, size)
    assert layermelt.check_image(image).sound


def test_as_a_coroutine(image: Path) -> None:
    async def main() -> None:
        assert (await aio.grow_image(image, "+1M", sync=False)).changed

    asyncio.run(main())


@pytest.mark.parametrize("name", ["", "a\0b"])
def test_no_path(name: str) -> None:
    with pytest.raises(errors.InvalidOptionError):
        layermelt.grow_image(name, "1G")


def test_in_a_directory_that_was_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(errors.OutputNotFoundError, match="the working directory"):
        layermelt.grow_image("image", "1G")
    with pytest.raises(errors.LayerChangedError):
        layermelt.diff_trees(".", tmp_path)


def test_what_is_no_image(tmp_path: Path) -> None:
    with pytest.raises(errors.ImageNotFoundError):
        layermelt.grow_image(tmp_path / "none", "1G")
    with pytest.raises(errors.ImageError):
        layermelt.grow_image(tmp_path, "1G")
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(errors.ImageError):
        layermelt.grow_image(tmp_path / "fifo", "1G")
    for content in (b"", b"XFSB" * 1000):
        (tmp_path / "other").write_bytes(content)
        with pytest.raises(errors.UnsoundImageError) as caught:
            layermelt.grow_image(tmp_path / "other", "1G")
        # It is not one for e2fsck to repair.
        assert "e2fsck" not in str(caught.value)
    (tmp_path / "empty").touch()
    with pytest.raises(errors.UnsoundImageError):
        layermelt.grow_image(tmp_path / "empty", "1G")
    assert (tmp_path / "empty").stat().st_size == 0


def test_two_at_once(image: Path) -> None:
    with busy.claim(os.fspath(image)), pytest.raises(errors.ImageBusyError):
        layermelt.grow_image(image, "+1M")
    assert layermelt.grow_image(image, "+1M", sync=False).changed


def test_a_machine_has_it(image: Path) -> None:
    """QEMU takes shared locks of single bytes (``raw_apply_lock_bytes``)."""
    with image.open("r+b") as file:
        lock = struct.pack("hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, 100, 1, 0)
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, lock)
        with pytest.raises(errors.ImageBusyError, match="locked"):
            layermelt.grow_image(image, "+1M")


def test_a_limit_leaves_the_old_image(image: Path) -> None:
    """A file of the new size is not allowed: nothing was changed."""
    before = image.read_bytes()
    limit = len(before) + (1 << 20)
    program = (
        "import resource, signal, sys, layermelt\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n"
        "try:\n"
        "    layermelt.grow_image(sys.argv[1], '+2M')\n"
        "except layermelt.errors.DiskFullError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, image], capture_output=True, text=True, check=False)
    assert "ulimit -f" in done.stdout, done
    assert image.read_bytes() == before
