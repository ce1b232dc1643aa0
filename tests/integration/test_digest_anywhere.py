"""A layer's digest is the layer's: no file system, order of names or number of threads is in it."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from integration.oracle import mounts
from layermelt import digests

pytestmark = pytest.mark.root

EPOCH = 1_700_000_000_123_456_789
SPARSE = 3 << 20


def fill(tree: Path, order: int, *, holes: bool) -> None:
    """The same layer, its entries made in another order for each `order`."""
    shuffle = random.Random(order).shuffle
    names = [f"dir-{number % 7}/file-{number:03}" for number in range(300)]
    shuffle(names)
    for name in names:
        path = tree / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(random.Random(name).randbytes(int(name[-3:]) * 41))
        path.chmod(0o600 | int(name[-3:]) % 8)
        os.chown(path, int(name[-3:]), 5)
    with (tree / "sparse").open("wb") as file:
        if not holes:
            file.write(bytes(SPARSE + 9))
            file.seek(0)
        file.write(b"begin")
        file.seek(SPARSE)
        file.write(b"the end!!")
    (tree / "big").write_bytes(random.Random(1).randbytes(5_000_000))
    pairs = [("big", "one"), ("big", "another")]
    shuffle(pairs)
    for existing, link in pairs:
        os.link(tree / existing, tree / link)
    (tree / "symlink").symlink_to("dir-1/file-001")
    os.mknod(tree / "gone", 0o020000, os.makedev(0, 0))
    os.mkfifo(tree / "fifo")
    attributes = [
        ("trusted.overlay.opaque", b"y"),
        ("user.note", b"text"),
        ("security.capability", b"\1\0\0\2" + bytes(16)),
    ]
    shuffle(attributes)
    for name, value in attributes:
        os.setxattr(tree / "dir-3" if "capability" not in name else tree / "big", name, value)
    for place, directories, files in os.walk(tree, topdown=False):
        for name in [*files, *directories, "."]:
            os.utime(os.path.join(place, name), ns=(EPOCH, EPOCH), follow_symlinks=False)


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> str:
    tree = tmp_path_factory.mktemp("expected") / "layer"
    tree.mkdir()
    fill(tree, 0, holes=True)
    return digests.layer_digest(tree, threads=1)


@pytest.mark.parametrize("fs", ["ext4", "xfs", "btrfs", "tmpfs"])
def test_on_every_file_system(fs: str, expected: str, stores: Callable[[str], Path], tmp_path: Path) -> None:
    def compare(folder: Path) -> None:
        for order in (1, 2):
            tree = folder / f"layer-{order}"
            tree.mkdir()
            fill(tree, order, holes=order == 1)
            found = {digests.layer_digest(tree, threads=threads) for threads in (1, 2, 3, 8)}
            assert found == {expected}

    if fs == "tmpfs":
        with mounts.tmpfs(tmp_path, size="64m") as folder:
            # tmpfs holds user.* attributes since Linux 6.6 only.
            try:
                os.setxattr(folder, "user.probe", b"")
            except OSError:
                pytest.skip("this kernel's tmpfs has no user.* attributes")
            os.removexattr(folder, "user.probe")
            compare(folder)
    else:
        compare(stores(fs))


@pytest.mark.parametrize(
    "change",
    [
        lambda tree: (tree / "dir-1/file-001").chmod(0o777),
        lambda tree: os.chown(tree / "dir-1/file-001", 1, 6),
        lambda tree: os.utime(tree / "fifo", ns=(0, EPOCH + 1)),
        lambda tree: os.setxattr(tree / "dir-3", "user.note", b"other"),
        lambda tree: os.removexattr(tree / "dir-3", "trusted.overlay.opaque"),
        lambda tree: (tree / "another").unlink(),
        lambda tree: (tree / "fifo").rename(tree / "pipe"),
        lambda tree: os.truncate(tree / "sparse", SPARSE + 10),
    ],
)
def test_all_is_in_it(change: Callable[[Path], object], expected: str, tmp_path: Path) -> None:
    tree = tmp_path / "layer"
    tree.mkdir()
    fill(tree, 3, holes=True)
    before = {path: os.lstat(path).st_mtime_ns for path in (tree, *tree.rglob("*"))}
    change(tree)
    for path, mtime in before.items():
        # A change's own time is not what is to be noticed.
        if os.path.lexists(path) and path.name != "fifo":
            os.utime(path, ns=(mtime, mtime), follow_symlinks=False)
    assert digests.layer_digest(tree) != expected


def test_holes_are_not_read(tmp_path: Path) -> None:
    """64 GiB of nothing take no time."""
    path = tmp_path / "huge"
    with path.open("wb") as file:
        file.truncate(64 << 30)
        file.seek(40 << 30)
        file.write(b"x")
    before = int(Path("/proc/self/io").read_text().split()[1])
    digests.file_digest(path)
    assert int(Path("/proc/self/io").read_text().split()[1]) - before < 16 << 20


def test_progress_and_a_stop(tmp_path: Path) -> None:
    path = tmp_path / "long"
    with path.open("wb") as file:
        for _ in range(16):
            file.write(os.urandom(1 << 20) * 32)
    seen: list[tuple[str, int, int]] = []
    digests.file_digest(path, threads=1, progress=lambda *report: seen.append(report))
    assert {phase for phase, _, _ in seen} <= {"hash", "scan"}
    done = [count for phase, count, _ in seen if phase == "hash"]
    assert done == sorted(done)
    assert max(done) > 0
    assert {total for phase, _, total in seen if phase == "hash"} == {512 << 20}

    class EnoughError(Exception):
        pass

    def refuse(phase: str, count: int, total: int) -> None:
        raise EnoughError

    layer = tmp_path / "layer"
    layer.mkdir()
    path.rename(layer / "long")
    work: list[Callable[[], str]] = [
        lambda: digests.file_digest(layer / "long", progress=refuse),
        lambda: digests.layer_digest(layer, progress=refuse),
        lambda: digests.chain_digest(None, layers=[layer], progress=refuse),
    ]
    for one in work:
        threads = threading.active_count()
        with pytest.raises(EnoughError):
            one()
        assert threading.active_count() == threads


def test_reflink_is_told_and_never_follows_a_copy(stores: Callable[[str], Path]) -> None:
    """How a clone was made, on the file systems that can share blocks and on one that cannot."""
    from layermelt.cloning import clone_image

    methods = {}
    for fs in ("ext4", "xfs", "btrfs"):
        folder = stores(fs)
        (folder / "source").write_bytes(os.urandom(3 << 20))
        os.truncate(folder / "source", 9 << 20)
        report = clone_image(folder / "source", folder / "clone")
        methods[fs] = report.method
        assert (folder / "clone").read_bytes() == (folder / "source").read_bytes()
        assert (report.reasons == ()) == (report.method == "reflink"), report
        if report.method != "reflink":
            assert report.bytes_copied + report.holes == 9 << 20
            assert report.holes >= 5 << 20
        # What is written to one is not in the other.
        with (folder / "clone").open("r+b") as file:
            file.write(b"changed")
        assert (folder / "source").read_bytes()[:7] != b"changed"
    assert methods == {"ext4": "copy_file_range", "xfs": "reflink", "btrfs": "reflink"}
