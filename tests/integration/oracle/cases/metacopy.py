"""2.7 metacopy: attributes here, data in a lower layer."""

from __future__ import annotations

import os

from integration.oracle.chains import Claims, case
from integration.oracle.layer import CAP_NET_RAW, Chain

DATA = b"the data of a lower layer\n"
#: The long form: version 0, length 4, no flags, no digest.
LONG = b"\x00\x04\x00\x00"


@case("2.7", metacopy=True)
def metacopy_takes_data_from_below(chain: Chain) -> Claims:
    base, top = chain.two()
    base.file("f", DATA, mode=0o600)
    base.file("g", DATA)
    base.file("d/h", DATA)
    top.metacopy("f", len(DATA), mode=0o4755, uid=0, gid=0, mtime=12345)
    top.metacopy("g", len(DATA), LONG)
    top.metacopy("d/h", len(DATA))
    return {"f": DATA, "g": DATA, "d/h": DATA}


@case("2.7", metacopy=True)
def metacopy_through_metacopies(chain: Chain) -> Claims:
    layers = [chain.layer() for _ in range(4)]
    layers[0].file("f", DATA)
    layers[1].metacopy("f", len(DATA), xattrs={"user.one": b"1"})
    layers[2].file("unrelated")
    layers[3].metacopy("f", len(DATA), xattrs={"user.three": b"3"})
    return {"f": DATA}


@case("2.7", metacopy=True)
def metacopy_xattrs_only_from_the_top(chain: Chain) -> Claims:
    base, top = chain.two()
    base.file("f", DATA, xattrs={"user.below": b"1", "user.both": b"below"})
    top.metacopy(
        "f",
        len(DATA),
        xattrs={"user.both": b"above", "security.capability": CAP_NET_RAW},
    )
    return {"f": DATA}


@case("2.7", metacopy=True)
def metacopy_with_relative_redirect(chain: Chain) -> Claims:
    base, top = chain.two()
    base.file("d/old", DATA)
    top.whiteout("d/old")
    top.metacopy("d/new", len(DATA), xattrs={"trusted.overlay.redirect": b"old"})
    return {"d/old": None, "d/new": DATA}


@case("2.7", metacopy=True)
def metacopy_with_absolute_redirect(chain: Chain) -> Claims:
    base, top = chain.two()
    base.file("a/old", DATA)
    top.whiteout("a/old")
    top.metacopy("b/c/new", len(DATA), xattrs={"trusted.overlay.redirect": b"/a/old"})
    return {"a/old": None, "b/c/new": DATA}


@case("2.7", metacopy=True)
def metacopy_redirects_chained(chain: Chain) -> Claims:
    base, middle, top = chain.three()
    base.file("one", DATA)
    middle.whiteout("one")
    middle.metacopy("d/two", len(DATA), xattrs={"trusted.overlay.redirect": b"/one"})
    top.whiteout("d/two")
    top.metacopy("d/three", len(DATA), xattrs={"trusted.overlay.redirect": b"two"})
    return {"one": None, "d/two": None, "d/three": DATA}


@case("2.7", metacopy=True)
def metacopy_in_a_redirected_directory(chain: Chain) -> Claims:
    base, top = chain.two()
    base.file("old/f", DATA)
    top.whiteout("old")
    top.directory("new", redirect=b"old")
    top.metacopy("new/f", len(DATA))
    return {"new/f": DATA, "old": None}


@case("2.7", metacopy=True)
def metacopy_of_a_sparse_file(chain: Chain) -> Claims:
    base, top = chain.two()
    base.file("f", pieces={1 << 20: b"island"}, size=4 << 20)
    top.metacopy("f", 4 << 20)
    return {"f": "file"}


@case("2.7", metacopy=True)
def metacopy_of_an_empty_file(chain: Chain) -> Claims:
    base, top = chain.two()
    base.file("f", b"")
    top.metacopy("f", 0)
    return {"f": b""}


@case("2.7", metacopy=True)
def metacopy_hard_links_are_those_of_the_top(chain: Chain) -> Claims:
    base, top = chain.two()
    base.file("a", DATA)
    base.link("a", "b")
    base.file("c", DATA)
    base.link("c", "d")
    top.metacopy("a", len(DATA))
    top.metacopy("c", len(DATA))
    top.link("c", "d")
    top.link("c", "e/f")
    base.file("e/f", DATA)
    return {"a": DATA, "b": DATA, "c": DATA, "d": DATA, "e/f": DATA}


@case("2.7", metacopy=True)
def metacopies_that_share_one_data_file(chain: Chain) -> Claims:
    """Two inodes, one data: an image must not make them hard links."""
    base, top = chain.two()
    base.file("old", DATA)
    top.metacopy("new1", len(DATA), xattrs={"trusted.overlay.redirect": b"old"})
    top.metacopy("new2", len(DATA), xattrs={"trusted.overlay.redirect": b"/old"})
    return {"old": DATA, "new1": DATA, "new2": DATA}


@case("2.7", metacopy=True)
def metacopy_hidden_by_a_whiteout(chain: Chain) -> Claims:
    """A broken one that nobody can see does no harm."""
    base, middle, top = chain.three()
    base.file("other")
    middle.metacopy("broken", 100)
    middle.metacopy("d/broken", 100)
    top.whiteout("broken")
    top.directory("d", opaque=b"y")
    return {"broken": None, "d/broken": None}


