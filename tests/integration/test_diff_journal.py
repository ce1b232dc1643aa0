"""Images of guests that crashed: what a mount would make of their journals, without one."""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from integration.oracle import mounts
from integration.test_diff import compare, directory_side, image_side, mke2fs, writable
from layermelt import check_image
from layermelt.differ import diff_trees
from layermelt.errors import CorruptImageError

pytestmark = pytest.mark.root

#: What a block of a journal begins with: data that does so is escaped.
MAGIC = bytes.fromhex("c03b3998")


def crashed(image: Path, work: Callable[[Path], None], options: str) -> Path:
    """A copy of the image in the middle of the work: nothing of it was written to its place yet."""
    copy = image.with_name("crashed")
    with writable(image, options) as mounted:
        work(mounted)
        subprocess.run(["cp", "--sparse=always", str(image), str(copy)], check=True)
    assert (
        "needs_recovery"
        in subprocess.run(["dumpe2fs", "-h", str(copy)], capture_output=True, text=True, check=True).stdout
    )
    return copy


def text_of(*command: str) -> str:
    """What a command prints."""
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def logdump(image: Path) -> str:
    return text_of("debugfs", "-c", "-R", "logdump -a", str(image))


def commit(root: Path) -> None:
    """Everything so far is in the log then."""
    directory = os.open(root, os.O_RDONLY)
    os.fsync(directory)
    os.close(directory)


def busy(root: Path) -> None:
    """Blocks of directories that become others', so that they are revoked; data that is escaped."""
    for number in range(6):
        (root / f"gone{number}").mkdir()
        for name in range(60):
            (root / f"gone{number}/{name:0200}").write_bytes(b"x" * name)
    commit(root)
    for number in range(6):
        shutil.rmtree(root / f"gone{number}")
    commit(root)
    for number in range(60):
        path = root / f"file{number}"
        path.write_bytes(MAGIC + os.urandom(9_000) if number % 2 else os.urandom(20_000))
        os.setxattr(path, "user.number", str(number).encode())
        path.chmod(0o4000 + number)
    (root / "dir/sub").mkdir(parents=True)
    os.link(root / "file1", root / "dir/linked")
    os.rename(root / "file2", root / "dir/sub/renamed")
    commit(root)
    # These are open and have no name: the kernel deletes them when it recovers.
    (root / "file3").unlink()
    commit(root)


def demand_as_recovered(copy: Path) -> None:
    """The crashed image, read by us, against what the kernel makes of it."""
    recovered = shutil.copyfile(copy, copy.with_name("recovered"))
    before = copy.read_bytes()
    with writable(recovered) as mounted:
        assert compare(image_side(copy), directory_side(mounted), strict=True) == []
    assert copy.read_bytes() == before


@pytest.mark.parametrize("data", ["journal", "ordered"])
@pytest.mark.parametrize(
    "options",
    [
        pytest.param(["-b", "4096"], id="checksums"),
        pytest.param(["-b", "4096", "-O", "^metadata_csum"], id="64bit"),
        pytest.param(["-b", "1024", "-O", "^metadata_csum,^64bit"], id="32bit"),
        pytest.param(["-t", "ext3"], id="ext3"),
    ],
)
def test_a_journal_is_replayed(options: list[str], data: str, tmp_path: Path) -> None:
    image = mke2fs(tmp_path / "image", *options)
    copy = crashed(image, busy, f"data={data},commit=300")
    log = logdump(copy)
    # The test reaches what it is for. (With its data in the journal, nothing is revoked.)
    if data == "journal":
        assert any(int(flags, 16) & 1 for flags in re.findall(r"\(flags 0x([0-9a-f]+)\)", log))
    else:
        assert "type 5 (revoke" in log
    empty = mke2fs(tmp_path / "empty", *options)
    told = {found[0] for found in compare(image_side(copy), image_side(empty))}
    assert {b"/file1", b"/dir/sub/renamed"} <= told, "of this nothing is in its place yet"
    demand_as_recovered(copy)


