"""2.2 what is a whiteout; 2.9 the names that are none."""

from __future__ import annotations

import os

from integration.oracle.chains import Claims, case
from integration.oracle.layer import Chain


@case("2.2", also_userxattr=True)
def whiteout_removes_every_kind(chain: Chain) -> Claims:
    base, top = chain.two()
    base.file("f")
    base.file("d/sub/x")
    base.symlink("s", "f")
    base.node("c", "char", 1, 3)
    base.node("b", "block", 7, 0)
    base.node("p", "fifo")
    base.node("k", "socket")
    base.file("kept")
    names = ("f", "d", "s", "c", "b", "p", "k")
    for name in names:
        top.whiteout(name)
    return {**dict.fromkeys(names), "kept": "file"}


@case("2.2")
def whiteout_of_any_mode_owner_and_xattrs(chain: Chain) -> Claims:
    base, top = chain.two()
    for number, mode in enumerate((0, 0o600, 0o644, 0o4755, 0o7777)):
        base.file(f"f{number}")
        top.node(f"f{number}", "char", 0, 0, mode=mode, uid=5 + number, gid=6)
    base.file("x")
    top.node("x", "char", 0, 0, xattrs={"trusted.some": b"1"})
    return {**{f"f{n}": None for n in range(5)}, "x": None}


@case("2.2")
def whiteouts_hard_linked_to_one_inode(chain: Chain) -> Claims:
    """As the kernel makes them: one inode for all of a work directory."""
    base, top = chain.two()
    for name in ("a", "b", "d/c"):
        base.file(name)
    top.whiteout("a")
    top.link("a", "b")
    top.link("a", "d/c")
    return {"a": None, "b": None, "d/c": None, "d": "directory"}


@case("2.2")
def devices_that_are_no_whiteouts(chain: Chain) -> Claims:
    base, top = chain.two()
    for name in ("b00", "c01", "c10"):
        base.file(name)
    top.node("b00", "block", 0, 0)
    top.node("c01", "char", 0, 1)
    top.node("c10", "char", 1, 0)
    base.node("b00-base", "block", 0, 0)
    return {"b00": "block", "c01": "char", "c10": "char", "b00-base": "block"}


@case("2.2")
def fifo_and_socket_are_no_whiteouts(chain: Chain) -> Claims:
    base, top = chain.two()
    base.file("p")
    base.file("k")
    top.node("p", "fifo", mode=0)
    top.node("k", "socket", mode=0)
    return {"p": "fifo", "k": "socket"}


@case("2.2", also_userxattr=True)
def xattr_whiteout_in_a_merged_directory(chain: Chain) -> Claims:
    base, top = chain.two()
    base.file("d/f")
    base.file("d/sub/x")
    base.file("d/kept")
    top.directory("d", opaque=b"x")
    top.xattr_whiteout("d/f")
    top.xattr_whiteout("d/sub")
    return {"d/f": None, "d/sub": None, "d/kept": "file"}


@case("2.2", also_userxattr=True)
def xattr_whiteout_in_an_unmarked_directory(chain: Chain) -> Claims:
    base, top = chain.two()
    base.file("d/f")
    base.file("d/kept")
    top.xattr_whiteout("d/f")
    base.file("at-root")
    top.xattr_whiteout("at-root")
    return {"d/f": None, "d/kept": "file", "at-root": None}


@case("2.2")
def xattr_whiteout_in_every_layer(chain: Chain) -> Claims:
    base, middle, top = chain.three()
    base.xattr_whiteout("d/base")
    base.file("d/middle")
    base.file("d/top")
    base.file("d/kept")
    middle.xattr_whiteout("d/middle")
    middle.file("d/other")
    top.xattr_whiteout("d/top")
    top.directory("e", opaque=b"y")
    top.xattr_whiteout("e/in-opaque")
    base.file("e/in-opaque")
    return {
        "d/base": None,
        "d/middle": None,
        "d/top": None,
        "e/in-opaque": None,
        "d/kept": "file",
    }


