"""2.11 nodes, times, sizes, names, the root, and how much of each."""

from __future__ import annotations

import os

from integration.oracle import kernel
from integration.oracle.chains import Claims, case
from integration.oracle.layer import RICH_ACL, Chain

FALLOC_FL_KEEP_SIZE = 1
SECOND = 10**9
#: ext4's range of times: 34 bits, from -2^31 on.
FIRST_SECOND, LAST_SECOND = -(2**31), 0x37FFFFFFF


@case("2.11")
def root_is_that_of_the_top_layer(chain: Chain) -> Claims:
    base, top = chain.two()
    base.root_attributes(mode=0o700, uid=1, gid=2, xattrs={"user.base": b"1"})
    base.file("f")
    top.root_attributes(
        mode=0o1775,
        uid=33,
        gid=44,
        mtime=1_234_567_890_123_456_789,
        xattrs={
            "user.top": b"2",
            "trusted.overlay.opaque": b"n",
            "system.posix_acl_default": RICH_ACL,
        },
    )
    return {"f": "file"}


@case("2.11")
def root_of_mode_555(chain: Chain) -> Claims:
    base, top = chain.two()
    base.file("f")
    top.root_attributes(mode=0o555)
    return {"f": "file"}


@case("2.11")
def empty_chain(chain: Chain) -> Claims:
    chain.layer()
    return {}


@case("2.11")
def empty_layers(chain: Chain) -> Claims:
    chain.three()
    return {}


@case("2.11")
def one_file(chain: Chain) -> Claims:
    chain.layer().file("f")
    return {"f": b"layer 0: f\n"}


@case("2.11")
def one_empty_file(chain: Chain) -> Claims:
    chain.layer().file("f", b"")
    return {"f": b""}


@case("2.11")
def symlinks(chain: Chain) -> Claims:
    base, top = chain.two()
    longest = 1023 if chain.fs == "xfs" else 4094
    for length in (1, 58, 59, 60, 61, 255, 1000, longest):
        base.symlink(f"s{length}", "t" * length, uid=length, gid=length + 1)
    top.symlink("bytes", b"\xff\xfe/\n\x01", mtime=-1, uid=3_000_000_000, gid=0)
    top.symlink("absolute", "/etc/passwd", xattrs={"trusted.x": b"1"})
    top.symlink("inline-and-xattrs", "t" * 59, xattrs={"trusted.x": b"1" * 60})
    return {"s59": "symlink", "s60": "symlink", "bytes": "symlink"}


@case("2.11", stores=("ext4", "btrfs"))
def symlink_as_long_as_can_be(chain: Chain) -> Claims:
    base, _ = chain.two()
    base.symlink("s", "t" * (4095 if chain.fs == "ext4" else 4094))
    return {"s": "symlink"}


@case("2.11")
def devices(chain: Chain) -> Claims:
    base, top = chain.two()
    major, minor = (511, 262_143) if chain.fs == "xfs" else (4095, 1_048_575)
    pairs = ((1, 3), (0, 7), (255, 255), (256, 0), (0, 256), (8, 256), (major, minor))
    for number, (first, second) in enumerate(pairs):
        base.node(f"c{number}", "char", first, second, mode=0o620)
        top.node(f"b{number}", "block", first, second, mode=0o660)
    base.node("fifo", "fifo", mode=0o7777)
    top.node("socket", "socket", mode=0o777)
    return {"c6": "char", "b6": "block"}


@case("2.11")
def modes_and_owners(chain: Chain) -> Claims:
    base, top = chain.two()
    for bits in (0, 0o1000, 0o2000, 0o4000, 0o7000):
        base.file(f"f{bits:o}", mode=bits | 0o751)
        base.directory(f"d{bits:o}", mode=bits | 0o700)
        top.file(f"d{bits:o}/x", mode=bits)
        top.directory(f"d{bits:o}", mode=bits)
    for who in (0, 1, 65_534, 65_535, 65_536, 100_000, 2**31, 2**32 - 2):
        base.file(f"u{who}", uid=who, gid=2**32 - 2 - who)
        top.directory(f"du{who}", uid=2**32 - 2 - who, gid=who)
    return {"f4000": "file", "d1000/x": "file"}


