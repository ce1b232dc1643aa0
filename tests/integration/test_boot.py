"""An image of ours boots: Debian's kernel and initramfs start the agent in it.

The machine is QEMU's without KVM. What it read is compared with the layers;
what it wrote is looked for afterwards, and e2fsck must still be silent.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import layermelt
from integration.oracle import product
from integration.real import boot, store

pytestmark = [pytest.mark.boot, pytest.mark.slow]

CACHE = Path(__file__).resolve().parents[2] / ".cache"
DEBUGFS_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


@pytest.fixture(scope="module")
def agent() -> Path:
    """The agent, compiled once."""
    lacking = boot.missing()
    if lacking:
        pytest.skip(f"cannot boot: {lacking} is missing")
    CACHE.mkdir(exist_ok=True)
    return boot.build_agent(CACHE)


def chain(folder: Path, *, replaced: bool = True) -> store.ChainMaker:
    """A small system: mount points, a big file in pieces, a merged /usr, deletions.

    With `replaced` also a directory in place of a lower one.
    """
    noise = random.Random(3)
    maker = store.ChainMaker(folder / "docker", store.probe_marks(folder))
    with maker.layer("base"):
        maker.merged_usr()
        for name in (*boot.MOUNT_POINTS, "tmp", "etc"):
            maker.make_directory(name)
        maker.write("usr/share/big", noise.randbytes(5_000_011))
        maker.write("etc/replaced", b"from the base\n")
        maker.write("etc/deleted", b"from the base\n")
        for number in range(300):
            maker.write(f"usr/share/many/{number:04}", b"%d\n" % number)
    with maker.layer("top"):
        maker.write("etc/replaced", b"from the top\n")
        maker.remove("etc/deleted")
        if replaced:
            maker.clear("usr/share/many")
        maker.write("usr/share/many/last", b"last\n")
        # Lies in pieces with a hole between them, like a database's.
        with (maker.layers[-1].diff / "sparse").open("wb") as file:
            file.write(b"begin")
            file.seek(3 << 20)
            file.write(b"end")
    return maker


def debugfs(image: Path, request: str) -> str:
    """What debugfs answers to a request."""
    program = shutil.which("debugfs", path=DEBUGFS_PATH)
    if program is None:
        pytest.skip("no debugfs (Debian: e2fsprogs)")
    done = subprocess.run([program, "-R", request, str(image)], capture_output=True, text=True, check=True)
    # The banner goes to stderr; so does a refusal, which the caller then misses in stdout.
    return done.stdout


@pytest.mark.parametrize("size", ["auto", "fixed"])
def test_the_agent_is_the_first_process(
    size: str, agent: Path, tmp_path: Path, judge_image: Callable[[Path], None]
) -> None:
    maker = chain(tmp_path)
    image = tmp_path / "rootfs.ext4"
    room = ["--free-space", "64M"] if size == "auto" else ["--size", "40M"]
    marks = ["--userxattr"] if maker.marks.userxattr else []
    arguments = ["build", str(maker.top), "-o", str(image), "--agent", str(agent), "--no-sync", *room, *marks]
    done = product.run(product.command(*arguments))
    assert done.returncode == 0, done.stderr
    judge_image(image)

    witnesses = ["/usr/share/big", "/etc/replaced", "/usr/share/many/last", "/sparse", "/sbin/vm-agent"]
    booted = boot.boot(image, [*witnesses, "/etc/deleted"])

    expected = {path: maker.layers[-1].diff / path[1:] for path in witnesses}
    expected["/usr/share/big"] = maker.layers[0].diff / "usr/share/big"
    expected["/sbin/vm-agent"] = agent
    digests = {path: hashlib.sha256(file.read_bytes()).hexdigest() for path, file in expected.items()}
    assert booted.agent == [
        "started as process 1",
        next(line for line in booted.agent if line.startswith("root ")),
        f"self mode 0755 owner 0:0 size {agent.stat().st_size}",
        *(f"sha256 {digests[path]} {path}" for path in witnesses),
        "FAILED to open /etc/deleted: No such file or directory",
        f"wrote {boot.LEFT_BEHIND}",
        "done",
    ], booted.console
    device, kind, options = booted.agent[1].split()[1:]
    assert (device, kind, options.split(",")[0]) == ("/dev/vda", "ext4", "rw")
    # The kernel has much to say about an ext4 that it does not like.
    assert "EXT4-fs error" not in booted.console
    assert "EXT4-fs warning" not in booted.console

    judge_image(image)
    assert debugfs(image, f"cat {boot.LEFT_BEHIND}") == "written by the agent\n"


def test_the_agent_survives_a_hostile_sbin(agent: Path, tmp_path: Path) -> None:
    """`/sbin` is an absolute link to a directory that only the image has."""
    maker = store.ChainMaker(tmp_path / "docker", store.probe_marks(tmp_path))
    with maker.layer("base"):
        for name in (*boot.MOUNT_POINTS, "real/programs"):
            maker.make_directory(name)
        maker.symlink("sbin", "/link")
        maker.symlink("link", "../../real/programs")
    with maker.layer("top"):
        maker.symlink("real/programs/vm-agent", "/etc/passwd")
    image = tmp_path / "rootfs.ext4"
    marks = ["--userxattr"] if maker.marks.userxattr else []
    done = product.run(
        product.command("build", maker.top, "-o", image, "--agent", agent, "--no-sync", *marks)
    )
    assert done.returncode == 0, done.stderr
    digest = hashlib.sha256(agent.read_bytes()).hexdigest()
    booted = boot.boot(image, ["/real/programs/vm-agent"])
    assert f"sha256 {digest} /real/programs/vm-agent" in booted.agent, booted.console
    assert booted.agent[-1] == "done", booted.console


@pytest.mark.parametrize(("gibibytes", "block_size"), [(64, 4096), (1024, 4096), (8, 1024), (64, 2048)])
def test_grown_by_the_guest(
    gibibytes: int, block_size: int, agent: Path, tmp_path: Path, judge_image: Callable[[Path], None]
) -> None:
    """The disk is larger than the image; the guest's kernel makes the mounted file system fit."""
    maker = chain(tmp_path)
    image = tmp_path / "rootfs.ext4"
    marks = ["--userxattr"] if maker.marks.userxattr else []
    room = ["--no-sync", "--free-space", "192M", "--block-size", str(block_size)]
    done = product.run(product.command("build", maker.top, "-o", image, "--agent", agent, *room, *marks))
    assert done.returncode == 0, done.stderr
    os.truncate(image, gibibytes << 30)
    booted = boot.boot(image, ["/usr/share/big"], grow=True)
    grown = next(line for line in booted.agent if line.startswith("grown to "))
    _, _, now, _, _, disk = grown.split()
    assert int(disk) == gibibytes << 10
    assert int(now) > int(disk) * 97 // 100, booted.console
    digest = hashlib.sha256((maker.layers[0].diff / "usr/share/big").read_bytes()).hexdigest()
    assert f"sha256 {digest} /usr/share/big" in booted.agent, booted.console
    assert "EXT4-fs error" not in booted.console
    assert "EXT4-fs warning" not in booted.console
    judge_image(image)
    assert debugfs(image, f"cat {boot.LEFT_BEHIND}") == "written by the agent\n"


