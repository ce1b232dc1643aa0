"""Same input, same bytes: whatever the threads, the store and its order."""

from __future__ import annotations

import os
import random
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from integration.conftest import Stores
from integration.oracle import chains, mounts, product
from integration.oracle.chains import Claims
from integration.oracle.dump import content_of_file
from integration.oracle.layer import Chain

pytestmark = pytest.mark.root

CASES = chains.load()


def large(chain: Chain) -> Claims:
    """Enough files, of sizes enough, that threads really share the work."""
    numbers = random.Random(7)
    for _ in range(3):
        layer = chain.layer()
        for number in range(700):
            size = numbers.choice((0, 1, 300, 4096, 5000, 70_000))
            layer.file(f"d{number % 13}/e{number % 7}/{number}", numbers.randbytes(size))
        layer.link("d0/e0/0", f"linked{layer.number}")
        layer.file(f"big{layer.number}", numbers.randbytes(9 << 20))
    return {}


#: Chains that every store can hold.
CHAINS: dict[str, Callable[[Chain], Claims]] = {
    "large": large,
    **{
        name: CASES[name].make
        for name in (
            "directory_of_many_blocks",
            "every_kind_over_every_kind",
            "every_namespace_on_every_kind",
            "groups_of_several_layers_side_by_side",
            "links_of_every_kind",
            "metacopies_that_share_one_data_file",
            "names_of_any_bytes",
            "posix_acls",
            "redirect_chain_of_absolute_and_relative",
            "whiteout_in_the_middle_hides_only_below",
            "xattrs_in_inode_and_block",
            "xattrs_shared_by_many_inodes",
        )
    },
}


@pytest.fixture(params=CHAINS)
def made(request: pytest.FixtureRequest, stores: Stores) -> list[Path]:
    """The layers of one chain, on ext4."""
    chain = Chain(stores("ext4") / "chain", "ext4")
    CHAINS[request.param](chain)
    return chain.finish()


def image_digest(layers: list[Path], output: Path, threads: int) -> str:
    product.build(layers, output, threads=threads)
    try:
        return f"{output.stat().st_size} bytes, {content_of_file(output)}"
    finally:
        output.unlink()


def test_threads_do_not_matter(made: list[Path], tmp_path: Path) -> None:
    found = {
        f"{threads} threads, build {again}": image_digest(made, tmp_path / f"{again}.ext4", threads)
        for threads in (1, 2, 8)
        for again in (1, 2)
    }
    assert len(set(found.values())) == 1, found


@pytest.mark.parametrize("fs", ["ext4", "xfs", "btrfs", "tmpfs"])
def test_another_store_filled_in_another_order(
    fs: str, made: list[Path], stores: Stores, tmp_path: Path
) -> None:
    with store_of(fs, stores, tmp_path) as store:
        copies = [store / layer.name for layer in made]
        for original, copy in reversed(list(zip(made, copies, strict=True))):
            copy_in_another_order(os.fsencode(original), os.fsencode(copy))
        one = image_digest(made, tmp_path / "one.ext4", 2)
        two = image_digest(copies, tmp_path / "two.ext4", 2)
    assert one == two


@contextmanager
def store_of(fs: str, stores: Stores, scratch: Path) -> Iterator[Path]:
    """A directory on a file system of the given kind."""
    if fs == "tmpfs":
        with mounts.tmpfs(scratch, size="512m") as mounted:
            yield mounted
    else:
        yield stores(fs)


CHANGES: dict[str, Callable[[bytes], None]] = {
    "mtime by 1 ns": lambda f: os.utime(f, ns=(0, os.stat(f).st_mtime_ns + 1)),
    "mode": lambda f: os.chmod(f, 0o640),
    "owner": lambda f: os.chown(f, 3, 4),
    "xattr": lambda f: os.setxattr(f, "user.x", b""),
    "name": lambda f: os.rename(f, f + b"2"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_another_input_gives_other_bytes(change: str, stores: Stores, tmp_path: Path) -> None:
    """Else a constant image would pass all the tests above."""
    chain = Chain(stores("ext4") / "chain", "ext4")
    layer = chain.layer()
    layer.file("f")
    layers = chain.finish()
    root_time = os.stat(layers[0]).st_mtime_ns
    before = image_digest(layers, tmp_path / "before.ext4", 2)
    CHANGES[change](layer.at("f"))
    os.utime(layers[0], ns=(root_time, root_time))
    assert image_digest(layers, tmp_path / "after.ext4", 2) != before


# -- a copy that shares nothing with its original but what counts


def copy_in_another_order(original: bytes, copy: bytes) -> None:
    """Copies a tree: other inode numbers, other order of names in directories."""
    first_names: dict[int, bytes] = {}
    times: list[tuple[bytes, int]] = []
    for source in sorted(_walk(original), key=_reversed_depth_first):
        target = copy + source[len(original) :]
        status = os.stat(source, follow_symlinks=False)
        if status.st_nlink > 1 and status.st_ino in first_names:
            os.link(first_names[status.st_ino], target, follow_symlinks=False)
            continue
        if not stat.S_ISDIR(status.st_mode):
            first_names[status.st_ino] = target
        _copy_node(source, target, status)
        times.append((target, status.st_mtime_ns))
    for target, mtime in times:
        os.utime(target, ns=(mtime, mtime), follow_symlinks=False)


def _walk(directory: bytes) -> Iterator[bytes]:
    yield directory
    for entry in os.scandir(directory):
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(entry.path)
        else:
            yield entry.path


def _reversed_depth_first(path: bytes) -> tuple[int, bytes]:
    """Parents before children; among siblings the last name first."""
    return path.count(b"/"), bytes(255 - byte for byte in path) + b"\xff"


def _copy_node(source: bytes, target: bytes, status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        os.mkdir(target)
    elif stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(source), target)
    elif stat.S_ISREG(status.st_mode):
        with open(source, "rb") as reading, open(target, "xb") as writing:
            writing.write(reading.read())
    else:
        os.mknod(target, status.st_mode, status.st_rdev)
    os.chown(target, status.st_uid, status.st_gid, follow_symlinks=False)
    if not stat.S_ISLNK(status.st_mode):
        os.chmod(target, stat.S_IMODE(status.st_mode))
    for name in os.listxattr(source, follow_symlinks=False):
        os.setxattr(target, name, os.getxattr(source, name, follow_symlinks=False), follow_symlinks=False)