@case("2.2")
def xattr_whiteout_with_any_value(chain: Chain) -> Claims:
    base, top = chain.two()
    for number, value in enumerate((b"", b"n", b"\0", b"long" * 50)):
        base.file(f"f{number}")
        top.xattr_whiteout(f"f{number}", value)
    return {f"f{n}": None for n in range(4)}


@case("2.2", also_userxattr=True)
def xattr_whiteout_needs_an_empty_file(chain: Chain) -> Claims:
    base, top = chain.two()
    mark = {chain.prefix + "whiteout": b"y"}
    base.file("f")
    base.file("sparse")
    top.file("f", b"!", xattrs=mark)
    top.file("sparse", size=4096, xattrs=mark)
    return {"f": b"!", "sparse": "file"}


@case("2.2")
def xattr_whiteout_needs_a_regular_file(chain: Chain) -> Claims:
    base, top = chain.two()
    mark = {"trusted.overlay.whiteout": b"y"}
    for name in ("d", "s", "p", "k", "c"):
        base.file(f"{name}/below" if name == "d" else name)
    top.directory("d", xattrs=mark)
    top.symlink("s", "t", xattrs=mark)
    top.node("p", "fifo", xattrs=mark)
    top.node("k", "socket", xattrs=mark)
    top.node("c", "char", 1, 3, xattrs=mark)
    return {"d/below": "file", "s": "symlink", "p": "fifo", "k": "socket", "c": "char"}


@case("2.2")
def empty_file_without_the_mark_is_a_file(chain: Chain) -> Claims:
    base, top = chain.two()
    base.file("f")
    top.file("f", b"", mode=0)
    top.file("g", b"", xattrs={"trusted.whiteout": b"y", "user.whiteout": b"y"})
    return {"f": b"", "g": b""}


@case("2.2")
def foreign_whiteout_mark_is_an_ordinary_xattr(chain: Chain) -> Claims:
    """user.overlay.whiteout in a store of trusted marks."""
    base, top = chain.two()
    base.file("f")
    top.file("f", b"", xattrs={"user.overlay.whiteout": b"y"})
    return {"f": b""}


@case("2.2", userxattr=True)
def trusted_whiteout_mark_in_a_userxattr_store(chain: Chain) -> Claims:
    base, top = chain.two()
    base.file("f")
    base.file("d/below")
    top.file("f", b"", xattrs={"trusted.overlay.whiteout": b"y"})
    top.directory("d", xattrs={"trusted.overlay.opaque": b"y"})
    return {"f": b"", "d/below": "file"}


@case("2.2")
def whiteout_between_directories_cuts(chain: Chain) -> Claims:
    base, middle, top = chain.three()
    base.file("d/base")
    middle.whiteout("d")
    top.file("d/top")
    return {"d/base": None, "d/top": "file"}


@case("2.2", also_userxattr=True)
def xattr_whiteout_between_directories_cuts(chain: Chain) -> Claims:
    base, middle, top = chain.three()
    base.file("d/base")
    middle.xattr_whiteout("d")
    top.file("d/top")
    return {"d/base": None, "d/top": "file"}


@case("2.2")
def whiteout_between_files(chain: Chain) -> Claims:
    base, middle, top = chain.three()
    base.file("f")
    base.file("g")
    middle.whiteout("f")
    middle.whiteout("g")
    top.file("f")
    return {"f": b"layer 2: f\n", "g": None}


@case("2.2")
def whiteout_in_the_middle_hides_only_below(chain: Chain) -> Claims:
    layers = [chain.layer() for _ in range(5)]
    layers[0].file("d/a")
    layers[1].whiteout("d/a")
    layers[2].file("d/a")
    layers[2].file("d/b")
    layers[3].whiteout("d/b")
    layers[4].file("d/c")
    return {"d/a": b"layer 2: d/a\n", "d/b": None, "d/c": "file"}


