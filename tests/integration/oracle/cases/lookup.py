"""2.1 lookup, 2.3 phantoms, 2.4 opaque, 2.5 type clashes."""

from __future__ import annotations

from integration.oracle.chains import Claims, case
from integration.oracle.layer import CAP_NET_RAW, Chain, Layer

NON_DIRECTORIES = ("file", "symlink", "char", "block", "fifo", "socket")


def make(layer: Layer, path: str, kind: str) -> None:
    """A node of the given kind."""
    if kind == "file":
        layer.file(path)
    elif kind == "symlink":
        layer.symlink(path, "somewhere/else")
    elif kind == "directory":
        layer.file(f"{path}/inside")
    elif kind in ("char", "block"):
        layer.node(path, kind, 5, 6)
    else:
        layer.node(path, kind)


@case("2.1")
def merge_disjoint_and_common(chain: Chain) -> Claims:
    base, middle, top = chain.three()
    base.file("d/base")
    base.file("d/common")
    base.file("only-base")
    middle.file("d/middle")
    middle.file("d/common")
    middle.file("e/sub/x")
    top.file("d/top")
    top.file("e/sub/y")
    return {
        "d/base": b"layer 0: d/base\n",
        "d/common": b"layer 1: d/common\n",
        "d/middle": "file",
        "d/top": "file",
        "e/sub/x": "file",
        "e/sub/y": "file",
        "only-base": "file",
    }


@case("2.1")
def merged_directory_takes_topmost_metadata(chain: Chain) -> Claims:
    base, middle, top = chain.three()
    base.directory("d", mode=0o700, uid=7, gid=8)
    base.file("d/x")
    middle.directory("d", mode=0o3777, uid=70, gid=80)
    middle.file("d/y")
    top.directory("d", mode=0o2751, uid=700, gid=800, mtime=-5)
    return {"d/x": "file", "d/y": "file"}


@case("2.1")
def xattrs_of_directories_never_merge(chain: Chain) -> Claims:
    base, top = chain.two()
    base.directory("d", xattrs={"user.base": b"1", "user.both": b"base"})
    base.directory("e", xattrs={"user.base": b"1"})
    base.file("d/x")
    top.directory("d", xattrs={"user.top": b"2", "user.both": b"top"})
    top.directory("e")
    return {"d/x": "file"}


@case("2.1")
def file_above_file_takes_nothing_from_below(chain: Chain) -> Claims:
    base, top = chain.two()
    base.file("f", mode=0o4755, xattrs={"security.capability": CAP_NET_RAW})
    base.file("g", xattrs={"user.a": b"below"})
    top.file("f", b"")
    top.file("g", xattrs={"user.b": b"above"})
    return {"f": b"", "g": b"layer 1: g\n"}


@case("2.1")
def non_directory_below_a_directory_ends_the_search(chain: Chain) -> Claims:
    layers = [chain.layer() for _ in range(4)]
    for kind in NON_DIRECTORIES:
        layers[0].file(f"{kind}/hidden")
        make(layers[1], kind, kind)
        layers[2].file(f"{kind}/second")
        layers[3].file(f"{kind}/first")
    claims: dict[str | bytes, str | bytes | None] = {}
    for kind in NON_DIRECTORIES:
        claims[f"{kind}/hidden"] = None
        claims[f"{kind}/second"] = claims[f"{kind}/first"] = "file"
    return claims


@case("2.3")
def whiteout_in_opaque(chain: Chain) -> Claims:
    base, top = chain.two()
    base.file("d/gone")
    base.file("d/below")
    top.directory("d", opaque=b"y")
    top.whiteout("d/gone")
    top.whiteout("d/never-was")
    top.file("d/kept")
    return {"d/gone": None, "d/below": None, "d/never-was": None, "d/kept": "file"}


@case("2.3")
def whiteout_in_unmerged_directory(chain: Chain) -> Claims:
    base, top = chain.two()
    base.file("x")
    base.whiteout("b/w")
    base.file("b/kept")
    top.whiteout("d/w")
    top.whiteout("d/sub/w")
    top.file("d/kept")
    return {"d/w": None, "d/sub/w": None, "d/kept": "file", "b/w": None}


@case("2.3", also_userxattr=True)
def whiteout_in_single_layer(chain: Chain) -> Claims:
    only = chain.layer()
    only.whiteout("w")
    only.whiteout("d/w")
    only.xattr_whiteout("xw")
    only.xattr_whiteout("d/xw")
    only.file("d/kept")
    return {"w": None, "d/w": None, "xw": None, "d/xw": None, "d/kept": "file"}


@case("2.4", also_userxattr=True)
def opaque_hides_all_below(chain: Chain) -> Claims:
    base, middle, top = chain.three()
    base.file("d/base")
    base.file("d/sub/base")
    middle.file("d/middle")
    top.directory("d", opaque=b"y")
    top.file("d/top")
    top.file("d/sub/top")
    return {
        "d/base": None,
        "d/middle": None,
        "d/sub/base": None,
        "d/top": "file",
        "d/sub/top": "file",
    }


@case("2.4", also_userxattr=True)
def opaque_in_the_middle_counts_then_ends(chain: Chain) -> Claims:
    base, middle, top = chain.three()
    base.file("d/base")
    base.file("d/sub/base")
    middle.directory("d", opaque=b"y")
    middle.file("d/middle")
    middle.file("d/sub/middle")
    top.file("d/top")
    top.file("d/sub/top")
    return {
        "d/base": None,
        "d/sub/base": None,
        "d/middle": "file",
        "d/sub/middle": "file",
        "d/top": "file",
    }