@pytest.mark.parametrize(("block_size", "gibibytes"), [(4096, (4, 6, 40)), (1024, (2, 3, 40))])
def test_grown_before_and_by_the_guest(
    block_size: int,
    gibibytes: tuple[int, int, int],
    agent: Path,
    tmp_path: Path,
    judge_image: Callable[[Path], None],
) -> None:
    """By us, by the guest, and by us again: with 1 KiB beyond what is reserved for descriptors."""
    maker = chain(tmp_path)
    image = tmp_path / "rootfs.ext4"
    marks = ["--userxattr"] if maker.marks.userxattr else []
    room = ["--no-sync", "--block-size", str(block_size)]
    done = product.run(product.command("build", maker.top, "-o", image, "--agent", agent, *room, *marks))
    assert done.returncode == 0, done.stderr
    digest = hashlib.sha256((maker.layers[0].diff / "usr/share/big").read_bytes()).hexdigest()
    first, second, third = (size << 30 for size in gibibytes)

    def boots(size: int) -> None:
        booted = boot.boot(image, ["/usr/share/big"], grow=True)
        grown = next(line for line in booted.agent if line.startswith("grown to "))
        _, _, now, _, _, disk = grown.split()
        assert int(disk) == size >> 20
        assert int(now) > int(disk) * 97 // 100, booted.console
        assert f"sha256 {digest} /usr/share/big" in booted.agent, booted.console
        assert "EXT4-fs error" not in booted.console
        assert "EXT4-fs warning" not in booted.console
        judge_image(image)

    for size in (first, third):
        report = layermelt.grow_image(image, size, sync=False)
        assert (report.method, report.new.size) == ("journal", size)
        assert report.meta_bg == (size == third and block_size == 1024)
        judge_image(image)
        if size == first:
            os.truncate(image, second)
        boots(os.stat(image).st_size)
    assert debugfs(image, f"cat {boot.LEFT_BEHIND}") == "written by the agent\n"


@pytest.mark.root
def test_the_way_of_older_agents(
    oci2rootfs: Path,
    agent: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    judge_image: Callable[[Path], None],
) -> None:
    """The image is oci2rootfs's, the agent comes in by a mount: and the machine runs.

    Without a replaced directory: of one, oci2rootfs 0.3.0 leaves inodes that e2fsck finds unattached.
    """
    maker = chain(tmp_path, replaced=False)
    if maker.marks.userxattr:
        pytest.skip("oci2rootfs knows no user.overlay.* marks, and others cannot be set here")
    monkeypatch.setenv("LAYERMELT_OCI2ROOTFS", os.fspath(oci2rootfs))
    image = tmp_path / "rootfs.ext4"
    result = layermelt.build_rootfs(
        maker.top,
        image,
        engine="oci2rootfs",
        engine_args=["--size", "256M"],
        injector="mount",
        agent=agent,
        sync=False,
    )
    assert (result.engine, result.injector, result.warnings) == ("oci2rootfs", "mount", ())
    judge_image(image)
    witnesses = ["/usr/share/big", "/etc/replaced", "/usr/share/many/last", "/sparse", "/sbin/vm-agent"]
    booted = boot.boot(image, [*witnesses, "/etc/deleted"])
    expected = {path: maker.layers[-1].diff / path[1:] for path in witnesses}
    expected["/usr/share/big"] = maker.layers[0].diff / "usr/share/big"
    expected["/sbin/vm-agent"] = agent
    for path, file in expected.items():
        assert f"sha256 {hashlib.sha256(file.read_bytes()).hexdigest()} {path}" in booted.agent, (
            booted.console
        )
    assert f"self mode 0755 owner 0:0 size {agent.stat().st_size}" in booted.agent
    assert "FAILED to open /etc/deleted: No such file or directory" in booted.agent
    assert booted.agent[-1] == "done", booted.console
    assert "EXT4-fs error" not in booted.console
    judge_image(image)
    assert debugfs(image, f"cat {boot.LEFT_BEHIND}") == "written by the agent\n"
