"""Builds that are killed, stopped, or whose layers change under them."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from integration.conftest import Judge
from integration.oracle import mounts, product
from integration.oracle.dump import content_of_file, dump
from integration.oracle.layer import Chain

pytestmark = pytest.mark.root

OLD = b"the image that was there before\n"
MIB = 1 << 20
#: Copied first, long enough for the others to be changed meanwhile.
FIRST_MIB = 400


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs, so that these tests wait for no disk."""
    with mounts.tmpfs(tmp_path, size="4g") as mounted:
        yield mounted


@pytest.fixture
def layers(memory: Path) -> list[Path]:
    """`a` is large and copied first; `z` is copied last."""
    chain = Chain(memory / "chain", "tmpfs")
    base, top = chain.two()
    block = random.Random(1).randbytes(MIB)
    base.file("a", block * FIRST_MIB)
    top.file("z", b"z" * 200_000)
    return chain.finish()


def start(layers: list[Path], target: Path, *more: str) -> subprocess.Popen[str]:
    command = product.build_command(layers, target, *more)
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Whoever started the tests in the background has had SIGINT ignored.
        preexec_fn=_default_interrupt,
    )


def _default_interrupt() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def wait_until_copying(directory: Path, building: subprocess.Popen[str]) -> bool:
    """Waits until a temporary file has data; False if the build ended first."""
    while building.poll() is None:
        for name in os.listdir(directory):
            with suppress(FileNotFoundError):
                if name.endswith(".tmp") and (directory / name).stat().st_blocks * 512 > 2 * MIB:
                    return True
        time.sleep(0.0005)
    return False


def shrink(z: Path) -> None:
    os.truncate(z, 70_000)


def vanish_in_place(z: Path) -> None:
    os.truncate(z, 0)


def grow(z: Path) -> None:
    with z.open("ab") as file:
        file.write(b"more" * 50_000)


def replace(z: Path) -> None:
    other = z.with_name("other")
    other.write_bytes(b"y" * 200_000)
    other.rename(z)


def overwrite(z: Path) -> None:
    z.write_bytes(b"y" * 200_000)


def remove(z: Path) -> None:
    z.unlink()


def become_a_fifo(z: Path) -> None:
    z.unlink()
    os.mkfifo(z)


def become_a_symlink(z: Path) -> None:
    z.unlink()
    z.symlink_to("/etc/passwd")


def shrink_with_the_old_time(z: Path) -> None:
    """Nothing but its size tells."""
    status = z.stat()
    os.truncate(z, 70_000)
    os.utime(z, ns=(status.st_atime_ns, status.st_mtime_ns))


def replace_with_the_old_time(z: Path) -> None:
    """Nothing but its inode tells."""
    status = z.stat()
    other = z.with_name("other")
    other.write_bytes(b"y" * 200_000)
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.rename(z)


