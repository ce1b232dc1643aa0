#!/usr/bin/env python3
"""Changes random bytes of images and compares ``check --deep`` with e2fsck.

    python tests/tools/fuzz_check.py MINUTES [SEED]

Every image that ``e2fsck -fn`` calls bad by its exit code has to be found, and none
that it calls good may be. What differs by intent is in `EXEMPT`.
"""

from __future__ import annotations

import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from integration.corrupt_kinds import make_image
from layermelt import check_image

#: Codes that e2fsck only mentions or leaves to the kernel, which refuses or repairs them.
EXEMPT = frozenset(
    {
        "errors",  # the kernel recorded errors: e2fsck -fn ignores that
        "not-clean",  # -f checks anyway
        "superblock",  # e2fsck sets sizes of new inodes' fields right and exits with 0
        "free-blocks",  # the superblock's sum: set right in passing
        "free-inodes",
        "inode-flags",  # immutable devices are only mentioned
        "resize-inode",  # e2fsck compares a quarter of the blocks
        "extent-header",  # the depth of a tree without entries: the kernel refuses it
        "xattr-value",  # the size of a value's inode
    }
)


@dataclass
class Outcome:
    """What came of it."""

    runs: int = 0
    bad: int = 0
    missed: list[str] = field(default_factory=list)
    alarms: list[str] = field(default_factory=list)
    slowest: float = 0.0


def fuzz(image: Path, seconds: float, seed: int, outcome: Outcome) -> None:
    """Changes some bytes at a time, for so long; the image is as it was at the end."""
    random_ = random.Random(seed)
    good = image.read_bytes()
    used = [at for at in range(0, len(good), 64) if any(good[at : at + 64])]
    end = time.monotonic() + seconds
    with image.open("r+b", buffering=0) as file:
        while time.monotonic() < end:
            edits = {}
            for _ in range(random_.choice((1, 1, 1, 2, 5))):
                at = random_.choice(used) + random_.randrange(64)
                edits[at] = random_.choice(
                    (good[at] ^ 1 << random_.randrange(8), random_.randrange(256), 0, 255)
                )
            for at, value in edits.items():
                os.pwrite(file.fileno(), bytes([value]), at)
            _compare(image, f"seed {seed}, {image.name}, {edits}", outcome)
            for at in edits:
                os.pwrite(file.fileno(), good[at : at + 1], at)


def _compare(image: Path, what: str, outcome: Outcome) -> None:
    checked = subprocess.run(["e2fsck", "-fn", image], capture_output=True, check=False)
    begin = time.monotonic()
    report = check_image(image, deep=True)
    outcome.slowest = max(outcome.slowest, time.monotonic() - begin)
    outcome.runs += 1
    outcome.bad += checked.returncode != 0
    if checked.returncode != 0 and report.sound:
        outcome.missed.append(f"{what}: {checked.stdout.decode(errors='replace')}")
    if checked.returncode == 0 and not {problem.code for problem in report.problems} <= EXEMPT:
        outcome.alarms.append(f"{what}: {report.problems}")


def images(folder: Path) -> list[Path]:
    """One with checksums, one without, and one of ext2."""
    full = make_image(folder)
    made = [full]
    for name, options in (("plain", "-t ext4 -O ^metadata_csum,ea_inode"), ("ext2", "-t ext2")):
        path = folder / f"{name}.img"
        command = [
            "mke2fs",
            "-q",
            "-F",
            "-b",
            "1024",
            *options.split(),
            "-d",
            str(folder / "tree"),
            str(path),
        ]
        subprocess.run([*command, "16M"], check=True, capture_output=True)
        subprocess.run(["e2fsck", "-fyD", path], check=False, capture_output=True)
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
                fuzz(image, min(20.0, max(1.0, end - time.monotonic())), seed, outcome)
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
