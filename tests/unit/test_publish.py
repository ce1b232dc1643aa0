"""An image appears at its path whole, or not at all."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from layermelt.errors import (
    DiskFullError,
    OutputError,
    OutputIsADirectoryError,
    OutputNotFoundError,
)
from layermelt.publish import Publication


def publish(target: Path, content: bytes = b"image", *, sync: bool = True) -> None:
    with Publication(target) as publication:
        Path(publication.temporary).write_bytes(content)
        publication.commit(sync=sync)


def names(directory: Path) -> list[str]:
    return sorted(os.listdir(directory))


@pytest.mark.parametrize("sync", [True, False])
def test_publishes(target: Path, sync: bool) -> None:
    publish(target, b"one", sync=sync)
    assert target.read_bytes() == b"one"
    publish(target, b"two", sync=sync)
    assert target.read_bytes() == b"two"
    assert names(target.parent) == [target.name]


def test_the_temporary_file_is_beside_the_target_and_private(target: Path) -> None:
    with Publication(target) as publication:
        temporary = Path(publication.temporary)
        assert temporary.parent == target.parent
        assert temporary.name.startswith(".rootfs.ext4.")
        assert temporary.name.endswith(".tmp")
        assert stat.S_IMODE(temporary.stat().st_mode) == 0o600
        assert not target.exists()
    assert names(target.parent) == []


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0, 0o644), (0o002, 0o644)])
def test_the_mode_is_the_users(target: Path, umask: int, mode: int) -> None:
    old = os.umask(umask)
    try:
        publish(target)
    finally:
        os.umask(old)
    assert stat.S_IMODE(target.stat().st_mode) == mode


@pytest.mark.parametrize("raised", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_failure_keeps_the_old_image(target: Path, raised: type[BaseException]) -> None:
    publish(target, b"old")
    with pytest.raises(raised), Publication(target) as publication:
        Path(publication.temporary).write_bytes(b"half")
        raise raised
    assert target.read_bytes() == b"old"
    assert names(target.parent) == [target.name]


def test_an_interrupt_as_soon_as_the_file_is_there(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def interrupted(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        fd = real(path, flags, mode, dir_fd=dir_fd)
        if flags & os.O_EXCL:
            os.close(fd)
            raise KeyboardInterrupt
        return fd

    monkeypatch.setattr(os, "open", interrupted)
    with pytest.raises(KeyboardInterrupt):
        publish(target)
    assert names(target.parent) == []


def test_an_abandoned_publication_leaves_nothing(target: Path) -> None:
    publication = Publication(target)
    publication.__enter__()
    assert len(names(target.parent)) == 1
    pid = os.fork()
    if pid == 0:
        # A child that drops what it inherited must not take it from its parent.
        del publication
        os._exit(0)
    os.waitpid(pid, 0)
    assert len(names(target.parent)) == 1
    del publication
    assert names(target.parent) == []


def test_everything_is_on_the_disk_before_and_after_the_renaming(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    fsync, rename = os.fsync, os.rename

    def noted_fsync(fd: int) -> None:
        calls.append("directory" if stat.S_ISDIR(os.fstat(fd).st_mode) else "file")
        fsync(fd)

    def noted_rename(old: str, new: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        calls.append("rename")
        rename(old, new, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "rename", noted_rename)
    publish(target)
    assert calls == ["file", "rename", "directory"]
    calls.clear()
    publish(target, sync=False)
    assert calls == ["rename"]


def test_a_full_disk_at_the_end(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(target, b"old")

    def full(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskFullError, match="No space left") as caught:
        publish(target, b"new")
    assert caught.value.path == os.fspath(target)
    assert target.read_bytes() == b"old"
    assert names(target.parent) == [target.name]


def leftover(target: Path, number: int) -> Path:
    path = target.with_name(f".{target.name}.{number:016x}.tmp")
    path.write_bytes(b"leftover")
    return path


def test_leftovers_are_swept(target: Path) -> None:
    for number in range(3):
        leftover(target, number)
    publish(target)
    assert names(target.parent) == [target.name]


def test_only_leftovers_of_this_target_are_swept(target: Path) -> None:
    others = [
        target.with_name(name)
        for name in (
            ".other.ext4.0000000000000000.tmp",
            ".rootfs.ext4.tmp",
            ".rootfs.ext4.000000000000000.tmp",
            ".rootfs.ext4.000000000000000g.tmp",
            ".rootfs.ext4.0000000000000000.tmp.bak",
            "rootfs.ext4.0000000000000000.tmp",
            ".rootfs.ext4.x.0000000000000000.tmp",
        )
    ]
    for other in others:
        other.touch()
    fifo = target.with_name(".rootfs.ext4.00000000000000ff.tmp")
    os.mkfifo(fifo)
    link = target.with_name(".rootfs.ext4.00000000000000fe.tmp")
    link.symlink_to(others[0])
    directory = target.with_name(".rootfs.ext4.00000000000000fd.tmp")
    directory.mkdir()
    publish(target)
    expected = [target, fifo, link, directory, *others]
    assert names(target.parent) == sorted(path.name for path in expected)


def test_a_running_builds_file_is_not_swept(target: Path) -> None:
    with Publication(target) as first:
        Path(first.temporary).write_bytes(b"first")
        publish(target, b"second")
        assert Path(first.temporary).exists()
        first.commit(sync=False)
    assert target.read_bytes() == b"first"
    assert names(target.parent) == [target.name]


def test_a_sweeper_cannot_take_a_file_that_was_just_made(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = fcntl.flock
    stolen: list[str] = []

    def flock(fd: int, operation: int) -> None:
        # Somebody sweeps between the making of the first file and its lock.
        if not stolen:
            stolen.extend(name for name in names(target.parent) if name.endswith(".tmp"))
            for name in stolen:
                (target.parent / name).unlink()
        real(fd, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    with Publication(target) as publication:
        assert len(stolen) == 1
        assert names(target.parent) == [os.path.basename(publication.temporary)]
        assert names(target.parent) != stolen


def test_file_systems_without_locks(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(_fd: int, _operation: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", flock)
    # Whether it is a leftover cannot be known.
    kept = leftover(target, 1)
    publish(target)
    assert names(target.parent) == sorted([target.name, kept.name])


@pytest.mark.parametrize("name", ["n" * 255, "\udcff\udcfe image", "a b\nc", "-rf", "ü" * 127])
def test_names(target: Path, name: str) -> None:
    path = target.with_name(name)
    publish(path)
    leftovers = Path(os.fspath(path))
    assert leftovers.read_bytes() == b"image"
    assert names(target.parent) == [name]


def test_leftovers_of_long_names_are_told_apart(target: Path) -> None:
    one, two = target.with_name("n" * 250 + "1"), target.with_name("n" * 250 + "2")
    with Publication(one) as publication:
        left = Path(publication.temporary).name
    kept = target.with_name(left)
    kept.touch()
    publish(two)
    assert kept.exists()
    publish(one)
    assert not kept.exists()


def test_relative_paths(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(target.parent)
    with Publication("x.ext4") as publication:
        # Where one goes meanwhile does not matter.
        monkeypatch.chdir("/")
        publication.commit(sync=False)
    assert names(target.parent) == ["x.ext4"]


def test_a_working_directory_that_was_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    for path in ("x.ext4", "deeper/x.ext4"):
        with pytest.raises(OutputNotFoundError, match=f"{path}: the working directory"):
            Publication(path)
    publish(tmp_path / "x.ext4")


def test_a_directory_in_the_place_of_the_temporary_file(target: Path, tmp_path: Path) -> None:
    """Another program was to write it, and did this."""
    (tmp_path / "kept").write_text("kept")
    with Publication(target) as publication:
        os.unlink(publication.temporary)
        os.makedirs(f"{publication.temporary}/deeper")
        os.symlink(tmp_path / "kept", f"{publication.temporary}/link")
    assert names(target.parent) == []
    assert (tmp_path / "kept").read_text() == "kept"


def test_a_symlink_stays(target: Path) -> None:
    target.write_bytes(b"old")
    link = target.with_name("current")
    link.symlink_to(target.name)
    publish(link, b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"
    dangling = target.with_name("dangling")
    dangling.symlink_to("later")
    publish(dangling)
    assert dangling.is_symlink()
    assert target.with_name("later").exists()


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.fspath(path))


@pytest.mark.parametrize(
    ("make", "cls"),
    [
        (Path.mkdir, OutputIsADirectoryError),
        (os.mkfifo, OutputError),
        (make_socket, OutputError),
        (lambda path: path.symlink_to("/dev/null"), OutputError),
        (lambda path: path.symlink_to("."), OutputIsADirectoryError),
        (lambda path: path.symlink_to(path.name), OutputError),
        (lambda path: path.symlink_to("nowhere/x"), OutputNotFoundError),
    ],
)
def test_targets_that_are_none(
    tmp_path: Path, make: Callable[[Path], None], cls: type[OutputError], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # names of sockets are short
    path = Path("t")
    make(path)
    before = names(tmp_path)
    with pytest.raises(cls) as caught:
        Publication(path)
    assert type(caught.value) is cls
    assert names(tmp_path) == before


def test_descriptors_are_no_targets(tmp_path: Path) -> None:
    """As /dev/stdout is: the kernel tells a path for what has none."""
    reader, writer = os.pipe()
    (tmp_path / "gone").touch()
    removed = os.open(tmp_path / "gone", os.O_RDWR)
    (tmp_path / "gone").unlink()
    try:
        for fd, what in ((writer, "device, FIFO or socket"), (removed, "file that was removed")):
            with pytest.raises(OutputError, match=f"^/dev/fd/{fd}: is a {what}"):
                Publication(f"/dev/fd/{fd}")
    finally:
        for fd in (reader, writer, removed):
            os.close(fd)
    assert names(tmp_path) == []


@pytest.mark.parametrize("output", ["", "/", ".", "..", "x/", "x/.", "a\0b"])
def test_paths_that_are_none(output: str) -> None:
    with pytest.raises(OutputError):
        Publication(output)


def test_a_missing_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path, directory in (("none/x", "none"), ("none/deeper/x", "none/deeper"), ("file/x", "file")):
        with pytest.raises(OutputNotFoundError) as caught:
            Publication(tmp_path / path)
        assert caught.value.path == os.fspath(tmp_path / directory)


def test_no_descriptor_is_left_open(target: Path) -> None:
    before = os.listdir("/proc/self/fd")
    for _ in range(5):
        publish(target)
        with pytest.raises(RuntimeError), Publication(target):
            raise RuntimeError
    assert len(os.listdir("/proc/self/fd")) == len(before)


PROGRAM = """
import sys, time
from layermelt.publish import Publication
with Publication(sys.argv[1]) as publication:
    open(publication.temporary, "wb").write(b"half")
    print("ready", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_killed(target: Path, number: signal.Signals) -> None:
    publish(target, b"old")
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, os.fspath(target)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        assert len(names(target.parent)) == 2
        process.send_signal(number)
        process.wait(timeout=30)
    assert target.read_bytes() == b"old"
    left = [name for name in names(target.parent) if name.endswith(".tmp")]
    assert len(left) == (1 if number == signal.SIGKILL else 0)
    publish(target, b"new")
    assert names(target.parent) == [target.name]


def test_many_at_once(target: Path) -> None:
    program = "import sys; sys.path.insert(0, sys.argv[2])\n" + PROGRAM.replace(
        "time.sleep(60)", "publication.commit(sync=False)"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", program, os.fspath(target), "."], stdout=subprocess.DEVNULL)
        for _ in range(6)
    ]
    deadline = time.monotonic() + 60
    assert [process.wait(deadline - time.monotonic()) for process in processes] == [0] * 6
    assert target.read_bytes() == b"half"
    assert names(target.parent) == [target.name]
