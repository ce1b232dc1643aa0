"""2.6 redirects of directories."""

from __future__ import annotations

from integration.oracle.chains import Claims, case
from integration.oracle.layer import Chain


@case("2.6")
def redirect_to_a_sibling(chain: Chain) -> Claims:
    base, top = chain.two()
    base.directory("p/old", mode=0o700)
    base.file("p/old/x")
    base.file("p/old/sub/y")
    top.whiteout("p/old")
    top.directory("p/new", redirect=b"old")
    top.file("p/new/z")
    return {
        "p/old": None,
        "p/new/x": "file",
        "p/new/sub/y": "file",
        "p/new/z": "file",
    }


@case("2.6")
def redirect_absolute(chain: Chain) -> Claims:
    base, top = chain.two()
    base.file("a/b/x")
    base.file("a/b/sub/y")
    top.whiteout("a/b")
    top.directory("far/away/new", redirect=b"/a/b")
    return {"a/b": None, "far/away/new/x": "file", "far/away/new/sub/y": "file"}


@case("2.6")
def redirect_absolute_reaches_layers_without_the_parent(chain: Chain) -> Claims:
    """From the root of every layer below, not only where the parent exists."""
    layers = [chain.layer() for _ in range(4)]
    layers[0].file("old/from0")
    layers[1].file("parent/unrelated")
    layers[2].file("old/from2")
    layers[3].directory("parent/new", redirect=b"/old")
    layers[3].whiteout("old")
    return {"parent/new/from0": "file", "parent/new/from2": "file", "old": None}


@case("2.6")
def redirect_absolute_under_an_opaque_parent(chain: Chain) -> Claims:
    base, top = chain.two()
    base.file("old/x")
    base.file("parent/hidden")
    top.directory("parent", opaque=b"y")
    top.directory("parent/new", redirect=b"/old")
    top.whiteout("old")
    return {"parent/new/x": "file", "parent/hidden": None}


@case("2.6")
def redirect_relative_under_an_opaque_parent(chain: Chain) -> Claims:
    base, top = chain.two()
    base.file("parent/old/x")
    top.directory("parent", opaque=b"y")
    top.directory("parent/new", redirect=b"old")
    return {"parent/new": "directory", "parent/new/x": None, "parent/old": None}


@case("2.6")
def redirect_chain(chain: Chain) -> Claims:
    base, middle, top = chain.three()
    base.file("one/x")
    middle.whiteout("one")
    middle.directory("two", redirect=b"one")
    middle.file("two/y")
    top.whiteout("two")
    top.directory("three", redirect=b"two")
    top.file("three/z")
    return {
        "one": None,
        "two": None,
        "three/x": "file",
        "three/y": "file",
        "three/z": "file",
    }


@case("2.6")
def redirect_chain_of_absolute_and_relative(chain: Chain) -> Claims:
    layers = [chain.layer() for _ in range(5)]
    layers[0].file("r/one/x")
    layers[1].whiteout("r/one")
    layers[1].directory("q/two", redirect=b"/r/one")
    layers[2].file("q/two/m")
    layers[3].whiteout("q/two")
    layers[3].directory("q/three", redirect=b"two")
    layers[4].whiteout("q/three")
    layers[4].directory("four", redirect=b"/q/three")
    return {"four/x": "file", "four/m": "file", "q/two": None, "r/one": None}


@case("2.6")
def redirect_swaps_two_directories(chain: Chain) -> Claims:
    base, top = chain.two()
    base.file("a/was-a")
    base.file("b/was-b")
    top.directory("a", redirect=b"b")
    top.directory("b", redirect=b"a")
    return {"a/was-b": "file", "a/was-a": None, "b/was-a": "file", "b/was-b": None}


@case("2.6")
def redirect_inside_a_redirected_directory(chain: Chain) -> Claims:
    base, top = chain.two()
    base.file("old/in/x")
    base.file("old/kept")
    top.whiteout("old")
    top.directory("new", redirect=b"old")
    top.directory("new/out", redirect=b"in")
    top.whiteout("new/in")
    return {"new/out/x": "file", "new/in": None, "new/kept": "file"}


