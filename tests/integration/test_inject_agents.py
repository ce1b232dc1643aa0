"""Agents that the image could not start: an error of its own each, before anything is written."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

import layermelt
from integration.oracle import product
from integration.real import finished
from layermelt import errors

X86_64, AARCH64 = 62, 183
INTERPRETER = "/lib64/ld-linux-x86-64.so.2"


def elf(machine: int, interpreter: str = "") -> bytes:
    """A program of 64 bits: its header, and one program header (PT_INTERP, or PT_LOAD)."""
    name = interpreter.encode() + b"\0" if interpreter else b""
    header = struct.pack(
        "<4s5B7x2HI3QI6H", b"\x7fELF", 2, 1, 1, 0, 0, 2, machine, 1, 0, 64, 0, 0, 64, 56, 1, 0, 0, 0
    )
    kind = 3 if interpreter else 1
    return header + struct.pack("<2I6Q", kind, 4, 120, 0, 0, len(name), len(name), 1) + name


@pytest.fixture
def layer(tmp_path: Path) -> Path:
    tree = tmp_path / "overlay2" / "top" / "diff"
    (tree / "bin").mkdir(parents=True)
    (tree.parent / "link").write_text("L")
    (tree / "bin/sh").write_bytes(elf(X86_64))
    (tree / "bin/sh").chmod(0o755)
    return tree


def build(layer: Path, image: Path, agent: Path, *, check: bool = True) -> None:
    layermelt.build_rootfs(
        None, image, layers=[layer], agent=agent, agent_check=check, size="min", sync=False
    )


def build_and_mount(layer: Path, image: Path, agent: Path, *, check: bool = True) -> None:
    layermelt.build_rootfs(
        None,
        image,
        layers=[layer],
        agent=agent,
        agent_check=check,
        injector="mount",
        free_space="8M",
        sync=False,
    )


def mount(layer: Path, image: Path, agent: Path, *, check: bool = True) -> None:
    if not image.exists():
        finished.by_mke2fs(layer, image)
    layermelt.inject_files(image, agent=agent, agent_check=check)


Way = Callable[..., None]


@pytest.fixture(
    params=[
        build,
        pytest.param(build_and_mount, marks=pytest.mark.root),
        pytest.param(mount, marks=pytest.mark.root),
    ]
)
def way(request: pytest.FixtureRequest) -> Way:
    chosen: Way = request.param
    return chosen


def missing(agent: Path) -> None:
    pass


def directory(agent: Path) -> None:
    agent.mkdir()


def fifo(agent: Path) -> None:
    os.mkfifo(agent)


def another_architecture(agent: Path) -> None:
    agent.write_bytes(elf(AARCH64))


def no_interpreter(agent: Path) -> None:
    agent.write_bytes(elf(X86_64, INTERPRETER))


def no_program(agent: Path) -> None:
    agent.write_bytes(b"text\n")


def empty(agent: Path) -> None:
    agent.touch()


@pytest.mark.parametrize(
    ("make", "kind", "match"),
    [
        (missing, errors.InjectionNotFoundError, "No such file"),
        (directory, errors.InjectionError, "regular file"),
        (fifo, errors.InjectionError, "regular file"),
        (another_architecture, errors.AgentError, "AArch64.*but the image's /bin/sh for x86-64"),
        (no_interpreter, errors.AgentError, f"{INTERPRETER}, which does not exist in the image"),
        (no_program, errors.AgentError, "neither an ELF program nor"),
        (empty, errors.AgentError, "neither an ELF program nor"),
    ],
)
def test_refused_before_anything_is_written(
    make: Callable[[Path], None],
    kind: type[errors.LayermeltError],
    match: str,
    way: Way,
    layer: Path,
    tmp_path: Path,
) -> None:
    agent, folder = tmp_path / "agent", tmp_path / "images"
    folder.mkdir()
    make(agent)
    image = folder / "rootfs.ext4"
    if way is mount:
        finished.by_mke2fs(layer, image)
    else:
        image.write_text("the old one")
    before = finished.names(image, "/") if way is mount else image.read_text()
    with pytest.raises(kind, match=match) as caught:
        way(layer, image, agent)
    assert str(agent) in str(caught.value)
    assert caught.value.return_code == 7
    assert os.listdir(folder) == [image.name]
    if way is mount:
        # Not even its directory was made.
        assert finished.names(image, "/") == before
        assert finished.complaints(image) == ""
    else:
        assert image.read_text() == before


def test_what_can_be_run(way: Way, layer: Path, tmp_path: Path) -> None:
    agent, image = tmp_path / "agent", tmp_path / "rootfs.ext4"
    agent.write_bytes(elf(X86_64))
    way(layer, image, agent)
    assert finished.content(image, "/sbin/vm-agent") == agent.read_bytes()
    # With its interpreter in the image, behind an absolute symlink.
    (layer / "usr/lib").mkdir(parents=True)
    (layer / "usr/lib/real.so").write_bytes(elf(X86_64))
    (layer / "usr/lib/real.so").chmod(0o755)
    (layer / "lib64").mkdir()
    (layer / INTERPRETER[1:]).symlink_to("/usr/lib/real.so")
    no_interpreter(agent)
    image.unlink()
    way(layer, image, agent)
    assert finished.content(image, "/sbin/vm-agent") == agent.read_bytes()
    assert finished.complaints(image) == ""


@pytest.mark.parametrize("make", [another_architecture, no_interpreter, no_program])
def test_unchecked(make: Callable[[Path], None], way: Way, layer: Path, tmp_path: Path) -> None:
    agent, image = tmp_path / "agent", tmp_path / "rootfs.ext4"
    make(agent)
    way(layer, image, agent, check=False)
    assert finished.content(image, "/sbin/vm-agent") == agent.read_bytes()
    assert finished.complaints(image) == ""


@pytest.mark.root
def test_the_commands(layer: Path, tmp_path: Path) -> None:
    agent, image = tmp_path / "agent", tmp_path / "rootfs.ext4"
    another_architecture(agent)
    arguments: list[str | Path] = ["build", "--layer", layer, "-o", image, "--agent", agent]
    done = product.run(product.command(*arguments, "--json"))
    assert done.returncode == 7
    assert json.loads(done.stdout)["error"]["type"] == "AgentError"
    assert not image.exists()
    assert product.run(product.command(*arguments, "--no-agent-check")).returncode == 0
    before = image.read_bytes()
    inject: list[str | Path] = ["inject", image, "--agent", f"{agent}:/opt/agent"]
    done = product.run(product.command(*inject, "--json"))
    assert done.returncode == 7
    assert json.loads(done.stdout)["error"]["type"] == "AgentError"
    assert finished.names(image, "/opt") == set()
    assert len(image.read_bytes()) == len(before)
    assert product.run(product.command(*inject, "--no-agent-check")).returncode == 0
    assert finished.content(image, "/opt/agent") == agent.read_bytes()


@pytest.mark.root
def test_unreadable(layer: Path, tmp_path: Path) -> None:
    """As a user whom the agent's mode shuts out: root without CAP_DAC_OVERRIDE."""
    agent, image = tmp_path / "agent", tmp_path / "rootfs.ext4"
    agent.write_bytes(elf(X86_64))
    agent.chmod(0)
    drop = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]
    arguments: list[str | Path] = ["build", "--layer", layer, "-o", image, "--agent", agent, "--json"]
    done = product.run([*drop, *product.command(*arguments)])
    error = json.loads(done.stdout)["error"]
    assert (done.returncode, error["type"], error["path"]) == (4, "UnreadableError", str(agent))
    assert not image.exists()
    finished.by_mke2fs(layer, image)
    done = product.run([*drop, *product.command("inject", image, "--agent", agent, "--json")])
    error = json.loads(done.stdout)["error"]
    assert (done.returncode, error["type"], error["path"]) == (4, "UnreadableError", str(agent))
    assert finished.complaints(image) == ""
