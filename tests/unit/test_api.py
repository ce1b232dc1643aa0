"""The Python API: builds, reports and their types."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

import layermelt
from layermelt import InjectedFile, _core, build_rootfs, check_image, errors, has_ext4_magic, inspect_source
from unit.stores import ContainersStore, DockerRoot

MIB = 1 << 20


def debugfs(image: Path, request: str) -> str:
    """What debugfs answers; it is the only one here that reads an image."""
    command = ["debugfs", "-R", request, os.fspath(image)]
    environment = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
    done = subprocess.run(command, capture_output=True, check=True, env=environment)
    return done.stdout.decode("utf-8", "surrogateescape")


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_public_names() -> None:
    for name in layermelt.__all__:
        assert getattr(layermelt, name) is not None
    assert set(layermelt.__all__) <= set(dir(layermelt))
    with pytest.raises(AttributeError, match="nonsense"):
        _ = layermelt.nonsense
    assert layermelt.__version__.count(".") == 2


def test_importing_costs_little() -> None:
    program = (
        "import sys, time; since = time.perf_counter(); import layermelt; "
        "print(time.perf_counter() - since); assert 'layermelt.builder' not in sys.modules"
    )
    seconds = min(
        float(subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout)
        for _ in range(5)
    )
    assert seconds < 0.04


def test_a_build(layer: Path, target: Path) -> None:
    result = build_rootfs(None, target, layers=[layer], label="root", free_space=8 * MIB)
    assert result.path == target
    assert result.size == target.stat().st_size
    assert result.size == result.blocks * result.block_size
    assert result.allocated == target.stat().st_blocks * 512
    assert (result.entries, result.files, result.directories) == (3, 1, 2)
    assert (result.symlinks, result.special, result.hard_links) == (1, 0, 0)
    assert result.content == len("melted\n")
    assert result.free_blocks * result.block_size >= 8 * MIB
    assert list(result.phases) == ["resolve", "scan", "merge", "plan", "write", "sync", "check", "publish"]
    assert all(seconds >= 0 for seconds in result.phases.values())
    assert result.seconds == pytest.approx(sum(result.phases.values()))
    assert result.warnings == ()

    report = check_image(target)
    assert report.sound
    assert report.problems == ()
    assert (report.uuid, report.label) == (result.uuid, "root")
    assert (report.blocks, report.free_blocks) == (result.blocks, result.free_blocks)
    assert (report.inodes, report.free_inodes) == (result.inodes, result.free_inodes)
    assert "metadata_csum" in report.features
    assert report.journal == "inode 8"
    assert debugfs(target, "cat /etc/hostname") == "melted\n"


def test_results_are_values(layer: Path, target: Path) -> None:
    result = build_rootfs(None, target, layers=[layer], free_space=0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.size = 0  # type: ignore[misc]
    with pytest.raises(TypeError):
        result.phases["scan"] = 0  # type: ignore[index]
    assert pickle.loads(pickle.dumps(result)) == result
    report = check_image(target)
    assert pickle.loads(pickle.dumps(report)) == report
    for value in (result, report, inspect_source(None, layers=[layer])):
        names = {field.name for field in dataclasses.fields(value)}
        assert names <= set(json.loads(json.dumps(value.as_dict())))


def test_the_agent(layer: Path, target: Path, tmp_path: Path) -> None:
    agent = tmp_path / "agent"
    agent.write_bytes(b"#!/bin/true\n")
    agent.chmod(0o600)
    build_rootfs(None, target, layers=[layer], agent=agent, agent_check=False, free_space=0)
    # The layer's /sbin points to usr/sbin, which it does not have.
    assert debugfs(target, "cat /usr/sbin/vm-agent") == "#!/bin/true\n"
    told = debugfs(target, "stat /usr/sbin/vm-agent")
    assert "Mode:  0755" in told
    assert "User:     0   Group:     0" in told

    other = InjectedFile("/opt/agent", content=b"other", mode=0o4711, uid=12, gid=34)
    build_rootfs(None, target, layers=[layer], agent=other, agent_check=False, free_space=0)
    told = debugfs(target, "stat /opt/agent")
    assert "Mode:  04711" in told
    assert "User:    12   Group:    34" in told


def test_files_of_the_host(layer: Path, target: Path, tmp_path: Path) -> None:
    plain, program = tmp_path / "plain", tmp_path / "program"
    plain.write_bytes(b"plain")
    plain.chmod(0o640)
    program.write_bytes(b"program")
    program.chmod(0o711)
    files = [
        InjectedFile("/a/plain", source=plain),
        InjectedFile("/a/program", source=os.fsencode(program)),
        InjectedFile("/a/twice", content=b"one"),
        InjectedFile("/a/twice", content=b"two"),
        InjectedFile(b"/a/\xff", content=b""),
    ]
    agent = InjectedFile("/a/twice", content=b"agent")
    build_rootfs(None, target, layers=[layer], files=files, agent=agent, agent_check=False)
    assert "Mode:  0644" in debugfs(target, "stat /a/plain")
    assert "Mode:  0755" in debugfs(target, "stat /a/program")
    assert debugfs(target, "cat /a/twice") == "agent"
    # debugfs writes bytes that are no text in one of two ways.
    assert {"\udcff", "\\xff"} & set(debugfs(target, "ls /a").split())


@pytest.mark.parametrize(
    ("file", "cls"),
    [
        (InjectedFile("/x"), errors.InvalidOptionError),
        (InjectedFile("/x", source="/etc/hostname", content=b""), errors.InvalidOptionError),
        (InjectedFile("/x", source=""), errors.InvalidOptionError),
        (InjectedFile("/x", content=b"", mode=0o10000), errors.InvalidOptionError),
        (InjectedFile("/x", content=b"", uid=-1), errors.InvalidOptionError),
        (InjectedFile("/x", content=b"", gid=(1 << 32) - 1), errors.InvalidOptionError),
        (InjectedFile("x", content=b""), errors.InjectionError),
        (InjectedFile("/", content=b""), errors.InjectionError),
        (InjectedFile("/etc", content=b""), errors.InjectionError),
        (InjectedFile("/etc/hostname/x", content=b""), errors.InjectionError),
        (InjectedFile("/x", source="/etc"), errors.InjectionError),
        (InjectedFile("/x", source="/dev/null"), errors.InjectionError),
        (InjectedFile("/x", source="/nowhere"), errors.InjectionNotFoundError),
    ],
)
def test_files_that_cannot_be(layer: Path, target: Path, file: InjectedFile, cls: type[Exception]) -> None:
    with pytest.raises(cls) as caught:
        build_rootfs(None, target, layers=[layer], files=[file])
    assert type(caught.value) is cls
    assert os.listdir(target.parent) == []


@pytest.mark.parametrize(
    "options",
    [
        {"size": "huge"},
        {"size": -1},
        {"size": 1.5},
        {"free_space": "much"},
        {"free_space": 1 << 63},
        {"inodes": 0},
        {"inodes": 1 << 32},
        {"label": "x" * 17},
        {"label": "ü" * 9},
        {"label": b"a\0b"},
        {"uuid": "none"},
        {"uuid": b"short"},
        {"uuid": uuid.UUID(int=0)},
        {"threads": 0},
        {"threads": 257},
        {"layers": ()},
        {"layers": ["/"], "source": "docker:x"},
    ],
)
def test_options_that_cannot_be(layer: Path, target: Path, options: dict[str, Any]) -> None:
    arguments = {"source": None, "layers": [layer], **options}
    with pytest.raises(errors.InvalidOptionError) as caught:
        build_rootfs(arguments.pop("source"), target, **arguments)
    assert isinstance(caught.value, ValueError)
    assert os.listdir(target.parent) == []


def test_sizes(layer: Path, target: Path) -> None:
    least = build_rootfs(None, target, layers=[layer], size="min").size
    with pytest.raises(errors.TooSmallError, match=f"{least}") as caught:
        build_rootfs(None, target, layers=[layer], size=least - 4096)
    assert caught.value.given == least - 4096
    # What it asks for is enough.
    exact = build_rootfs(None, target, layers=[layer], size=caught.value.needed)
    assert exact.size <= caught.value.needed
    assert build_rootfs(None, target, layers=[layer], size="64M").size == 64 * MIB


@pytest.mark.parametrize(
    "given", ["123e4567-e89b-12d3-a456-426614174000", uuid.UUID(int=7), b"0123456789abcdef"]
)
def test_uuids(layer: Path, target: Path, given: str | bytes | uuid.UUID) -> None:
    result = build_rootfs(None, target, layers=[layer], uuid=given)
    expected = given if isinstance(given, uuid.UUID) else None
    if isinstance(given, bytes):
        expected = uuid.UUID(bytes=given)
    assert result.uuid == str(expected or given)
    assert check_image(target).uuid == result.uuid


def test_same_input_same_bytes(layer: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def built(**options: Any) -> str:
        build_rootfs(None, target, layers=[layer], sync=False, **options)
        return sha256(target)

    first = built()
    assert {built(threads=threads) for threads in (1, 2, 8)} == {first}
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    dated = built()
    assert dated != first
    assert built(threads=1) == dated
    assert "Nov 14 22:13:20 2023" in debugfs_date(target)


def debugfs_date(image: Path) -> str:
    environment = {**os.environ, "TZ": "UTC", "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
    command = ["dumpe2fs", "-h", os.fspath(image)]
    return subprocess.run(command, capture_output=True, check=True, env=environment, text=True).stdout


def test_both_stores_and_inspection(
    docker_root: DockerRoot, containers_store: ContainersStore, target: Path
) -> None:
    image = docker_root.add_image("a:1", layers=3)
    ids = containers_store.add("one", "two")
    for source, files in (
        ("docker:a:1", 3),
        (docker_root.layers(image)[-1].parent, 3),
        (containers_store.overlay / ids[-1], 2),
    ):
        result = build_rootfs(source, target, docker_root=docker_root.root, sync=False)
        assert result.files == files
        assert check_image(target).sound
        told = inspect_source(source, docker_root=docker_root.root)
        assert (told.files, told.entries, told.content) == (result.files, result.entries, result.content)
        assert len(told.layers) == files


def test_an_old_image_is_replaced_by_a_whole_one_only(layer: Path, target: Path, tmp_path: Path) -> None:
    build_rootfs(None, target, layers=[layer], sync=False)
    old = sha256(target)
    with pytest.raises(errors.SourceNotFoundError):
        build_rootfs(None, target, layers=[layer, tmp_path / "none"])
    with pytest.raises(errors.TooSmallError):
        build_rootfs(None, target, layers=[layer], size=4096)
    assert sha256(target) == old
    assert os.listdir(target.parent) == [target.name]


def test_an_image_that_is_not_sound_is_not_published(
    layer: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = _core.build_image

    def damaging(layers: list[str], output: str, *arguments: Any, **options: Any) -> _core.BuildReport:
        report = real(layers, output, *arguments, **options)
        with open(output, "r+b") as image:
            image.seek(1024)
            image.write(b"\0\0\0\0")
        return report

    build_rootfs(None, target, layers=[layer], sync=False)
    old = sha256(target)
    monkeypatch.setattr(_core, "build_image", damaging)
    with pytest.raises(errors.UnsoundImageError, match="not sound") as caught:
        build_rootfs(None, target, layers=[layer], sync=False)
    assert caught.value.problems
    assert sha256(target) == old
    assert os.listdir(target.parent) == [target.name]


def many_files(directory: Path) -> Path:
    """A layer that takes some tenths of a second."""
    block = os.urandom(1 << 16)
    for number in range(1200):
        (directory / f"d{number % 40}").mkdir(parents=True, exist_ok=True)
        (directory / f"d{number % 40}/f{number}").write_bytes(block)
    return directory


def test_progress_is_told_and_may_stop_the_build(target: Path, tmp_path: Path) -> None:
    layer = many_files(tmp_path / "many")
    # Progress is told each 50 ms: so many bytes take longer than that.
    with (layer / "large").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, 256 << 20)
    seen: list[tuple[str, int, int]] = []
    for _ in range(20):
        build_rootfs(None, target, layers=[layer], sync=False, progress=lambda *told: seen.append(told))
        if seen:
            break
    assert seen
    assert {phase for phase, _, _ in seen} <= {"scan", "merge", "plan", "write", "sync"}
    assert min(done for _, done, _ in seen) >= 0

    def stop(*_told: object) -> None:
        raise LookupError("enough")

    stopped = 0
    for attempt in range(20):
        old = sha256(target)
        try:
            build_rootfs(None, target, layers=[layer], sync=False, progress=stop, label=f"new {attempt}")
        except LookupError:
            stopped += 1
            assert sha256(target) == old
            break
    assert stopped
    assert os.listdir(target.parent) == [target.name]


def test_a_signal_stops_the_build(target: Path, tmp_path: Path) -> None:
    layer = many_files(tmp_path / "many")

    def interrupt(*_arguments: object) -> None:
        raise KeyboardInterrupt

    old = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        with pytest.raises(KeyboardInterrupt):
            for _ in range(100):
                build_rootfs(None, target, layers=[layer], sync=False)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
    assert [name for name in os.listdir(target.parent) if name != target.name] == []


def test_other_threads_run_meanwhile(target: Path, tmp_path: Path) -> None:
    layer = many_files(tmp_path / "many")
    ended = threading.Event()
    gaps: list[float] = []

    def count() -> None:
        last = time.perf_counter()
        while not ended.is_set():
            time.sleep(0.001)
            now = time.perf_counter()
            gaps.append(now - last)
            last = now

    thread = threading.Thread(target=count)
    thread.start()
    seconds = build_rootfs(None, target, layers=[layer], threads=1).seconds
    ended.set()
    thread.join()
    # With the GIL held it would have run hardly once.
    assert len(gaps) >= 5
    assert max(gaps) < max(seconds / 2, 0.1)


def test_builds_in_threads(layer: Path, target: Path) -> None:
    def build(number: int) -> None:
        build_rootfs(None, target.with_name(f"{number}.ext4"), layers=[layer], sync=False)

    threads = [threading.Thread(target=build, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({sha256(target.with_name(f"{number}.ext4")) for number in range(4)}) == 1


@pytest.mark.parametrize(
    "path", ["/nowhere", "/", "/dev/null", "/etc/passwd", "", "a\0b", b"\xff", "/proc/1/mem"]
)
def test_has_ext4_magic_never_fails(path: str | bytes) -> None:
    assert has_ext4_magic(path) is False


def test_has_ext4_magic(layer: Path, target: Path) -> None:
    build_rootfs(None, target, layers=[layer], sync=False)
    assert has_ext4_magic(target) is True
    assert has_ext4_magic(os.fsencode(target)) is True
    link = target.with_name("link")
    link.symlink_to(target)
    assert has_ext4_magic(link) is True
    os.truncate(target, 1080)
    assert has_ext4_magic(target) is False


def test_checks_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(errors.ImageNotFoundError) as missing:
        check_image(tmp_path / "none")
    assert missing.value.filename == os.fspath(tmp_path / "none")
    with pytest.raises(errors.ImageError, match="a directory"):
        check_image(tmp_path)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with pytest.raises(errors.ImageError, match="a FIFO"):
        check_image(fifo)


def test_damage_is_found(layer: Path, target: Path) -> None:
    build_rootfs(None, target, layers=[layer], sync=False)
    with target.open("r+b") as image:
        image.seek(1024 + 0x10)
        byte = image.read(1)
        image.seek(-1, os.SEEK_CUR)
        image.write(bytes([byte[0] ^ 1]))
    report = check_image(target)
    assert not report.sound
    assert "superblock-checksum" in {problem.code for problem in report.problems}
    assert all(problem.text for problem in report.problems)


@pytest.mark.root
@pytest.mark.parametrize("options", ["", "-b 1024", "-O ^metadata_csum,uninit_bg", "-O bigalloc"])
def test_what_the_kernel_wrote_is_sound(target: Path, tmp_path: Path, options: str) -> None:
    if os.geteuid() != 0 or not Path("/dev/loop-control").exists():
        pytest.skip("needs root and loop devices: mounts an image")
    environment = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
    make = ["mke2fs", "-q", "-F", "-t", "ext4", *options.split(), os.fspath(target), "200M"]
    subprocess.run(make, check=True, env=environment, capture_output=True)
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    mount = ["mount", "-o", "loop", os.fspath(target), os.fspath(mounted)]
    done = subprocess.run(mount, env=environment, capture_output=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"cannot mount here: {done.stderr.decode()}")
    try:
        many_files(mounted)
        shutil.rmtree(mounted / "d1")
        (mounted / "new").symlink_to("x" * 200)
        subprocess.run(["sync", "-f", os.fspath(mounted)], check=True)
        assert "needs-recovery" in {problem.code for problem in check_image(target).problems}
    finally:
        subprocess.run(["umount", os.fspath(mounted)], check=True, env=environment)
    assert check_image(target).problems == ()
