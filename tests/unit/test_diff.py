"""`layermelt diff` on directories."""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import layermelt
from layermelt import errors
from layermelt.cli import cli
from layermelt.differ import Difference, DiffResult, FieldChange, diff_trees


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree with something of each type that any user can make."""
    tree = tmp_path / "a"
    (tree / "dir/sub").mkdir(parents=True)
    (tree / "file").write_bytes(b"some bytes of content")
    (tree / "dir/sub/one").write_text("linked")
    os.link(tree / "dir/sub/one", tree / "dir/two")
    (tree / "link").symlink_to("target")
    os.mkfifo(tree / "fifo")
    with (tree / "sparse").open("wb") as file:
        file.truncate(10 << 20)
        file.seek(5 << 20)
        file.write(b"in the middle")
    return tree


def copy_of(tree: Path) -> Path:
    """An equal tree beside."""
    copy = tree.with_name("b")
    shutil.copytree(tree, copy, symlinks=True, copy_function=shutil.copy2, ignore=_special)
    for name in ("dir/two",):
        if (tree / name).exists():
            (copy / name).unlink()
            os.link(copy / "dir/sub/one", copy / name)
    os.mkfifo(copy / "fifo")
    for path in [*tree.rglob("*"), tree]:
        status = path.lstat()
        times = (status.st_atime_ns, status.st_mtime_ns)
        os.utime(copy / path.relative_to(tree), ns=times, follow_symlinks=False)
    return copy


def _special(_directory: str, names: list[str]) -> set[str]:
    return {name for name in names if name == "fifo"}


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, ["diff", *(str(argument) for argument in arguments)])


def found(result: DiffResult) -> dict[str, set[str]]:
    """The paths with the names of what differs."""
    return {
        one.path.decode(): {change.field for change in one.changes} or {one.kind}
        for one in result.differences
    }


def keep_mtime(path: Path, change: Callable[[Path], None]) -> None:
    """Changes something, and no mtime by the way."""
    above = [path, path.parent]
    times = [one.lstat() if os.path.lexists(one) else None for one in above]
    change(path)
    for one, status in zip(above, times, strict=True):
        if status and os.path.lexists(one):
            ns = (status.st_atime_ns, status.st_mtime_ns)
            os.utime(one, ns=ns, follow_symlinks=False)


def test_a_copy_is_equal(tree: Path) -> None:
    result = diff_trees(tree, copy_of(tree), strict=True)
    assert result.equal
    assert result.differences == ()
    assert result.entries_a == result.entries_b == 8
    done = run(tree, tree.with_name("b"))
    assert (done.exit_code, done.stdout) == (0, "")
    assert "equal" in done.stderr


def _retarget(path: Path) -> None:
    path.unlink()
    path.symlink_to("targeT")


def _to_socket(path: Path) -> None:
    path.unlink()
    with socket.socket(socket.AF_UNIX) as one:
        directory = os.open(path.parent, os.O_RDONLY)
        one.bind(f"/proc/self/fd/{directory}/{path.name}")
        os.close(directory)
    path.chmod(0o644)


def _unlink_and_copy(path: Path) -> None:
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)


def _write(at: int, byte: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with path.open("r+b") as file:
            file.seek(at)
            file.write(byte)

    return write


@pytest.mark.parametrize(
    ("path", "change", "fields"),
    [
        ("file", lambda path: path.chmod(0o4750), {"/file": {"mode"}}),
        ("file", lambda path: path.chmod(path.stat().st_mode | 0o4000), {"/file": {"mode"}}),
        ("dir", lambda path: path.chmod(path.stat().st_mode | 0o1000), {"/dir": {"mode"}}),
        ("file", lambda path: os.setxattr(path, "user.a", b""), {"/file": {"xattr"}}),
        ("dir/sub", lambda path: os.setxattr(path, "user.a", b"1"), {"/dir/sub": {"xattr"}}),
        ("file", _write(3, b"X"), {"/file": {"content"}}),
        ("sparse", _write((10 << 20) - 1, b"X"), {"/sparse": {"content"}}),
        ("file", lambda path: os.truncate(path, 20), {"/file": {"size"}}),
        ("link", _retarget, {"/link": {"target"}}),
        ("fifo", _to_socket, {"/fifo": {"type"}}),
        ("dir/two", _unlink_and_copy, {"/dir/two": {"links"}, "/dir/sub/one": {"links"}}),
        ("file", Path.unlink, {"/file": {"only-a"}}),
        ("new", Path.touch, {"/new": {"only-b"}}),
    ],
)
def test_each_field(
    tree: Path, path: str, change: Callable[[Path], None], fields: dict[str, set[str]]
) -> None:
    other = copy_of(tree)
    keep_mtime(other / path, change)
    result = diff_trees(tree, other)
    assert found(result) == fields
    assert not result.equal
    assert result.count == len(fields)
    assert run(tree, other).exit_code == 1


@pytest.mark.parametrize("path", ["file", "dir", "link", "fifo", "."])
def test_mtime_to_the_nanosecond(tree: Path, path: str) -> None:
    other = copy_of(tree)
    moment = (other / path).lstat().st_mtime_ns + 1
    os.utime(other / path, ns=(0, moment), follow_symlinks=False)
    [difference] = diff_trees(tree, other).differences
    assert difference.path == ("/" if path == "." else f"/{path}").encode()
    assert difference.changes == (FieldChange("mtime", moment - 1, moment),)
    assert diff_trees(tree, other, ignore=["mtime"]).equal


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(
    "at", [0, 1, 131_071, 131_072, (4 << 20) - 1, 4 << 20, (9 << 20) + 5, (12 << 20) - 1]
)
def test_the_first_byte_that_differs(tmp_path: Path, at: int, threads: int) -> None:
    content = bytearray(random.Random(at).randbytes(12 << 20))
    for side in ("a", "b"):
        (tmp_path / side).mkdir()
        (tmp_path / side / "file").write_bytes(content)
        content[at] ^= 1
        content[-1] ^= 2
    result = diff_trees(tmp_path / "a", tmp_path / "b", ignore=["mtime"], threads=threads)
    assert [one.changes for one in result.differences] == [(FieldChange("content", at, at),)]


def test_holes_are_zeros_and_are_not_read(tmp_path: Path) -> None:
    """1 TiB in no time."""
    for side in ("a", "b"):
        (tmp_path / side).mkdir()
        with (tmp_path / side / "file").open("wb") as file:
            file.truncate(1 << 40)
            file.seek((1 << 39) + 5)
            file.write(b"x")
    with (tmp_path / "b/file").open("r+b") as file:
        file.write(bytes(100_000))
    assert diff_trees(tmp_path / "a", tmp_path / "b", ignore=["mtime"]).equal
    with (tmp_path / "b/file").open("r+b") as file:
        file.seek((1 << 40) - 7)
        file.write(b"y")
    [difference] = diff_trees(tmp_path / "a", tmp_path / "b", ignore=["mtime"]).differences
    assert difference.changes[0].a == (1 << 40) - 7


@pytest.mark.parametrize("field", ["content", "links", "mode", "mtime", "xattrs"])
def test_what_is_ignored(tree: Path, field: str) -> None:
    other = copy_of(tree)
    (other / "file").write_text("other content")
    (other / "dir").chmod(0o700)
    os.setxattr(other / "file", "user.a", b"1")
    _unlink_and_copy(other / "dir/two")
    named = {"xattrs": "xattr", "content": "size"}.get(field, field)
    fields = {change.field for one in diff_trees(tree, other).differences for change in one.changes}
    assert named in fields
    result = diff_trees(tree, other, ignore=[field])
    assert {change.field for one in result.differences for change in one.changes} == fields - {named}
    done = run(tree, other, "--ignore", field, "--json")
    fields_told = {
        change["field"] for one in json.loads(done.stdout)["differences"] for change in one["changes"]
    }
    assert fields_told == fields - {named}


def test_paths_are_in_the_order_of_their_bytes(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    for name in ("a", "a-", "a-b", "a--", "a0", "ab", "a.b", "z"):
        for sub in ("x", "x-y", "x.z", "xy"):
            (tmp_path / "a" / name / sub).mkdir(parents=True)
            (tmp_path / "a" / name / sub / "leaf").touch()
    result = diff_trees(tmp_path / "a", tmp_path / "b", all_names=True, ignore=["mtime"])
    told = [one.path for one in result.differences]
    assert told == sorted(told)
    assert len(told) == 8 + 8 * 4 * 2


def test_a_directory_of_one_side_is_told_once(tree: Path) -> None:
    other = copy_of(tree)
    shutil.rmtree(other / "dir")
    (other / "dir").write_text("a file now")
    shutil.copytree(tree / "dir", other / "further")
    result = diff_trees(tree, other, exclude=["/file"], ignore=["mtime"])
    told = {one.path: (one.kind, one.below) for one in result.differences}
    assert told == {b"/dir": ("changed", 3), b"/further": ("only-b", 3)}
    every = diff_trees(tree, other, all_names=True)
    assert [one.path for one in every.differences if one.kind != "changed"] == [
        b"/dir/sub",
        b"/dir/sub/one",
        b"/dir/two",
        b"/further",
        b"/further/sub",
        b"/further/sub/one",
        b"/further/two",
    ]
    assert (every.only_a, every.only_b) == (3, 4)


def test_excluded_paths(tree: Path) -> None:
    other = copy_of(tree)
    keep_mtime(other / "dir/two", _unlink_and_copy)
    keep_mtime(other / "file", lambda path: path.chmod(0))
    assert not diff_trees(tree, other).equal
    # A name that is left out is none of its inode's.
    assert diff_trees(tree, other, exclude=["/dir/two", b"/file", "/not/there"]).equal
    assert diff_trees(tree, other, exclude=["/dir", "//file/"]).equal


def test_an_empty_lost_and_found(tree: Path) -> None:
    other = copy_of(tree)
    keep_mtime(other / "lost+found", lambda path: path.mkdir(0o700))
    for pair in ((tree, other), (other, tree)):
        assert diff_trees(*pair).equal
        assert run(*pair).exit_code == 0
        assert found(diff_trees(*pair, strict=True)).keys() == {"/lost+found"}
        assert run(*pair, "--strict").exit_code == 1
    (other / "lost+found/#12").touch()
    assert "/lost+found" in found(diff_trees(tree, other))


def test_names_of_any_bytes(tmp_path: Path) -> None:
    names = [
        b"new\nline",
        b"a b",
        b'q"q',
        b"\xff\xfe",
        "\u202e".encode(),
        b"back\\slash",
        "ü".encode(),
        b"-> x",
    ]
    for side in ("a", "b"):
        (tmp_path / side).mkdir()
    for name in names:
        with open(os.path.join(os.fsencode(tmp_path), b"a", name), "wb"):
            pass
    result = diff_trees(tmp_path / "a", tmp_path / "b", ignore=["mtime"])
    assert [one.path for one in result.differences] == sorted(b"/" + name for name in names)
    done = run(tmp_path / "a", tmp_path / "b", "--ignore", "mtime")
    lines = done.stdout.splitlines()
    assert sorted(line.split("  file, ")[0] for line in lines) == sorted(
        [
            r'- "/new\nline"',
            '- "/a b"',
            r'- "/q\"q"',
            r'- "/\xff\xfe"',
            r'- "/\xe2\x80\xae"',
            r'- "/back\\slash"',
            "- /ü",
            '- "/-> x"',
        ]
    )
    as_json = json.loads(run(tmp_path / "a", tmp_path / "b", "--ignore", "mtime", "--json").stdout)
    told = [
        bytes.fromhex(one["path_hex"]) if "path_hex" in one else one["path"].encode()
        for one in as_json["differences"]
    ]
    assert told == sorted(b"/" + name for name in names)
    assert [one["path"] for one in as_json["differences"] if "path_hex" in one] == ["/\ufffd\ufffd"]


def test_json_of_what_is_no_utf_8(tmp_path: Path) -> None:
    """Half a surrogate pair is an error for parsers other than Python's."""
    sides = [tmp_path / os.fsdecode(name) for name in (b"a\xe4", b"b")]
    for side in sides:
        side.mkdir()
        (side / os.fsdecode(b"one\xff")).touch()
        (side / "\U0001f600").touch()
    os.link(sides[0] / os.fsdecode(b"one\xff"), sides[0] / "two")
    (sides[1] / "two").touch()
    for side, target in zip(sides, (b"to\xc3\xa4", b"to\xc3"), strict=True):
        (side / "link").symlink_to(os.fsdecode(target))
    os.setxattr(sides[1] / "two", b"user.\xed\xa0\x80", b"v")
    output = run(*sides, "--ignore", "mtime", "--json").stdout
    assert output.isascii()
    document = json.loads(output)
    json.dumps(document, ensure_ascii=False).encode()
    assert (document["a"], document["b"]) == (f"directory {tmp_path}/a\ufffd", f"directory {sides[1]}")
    assert bytes.fromhex(document["a_hex"]) == b"directory " + os.fsencode(sides[0])
    assert "b_hex" not in document
    link, odd, two = document["differences"]
    assert link["changes"] == [{"field": "target", "a": "to\xe4", "b": "to\ufffd", "b_hex": b"to\xc3".hex()}]
    assert odd["path_hex"] == b"/one\xff".hex()
    assert two["changes"][0] == {
        "field": "xattr",
        "name": "user.\ufffd\ufffd\ufffd",
        "name_hex": b"user.\xed\xa0\x80".hex(),
        "a": None,
        "b": b"v".hex(),
    }
    group = two["changes"][1]["a"]
    assert group == {
        "names": 2,
        "first": ["/one\ufffd", "/two"],
        "first_hex": [b"/one\xff".hex(), b"/two".hex()],
    }