CHANGES = [
    shrink_with_the_old_time,
    replace_with_the_old_time,
    shrink,
    vanish_in_place,
    grow,
    replace,
    overwrite,
    remove,
    become_a_fifo,
    become_a_symlink,
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("threads", ["1", "2"])
def test_layer_changes_before_the_copy(
    change: Callable[[Path], None], threads: str, layers: list[Path], memory: Path
) -> None:
    """`z` changes while `a` is copied: an error naming it, or the old state."""
    out = memory / "out"
    out.mkdir()
    target = out / "image.ext4"
    target.write_bytes(OLD)
    before = content_of_file(layers[1] / "z")
    building = start(layers, target, "--threads", threads, "--no-sync")
    in_time = wait_until_copying(out, building)
    change(layers[1] / "z")
    output, message = building.communicate(timeout=60)
    if building.returncode == 0:
        # One thread copies in order: it cannot have had `z` by then.
        assert not (in_time and threads == "1"), f"{change.__name__} went unnoticed"
        with mounts.image(target) as mounted:
            assert dump(mounted).entries[b"z"].content == before
        return
    assert building.returncode > 0
    assert output == ""
    assert str(layers[1] / "z") in message
    assert "Traceback" not in message
    assert "panicked" not in message
    assert target.read_bytes() == OLD
    assert os.listdir(out) == ["image.ext4"]


@pytest.mark.parametrize("change", [shrink, grow], ids=lambda change: change.__name__)
def test_file_changes_during_its_own_copy(
    change: Callable[[Path], None], layers: list[Path], memory: Path
) -> None:
    """The file that is being read loses its end, or gets another one."""
    out = memory / "out"
    out.mkdir()
    target = out / "image.ext4"
    before = content_of_file(layers[0] / "a")
    building = start(layers, target, "--threads", "1", "--no-sync")
    wait_until_copying(out, building)
    change(layers[0] / "a")
    _, message = building.communicate(timeout=60)
    if building.returncode == 0:
        with mounts.image(target) as mounted:
            assert dump(mounted).entries[b"a"].content == before
        return
    assert str(layers[0] / "a") in message
    assert os.listdir(out) == []


def test_killed_at_any_moment(layers: list[Path], memory: Path, judge_image: Judge) -> None:
    """kill -9: the target is the old image; the next build sweeps and works."""
    out = memory / "out"
    out.mkdir()
    target = out / "image.ext4"
    target.write_bytes(OLD)
    started = time.monotonic()
    product.run(product.build_command(layers, memory / "timed.ext4", "--no-sync"))
    whole = time.monotonic() - started
    os.unlink(memory / "timed.ext4")
    numbers = random.Random(3)
    left_something = 0
    for attempt in range(8):
        building = start(layers, target, "--no-sync")
        if attempt % 2:
            wait_until_copying(out, building)
            time.sleep(numbers.uniform(0, whole / 8))
        else:
            time.sleep(numbers.uniform(0, whole))
        building.kill()
        building.communicate()
        left_something += len(os.listdir(out)) > 1
        if target.stat().st_size == len(OLD):
            assert target.read_bytes() == OLD
        else:
            judge_image(target)
            target.write_bytes(OLD)
    assert left_something > 0, "no kill came while there was a temporary file"
    done = product.run(product.build_command(layers, target, "--no-sync"))
    assert done.returncode == 0, done.stderr
    assert os.listdir(out) == ["image.ext4"], "leftovers were not swept"
    judge_image(target)


@pytest.mark.parametrize("which", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("old", [None, OLD], ids=["new-target", "old-target"])
def test_stopped_by_a_signal(
    which: signal.Signals, old: bytes | None, layers: list[Path], memory: Path
) -> None:
    out = memory / "out"
    out.mkdir()
    target = out / "image.ext4"
    if old is not None:
        target.write_bytes(old)
    building = start(layers, target, "--threads", "1", "--no-sync")
    assert wait_until_copying(out, building), "the build was over before it could be stopped"
    stopped_at = time.monotonic()
    building.send_signal(which)
    output, message = building.communicate(timeout=60)
    assert time.monotonic() - stopped_at < 5
    assert building.returncode in (128 + which, -which), message
    assert output == ""
    assert "Traceback" not in message
    assert "panicked" not in message
    assert os.listdir(out) == ([] if old is None else ["image.ext4"])
    if old is not None:
        assert target.read_bytes() == old


def test_two_builds_of_one_target_at_once(layers: list[Path], memory: Path, judge_image: Judge) -> None:
    """Neither sweeps away what the other is still writing."""
    out = memory / "out"
    out.mkdir()
    target = out / "image.ext4"
    results: list[int] = []

    def build() -> None:
        done = product.run(product.build_command(layers, target, "--no-sync"))
        results.append(done.returncode)

    both = [threading.Thread(target=build) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert results == [0, 0]
    assert os.listdir(out) == ["image.ext4"]
    judge_image(target)
