"""check_image(deep=True) on images of guests that were killed while they wrote."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from integration.conftest import Stores
from integration.corrupt import Image
from integration.oracle import judge, mounts
from layermelt import check_image

pytestmark = pytest.mark.root

KINDS = {
    "default": "-t ext4",
    "small": "-t ext4 -b 1024 -O orphan_file,inline_data",
    "clusters": "-t ext4 -O bigalloc,ea_inode -C 16384",
    "ext3": "-t ext3 -b 1024",
}

#: Run in the guest's place: never the same twice, and at no moment at rest.
BUSY = """
import os, random, sys
os.chdir(sys.argv[1])
numbers, held = random.Random(), []
while True:
    name, other = (f"{numbers.randrange(8)}/{numbers.randrange(60):0120d}" for _ in range(2))
    os.makedirs(os.path.dirname(name), exist_ok=True)
    os.makedirs(os.path.dirname(other), exist_ok=True)
    try:
        what = numbers.randrange(10)
        if what < 4:
            with open(name, "wb") as file:
                file.write(b"x" * numbers.choice((10, 100, 5000, 200_000)))
                if what == 0:
                    os.fsync(file.fileno())
        elif what == 4:
            os.rename(name, other)
        elif what == 5:
            os.link(name, other)
        elif what == 6:
            # Deleted, and still open: an orphan.
            held.append(open(name, "rb"))
            os.unlink(name)
            del held[:-20]
        elif what == 7:
            os.truncate(name, numbers.randrange(100_000))
        elif what == 8:
            os.setxattr(name, "user.name", os.urandom(numbers.choice((20, 600))))
        else:
            os.symlink("t" * numbers.choice((20, 80)), name + "s")
            os.unlink(name + "s")
    except (FileNotFoundError, FileExistsError, OSError):
        pass
"""

#: What e2fsck says when there is nothing but a journal and its orphans to deal with.
USUAL = re.compile(
    r"recovering journal|Clearing orphaned inode|Truncating orphaned inode|^Pass [1-5]"
    # An orphan file that it emptied itself, and attributes of orphans that it forgot.
    r"|^Feature orphan_present is set but orphan file is clean"
    r"|^Orphan file .* is not clean|^Clear\? yes|^Block bitmap differences:( +-(\d+|\(\d+--\d+\)))+$"
    r"|Free (blocks|inodes) count wrong( for group #\d+)? \(|^Fix\? yes|FILE SYSTEM WAS MODIFIED|files \(|^\s*$"
)


def moments(image: Path, folder: Path) -> list[Path]:
    """Copies of the image while it is written to, each of one instant."""
    copies = []
    with mounts.writable(image, "commit=1") as mount:
        busy = subprocess.Popen([sys.executable, "-c", BUSY, str(mount)])
        try:
            for number in range(2):
                time.sleep(0.6)
                copies.append(folder / f"moment-{number}")
                # A clone is made at once: a copy that is read block by block is of no instant.
                subprocess.run(["cp", "--reflink=always", image, copies[-1]], check=True)
        finally:
            busy.kill()
            busy.wait()
    return copies


def harmless(path: Path) -> bool:
    """Whether there is nothing but what the next mount deals with."""
    return {problem.code for problem in check_image(path, deep=True).problems} <= {"needs-recovery"}


@pytest.mark.parametrize("kind", KINDS)
def test_any_moment_is_judged_as_by_e2fsck(
    kind: str, stores: Stores, tmp_path: Path, releases: list[judge.E2fsprogs]
) -> None:
    folder = stores("xfs")
    image = folder / "image"
    options = KINDS[kind] if "-b " in KINDS[kind] else f"-b 4096 {KINDS[kind]}"
    command = ["mke2fs", "-q", "-F", *options.split(), str(image), "96M"]
    subprocess.run(command, check=True, capture_output=True)
    crashed = 0
    at = Image(image).block_of("/lost+found", 1)
    for copy in moments(image, folder):
        report = check_image(copy, deep=True)
        crashed += "needs_recovery" in report.features
        assert harmless(copy), report.problems
        mended = tmp_path / "mended"
        for tools in releases:
            shutil.copyfile(copy, mended)
            said = tools.run("e2fsck", "-fy", str(mended)).stdout.decode()
            assert [line for line in said.splitlines() if not USUAL.search(line)] == []
            assert check_image(mended, deep=True).problems == ()
        # The same, with a directory's block that the journal does not mend.
        lost = Image(copy)
        lost.data[at + 4] ^= 0x55
        lost.save()
        shutil.copyfile(copy, mended)
        said = releases[0].run("e2fsck", "-fy", str(mended)).stdout.decode()
        assert [line for line in said.splitlines() if not USUAL.search(line)]
        assert not harmless(copy)
    assert crashed == 2
