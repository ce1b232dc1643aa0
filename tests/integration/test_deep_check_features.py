"""check_image(deep=True) on encryption, orphans, multiple mount protection and folded cases."""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from integration.corrupt import Image, crc32c
from integration.corrupt_kinds import EXTENTS
from integration.oracle import judge, mounts
from layermelt import check_image

ENCRYPT, CASEFOLD = 0x800, 0x40000000
#: ``FS_IOC_ADD_ENCRYPTION_KEY``, ``FS_IOC_SET_ENCRYPTION_POLICY``
ADD_KEY, SET_POLICY = 0xC0506617, 0x800C6613


def encrypt(mount: Path, directory: Path, key: bytes) -> None:
    """Makes an empty directory one that the kernel encrypts, with a policy of version 2."""
    # struct fscrypt_add_key_arg: a key that names itself.
    argument = bytearray(struct.pack("<II32xII32x", 2, 0, len(key), 0) + key)
    directory.mkdir()
    for path, number in ((mount, ADD_KEY), (directory, SET_POLICY)):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            if number == SET_POLICY:
                # struct fscrypt_policy_v2: AES-256 as XTS and CTS, names padded to 32.
                argument = bytearray(struct.pack("<BBBB4x16s", 2, 1, 4, 3, bytes(argument[8:24])))
            fcntl.ioctl(descriptor, number, argument)
        finally:
            os.close(descriptor)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image with all of it, that the kernel filled."""
    folder = tmp_path_factory.mktemp("features")
    image = folder / "good.ext4"
    options = "-t ext4 -b 1024 -O encrypt,orphan_file,mmp,^metadata_csum_seed"
    command = ["mke2fs", "-q", "-F", *options.split(), str(image), "16M"]
    subprocess.run(command, check=True, capture_output=True)
    with mounts.writable(image) as mount:
        for name, key in (("a", b"a" * 64), ("b", b"b" * 64)):
            encrypt(mount, mount / name, key)
            (mount / name / "file").write_bytes(b"secret" * 1000)
            (mount / name / "link").symlink_to("target")
            (mount / name / "below").mkdir()
            os.mkfifo(mount / name / "fifo")
        for number in range(200):
            # So that its index has hashes of encrypted names.
            (mount / "a" / "below" / f"{number}").touch()
        (mount / "plain").write_bytes(b"p" * 3000)
    return image


@pytest.mark.root
def test_what_the_kernel_encrypted_is_sound(good: Path, releases: list[judge.E2fsprogs]) -> None:
    for tools in releases:
        assert tools.run("e2fsck", "-fn", str(good)).returncode == 0
    assert check_image(good, deep=True).problems == ()


def _number(image: Image, directory: str, kind: int) -> int:
    """An inode of an encrypted directory, whose names nobody can read, by its file type."""
    for line in image.debugfs(f"ls -l {directory}").splitlines():
        words = line.split()
        if len(words) > 5 and int(words[1], 8) & 0o170000 == kind and not words[-1].startswith("."):
            return int(words[0])
    raise LookupError(directory)


def _context(image: Image, number: int) -> int:
    """The byte of an inode's context of encryption."""
    first = image.inode(number) + 128 + image.u16(image.inode(number) + 128) + 4
    while image.data[first + 1] != 9:
        first += (16 + image.data[first] + 3) // 4 * 4
    base = image.inode(number) + 128 + image.u16(image.inode(number) + 128) + 4
    image.put(first + 12, 0, 4)
    return base + image.u16(first + 2)


def _changed_context(image: Image, number: int, at: int) -> None:
    image.data[_context(image, number) + at] ^= 0x15
    image.sum_inode(number)


def _empty_value_outside(image: Image, number: int) -> None:
    """Another attribute, of no bytes, whose value would be behind the inode: libext2fs reads none then."""
    at = image.inode(number) + 128 + image.u16(image.inode(number) + 128) + 4
    while image.u32(at):
        at += (16 + image.data[at] + 3) // 4 * 4
    image.put(at + 2, 0xFF00, 2)
    image.sum_inode(number)


