"""2.10 hard links and identity."""

from __future__ import annotations

import os
import shutil
import subprocess

from integration.oracle.chains import Claims, case
from integration.oracle.layer import Chain


@case("2.10")
def links_in_a_layer(chain: Chain) -> Claims:
    base, top = chain.two()
    base.file("a")
    base.link("a", "b")
    base.link("a", "d/sub/c")
    top.file("x")
    top.link("x", "d/y")
    return {"a": "file", "d/sub/c": b"layer 0: a\n", "d/y": b"layer 1: x\n"}


@case("2.10")
def links_of_every_kind(chain: Chain) -> Claims:
    base, top = chain.two()
    for layer, prefix in ((base, "l"), (top, "u")):
        layer.symlink(f"{prefix}/s", "target")
        layer.symlink(f"{prefix}/long", "target" * 20)
        layer.node(f"{prefix}/c", "char", 1, 3)
        layer.node(f"{prefix}/b", "block", 7, 1)
        layer.node(f"{prefix}/p", "fifo")
        layer.node(f"{prefix}/k", "socket")
        for name in ("s", "long", "c", "b", "p", "k"):
            layer.link(f"{prefix}/{name}", f"{prefix}/{name}2")
            layer.link(f"{prefix}/{name}", f"{prefix}/deep/er/{name}3")
    return {"l/s2": "symlink", "u/deep/er/k3": "socket"}


@case("2.10")
def hardlink_partly_hidden(chain: Chain) -> Claims:
    """Four names, two visible: links_count must say two."""
    base, top = chain.two()
    base.file("a")
    for name in ("b", "c", "d/e"):
        base.link("a", name)
    top.whiteout("b")
    top.whiteout("d/e")
    return {"a": "file", "c": "file", "b": None, "d/e": None}


@case("2.10")
def first_name_hidden(chain: Chain) -> Claims:
    """The name that the data would be given out at is not there."""
    base, top = chain.two()
    base.file("a/first", b"data" * 3000)
    base.link("a/first", "z/last")
    base.link("a/first", "m/middle")
    top.whiteout("a")
    return {"a": None, "m/middle": b"data" * 3000, "z/last": "file"}


@case("2.10")
def all_but_one_name_hidden(chain: Chain) -> Claims:
    base, top = chain.two()
    base.file("a")
    base.link("a", "b")
    base.link("a", "c")
    top.whiteout("a")
    top.file("b")
    return {"a": None, "b": b"layer 1: b\n", "c": b"layer 0: a\n"}


@case("2.10")
def replaced_name_leaves_its_group(chain: Chain) -> Claims:
    base, middle, top = chain.three()
    base.file("a")
    for name in ("b", "c", "d"):
        base.link("a", name)
    middle.file("b")
    middle.link("b", "e")
    top.symlink("e", "a")
    top.file("c/now-a-directory")
    return {"a": "file", "d": "file", "b": b"layer 1: b\n", "e": "symlink"}


@case("2.10")
def groups_of_several_layers_side_by_side(chain: Chain) -> Claims:
    layers = chain.three()
    for layer in layers:
        layer.file(f"d/{layer.number}-0")
        layer.link(f"d/{layer.number}-0", f"d/{layer.number}-1")
        layer.link(f"d/{layer.number}-0", f"e/{layer.number}-2")
    return {"e/2-2": b"layer 2: d/2-0\n"}


@case("2.10")
def one_inode_with_names_in_two_layers(chain: Chain) -> Claims:
    base, top = chain.two()
    base.file("a", b"shared")
    base.link("a", "b")
    top.directory("d")
    os.link(base.at("a"), top.at("d/of-top"))
    os.link(base.at("a"), top.at("also"))
    return {"a": b"shared", "d/of-top": b"shared", "also": b"shared"}


@case("2.10")
def one_inode_under_one_name_in_two_layers(chain: Chain) -> Claims:
    base, top = chain.two()
    base.file("a", b"shared")
    base.link("a", "b")
    os.link(base.at("a"), top.at("a"))
    return {"a": b"shared", "b": b"shared"}


@case("2.10")
def links_across_layers_partly_hidden(chain: Chain) -> Claims:
    base, middle, top = chain.three()
    base.file("a", b"shared")
    os.link(base.at("a"), middle.at("m"))
    os.link(base.at("a"), top.at("t"))
    top.whiteout("a")
    return {"a": None, "m": b"shared", "t": b"shared"}


@case("2.10")
def links_of_whiteouts_do_not_join_devices(chain: Chain) -> Claims:
    base, top = chain.two()
    base.file("a")
    base.file("b")
    base.node("c", "char", 0, 1)
    base.link("c", "c2")
    top.whiteout("a")
    top.link("a", "b")
    return {"a": None, "b": None, "c": "char", "c2": "char"}


@case("2.10")
def many_links(chain: Chain) -> Claims:
    base, top = chain.two()
    base.file("f")
    for number in range(2000):
        base.link("f", f"d{number % 7}/{number}")
    for number in range(0, 2000, 3):
        top.whiteout(f"d{number % 7}/{number}")
    return {"d0/0": None, "d1/1": "file"}


@case(
    "2.10",
    stores=("btrfs",),
    groups=(frozenset({b"s0", b"s0-link"}), frozenset({b"s1", b"s1-link"})),
)
def subvolumes_have_their_own_inode_numbers(chain: Chain) -> Claims:
    """Equal inode numbers on two subvolumes are not one inode.

    The kernel's overlay shows both under one st_dev: there the view misleads.
    """
    base, top = chain.two()
    for layer in (base, top):
        shutil.rmtree(layer.root)
        command = ["btrfs", "subvolume", "create", str(layer.root)]
        subprocess.run(command, check=True, capture_output=True)
        layer.file(f"s{layer.number}")
        layer.link(f"s{layer.number}", f"s{layer.number}-link")
    first, second = (os.stat(layer.at(f"s{layer.number}")) for layer in (base, top))
    assert first.st_ino == second.st_ino
    assert first.st_dev != second.st_dev
    return {"s0": "file", "s1-link": "file"}
