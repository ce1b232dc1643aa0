"""The judge judged: the comparison must catch each single planted difference."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from integration.conftest import Stores
from integration.oracle import chains, kernel, mounts, promises
from integration.oracle.compare import differences, report
from integration.oracle.dump import dump
from integration.oracle.layer import CAP_NET_RAW, RICH_ACL, Layer

pytestmark = pytest.mark.root


def everything(layer: Layer) -> None:
    """A tree with one of everything."""
    layer.file("f", b"data", xattrs={"user.a": b"1"})
    layer.file("cap", xattrs={"security.capability": CAP_NET_RAW})
    layer.file("acl", xattrs={"system.posix_acl_access": RICH_ACL})
    layer.file("linked")
    layer.link("linked", "d/link")
    layer.file("alone", b"same")
    layer.file("alone2", b"same", uid=1000, gid=2000)
    layer.file("sparse", pieces={1 << 20: b"x"}, size=2 << 20)
    layer.symlink("s", "target", xattrs={"trusted.x": b"1"})
    layer.node("c", "char", 1, 3)
    layer.node("b", "block", 7, 0)
    layer.node("p", "fifo")
    layer.node("k", "socket")
    layer.directory("e", xattrs={"system.posix_acl_default": RICH_ACL})
    layer.file(b"d/odd \xff\n name")


def _remake(layer: Layer, path: str, make: Callable[[Layer], None]) -> None:
    os.unlink(layer.at(path))
    make(layer)


def _remove(layer: Layer, path: str | bytes) -> None:
    os.unlink(layer.at(path))
    layer.forget(path)


def _set(path: str, name: str, value: bytes) -> Callable[[Layer], None]:
    return lambda layer: os.setxattr(layer.at(path), name, value, follow_symlinks=False)


def _next_ns(path: str) -> Callable[[Layer], None]:
    def change(layer: Layer) -> None:
        layer.finish()
        status = os.stat(layer.at(path), follow_symlinks=False)
        layer.time(path, status.st_mtime_ns + 1)

    return change


#: What is changed in the copy, and the words that must be in the only report.
PLANTED: dict[str, tuple[Callable[[Layer], object], list[str]]] = {
    "mode": (lambda c: os.chmod(c.at("f"), 0o645), ["/f: mode"]),
    "setuid": (lambda c: os.chmod(c.at("f"), 0o4644), ["/f: mode"]),
    "mode of the root": (lambda c: os.chmod(c.root, 0o754), ["/: mode"]),
    "uid": (lambda c: os.lchown(c.at("s"), 1, -1), ["/s: uid"]),
    "gid": (lambda c: os.lchown(c.at("p"), -1, 1), ["/p: gid"]),
    "mtime of a file": (_next_ns("f"), ["/f: mtime_ns"]),
    "mtime of a symlink": (_next_ns("s"), ["/s: mtime_ns"]),
    "mtime of a directory": (_next_ns("d"), ["/d: mtime_ns"]),
    "mtime of the root": (_next_ns(""), ["/: mtime_ns"]),
    "one byte": (lambda c: Path(os.fsdecode(c.at("f"))).write_bytes(b"dat\0"), ["/f: content"]),
    "a longer file": (
        lambda c: os.truncate(c.at("f"), 5),
        ["/f: size"],
    ),
    "xattr value": (_set("f", "user.a", b"2"), ["/f: xattrs"]),
    "xattr more": (_set("f", "user.b", b""), ["/f: xattrs"]),
    "xattr less": (lambda c: os.removexattr(c.at("f"), "user.a"), ["/f: xattrs"]),
    "xattr of a symlink": (_set("s", "trusted.x", b"2"), ["/s: xattrs"]),
    "xfs' own ACL": (_set("f", "trusted.SGI_ACL_FILE", b"acl"), ["/f: xattrs"]),
    "xattr of the root": (_set("", "trusted.x", b"2"), ["/: xattrs"]),
    "capability": (
        lambda c: os.removexattr(c.at("cap"), "security.capability"),
        ["/cap: xattrs"],
    ),
    "default ACL": (
        lambda c: os.removexattr(c.at("e"), "system.posix_acl_default"),
        ["/e: xattrs"],
    ),
    "target": (
        lambda c: _remake(c, "s", lambda x: x.symlink("s", "Target", xattrs={"trusted.x": b"1"})),
        ["/s: target"],
    ),
    "minor": (lambda c: _remake(c, "c", lambda x: x.node("c", "char", 1, 4)), ["/c: rdev"]),
    "major": (lambda c: _remake(c, "b", lambda x: x.node("b", "block", 8, 0)), ["/b: rdev"]),
    "kind": (lambda c: _remake(c, "p", lambda x: x.node("p", "socket")), ["/p: kind"]),
    "missing": (lambda c: _remove(c, "k"), ["/k: MISSING"]),
    "missing odd name": (
        lambda c: _remove(c, b"d/odd \xff\n name"),
        ["name: MISSING"],
    ),
    "more": (lambda c: c.file("d/more"), ["/d/more: NOT in"]),
    "link broken": (
        lambda c: _remake(c, "d/link", lambda x: x.file("d/link", b"layer 0: linked\n")),
        ["/d/link: group", "/linked: group", "/d/link: mtime_ns"],
    ),
    "link joined": (
        lambda c: _remake(c, "alone2", lambda x: x.link("alone", "alone2")),
        ["/alone: group", "/alone2: group"],
    ),
    "hole lost": (
        lambda c: _write_zeros(c.at("sparse"), 1 << 20),
        ["/sparse: uses"],
    ),
}


def _write_zeros(path: bytes, count: int) -> None:
    fd = os.open(path, os.O_WRONLY)
    try:
        os.pwrite(fd, bytes(count), 0)
        os.fsync(fd)
    finally:
        os.close(fd)


def test_equal_trees_are_equal(stores: Stores) -> None:
    store = stores("ext4")
    trees = []
    for name in ("one", "two"):
        layer = Layer(store / name, 0, "trusted.overlay.")
        everything(layer)
        layer.finish()
        trees.append(dump(layer.root))
    assert differences(*trees) == []


@pytest.mark.parametrize("plant", PLANTED)
def test_planted_difference_is_found(plant: str, stores: Stores) -> None:
    store = stores("ext4")
    change, reports = PLANTED[plant]
    original = Layer(store / "original", 0, "trusted.overlay.")
    changed = Layer(store / "changed", 0, "trusted.overlay.")
    for layer in (original, changed):
        everything(layer)
    change(changed)
    if plant == "link joined":
        changed.forget("alone2")
        original.time("alone", 5)
        original.time("alone2", 5)
        changed.time("alone", 5)
    for layer in (original, changed):
        layer.finish()
    lines = differences(dump(original.root), dump(changed.root))
    assert len(lines) >= 1
    for wanted in reports:
        assert any(wanted in line for line in lines), report(lines)
    # The group tells both names; else nothing but what was planted.
    others = [line for line in lines if not any(wanted in line for wanted in reports)]
    content = [line for line in others if "content" in line or "size" in line]
    assert others == content, report(others)


@pytest.mark.parametrize(
    "name",
    [
        "every_namespace_on_every_kind",
        "hardlink_partly_hidden",
        "links_of_every_kind",
        "names_of_any_bytes",
        "posix_acls",
        "sparse_files",
        "times",
    ],
)
def test_a_copy_by_the_kernel_is_equal(name: str, stores: Stores, tmp_path: Path) -> None:
    """No layermelt: `cp -a` from the kernel's view into the kernel's ext4.

    What the comparison finds equal here it may call different in our image.
    """
    case = chains.load()[name]
    layers, _ = case.build(stores("ext4"), "ext4")
    output = tmp_path / "copy.ext4"
    output.touch()
    os.truncate(output, 1 << 30)
    subprocess.run(["mkfs.ext4", "-q", output], check=True, capture_output=True)
    target = tmp_path / "target"
    target.mkdir()
    with mounts.overlay(layers) as merged:
        kernel_view = dump(merged)
        with kernel.loop_device(output, writable=True) as device:
            kernel.mount(device, target, "ext4")
        try:
            names = [os.fsencode(merged) + b"/" + name for name in os.listdir(os.fsencode(merged))]
            subprocess.run(["cp", "-a", "--sparse=always", *names, target], check=True)
            status = merged.stat()
            os.chown(target, status.st_uid, status.st_gid)
            shutil.copystat(merged, target)
        finally:
            kernel.unmount(target)
    with mounts.image(output) as mounted:
        shown = dump(mounted)
    lines = differences(kernel_view, shown)
    assert not lines, report(lines)


def test_each_promise_is_shown() -> None:
    """What `promises.py` says that images hold is shown by what is there."""
    assert promises.not_there() == []
    shown = {one for shown_by in promises.PROMISES.values() for one in shown_by}
    assert len(shown) >= 50
