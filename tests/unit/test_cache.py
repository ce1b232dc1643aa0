"""Builds into the cache: keys, hits, leftovers, and builders of one key at once."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from layermelt import InjectedFile, build_rootfs, check_image, errors, identity
from layermelt.cache import CacheNames
from layermelt.identity import Memory
from layermelt.locks import exclusive
from unit.test_api import debugfs

MIB = 1 << 20


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def entries(cache: Path) -> list[str]:
    return sorted(name for name in os.listdir(cache) if name != ".digests")


def test_a_second_build_is_a_hit(layer: Path, cache: Path) -> None:
    first = build_rootfs(None, layers=[layer], cache_dir=cache)
    assert first.path == cache / f"rootfs-{first.key}.ext4"
    assert len(first.key) == 64
    assert not first.cached
    assert first.entries == 3
    inode = first.path.stat().st_ino
    second = build_rootfs(None, layers=[layer], cache_dir=cache)
    assert second.cached
    assert (second.path, second.key, second.uuid) == (first.path, first.key, first.uuid)
    assert (second.size, second.blocks, second.free_blocks) == (first.size, first.blocks, first.free_blocks)
    assert (second.written, second.copy_method) == (0, "cache")
    assert second.path.stat().st_ino == inode
    assert entries(cache) == [first.path.name]
    assert stat.S_IMODE(first.path.stat().st_mode) == 0o444
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700


def test_the_entry_is_the_image_that_an_output_would_be(layer: Path, cache: Path, target: Path) -> None:
    build_rootfs(None, target, layers=[layer])
    assert build_rootfs(None, layers=[layer], cache_dir=cache).path.read_bytes() == target.read_bytes()


@pytest.mark.parametrize(
    "options",
    [
        {"size": 300 * MIB},
        {"size": "min"},
        {"free_space": 8 * MIB},
        {"inodes": 99_999},
        {"label": "x"},
        {"uuid": uuid.UUID(int=7)},
        {"profile": "compat"},
        {"journal": "none"},
        {"reserved": 4 * MIB},
        {"block_size": 1024},
        {"inode_flags": True},
        {"userxattr": True},
        {"files": [InjectedFile("/a", content=b"x")]},
        {"files": [InjectedFile("/a", content=b"y")]},
        {"files": [InjectedFile("/b", content=b"x")]},
        {"files": [InjectedFile("/a", content=b"x", mode=0o600)]},
        {"files": [InjectedFile("/a", content=b"x", uid=5)]},
        {"files": [InjectedFile("/a", content=b"x", gid=5)]},
    ],
    ids=str,
)
def test_what_changes_bytes_is_in_the_key(layer: Path, cache: Path, options: dict[str, Any]) -> None:
    plain = build_rootfs(None, layers=[layer], cache_dir=cache, sync=False)
    other = build_rootfs(None, layers=[layer], cache_dir=cache, sync=False, **options)
    assert not other.cached
    assert other.key != plain.key
    assert build_rootfs(None, layers=[layer], cache_dir=cache, **options).cached


def test_files_of_the_option_differ_among_themselves(layer: Path, cache: Path) -> None:
    files = [
        InjectedFile("/a", content=b"x"),
        InjectedFile("/a", content=b"y"),
        InjectedFile("/b", content=b"x"),
        InjectedFile("/a", content=b"x", mode=0o600),
        InjectedFile("/a", content=b"x", uid=5),
        InjectedFile("/a", content=b"x", gid=5),
    ]
    keys = {build_rootfs(None, layers=[layer], cache_dir=cache, files=[file]).key for file in files}
    assert len(keys) == len(files)


def test_the_environments_time_is_in_the_key(
    layer: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = build_rootfs(None, layers=[layer], cache_dir=cache)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    assert build_rootfs(None, layers=[layer], cache_dir=cache).key != plain.key


def test_what_changes_no_bytes_is_not_in_the_key(layer: Path, cache: Path, tmp_path: Path) -> None:
    plain = build_rootfs(None, layers=[layer], cache_dir=cache)
    options: dict[str, Any]
    for options in ({"threads": 1}, {"sync": False}, {"timeout": 100.0}, {"progress": lambda *_: None}):
        assert build_rootfs(None, layers=[layer], cache_dir=cache, **options).key == plain.key
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-a", layer, copy], check=True)
    assert build_rootfs(None, layers=[copy], cache_dir=cache).key == plain.key


def _write(layer: Path) -> None:
    (layer / "etc/hostname").write_text("another\n")


def _write_as_before(layer: Path) -> None:
    """As long and with the same mtime as before."""
    path = layer / "etc/hostname"
    before = path.stat()
    path.write_text("MELTED\n")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def _chmod(layer: Path) -> None:
    (layer / "etc/hostname").chmod(0o600)


def _add(layer: Path) -> None:
    (layer / "new").touch()


@pytest.mark.parametrize("change", [_write, _write_as_before, _chmod, _add])
def test_a_changed_layer_is_another_key(layer: Path, cache: Path, change: Callable[[Path], None]) -> None:
    first = build_rootfs(None, layers=[layer], cache_dir=cache)
    # Old enough for its digest to be remembered.
    time.sleep(2.1)
    assert build_rootfs(None, layers=[layer], cache_dir=cache).cached
    assert len(os.listdir(cache / ".digests")) == 1
    change(layer)
    second = build_rootfs(None, layers=[layer], cache_dir=cache)
    assert not second.cached
    assert second.key != first.key


def test_an_agents_content_is_in_the_key(layer: Path, cache: Path, agent: Path) -> None:
    first = build_rootfs(None, layers=[layer], cache_dir=cache, agent=agent, agent_check=False)
    agent.write_text("AGENT\n")
    second = build_rootfs(None, layers=[layer], cache_dir=cache, agent=agent, agent_check=False)
    assert second.key != first.key
    assert debugfs(second.path, "cat /sbin/vm-agent") == "AGENT\n"
    # An image whose agent nobody looked at is none for those who want it looked at.
    with pytest.raises(errors.AgentError):
        build_rootfs(None, layers=[layer], cache_dir=cache, agent=agent)


def test_a_layer_that_changes_during_the_build_gives_no_entry(
    layer: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []

    def change(*arguments: Any) -> None:
        # The image is made, but nobody has seen it: the last moment that matters.
        seen.append(entries(cache))
        (layer / "etc/hostname").write_text("else\n")
        identity.demand_unchanged(*arguments)

    monkeypatch.setattr("layermelt.cache.demand_unchanged", change)
    with pytest.raises(errors.LayerChangedError):
        build_rootfs(None, layers=[layer], cache_dir=cache)
    assert [[name.endswith(".ext4") for name in names] for names in seen] == [[False, False]]
    assert entries(cache) == []


def test_a_damaged_entry_is_rebuilt(layer: Path, cache: Path) -> None:
    first = build_rootfs(None, layers=[layer], cache_dir=cache)
    before = first.path.read_bytes()
    for damage in (b"", before[:5000], b"\0" * 8192 + before[8192:]):
        first.path.unlink()
        first.path.write_bytes(damage)
        again = build_rootfs(None, layers=[layer], cache_dir=cache)
        assert not again.cached
        assert first.path.read_bytes() == before
        assert [text for text in again.warnings if "built anew" in text]


def test_what_is_no_file_in_the_place_of_an_entry(layer: Path, cache: Path, tmp_path: Path) -> None:
    path = build_rootfs(None, layers=[layer], cache_dir=cache).path
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("kept")
    for make in (os.mkfifo, lambda path: path.symlink_to(elsewhere)):
        path.unlink()
        make(path)
        result = build_rootfs(None, layers=[layer], cache_dir=cache)
        assert (result.cached, check_image(path).sound) == (False, True)
        assert "no regular file" in result.warnings[0]
    assert elsewhere.read_text() == "kept"
    path.unlink()
    path.mkdir()
    with pytest.raises(errors.OutputError, match="directory in the place of an image; remove it"):
        build_rootfs(None, layers=[layer], cache_dir=cache)
    assert entries(cache) == [path.name]


def test_an_output_and_a_cache_exclude_each_other(layer: Path, cache: Path, target: Path) -> None:
    with pytest.raises(errors.InvalidOptionError, match="exclude"):
        build_rootfs(None, target, layers=[layer], cache_dir=cache)


def test_where_the_cache_is(layer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAYERMELT_CACHE_DIR", os.fspath(tmp_path / "named"))
    assert build_rootfs(None, layers=[layer]).path.parent == tmp_path / "named"
    monkeypatch.delenv("LAYERMELT_CACHE_DIR")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_CACHE_HOME", os.fspath(tmp_path / "xdg"))
    from layermelt import settings

    assert settings.default_cache_dir() == os.fspath(tmp_path / "xdg/layermelt")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", os.fspath(tmp_path / "home"))
    assert settings.default_cache_dir() == os.fspath(tmp_path / "home/.cache/layermelt")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert settings.default_cache_dir() == "/var/cache/layermelt"


@pytest.mark.parametrize("what", ["file", "below a file"])
def test_a_cache_that_is_no_directory(layer: Path, tmp_path: Path, what: str) -> None:
    (tmp_path / "file").touch()
    cache = tmp_path / "file" if what == "file" else tmp_path / "file/cache"
    with pytest.raises(errors.OutputError, match="file"):
        build_rootfs(None, layers=[layer], cache_dir=cache)


PROGRAM = """
import os, signal, sys
from layermelt import build_rootfs