@case("2.6")
def redirect_names_the_place_in_the_layer_not_in_the_view(chain: Chain) -> Claims:
    """An absolute value is a path of the layers below, whiteouts above or not."""
    base, middle, top = chain.three()
    base.file("old/x")
    middle.file("old/y")
    top.directory("new", redirect=b"/old")
    top.file("old/z")
    return {"new/x": "file", "new/y": "file", "old/x": "file", "old/z": "file"}


@case("2.6")
def redirect_dangling(chain: Chain) -> Claims:
    base, top = chain.two()
    base.file("kept")
    top.directory("relative", redirect=b"nowhere")
    top.directory("absolute", redirect=b"/no/where")
    top.file("absolute/own")
    return {"relative": "directory", "absolute/own": "file"}


@case("2.6")
def redirect_to_a_file(chain: Chain) -> Claims:
    base, top = chain.two()
    base.file("f")
    base.symlink("s", "d")
    base.file("d/x")
    top.directory("to-file", redirect=b"f")
    top.directory("to-symlink", redirect=b"s")
    top.directory("to-symlink-absolute", redirect=b"/s")
    return {"to-file": "directory", "to-symlink/x": None, "to-symlink-absolute/x": None}


@case("2.6")
def redirect_to_a_whiteout(chain: Chain) -> Claims:
    base, middle, top = chain.three()
    base.file("d/x")
    middle.whiteout("d")
    top.directory("relative", redirect=b"d")
    top.directory("absolute", redirect=b"/d")
    return {"relative/x": None, "absolute/x": None, "d": None}


@case("2.6")
def redirect_past_a_layer_without_the_target(chain: Chain) -> Claims:
    base, middle, top = chain.three()
    base.file("p/old/x")
    middle.file("p/other")
    top.directory("p/new", redirect=b"old")
    top.whiteout("p/old")
    return {"p/new/x": "file", "p/old": None}


@case("2.6")
def redirect_and_opaque_opaque_wins(chain: Chain) -> Claims:
    base, top = chain.two()
    base.file("old/x")
    base.file("new/y")
    top.directory("new", redirect=b"old", opaque=b"y")
    top.directory("new2", redirect=b"/old", opaque=b"y")
    return {"new/x": None, "new/y": None, "new2/x": None}


@case("2.6")
def redirect_target_is_opaque(chain: Chain) -> Claims:
    base, middle, top = chain.three()
    base.file("old/base")
    middle.directory("old", opaque=b"y")
    middle.file("old/middle")
    top.directory("new", redirect=b"old")
    top.directory("new-absolute", redirect=b"/old")
    top.whiteout("old")
    return {
        "new/middle": "file",
        "new/base": None,
        "new-absolute/middle": "file",
        "new-absolute/base": None,
    }


@case("2.6")
def redirect_path_component_is_a_whiteout(chain: Chain) -> Claims:
    base, middle, top = chain.three()
    base.file("a/b/x")
    middle.whiteout("a")
    top.directory("new", redirect=b"/a/b")
    return {"new": "directory", "new/x": None}


@case("2.6")
def redirect_path_component_is_no_directory(chain: Chain) -> Claims:
    base, middle, top = chain.three()
    base.file("a/b/x")
    base.file("s/b/x")
    middle.file("a")
    middle.symlink("s", "/")
    top.directory("new", redirect=b"/a/b")
    top.directory("new-symlink", redirect=b"/s/b")
    return {"new/x": None, "new-symlink/x": None}


@case("2.6")
def redirect_path_component_is_opaque(chain: Chain) -> Claims:
    base, middle, top = chain.three()
    base.file("a/b/base")
    middle.directory("a", opaque=b"y")
    middle.file("a/b/middle")
    top.directory("new", redirect=b"/a/b")
    return {"new/middle": "file", "new/base": None}


@case("2.6")
def redirect_path_component_is_opaque_and_target_absent(chain: Chain) -> Claims:
    base, middle, top = chain.three()
    base.file("a/b/base")
    middle.directory("a", opaque=b"y")
    top.directory("new", redirect=b"/a/b")
    return {"new": "directory", "new/base": None}


@case("2.6")
def redirect_path_component_is_itself_redirected(chain: Chain) -> Claims:
    base, middle, top = chain.three()
    base.file("was/b/x")
    middle.whiteout("was")
    middle.directory("a", redirect=b"was")
    top.directory("new", redirect=b"/a/b")
    top.directory("new2", redirect=b"/a")
    return {"new": "directory", "new2/b/x": "file"}