@case("2.11")
def times(chain: Chain) -> Claims:
    base, top = chain.two()
    # xfs with bigtime ends in 2486 and begins in 1901.
    seconds = (
        *(FIRST_SECOND + 1, -1_000_000_000, -2, -1, 0, 1, 2**31 - 1, 2**31),
        *(3_000_000_000, 2**32 - 1, 2**32, 2**32 + 2**31, 2**33, 3 * 2**32),
        LAST_SECOND - 1,
    )
    for number, second in enumerate(seconds):
        for nanosecond in (0, 1, 999_999_999):
            time = second * SECOND + nanosecond
            base.file(f"f{number}-{nanosecond}", b"", mtime=time)
            top.directory(f"d{number}-{nanosecond}", mtime=time)
            top.symlink(f"s{number}-{nanosecond}", "t", mtime=time)
    return {"f0-1": b""}


@case("2.11")
def times_at_both_ends(chain: Chain) -> Claims:
    base, top = chain.two()
    for layer, name, time in (
        (base, "first", FIRST_SECOND * SECOND),
        (top, "last", LAST_SECOND * SECOND),
    ):
        layer.file(f"{name}/file", mtime=time)
        layer.symlink(f"{name}/inline", "t", mtime=time)
        layer.symlink(f"{name}/long", "t" * 60, mtime=time)
        layer.node(f"{name}/char", "char", 1, 3, mtime=time)
        layer.node(f"{name}/block", "block", 7, 0, mtime=time)
        layer.node(f"{name}/fifo", "fifo", mtime=time)
        layer.node(f"{name}/socket", "socket", mtime=time)
        layer.directory(name, mtime=time)
    top.root_attributes(mtime=FIRST_SECOND * SECOND)
    return {"first/socket": "socket", "last/char": "char"}


@case(
    "2.11",
    e2fsck_says=r"Timestamp\(s\) on inode \d+ beyond 2310-04-04 are likely pre-1970\.|Fix\? no"
    r"|inode \d+: its \w+ is of before 1970 as old kernels wrote it wrongly",
)
def times_that_e2fsck_doubts(chain: Chain) -> Claims:
    """2310 to 2378: old kernels wrote those bits for times before 1970.

    The kernel takes them for what they say, and e2fsck says so much and exits
    with 0. The image keeps the true time.
    """
    base, top = chain.two()
    for number, second in enumerate((3 * 2**32 - 2**31, 3 * 2**32 - 2**30, 3 * 2**32 - 1)):
        base.file(f"f{number}", b"", mtime=second * SECOND + 5)
        top.directory(f"d{number}", mtime=second * SECOND)
    return {"f0": b""}


@case("2.11", stores=("btrfs",), unrepresentable="d/early", clamped=True)
def time_before_ext4_begins(chain: Chain) -> Claims:
    base, top = chain.two()
    base.file("x")
    top.file("d/early", mtime=(FIRST_SECOND - 1) * SECOND)
    return {}


@case("2.11", stores=("xfs", "btrfs"), unrepresentable="d/late", clamped=True)
def time_after_ext4_ends(chain: Chain) -> Claims:
    base, top = chain.two()
    base.file("x")
    top.file("d/late", mtime=(LAST_SECOND + 1) * SECOND)
    return {}


@case("2.11")
def sizes_around_a_block(chain: Chain) -> Claims:
    base, top = chain.two()
    for size in (1, 59, 60, 61, 159, 160, 4095, 4096, 4097, 8192, 65_535, 65_537):
        base.file(f"f{size}", bytes((n * 7 + size) % 251 for n in range(size)))
    top.file("f1", b"1")
    return {"f1": b"1"}


