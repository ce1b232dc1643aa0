"""``layermelt grow`` on disks that are full or fail, and killed: the image is the old one or the new one.

LAYERMELT_KILLS says how often it is killed at random moments (default 20).
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import layermelt
from integration.conftest import Stores
from integration.oracle import judge, kernel
from integration.oracle.judge import superblock
from integration.test_grow import K, M, make, numbers, snapshots
from layermelt import errors

KILLS = int(os.environ.get("LAYERMELT_KILLS", "20"))
#: Tells how it ended; `begins` comes before the work and not before Python's start.
PROGRAM = """
import sys, layermelt
from layermelt import growing
print("begins", flush=True)
try:
    layermelt.grow_image(sys.argv[1], int(sys.argv[2]))
    print("done")
except layermelt.errors.OutputError as error:
    print(type(error).__name__, error)
"""
CONTENT = random.Random(2).randbytes(300_000)
NEW_SIZE = 300 * M


def with_a_file(path: Path, tools: judge.E2fsprogs, options: str = "-b 1024") -> Path:
    """An image with `CONTENT` in it."""
    make(path, 20 * M, options)
    content = path.with_name("content")
    content.write_bytes(CONTENT)
    tools.run("debugfs", "-w", "-R", f"write {content} file", str(path))
    content.unlink()
    return path


def outcome(image: Path, tools: judge.E2fsprogs) -> int:
    """Blocks of the file system, once e2fsck has replayed the journal; nothing else may be to do."""
    pending = "needs_recovery" in superblock(image)["Filesystem features"].split()
    repaired = tools.run("e2fsck", "-p", str(image))
    assert repaired.returncode == 0 or (pending and repaired.returncode == 1), repaired.stdout
    assert judge.complaints(image, tools) == []
    assert tools.run("debugfs", "-R", "cat file", str(image)).stdout == CONTENT
    return numbers(image)["Block count"]


def injected(image: Path, fault: str) -> tuple[str, bool]:
    """What growing under strace says, and whether the fault was met."""
    log = image.with_suffix(".strace")
    call = fault.partition(":")[0]
    strace: list[str | Path] = [
        "strace",
        "-f",
        "-qq",
        "-o",
        log,
        "-P",
        os.path.realpath(image),
        "-e",
        f"trace={call}",
    ]
    done = subprocess.run(
        [*strace, "-e", f"inject={fault}", sys.executable, "-c", PROGRAM, image, str(NEW_SIZE)],
        capture_output=True,
        text=True,
        check=False,
    )
    met = "(INJECTED)" in log.read_text() or done.returncode == -signal.SIGKILL
    assert done.returncode == 0 or met, done
    return done.stdout.removeprefix("begins\n"), met


@pytest.fixture(scope="module")
def _strace() -> None:
    lacking = shutil.which("strace") is None
    if lacking or subprocess.run(["strace", "-qq", "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("no strace (Debian: strace), or it may not trace here")


@pytest.mark.usefixtures("_strace")
@pytest.mark.parametrize("fault", ["pwrite64:error=EIO", "fsync:error=EIO", "pwrite64:signal=KILL"])
def test_each_call_fails_once(fault: str, tmp_path: Path, tools: judge.E2fsprogs) -> None:
    """An error leaves the old image, or says that the journal holds the new one."""
    # Few reserved blocks, each of which would be two writes.
    before = with_a_file(tmp_path / "before", tools, "-b 1024 -E resize=400000")
    old = numbers(before)["Block count"]
    ends: Counter[str] = Counter()
    image = tmp_path / "image"
    # Of some 50 writes.
    step = 1 if fault.startswith("fsync") else 4
    for number in range(1, 400, step):
        shutil.copyfile(before, image)
        said, met = injected(image, f"{fault}:when={number}")
        pending = "needs_recovery" in superblock(image)["Filesystem features"].split()
        size, blocks = image.stat().st_size, outcome(image, tools)
        assert blocks in (old, NEW_SIZE // K), number
        if "signal" in fault:
            end = "old" if blocks == old else "new"
        elif "journal" in said:
            assert blocks == NEW_SIZE // K, said
            end = "new"
        elif met:
            # Undone, and not only by e2fsck.
            assert (pending, size, blocks) == (False, 20 * M, old), said
            assert "Input/output error" in said
            end = "old"
        else:
            assert (said, blocks) == ("done\n", NEW_SIZE // K)
            break
        ends[end] += 1
        if not met:
            break
    assert ends["old"] >= 2, ends
    assert ends["new"] >= 2, ends


@pytest.mark.usefixtures("_strace")
def test_a_disk_that_stays_broken(tmp_path: Path, tools: judge.E2fsprogs) -> None:
    """What was begun cannot be undone either; e2fsck can."""
    before = with_a_file(tmp_path / "before", tools)
    image = tmp_path / "image"
    said = ""
    for number in range(1, 9):
        shutil.copyfile(before, image)
        said, _ = injected(image, f"fsync:error=EIO:when={number}+")
        if "could not be undone" in said:
            break
    assert "e2fsck -f" in said
    outcome(image, tools)


def test_killed_at_random_moments(tmp_path: Path, tools: judge.E2fsprogs) -> None:
    chance = random.Random(5)
    before = with_a_file(tmp_path / "before", tools)
    old = numbers(before)["Block count"]
    image = tmp_path / "image"
    ends: Counter[str] = Counter()
    whole = 0.0
    for number in range(KILLS + 1):
        shutil.copyfile(before, image)
        command: list[str | Path] = [sys.executable, "-c", PROGRAM, image, str(NEW_SIZE)]
        caller = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        with caller:
            assert caller.stdout is not None
            assert caller.stdout.readline() == "begins\n"
            begin = time.monotonic()
            if number > 0:
                time.sleep(chance.random() * whole * 0.6)
                caller.kill()
            done = caller.stdout.read()
            caller.wait(30)
        if number == 0:
            # How long it takes here, to the end.
            assert done == "done\n"
            whole = time.monotonic() - begin
        pending = "needs_recovery" in superblock(image)["Filesystem features"].split()
        blocks = outcome(image, tools)
        assert blocks in ((NEW_SIZE // K,) if done else (old, NEW_SIZE // K)), number
        ends[
            "done" if done else f"{'old' if blocks == old else 'new'}{', to be replayed' if pending else ''}"
        ] += 1
    assert ends["done"] < KILLS, ends
    print(f"{KILLS} kills within {whole * 1000:.0f} ms: {dict(ends)}")


@contextmanager
def filled(folder: Path, room: int = 0) -> Iterator[None]:
    """About `room` blocks of 4 KiB are free in there."""
    filler = folder / "filler"
    try:
        with filler.open("wb") as file:
            for size in (64 * M, M, 4 * K):
                with contextlib.suppress(OSError):
                    while True:
                        os.posix_fallocate(file.fileno(), os.fstat(file.fileno()).st_size, size)
            file.truncate(os.fstat(file.fileno()).st_size - room * 4 * K)
        yield
    finally:
        filler.unlink()


def refused_for_room(image: Path) -> None:
    """It says that there is no room, and nothing was changed."""
    before = image.read_bytes()
    with pytest.raises(errors.DiskFullError, match="No space left on device") as caught:
        layermelt.grow_image(image, NEW_SIZE)
    assert "free some space" in str(caught.value)
    assert "journal" not in str(caught.value)
    assert len(before) == image.stat().st_size
    # But for the journal's free blocks.
    assert superblock(image)["Filesystem features"].find("needs_recovery") < 0


@pytest.mark.root
def test_a_read_only_file_system(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    kernel.mount("tmpfs", folder, "tmpfs", data="size=12m")
    try:
        make(folder / "image", 8 * M, "-b 4096")
        kernel.mount("tmpfs", folder, "tmpfs", flags=32 | 1)  # MS_REMOUNT | MS_RDONLY
        with pytest.raises(errors.OutputPermissionError, match="Read-only"):
            layermelt.grow_image(folder / "image", "+1M")
    finally:
        kernel.unmount(folder)


def acl(*entries: tuple[int, int, int]) -> bytes:
    """A POSIX ACL in the kernel's form: tag, permissions, id."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


