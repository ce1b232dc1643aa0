"""Hypothesis strategies for layers of any shape, and how they are made real."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hypothesis import strategies as st

from integration.oracle import kernel
from integration.oracle.layer import CAP_NET_RAW, RICH_ACL, Chain, Layer

if TYPE_CHECKING:
    from hypothesis.vendor.pretty import RepresentationPrinter

#: Few, so that layers meet in the same names.
COMMON_NAMES = (b"a", b"b", b"c", b"d\n", b"\xff", b".wh.a", b"lost+found", b"n" * 255)
#: What the least EA block holds beside its head (32 bytes) and the closing zeros (4).
XATTR_ROOM = 1024 - 32 - 4
SECOND = 10**9


@dataclass(frozen=True)
class Attributes:
    """Of any node."""

    mode: int
    uid: int
    gid: int
    mtime: int
    xattrs: tuple[tuple[str, bytes], ...]


@dataclass(frozen=True)
class Node:
    """A node of a layer; which fields mean something hangs on the kind."""

    kind: str
    attributes: Attributes
    data: bytes = b""
    pieces: tuple[tuple[int, bytes], ...] = ()
    hole_after: int = 0
    device: tuple[int, int] = (0, 0)
    opaque: bytes | None = None
    redirect: bytes | None = None
    #: Those of ``chattr``.
    flags: int = 0
    default_acl: bool = False
    #: Written compressed, where the store can.
    compressed: bool = False


@dataclass(frozen=True)
class LayerSpec:
    """A layer: its root, its nodes, and names that its inodes have besides.

    Which directory a node is in is a number counted round the directories
    that there are by then: flat lists make large trees, nested ones do not.
    """

    root: Attributes
    nodes: tuple[tuple[int, bytes, Node], ...]
    #: (which inode, which directory, name)
    links: tuple[tuple[int, int, bytes], ...]

    def _repr_pretty_(self, printer: RepresentationPrinter, cycle: bool) -> None:
        """Hypothesis would show the calls that made it, and needs minutes for so many in one another."""
        printer.text(repr(self))


def _edges(*values: int, least: int, most: int) -> st.SearchStrategy[int]:
    return st.sampled_from(values) | st.integers(least, most)


def _as_name(raw: bytes) -> bytes:
    name = raw.replace(b"/", b"_").replace(b"\0", b"0")
    return name if name not in (b".", b"..") else b"dots"


names = st.sampled_from(COMMON_NAMES) | st.binary(min_size=1, max_size=255).map(_as_name)

owners = _edges(0, 1, 65_535, 65_536, 2**31, 2**32 - 2, least=0, most=2**32 - 2)


def _undoubted(second: int) -> int:
    """Not one of the years 2310 to 2378: see the case times_that_e2fsck_doubts."""
    return second - 2**32 if 3 * 2**32 - 2**31 <= second < 3 * 2**32 else second


times = st.builds(
    lambda second, nanosecond: _undoubted(second) * SECOND + nanosecond,
    _edges(-(2**31) + 1, -1, 0, 2**31 - 1, 2**31, 2**32, 0x37FFFFFFE, least=-(2**31) + 1, most=0x37FFFFFFE),
    _edges(0, 1, SECOND - 1, least=0, most=SECOND - 1),
)

modes = _edges(0, 0o644, 0o4755, 0o2755, 0o1777, 0o7777, least=0, most=0o7777)

targets = st.binary(min_size=1, max_size=200).filter(lambda target: b"\0" not in target) | st.integers(
    55, 1000
).map(lambda length: b"t" * length)


def _fitting(pairs: Mapping[str, bytes]) -> tuple[tuple[str, bytes], ...]:
    """As many as the least EA block has names for; values have inodes of their own at need."""
    room = XATTR_ROOM
    chosen = []
    for name, value in sorted(pairs.items()):
        suffix = name.split(".", 1)[1].encode()
        need = 16 + (len(suffix) + 3) // 4 * 4
        if need <= room:
            room -= need
            chosen.append((name, value))
    return tuple(chosen)


def _xattrs(*namespaces: str) -> st.SearchStrategy[tuple[tuple[str, bytes], ...]]:
    suffix = st.sampled_from(["a", "b", "c.d", "overlay", "overlayfs", "n" * 240]) | st.text(
        st.characters(min_codepoint=1, max_codepoint=0x2FF), min_size=1, max_size=40
    )
    value = st.binary(max_size=80) | st.builds(
        lambda byte, length: bytes([byte]) * length,
        st.integers(0, 255),
        # ext4 has room for 4040, btrfs for 16,000 or so, and 65,536 is all that a value may have.
        _edges(4040, 16_000, 65_536, least=0, most=4040),
    )
    name = st.builds("{}.{}".format, st.sampled_from(namespaces), suffix)
    ordinary = st.dictionaries(name, value, max_size=6)
    return st.one_of(st.just({}), ordinary, ordinary).map(_fitting)


def _attributes(*namespaces: str) -> st.SearchStrategy[Attributes]:
    return st.builds(Attributes, modes, owners, owners, times, _xattrs(*namespaces))


_with_user = _attributes("user", "trusted", "security")
_without_user = _attributes("trusted", "security")
_plain = st.builds(Attributes, modes, owners, owners, times, st.just(()))

flags = st.sampled_from([0] * 12 + [1 << n for n in (4, 5, 6, 7)] + [kernel.KEPT_FLAGS])

files = st.one_of(
    st.builds(Node, st.just("file"), _with_user, data=st.binary(max_size=300), flags=flags),
    st.builds(
        Node,
        st.just("file"),
        _plain,
        # From 65,536 bytes on blocks are shared where the store can.
        data=st.builds(
            lambda byte, n: bytes([byte]) * n,
            st.integers(0, 255),
            _edges(65_535, 65_536, 70_001, 300_000, least=0, most=40_000),
        ),
        compressed=st.booleans(),
    ),
    st.builds(
        Node,
        st.just("file"),
        _plain,
        pieces=st.lists(
            st.tuples(
                _edges(2**32 - 1, 2**32, 2**41, least=0, most=1 << 20) | st.integers(0, 1 << 20),
                st.binary(max_size=5000),
            ),
            max_size=8,
        ).map(tuple),
        hole_after=st.integers(0, 1 << 21),
    ),
)

others = st.one_of(
    st.builds(Node, st.just("symlink"), _without_user, data=targets),
    st.builds(
        Node,
        st.sampled_from(["char", "block"]),
        _without_user,
        device=st.tuples(
            _edges(0, 255, 256, 4095, least=0, most=4095), _edges(0, 1, 256, least=0, most=2**20 - 1)
        ),
    ),
    st.builds(Node, st.sampled_from(["fifo", "socket"]), _without_user),
    st.builds(Node, st.sampled_from(["whiteout", "xattr-whiteout"]), _plain),
    st.builds(Node, st.sampled_from(["acl", "capability"]), _plain),
)

redirects = st.one_of(
    st.sampled_from(COMMON_NAMES),
    st.lists(st.sampled_from(COMMON_NAMES), min_size=1, max_size=3).map(
        lambda parts: b"/" + b"/".join(parts)
    ),
)


directories = st.builds(
    Node,
    st.just("directory"),
    _with_user,
    opaque=st.sampled_from([None, None, None, None, b"y", b"x"]),
    redirect=st.one_of(st.none(), st.none(), st.none(), redirects),
    flags=flags,
    default_acl=st.sampled_from([False] * 9 + [True]),
)

_any_node = st.one_of(directories, directories, files, files, others)
_index = st.integers(0, 30)

#: What has no sense where nothing is free and nothing written.
READONLY: dict[str, object] = {"journal": "auto", "reserved": 0}

#: Wishes that an image of any tree of these can have.
options = st.fixed_dictionaries(
    {
        "profile": st.sampled_from(["default", "default", "compat", "readonly"]),
        "block_size": st.sampled_from([4096, 1024, 2048]),
        # The second number is no multiple of a block.
        "size": st.sampled_from(["auto", "min", 300 << 20, (5 << 30) + 12_345]),
        "free_space": st.sampled_from([0, 1, 256 << 20]),
        "journal": st.sampled_from(["auto", "auto", "none", 4 << 20]),
        "reserved": st.sampled_from([0, 0, 1 << 20]),
        "inodes": st.sampled_from([None, None, 5000]),
        "inode_flags": st.booleans(),
        "threads": st.sampled_from([1, 2, 5]),
    }
).map(lambda wish: wish | READONLY if wish["profile"] == "readonly" else wish)

layers = st.builds(
    LayerSpec,
    _with_user,
    st.lists(st.tuples(_index, names, _any_node), min_size=6, max_size=30).map(tuple),
    st.lists(st.tuples(_index, _index, names), max_size=5).map(tuple),
)


def make(chain: Chain, spec: LayerSpec, *, marks: bool) -> None:
    """Makes one more layer; without ``marks`` it is an ordinary tree."""
    layer = chain.layer()
    inodes: list[bytes] = []
    places: list[bytes] = [b""]
    root = spec.root
    layer.root_attributes(mode=root.mode, uid=root.uid, gid=root.gid, mtime=root.mtime)
    _set_xattrs(layer, b"", root.xattrs)
    for index, name, node in spec.nodes:
        path = _join(places[index % len(places)], name)
        if os.path.lexists(layer.at(path)):
            continue
        if node.kind == "directory":
            _make_directory(layer, path, node, marks=marks)
            places.append(path)
        elif marks or "whiteout" not in node.kind:
            _make_other(layer, path, node, chain.fs)
            inodes.append(path)
    for inode, index, name in spec.links:
        path = _join(places[index % len(places)], name)
        if inodes and not os.path.lexists(layer.at(path)):
            layer.link(inodes[inode % len(inodes)], path)


def _join(directory: bytes, name: bytes) -> bytes:
    return directory + b"/" + name if directory else name


def _make_directory(layer: Layer, path: bytes, node: Node, *, marks: bool) -> None:
    one = node.attributes
    layer.directory(
        path,
        mode=one.mode,
        uid=one.uid,
        gid=one.gid,
        mtime=one.mtime,
        opaque=node.opaque if marks else None,
        redirect=node.redirect if marks and layer.prefix.startswith("trusted") else None,
        xattrs={"system.posix_acl_default": RICH_ACL} if node.default_acl else None,
    )
    if node.flags:
        layer.flags(path, node.flags)
    _set_xattrs(layer, path, one.xattrs)


def _make_other(layer: Layer, path: bytes, node: Node, fs: str) -> None:
    one = node.attributes
    if node.kind == "whiteout":
        layer.whiteout(path, mode=one.mode)
        return
    if node.kind == "xattr-whiteout":
        layer.xattr_whiteout(path)
        return
    uid, gid, mtime = one.uid, one.gid, one.mtime
    if node.kind == "symlink":
        layer.symlink(path, node.data, uid=uid, gid=gid, mtime=mtime)
    elif node.kind in ("char", "block", "fifo", "socket"):
        major, minor = node.device
        if fs == "xfs":
            # It has 9 and 18 bits for them, and answers EINVAL beyond.
            major, minor = major % 2**9, minor % 2**18
        # char 0:0 would be a whiteout, which has a kind of its own.
        minor = 1 if node.kind == "char" and (major, minor) == (0, 0) else minor
        layer.node(path, node.kind, major, minor, mode=one.mode, uid=uid, gid=gid, mtime=mtime)
    else:
        pieces = dict(node.pieces)
        end = max((at + len(piece) for at, piece in pieces.items()), default=len(node.data))
        size = max(end, len(node.data)) + node.hole_after
        layer.file(
            path,
            node.data,
            mode=one.mode,
            uid=uid,
            gid=gid,
            mtime=mtime,
            pieces=pieces,
            size=size,
            xattrs=SPECIAL.get(node.kind),
            compressed=node.compressed and fs == "btrfs",
        )
        if node.flags:
            layer.flags(path, node.flags)
    _set_xattrs(layer, path, one.xattrs)


#: Kinds of files that are what they are by an xattr.
SPECIAL = {
    "acl": {"system.posix_acl_access": RICH_ACL},
    "capability": {"security.capability": CAP_NET_RAW},
}


def _set_xattrs(layer: Layer, path: bytes, xattrs: tuple[tuple[str, bytes], ...]) -> None:
    for name, value in xattrs:
        # What the store itself has no room for cannot be asked of an image.
        with no_room_is_no_matter():
            os.setxattr(layer.at(path), name, value, follow_symlinks=False)


@contextmanager
def no_room_is_no_matter() -> Iterator[None]:
    """Passes over what a file system says when its xattrs are full."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.E2BIG):
            raise
