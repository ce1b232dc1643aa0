"""`layermelt diff` as a command at the edges: readers that go, writers that do not, mounts, terminals."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import layermelt
from integration.oracle import kernel, mounts
from layermelt.differ import diff_trees
from layermelt.errors import LayerChangedError

COMMAND = [sys.executable, "-m", "layermelt", "diff"]
#: The largest file of ext4 with blocks of 4 KiB.
LARGEST = (1 << 44) - (1 << 12)


def diff(*arguments: str | Path) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*COMMAND, *(os.fspath(one) for one in arguments)], capture_output=True, check=False
    )


def two(tmp_path: Path) -> tuple[Path, Path]:
    """Two empty directories of the same time."""
    sides = tmp_path / "a", tmp_path / "b"
    for side in sides:
        side.mkdir()
    return sides


def settle(*trees: Path) -> None:
    """All times are the same."""
    for tree in trees:
        for path in [*tree.rglob("*"), tree]:
            os.utime(path, (1, 1), follow_symlinks=False)


def test_nothing_of_a_name_reaches_the_terminal(tmp_path: Path) -> None:
    a, b = two(tmp_path)
    odd = [
        chr(code)
        for code in [*range(1, 0x20), *range(0x7F, 0xA0), 0xAD, 0x200E, 0x202E, 0x2028, 0xFEFF, 0xE0001]
    ]
    for char in odd:
        (a / f"in{char}[31m").touch()
    # Control characters of 8 bits, alone no UTF-8.
    for byte in range(0x80, 0xA0):
        (a / os.fsdecode(b"byte" + bytes([byte]))).touch()
    (a / "link").symlink_to("to\x1b]0;title\x07")
    (b / "link").symlink_to("to\x9b31m")
    os.setxattr(b / "link", "trusted.\x1b[2J", b"\x1b[2J", follow_symlinks=False)
    done = diff(a, b, "--ignore", "mtime")
    assert done.returncode == 1
    text = done.stdout.decode()
    assert [char for char in text if not char.isprintable() and char != "\n"] == []
    assert text.count("\n") == len(odd) + 0x20 + 1
    assert '"to\\x1b]0;title\\x07" -> "to\\xc2\\x9b31m"' in text
    # The sides' own names are told on stderr.
    named = a.rename(tmp_path / "a\x1b[31m")
    for arguments in ((named, b), (named, tmp_path / "no\x9bne")):
        assert not set(diff(*arguments).stderr) & {0x1B, 0x9B}


@pytest.mark.parametrize("option", ["--quiet", "--json"])
def test_a_reader_that_goes(option: str, tmp_path: Path) -> None:
    a, b = two(tmp_path)
    for number in range(1500):
        (a / f"{number:0200}").touch()
    process = subprocess.Popen([*COMMAND, option, a, b], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == 128 + 13


def test_what_changes_meanwhile(tmp_path: Path) -> None:
    """A result or the error that says it, and in the end that error."""
    a, b = two(tmp_path)
    for number in range(300):
        (a / f"d{number % 9}").mkdir(exist_ok=True)
        (a / f"d{number % 9}/f{number}").write_bytes(b"x" * number)
    shutil.copytree(a, b, dirs_exist_ok=True)
    done = threading.Event()

    def write() -> None:
        for number in itertools.count():
            if done.is_set():
                return
            (a / f"new{number}").mkdir()
            (a / "d3/f3").write_text("y" * (number % 7))
            (a / "d4").rename(a / "dd4")
            (a / "dd4").rename(a / "d4")
            shutil.rmtree(a / f"new{number}")

    writer = threading.Thread(target=write)
    writer.start()
    noticed: list[LayerChangedError] = []
    until = time.monotonic() + 20
    try:
        while len(noticed) < 3 and time.monotonic() < until:
            try:
                diff_trees(a, b, limit=0)
            except LayerChangedError as error:
                noticed.append(error)
    finally:
        done.set()
        writer.join()
    assert len(noticed) == 3
    assert all(str(a) in str(error) for error in noticed)


def test_files_as_large_as_can_be(tmp_path: Path) -> None:
    """Of 16 TiB only what is written is read, in a directory, a chain and an image."""
    a, b = two(tmp_path)
    for side, at in ((a, LARGEST - 1), (b, LARGEST - 1), (b, 1 << 40)):
        with (side / "file").open("r+b" if (side / "file").exists() else "wb") as file:
            file.truncate(LARGEST)
            file.seek(at)
            file.write(b"x")
    settle(a, b)
    images = []
    for side in (a, b):
        output = tmp_path / f"{side.name}.ext4"
        images.append(layermelt.build_rootfs(None, output, layers=[side], sync=False).path)
    since = time.monotonic()
    for left, right in itertools.product((a, images[0]), (a, images[0])):
        assert diff_trees(left, right).equal
    for left, right in itertools.product((a, images[0]), (b, images[1])):
        [found] = diff_trees(left, right).differences
        assert [(change.field, change.a) for change in found.changes] == [("content", 1 << 40)]
    assert time.monotonic() - since < 5


def test_long_paths_of_many_links(tmp_path: Path) -> None:
    """Paths have no limit; what was told of is not kept."""
    sides = two(tmp_path)
    here = Path.cwd()
    try:
        for side in sides:
            os.chdir(side)
            for _ in range(1000):
                os.mkdir("d" * 250)
                os.chdir("d" * 250)
            for number in range(500):
                Path(f"{number}-a").touch()
                if side is sides[0]:
                    os.link(f"{number}-a", f"{number}-b")
                else:
                    Path(f"{number}-b").touch()
    finally:
        os.chdir(here)
    program = """
