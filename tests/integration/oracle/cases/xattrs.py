"""2.8 xattrs of the output."""

from __future__ import annotations

from integration.oracle.chains import Claims, case
from integration.oracle.layer import (
    ACL_GROUP_OBJ,
    ACL_MASK,
    ACL_NOBODY,
    ACL_OTHER,
    ACL_USER,
    ACL_USER_OBJ,
    CAP_NET_RAW,
    RICH_ACL,
    Chain,
    acl,
)

PRIVATE = ("origin", "impure", "nlink", "upper", "uuid", "protattr", "whiteout", "opaque", "unknown", "x")


@case("2.8", also_userxattr=True)
def private_xattrs_never_show(chain: Chain) -> Claims:
    base, top = chain.two()
    marks = {chain.prefix + name: b"n" for name in PRIVATE}
    for layer in (base, top):
        layer.file(f"f{layer.number}", xattrs={**marks, "user.kept": b"1"})
        layer.directory(f"d{layer.number}", xattrs={**marks, "user.kept": b"1"})
        layer.root_attributes(xattrs=marks)
    if not chain.userxattr:
        top.symlink("s", "t", xattrs=marks)
        top.node("p", "fifo", xattrs=marks)
        top.node("c", "char", 4, 5, xattrs=marks)
    return {"f0": "file", "f1": "file", "d1": "directory"}


@case("2.8", also_userxattr=True)
def escaped_xattrs_lose_one_level(chain: Chain) -> Claims:
    base, top = chain.two()
    escaped = {
        chain.prefix + "overlay.opaque": b"y",
        chain.prefix + "overlay.overlay.redirect": b"/deep",
        chain.prefix + "overlay.any": b"\0\1",
    }
    base.directory("d", xattrs=escaped)
    base.file("d/x")
    top.file("f", xattrs=escaped)
    top.file("d/y")
    top.directory("e", xattrs=escaped)
    base.file("e/below")
    return {"d/x": "file", "d/y": "file", "f": "file", "e/below": "file"}


@case("2.8")
def escaped_whiteout_is_a_file(chain: Chain) -> Claims:
    base, top = chain.two()
    base.file("f")
    top.file("f", b"", xattrs={"trusted.overlay.overlay.whiteout": b"y"})
    return {"f": b""}


@case("2.8", also_userxattr=True)
def names_near_the_prefix(chain: Chain) -> Claims:
    base, top = chain.two()
    start = chain.prefix[:-1]
    top.file(
        "f",
        xattrs={
            start: b"no dot",
            start + "foo": b"1",
            start + "fs.opaque": b"y",
            start.capitalize().swapcase().lower() + "s": b"2",
            chain.prefix + "overlay": b"no second dot",
            chain.prefix + "overlayfoo.x": b"private",
        },
    )
    base.file("g")
    return {"f": "file"}


@case("2.8")
def user_overlay_is_ordinary_in_a_trusted_store(chain: Chain) -> Claims:
    base, top = chain.two()
    marks = {
        "user.overlay.opaque": b"y",
        "user.overlay.redirect": b"/old",
        "user.overlay.overlay.x": b"1",
        "user.overlay.metacopy": b"",
    }
    base.file("d/below")
    top.directory("d", xattrs=marks)
    top.file("f", b"data", xattrs=marks)
    return {"d/below": "file", "f": b"data"}


@case("2.8", userxattr=True)
def trusted_overlay_is_ordinary_in_a_userxattr_store(chain: Chain) -> Claims:
    base, top = chain.two()
    marks = {
        "trusted.overlay.opaque": b"y",
        "trusted.overlay.redirect": b"/old",
        "trusted.overlay.overlay.x": b"1",
        "trusted.overlay.metacopy": b"",
    }
    base.file("d/below")
    top.directory("d", xattrs=marks)
    top.file("f", b"data", xattrs=marks)
    return {"d/below": "file", "f": b"data"}