@case("2.6")
def redirect_two_directories_to_one(chain: Chain) -> Claims:
    base, top = chain.two()
    base.file("old/x")
    base.file("old/sub/y")
    top.whiteout("old")
    top.directory("n1", redirect=b"old")
    top.directory("n2", redirect=b"/old")
    return {"n1/x": "file", "n2/sub/y": "file"}


@case("2.6")
def redirect_in_the_bottom_layer(chain: Chain) -> Claims:
    base, top = chain.two()
    base.file("old/x")
    base.directory("new", redirect=b"old")
    base.directory("new2", redirect=b"/old")
    top.file("new/y")
    return {"new/x": None, "new2/x": None, "new/y": "file", "old/x": "file"}


@case("2.6")
def redirect_to_arbitrary_bytes(chain: Chain) -> Claims:
    base, top = chain.two()
    name = b"\xff\xfe old\n"
    base.file(name + b"/x")
    base.file(b"p/" + name + b"/y")
    top.directory("new", redirect=name)
    top.directory("new2", redirect=b"/p/" + name)
    return {"new/x": "file", "new2/y": "file"}


@case("2.6")
def redirect_to_an_overlong_name(chain: Chain) -> Claims:
    base, top = chain.two()
    base.file("x")
    top.directory("new", redirect=b"n" * 256)
    return {"new": "directory"}


@case("2.6")
def redirect_on_a_plain_file_is_hidden(chain: Chain) -> Claims:
    base, top = chain.two()
    base.file("old")
    base.file("f")
    mark = {"trusted.overlay.redirect": b"/old"}
    top.file("f", b"own", xattrs=mark)
    top.symlink("s", "t", xattrs=mark)
    return {"f": b"own", "s": "symlink"}


@case("2.6")
def redirect_on_the_root_is_ignored(chain: Chain) -> Claims:
    base, top = chain.two()
    base.file("old/x")
    base.file("y")
    top.root_attributes(xattrs={"trusted.overlay.redirect": b"/old"})
    return {"old/x": "file", "y": "file", "x": None}


@case("2.6", userxattr=True)
def redirect_is_not_followed_with_userxattr(chain: Chain) -> Claims:
    base, top = chain.two()
    base.file("old/x")
    top.directory("new", xattrs={"trusted.overlay.redirect": b"old"})
    top.file("new/own")
    return {"new/own": "file", "new/x": None, "old/x": "file"}


@case("2.6", userxattr=True, refused=("EPERM", "new"))
def redirect_of_user_overlay_with_userxattr(chain: Chain) -> Claims:
    base, top = chain.two()
    base.file("old/x")
    top.directory("new", redirect=b"old")
    return {}


@case("2.6", refused=("EINVAL", "new"))
def redirect_relative_with_a_slash(chain: Chain) -> Claims:
    base, top = chain.two()
    base.file("a/b/x")
    top.directory("new", redirect=b"a/b")
    return {}


@case("2.6", refused=("EINVAL", "new"))
def redirect_empty(chain: Chain) -> Claims:
    base, top = chain.two()
    base.file("a/x")
    top.directory("new", redirect=b"")
    return {}


@case("2.6", refused=("EINVAL", "new"))
def redirect_double_slash(chain: Chain) -> Claims:
    base, top = chain.two()
    base.file("a/x")
    top.directory("new", redirect=b"//a")
    return {}


@case("2.6", refused=("EINVAL", "new"))
def redirect_double_slash_inside(chain: Chain) -> Claims:
    base, top = chain.two()
    base.file("a/b/x")
    top.directory("new", redirect=b"/a//b")
    return {}


@case("2.6", refused=("EINVAL", "new"))
def redirect_trailing_slash(chain: Chain) -> Claims:
    base, top = chain.two()
    base.file("a/b/x")
    top.directory("new", redirect=b"/a/b/")
    return {}


@case("2.6", refused=("EINVAL", "new"))
def redirect_is_the_root(chain: Chain) -> Claims:
    base, top = chain.two()
    base.file("a/b/x")
    top.directory("new", redirect=b"/")
    return {}