@case("2.7")
def metacopy_mark_on_other_nodes_means_nothing(chain: Chain) -> Claims:
    base, top = chain.two()
    mark = {"trusted.overlay.metacopy": b""}
    base.file("d/x")
    top.directory("d", xattrs=mark)
    top.symlink("s", "t", xattrs=mark)
    top.node("p", "fifo", xattrs=mark)
    return {"d/x": "file", "s": "symlink", "p": "fifo"}


@case("2.7", metacopy=True, refused=("EIO", "f"))
def metacopy_without_data(chain: Chain) -> Claims:
    base, top = chain.two()
    base.file("other")
    top.metacopy("f", 100)
    return {}


@case("2.7", metacopy=True, refused=("EIO", "d/f"))
def metacopy_over_a_directory(chain: Chain) -> Claims:
    base, top = chain.two()
    base.file("d/f/x")
    top.metacopy("d/f", 100)
    return {}


@case("2.7", metacopy=True, refused=("EIO", "f"))
def metacopy_over_a_whiteout(chain: Chain) -> Claims:
    base, middle, top = chain.three()
    base.file("f", DATA)
    middle.whiteout("f")
    top.metacopy("f", len(DATA))
    return {}


@case("2.7", metacopy=True, refused=("EIO", "f"))
def metacopy_over_a_symlink(chain: Chain) -> Claims:
    base, top = chain.two()
    base.symlink("f", "g")
    base.file("g", DATA)
    top.metacopy("f", len(DATA))
    return {}


@case("2.7", metacopy=True, refused=("EIO", "d/f"))
def metacopy_under_an_opaque_parent(chain: Chain) -> Claims:
    base, top = chain.two()
    base.file("d/f", DATA)
    top.directory("d", opaque=b"y")
    top.metacopy("d/f", len(DATA))
    return {}


@case("2.7", metacopy=True, refused=("EIO", "f"))
def metacopy_in_the_bottom_layer(chain: Chain) -> Claims:
    base, top = chain.two()
    base.metacopy("f", 100)
    top.file("other")
    return {}


@case("2.7", metacopy=True, refused=("EIO", "new"))
def metacopy_with_dangling_redirect(chain: Chain) -> Claims:
    base, top = chain.two()
    base.file("old", DATA)
    top.metacopy("new", len(DATA), xattrs={"trusted.overlay.redirect": b"/nowhere"})
    return {}


@case("2.7", metacopy=True, refused=("EIO", "f"))
def metacopy_over_metacopy_without_data(chain: Chain) -> Claims:
    base, middle, top = chain.three()
    base.file("other")
    middle.metacopy("f", 100)
    top.metacopy("f", 100)
    return {}


@case("2.7", metacopy=True, refused=("EIO", "new"))
def metacopy_redirected_to_a_directory(chain: Chain) -> Claims:
    base, top = chain.two()
    base.file("old/x")
    top.metacopy("new", 100, xattrs={"trusted.overlay.redirect": b"/old"})
    return {}


@case("2.7", metacopy=True, refused=("EINVAL", "new"))
def metacopy_with_an_invalid_redirect(chain: Chain) -> Claims:
    base, top = chain.two()
    base.file("a/b", DATA)
    top.metacopy("new", len(DATA), xattrs={"trusted.overlay.redirect": b"a/b"})
    return {}


@case("2.7", metacopy=True)
def metacopy_data_in_a_directory_hidden_above(chain: Chain) -> Claims:
    """The redirect is a path of the layers below, whatever hides it on top."""
    base, middle, top = chain.three()
    base.file("a/old", DATA)
    middle.file("unrelated")
    top.whiteout("a")
    top.metacopy("new", len(DATA), xattrs={"trusted.overlay.redirect": b"/a/old"})
    return {"a": None, "new": DATA}


@case("2.7", metacopy=True, refused=("EIO", "f"))
def metacopy_mark_too_short(chain: Chain) -> Claims:
    base, top = chain.two()
    base.file("f", DATA)
    top.metacopy("f", len(DATA), b"\x00\x04")
    return {}


@case("2.7", metacopy=True)
def metacopy_mark_of_any_four_bytes(chain: Chain) -> Claims:
    """The kernel reads version and digest only with verity=on."""
    base, top = chain.two()
    base.file("f", DATA)
    base.file("g", DATA)
    top.metacopy("f", len(DATA), b"\x01\x04\x00\x00")
    top.metacopy("g", len(DATA), b"\x00\x24\x00\x01" + b"d" * 32)
    return {"f": DATA, "g": DATA}


@case("2.7", metacopy=True, unrepresentable="f")
def metacopy_of_another_size(chain: Chain) -> Claims:
    """The kernel shows the top's size and the lower's bytes: corrupt."""
    base, top = chain.two()
    base.file("f", DATA)
    top.metacopy("f", len(DATA) + 4096)
    return {}


@case("2.7", metacopy=True)
def metacopies_written_by_the_kernel(chain: Chain) -> Claims:
    """An upper that kernel overlayfs itself filled with metacopy=on."""
    from integration.oracle.mounts import upper

    base = chain.layer()
    base.file("a", DATA)
    base.file("d/b", DATA * 5000, mode=0o600)
    base.file("d/c", DATA)
    base.finish()
    top = chain.layer()
    options = "redirect_dir=on,metacopy=on"
    with upper([base.root], top.root, options=options) as merged:
        os.chmod(merged / "a", 0o4711)
        os.chown(merged / "d/b", 5, 6)
        (merged / "d/c").rename(merged / "c2")
        (merged / "d").rename(merged / "e")
    top.forget("")
    return {"a": DATA, "e/b": DATA * 5000, "c2": DATA, "d": None, "e/c": None}