@case("2.11")
def sparse_files(chain: Chain) -> Claims:
    base, top = chain.two()
    base.file("all-hole", size=10 << 20)
    base.file("one-byte-hole", size=1)
    base.file("start", pieces={1 << 20: b"data"}, size=(1 << 20) + 4)
    base.file("end", pieces={0: b"data"}, size=1 << 20)
    base.file("middle", pieces={0: b"a" * 5000, 1 << 20: b"b" * 5000})
    base.file("odd", pieces={4095: b"ab", 70_001: b"c"}, size=99_999)
    top.file("terabyte", pieces={1 << 40: b"far"}, size=(1 << 40) + 5000)
    top.file("zeros", bytes(300_000))
    return {"one-byte-hole": b"\0", "terabyte": "file", "zeros": bytes(300_000)}


@case("2.11")
def files_of_many_extents(chain: Chain) -> Claims:
    """Trees of extents of depth 0 (4), 1 (5..1360) and 2 (beyond)."""
    base, top = chain.two()
    for count in (4, 5, 340, 341, 1360, 1361, 3000):
        pieces = {8192 * n: b"%d" % n for n in range(count)}
        layer = base if count % 2 else top
        layer.file(f"f{count}", pieces=pieces)
    return {"f3000": "file"}


@case("2.11")
def preallocated_files(chain: Chain) -> Claims:
    """Unwritten extents read as zeros, whether SEEK_DATA shows them or not."""
    base, top = chain.two()
    for layer, cached in ((base, False), (top, True)):
        name = f"f{cached}"
        layer.file(name, b"start")
        fd = os.open(layer.at(name), os.O_RDWR)
        try:
            kernel.fallocate(fd, 0, 0, 1 << 20)
            os.pwrite(fd, b"middle", 500_000)
            os.fsync(fd)
            if cached:
                os.pread(fd, 1 << 20, 0)
        finally:
            os.close(fd)
    base.file("beyond", b"short")
    fd = os.open(base.at("beyond"), os.O_RDWR)
    try:
        kernel.fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, 1 << 20)
    finally:
        os.close(fd)
    return {"beyond": b"short"}


@case("2.11", stores=("btrfs",))
def compressed_files(chain: Chain) -> Claims:
    """Their extents are no places to read from, and how they are compressed is an attribute of btrfs alone."""
    base, top = chain.two()
    text = b"melted " * 30_000
    base.file("f", text, compressed=True, xattrs={"user.a": b"1"})
    base.file("holes", pieces={0: text, 1 << 20: text}, size=3 << 20, compressed=True)
    top.file("small", b"inline in the tree", compressed=True)
    top.directory("d", xattrs={"btrfs.compression": b"zstd"})
    top.file("d/inherits", text)
    top.finish()
    os.sync()
    return {"f": text, "d/inherits": text}


@case("2.11", stores=("ext4",))
def file_larger_than_an_extent_and_a_group(chain: Chain) -> Claims:
    """An extent holds 128 MiB, and so does a block group."""
    base, top = chain.two()
    block = bytes(range(256)) * 4096
    base.file("big", pieces={n << 20: n.to_bytes(4, "big") + block[4:] for n in range(150)})
    top.file("second", block)
    return {"big": "file"}


@case("2.11")
def immutable_lower_file(chain: Chain) -> Claims:
    base, top = chain.two()
    base.file("f")
    base.flags("f", kernel.FS_IMMUTABLE_FL)
    top.file("g")
    return {"f": "file"}


@case("2.11")
def names_of_any_bytes(chain: Chain) -> Claims:
    base, top = chain.two()
    for byte in range(1, 256):
        if byte not in (ord("/"), ord(".")):
            layer = base if byte % 2 else top
            layer.file(b"d/%c" % byte, b"%d" % byte)
            layer.file(b"x%cy" % byte, b"")
    top.file(b"n" * 255)
    base.directory(b"\xff" * 255)
    top.file(b"\xff" * 255 + b"/" + b"\xfe" * 255)
    base.file("...")
    base.file(" ")
    base.file("e\u0301")
    base.file("\u00e9")
    top.file("-rf")
    return {b"d/\xff": b"255", b"x\ny": b"", "...": "file"}


