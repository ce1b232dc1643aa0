"""Flags that `chattr` sets: the image has those that the kernel's overlay shows.

The overlay shows the flags of the inode that gives the metadata: a metacopy's,
not those of its data; the top one's of merged directories.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from integration.conftest import Judge, Stores
from integration.oracle import core, kernel, mounts
from integration.oracle.compare import differences, report
from integration.oracle.dump import dump, inode_flags
from integration.oracle.layer import Chain
from layermelt import _core

pytestmark = pytest.mark.root

FLAGS = {
    "immutable": kernel.FS_IMMUTABLE_FL,
    "append": kernel.FS_APPEND_FL,
    "nodump": kernel.FS_NODUMP_FL,
    "noatime": kernel.FS_NOATIME_FL,
}
KEPT = sum(FLAGS.values())

Chains = Callable[[Path, str], Chain]


@pytest.fixture
def chains() -> Iterator[Chains]:
    """Makes chains whose flags are taken away at last, so that the layers can be removed."""
    made_ones: list[Chain] = []

    def make(directory: Path, fs: str) -> Chain:
        made_ones.append(Chain(directory, fs))
        return made_ones[-1]

    yield make
    for chain in made_ones:
        chain.unlock()


def made(chain: Chain) -> list[Path]:
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
    for flags in every:
        for layer in (base, top):
            layer.flags(f"f{layer.number}-{flags:x}", flags)
            layer.flags(f"d{layer.number}-{flags:x}", flags)
        top.flags(f"merged{flags:x}", flags)
        base.flags(f"hidden{flags:x}", flags)
    base.flags("base-flag", KEPT)
    base.flags("meta", FLAGS["immutable"])
    top.flags("meta", FLAGS["nodump"])
    top.flags("", FLAGS["noatime"])
    return chain.finish()


@pytest.mark.parametrize("fs", ["ext4", "xfs", "btrfs"])
def test_flags_are_what_the_overlay_shows(
    fs: str, stores: Stores, tmp_path: Path, judge_image: Judge, chains: Chains
) -> None:
    layers = made(chains(stores(fs) / "chain", fs))
    with mounts.overlay(layers, metacopy=True) as merged:
        expected = inode_flags(merged)
        kernel_view = dump(merged)
    assert expected[b"meta"] == FLAGS["nodump"]
    assert expected[b""] == FLAGS["noatime"]
    assert b"protattr" not in expected
    assert b"base-flag" not in expected
    assert len(expected) == 6 * 5 + 2
    with_flags, without = tmp_path / "with.ext4", tmp_path / "without.ext4"
    core.build(layers, with_flags, inode_flags=True)
    core.build(layers, without)
    for image, wanted in ((with_flags, expected), (without, {})):
        judge_image(image)
        with mounts.image(image) as mounted:
            assert inode_flags(mounted) == wanted
            lines = differences(kernel_view, dump(mounted))
        assert not lines, report(lines)


def test_the_image_s_kernel_obeys_them(stores: Stores, tmp_path: Path, chains: Chains) -> None:
    layers = made(chains(stores("ext4") / "chain", "ext4"))
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


@pytest.mark.parametrize("fs", ["tmpfs", "ramfs"])
def test_file_systems_without_flags_have_none(fs: str, tmp_path: Path) -> None:
    """ramfs and an old tmpfs know no flags, a newer tmpfs only some: neither is an error."""
    store = tmp_path / "store"
    store.mkdir()
    kernel.mount(fs, store, fs)
    try:
        (store / "layer/d").mkdir(parents=True)
        (store / "layer/f").write_bytes(b"data")
        core.build([store / "layer"], tmp_path / "image.ext4", inode_flags=True)
    finally:
        kernel.unmount(store)
    with mounts.image(tmp_path / "image.ext4") as mounted:
        assert inode_flags(mounted) == {}
        assert (mounted / "f").read_bytes() == b"data"


def test_digests_tell_flags_only_when_asked(stores: Stores, chains: Chains) -> None:
    chain = chains(stores("ext4") / "chain", "ext4")
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
        layer.flags(name, FLAGS["nodump"])
        layer.finish()
        assert digests(inode_flags=False) == plain
        told = digests(inode_flags=True)
        assert all(told[n] not in [one[n] for one in seen] for n in (0, 1))
        seen.append(told)
    layer.flags("f", FLAGS["immutable"])
    layer.finish()
    assert digests(inode_flags=True) != seen[-1]
