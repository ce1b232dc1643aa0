"""The cache under attack: killed at any moment, a full disk, a cache that cannot be written."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from integration.oracle import product
from layermelt import build_rootfs, check_image, errors

MIB = 1 << 20
KILLS = int(os.environ.get("LAYERMELT_TEST_KILLS", "12"))


@pytest.fixture
def layer(tmp_path: Path) -> Path:
    """A layer that takes some tenths of a second."""
    tree = tmp_path / "layer"
    tree.mkdir()
    noise = random.Random(5)
    for number in range(200):
        (tree / f"small{number}").write_bytes(noise.randbytes(4000))
    for number in range(5):
        (tree / f"large{number}").write_bytes(noise.randbytes(8 * MIB))
    return tree


def entries(cache: Path) -> list[str]:
    return sorted(name for name in os.listdir(cache) if name != ".digests")


def test_killed_at_any_moment(layer: Path, tmp_path: Path) -> None:
    """No entry but a whole one, ever, and nothing is left when one build has come to its end."""
    whole = build_rootfs(None, tmp_path / "whole.ext4", layers=[layer]).path.read_bytes()
    cache = tmp_path / "cache"
    command = product.command("build", "--layer", layer, "--cache-dir", cache, "-q")
    since = time.monotonic()
    assert product.run(command).returncode == 0
    length = time.monotonic() - since
    chance = random.Random(17)
    killed = built = 0
    for _ in range(KILLS):
        for name in entries(cache):
            if name.endswith(".ext4"):
                os.unlink(cache / name)
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(chance.uniform(0.1, 1.0) * length)
        process.kill()
        killed += process.wait() == -signal.SIGKILL
        for name in entries(cache):
            if name.endswith(".ext4"):
                built += 1
                assert (cache / name).read_bytes() == whole
    assert killed >= 3, f"too few were killed in time: {killed}, and {built} entries were whole"
    result = build_rootfs(None, layers=[layer], cache_dir=cache)
    assert result.path.read_bytes() == whole
    # A lock's file of a killed builder may be there: who comes next takes it over.
    left = [name for name in entries(cache) if not name.endswith(".lock")]
    assert left == [result.path.name]


def test_builders_that_are_killed_do_not_harm_the_others(layer: Path, tmp_path: Path) -> None:
    whole = build_rootfs(None, tmp_path / "whole.ext4", layers=[layer]).path.read_bytes()
    cache = tmp_path / "cache"
    command = product.command("build", "--layer", layer, "--cache-dir", cache, "-q")
    chance = random.Random(23)
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(6)]
    time.sleep(0.4)
    for process in processes[:3]:
        time.sleep(chance.uniform(0, 0.2))
        process.kill()
    for process in processes[:3]:
        process.communicate()
    for process in processes[3:]:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        assert Path(os.fsdecode(out.strip())).read_bytes() == whole


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 MiB."""
    if os.geteuid() != 0:
        pytest.skip("needs root: a mount")
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16M", "small", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


@pytest.mark.root
def test_a_full_disk_leaves_nothing(layer: Path, small_disk: Path) -> None:
    with pytest.raises(errors.DiskFullError, match="free some space"):
        build_rootfs(None, layers=[layer], cache_dir=small_disk)
    assert entries(small_disk) == []
    tiny = layer / "../tiny"
    tiny.mkdir()
    result = build_rootfs(None, layers=[tiny], cache_dir=small_disk, size=MIB)
    assert check_image(result.path).sound


@pytest.mark.root
def test_a_cache_that_cannot_be_written(layer: Path, small_disk: Path) -> None:
    cache = small_disk / "cache"
    cache.mkdir()
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(errors.OutputError, match="Read-only file system"):
        build_rootfs(None, layers=[layer], cache_dir=cache)
    with pytest.raises(errors.OutputError, match="Read-only file system"):
        build_rootfs(None, layers=[layer], cache_dir=small_disk / "new")


@pytest.mark.root
def test_hits_in_a_cache_that_is_only_read(layer: Path, small_disk: Path) -> None:
    """Images may be made on another machine and shared."""
    tiny = layer / "../tiny"
    tiny.mkdir()
    made = build_rootfs(None, layers=[tiny], cache_dir=small_disk, size=MIB)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    assert build_rootfs(None, layers=[tiny], cache_dir=small_disk, size=MIB).path == made.path


@pytest.mark.root
def test_another_users_cache(tmp_path: Path, layer: Path) -> None:
    """It is closed to others, and says so."""
    cache = tmp_path / "cache"
    build_rootfs(None, layers=[layer], cache_dir=cache)
    for directory in (tmp_path, *tmp_path.parents):
        if directory.owner() == "root" and directory.is_relative_to("/tmp") and directory != Path("/tmp"):
            directory.chmod(0o755)
    # A build as root first: what is imported later could be in a place that only root may read.
    program = (
        "import os, sys; from layermelt import build_rootfs, errors; layer, own, others = sys.argv[1:]\n"
        "build_rootfs(None, layers=[layer], cache_dir=own)\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "try: build_rootfs(None, layers=[layer], cache_dir=others)\n"
        "except errors.OutputPermissionError as error: print(error.path, error)"
    )
    done = product.run([sys.executable, "-c", program, str(layer), str(tmp_path / "own"), str(cache)])
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{cache}/rootfs-"), done.stdout
    assert "ermission denied" in done.stdout
