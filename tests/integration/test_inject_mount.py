"""The injector ``mount``: what it puts in, and what it refuses."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import layermelt
from integration.oracle import kernel, mounts, product
from integration.real import finished
from layermelt import InjectedFile, aio, cloning, errors
from layermelt.inject import find_injector

pytestmark = pytest.mark.root

DEFAULT = "/sbin/vm-agent"


@pytest.fixture
def layer(tmp_path: Path) -> Path:
    tree = tmp_path / "layer"
    (tree / "usr/sbin").mkdir(parents=True)
    (tree / "sbin").symlink_to("usr/sbin")
    (tree / "etc").mkdir()
    (tree / "etc/hostname").write_text("melted\n")
    return tree


@pytest.fixture(params=list(finished.MAKERS))
def image(request: pytest.FixtureRequest, layer: Path, tmp_path: Path) -> Path:
    """An image by one maker, in a directory of its own."""
    path = tmp_path / "images" / "rootfs.ext4"
    path.parent.mkdir()
    finished.MAKERS[request.param](layer, path)
    return path


@pytest.fixture
def ours(layer: Path, tmp_path: Path) -> Path:
    path = tmp_path / "images" / "rootfs.ext4"
    path.parent.mkdir(exist_ok=True)
    finished.by_layermelt(layer, path)
    return path


@pytest.fixture(autouse=True)
def nothing_stays(tmp_path: Path) -> Iterator[None]:
    before = finished.mounts_of_all()
    scratch = set(os.listdir("/tmp"))
    yield
    assert finished.loop_devices(tmp_path) == []
    assert {one for one in finished.mounts_of_all() - before if "layermelt" in one} == set()
    assert not {name for name in set(os.listdir("/tmp")) - scratch if "layermelt" in name}
    images = tmp_path / "images"
    if images.is_dir():
        assert os.listdir(images) == ["rootfs.ext4"]


def inject(image: Path, content: bytes = b"agent", destination: str = DEFAULT) -> None:
    find_injector("mount").inject(os.fspath(image), content, destination.encode())


def test_the_command(image: Path, tmp_path: Path) -> None:
    agent, extra = tmp_path / "agent", tmp_path / "extra"
    agent.write_bytes(b"#!/nothing\n" * 300_000)
    extra.write_bytes(b"")
    arguments: list[str | Path] = ["inject", image, "--agent", agent, "--no-agent-check", "--json"]
    done = product.run(product.command(*arguments, "--file", f"{extra}:/new/deep/extra:4640"))
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["path"], said["files"]) == (str(image), ["/new/deep/extra", DEFAULT])
    assert finished.content(image, "/usr/sbin/vm-agent") == agent.read_bytes()
    there = finished.status(image, "/usr/sbin/vm-agent")
    assert "Mode:  0755 " in there
    assert "User:     0   Group:     0 " in there
    assert "Mode:  04640 " in finished.status(image, "/new/deep/extra")
    assert finished.names(image, "/usr/sbin") == {"vm-agent"}
    assert finished.complaints(image) == ""

    # Once more: the file is replaced.
    agent.write_bytes(b"#!/other\n")
    assert product.run(product.command(*arguments)).returncode == 0
    assert finished.content(image, "/usr/sbin/vm-agent") == b"#!/other\n"
    assert finished.names(image, "/usr/sbin") == {"vm-agent"}
    assert finished.complaints(image) == ""


def test_owner_mode_and_a_default_acl(ours: Path, tmp_path: Path) -> None:
    # A setgid directory with a default ACL would change both.
    with mounts.image(ours):
        pass
    with kernel.loop_device(ours, writable=True) as device:
        point = tmp_path / "point"
        point.mkdir()
        kernel.mount(device, point, "ext4")
        try:
            os.chown(point / "usr/sbin", 7, 8)
            (point / "usr/sbin").chmod(0o2775)
            subprocess.run(["setfacl", "-d", "-m", "u:5:rwx", str(point / "usr/sbin")], check=True)
        finally:
            kernel.unmount(point)
    report = layermelt.inject_files(
        ours, files=[InjectedFile("/sbin/tool", content=b"x", mode=0o4711, uid=1, gid=2)]
    )
    assert report.files == ("/sbin/tool",)
    there = finished.status(ours, "/usr/sbin/tool")
    assert "Mode:  04711 " in there
    assert "User:     1   Group:     2 " in there
    assert "posix_acl" not in there
    assert finished.complaints(ours) == ""


def test_sbin_is_made_when_missing(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    image = tmp_path / "images" / "rootfs.ext4"
    image.parent.mkdir()
    finished.by_mke2fs(empty, image)
    inject(image)
    assert "Mode:  0755 " in finished.status(image, "/sbin")
    assert finished.content(image, DEFAULT) == b"agent"
    assert finished.complaints(image) == ""


def test_a_dirty_journal_is_replayed(ours: Path, tmp_path: Path) -> None:
    """The image of a machine that lost its power."""
    point, copy = tmp_path / "point", tmp_path / "copy"
    point.mkdir()
    with kernel.loop_device(ours, writable=True) as device:
        kernel.mount(device, point, "ext4")
        try:
            (point / "late").write_text("in the journal\n")
            with (point / "late").open() as file:
                os.fsync(file.fileno())
            subprocess.run(["cp", "--sparse=always", str(ours), str(copy)], check=True)
        finally:
            kernel.unmount(point)
    os.replace(copy, ours)
    assert (
        "needs_recovery"
        in subprocess.run(
            [finished.program("dumpe2fs"), "-h", str(ours)], capture_output=True, text=True, check=True
        ).stdout
    )
    inject(ours)
    assert finished.content(ours, "/late") == b"in the journal\n"
    assert finished.content(ours, "/usr/sbin/vm-agent") == b"agent"
    assert finished.complaints(ours) == ""


def test_an_image_in_use_is_refused(ours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("layermelt.inject.mount._RELEASE", 0.2)
    before = ours.read_bytes()
    with kernel.loop_device(ours), pytest.raises(errors.ImageBusyError, match="losetup -d"):
        inject(ours)
    other = tmp_path / "other-name"
    os.link(ours, other)
    with kernel.loop_device(ours), pytest.raises(errors.ImageBusyError):
        inject(other)
    # The name it was attached by is gone: the device itself still knows.
    with kernel.loop_device(other):
        other.unlink()
        with pytest.raises(errors.ImageBusyError):
            inject(ours)
    assert ours.read_bytes() == before
    inject(ours)


def test_an_image_that_a_machine_has_is_refused(ours: Path) -> None:
    """As QEMU does: read locks on bytes from 100 on."""
    script = (
        "import fcntl,struct,sys;f=open(sys.argv[1],'r+b');"
        "fcntl.fcntl(f,37,struct.pack('hhqqi4x',fcntl.F_RDLCK,0,100,1,0));print('locked',flush=True);input()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", script, str(ours)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        with pytest.raises(errors.ImageBusyError, match="virtual machine"):
            inject(ours)
        holder.communicate("")
    inject(ours)


def test_what_cannot_be_written(ours: Path, tmp_path: Path) -> None:
    kernel.set_immutable(os.fsencode(ours), True)
    try:
        with pytest.raises(errors.OutputPermissionError) as caught:
            inject(ours)
        assert caught.value.path == os.fspath(ours)
    finally:
        kernel.set_immutable(os.fsencode(ours), False)
    point = tmp_path / "point"
    point.mkdir()
    kernel.mount(os.fspath(ours.parent), point, None, kernel.MS_BIND)
    try:
        kernel.mount("none", point, None, kernel.MS_BIND | 32 | kernel.MS_RDONLY)
        with pytest.raises(errors.OutputError, match="Read-only file system"):
            inject(point / ours.name)
    finally:
        kernel.unmount(point)


def test_what_is_no_image(ours: Path, tmp_path: Path) -> None:
    with pytest.raises(errors.ImageNotFoundError):
        inject(tmp_path / "none")
    with pytest.raises(errors.ImageError, match="no regular file"):
        inject(tmp_path)
    text = tmp_path / "text"
    text.write_bytes(b"text" * 5000)
    with pytest.raises(errors.MountError, match="no ext4 image"):
        inject(text)
    # The magic number is there and the kernel finds the rest wanting.
    cut = tmp_path / "cut"
    cut.write_bytes(ours.read_bytes()[:8192])
    with pytest.raises(errors.MountError):
        inject(cut)


def test_a_journal_elsewhere_is_refused(ours: Path) -> None:
    """The kernel would replay whatever device of the host the image names."""
    subprocess.run(
        [finished.program("tune2fs"), "-O", "^has_journal", str(ours)], check=True, capture_output=True
    )
    request = "feature has_journal\nset_super_value journal_inum 0\nset_super_value journal_dev 0x700\n"
    subprocess.run(
        [finished.program("debugfs"), "-w", "-f", "-", str(ours)],
        input=request.encode(),
        check=True,
        capture_output=True,
    )
    with pytest.raises(errors.MountError, match="journal on another device"):
        inject(ours)


def test_no_room(layer: Path, tmp_path: Path) -> None:
    image = tmp_path / "images" / "rootfs.ext4"
    image.parent.mkdir()
    layermelt.build_rootfs(None, image, layers=[layer], size="min", sync=False)
    with pytest.raises(errors.ImageFullError, match="no room"):
        inject(image, os.urandom(64 << 20))
    assert finished.names(image, "/usr/sbin") == set()
    assert finished.complaints(image) == ""


def test_not_allowed(ours: Path, tmp_path: Path) -> None:
    """Root in a container: without CAP_SYS_ADMIN."""
    agent = tmp_path / "agent"
    agent.write_text("#!/x\n")
    command = product.command("inject", ours, "--agent", agent, "--no-agent-check", "--json")
    done = product.run(["setpriv", "--bounding-set", "-sys_admin", *command])
    assert done.returncode == errors.InjectionError.return_code, done.stderr
    error = json.loads(done.stdout)["error"]
    assert error["type"] == "InjectionPermissionError"
    assert "needs root with CAP_SYS_ADMIN" in error["message"]
    assert finished.complaints(ours) == ""


def test_programs_that_lie(ours: Path, tmp_path: Path) -> None:
    """A mount program is not believed."""
    program = tmp_path / "busybox"

    def run(body: str, timeout: float | None = None) -> None:
        program.write_text(f"#!/bin/sh\n{body}\n")
        program.chmod(0o755)
        find_injector("mount", busybox=os.fspath(program)).inject(
            os.fspath(ours), b"x", b"/sbin/vm-agent", timeout=timeout
        )

    before = ours.read_bytes()
    with pytest.raises(errors.MountError, match="nothing is mounted"):
        run("exit 0")
    real = "shift; for last; do :; done; for each; do from=$to; to=$each; done"
    with pytest.raises(errors.MountError, match="ignored nodev, nosuid or noexec"):
        run(f'{real}; /bin/mount -i -n -t ext4 "$from" "$to"')
    with pytest.raises(errors.InjectionTimeoutError):
        run("sleep 98765 & setsid sleep 98765", timeout=1)
    # None of what it started goes on.
    finished.await_end(b"sleep\x0098765")
    # The kernel itself wrote its mount time.
    assert len(ours.read_bytes()) == len(before)
    # What busybox cannot, mount can.
    run("echo no >&2; exit 1")
    assert finished.content(ours, "/usr/sbin/vm-agent") == b"x"
    assert finished.complaints(ours) == ""


def test_the_disk_of_the_image_is_full(layer: Path, tmp_path: Path) -> None:
    """The image has room; its holes have none."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12M", "small", disk], check=True)
    try:
        image = layermelt.build_rootfs(None, disk / "rootfs.ext4", layers=[layer], journal="none").path
        before = image.read_bytes()
        with pytest.raises(errors.ImageFullError, match=r"disk that it lies on has no room.*free some space"):
            inject(image, os.urandom(24 << 20))
        assert image.read_bytes() == before
        (disk / "more").write_bytes(b"x" * (11 << 20))
        with pytest.raises(errors.ImageFullError, match="disk that it lies on"):
            inject(image)
        # What needs no holes needs no room.
        full = layermelt.build_rootfs(None, tmp_path / "full.ext4", layers=[layer], size="8M").path
        (disk / "more").unlink()
        (disk / "full.ext4").write_bytes(full.read_bytes())
        (disk / "more").write_bytes(b"x" * (3 << 20))
        inject(disk / "full.ext4")
    finally:
        subprocess.run(["umount", disk], check=True)


