"""``layermelt grow`` against e2fsck, resize2fs and the kernel, on images of every make."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import layermelt
from integration.conftest import Judge, Stores
from integration.oracle import judge, kernel, product
from integration.oracle.judge import superblock
from integration.oracle.layer import Chain
from integration.test_kernel_use import writable
from layermelt import _core, errors

K, M, G, T = 1 << 10, 1 << 20, 1 << 30, 1 << 40

#: Features by which images differ in what growing has to do.
MAKES = {
    "default": "-b 4096",
    "1k": "-b 1024",
    "2k": "-b 2048",
    "uninit_bg": "-b 4096 -O ^metadata_csum,uninit_bg,^64bit",
    "uninit_bg-64bit": "-b 4096 -O ^metadata_csum,uninit_bg,64bit",
    "no-checksums": "-b 2048 -O ^metadata_csum,^uninit_bg,^64bit",
    "no-flex_bg": "-b 4096 -O ^flex_bg",
    "no-resize_inode": "-b 4096 -O ^resize_inode",
    "meta_bg": "-b 4096 -O ^resize_inode,meta_bg",
    "meta_bg-1k": "-b 1024 -O ^resize_inode,meta_bg",
    "no-sparse_super": "-b 4096 -O ^sparse_super,^resize_inode",
    "ext3": "-b 1024 -O ^extent,^flex_bg,^metadata_csum,^64bit,^huge_file,^dir_nlink,^extra_isize",
    "no-journal": "-b 4096 -O ^has_journal",
    "many-inodes": "-b 4096 -i 1024",
    "small-groups": "-b 4096 -g 1024",
    # 8 in each group: those of the file system itself are in two groups.
    "few-inodes": "-b 1024 -g 1024 -N 64",
    "recent": "-b 4096 -O metadata_csum_seed,orphan_file,fast_commit,inline_data,ea_inode,large_dir,casefold,quota",
}


def make(path: Path, size: int, options: str) -> Path:
    """An image by mke2fs."""
    path.unlink(missing_ok=True)
    path.touch()
    os.truncate(path, size)
    done = subprocess.run(
        ["mke2fs", "-q", "-F", "-t", "ext4", *options.split(), path], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return path


def grow(path: Path, size: int | str) -> layermelt.GrowReport:
    """Without waiting for the disk."""
    return layermelt.grow_image(path, size, sync=False)


def numbers(path: Path) -> dict[str, int]:
    """What resize2fs and we must agree on."""
    found = superblock(path)
    names = ("Block count", "Inode count", "Inodes per group", "Blocks per group")
    return {name: int(found[name]) for name in names}


@pytest.mark.parametrize("name", MAKES)
def test_any_make_grows(name: str, tmp_path: Path, judge_image: Judge) -> None:
    """Within the last group, into the next ones, far beyond; each time nothing is to be said against it."""
    image = make(tmp_path / "image", 20 * M - 200 * K, MAKES[name])
    report = grow(image, "+100K")
    for size in ("+3M", 700 * M, 5 * G):
        assert report.changed
        judge_image(image)
        report = grow(image, size)
        assert report.method == ("copy" if name == "no-journal" else "journal")
        judge_image(image)
    found = superblock(image)
    assert int(found["Block count"]) == report.new.blocks
    assert int(found["Free blocks"]) == report.new.free_blocks
    assert int(found["Free inodes"]) == report.new.free_inodes
    assert report.new.size > 5 * G - 32768 * report.block_size
    # The new part is a hole.
    assert image.stat().st_size == 5 * G
    assert image.stat().st_blocks * 512 < 64 * M


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("default", (64 * G, T)),
        ("1k", (64 * G,)),
        ("no-resize_inode", (64 * G,)),
        ("meta_bg", (T,)),
        ("uninit_bg", (T,)),
    ],
)
def test_far(name: str, sizes: tuple[int, ...], tmp_path: Path, judge_image: Judge) -> None:
    image = make(tmp_path / "image", 20 * M, MAKES[name])
    for size in sizes:
        grow(image, size)
        judge_image(image)
    features = superblock(image)["Filesystem features"].split()
    assert "meta_bg" in features


@pytest.mark.parametrize("name", ["default", "1k", "uninit_bg", "no-flex_bg"])
@pytest.mark.parametrize("size", [21 * M, 140 * M + 300 * K, 3 * G])
def test_is_of_the_size_that_resize2fs_makes(
    name: str, size: int, tmp_path: Path, tools: judge.E2fsprogs
) -> None:
    ours = make(tmp_path / "ours", 20 * M, MAKES[name])
    theirs = tmp_path / "theirs"
    shutil.copyfile(ours, theirs)
    grow(ours, size)
    done = tools.run("resize2fs", "-f", str(theirs), f"{size // 1024}K")
    assert done.returncode == 0, done.stderr
    assert numbers(ours) == numbers(theirs)


@pytest.mark.parametrize("seed", range(6))
def test_random_steps(seed: int, tmp_path: Path, judge_image: Judge) -> None:
    dice = random.Random(seed)
    name = dice.choice(sorted(MAKES))
    image = make(tmp_path / "image", dice.randrange(6 * M, 60 * M, 4 * K), MAKES[name])
    for _ in range(4):
        more = int(dice.choice((K, 64 * K, M, 100 * M, G)) * dice.uniform(1, 9))
        before = image.stat().st_size
        report = grow(image, f"+{more}")
        assert report.new.blocks >= report.old.blocks
        assert image.stat().st_size >= before
        judge_image(image)


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def build(stores: Stores, output: Path, profile: str) -> Path:
    """An image of ours, of the named profile."""
    chain = Chain(stores("ext4") / "chain", "ext4")
    base, top = chain.two()
    dice = random.Random(3)
    for number in range(300):
        base.file(f"d{number % 3}/{number}", dice.randbytes(dice.randrange(20_000)))
    top.file("top", b"top")
    layers = [os.fspath(layer) for layer in chain.finish()]
    output.touch()
    _core.build_image(
        layers,
        os.fspath(output),
        os.fspath(output),
        userxattr=False,
        fuse_overlayfs=False,
        files=[],
        size="auto",
        free_space=20 * M,
        inodes=None,
        label=b"",
        uuid=None,
        timestamp=None,
        threads=2,
        sync=False,
        progress=None,
        profile=profile,
    )
    return output


@pytest.mark.root
@pytest.mark.parametrize("profile", ["default", "compat", "readonly"])
def test_lived_in_after_growing(profile: str, stores: Stores, tmp_path: Path, judge_image: Judge) -> None:
    """Files are as they were, the kernel fills the new part, and afterwards it grows again."""
    image = build(stores, tmp_path / "image", profile)
    with writable(image, tmp_path) as (mounted, _):
        before = digests(mounted)
    old = image.stat().st_size
    report = grow(image, 300 * M)
    assert report.method == ("copy" if profile == "readonly" else "journal")
    judge_image(image)
    with writable(image, tmp_path) as (mounted, _):
        assert digests(mounted) == before
        noise = random.Random(5).randbytes(M)
        with (mounted / "big").open("wb") as file:
            while os.statvfs(mounted).f_bavail * 4096 > 8 * M:
                file.write(noise)
                file.flush()
        assert (mounted / "big").stat().st_size > old
        for number in range(500):
            (mounted / f"new{number}").write_bytes(b"n")
            os.setxattr(mounted / f"new{number}", "user.x", b"x" * 300)
        for number in range(0, 500, 2):
            (mounted / f"new{number}").rename(mounted / f"renamed{number}")
        (mounted / "renamed0").unlink()
        after = digests(mounted)
    assert before.items() <= after.items()
    judge_image(image)
    # The journal has been used by the kernel by now: it has checksums.
    grow(image, 2 * G)
    judge_image(image)
    with writable(image, tmp_path) as (mounted, _):
        assert digests(mounted) == after
        (mounted / "last").write_bytes(b"last")
    judge_image(image)


def snapshots(image: Path, size: int, scratch: Path) -> Iterator[tuple[str, Path]]:
    """The file after every prefix of the changes, and after subsets of those between two syncs."""
    before = scratch / "before"
    shutil.copyfile(image, before)
    status = image.stat()
    report, reason = _core.grow_file(
        os.fspath(image),
        (status.st_dev, status.st_ino),
        "bytes",
        size,
        atomic=True,
        sync=False,
        record=True,
        progress=None,
    )
    assert report is not None, reason
    epochs: list[list[tuple[str, int, bytes]]] = [[]]
    for event in report.events:
        epochs[-1].append(event)
        if event[0] == "sync":
            epochs.append([])
    assert len(epochs) == 8  # seven syncs
    dice = random.Random(7)
    done: list[tuple[str, int, bytes]] = []
    for number, epoch in enumerate(epochs):
        cuts = sorted({0, len(epoch), *(dice.randrange(len(epoch) + 1) for _ in range(8))})
        for cut in cuts:
            yield f"{number}:{cut}", replay(before, scratch, [*done, *epoch[:cut]])
        for turn in range(3 if len(epoch) > 2 else 0):
            chosen = [event for event in epoch if event[0] == "length" or dice.random() < 0.5]
            yield f"{number}:subset{turn}", replay(before, scratch, [*done, *chosen])
        done += epoch


def replay(before: Path, scratch: Path, changes: list[tuple[str, int, bytes]]) -> Path:
    state = scratch / "state"
    shutil.copyfile(before, state)
    with state.open("r+b") as file:
        for what, at, data in changes:
            if what == "length":
                file.truncate(at)
            elif what == "write":
                file.seek(at)
                file.write(data)
    return state


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ("-b 4096", 500 * M),
        ("-b 1024", 900 * M),
        ("-b 4096 -O ^resize_inode", 9 * G),
        ("-b 1024 -O uninit_bg,^metadata_csum,^64bit -E resize=100000", 1 * G),
    ],
)
def test_cut_off_at_any_moment(options: str, size: int, tmp_path: Path, tools: judge.E2fsprogs) -> None:
    """Old or new, by e2fsck: as it is, or once the journal is replayed."""
    image = make(tmp_path / "image", 20 * M, options)
    content = random.Random(2).randbytes(300_000)
    (tmp_path / "content").write_bytes(content)
    tools.run("debugfs", "-w", "-R", f"write {tmp_path}/content file", str(image))
    old = numbers(image)["Block count"]
    found: dict[str, int] = {}
    decided = False
    new = None
    for name, state in snapshots(image, size, tmp_path):
        new = numbers(image)["Block count"]
        pending = "needs_recovery" in superblock(state)["Filesystem features"].split()
        looked = tools.run("e2fsck", "-fn", str(state))
        # Only while the blocks go to their places the file is neither, unless it is replayed.
        if name[0] not in "34":
            assert looked.returncode == 0, (name, looked.stdout)
        repaired = tools.run("e2fsck", "-p", str(state))
        assert repaired.returncode == (1 if pending and repaired.returncode else 0), (name, repaired.stdout)
        assert judge.complaints(state, tools) == [], name
        blocks = numbers(state)["Block count"]
        assert blocks in (old, new), name
        # Never back again.
        assert not (decided and blocks == old and "subset" not in name), name
        decided = decided or blocks == new
        found[name.split(":")[0]] = blocks
        assert tools.run("debugfs", "-R", "cat file", str(state)).stdout == content, name
    assert found["0"] == found["1"] == old
    assert found["3"] == found["7"] == new


@pytest.mark.root
def test_the_kernel_finishes_it(tmp_path: Path, tools: judge.E2fsprogs) -> None:
    """Decided and not carried out: a mount does it."""
    image = make(tmp_path / "image", 20 * M, "-b 4096")
    for name, state in snapshots(image, 500 * M, tmp_path):
        if name[0] in "34":
            with writable(state, tmp_path) as (mounted, _):
                (mounted / "file").write_bytes(b"written")
            assert tools.run("e2fsck", "-fp", str(state)).returncode in (0, 1), name
            assert judge.complaints(state, tools) == []
            assert numbers(state) == numbers(image)


@pytest.mark.root
@pytest.mark.parametrize("options", ["-b 4096", "-b 1024 -O ^64bit", "-b 4096 -O ^64bit,^metadata_csum"])
def test_a_journal_that_the_kernel_used(options: str, tmp_path: Path, tools: judge.E2fsprogs) -> None:
    """It has checksums where the file system has them, and old transactions in it."""
    image = make(tmp_path / "image", 20 * M, options)
    with writable(image, tmp_path) as (mounted, _):
        for number in range(40):
            with (mounted / f"{number}").open("wb") as file:
                file.write(b"n" * 3000)
                file.flush()
                os.fsync(file.fileno())
    journal = tools.run("dumpe2fs", "-h", str(image)).stdout.decode()
    assert ("journal_checksum_v3" in journal) == ("^metadata_csum" not in options), journal
    replayed = 0
    for name, state in snapshots(image, 500 * M, tmp_path):
        if name[0] not in "34":
            continue
        by_kernel = tmp_path / "by_kernel"
        shutil.copyfile(state, by_kernel)
        assert tools.run("e2fsck", "-p", str(state)).returncode in (0, 1), name
        with writable(by_kernel, tmp_path) as (mounted, _):
            assert (mounted / "39").read_bytes() == b"n" * 3000
        assert tools.run("e2fsck", "-fp", str(by_kernel)).returncode in (0, 1), name
        for one in (state, by_kernel):
            assert judge.complaints(one, tools) == [], name
            assert numbers(one) == numbers(image), name
        replayed += 1
    assert replayed > 5


def refusal(image: Path, size: int | str) -> errors.LayermeltError:
    before = image.read_bytes()
    with pytest.raises(errors.LayermeltError) as caught:
        grow(image, size)
    assert image.read_bytes() == before
    return caught.value


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ("feature needs_recovery", "journal is still to be replayed"),
        ("set_super_value state 0", "not unmounted cleanly"),
        ("set_super_value state 3", "met errors"),
        ("set_super_value last_orphan 12", "orphans"),
    ],
)
def test_an_unclean_image_is_refused(
    request_: str, words: str, tmp_path: Path, tools: judge.E2fsprogs
) -> None:
    image = make(tmp_path / "image", 20 * M, "-b 4096")
    tools.run("debugfs", "-w", "-R", request_, str(image))
    error = refusal(image, "+1M")
    assert isinstance(error, errors.UncleanImageError), error
    assert words in str(error)
    assert "e2fsck -f" in str(error)


@pytest.mark.parametrize("feature", ["bigalloc", "mmp", "sparse_super2"])
def test_what_is_not_grown_is_said(feature: str, tmp_path: Path) -> None:
    image = make(tmp_path / "image", 20 * M, f"-O {feature},^resize_inode")
    error = refusal(image, "+1M")
    assert isinstance(error, errors.UnsupportedImageError)
    assert feature in str(error)


def test_sizes_that_cannot_be(tmp_path: Path) -> None:
    image = make(tmp_path / "image", 20 * M, "-b 4096 -O ^64bit,^metadata_csum")
    for size in (19 * M, "17T", "16T", "-1", "much", "+", 1 << 63):
        assert isinstance(refusal(image, size), errors.InvalidOptionError), size


def test_the_same_size_is_no_change(tmp_path: Path) -> None:
    image = make(tmp_path / "image", 20 * M, "-b 4096")
    before = image.read_bytes()
    for size in (20 * M, "max", "+0", 20 * M + 1):
        report = grow(image, size)
        assert (report.changed, report.method, report.written_bytes) == (False, "none", 0)
        assert image.read_bytes() == before


def test_a_damaged_image_is_refused(tmp_path: Path) -> None:
    image = make(tmp_path / "image", 20 * M, "-b 4096")
    with image.open("r+b") as file:
        file.seek(4096 + 20)
        file.write(b"\xff")
    assert type(refusal(image, "+1M")) is errors.UnsoundImageError
    image.write_bytes(b"nothing" * 1000)
    assert type(refusal(image, "+1M")) is errors.UnsoundImageError


@pytest.mark.root
def test_an_image_behind_a_loop_device_is_refused(tmp_path: Path) -> None:
    image = make(tmp_path / "image", 20 * M, "-b 4096")
    with kernel.loop_device(image) as device:
        error = refusal(image, "+1M")
    assert isinstance(error, errors.ImageBusyError)
    assert device in str(error)
    assert grow(image, "+1M").changed


@pytest.mark.root
def test_a_block_device_grows_to_its_size(tmp_path: Path, judge_image: Judge) -> None:
    """What lies beyond the old end is garbage there."""
    image = make(tmp_path / "image", 20 * M, "-b 4096")
    with image.open("r+b") as file:
        file.seek(20 * M)
        file.write(random.Random(1).randbytes(M) * 280)
    with kernel.loop_device(image, writable=True) as device:
        with pytest.raises(errors.InvalidOptionError):
            layermelt.grow_image(device, G)
        report = layermelt.grow_image(device, "max")
    assert report.new.size == 300 * M
    judge_image(image)
    with writable(image, tmp_path) as (mounted, mounted_device):
        with pytest.raises(errors.ImageBusyError):
            layermelt.grow_image(mounted_device, "max")
        for number in range(3000):
            (mounted / f"{number}").write_bytes(b"n" * 50_000)
    judge_image(image)


def test_garbage_behind_the_end_of_a_file_does_no_harm(tmp_path: Path, judge_image: Judge) -> None:
    for options in ("-b 4096", "-b 1024 -O ^metadata_csum,^uninit_bg"):
        image = make(tmp_path / "image", 20 * M, options)
        with image.open("r+b") as file:
            file.seek(20 * M)
            file.write(random.Random(1).randbytes(M) * 280)
        grow(image, "max")
        judge_image(image)


def test_a_copy_keeps_owner_and_mode(tmp_path: Path, judge_image: Judge) -> None:
    image = make(tmp_path / "image", 20 * M, MAKES["no-journal"])
    image.chmod(0o640)
    before = image.stat()
    (tmp_path / "link").symlink_to("image")
    report = grow(tmp_path / "link", "+9M")
    assert (report.method, report.reason) == ("copy", "the image has no journal")
    after = image.stat()
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert after.st_size == 29 * M
    assert sorted(os.listdir(tmp_path)) == ["image", "link"]
    judge_image(image)


def test_command(tmp_path: Path) -> None:
    import json

    image = make(tmp_path / "image", 20 * M, "-b 4096")
    done = product.run(product.command("grow", image, "64M", "--json"))
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["new"]["size"] == 64 * M
    assert told["method"] == "journal"
    assert "grown from 20.0 MiB to 64.0 MiB" in done.stderr
    again = product.run(product.command("grow", image, "64M"))
    assert (again.returncode, again.stdout) == (0, f"{image}\n")
    assert "nothing was changed" in again.stderr
    assert product.run(product.command("grow", image, "1M")).returncode == 2
    assert product.run(product.command("grow", tmp_path / "none", "1M")).returncode == 9