def test_the_listing(tree: Path) -> None:
    other = copy_of(tree)
    (other / "file").chmod(0o600)
    (tree / "file").chmod(0o644)
    for one in (tree / "file", other / "file"):
        os.utime(one, ns=(0, 1_700_000_000_000_000_001))
    os.utime(other / "file", ns=(0, -1))
    os.setxattr(other / "file", "user.a b", b"\0y")
    keep_mtime(other / "link", _retarget)
    keep_mtime(other / "dir/two", _unlink_and_copy)
    keep_mtime(other / "sparse", _write(0, b"X"))
    for one in (tree, tree / "dir"):
        times = one.stat()
        os.utime(other / one.relative_to(tree), ns=(0, times.st_mtime_ns))
    done = run(tree, other)
    assert done.stdout.splitlines() == [
        "~ /dir/sub/one  links [/dir/sub/one = /dir/two] -> [/dir/sub/one]",
        "~ /dir/two  links [/dir/sub/one = /dir/two] -> [/dir/two]",
        (
            "~ /file  mode 0644 -> 0600; mtime 2023-11-14T22:13:20.000000001Z -> 1969-12-31T23:59:59.999999999Z; "
            r'xattr "user.a b" none -> "\x00y"'
        ),
        "~ /link  target target -> targeT",
        "~ /sparse  content differs at byte 0",
    ]
    assert "\n5 differences: 0 only in A, 0 only in B, 5 changed (" in done.stderr
    document = json.loads(run(tree, other, "--json").stdout)
    assert document["equal"] is False
    assert document["differences"] == [one.as_dict() for one in diff_trees(tree, other).differences]