NOBODY = 0xFFFFFFFF
#: The group may not write, though the mode says so, which has the mask there.
MASKED = acl((1, 6, NOBODY), (2, 6, 1234), (4, 4, NOBODY), (16, 6, NOBODY), (32, 0, NOBODY))


def test_a_copy_keeps_who_may_write_to_it(tmp_path: Path) -> None:
    image = make(tmp_path / "image", 20 * M, "-b 4096 -O ^has_journal")
    name = "system.posix_acl_access"
    try:
        os.setxattr(image, name, MASKED)
    except OSError:
        pytest.skip("no POSIX ACLs here")
    os.setxattr(image, "user.origin", b"somewhere")
    mode = image.stat().st_mode
    assert layermelt.grow_image(image, "+9M").method == "copy"
    assert (image.stat().st_mode, os.getxattr(image, name)) == (mode, MASKED)
    assert os.getxattr(image, "user.origin") == b"somewhere"
    # Nor does it get one that the directory has for new files.
    os.removexattr(image, name)
    os.setxattr(tmp_path, "system.posix_acl_default", MASKED)
    assert layermelt.grow_image(image, "+9M").method == "copy"
    assert os.listxattr(image) == ["user.origin"]


@pytest.mark.root
def test_a_copy_that_cannot_be_given_to_the_owner(tmp_path: Path) -> None:
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        pytest.skip("setpriv (util-linux) is not installed")
    image = make(tmp_path / "image", 20 * M, "-b 4096 -O ^has_journal")
    os.chown(image, 5, 6)
    before = image.read_bytes()
    command = [
        setpriv,
        "--bounding-set",
        "-chown",
        sys.executable,
        "-m",
        "layermelt",
        "grow",
        str(image),
        "+9M",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == errors.OutputPermissionError.return_code, done.stderr
    assert "cannot be given to its owner, 5:6" in done.stderr
    assert image.read_bytes() == before
    assert os.listdir(tmp_path) == ["image"]


@pytest.mark.root
def test_a_full_disk(tmp_path: Path, tools: judge.E2fsprogs) -> None:
    """A sparse image: its journal and its new metadata have no place."""
    folder = tmp_path / "small"
    folder.mkdir()
    kernel.mount("tmpfs", folder, "tmpfs", data="size=12m")
    try:
        image = with_a_file(folder / "image", tools)
        old = numbers(image)["Block count"]
        with filled(folder):
            refused_for_room(image)
            assert outcome(image, tools) == old
        assert layermelt.grow_image(image, NEW_SIZE).changed
        assert outcome(image, tools) == NEW_SIZE // K
    finally:
        kernel.unmount(folder)


@pytest.mark.root
@pytest.mark.parametrize("fs", ["xfs", "btrfs"])
def test_a_clone_on_a_disk_with_little_room(fs: str, stores: Stores, tools: judge.E2fsprogs) -> None:
    """Each block that is written needs a new one, though all of them have a place."""
    folder = stores(fs)
    original = with_a_file(folder / "original", tools, "-b 4096 -E resize=20000")
    # No holes.
    original.write_bytes(original.read_bytes())
    old = numbers(original)["Block count"]
    image = folder / "image"
    ends: Counter[str] = Counter()
    for room in range(0, 40, 2) if fs == "xfs" else (0, 64, 256, 1024, 4096, 16384):
        image.unlink(missing_ok=True)
        subprocess.run(["cp", "--reflink=always", original, image], check=True)
        os.sync()
        with filled(folder, room):
            said = ""
            try:
                layermelt.grow_image(image, "+400K")
            except errors.DiskFullError as error:
                said = str(error)
            half = "journal" in said
            assert half == ("needs_recovery" in superblock(image)["Filesystem features"].split()), said
            ends["half" if half else "refused" if said else "done"] += 1
        assert outcome(image, tools) == (old if said and not half else old + 100)
    assert outcome(original, tools) == old
    # The room is taken before anything counts; btrfs gives none in advance.
    assert ends["half"] == 0 or fs == "btrfs", ends
    assert ends["done"] > 0, ends
    assert ends["refused"] > 0 or fs == "btrfs", ends
    print(ends)


def test_what_was_not_decided_is_not_taken_for_the_kernel_s(tmp_path: Path, tools: judge.E2fsprogs) -> None:
    """A transaction is left in the log; then the kernel's next one is cut off where ours ended."""
    image = with_a_file(tmp_path / "image", tools, "-b 1024 -O ^metadata_csum,^64bit")
    state = next(state for name, state in snapshots(image, NEW_SIZE, tmp_path) if name == "2:0")
    first = int(tools.run("debugfs", "-R", "bmap <8> 1", str(state)).stdout)
    zero = int(tools.run("debugfs", "-R", "bmap <8> 0", str(state)).stdout)
    with state.open("r+b") as file:
        file.seek(zero * K + 0x18)
        sequence = file.read(4)
        file.seek(first * K)
        header = struct.unpack(">III", file.read(12))
        assert header[:2] == (0xC03B3998, 1)
        # The kernel's: the same blocks, of which none got there, and no commit.
        file.seek(first * K + 8)
        file.write(sequence)
        for number in range(1, 4):
            file.seek((first + number) * K)
            file.write(b"?" * K)
        file.seek(zero * K + 0x1C)
        file.write(struct.pack(">I", 1))
    tools.run("debugfs", "-w", "-R", "feature needs_recovery", str(state))
    assert outcome(state, tools) == 20 * M // K
