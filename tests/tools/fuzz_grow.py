#!/usr/bin/env python3
"""Grows damaged images of every make and lets e2fsck judge what became of them.

    python tests/tools/fuzz_grow.py MINUTES [SEED]

Whatever an image says, ``grow`` refuses it and leaves every byte as it was, or grows it; and
one that ``e2fsck -fn`` found clean before is clean afterwards, with the same files in it. A fault
is told with the seed that makes it again.
"""

from __future__ import annotations

import faulthandler
import hashlib
import os
import random
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import layermelt
from integration.corrupt import crc32c
from integration.test_grow import MAKES
from layermelt.errors import LayermeltError

K, M, G = 1 << 10, 1 << 20, 1 << 30
#: Makes that the tests have no need of.
MORE_MAKES = {
    "old-inodes": "-b 4096 -I 128",
    "old-inodes-1k": "-b 1024 -I 128 -O ^metadata_csum",
    "ext2": "-b 1024 -O none,sparse_super,filetype,resize_inode",
    "64-byte-descriptors-1k": "-b 1024 -O 64bit,metadata_csum -E resize=500000",
    "reserved-for-root": "-b 2048 -m 30",
    "flex-1": "-b 1024 -G 1",
    "flex-64": "-b 1024 -G 64",
    "64k": "-b 65536",
    "large-inodes": "-b 4096 -I 1024",
    "external-journal": "-b 4096 -O ^has_journal",
    "stride": "-b 4096 -E stride=8,stripe-width=16",
    "packed": "-b 1024 -E packed_meta_blocks=1",
}
#: Fields of the superblock that growing looks at: byte and size.
SUPERBLOCK = (
    *((at, 4) for at in range(0x00, 0x30, 4)),
    *((at, 2) for at in (0x38, 0x3A, 0x58, 0x5A, 0xCE, 0xFE)),
    *((at, 4) for at in (0x4C, 0x54, 0x5C, 0x60, 0x64, 0xE0, 0xE4, 0xE8, 0x104, 0x10C, 0x150, 0x154, 0x158)),
    *((at, 4) for at in (0x194, 0x240, 0x244, 0x248, 0x24C, 0x250, 0x26C, 0x270, 0x280)),
    *((at, 1) for at in (0x174, 0x175, 0xFC, 0xFD)),
)


@dataclass
class Outcome:
    """What came of it."""

    runs: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    slowest: float = 0.0


@contextmanager
def folder() -> Iterator[Path]:
    """A directory in memory where there is one."""
    memory = Path("/dev/shm")
    made = Path(tempfile.mkdtemp(dir=memory if os.access(memory, os.W_OK) else None))
    try:
        yield made
    finally:
        shutil.rmtree(made)