@case("2.8")
def every_namespace_on_every_kind(chain: Chain) -> Claims:
    base, top = chain.two()
    trusted = {"trusted.x": b"t", "security.any": b"s", "security.selinux": b"u:r\0"}
    base.file("f", xattrs={**trusted, "user.x": b"u", "security.ima": b"\3\1"})
    base.directory("d", xattrs={**trusted, "user.x": b"u"})
    base.symlink("s", "t", xattrs=trusted)
    base.symlink("long", "t" * 200, xattrs=trusted)
    base.node("p", "fifo", xattrs=trusted)
    base.node("k", "socket", xattrs=trusted)
    base.node("c", "char", 1, 3, xattrs=trusted)
    base.node("b", "block", 7, 0, xattrs=trusted)
    top.file("d/x", xattrs={"trusted.overlayfoo": b"1"})
    return {"s": "symlink", "d/x": "file"}


@case("2.8")
def capabilities(chain: Chain) -> Claims:
    base, top = chain.two()
    # Revision 3 is bound to a user namespace's root; the kernel shows it as
    # revision 2 where that is uid 0.
    revision3 = b"\x01\0\0\x03" + CAP_NET_RAW[4:] + (0).to_bytes(4, "little")
    base.file("ping", mode=0o755, xattrs={"security.capability": CAP_NET_RAW})
    base.file("three", mode=0o755, xattrs={"security.capability": revision3})
    top.file("top", mode=0o755, xattrs={"security.capability": CAP_NET_RAW})
    return {"ping": "file", "top": "file"}


@case("2.8")
def posix_acls(chain: Chain) -> Claims:
    base, top = chain.two()
    minimal = acl(
        (ACL_USER_OBJ, 6, ACL_NOBODY),
        (ACL_GROUP_OBJ, 4, ACL_NOBODY),
        (ACL_OTHER, 4, ACL_NOBODY),
    )
    many = acl(
        (ACL_USER_OBJ, 7, ACL_NOBODY),
        *((ACL_USER, 5, 10_000 + n) for n in range(60)),
        (ACL_GROUP_OBJ, 5, ACL_NOBODY),
        (ACL_MASK, 5, ACL_NOBODY),
        (ACL_OTHER, 5, ACL_NOBODY),
    )
    access, default = "system.posix_acl_access", "system.posix_acl_default"
    base.file("f", xattrs={access: RICH_ACL})
    base.file("many", xattrs={access: many[:4] + many[4:]})
    base.directory("d", xattrs={access: RICH_ACL, default: RICH_ACL})
    base.file("d/x")
    base.directory("minimal", xattrs={default: minimal})
    top.directory("d", xattrs={default: minimal, "user.a": b"1"})
    top.node("p", "fifo", xattrs={access: RICH_ACL})
    top.node("c", "char", 9, 9, xattrs={access: RICH_ACL})
    return {"d/x": "file"}


@case("2.8", stores=("xfs",))
def xfs_lists_acls_twice(chain: Chain) -> Claims:
    base, top = chain.two()
    base.file("f", xattrs={"system.posix_acl_access": RICH_ACL, "trusted.x": b"1"})
    top.directory("d", xattrs={"system.posix_acl_default": RICH_ACL})
    return {"f": "file"}


@case("2.8", stores=("ext4", "btrfs"))
def sgi_acl_names_are_dropped_anywhere(chain: Chain) -> Claims:
    base, top = chain.two()
    base.file("f", xattrs={"trusted.SGI_ACL_FILE": b"garbage", "trusted.x": b"1"})
    top.directory("d", xattrs={"trusted.SGI_ACL_DEFAULT": b"garbage"})
    return {"f": "file"}


@case("2.8", stores=("xfs",), refused=("EUCLEAN", "f"))
def sgi_acl_garbage_on_xfs(chain: Chain) -> Claims:
    base, top = chain.two()
    base.file("f", xattrs={"trusted.SGI_ACL_FILE": b"garbage"})
    top.file("g")
    return {}