def test_a_listing_of_many_portions(tmp_path: Path) -> None:
    for side in ("a", "b"):
        (tmp_path / side).mkdir()
    names = [f"/{number:0100}" for number in range(2000)]
    for name in names:
        (tmp_path / f"a{name}").touch()
    sides = (tmp_path / "a", tmp_path / "b", "--ignore", "mtime")
    assert run(*sides).stdout.splitlines() == [f"- {name}  file, 0 bytes" for name in names]
    assert [one["path"] for one in json.loads(run(*sides, "--json").stdout)["differences"]] == names


def test_the_limit_counts_on(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    result = diff_trees(tree, tmp_path / "empty", limit=2, all_names=True, ignore=["mtime"])
    assert [one.path for one in result.differences] == [b"/dir", b"/dir/sub"]
    assert (result.count, result.only_a, result.equal) == (8, 8, False)
    told: list[Difference] = []
    whole = diff_trees(tree, tmp_path / "empty", on_difference=told.append, ignore=["mtime"])
    assert whole.differences == ()
    assert len(told) == whole.count == 5


def test_what_a_callback_raises_is_raised(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()

    def stop(_difference: Difference) -> None:
        raise ZeroDivisionError("enough")

    with pytest.raises(ZeroDivisionError, match="enough"):
        diff_trees(tree, tmp_path / "empty", on_difference=stop)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("{0}/none", "{0}"), 3),
        (("{0}", "docker:none", "--docker-root", "{0}/none"), 3),
        (("{0}", "{0}", "--ignore", "size"), 2),
        (("{0}", "{0}", "--exclude", "relative"), 2),
        (("{0}", "{0}", "--exclude", "/a/../b"), 2),
        (("{0}", "dir:{0}/none"), 3),
        (("{0}",), 2),
    ],
)
def test_errors_have_codes_above_1(tmp_path: Path, arguments: tuple[str, ...], code: int) -> None:
    done = run(*(word.format(tmp_path) for word in arguments))
    assert done.exit_code == code, done.output
    assert done.stdout == ""


