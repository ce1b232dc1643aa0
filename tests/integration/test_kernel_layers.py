"""Where the layers are: odd paths, layers in one another, mounts inside one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from integration.conftest import Judge, Stores
from integration.oracle import kernel, mounts, product
from integration.oracle.compare import differences, report
from integration.oracle.dump import dump
from integration.oracle.layer import Chain
from layermelt import errors

pytestmark = pytest.mark.root


def kernel_refuses(layers: list[Path]) -> bool:
    """Whether there is no overlay of these layers at all."""
    try:
        with mounts.overlay(layers):
            return False
    except OSError:
        return True


@pytest.mark.parametrize(
    "name",
    [b"with:colon", b"with,comma", b"with space\n", b"\xff\xfe", b"back\\slash", b"-option", b"n" * 255],
)
def test_layers_at_odd_paths(name: bytes, stores: Stores, tmp_path: Path, judge_image: Judge) -> None:
    directory = stores("ext4") / os.fsdecode(name)
    chain = Chain(directory, "ext4")
    base, top = chain.two()
    base.file("d/x")
    base.file("gone")
    top.file("d/y")
    top.whiteout("gone")
    layers = chain.finish()
    output = tmp_path / os.fsdecode(name[:200] + b".ext4")
    done = product.run(product.build_command(layers, output, "--no-sync"))
    assert done.returncode == 0, done.stderr
    judge_image(output)
    with mounts.overlay(layers) as merged, mounts.image(output) as mounted:
        lines = differences(dump(merged), dump(mounted))
    assert not lines, report(lines)


def test_layers_named_by_links_and_relative_paths(
    stores: Stores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A layer may be named as any directory is; only inside no link is followed."""
    chain = Chain(stores("ext4") / "chain", "ext4")
    base, top = chain.two()
    base.file("d/x")
    top.file("d/y")
    layers = chain.finish()
    (tmp_path / "link").symlink_to(layers[0])
    monkeypatch.chdir(layers[1].parent)
    product.build([tmp_path / "link", Path(layers[1].name)], tmp_path / "image.ext4")
    with mounts.overlay(layers) as merged, mounts.image(tmp_path / "image.ext4") as mounted:
        lines = differences(dump(merged), dump(mounted))
    assert not lines, report(lines)


@pytest.mark.parametrize("nested", ["twice", "below", "above"])
def test_layers_in_one_another(nested: str, stores: Stores, tmp_path: Path) -> None:
    """The kernel mounts no layer that lies in another one, nor one twice."""
    chain = Chain(stores("ext4") / "chain", "ext4")
    base, top = chain.two()
    base.file("inner/x")
    top.file("y")
    first, second = chain.finish()
    layers = {
        "twice": [first, second, first],
        "below": [first, first / "inner"],
        "above": [first / "inner", second, first],
    }[nested]
    assert kernel_refuses(layers)
    message = product.refusal(layers, tmp_path / "image.ext4")
    assert str(first) in message


@pytest.mark.parametrize("over", ["directory", "file"])
def test_mount_inside_a_layer(over: str, stores: Stores, tmp_path: Path) -> None:
    """What is mounted in a layer is no part of it: the kernel looks below it.

    Below it we cannot look; then it must be an error, and never the contents
    of another file system.
    """
    chain = Chain(stores("ext4") / "chain", "ext4")
    base, top = chain.two()
    base.file("d/own")
    base.file("f", b"own")
    top.file("x")
    layers = chain.finish()
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "secret").write_bytes(b"of another file system")
    mounted_on = layers[0] / ("d" if over == "directory" else "f")
    source = foreign if over == "directory" else foreign / "secret"
    kernel.mount(str(source), mounted_on, None, kernel.MS_BIND)
    try:
        with mounts.overlay(layers) as merged:
            kernel_view = dump(merged)
        message = ""
        try:
            product.build(layers, tmp_path / "image.ext4")
        except errors.LayermeltError as error:
            message = str(error)
    finally:
        kernel.unmount(mounted_on)
    assert b"d/secret" not in kernel_view.entries
    if message:
        assert str(mounted_on) in message
        return
    with mounts.image(tmp_path / "image.ext4") as mounted:
        lines = differences(kernel_view, dump(mounted))
    assert not lines, report(lines)


def test_more_names_than_ext4_counts(stores: Stores, tmp_path: Path, judge_image: Judge) -> None:
    """ext4 allows 65,000 names of one inode; XFS took one more, so there are two in the image."""
    names = 65_001
    chain = Chain(stores("xfs") / "chain", "xfs")
    layer = chain.layer()
    layer.file("f", b"shared", xattrs={"user.a": b"1"})
    layer.directory("d")
    directory = os.open(layer.at("d"), os.O_RDONLY)
    try:
        for number in range(1, names):
            os.link(layer.at("f"), str(number), dst_dir_fd=directory)
    finally:
        os.close(directory)
    layers = chain.finish()
    output = tmp_path / "image.ext4"
    result = product.build(layers, output)
    assert [w for w in result.warnings if f"{names} hard links" in w and "2 equal files" in w]
    judge_image(output)
    wanted = os.stat(layer.at("f"))
    with mounts.image(output) as mounted:
        counts: dict[int, int] = {}
        for path in [mounted / "f", *(mounted / "d").iterdir()]:
            found = path.stat()
            counts[found.st_ino] = counts.get(found.st_ino, 0) + 1
            if counts[found.st_ino] == 1:
                assert path.read_bytes() == b"shared"
                assert os.getxattr(path, "user.a") == b"1"
                assert found.st_mtime_ns == wanted.st_mtime_ns
                assert (found.st_mode, found.st_uid) == (wanted.st_mode, wanted.st_uid)
                assert found.st_nlink in (65_000, 1)
    assert sorted(counts.values()) == [1, 65_000]