@case("2.6", refused=("EACCES", "new"))
def redirect_out_of_the_layer(chain: Chain) -> Claims:
    base, top = chain.two()
    base.file("a/x")
    top.directory("new", redirect=b"/../../etc")
    return {}


@case("2.6", refused=("EACCES", "new"))
def redirect_is_dot_dot(chain: Chain) -> Claims:
    base, top = chain.two()
    base.file("a/x")
    top.directory("new", redirect=b"..")
    return {}


@case("2.6", refused=("EACCES", "sub/new"))
def redirect_dot_dot_inside(chain: Chain) -> Claims:
    base, top = chain.two()
    base.file("a/b/x")
    top.directory("sub/new", redirect=b"/a/../a/b")
    return {}


@case("2.6", refused=("EACCES", "new"))
def redirect_is_dot(chain: Chain) -> Claims:
    base, top = chain.two()
    base.file("a/x")
    top.directory("new", redirect=b".")
    return {}


@case("2.6")
def redirect_value_ends_at_a_nul(chain: Chain) -> Claims:
    """The kernel takes the value for a string."""
    base, top = chain.two()
    base.file("a/x")
    base.file("b/x2")
    top.directory("new", redirect=b"a\0/b")
    top.directory("new2", redirect=b"/b\0\0")
    return {"new/x": "file", "new2/x2": "file"}


@case("2.6")
def redirect_absolute_goes_on_below_an_opaque_component(chain: Chain) -> Claims:
    """The opaque directory ended its own search, not that of another path."""
    base, middle, top = chain.three()
    base.file("c/x")
    base.file("a/b/hidden")
    middle.directory("a", opaque=b"y")
    middle.directory("a/b", redirect=b"/c")
    middle.file("a/b/own")
    top.directory("new", redirect=b"/a/b")
    return {"new/own": "file", "new/x": "file", "new/hidden": None, "a/b/x": "file"}


@case("2.6")
def redirect_of_a_path_component_leads_on(chain: Chain) -> Claims:
    """A component's own redirect renames the rest of the path below."""
    layers = [chain.layer() for _ in range(4)]
    layers[0].file("zero/b/x")
    layers[1].whiteout("zero")
    layers[1].directory("one", redirect=b"/zero")
    layers[1].file("one/b/y")
    layers[2].file("one/b/z")
    layers[3].directory("new", redirect=b"/one/b")
    return {"new/z": "file", "new/y": "file", "new/x": "file"}


@case("2.6", userxattr=True)
def redirect_in_the_last_layer_of_a_directory_with_userxattr(chain: Chain) -> Claims:
    """There is nothing below it to be renamed: the kernel does not look."""
    base, middle, top = chain.three()
    base.file("old/hidden")
    middle.directory("p/new", redirect=b"old")
    middle.file("p/new/x")
    top.file("other")
    return {"p/new/x": "file", "p/new/hidden": None}


@case("2.6")
def redirects_that_fold_a_directory_into_itself(chain: Chain) -> Claims:
    """Each layer shows the one below a second time; it ends with the layers."""
    base = chain.layer()
    base.file("d/x")
    for _ in range(4):
        layer = chain.layer()
        layer.directory("d/again", redirect=b"/d")
    return {"d/x": "file", "d/again/x": "file", "d/again/again/x": "file"}


@case("2.6")
def redirects_written_by_the_kernel(chain: Chain) -> Claims:
    """An upper that kernel overlayfs itself filled with redirect_dir=on."""
    from integration.oracle.mounts import upper

    base = chain.layer()
    base.file("a/b/x")
    base.file("a/b/sub/y")
    base.file("c/z")
    base.finish()
    middle = chain.layer()
    with upper([base.root], middle.root, options="redirect_dir=on") as merged:
        (merged / "a/b").rename(merged / "c/b2")
        (merged / "c").rename(merged / "c2")
        (merged / "c2/b2/sub").rename(merged / "sub")
    middle.forget("")
    top = chain.layer()
    with upper([base.root, middle.root], top.root, options="redirect_dir=on") as merged:
        (merged / "c2/b2").rename(merged / "b3")
        (merged / "b3/new").write_bytes(b"new")
    top.forget("")
    return {
        "a/b": None,
        "c": None,
        "c2/z": "file",
        "b3/x": "file",
        "b3/new": b"new",
        "b3/sub": None,
        "sub/y": "file",
    }
