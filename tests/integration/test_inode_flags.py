"""Flags that `chattr` sets: the image has those that the kernel's overlay shows.

The overlay shows the flags of the inode that gives the metadata: a metacopy's,
not those of its data; the top one's of merged directories.
"""

from __future__ import annotations

import fcntl
import os
import stat
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from integration.conftest import Judge, Stores
from integration.oracle import core, kernel, mounts
from integration.oracle.compare import differences, report
from integration.oracle.dump import dump
from integration.oracle.layer import Chain, Layer
from layermelt import _core

pytestmark = pytest.mark.root

FLAGS = {"immutable": 0x10, "append": 0x20, "nodump": 0x40, "noatime": 0x80}
KEPT = sum(FLAGS.values())


def set_flags(path: bytes, flags: int) -> None:
    """What ``chattr =...`` does, but for flags that are not ours to set."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        now = struct.unpack("=i", fcntl.ioctl(fd, kernel.FS_IOC_GETFLAGS, bytes(4)))[0]
        fcntl.ioctl(fd, kernel.FS_IOC_SETFLAGS, struct.pack("=i", now & ~KEPT | flags))
    finally:
        os.close(fd)


def flags_below(root: Path) -> dict[str, int]:
    """The flags of every file and directory that has some, as the kernel tells them."""
    found = {}
    for directory, _, files in os.walk(root):
        for name in [".", *files]:
            path = os.path.join(directory, name)
            if not stat.S_ISREG(os.lstat(path).st_mode) and name != ".":
                continue
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                flags = struct.unpack("=i", fcntl.ioctl(fd, kernel.FS_IOC_GETFLAGS, bytes(4)))[0]
            finally:
                os.close(fd)
            if flags & KEPT:
                found[os.path.normpath(os.path.relpath(path, root))] = flags & KEPT
    return found


class Flagged:
    """Sets flags and takes them away, so that the layers can be removed."""

    def __init__(self) -> None:
        self._set: list[bytes] = []

    def set(self, layer: Layer, path: str, flags: int) -> None:
        set_flags(layer.at(path), flags)
        self._set.append(layer.at(path))

    def clear(self) -> None:
        for path in self._set:
            set_flags(path, 0)


@pytest.fixture
def flagged() -> Iterator[Flagged]:
    all_set = Flagged()
    yield all_set
    all_set.clear()


def made(chain: Chain, flagged: Flagged) -> list[Path]:
    base, top = chain.two()
    every = [*FLAGS.values(), FLAGS["immutable"] | FLAGS["nodump"], KEPT]
    for flags in every:
        for layer in (base, top):
            layer.file(f"f{layer.number}-{flags:x}", b"data")
            layer.file(f"d{layer.number}-{flags:x}/in")
        base.directory(f"merged{flags:x}")
        top.directory(f"merged{flags:x}")
        base.file(f"hidden{flags:x}")
        top.file(f"hidden{flags:x}")
    base.directory("base-flag")
    top.directory("base-flag")
    base.file("plain")
    base.symlink("link", "plain")
    base.node("fifo", "fifo")
    base.file("meta", b"from below")
    # A metacopy has flags of its own, and so has its data.
    top.file("meta", size=10, xattrs={"trusted.overlay.metacopy": b""})
    # What a container's layer keeps of `chattr +i` shows while it is the
    # upper one, and not among the lower ones.
    top.file("protattr", xattrs={"trusted.overlay.protattr": b"i"})
    layers = chain.finish()
    for flags in every:
        for layer in (base, top):
            flagged.set(layer, f"f{layer.number}-{flags:x}", flags)
            flagged.set(layer, f"d{layer.number}-{flags:x}", flags)
        flagged.set(top, f"merged{flags:x}", flags)
        flagged.set(base, f"hidden{flags:x}", flags)
    flagged.set(base, "base-flag", KEPT)
    flagged.set(base, "meta", FLAGS["immutable"])
    flagged.set(top, "meta", FLAGS["nodump"])
    flagged.set(top, "", FLAGS["noatime"])
    return layers


@pytest.mark.parametrize("fs", ["ext4", "xfs", "btrfs"])
def test_flags_are_what_the_overlay_shows(
    fs: str, stores: Stores, tmp_path: Path, judge_image: Judge, flagged: Flagged
) -> None:
    layers = made(Chain(stores(fs) / "chain", fs), flagged)
    with mounts.overlay(layers, metacopy=True) as merged:
        expected = flags_below(merged)
        kernel_view = dump(merged)
    assert expected["meta"] == FLAGS["nodump"]
    assert expected["."] == FLAGS["noatime"]
    assert "protattr" not in expected
    assert "base-flag" not in expected
    assert len(expected) == 6 * 5 + 2
    with_flags, without = tmp_path / "with.ext4", tmp_path / "without.ext4"
    core.build(layers, with_flags, inode_flags=True)
    core.build(layers, without)
    for image, wanted in ((with_flags, expected), (without, {})):
        judge_image(image)
        with mounts.image(image) as mounted:
            assert flags_below(mounted) == wanted
            lines = differences(kernel_view, dump(mounted))
        assert not lines, report(lines)


def test_the_image_s_kernel_obeys_them(stores: Stores, tmp_path: Path, flagged: Flagged) -> None:
    layers = made(Chain(stores("ext4") / "chain", "ext4"), flagged)
    image = tmp_path / "image.ext4"
    core.build(layers, image, inode_flags=True)
    target = tmp_path / "mounted"
    target.mkdir()
    with kernel.loop_device(image, writable=True) as device:
        kernel.mount(device, target, "ext4")
    try:
        with pytest.raises(PermissionError):
            (target / "f0-10").write_bytes(b"new")
        with pytest.raises(PermissionError):
            (target / "d1-10/new").touch()
        with (target / "f0-20").open("ab") as file:
            file.write(b" and more")
        assert (target / "f0-20").read_bytes() == b"data and more"
        (target / "f0-40").write_bytes(b"new")
    finally:
        kernel.unmount(target)


def test_file_systems_without_flags_have_none(tmp_path: Path, stores: Stores) -> None:
    """An old tmpfs knows no flags, a newer one only some: neither is an error."""
    with mounts.tmpfs(tmp_path, size="64m") as store:
        (store / "layer/d").mkdir(parents=True)
        (store / "layer/f").write_bytes(b"data")
        core.build([store / "layer"], tmp_path / "image.ext4", inode_flags=True)
    with mounts.image(tmp_path / "image.ext4") as mounted:
        assert flags_below(mounted) == {}
        assert (mounted / "f").read_bytes() == b"data"


def test_digests_tell_flags_only_when_asked(stores: Stores, flagged: Flagged) -> None:
    chain = Chain(stores("ext4") / "chain", "ext4")
    layer = chain.layer()
    layer.file("f", b"data")
    layer.directory("d")
    (path,) = chain.finish()

    def digests(inode_flags: bool) -> list[bytes]:
        at_once = {"threads": 2, "progress": None, "inode_flags": inode_flags}
        both = {"userxattr": False, "fuse_overlayfs": False, **at_once}
        return [
            _core.layer_digest(str(path), **at_once),  # type: ignore[arg-type]
            _core.chain_digest([str(path)], **both),  # type: ignore[arg-type]
        ]

    plain = digests(inode_flags=False)
    assert digests(inode_flags=True) == plain, "no flags: one digest"
    seen = [plain]
    for name in ("f", "d", ""):
        flagged.set(layer, name, FLAGS["nodump"])
        assert digests(inode_flags=False) == plain
        told = digests(inode_flags=True)
        assert all(told[n] not in [one[n] for one in seen] for n in (0, 1))
        seen.append(told)
    flagged.set(layer, "f", FLAGS["immutable"])
    assert digests(inode_flags=True) != seen[-1]