def test_standard_streams_may_be_closed(ours: Path, tmp_path: Path) -> None:
    (tmp_path / "agent").write_text("#!/x\n")
    command = product.command("inject", ours, "--agent", tmp_path / "agent", "--no-agent-check", "-q")
    for closed in ("<&-", "<&- 2>&-", "<&- >/dev/null 2>&-"):
        subprocess.run(["sh", "-c", f'exec "$@" {closed}', "sh", *command], check=True)
    assert finished.content(ours, "/usr/sbin/vm-agent") == b"#!/x\n"
    assert finished.complaints(ours) == ""


def test_the_coroutine(ours: Path, tmp_path: Path) -> None:
    """Stopped at whatever moment, nothing is left: see also the fixture."""
    files = [InjectedFile(f"/srv/{number}", content=b"x" * number) for number in range(3)]
    told = set()

    async def main() -> None:
        report = await aio.inject_files(ours, files=files, progress=lambda *told_: told.add(told_))
        assert report.files == ("/srv/0", "/srv/1", "/srv/2")
        for delay in (0.01, 0.05, 0.1, 0.15, 0.2):
            task = asyncio.ensure_future(aio.inject_files(ours, files=files))
            await asyncio.sleep(delay)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            assert finished.loop_devices(tmp_path) == []

    asyncio.run(main())
    assert {phase for phase, *_ in told} == {"inject"}
    assert {total for *_, total in told} == {3}
    assert finished.content(ours, "/srv/2") == b"xx"
    assert finished.complaints(ours) == ""