def test_a_log_that_goes_round(tmp_path: Path) -> None:
    image = mke2fs(tmp_path / "image", "-J", "size=4", size="128M")

    def work(root: Path) -> None:
        for number in range(40):
            for name in range(60):
                (root / f"{number}-{name}-{'x' * 190}").touch()
            commit(root)
            for name in range(0, 60, 3):
                (root / f"{number}-{name}-{'x' * 190}").unlink()

    copy = crashed(image, work, "commit=300")
    [start] = re.findall(r"^Journal start: +(\d+)$", text_of("dumpe2fs", "-h", str(copy)), re.MULTILINE)
    places = [int(place) for place in re.findall(r"\) at block (\d+)", logdump(copy))]
    assert min(places) < int(start) <= max(places), "it goes round"
    demand_as_recovered(copy)


def debugfs_transactions(image: Path, checksums: list[str], transactions: list[str]) -> None:
    """Each is what ``journal_write`` takes."""
    script = "\n".join([f"jo {' '.join(checksums)}", *(f"jw {one}" for one in transactions), "jc", ""])
    done = subprocess.run(
        ["debugfs", "-w", "-f", "-", str(image)], input=script, text=True, check=True, capture_output=True
    )
    assert not re.search("invalid|failed|error|usage", done.stdout + done.stderr, re.IGNORECASE), done


def with_a_file(tmp_path: Path, *options: str) -> tuple[Path, Path, list[int]]:
    """A tree, its image, whose journal the kernel has seen, and the blocks of its file."""
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "file").write_bytes(b"".join(bytes([letter]) * 4096 for letter in b"abcdef"))
    # mke2fs takes whole seconds only.
    os.utime(tree / "file", (1, 1))
    image = mke2fs(tmp_path / "image", "-b", "4096", *options, source=tree)
    with writable(image):
        pass
    places = [int(place) for place in text_of("debugfs", "-R", "blocks /file", str(image)).split()]
    return tree, image, places


def files_that_differ(image: Path, tree: Path) -> list[bytes]:
    return [one[0] for one in compare(image_side(image), directory_side(tree)) if one[0] != b"/"]


JOURNALS = {
    "32bit": (["-O", "^metadata_csum,^64bit"], []),
    "64bit": (["-O", "^metadata_csum"], []),
    # No kernel's default any more.
    "v2": (["-O", "^64bit"], ["-c", "-v", "2"]),
    "v2-64bit": ([], ["-c", "-v", "2"]),
    "v3": (["-O", "^64bit"], ["-c", "-v", "3"]),
    "v3-64bit": ([], ["-c", "-v", "3"]),
}


#: What is written and revoked, block by block of the file.
WRITTEN = {
    "revoked and again": ["-b {0},{1},{2},{3},{4},{5} {first}", "-r {1},{2},{4}", "-b {2} {second}"],
    # A revocation is for its own transaction as well.
    "revoked at once": ["-b {0},{1},{2},{3},{4},{5} {first}", "-r {3} -b {3} {second}"],
    # Without a commit neither counts.
    "no commit": ["-b {0},{1} {first}", "-c -r {0} -b {4},{5} {second}"],
}


@pytest.mark.parametrize("written", WRITTEN)
@pytest.mark.parametrize("journal", JOURNALS)
def test_transactions_by_debugfs(journal: str, written: str, tmp_path: Path) -> None:
    options, checksums = JOURNALS[journal]
    tree, image, at = with_a_file(tmp_path, *options)
    content = {}
    for name, lead in (("first", MAGIC), ("second", b"")):
        blocks = [(lead + bytes([number]) + name.encode() * 1000)[:4096] for number in range(len(at))]
        content[name] = tmp_path / name
        content[name].write_bytes(b"".join(blocks))
    transactions = [one.format(*at, **content) for one in WRITTEN[written]]
    debugfs_transactions(image, checksums, transactions)
    assert files_that_differ(image, tree) == [b"/file"]
    demand_as_recovered(image)


