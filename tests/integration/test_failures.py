"""What goes wrong: a clear error, the old target untouched, nothing left."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from integration.conftest import Judge
from integration.oracle import mounts, product
from integration.oracle.compare import differences, report
from integration.oracle.dump import dump
from integration.oracle.layer import Chain

OLD = b"the image that was there before\n"


def failing(arguments: list[str], *names: str | Path, **options: object) -> subprocess.CompletedProcess[str]:
    """Runs a command that must fail in an orderly way, naming all of ``names``."""
    done = product.run(arguments, **options)
    assert done.returncode > 0, f"exit code {done.returncode}: {done.stderr}"
    assert done.returncode < 128, done.stderr
    assert done.stdout == ""
    for noise in ("Traceback", "panicked", "RUST_BACKTRACE", "InternalError"):
        assert noise not in done.stderr
    assert done.stderr.count("\n") <= 1 + 2 * len(names), f"more than a line: {done.stderr}"
    for name in names:
        assert str(name) in done.stderr, f"does not name {name}: {done.stderr}"
    return done


@pytest.fixture
def small(tmp_path: Path) -> list[Path]:
    """Two layers that any user can make."""
    return user_chain(tmp_path / "chain", os.geteuid(), os.getegid())


def user_chain(directory: Path, uid: int, gid: int) -> list[Path]:
    """Two layers of an ordinary user, with user.overlay marks."""
    chain = Chain(directory, "ext4", userxattr=True, owner=(uid, gid))
    base, top = chain.two()
    base.file("d/below")
    base.file("f", b"f" * 10_000, mode=0o4755)
    base.link("f", "d/link")
    top.directory("d", opaque=b"y")
    top.file("d/above")
    top.symlink("s", "f")
    return chain.finish()


@pytest.fixture
def large(tmp_path: Path) -> list[Path]:
    """One layer of 24 MiB that no file system of 8 MiB takes."""
    chain = Chain(tmp_path / "large", "ext4", owner=(os.geteuid(), os.getegid()))
    layer = chain.layer()
    for number in range(24):
        layer.file(f"f{number}", os.urandom(1 << 20))
    return chain.finish()


# -- the target


@pytest.mark.root
@pytest.mark.parametrize("fs", ["tmpfs", "ext4"])
@pytest.mark.parametrize("old", [None, OLD], ids=["new-target", "old-target"])
@pytest.mark.parametrize("more", [[], ["--no-sync"]], ids=["sync", "no-sync"])
def test_full_disk(fs: str, old: bytes | None, more: list[str], large: list[Path], tmp_path: Path) -> None:
    small_one = (
        mounts.tmpfs(tmp_path, size="8m")
        if fs == "tmpfs"
        else mounts.loop_store("ext4", tmp_path, size=16 << 20)
    )
    with small_one as full:
        target = full / "image.ext4"
        if old is not None:
            target.write_bytes(old)
        before = set(os.listdir(full))
        failing(product.build_command(large, target, *more), full, "No space left")
        assert set(os.listdir(full)) == before
        if old is not None:
            assert target.read_bytes() == old


def test_target_directory_missing(small: list[Path], tmp_path: Path) -> None:
    target = tmp_path / "nowhere" / "image.ext4"
    failing(product.build_command(small, target, "--userxattr"), tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


def test_target_directory_is_a_file(small: list[Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(OLD)
    target = tmp_path / "file" / "image.ext4"
    failing(product.build_command(small, target, "--userxattr"), tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == OLD


def test_target_is_a_directory(small: list[Path], tmp_path: Path) -> None:
    target = tmp_path / "out" / "image.ext4"
    target.mkdir(parents=True)
    failing(product.build_command(small, target, "--userxattr"), target)
    assert os.listdir(tmp_path / "out") == ["image.ext4"]
    assert os.listdir(target) == []


def test_target_is_a_fifo(small: list[Path], tmp_path: Path) -> None:
    target = tmp_path / "image.ext4"
    os.mkfifo(target)
    failing(product.build_command(small, target, "--userxattr"), target)
    assert target.is_fifo()


@pytest.mark.root
def test_target_on_a_read_only_file_system(small: list[Path], tmp_path: Path) -> None:
    image = tmp_path / "image.ext4"
    product.build(small, image, userxattr=True)
    with mounts.image(image) as mounted:
        target = mounted / "new.ext4"
        failing(product.build_command(small, target, "--userxattr"), mounted)


# -- the layers


def test_layer_missing(small: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "image.ext4").write_bytes(OLD)
    missing = tmp_path / "no-such-layer"
    failing(product.build_command([*small, missing], out / "image.ext4"), missing)
    assert (out / "image.ext4").read_bytes() == OLD
    assert os.listdir(out) == ["image.ext4"]


def test_layer_is_a_file(small: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    wrong = small[0] / "f"
    failing(product.build_command([wrong, small[1]], out / "image.ext4"), wrong)
    assert os.listdir(out) == []


@pytest.mark.root
def test_redirects_that_double_with_each_layer(tmp_path: Path) -> None:
    """2^60 directories out of 120: an attack, and an error before memory ends."""
    chain = Chain(tmp_path / "chain", "ext4")
    chain.layer().file("d/x")
    for _ in range(60):
        layer = chain.layer()
        layer.directory("d/a", redirect=b"/d")
        layer.directory("d/b", redirect=b"/d")
    out = tmp_path / "out"
    out.mkdir()
    failing(product.build_command(chain.finish(), out / "image.ext4"), tmp_path / "chain")
    assert os.listdir(out) == []


def _setpriv() -> str:
    found = shutil.which("setpriv")
    if found is None:
        pytest.skip("setpriv (util-linux) is not installed")
    return found


@pytest.mark.root
def test_everything_unreadable_is_named_before_anything_is_written(tmp_path: Path) -> None:
    """As uid 0 without the capabilities that let root read all."""
    chain = Chain(tmp_path / "chain", "ext4")
    base, top = chain.two()
    base.directory("closed", mode=0)
    base.file("open/secret", mode=0)
    base.file("open/plain")
    top.directory("closed-too", mode=0o311)
    base.file("hidden", mode=0)
    top.whiteout("hidden")
    layers = chain.finish()
    out = tmp_path / "out"
    out.mkdir()
    (out / "image.ext4").write_bytes(OLD)
    limited = [_setpriv(), "--bounding-set", "-dac_override,-dac_read_search,-fowner"]
    named = [base.root / "closed", base.root / "open/secret", top.root / "closed-too"]
    command = product.build_command(layers, out / "image.ext4")
    done = failing([*limited, *command], *named)
    assert str(base.root / "hidden") not in done.stderr, "what is hidden is never read"
    assert str(base.root / "open/plain") not in done.stderr
    assert (out / "image.ext4").read_bytes() == OLD
    assert os.listdir(out) == ["image.ext4"]


#: Runs the command line as another user. The interpreter may lie where that
#: user cannot read, and modules are imported when they are needed: one build
#: and one failure before, by root, load them all.
AS_USER = textwrap.dedent(
    """
    import os, sys, tempfile
    from click.testing import CliRunner
    from layermelt.cli import cli, main
    uid, arguments = int(sys.argv[1]), sys.argv[2:]
    with tempfile.TemporaryDirectory() as scratch:
        out = arguments.index("-o") + 1
        warm = [*arguments[:out], f"{scratch}/warm.ext4", *arguments[out + 1 :]]
        CliRunner().invoke(cli, warm)
        CliRunner().invoke(cli, [*warm, "--size", "1"])
        sys.argv = ["layermelt", "build", "no-such-source", "-o", f"{scratch}/warm.ext4"]
        errors, sys.stderr = sys.stderr, open(os.devnull, "w")
        try:
            main()
        except SystemExit:
            pass
        sys.stderr.close()
        sys.stderr = errors
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)
    sys.argv = ["layermelt", *arguments]
    sys.exit(main())
    """
)
NOBODY = 65_534


def as_nobody(command: list[str]) -> list[str]:
    """A command of ``product`` as the user nobody."""
    assert command[1:3] == ["-m", "layermelt.cli"]
    return [sys.executable, "-c", AS_USER, str(NOBODY), *command[3:]]


@pytest.fixture
def open_path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory that nobody owns and can reach (pytest's own are closed)."""
    path = Path("/tmp") / f"layermelt-nobody-{os.getpid()}"
    path.mkdir(mode=0o755)
    os.chown(path, NOBODY, NOBODY)
    try:
        yield path
    finally:
        shutil.rmtree(path)


