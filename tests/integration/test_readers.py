"""Three readers by others find in an image what the layers hold, and agree.

`ext4-view` and `mkext4` are Rust crates, run by rust/core/examples/read_image.rs;
`debugfs rdump` is e2fsprogs' own. None needs root, so this is the proof for an
ordinary user too. The image is of a chain of ordinary size with every mark.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from integration.oracle import product
from integration.real import store

REPOSITORY = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def read_image() -> list[str]:
    """The command that runs a reader of the Rust side."""
    cargo = shutil.which("cargo", path=f"{os.environ['PATH']}:{Path.home()}/.cargo/bin")
    if cargo is None:
        pytest.skip("no cargo to build the readers with")
    # As `make test` builds it for cargo's own tests, so nothing is compiled twice.
    build = [cargo, "build", "--release", "--locked", "--quiet", "--package", "layermelt-core"]
    subprocess.run([*build, "--example", "read_image"], cwd=REPOSITORY, check=True)
    target = Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target"))
    return [str(target / "release" / "examples" / "read_image")]


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> store.ChainMaker:
    """Some thousand entries in three layers."""
    noise = random.Random(7)
    folder = tmp_path_factory.mktemp("readers")
    maker = store.ChainMaker(folder / "docker", store.probe_marks(folder))
    with maker.layer("base"):
        for number in range(2000):
            data = noise.randbytes(noise.choice([0, 1, 100, 4096, 20_000]))
            maker.write(f"srv/{number % 40:02}/file-{number:05}", data, noise.choice([0o600, 0o644, 0o4755]))
        for number in range(200):
            maker.symlink(f"links/{number}", "target/" * (number % 100 + 1))
        for number in range(100):
            maker.hard_link(f"srv/00/file-{number * 40:05}" if number < 50 else "links/3", f"hard/{number}")
        maker.write("big", noise.randbytes(30_000_001))
    with maker.layer("middle"):
        maker.clear("srv/01")
        maker.remove("srv/02")
        for number in range(0, 2000, 97):
            if number % 40 > 2:
                maker.remove(f"srv/{number % 40:02}/file-{number:05}")
    with maker.layer("top"):
        maker.write("srv/02", b"a file where a directory was\n")
        maker.remove("links/7")
        maker.make_directory("links/7")
        maker.write("links/7/inside", b"a directory where a link was\n")
    return maker


@pytest.fixture(scope="module")
def image(chain: store.ChainMaker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The image of the chain."""
    output = tmp_path_factory.mktemp("image") / "rootfs.ext4"
    marks = ["--userxattr"] if chain.marks.userxattr else []
    done = product.run(product.command("build", chain.top, "-o", output, "--no-sync", *marks))
    assert done.returncode == 0, done.stderr
    return output


def read(read_image: list[str], reader: str, image: Path) -> dict[str, list[str]]:
    """What a reader tells: path -> mode, uid, gid, mtime, content."""
    done = subprocess.run([*read_image, reader, str(image)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    return {row[0]: row[1:] for row in rows}


def walk(top: Path, visible: Callable[[str], bool]) -> dict[str, list[str]]:
    """The same of a directory on disk; what `visible` denies is left out."""
    found = {}
    pending = [""]
    while pending:
        path = pending.pop()
        full = top / path
        info = full.lstat()
        content = ""
        if stat.S_ISREG(info.st_mode):
            content = hashlib.sha256(full.read_bytes()).hexdigest()
        elif stat.S_ISLNK(info.st_mode):
            content = os.readlink(full)  # pathlib would tidy it
        elif stat.S_ISDIR(info.st_mode):
            names = [f"{path}/{name}".lstrip("/") for name in sorted(os.listdir(full))]
            pending += [name for name in names if visible(name)]
        seconds, nanoseconds = divmod(info.st_mtime_ns, 10**9)
        time = f"{seconds}.{nanoseconds:09}"
        found[path] = [f"{info.st_mode:o}", str(info.st_uid), str(info.st_gid), time, content]
    return found


def merged(chain: store.ChainMaker) -> dict[str, list[str]]:
    """What the chain shows, put together from its layers by what its maker knows."""
    shown: dict[str, list[str]] = {}
    for diff in chain.diffs:
        shown.update({path: row for path, row in walk(diff, chain.shows).items() if chain.shows(path)})
    return {path: row for path, row in shown.items() if chain.shows(path)}


def test_the_crates_find_what_the_layers_hold(
    chain: store.ChainMaker, image: Path, read_image: list[str]
) -> None:
    expected = merged(chain)
    assert len(expected) == chain.entries + 1 > 2000
    for reader in ("ext4-view", "mkext4"):
        found = read(read_image, reader, image)
        del found["lost+found"]
        assert found == expected, reader


def test_every_checksum_is_right(image: Path, read_image: list[str], tmp_path: Path) -> None:
    subprocess.run([*read_image, "verify", str(image)], check=True)
    # And the verification is one: a bit of an inode is turned.
    broken = tmp_path / "broken.ext4"
    subprocess.run(["cp", "--sparse=always", str(image), str(broken)], check=True)
    with broken.open("r+b") as file:
        content = file.read(64 << 20)
        # The root's inode is found by its mtime, which all that the maker made has.
        at = content.index((store.EPOCH).to_bytes(4, "little"))
        file.seek(at)
        file.write(bytes([content[at] ^ 1]))
    done = subprocess.run([*read_image, "verify", str(broken)], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "checksum" in done.stdout + done.stderr


def test_debugfs_finds_the_same(image: Path, read_image: list[str], tmp_path: Path) -> None:
    debugfs = shutil.which("debugfs", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if debugfs is None:
        pytest.skip("no debugfs (Debian: e2fsprogs)")
    done = subprocess.run(
        [debugfs, "-R", f"rdump / {tmp_path}", str(image)], capture_output=True, text=True, check=True
    )
    complaints = [line for line in done.stderr.splitlines() if not line.startswith("debugfs ")]
    # Only root may give files away; what is dumped is then the user's.
    complaints = [line for line in complaints if "while changing ownership" not in line]
    assert complaints == []
    dumped = walk(tmp_path, lambda path: path != "lost+found")
    found = read(read_image, "mkext4", image)
    del found["lost+found"]
    assert dumped.keys() == found.keys()
    for path, (mode, _, _, time, content) in found.items():
        ours = dumped[path]
        # rdump gives the file away after it has set the mode: setuid is lost.
        kept = f"{int(mode, 8) & ~0o6000:o}"
        assert ours[0] == kept or not path or path_is_link(mode), f"{path}: {ours[0]}, {mode}"
        assert ours[4] == content, path
        # rdump dates in whole seconds, and neither links nor directories it fills.
        if mode.startswith("100"):
            assert ours[3].split(".")[0] == time.split(".")[0], path


def path_is_link(mode: str) -> bool:
    """A link's own permissions mean nothing and cannot be set."""
    return mode.startswith("120")