@case("2.11")
def names_that_differ_only_in_case_or_end(chain: Chain) -> Claims:
    base, top = chain.two()
    for name in ("a", "A", "aa", "aA", "Aa", "a.", "a ", "a\u200b"):
        base.file(f"lower/{name}")
        top.file(f"upper/{name}")
    top.whiteout("lower/A")
    return {"lower/a": "file", "lower/A": None}


@case("2.11")
def deep_tree(chain: Chain) -> Claims:
    """400 levels of 100-byte names: ten times PATH_MAX."""
    base, top = chain.two()
    for layer in (base, top):
        fd = os.open(layer.root, os.O_RDONLY)
        for level in range(400):
            name = b"%03d" % level + b"n" * 97
            os.mkdir(name, dir_fd=fd)
            os.utime(name, ns=(level, level), dir_fd=fd)
            deeper = os.open(name, os.O_RDONLY, dir_fd=fd)
            own = os.open(b"of-layer%d" % layer.number, os.O_WRONLY | os.O_CREAT, dir_fd=deeper)
            os.utime(own, ns=(level, level))
            os.close(own)
            os.close(fd)
            fd = deeper
        os.close(fd)
    return {b"000" + b"n" * 97 + b"/of-layer0": b""}


@case("2.11")
def chain_of_128_layers(chain: Chain) -> Claims:
    for number in range(128):
        layer = chain.layer()
        layer.file("all")
        layer.file(f"d/{number}")
        if number:
            layer.whiteout(f"d/{number - 1}")
        layer.file(f"e/{number % 10}")
    return {"all": b"layer 127: all\n", "d/126": None, "d/127": "file", "e/9": "file"}


@case("2.11", stores=("ext4",))
def chain_of_500_layers(chain: Chain) -> Claims:
    """The kernel takes no more."""
    for number in range(500):
        chain.layer().file(f"d/{number % 50}")
    return {"d/0": b"layer 450: d/0\n"}


@case("2.11")
def directory_of_many_blocks(chain: Chain) -> Claims:
    base, top = chain.two()
    for number in range(2500):
        layer = base if number % 2 else top
        layer.file(f"d/{'name' * (number % 40)}{number}", b"")
    for number in range(0, 1500, 100):
        top.whiteout(f"d/{'name' * ((number + 1) % 40)}{number + 1}")
    return {"d/name1": None, "d": "directory"}


@case("2.11")
def directory_with_many_subdirectories(chain: Chain) -> Claims:
    base, top = chain.two()
    for number in range(700):
        (base if number % 2 else top).directory(f"d/{number}")
    return {"d/699": "directory"}


@case("2.11")
def directory_blocks_that_are_just_full(chain: Chain) -> Claims:
    """Entries that end at the block's checksum tail, and one byte beyond."""
    base, _ = chain.two()
    for count in range(12, 22):
        for number in range(count):
            base.file(f"d{count}/{number:03}" + "n" * 240, b"")
    for length in (244, 245, 246, 247, 248, 249, 252, 253, 255):
        for number in range(16):
            base.file(f"l{length}/{number:03}" + "n" * (length - 3), b"")
    return {"d15": "directory"}


@case("2.11")
def lost_and_found_of_the_chain(chain: Chain) -> Claims:
    base, top = chain.two()
    base.directory("lost+found", mode=0o755, uid=5)
    base.file("lost+found/x")
    top.file("lost+found/y")
    return {"lost+found/x": "file", "lost+found/y": "file"}


@case("2.11")
def lost_and_found_is_a_file(chain: Chain) -> Claims:
    base, top = chain.two()
    base.directory("lost+found", mode=0o700, uid=0, gid=0)
    top.file("lost+found")
    return {"lost+found": b"layer 1: lost+found\n"}


@case("2.11")
def lost_and_found_whited_out(chain: Chain) -> Claims:
    base, top = chain.two()
    base.file("lost+found/x")
    top.whiteout("lost+found")
    return {"lost+found": None}