@pytest.mark.root
def test_unreadable_layer_as_nobody(open_path: Path) -> None:
    layers = user_chain(open_path / "chain", NOBODY, NOBODY)
    for file in (layers[0] / "f", layers[1] / "d/above"):
        os.chown(file, 0, 0)
        os.chmod(file, 0o600)
    out = open_path / "out"
    out.mkdir()
    os.chown(out, NOBODY, NOBODY)
    command = product.build_command(layers, out / "image.ext4", "--userxattr")
    done = product.run(as_nobody(command))
    assert done.returncode > 0
    assert str(layers[0] / "f") in done.stderr or str(layers[0] / "d/link") in done.stderr
    assert str(layers[1] / "d/above") in done.stderr
    assert "Traceback" not in done.stderr
    assert os.listdir(out) == []


@pytest.mark.root
def test_what_is_hidden_need_not_be_readable(open_path: Path) -> None:
    """Nothing that a higher layer hides is read: the kernel would not either."""
    layers = user_chain(open_path / "chain", NOBODY, NOBODY)
    for hidden in (layers[0] / "d/below", layers[0] / "d"):
        os.chown(hidden, 0, 0)
        os.chmod(hidden, 0o700)
    out = open_path / "out"
    out.mkdir()
    os.chown(out, NOBODY, NOBODY)
    image = out / "image.ext4"
    done = product.run(as_nobody(product.build_command(layers, image, "--userxattr")))
    assert done.returncode == 0, done.stderr
    with mounts.image(image) as mounted:
        assert b"d/above" in dump(mounted).entries


