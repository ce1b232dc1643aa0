"""Stores that fuse-overlayfs wrote: marks that the kernel does not know.

The kernel cannot judge them. Each is made twice: as fuse-overlayfs writes it,
in a containers-storage layout that says so, and with the kernel's own marks;
the image of the one must be what the kernel shows of the other.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from integration.conftest import Judge, Stores
from integration.oracle import mounts, product
from integration.oracle.compare import differences, report
from integration.oracle.dump import dump
from integration.oracle.layer import Chain, Layer

pytestmark = pytest.mark.root


def opaque_as_root(top: Layer, native: bool) -> None:
    """All three marks, as fuse-overlayfs 1.10 makes them."""
    top.directory("d", opaque=b"y")
    top.file("d/new")
    if not native:
        top.file("d/.wh..wh..opq", b"", mode=0o700)
        top.node("d/.wh..opq", "char", 0, 0)


def opaque_in_a_user_namespace(top: Layer, native: bool) -> None:
    top.directory("d", opaque=b"y" if native else None)
    if not native:
        os.setxattr(top.at("d"), "user.fuseoverlayfs.opaque", b"y")
    top.file("d/new")


def opaque_by_the_file_only(top: Layer, native: bool) -> None:
    top.directory("d", opaque=b"y" if native else None)
    top.file("d/new")
    if not native:
        top.file("d/.wh..wh..opq", b"", mode=0o700)


def whiteouts_by_device(top: Layer, native: bool) -> None:
    assert native is not None
    top.whiteout("f")
    top.whiteout("d/sub")


def whiteouts_by_name(top: Layer, native: bool) -> None:
    for path in ("f", "d/sub", "d/nothing"):
        if native:
            top.whiteout(path)
        else:
            directory, _, name = path.rpartition("/")
            top.file(os.path.join(directory, f".wh.{name}"), b"", mode=0)


def a_name_beside_its_whiteout(top: Layer, native: bool) -> None:
    """In one layer the file is the newer one; what lies below it is gone."""
    top.file("f", b"newer")
    top.directory("d/sub", opaque=b"y" if native else None)
    top.file("d/sub/newer")
    if not native:
        top.file(".wh.f", b"")
        top.file("d/sub/.wh..wh..opq", b"")


def its_own_attributes(top: Layer, native: bool) -> None:
    marks = {} if native else {"user.fuseoverlayfs.origin": b"x"}
    top.file("f", xattrs={"user.kept": b"1", **marks})


MAKERS = [
    opaque_as_root,
    opaque_in_a_user_namespace,
    opaque_by_the_file_only,
    whiteouts_by_device,
    whiteouts_by_name,
    a_name_beside_its_whiteout,
    its_own_attributes,
]


def make(directory: Path, maker: Callable[[Layer, bool], None], *, native: bool) -> list[Path]:
    chain = Chain(directory, "ext4")
    base, top = chain.two()
    base.file("f")
    base.file("d/below")
    base.file("d/sub/below")
    base.file("kept/x")
    maker(top, native)
    return chain.finish()


def containers_storage(layers: list[Path], root: Path, *, mount_program: bool) -> Path:
    """Moves the layers into a store; the top one's directory in it."""
    overlay = root / "overlay"
    (overlay / "l").mkdir(parents=True)
    if mount_program:
        (overlay / ".has-mount-program").write_text("true")
    lower: list[str] = []
    records = []
    for number, layer in enumerate(layers):
        identity = f"{number:064x}"
        link = f"LINK{number:022}"
        one = overlay / identity
        one.mkdir()
        layer.rename(one / "diff")
        (one / "link").write_text(link)
        (overlay / "l" / link).symlink_to(f"../{identity}/diff")
        if lower:
            (one / "lower").write_text(":".join(lower))
            (one / "work").mkdir()
        else:
            (one / "empty").mkdir()
        parent = {"parent": f"{number - 1:064x}"} if number else {}
        records.append({"id": identity, **parent})
        lower.insert(0, f"l/{link}")
    (root / "overlay-layers").mkdir()
    (root / "overlay-layers/layers.json").write_text(json.dumps(records))
    return overlay / f"{len(layers) - 1:064x}"


@pytest.mark.parametrize("maker", MAKERS, ids=lambda maker: maker.__name__)
def test_image_is_what_the_kernels_own_marks_show(
    maker: Callable[[Layer, bool], None], stores: Stores, tmp_path: Path, judge_image: Judge
) -> None:
    store = stores("ext4")
    native = make(store / "native", maker, native=True)
    written = make(store / "fuse", maker, native=False)
    source = containers_storage(written, store / "storage", mount_program=True)
    output = tmp_path / "image.ext4"
    product.build_source(source, output)
    judge_image(output)
    with mounts.overlay(native) as merged:
        kernel_view = dump(merged)
    with mounts.image(output) as mounted:
        lines = differences(kernel_view, dump(mounted))
    assert not lines, report(lines)


def test_without_a_mount_program_the_names_are_ordinary(stores: Stores, tmp_path: Path) -> None:
    """Never guessed: a store of the kernel's keeps its .wh. files."""
    store = stores("ext4")
    written = make(store / "chain", whiteouts_by_name, native=False)
    source = containers_storage(written, store / "storage", mount_program=False)
    output = tmp_path / "image.ext4"
    product.build_source(source, output)
    with mounts.image(output) as mounted:
        entries = dump(mounted).entries
    assert {b"f", b".wh.f", b"d/.wh.sub", b"d/sub/below"} <= entries.keys()