@case("2.4")
def opaque_in_a_subdirectory_only(chain: Chain) -> Claims:
    base, top = chain.two()
    base.file("d/kept")
    base.file("d/sub/gone")
    top.directory("d/sub", opaque=b"y")
    return {"d/kept": "file", "d/sub/gone": None, "d/sub": "directory"}


@case("2.4", also_userxattr=True)
def opaque_only_by_the_one_byte_y(chain: Chain) -> Claims:
    base, top = chain.two()
    values = (b"n", b"Y", b"yy", b"", b"y\0", b"1", b"x", b"\xff", b"0")
    claims: dict[str | bytes, str | bytes | None] = {}
    for number, value in enumerate(values):
        base.file(f"d{number}/below")
        top.directory(f"d{number}", opaque=value)
        top.file(f"d{number}/top")
        claims[f"d{number}/below"] = "file"
    return claims


@case("2.4")
def opaque_on_other_nodes_means_nothing(chain: Chain) -> Claims:
    base, top = chain.two()
    mark = {"trusted.overlay.opaque": b"y"}
    base.file("f/below")
    top.file("f", xattrs={**mark, "user.kept": b"1"})
    top.symlink("s", "t", xattrs=mark)
    top.node("p", "fifo", xattrs=mark)
    top.node("c", "char", 1, 3, xattrs=mark)
    return {"f": "file", "s": "symlink", "p": "fifo", "c": "char"}


@case("2.4", also_userxattr=True)
def opaque_on_the_top_root_is_ignored(chain: Chain) -> Claims:
    base, top = chain.two()
    base.file("below")
    base.file("d/below")
    top.root_attributes(xattrs={chain.prefix + "opaque": b"y"})
    top.file("d/top")
    return {"below": "file", "d/below": "file", "d/top": "file"}


@case("2.4")
def opaque_on_every_root_is_ignored(chain: Chain) -> Claims:
    for number in range(3):
        layer = chain.layer()
        layer.root_attributes(xattrs={"trusted.overlay.opaque": b"y"})
        layer.file(f"d/from{number}")
    return {"d/from0": "file", "d/from1": "file", "d/from2": "file"}


@case("2.4")
def opaque_with_nothing_below(chain: Chain) -> Claims:
    base, top = chain.two()
    base.directory("d", opaque=b"y")
    base.file("d/x")
    top.directory("e/f/g", opaque=b"y")
    top.directory("e", opaque=b"y")
    return {"d/x": "file", "e/f/g": "directory"}


@case("2.4")
def kernel_made_marks_of_an_upper(chain: Chain) -> Claims:
    """What a BuildKit layer carries: written by the kernel, not by a tar."""
    base, top = chain.two()
    base.file("d/below")
    top.root_attributes(xattrs={"trusted.overlay.impure": b"y"})
    handle = b"\x00\xfb\x1d\x01\x81" + bytes(24)
    marks = {"trusted.overlay.origin": handle, "trusted.overlay.impure": b"y"}
    top.directory("d", xattrs=marks)
    top.file("d/copied", xattrs={"trusted.overlay.origin": handle})
    top.file("d/.wh.name")
    return {"d/below": "file", "d/copied": "file", "d/.wh.name": "file"}


@case("2.5")
def non_directory_over_directory(chain: Chain) -> Claims:
    base, top = chain.two()
    for kind in NON_DIRECTORIES:
        base.file(f"{kind}/sub/hidden")
        make(top, kind, kind)
    claims: dict[str | bytes, str | bytes | None] = {k: k for k in NON_DIRECTORIES}
    claims["file/sub"] = None
    return claims


@case("2.5")
def directory_over_non_directory(chain: Chain) -> Claims:
    base, top = chain.two()
    for kind in NON_DIRECTORIES:
        make(base, kind, kind)
        top.file(f"{kind}/inside")
    return {f"{kind}/inside": "file" for kind in NON_DIRECTORIES}


@case("2.5")
def every_kind_over_every_kind(chain: Chain) -> Claims:
    base, top = chain.two()
    claims: dict[str | bytes, str | bytes | None] = {}
    for below in (*NON_DIRECTORIES, "directory"):
        for above in (*NON_DIRECTORIES, "directory"):
            make(base, f"{below}-{above}", below)
            make(top, f"{below}-{above}", above)
            claims[f"{below}-{above}"] = above
    return claims


@case("2.5")
def directory_file_directory(chain: Chain) -> Claims:
    base, middle, top = chain.three()
    base.file("d/base")
    middle.file("d")
    top.file("d/top")
    return {"d/base": None, "d/top": "file"}


@case("2.5")
def file_directory_file(chain: Chain) -> Claims:
    base, middle, top = chain.three()
    base.file("d")
    middle.file("d/middle")
    top.file("d", mode=0o600)
    return {"d": b"layer 2: d\n", "d/middle": None}


@case("2.5")
def symlink_below_a_real_directory_is_not_followed(chain: Chain) -> Claims:
    base, top = chain.two()
    base.symlink("a", "b")
    base.file("b/of-b")
    top.file("a/of-a")
    return {"a": "directory", "a/of-a": "file", "a/of-b": None, "b/of-a": None}


@case("2.5")
def symlink_above_a_directory_is_not_followed(chain: Chain) -> Claims:
    base, top = chain.two()
    base.file("bin/sh")
    base.file("usr/bin/ls")
    top.symlink("bin", "usr/bin")
    top.symlink("evil", "/")
    return {"bin": "symlink", "bin/sh": None, "usr/bin/sh": None, "evil": "symlink"}