@pytest.mark.parametrize("beyond", [0, 100])
def test_the_superblock_is_in_the_log(beyond: int, tmp_path: Path) -> None:
    """The file system grew: where its new groups are is told by the log alone, and some of their blocks are in it."""
    size, old = 64 << 20, 16 << 20
    image = mke2fs(tmp_path / "image", "-b", "1024", "-O", "^metadata_csum", size="16M")
    grown = shutil.copyfile(image, tmp_path / "grown")
    os.truncate(grown, size)
    subprocess.run(["resize2fs", str(grown)], check=True, capture_output=True)
    with writable(grown) as mounted:
        # A directory at the top goes into a group with room.
        for number in range(40):
            (mounted / f"dir{number}").mkdir()
            (mounted / f"dir{number}/file").write_bytes(b"in a new group")
    before, after = image.read_bytes(), bytearray(grown.read_bytes())
    # The superblock in the log is that of a file system in use: needs_recovery.
    after[1024 + 0x60] |= 4
    image.write_bytes(before + after[old:])
    journal = {int(block) for block in text_of("debugfs", "-R", "blocks <8>", str(image)).split()}
    changed = [
        block
        for block in range(old // 1024)
        if block not in journal
        and before[block * 1024 : block * 1024 + 1024] != after[block * 1024 : block * 1024 + 1024]
    ]
    assert 1 in changed, "the superblock"
    # The kernel writes bitmaps and tables of new groups by way of the journal (setup_new_flex_group_blocks).
    new = [
        block for block in range(old // 1024, size // 1024) if any(after[block * 1024 : block * 1024 + 1024])
    ]
    with image.open("r+b") as file:
        for block in new[:beyond]:
            file.seek(block * 1024)
            file.write(bytes(1024))
    changed += new[:beyond]
    content = tmp_path / "content"
    content.write_bytes(b"".join(after[block * 1024 : block * 1024 + 1024] for block in changed))
    # debugfs takes no block that is beyond the end.
    logged = shutil.copyfile(grown, tmp_path / "logged")
    debugfs_transactions(logged, [], [f"-b {','.join(map(str, changed))} {content}"])
    log = logged.read_bytes()
    with image.open("r+b") as file:
        for block in journal:
            file.seek(block * 1024)
            file.write(log[block * 1024 : block * 1024 + 1024])
    text_of("debugfs", "-w", "-R", "feature needs_recovery", str(image))
    assert [problem.code for problem in check_image(image, deep=True).problems] == ["needs-recovery"]
    with mounts.image(grown) as mounted:
        assert compare(image_side(image), directory_side(mounted), strict=True) == []
    done = subprocess.run(["e2fsck", "-fy", str(image)], capture_output=True, check=False)
    assert done.returncode in (0, 1), done.stdout
    with mounts.image(image) as mounted:
        assert compare(image_side(grown), directory_side(mounted), strict=True) == []


def test_numbers_of_64_bits(tmp_path: Path) -> None:
    """Blocks of a file system larger than any disk here: the high halves are put in by hand."""
    tree, image, at = with_a_file(tmp_path, "-O", "^metadata_csum")
    (tmp_path / "block").write_bytes(b"n" * 4096)
    debugfs_transactions(image, [], [f"-b {at[0]} {tmp_path}/block", f"-r {at[0]}"])
    assert files_that_differ(image, tree) == []
    log = Log(image)
    [revocations] = log.of(REVOKE)
    log.change(revocations, 16, (1).to_bytes(4, "big"))
    # Another block is revoked, and not this one.
    assert files_that_differ(image, tree) == [b"/file"]
    demand_as_recovered(image)
    log.change(revocations, 16, (2).to_bytes(4, "big"))
    log.change(log.of(DESCRIPTOR)[0], 12 + 8, (1).to_bytes(4, "big"))
    with pytest.raises(CorruptImageError, match="behind the end"):
        diff_trees(image, tree)


class Log:
    """The blocks of a crashed image's journal."""

    def __init__(self, image: Path) -> None:
        self.image = image
        self.block_size = int(re.findall(r"Block size: +(\d+)", text_of("dumpe2fs", "-h", str(image)))[0])
        self.places = [
            int(place) for place in text_of("debugfs", "-c", "-R", "blocks <8>", str(image)).split()
        ]
        found = re.findall(r"sequence (\d+), type (\d) \(.*?\) at block (\d+)", logdump(image))
        #: (sequence, type, block of the journal), in order.
        self.blocks = [(int(sequence), int(kind), int(block)) for sequence, kind, block in found]

    def of(self, kind: int) -> list[int]:
        return [block for _, found, block in self.blocks if found == kind]

    def read(self, block: int) -> bytearray:
        with self.image.open("rb") as file:
            file.seek(self.places[block] * self.block_size)
            return bytearray(file.read(self.block_size))

    def write(self, block: int, content: bytes | bytearray) -> None:
        with self.image.open("r+b") as file:
            file.seek(self.places[block] * self.block_size)
            file.write(content)

    def change(self, block: int, at: int, to: bytes | None = None) -> None:
        content = self.read(block)
        if to is None:
            content[at] ^= 0xFF
        else:
            content[at : at + len(to)] = to
        self.write(block, content)


DESCRIPTOR, COMMIT, REVOKE = 1, 2, 5
#: Of a commit: its own checksum, its time, behind its header.
CHECKSUM_AT, TIME_AT, BEHIND = 16, 48, 100


def stale(log: Log) -> None:
    """The last commit is one of an earlier round, as its time says."""
    log.change(log.of(COMMIT)[-1], TIME_AT, (1000).to_bytes(8, "big"))


def moved(log: Log) -> None:
    """A block of revocations with a wrong checksum, before a commit that is older."""
    log.change(log.of(REVOKE)[-1], log.block_size - 1)
    sequence = next(sequence for sequence, kind, _ in reversed(log.blocks) if kind == REVOKE)
    for found, kind, block in log.blocks:
        if kind == COMMIT and found >= sequence:
            log.change(block, TIME_AT, (1000).to_bytes(8, "big"))


DAMAGE: dict[str, Callable[[Log], object]] = {
    "nothing": lambda log: None,
    "first descriptor": lambda log: log.change(log.of(DESCRIPTOR)[0], log.block_size - 1),
    "last descriptor": lambda log: log.change(log.of(DESCRIPTOR)[-1], log.block_size - 1),
    "first data": lambda log: log.change(log.of(DESCRIPTOR)[0] + 1, 7),
    "last data": lambda log: log.change(log.of(DESCRIPTOR)[-1] + 1, 7),
    "first commit": lambda log: log.change(log.of(COMMIT)[0], CHECKSUM_AT),
    "last commit": lambda log: log.change(log.of(COMMIT)[-1], CHECKSUM_AT),
    "commit's rest": lambda log: log.change(log.of(COMMIT)[-1], BEHIND),
    "no last commit": lambda log: log.write(log.of(COMMIT)[-1], bytes(log.block_size)),
    "no first commit": lambda log: log.write(log.of(COMMIT)[0], bytes(log.block_size)),
    "revocations": lambda log: log.change(log.of(REVOKE)[-1], log.block_size - 1),
    "superblock": lambda log: log.change(0, 0x60),
    "stale commit": stale,
    "stale revocations": moved,
}
#: For which the kernel does not mount the image.
REFUSED = {
    "first descriptor",
    "last descriptor",
    "first data",
    "last data",
    "first commit",
    "last commit",
    "revocations",
    "superblock",
}


@pytest.fixture(scope="module")
def crashed_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With checksums, and some revocations in the last transactions."""

    def work(root: Path) -> None:
        for number in range(8):
            directory = root / f"gone{number}"
            directory.mkdir()
            for name in range(40):
                (directory / f"{name:0200}").touch()
            commit(root)
            shutil.rmtree(directory)
            (root / f"file{number}").write_bytes(bytes([number]) * 9_000)
            commit(root)

    image = mke2fs(tmp_path_factory.mktemp("crashed") / "image", "-b", "1024")
    return crashed(image, work, "data=ordered,commit=300")


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_log(name: str, crashed_image: Path, tmp_path: Path) -> None:
    """What the kernel refuses is an error, what it takes for the end of the log is its end."""
    copy = shutil.copyfile(crashed_image, tmp_path / "copy")
    DAMAGE[name](Log(copy))
    mounted = shutil.copyfile(copy, tmp_path / "mounted")
    target = tmp_path / "target"
    target.mkdir()
    refused = subprocess.run(["mount", "-o", "loop", str(mounted), str(target)], capture_output=True)
    if refused.returncode != 0 and name == "commit's rest":
        pytest.skip("this kernel does not take a commit that was written in part")
    try:
        assert (refused.returncode != 0) == (name in REFUSED), "the kernel takes it otherwise"
        if refused.returncode == 0:
            assert compare(image_side(copy), directory_side(target), strict=True) == []
            return
    finally:
        subprocess.run(["umount", str(target)], capture_output=True, check=False)
    with pytest.raises(CorruptImageError, match="journal"):
        diff_trees(copy, tmp_path)


def word(at: int, to: int) -> Callable[[Log], object]:
    """Changes four bytes of the journal's superblock."""
    return lambda log: log.change(0, at, to.to_bytes(4, "big"))


#: Words of our message, and whether the kernel refuses the mount, too.
SENSELESS: dict[str, tuple[Callable[[Log], object], str, bool]] = {
    "no superblock": (word(0, 0), "no superblock", True),
    "asynchronous commits": (word(0x28, 0x4), "features that are not known", False),
    "fast commits": (word(0x28, 0x20), "features that are not known", False),
    "checksums of commits": (word(0x24, 0x1), "features that are not known", False),
    "larger blocks": (word(0x0C, 8192), "blocks of 8192 bytes", True),
    "begins nowhere": (word(0x1C, 1 << 20), "begins at block", True),
    "first block is none": (word(0x14, 0), "begins at block", True),
    "longer than itself": (word(0x10, 1 << 20), "begins at block", True),
    "too many revocations": (
        lambda log: log.change(log.of(REVOKE)[0], 12, (5000).to_bytes(4, "big")),
        "too long",
        True,
    ),
    "a block behind the end": (
        lambda log: log.change(log.of(DESCRIPTOR)[0], 12, (1 << 30).to_bytes(4, "big")),
        "behind the end",
        True,
    ),
}


@pytest.mark.parametrize("name", SENSELESS)
def test_a_log_that_makes_no_sense(name: str, tmp_path: Path) -> None:
    change, words, is_refused = SENSELESS[name]
    tree, image, at = with_a_file(tmp_path, "-O", "^metadata_csum")
    (tmp_path / "block").write_bytes(b"n" * 4096)
    debugfs_transactions(image, [], [f"-b {at[0]} {tmp_path}/block", f"-r {at[1]}"])
    change(Log(image))
    with pytest.raises(CorruptImageError, match=words):
        diff_trees(image, tree)
    target = tmp_path / "target"
    target.mkdir()
    done = subprocess.run(["mount", "-o", "loop", str(image), str(target)], capture_output=True)
    subprocess.run(["umount", str(target)], capture_output=True, check=False)
    if is_refused:
        assert done.returncode != 0


def test_a_log_without_an_end(tmp_path: Path) -> None:
    """Each block round the ring belongs to the first transaction, which is never committed."""
    tree, image, at = with_a_file(tmp_path, "-O", "^metadata_csum")
    (tmp_path / "block").write_bytes(b"n" * 4096)
    debugfs_transactions(image, [], [f"-b {at[0]} {tmp_path}/block"])
    log = Log(image)
    [(sequence, _, _), *_] = log.blocks
    block = struct.pack(">IIII", int.from_bytes(MAGIC, "big"), REVOKE, sequence, 16).ljust(4096, b"\0")
    for number in range(1, len(log.places)):
        log.write(number, block)
    since = time.monotonic()
    assert files_that_differ(image, tree) == []
    assert time.monotonic() - since < 5