@case("2.8")
def xattr_values_of_any_bytes(chain: Chain) -> Claims:
    base, top = chain.two()
    base.file("f", xattrs={"user.all": bytes(range(256)), "user.empty": b""})
    top.file("g", xattrs={"user." + "n" * 250: b"long name"})
    top.file("h", xattrs={"user.\u00fc\u6f22 \n": b"odd name", "user.\x01": b"\0" * 9})
    return {"f": "file", "g": "file", "h": "file"}


@case("2.8")
def xattrs_at_the_edge_of_the_inode(chain: Chain) -> Claims:
    """256-byte inodes take one user.a value of 68 bytes, not of 69."""
    base, _ = chain.two()
    for size in range(60, 80):
        base.file(f"f{size}", xattrs={"user.a": bytes([size]) * size})
        base.directory(f"d{size}", xattrs={"trusted.a": bytes([size]) * size})
    return {"f68": "file", "f69": "file"}


@case("2.8")
def xattrs_at_the_edge_of_the_block(chain: Chain) -> Claims:
    base, top = chain.two()
    for size in (500, 1000, 2000, 3000, 4000, 4036, 4037, 4038, 4039, 4040):
        top.file(f"f{size}", xattrs={"user.a": bytes([size % 251]) * size})
    base.symlink("s", "t" * 70, xattrs={"trusted.a": b"s" * 4040})
    base.node("p", "fifo", xattrs={"trusted.a": b"p" * 3999})
    base.directory("d", xattrs={"user.a": b"d" * 3998})
    return {"f4040": "file"}


@case("2.8")
def xattrs_in_inode_and_block(chain: Chain) -> Claims:
    """Some fit the inode and some do not; the order of names must not matter."""
    base, top = chain.two()
    for count in (2, 3, 5, 20, 40):
        base.file(
            f"f{count}",
            xattrs={f"user.{n:02}": bytes([n]) * (n * 3 + 1) for n in range(count)},
        )
    top.file(
        "mixed",
        xattrs={
            "user.big": b"b" * 3000,
            "user.small": b"s",
            "trusted.small": b"t" * 30,
            "security.small": b"x" * 20,
            "security.capability": CAP_NET_RAW,
        },
    )
    return {"f40": "file", "mixed": "file"}


@case("2.8")
def xattrs_shared_by_many_inodes(chain: Chain) -> Claims:
    """More inodes than one EA block may be shared by (1024)."""
    base, top = chain.two()
    same = {"user.same": b"s" * 300}
    for number in range(1100):
        base.file(f"d/{number}", b"", xattrs=same)
    top.file("other", xattrs={"user.same": b"s" * 299 + b"t"})
    return {"d/1099": b""}


@case("2.8", stores=("xfs", "btrfs"))
def xattr_beyond_the_block(chain: Chain) -> Claims:
    """The value gets an inode of its own (ea_inode), and equal ones share it."""
    base, top = chain.two()
    base.file("x")
    top.file("d/large", xattrs={"user.a": b"a" * 9000})
    top.file("d/same", xattrs={"user.a": b"a" * 9000, "user.b": b"b" * 5000})
    return {}


@case("2.8", stores=("btrfs",))
def xattrs_of_hidden_entries_do_not_matter(chain: Chain) -> Claims:
    base, top = chain.two()
    base.file("d/large", xattrs={"user.a": b"a" * 9000})
    base.file("e/large", xattrs={"user.a": b"a" * 9000})
    top.whiteout("d/large")
    top.directory("e", opaque=b"y")
    return {"d/large": None, "e/large": None}


@case("2.8")
def protattr_is_gone_in_a_lower_layer(chain: Chain) -> Claims:
    base, top = chain.two()
    base.file("f", xattrs={"trusted.overlay.protattr": b"ia"})
    top.file("g", xattrs={"trusted.overlay.protattr": b"i"})
    return {"f": "file", "g": "file"}