import re, sys
from layermelt.differ import diff_trees
result = diff_trees(*sys.argv[1:], ignore=["mtime"], on_difference=lambda one: None)
with open("/proc/self/status") as status:
    print(result.changed, re.search(r"VmHWM:\\s+([0-9]+) kB", status.read())[1])
"""
    try:
        done = subprocess.run(
            [sys.executable, "-c", program, *sides], capture_output=True, text=True, check=True
        )
    finally:
        # Python's own way of removing trees goes no deeper than its stack.
        subprocess.run(["rm", "-r", *sides], check=True)
    changed, peak = map(int, done.stdout.split())
    assert changed == 1000
    # All paths together have 250 MB.
    assert peak < 100 << 10


@pytest.mark.root
def test_what_may_not_be_read(tmp_path: Path) -> None:
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        pytest.skip("setpriv (util-linux) is not installed")
    a, b = two(tmp_path)
    for side in (a, b):
        (side / "secret").write_text(side.name)
        (side / "secret").chmod(0)
    settle(a, b)
    # Root without what lets root read all.
    limited = [setpriv, "--bounding-set", "-dac_override,-dac_read_search,-fowner", *COMMAND]
    done = subprocess.run([*limited, a, b], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (4, "")
    assert f"{a}/secret: Permission denied" in done.stderr


@pytest.mark.root
def test_a_mount_inside_is_refused(tmp_path: Path) -> None:
    """What lies under it would be left out without a word."""
    a, b = two(tmp_path)
    with mounts.tmpfs(a, size="1M") as mounted:
        done = diff(a, b)
        assert done.returncode == 5
        assert f"{mounted}: something is mounted here".encode() in done.stderr
        # The root of a mount is a directory like others.
        assert diff(mounted, b, "--ignore", "mtime", "--quiet").returncode == 0


@pytest.mark.root
def test_an_image_beside_its_mount(tmp_path: Path) -> None:
    """Nothing is left out there: lost+found is in both."""
    tree = tmp_path / "tree"
    (tree / "dir").mkdir(parents=True)
    (tree / "dir/file").write_text("content")
    image = layermelt.build_rootfs(None, tmp_path / "image.ext4", layers=[tree], sync=False).path
    with mounts.image(image) as mounted, kernel.loop_device(image) as device:
        for side in (image, device):
            done = diff(side, mounted, "--strict")
            # Nobody can write to it.
            assert (done.returncode, b"warning" in done.stderr) == (0, False)
    done = diff(image, tree)
    assert (done.returncode, b"warning" in done.stderr) == (0, False)
    done = diff(image, tree, "--strict")
    assert (done.returncode, done.stdout) == (1, b"- /lost+found  directory\n")


@pytest.mark.root
def test_an_image_that_is_written_to_is_told(tmp_path: Path) -> None:
    """The kernel has newer blocks than the image."""
    tree = tmp_path / "tree"
    tree.mkdir()
    image = layermelt.build_rootfs(None, tmp_path / "image.ext4", layers=[tree], sync=False).path
    os.chmod(image, 0o644)
    target = tmp_path / "target"
    target.mkdir()
    with kernel.loop_device(image, writable=True) as device:
        kernel.mount(device, target, "ext4", 0, "")
        try:
            for side in (image, Path(device)):
                warnings = diff_trees(side, tree, limit=0).warnings
                assert warnings == (
                    f"{side}: is in use as {device}: what was not written to it yet is not seen",
                )
        finally:
            kernel.unmount(target)
        # The device alone is not yet somebody who writes.
        assert diff_trees(device, tree, limit=0).warnings == ()
    assert diff_trees(image, tree, limit=0).warnings == ()
