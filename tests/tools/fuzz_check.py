#!/usr/bin/env python3
"""Changes random bytes of images and compares ``check --deep`` with e2fsck.

    python tests/tools/fuzz_check.py MINUTES [SEED]

Every image that ``e2fsck -fn`` calls bad by its exit code has to be found, and none
that it calls good may be. What differs by intent is in `EXEMPT`.
"""

from __future__ import annotations

import os
import random
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from integration.corrupt_kinds import make_image
from layermelt import Problem, check_image

#: Problems that e2fsck only mentions, or leaves to the kernel, which refuses or repairs them: by
#: code, what is told of them, and what e2fsck says, if it says anything.
EXEMPT: tuple[tuple[str, str, str], ...] = (
    # The kernel recorded errors, or did not unmount: -f checks anyway.
    ("errors", "the kernel met errors", ""),
    ("not-clean", "", ""),
    ("journal", "was given up with error", ""),
    # The kernel deals with them at the next mount, and does not mount with two journals.
    ("superblock", "begins a list of deleted or cut files", ""),
    ("journal", "on another device beside inode", ""),
    # The kernel clears it.
    ("journal", "has something to be replayed", "journal has data"),
    # The kernel refuses it ("Invalid start block of journal").
    ("journal", "log begins", ""),
    # It reads the copy of a journal's block map that the superblock has; the kernel does not.
    ("journal", r"its file has \d+ bytes and", ""),
    # "IGNORED" in a run that mends nothing; the kernel refuses the file system.
    ("group-checksum", "the descriptor's checksum", "descriptor checksums are invalid"),
    # Noted, and told only at an entry of a directory: those of these inodes have none. The kernel
    # refuses to read such an inode.
    ("xattr-block", r"^inode ([13-9]|10): its block of attributes, \d+, is not in", ""),
    # It takes this for a fault of its own.
    ("block-shared", "^inode 1: block ", "claimed for no reason in process_bad_block"),
    # Told, and let be.
    ("inode-time", "", "likely pre-1970"),
    # Set right in passing.
    ("superblock", r"s_(min|want)_extra_isize is", ""),
    ("free-blocks", "the superblock tells", ""),
    ("free-inodes", "the superblock tells", ""),
    # Devices, FIFOs, sockets and symlinks that nobody could remove.
    ("inode-flags", "with the flags 0x", "immutable|append"),
    # It compares a quarter of the blocks.
    ("resize-inode", "does not name", ""),
    # The depth of a tree without entries: the kernel refuses it.
    ("extent-header", "its extent tree has no valid header", ""),
    # The size of a value's inode.
    ("xattr-value", r"has \d+ bytes in inode", ""),
    # A longer name of the attribute, for e2fsck up to its first zero.
    ("inline-data", "but no attribute for it", ""),
    # What it took from a backup instead.
    ("bad-magic", "", "trying backup blocks"),
    ("geometry", "", "trying backup blocks"),
    ("group-position", "", "trying backup blocks"),
    # The kernel does not use such a file.
    ("quota-file", "its magic number is|list of .* begins at block 1 ", ""),
)


#: What follows where a node of an extent tree tells another depth than it has: the kernel does not
#: read it, as we do not, and e2fsck goes on.
UNREAD = ("inode-blocks", "block-bitmap", "free-blocks", "quota-usage")


def is_exempt(problem: Problem, said: str) -> bool:
    """Whether a problem is one that e2fsck, which said that, does not count."""
    return any(
        problem.code == code and re.search(told, problem.text) and re.search(expected, said)
        for code, told, expected in EXEMPT
    )


@dataclass
class Outcome:
    """What came of it."""

    runs: int = 0
    bad: int = 0
    missed: list[str] = field(default_factory=list)
    alarms: list[str] = field(default_factory=list)
    slowest: float = 0.0


def fuzz(image: Path, rounds: Iterable[object], seed: int, outcome: Outcome) -> None:
    """Changes some bytes at a time, once in a round; the image is as it was at the end."""
    random_ = random.Random(seed)
    good = image.read_bytes()
    used = [at for at in range(0, len(good), 64) if any(good[at : at + 64])]
    with image.open("r+b", buffering=0) as file:
        for _ in rounds:
            edits: dict[int, int] = {}
            for _change in range(random_.choice((1, 1, 1, 2, 5))):
                edits.update(_edit(random_, good, used))
            for at, value in edits.items():
                os.pwrite(file.fileno(), bytes([value]), at)
            _compare(image, f"seed {seed}, {image.name}, {edits}", outcome)
            for at in edits:
                os.pwrite(file.fileno(), good[at : at + 1], at)