def test_an_entry_of_the_cache_is_refused(layer: Path, tmp_path: Path) -> None:
    """Root could write to it, and it would be handed out under its key for what it is not any more."""
    entry = layermelt.build_rootfs(None, layers=[layer], cache_dir=tmp_path / "cache").path
    before = entry.read_bytes()
    with pytest.raises(errors.OutputPermissionError, match=r"read-only file.*layermelt clone"):
        inject(entry)
    with pytest.raises(errors.OutputPermissionError, match=r"read-only file.*layermelt clone"):
        layermelt.grow_image(entry, "+64M")
    assert entry.read_bytes() == before
    clone = cloning.clone_image(entry, tmp_path / "clone.ext4").path
    inject(clone)
    assert finished.content(clone, "/usr/sbin/vm-agent") == b"agent"


@pytest.mark.parametrize("timeout", [0, -1.0, float("nan")])
def test_a_time_limit_that_is_none(ours: Path, timeout: float) -> None:
    with pytest.raises(errors.InvalidOptionError, match="invalid timeout"):
        layermelt.inject_files(ours, files=[InjectedFile("/x", content=b"")], timeout=timeout)


@pytest.mark.parametrize("how", ["other bytes", "longer", "shorter"])
def test_an_agent_that_is_written_to_meanwhile(how: str, ours: Path, tmp_path: Path) -> None:
    """Half old, half new: it is not put in, and the one that was there stays."""
    agent = tmp_path / "agent"
    agent.write_bytes(b"x" * (1 << 20))
    code = (
        "import itertools, os, sys; file = os.open(sys.argv[1], os.O_RDWR)\n"
        "for number in itertools.count():\n"
        "    if sys.argv[2] == 'other bytes': os.pwrite(file, b'%16d' % number, 0)\n"
        "    else: os.ftruncate(file, (1 << 20) + (1 + number % 9999) * (1 if sys.argv[2] == 'longer' else -1))\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, agent, how]) as writer:
        try:
            with pytest.raises(errors.InjectionVerifyError, match=r"agent written to meanwhile\?"):
                # In one moment or the other it does not run.
                for _ in range(20):
                    inject(ours, b"the one before")
                    find_injector("mount").inject(os.fspath(ours), os.fspath(agent), DEFAULT.encode())
        finally:
            writer.kill()
    assert finished.content(ours, "/usr/sbin/vm-agent") == b"the one before"
    assert finished.names(ours, "/usr/sbin") == {"vm-agent"}
    assert finished.complaints(ours) == ""


def test_should_stop(ours: Path) -> None:
    class EnoughError(OSError):
        pass

    def refuse() -> None:
        raise EnoughError

    with pytest.raises(EnoughError):
        find_injector("mount").inject(os.fspath(ours), b"x", b"/sbin/vm-agent", should_stop=refuse)
    assert finished.complaints(ours) == ""


def test_the_directory_at_the_destination(ours: Path) -> None:
    with pytest.raises(errors.InjectionError, match="directory of that name"):
        inject(ours, destination="/usr/sbin")
    for destination in ("relative", "/etc/", "/etc/..", "/" + "n" * 256):
        with pytest.raises(errors.InjectionError):
            inject(ours, destination=destination)
    with pytest.raises(errors.InjectionError, match="Not a directory"):
        inject(ours, destination="/etc/hostname/x")
    assert finished.names(ours, "/usr/sbin") == set()
    assert finished.complaints(ours) == ""


def test_nothing_to_put_in(ours: Path) -> None:
    with pytest.raises(errors.InvalidOptionError, match="nothing to put in"):
        layermelt.inject_files(ours)


def test_twenty_at_once(ours: Path, tmp_path: Path) -> None:
    """Ten into images of their own, ten into one."""
    folder = tmp_path / "many"
    folder.mkdir()
    images = [folder / f"{number}.ext4" for number in range(10)]
    for one in images:
        subprocess.run(["cp", "--sparse=always", str(ours), str(one)], check=True)
    work = [(one, DEFAULT) for one in images] + [(ours, f"/opt/tool-{number}") for number in range(10)]
    failures: list[BaseException] = []

    def run(image: Path, destination: str) -> None:
        try:
            inject(image, destination.encode() * 9999, destination)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=one) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    for one in images:
        assert finished.content(one, "/usr/sbin/vm-agent") == DEFAULT.encode() * 9999
        assert finished.complaints(one) == ""
    assert finished.names(ours, "/opt") == {f"tool-{number}" for number in range(10)}
    assert finished.complaints(ours) == ""
    assert sorted(os.listdir(folder)) == sorted(one.name for one in images)
