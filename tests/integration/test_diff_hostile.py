"""Images that nobody should trust: one message each, in bounded time and memory."""

from __future__ import annotations

import os
import random
import resource
import struct
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from layermelt.differ import diff_trees
from layermelt.errors import CorruptImageError, ImageError

#: Without checksums, so that what is changed is looked at.
PLAIN = ("-b", "1024", "-O", "^metadata_csum,^has_journal,^dir_index,^64bit,^resize_inode")


def make(tmp_path: Path, *options: str, size: str = "4M") -> tuple[Path, Path]:
    """A tree and its image."""
    tree = tmp_path / "tree"
    (tree / "dir/sub").mkdir(parents=True)
    for number in range(40):
        (tree / f"dir/file{number}").write_bytes(os.urandom(number * 300))
    (tree / "dir/link").symlink_to("z" * 200)
    os.setxattr(tree / "dir/file9", "user.large", b"v" * 700)
    image = tmp_path / "image"
    command = ["mkfs.ext4", "-q", "-F", *options, "-d", str(tree), str(image), size]
    subprocess.run(command, check=True, capture_output=True)
    return tree, image


def debugfs(image: Path, *commands: str) -> str:
    script = "\n".join(commands)
    done = subprocess.run(
        ["debugfs", "-w", "-f", "-", str(image)], input=script, capture_output=True, text=True, check=True
    )
    return done.stdout


def block_of(image: Path, path: str) -> int:
    return int(debugfs(image, f"blocks {path}").split()[-1])


def extents(*entries: bytes, depth: int) -> bytes:
    return struct.pack("<HHHHI", 0xF30A, len(entries), 4, depth, 0) + b"".join(entries)


def set_i_block(image: Path, path: str, i_block: bytes) -> None:
    words = struct.unpack("<15I", i_block.ljust(60, b"\0"))
    names = [*range(12), "IND", "DIND", "TIND"]
    debugfs(image, *(f"sif {path} block[{name}] {word:#x}" for name, word in zip(names, words, strict=True)))


def slash(image: Path) -> None:
    content = image.read_bytes()
    assert content.count(b"file17") == 1
    image.write_bytes(content.replace(b"file17", b"fi/e17"))


def own_index(image: Path) -> None:
    """A node of an extent tree that is below itself."""
    block = block_of(image, "/dir/file30")
    entry = struct.pack("<IIHH", 0, block, 0, 0)
    with image.open("r+b") as file:
        file.seek(block * 1024)
        file.write(extents(entry, depth=5))
    set_i_block(image, "/dir/file30", extents(entry, depth=5))


def same_blocks(image: Path) -> None:
    """A directory that is 128 MiB of one block."""
    block = block_of(image, "/dir/sub")
    debugfs(image, "sif /dir/sub size 0x8000000")
    entries = [struct.pack("<IHHI", at, 1, 0, block) for at in range(4)]
    set_i_block(image, "/dir/sub", extents(*entries, depth=0))


def indirect_self(image: Path) -> None:
    """A triple indirect block that holds only itself: 2^24 blocks of data in one."""
    block = block_of(image, "/dir/file30")
    with image.open("r+b") as file:
        file.seek(block * 1024)
        file.write(struct.pack("<256I", *[block] * 256))
    debugfs(image, "sif /dir/file30 flags 0", f"sif /dir/file30 size {9000:#x}")
    set_i_block(image, "/dir/file30", struct.pack("<15I", *[0] * 14, block))