def for_seconds(seconds: float) -> Iterator[None]:
    """Rounds for so long."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield None


def _edit(random_: random.Random, good: bytes, used: list[int]) -> dict[int, int]:
    """New values of some bytes: one that is anything, or a number that is another's."""
    at = random_.choice(used) + random_.randrange(64)
    if random_.randrange(4):
        return {at: random_.choice((good[at] ^ 1 << random_.randrange(8), random_.randrange(256), 0, 255))}
    size = random_.choice((2, 4))
    at, other = (place // size * size for place in (at, random_.choice(used) + random_.randrange(64)))
    return {at + byte: good[other + byte] for byte in range(size)}


def _compare(image: Path, what: str, outcome: Outcome) -> None:
    checked = subprocess.run(["e2fsck", "-fn", image], capture_output=True, check=False)
    begin = time.monotonic()
    report = check_image(image, deep=True)
    outcome.slowest = max(outcome.slowest, time.monotonic() - begin)
    outcome.runs += 1
    outcome.bad += checked.returncode != 0
    if checked.returncode != 0 and report.sound:
        outcome.missed.append(f"{what}: {checked.stdout.decode(errors='replace')}")
    said = checked.stdout.decode(errors="replace")
    unread = any(problem.code == "extent-header" for problem in report.problems)
    alarms = [
        problem
        for problem in report.problems
        if not is_exempt(problem, said) and not (unread and problem.code in UNREAD)
    ]
    if checked.returncode == 0 and alarms:
        outcome.alarms.append(f"{what}: {alarms}")


#: What images are made of, besides the one of `make_image`. Most have no checksums, so that it is
#: the damage itself that is found.
LAYOUTS = {
    "plain": "-t ext4 -O ^metadata_csum,ea_inode -b 1024",
    "ext2": "-t ext2 -b 1024",
    "ext3": "-t ext3 -b 1024 -I 128",
    "inline": "-t ext4 -O ^metadata_csum,inline_data -b 1024",
    "bigalloc": "-t ext4 -O ^metadata_csum,bigalloc -b 1024 -C 4096",
    "quota": "-t ext4 -O ^metadata_csum,quota,project -E quotatype=usrquota:grpquota:prjquota -b 1024",
    "orphans": "-t ext4 -O ^metadata_csum,orphan_file,mmp,casefold,encrypt -b 1024",
    "wide": "-t ext4 -O ^metadata_csum,64bit,large_dir,verity,stable_inodes,fast_commit -b 2048",
    "old": "-t ext2 -O none -b 1024 -I 128",
    "meta": "-t ext4 -O ^metadata_csum,uninit_bg,meta_bg,^resize_inode,^flex_bg,sparse_super2 -b 1024 -g 1024",
}


def images(folder: Path) -> list[Path]:
    """One of each layout."""
    made = [make_image(folder)]
    for name, options in LAYOUTS.items():
        path = folder / f"{name}.img"
        command = ["mke2fs", "-q", "-F", *options.split(), "-d", str(folder / "tree"), str(path), "16M"]
        subprocess.run(command, check=True, capture_output=True)
        subprocess.run(["e2fsck", "-fyD", path], check=False, capture_output=True)
        assert subprocess.run(["e2fsck", "-fn", path], check=False, capture_output=True).returncode == 0
        made.append(path)
    return made


def main() -> int:
    """Fuzzes for some minutes and tells what came of it."""
    minutes = float(sys.argv[1])
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else int(time.time())
    folder = Path(tempfile.mkdtemp())
    outcome = Outcome()
    try:
        made = images(folder)
        end = time.monotonic() + minutes * 60
        while time.monotonic() < end:
            for image in made:
                seconds = min(5.0, max(1.0, end - time.monotonic()))
                fuzz(image, for_seconds(seconds), seed, outcome)
                seed += 1
    finally:
        shutil.rmtree(folder)
    for line in [*outcome.missed, *outcome.alarms]:
        print(line)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(
        f"{outcome.runs} images, {outcome.bad} bad by e2fsck: {len(outcome.missed)} missed, {len(outcome.alarms)} false "
        f"alarms; the slowest took {outcome.slowest:.2f} s; at most {memory} MiB"
    )
    return 1 if outcome.missed or outcome.alarms else 0


if __name__ == "__main__":
    sys.exit(main())