@case("2.2")
def whiteout_of_what_never_was(chain: Chain) -> Claims:
    base, top = chain.two()
    base.whiteout("bottom")
    base.file("d/x")
    top.whiteout("nothing")
    top.whiteout("d/nothing")
    return {"bottom": None, "nothing": None, "d/nothing": None, "d/x": "file"}


@case("2.2")
def whiteout_of_all_leaves_an_empty_directory(chain: Chain) -> Claims:
    base, top = chain.two()
    for number in range(50):
        base.file(f"d/{number}")
        top.whiteout(f"d/{number}")
    return {"d": "directory", "d/7": None}


@case("2.2")
def whiteout_of_a_directory_then_again_whiteouts(chain: Chain) -> Claims:
    """Whiteouts below a directory that a higher layer made anew."""
    base, middle, top = chain.three()
    base.file("d/sub/deep/x")
    middle.whiteout("d/sub/deep")
    middle.file("d/sub/y")
    top.whiteout("d/sub")
    top.file("d/z")
    return {"d/sub": None, "d/z": "file"}


@case("2.9")
def dot_wh_names_are_ordinary(chain: Chain) -> Claims:
    base, top = chain.two()
    base.file("w/foo")
    base.file("w/bar")
    base.file(".wh.in-base")
    top.file("w/.wh.foo", b"")
    top.file("w/.wh..wh..opq", b"")
    top.file("w/.wh.", b"")
    top.directory("w/.wh.bar")
    top.symlink("w/.wh.link", "foo")
    top.file("w/.wh..wh.plnk/x")
    return {
        "w/foo": "file",
        "w/bar": "file",
        "w/.wh.foo": b"",
        "w/.wh..wh..opq": b"",
        "w/.wh.": b"",
        ".wh.in-base": "file",
    }


@case("2.9")
def whiteout_of_a_dot_wh_name(chain: Chain) -> Claims:
    base, top = chain.two()
    base.file(".wh.foo")
    base.file("foo")
    top.whiteout(".wh.foo")
    return {".wh.foo": None, "foo": "file"}


@case("2.2", also_userxattr=True)
def a_store_written_by_the_kernel(chain: Chain) -> Claims:
    """Nothing by hand: an upper that kernel overlayfs itself filled.

    Removals, a replaced directory, a directory made where a file was, renamed
    and re-linked files, as a container's shell would do it.
    """
    from integration.oracle.mounts import upper

    base = chain.layer()
    base.file("gone")
    base.file("dir/gone/x")
    base.file("dir/kept")
    base.file("replaced/below")
    base.file("becomes-dir")
    base.file("becomes-file/x")
    base.file("renamed", mode=0o4755, xattrs={"user.k": b"v"})
    base.finish()
    top = chain.layer()
    with upper([base.root], top.root, userxattr=chain.userxattr) as merged:
        for name in ("gone", "dir/gone/x", "replaced/below", "becomes-dir"):
            (merged / name).unlink()
        (merged / "dir/gone").rmdir()
        (merged / "replaced").rmdir()
        (merged / "replaced").mkdir()
        (merged / "replaced/new").write_bytes(b"new")
        (merged / "becomes-dir").mkdir()
        (merged / "becomes-file/x").unlink()
        (merged / "becomes-file").rmdir()
        (merged / "becomes-file").write_bytes(b"a file now")
        (merged / "renamed").rename(merged / "dir/renamed")
        os.link(merged / "dir/kept", merged / "dir/link")
    return {
        "gone": None,
        "dir/gone": None,
        "dir/kept": "file",
        "dir/link": "file",
        "dir/renamed": "file",
        "renamed": None,
        "replaced/below": None,
        "replaced/new": b"new",
        "becomes-dir": "directory",
        "becomes-file": b"a file now",
    }