@pytest.mark.root
def test_an_ordinary_user_builds_the_same_image(open_path: Path, judge_image: Judge) -> None:
    """No root, no mount: what nobody makes of his layers is what root makes."""
    layers = user_chain(open_path / "chain", NOBODY, NOBODY)
    out = open_path / "out"
    out.mkdir()
    os.chown(out, NOBODY, NOBODY)
    image = out / "image.ext4"
    done = product.run(as_nobody(product.build_command(layers, image, "--userxattr")))
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(image)
    assert os.stat(image).st_uid == NOBODY
    judge_image(image)
    with mounts.overlay(layers, userxattr=True) as merged:
        kernel_view = dump(merged)
    with mounts.image(image) as mounted:
        lines = differences(kernel_view, dump(mounted))
    assert not lines, report(lines)
    product.build(layers, out / "by-root.ext4", userxattr=True)
    assert (out / "by-root.ext4").read_bytes() == image.read_bytes()


@pytest.mark.root
def test_target_directory_not_writable(open_path: Path) -> None:
    layers = user_chain(open_path / "chain", NOBODY, NOBODY)
    closed = open_path / "closed"
    closed.mkdir()
    command = product.build_command(layers, closed / "image.ext4", "--userxattr")
    done = product.run(as_nobody(command))
    assert done.returncode > 0
    assert str(closed) in done.stderr
    assert "Traceback" not in done.stderr
    assert os.listdir(closed) == []


# -- the size


def test_size_too_small_says_how_much_is_enough(
    large: list[Path], tmp_path: Path, judge_image: Judge
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    target = out / "image.ext4"
    target.write_bytes(OLD)
    done = failing(product.build_command(large, target, "--size", "1M"), "1048576")
    assert target.read_bytes() == OLD
    assert os.listdir(out) == ["image.ext4"]
    needed = max(int(number) for number in re.findall(r"\d{7,}", done.stderr))
    enough = product.run(product.build_command(large, target, "--size", str(needed)))
    assert enough.returncode == 0, enough.stderr
    assert target.stat().st_size <= needed
    judge_image(target)
    failing(product.build_command(large, target, "--size", str(needed - 4096)), str(needed))