def _orphan_block(image: Image, change: Callable[[int], None], *, sums: bool = True) -> None:
    number = image.u32(1024 + 0x280)
    at = image.block_of(f"<{number}>", 2)
    change(at)
    if sums:
        end = at + image.block_size - 8
        value = crc32c(image.inode_seed(number), (at // image.block_size).to_bytes(8, "little"))
        image.put(end + 4, crc32c(value, image.data[at:end]), 4)


def _mmp(image: Image, at: int, value: int, *, sums: bool = True) -> None:
    begin = image.u32(1024 + 0x168) * image.block_size
    image.put(begin + at, value, 4)
    if sums:
        image.put(begin + 0x3FC, crc32c(image.seed, image.data[begin : begin + 0x3FC]), 4)


def _no_orphan_file(image: Image) -> None:
    image.superblock(0x5C, image.u32(1024 + 0x5C) & ~0x1000)
    image.superblock(0x64, image.u32(1024 + 0x64) | 0x10000)


REGULAR, DIRECTORY, SYMLINK, FIFO = 0o100000, 0o040000, 0o120000, 0o010000
DAMAGE: dict[str, tuple[str, Callable[[Image], None]]] = {
    "policy-none": ("encryption", lambda image: image.flag(image.number("/plain"), ENCRYPT)),
    "policy-version": (
        "encryption",
        lambda image: _changed_context(image, _number(image, "/a", REGULAR), 4),
    ),
    "policy-of-another": (
        "encryption",
        lambda image: _changed_context(image, _number(image, "/b", SYMLINK), 9),
    ),
    "policy-of-a-directory": (
        "encryption",
        lambda image: _changed_context(image, _number(image, "/b", DIRECTORY), 12),
    ),
    "policy-unread": (
        "encryption",
        lambda image: _empty_value_outside(image, _number(image, "/a", REGULAR)),
    ),
    "not-encrypted": (
        "encryption",
        lambda image: image.flag(_number(image, "/a", REGULAR), ENCRYPT, on=False),
    ),
    "orphan-magic": (
        "orphan-file",
        lambda image: _orphan_block(image, lambda at: image.put(at + image.block_size - 8, 1, 4)),
    ),
    "orphan-checksum": (
        "orphan-file",
        lambda image: _orphan_block(image, lambda at: image.put(at + image.block_size - 4, 1, 4), sums=False),
    ),
    "orphan-entry": (
        "orphan-file",
        lambda image: _orphan_block(image, lambda at: image.put(at + 8, 15, 4)),
    ),
    "orphan-size": ("orphan-file", lambda image: image.field(image.u32(1024 + 0x280), 4, 32 * 1024 - 7)),
    "orphan-hole": ("orphan-file", lambda image: image.field(image.u32(1024 + 0x280), 4, 33 * 1024)),
    "orphan-no-file": ("orphan-file", _no_orphan_file),
    "mmp-magic": ("mmp", lambda image: _mmp(image, 0, 0x504D4E)),
    "mmp-checksum": ("mmp", lambda image: _mmp(image, 0x3FC, 5, sums=False)),
    "mmp-fsck": ("mmp", lambda image: _mmp(image, 4, 0xE24D4D50)),
    "mmp-sequence": ("mmp", lambda image: _mmp(image, 4, 0xF24D4D50)),
    "mmp-place": ("mmp", lambda image: image.superblock(0x168, 1)),
    "journal-casefold": ("inode-flags", lambda image: image.flag(8, CASEFOLD)),
    "journal-no-extents": ("inode-flags", lambda image: image.flag(8, EXTENTS, on=False)),
}


@pytest.mark.root
@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_found(name: str, good: Path, tmp_path: Path, releases: list[judge.E2fsprogs]) -> None:
    code, change = DAMAGE[name]
    path = tmp_path / "damaged"
    shutil.copyfile(good, path)
    image = Image(path)
    change(image)
    image.save()
    for tools in releases:
        assert tools.run("e2fsck", "-fn", str(path)).returncode != 0
    report = check_image(path, deep=True)
    assert code in {problem.code for problem in report.problems}, report.problems


def test_a_checksum_of_orphans_where_there_are_none(tmp_path: Path, releases: list[judge.E2fsprogs]) -> None:
    path = tmp_path / "image"
    options = "-q -F -t ext4 -b 1024 -O orphan_file,^metadata_csum"
    subprocess.run(["mke2fs", *options.split(), path, "8M"], check=True)
    assert check_image(path, deep=True).problems == ()
    image = Image(path)
    at = image.block_of(f"<{image.u32(1024 + 0x280)}>", 2)
    image.put(at + image.block_size - 4, 1, 4)
    image.save()
    for tools in releases:
        assert tools.run("e2fsck", "-fn", str(path)).returncode != 0
    assert [problem.code for problem in check_image(path, deep=True).problems] == ["orphan-file"]


@pytest.mark.root
@pytest.mark.parametrize("journal", ["has_journal", "^has_journal"])
def test_a_journal_on_a_device_besides(journal: str, tmp_path: Path) -> None:
    """The kernel does not mount with two journals; e2fsck does not look at the device's number."""
    path = tmp_path / "image"
    options = f"-q -F -t ext4 -b 1024 -O {journal},^metadata_csum"
    subprocess.run(["mke2fs", *options.split(), path, "8M"], check=True)
    image = Image(path)
    image.put(1024 + 0xE4, 0x0102, 4)
    image.save()
    found = [problem.code for problem in check_image(path, deep=True).problems]
    if journal == "has_journal":
        assert found == ["journal"]
        with pytest.raises(OSError, match="Invalid argument"), mounts.writable(path):
            pass
    else:
        assert found == []
        with mounts.writable(path):
            pass


def test_names_whose_case_is_not_known_are_noted(tmp_path: Path, releases: list[judge.E2fsprogs]) -> None:
    tree, image = tmp_path / "tree", tmp_path / "image"
    (tree / "d").mkdir(parents=True)
    for number in range(200):
        (tree / "d" / f"straße-{number}").touch()
    # Of this seed the names that are looked for below are in one block.
    options = (
        "-t ext4 -b 1024 -O casefold -E encoding_flags=strict,hash_seed=40000000-0000-4000-8000-000000000000"
    )
    command = ["mke2fs", "-q", "-F", *options.split(), "-d", str(tree), str(image), "8M"]
    subprocess.run(command, check=True, capture_output=True)
    changed = Image(image)
    changed.flag(changed.number("/d"), CASEFOLD)
    changed.save()
    subprocess.run(["e2fsck", "-fyD", image], check=False, capture_output=True)
    for tools in releases:
        assert tools.run("e2fsck", "-fn", str(image)).returncode == 0
    report = check_image(image, deep=True)
    assert report.problems == ()
    assert [("ASCII" in note) for note in report.notes] == [True]
    assert report.as_dict()["notes"] == list(report.notes)
    # Two names that differ in case only, and one that is none.
    for old, new in ((b"stra\xc3\x9fe-17", b"STRa\xc3\x9fe-18"), (b"stra\xc3\x9fe-17", b"stra\x9f\xc3e-17")):
        broken = Image(image)
        for logical in range(20):
            at = broken.block_of("/d", logical)
            found = broken.records(at) if at else {}
            if old in found and (new.lower() in found or b"\xc3\x9f" not in new):
                broken.data[found[old] + 8 : found[old] + 8 + len(old)] = new
                broken.sum_directory(broken.number("/d"), at)
                break
        else:
            pytest.fail("the names are not in one block")
        broken.path = tmp_path / "broken"
        broken.save()
        for tools in releases:
            assert tools.run("e2fsck", "-fn", str(broken.path)).returncode != 0
        codes = {problem.code for problem in check_image(broken.path, deep=True).problems}
        assert codes & {"directory-duplicate", "directory-name"}


@pytest.mark.parametrize(("logical", "sound"), [(24, True), (28, True), (26, False), (15, False)])
def test_extents_lie_in_clusters_as_in_the_file(
    logical: int, sound: bool, tmp_path: Path, releases: list[judge.E2fsprogs]
) -> None:
    (tmp_path / "tree").mkdir()
    with (tmp_path / "tree/file").open("wb") as file:
        for block in (0, 12, 24):
            file.seek(block << 10)
            file.write(b"d" * 1024)
        file.truncate(64 << 10)
    path = tmp_path / "image"
    options = "-q -F -t ext4 -b 1024 -C 4096 -O bigalloc,^metadata_csum"
    command = ["mke2fs", *options.split(), "-d", str(tmp_path / "tree"), str(path), "8M"]
    subprocess.run(command, check=True, capture_output=True)
    image = Image(path)
    last = image.inode(image.number("/file")) + 0x28 + 12 + 2 * 12
    assert image.u32(last) == 24
    image.put(last, logical, 4)
    image.save()
    for tools in releases:
        assert (tools.run("e2fsck", "-fn", str(path)).returncode == 0) == sound
    report = check_image(path, deep=True)
    assert report.sound == sound
    assert sound or report.problems[0].code == "cluster-alignment"


#: Feature words: the byte of the superblock where each begins.
WORDS = {"compat": 0x5C, "incompat": 0x60, "ro_compat": 0x64}
#: What e2fsck mentions and does not count: a journal to be replayed, and a seed that nothing uses.
MENTIONED = {("incompat", 0x4), ("incompat", 0x2000)}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image without checksums, so that a feature is all that changes."""
    image = tmp_path_factory.mktemp("plain") / "plain.ext4"
    command = ["mke2fs", "-q", "-F", "-t", "ext4", "-b", "1024", "-O", "^metadata_csum", str(image), "8M"]
    subprocess.run(command, check=True, capture_output=True)
    return image


@pytest.mark.root
@pytest.mark.parametrize("word", WORDS)
def test_each_feature_is_what_e2fsck_or_the_kernel_says(
    word: str, plain: Path, tmp_path: Path, releases: list[judge.E2fsprogs]
) -> None:
    for bit in range(32):
        shutil.copyfile(plain, tmp_path / "image")
        image = Image(tmp_path / "image")
        features = image.u32(1024 + WORDS[word])
        if features >> bit & 1:
            continue
        image.put(1024 + WORDS[word], features | 1 << bit, 4)
        image.save()
        judged = [tools.run("e2fsck", "-fn", str(image.path)) for tools in releases]
        report = check_image(image.path, deep=True)
        if any(one.returncode != 0 for one in judged):
            assert not report.sound, f"{1 << bit:#x}: {judged}"
        elif not report.sound and (word, 1 << bit) not in MENTIONED:
            # e2fsck does not count it: then the kernel must refuse it.
            with pytest.raises(OSError, match="mount ext4"), mounts.writable(image.path):
                pass