@pytest.mark.parametrize("kind", ["fifo", "device"])
def test_what_is_no_tree(kind: str, tree: Path) -> None:
    """The advice is not that of builds, which have other options."""
    odd = tree / "fifo" if kind == "fifo" else Path("/dev/null")
    done = run(tree, odd)
    assert (done.exit_code, done.stdout) == (3, "")
    assert f"error: {odd}: neither a directory nor an image" in done.stderr
    assert "--layer" not in done.stderr


def test_options_of_the_function(tree: Path) -> None:
    with pytest.raises(errors.InvalidOptionError, match="size"):
        diff_trees(tree, tree, ignore=["size"])
    with pytest.raises(errors.InvalidOptionError, match="limit"):
        diff_trees(tree, tree, limit=-1)
    assert layermelt.diff_trees is diff_trees


def test_a_chain_and_a_directory_of_that_look(tmp_path: Path) -> None:
    """What looks like a chain directory is one, unless it is said otherwise."""
    chain = tmp_path / "overlay2/abc"
    (chain / "diff/etc").mkdir(parents=True)
    (chain / "diff/etc/hostname").write_text("x")
    (chain / "link").write_text("ABC")
    (tmp_path / "overlay2/l").mkdir()
    (tmp_path / "overlay2/l/ABC").symlink_to("../abc/diff")
    assert diff_trees(chain, chain / "diff").equal
    assert found(diff_trees(f"dir:{chain}", chain / "diff", ignore=["mtime", "mode"])) == {
        "/diff": {"only-a"},
        "/etc": {"only-b"},
        "/link": {"only-a"},
    }


def test_a_tree_and_its_image(tree: Path, tmp_path: Path) -> None:
    """Read without a mount, and told by its first bytes."""
    image = tmp_path / "image.ext4"
    layermelt.build_rootfs(None, image, layers=[tree], sync=False)
    assert diff_trees(tree, image).equal
    assert diff_trees(f"image:{image}", tree).equal
    assert found(diff_trees(tree, image, strict=True)) == {"/lost+found": {"only-b"}}
    keep_mtime(tree / "sparse", _write((5 << 20) + 3, b"X"))
    [difference] = diff_trees(tree, image).differences
    assert difference.changes == (FieldChange("content", (5 << 20) + 3, (5 << 20) + 3),)


@pytest.mark.parametrize("content", [b"", b"no image" * 1000])
def test_what_is_no_image(tree: Path, tmp_path: Path, content: bytes) -> None:
    image = tmp_path / "image"
    image.write_bytes(content)
    done = run(tree, image)
    assert (done.exit_code, done.stdout) == (9, "")
    assert f"error: {image}: " in done.stderr
    with pytest.raises(errors.CorruptImageError):
        diff_trees(image, tree)
    assert run(tree, f"image:{tree}").exit_code == 9