CASES: dict[str, tuple[Callable[[Path], object], str]] = {
    "loop": (lambda image: debugfs(image, "ln /dir /dir/sub/loop"), "second name"),
    "root again": (lambda image: debugfs(image, "ln <2> /dir/sub/root"), "second name"),
    "slash": (slash, "fi/e17"),
    "own index": (own_index, "extent tree"),
    "same blocks": (same_blocks, "another directory's block"),
    "outside": (
        lambda image: set_i_block(
            image, "/dir/file30", extents(struct.pack("<IHHI", 0, 9, 0, 1 << 30), depth=0)
        ),
        "outside",
    ),
    "deleted": (lambda image: debugfs(image, "sif /dir/file3 links_count 0"), "is deleted"),
    "no type": (lambda image: debugfs(image, "sif /dir/file3 mode 0"), "names no type"),
    "journal's inode": (lambda image: debugfs(image, "ln <8> /dir/journal"), "file system's own"),
    "negative size": (lambda image: debugfs(image, "sif /dir/file3 size 0xffffffffffffffff"), "bytes"),
    "attribute block": (lambda image: debugfs(image, "sif /dir/file3 file_acl 0x3fffff"), "behind the end"),
    "symlink": (lambda image: debugfs(image, "sif /dir/link size 5000000"), "target"),
    "feature": (lambda image: debugfs(image, "ssv feature_incompat 0x80000042"), "features"),
    "cut": (lambda image: os.truncate(image, 1 << 20), "bytes"),
}


@pytest.mark.parametrize("name", CASES)
def test_what_makes_no_sense_is_an_error(name: str, tmp_path: Path) -> None:
    change, words = CASES[name]
    tree, image = make(tmp_path, *PLAIN)
    before = diff_trees(tree, image, ignore=["mtime"])
    assert before.only_a == before.only_b == 0
    change(image)
    since = time.monotonic()
    with pytest.raises(CorruptImageError, match=words) as caught:
        diff_trees(tree, image, ignore=["mtime"])
    assert caught.value.path == str(image)
    assert time.monotonic() - since < 5


@pytest.mark.parametrize(("size", "words"), [("4M", "more blocks than the file system"), ("4G", "pieces")])
def test_many_blocks_of_one(size: str, words: str, tmp_path: Path) -> None:
    """More of them than anybody keeps in memory."""
    tree, image = make(tmp_path, *PLAIN, size=size)
    indirect_self(image)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CorruptImageError, match=words):
        diff_trees(tree, image, ignore=["mtime"])
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400 << 10


def test_a_checksum_that_is_wrong(tmp_path: Path) -> None:
    tree, image = make(tmp_path, "-b", "1024")
    table = int(debugfs(image, "imap /dir/file3").split("located at block ")[1].split(",")[0])
    with image.open("r+b") as file:
        file.seek(table * 1024)
        content = bytearray(file.read(8192))
        at = content.index(struct.pack("<I", 900), 0)
        content[at] ^= 1
        file.seek(table * 1024)
        file.write(content)
    with pytest.raises(CorruptImageError, match="checksum"):
        diff_trees(tree, image)


@pytest.mark.parametrize(
    "options", [PLAIN, ("-b", "1024", "-O", "^metadata_csum,inline_data,ea_inode", "-I", "256")]
)
def test_random_changes(options: tuple[str, ...], tmp_path: Path) -> None:
    """Any answer but a fault of ours, in a moment, without much memory."""
    tree, image = make(tmp_path, *options)
    content = image.read_bytes()
    # What is not zero: metadata and data, each byte as likely.
    used = [at for at in range(0, len(content), 64) if content[at : at + 64].count(0) < 64]
    choice = random.Random(5)
    refused = 0
    slowest = 0.0
    for _ in range(int(os.environ.get("LAYERMELT_EXAMPLES", "400"))):
        changed = bytearray(content)
        for _ in range(choice.choice((1, 1, 4, 30))):
            at = choice.choice(used) + choice.randrange(64)
            changed[at] = choice.choice(
                (0, 0xFF, changed[at] ^ 1 << choice.randrange(8), choice.randrange(256))
            )
        image.write_bytes(changed)
        since = time.monotonic()
        try:
            diff_trees(tree, image, limit=0)
        except ImageError:
            refused += 1
        slowest = max(slowest, time.monotonic() - since)
    assert refused > 0
    assert slowest < 10, f"{slowest:.1f} s"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 1 << 20