class Damage:
    """Puts nonsense into an image, and makes the checksums over it right again, mostly."""

    def __init__(self, image: Path, dice: random.Random) -> None:
        self.dice = dice
        self.file = image.open("r+b", buffering=0)
        self.sb = self.read(1024, 1024)
        self.told: list[str] = []
        self.block_size = 1024 << (self.number(0x18) & 7)
        self.sums = bool(self.number(0x64) & 0x400)
        self.wide = bool(self.number(0x60) & 0x80)
        self.desc_size = struct.unpack_from("<H", self.sb, 0xFE)[0] if self.wide else 32
        seeded = self.number(0x60) & 0x2000
        self.seed = self.number(0x270) if seeded else crc32c(0xFFFFFFFF, self.sb[0x68:0x78])
        self.first_desc = self.block_size * (2 if self.block_size == 1024 else 1)

    def number(self, at: int) -> int:
        """Four bytes of the superblock."""
        return int(struct.unpack_from("<I", self.sb, at)[0])

    def read(self, at: int, size: int) -> bytearray:
        """Some bytes of the image."""
        return bytearray(os.pread(self.file.fileno(), size, at))

    def write(self, at: int, data: bytes | bytearray) -> None:
        """Puts them back."""
        os.pwrite(self.file.fileno(), data, at)

    def spoil(self, raw: bytearray, at: int, size: int, what: str) -> None:
        """Another value for a field of ``size`` bytes."""
        old = int.from_bytes(raw[at : at + size], "little")
        limit = (1 << 8 * size) - 1
        new = self.dice.choice(
            (
                *(old ^ 1 << self.dice.randrange(8 * size), old + 1, old - 1, 0, limit),
                *(self.dice.randrange(limit), self.dice.randrange(4096) & limit, old * 2, old // 2),
            )
        )
        raw[at : at + size] = (new & limit).to_bytes(size, "little")
        self.told.append(f"{what}+{at:#x}: {old:#x} -> {new & limit:#x}")

    def superblock(self) -> None:
        """Some field of the superblock."""
        at, size = self.dice.choice(SUPERBLOCK)
        if self.dice.random() < 0.1:
            at, size = self.dice.randrange(0, 0x3FC, 4), 4
        self.spoil(self.sb, at, size, "superblock")
        if self.sums:
            self.sb[0x3FC:] = crc32c(0xFFFFFFFF, self.sb[:0x3FC]).to_bytes(4, "little")
        self.write(1024, self.sb)

    def descriptor(self) -> None:
        """Some field of a descriptor."""
        group = self.dice.randrange(3)
        at = self.first_desc + group * self.desc_size
        raw = self.read(at, self.desc_size)
        self.spoil(raw, self.dice.randrange(0, self.desc_size, 2), 2, f"group {group}")
        if self.sums:
            raw[0x1E:0x20] = b"\0\0"
            sum_ = crc32c(crc32c(self.seed, group.to_bytes(4, "little")), raw) & 0xFFFF
            raw[0x1E:0x20] = sum_.to_bytes(2, "little")
        self.write(at, raw)

    def inode(self) -> int:
        """Some field of the resize inode's or the journal's; where its first block is."""
        number = self.dice.choice((7, 8))
        size = max(128, struct.unpack_from("<H", self.sb, 0x58)[0])
        table = struct.unpack_from("<I", self.read(self.first_desc + 8, 4))[0]
        at = table * self.block_size + (number - 1) * size
        raw = self.read(at, size)
        if len(raw) < size:
            return 0
        where = self.dice.choice((*range(0, 0x80, 4), *range(0x28, 0x64, 4)))
        self.spoil(raw, where, 4, f"inode {number}")
        if self.sums:
            self.seal(number, raw)
        self.write(at, raw)
        return int(struct.unpack_from("<I", raw, 0x28 + (52 if number == 7 else 20))[0]) * self.block_size

    def seal(self, number: int, raw: bytearray) -> None:
        """The checksum of an inode."""
        high = len(raw) > 128 and raw[0x80] >= 4
        raw[0x7C:0x7E] = b"\0\0"
        if high:
            raw[0x82:0x84] = b"\0\0"
        sum_ = crc32c(crc32c(crc32c(self.seed, number.to_bytes(4, "little")), raw[0x64:0x68]), raw)
        raw[0x7C:0x7E] = (sum_ & 0xFFFF).to_bytes(2, "little")
        if high:
            raw[0x82:0x84] = (sum_ >> 16).to_bytes(2, "little")

    def block(self) -> None:
        """A number in the block of descriptors' addresses, or in the journal's superblock."""
        at = self.inode() if self.dice.random() < 0.3 else self.places()
        raw = self.read(at, 1024)
        if len(raw) == 1024:
            self.spoil(
                raw, self.dice.choice((self.dice.randrange(64), self.dice.randrange(256))) * 4, 4, f"{at}"
            )
            self.write(at, raw)

    def places(self) -> int:
        """Byte of the first block of inode 7 or 8."""
        number = self.dice.choice((7, 8))
        size = max(128, struct.unpack_from("<H", self.sb, 0x58)[0])
        table = struct.unpack_from("<I", self.read(self.first_desc + 8, 4))[0]
        raw = self.read(table * self.block_size + (number - 1) * size, 128)
        if len(raw) < 128:
            return 0
        return int(struct.unpack_from("<I", raw, 0x28 + (52 if number == 7 else 20))[0]) * self.block_size

    def byte(self) -> None:
        """Any byte of the first blocks."""
        at = self.dice.randrange(64 * self.block_size)
        raw = self.read(at, 1)
        if raw:
            self.spoil(raw, 0, 1, f"byte {at}")
            self.write(at, raw)


def parts(image: Path) -> tuple[int, str]:
    """A file's length, and a digest of what is not zero in it."""
    digest, at = hashlib.sha256(), 0
    with image.open("rb", buffering=0) as file:
        while (at := seek_data(file.fileno(), at)) >= 0:
            block = os.pread(file.fileno(), 65536, at)
            if block.strip(b"\0"):
                digest.update(at.to_bytes(8, "little") + block)
            at += len(block)
        return os.fstat(file.fileno()).st_size, digest.hexdigest()


def seek_data(fd: int, at: int) -> int:
    """Where the next data is, by 64 KiB; negative when there is none."""
    try:
        return os.lseek(fd, at, os.SEEK_DATA) // 65536 * 65536
    except OSError:
        return -1


def contents(image: Path) -> dict[str, str]:
    """The digests of the files in an image, as debugfs reads them."""
    with folder() as target:
        subprocess.run(
            ["debugfs", "-R", f"rdump / {target}", image], capture_output=True, check=False, timeout=60
        )
        return {
            os.fspath(path.relative_to(target)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(target.rglob("*"))
            if path.is_file()
        }


def fsck(image: Path, how: str) -> tuple[int, str]:
    """What e2fsck says."""
    done = subprocess.run(["e2fsck", how, image], capture_output=True, check=False, timeout=120)
    return done.returncode, done.stdout.decode(errors="replace")[-600:]


def once(tree: Path, scratch: Path, seed: int, outcome: Outcome) -> None:
    """One image, damaged and grown once or a few times."""
    dice = random.Random(seed)
    makes = {**MAKES, **MORE_MAKES}
    name = dice.choice(sorted(makes))
    image, before = scratch / "image", scratch / "before"
    image.unlink(missing_ok=True)
    size = dice.randrange(9 * M, 40 * M, 4 * K)
    command: list[str | Path] = [
        "mke2fs",
        "-q",
        "-F",
        "-t",
        "ext4",
        *makes[name].split(),
        "-d",
        tree,
        image,
        f"{size // K}K",
    ]
    made = subprocess.run(command, capture_output=True, check=False)
    if made.returncode != 0:
        # It does not hold the files.
        outcome.ends["not made"] += 1
        return
    damage = Damage(image, dice)
    for _ in range(dice.choice((0, 1, 1, 1, 1, 2, 4))):
        dice.choice(
            (damage.superblock, damage.superblock, damage.descriptor, damage.inode, damage.block, damage.byte)
        )()
    damage.file.close()
    what = f"seed {seed}, {name}, {damage.told}"
    for _ in range(dice.choice((1, 1, 2))):
        clean, said = fsck(image, "-fn")
        subprocess.run(["cp", "--sparse=always", image, before], check=True)
        more = int(dice.choice((K, 64 * K, M, 30 * M, 500 * M, G)) * dice.uniform(1, 9))
        outcome.runs += 1
        begin = time.monotonic()
        try:
            faulthandler.dump_traceback_later(60, exit=True)
            report = layermelt.grow_image(image, f"+{more}", sync=False)
        except LayermeltError as error:
            outcome.ends[type(error).__name__] += 1
            if clean == 0 and not damage.told:
                outcome.faults.append(f"{what}: refused: {error}")
            if parts(image) != parts(before):
                outcome.faults.append(f"{what}: refused and changed: {error}")
            return
        except BaseException as error:
            outcome.faults.append(f"{what}: {type(error)} {error}")
            return
        finally:
            faulthandler.cancel_dump_traceback_later()
            outcome.slowest = max(outcome.slowest, time.monotonic() - begin)
        outcome.ends[
            f"{'grown' if report.changed else 'unchanged'}, {'clean' if clean == 0 else 'not clean'} before"
        ] += 1
        if clean == 0:
            now, said = fsck(image, "-fn")
            if now != 0:
                outcome.faults.append(f"{what}, +{more}: not clean any more: {said}")
                return
            if contents(image) != contents(before):
                outcome.faults.append(f"{what}, +{more}: other contents")
        else:
            # What was damaged before may be, but what e2fsck saves of it is to be the same.
            fsck(before, "-fy")
            fsck(image, "-fy")
            kept, saved = contents(image), contents(before)
            if any(
                kept.get(path) != digest
                for path, digest in saved.items()
                if not path.startswith("lost+found")
            ):
                outcome.faults.append(f"{what}, +{more}: e2fsck saved less: {said}")
            return


def main() -> int:
    """Fuzzes for some minutes and tells what came of it."""
    seconds = float(sys.argv[1]) * 60
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else int(time.time())
    outcome = Outcome()
    with folder() as scratch:
        tree = scratch / "tree"
        (tree / "d").mkdir(parents=True)
        noise = random.Random(1)
        for number in range(20):
            (tree / f"d/{number}").write_bytes(noise.randbytes(noise.randrange(40_000)))
        (tree / "large").write_bytes(noise.randbytes(3 * M))
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            once(tree, scratch, seed, outcome)
            seed += 1
    for line in outcome.faults:
        print(line)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(
        f"{outcome.runs} images: {dict(outcome.ends)}; {len(outcome.faults)} faults; slowest {outcome.slowest:.2f} s; {memory} MiB"
    )
    return 1 if outcome.faults else 0


if __name__ == "__main__":
    sys.exit(main())