def die(phase, done, total):
    if phase in ("write", "sync"):
        os.kill(os.getpid(), signal.SIGKILL)

print(build_rootfs(None, layers=[sys.argv[1]], cache_dir=sys.argv[2], progress=die).path)
"""


def test_a_killed_build_leaves_no_entry_and_the_next_sweeps(layer: Path, cache: Path) -> None:
    for number in range(40):
        (layer / f"large{number}").write_bytes(b"x" * 4 * MIB)
    build_rootfs(None, layers=[layer / "etc"], cache_dir=cache)
    [kept] = entries(cache)
    killed = 0
    for _ in range(20):
        done = subprocess.run([sys.executable, "-c", PROGRAM, layer, cache], capture_output=True)
        killed += done.returncode == -signal.SIGKILL
        if killed:
            break
        for name in entries(cache):
            if name != kept:
                os.unlink(cache / name)
    assert killed, "it was never seen to write"
    assert [name for name in entries(cache) if name.endswith(".tmp")]
    left = [name for name in entries(cache) if name.endswith(".ext4") and name != kept]
    assert left == []
    # What an older agent is writing is none of ours, and nor is what merely looks like it.
    foreign = f".rootfs-{uuid.uuid4()}.ext4.tmp"
    (cache / foreign).touch()
    result = build_rootfs(None, layers=[layer], cache_dir=cache)
    assert entries(cache) == sorted([kept, foreign, result.path.name])
    assert check_image(result.path).sound


def test_the_lock_of_a_killed_builder_is_swept(layer: Path, cache: Path) -> None:
    """Whatever is built next; what somebody holds stays."""
    cache.mkdir()
    free, held = (cache / f".rootfs-{digit * 64}.lock" for digit in "ab")
    old = cache / f".rootfs-{'c' * 16}.lock"
    foreign = cache / ".rootfs-x.lock"
    for path in (free, old, foreign):
        path.touch()
    with exclusive(os.fspath(held)):
        result = build_rootfs(None, layers=[layer], cache_dir=cache)
        assert entries(cache) == sorted([foreign.name, held.name, result.path.name])
    assert entries(cache) == sorted([foreign.name, result.path.name])


def test_names_of_temporary_files() -> None:
    names = CacheNames()
    made = {names.make() for _ in range(100)}
    assert len(made) == 100
    for name in made:
        assert names.matches(name)
        parsed = uuid.UUID(name.removeprefix(".rootfs-").removesuffix(".ext4.tmp"))
        assert parsed.version == 4
        assert parsed.variant == uuid.RFC_4122
    foreign = [f".rootfs-{uuid.uuid4()}.ext4.tmp" for _ in range(1000)]
    assert not any(names.matches(name) for name in foreign)
    assert not names.matches("rootfs-x.ext4")


def test_processes_build_one_image(layer: Path, cache: Path) -> None:
    for number in range(50):
        (layer / f"file{number}").write_bytes(b"x" * MIB)
    program = (
        "import sys; from layermelt import build_rootfs; "
        "print(build_rootfs(None, layers=[sys.argv[1]], cache_dir=sys.argv[2]).cached)"
    )
    command = [sys.executable, "-c", program, os.fspath(layer), os.fspath(cache)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(6)]
    said = [process.communicate()[0].strip() for process in processes]
    assert sorted(said) == ["False", *["True"] * 5]
    assert len(entries(cache)) == 1


def test_a_damaged_memory_is_made_anew(tmp_path: Path) -> None:
    memory = Memory(os.fspath(tmp_path / "memory"))
    fingerprint, digest = b"f" * 32, b"d" * 32
    assert memory.recall(fingerprint) is None
    memory.remember(fingerprint, digest)
    assert memory.recall(fingerprint) == digest
    path = tmp_path / "memory" / fingerprint.hex()
    for damage in (b"", b"x" * 64 + b"\n", digest.hex().encode(), digest.hex().encode() + b"\nmore"):
        path.write_bytes(damage)
        assert memory.recall(fingerprint) is None


def test_a_memory_of_somebody_else_is_not_believed(tmp_path: Path) -> None:
    memory = Memory(os.fspath(tmp_path / "memory"))
    fingerprint, digest = b"f" * 32, b"d" * 32
    memory.remember(fingerprint, digest)
    path = tmp_path / "memory" / fingerprint.hex()
    elsewhere = tmp_path / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    assert memory.recall(fingerprint) is None
    path.unlink()
    os.mkfifo(path)
    # And is not waited for.
    assert memory.recall(fingerprint) is None
    if os.geteuid() == 0:
        os.replace(elsewhere, path)
        os.chown(path, 65534, 65534)
        assert memory.recall(fingerprint) is None


def test_the_memory_forgets_the_older_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Memory, "_MOST", 8)
    memory = Memory(os.fspath(tmp_path / "memory"))
    for number in range(9):
        memory.remember(bytes([number]) * 32, b"d" * 32)
        os.utime(tmp_path / "memory" / (bytes([number]) * 32).hex(), ns=(number, number))
    assert [number for number in range(9) if memory.recall(bytes([number]) * 32)] == [4, 5, 6, 7, 8]


def test_the_command_prints_the_entrys_path(layer: Path, cache: Path) -> None:
    command = [sys.executable, "-m", "layermelt", "build", "--layer", os.fspath(layer)]
    environment = {**os.environ, "LAYERMELT_CACHE_DIR": os.fspath(cache)}
    first = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert first.returncode == 0, first.stderr
    assert "3 entries" in first.stderr
    second = subprocess.run([*command, "--cache-dir", os.fspath(cache)], capture_output=True, text=True)
    assert second.stdout == first.stdout
    assert Path(first.stdout.strip()).parent == cache
    assert "(cache)" in second.stderr
    assert "entries" not in second.stderr
