"""Images that want a file of the host to be written: both injectors stay inside the image."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

import layermelt
from integration.real import finished
from layermelt import errors

pytestmark = pytest.mark.root

AGENT = b"#!/the/agent\n"


def plan(layer: Path, image: Path) -> None:
    """As part of a build."""
    agent = layermelt.InjectedFile("/sbin/vm-agent", content=AGENT, mode=0o755)
    layermelt.build_rootfs(
        None, image, layers=[layer], agent=agent, agent_check=False, free_space="16M", sync=False
    )


def mount(maker: Callable[[Path, Path], None]) -> Callable[[Path, Path], None]:
    """Into a finished image."""

    def put(layer: Path, image: Path) -> None:
        maker(layer, image)
        agent = layermelt.InjectedFile("/sbin/vm-agent", content=AGENT, mode=0o755)
        layermelt.inject_files(image, agent=agent, agent_check=False)

    return put


WAYS = {"plan": plan} | {f"mount-{name}": mount(maker) for name, maker in finished.MAKERS.items()}


@pytest.fixture(params=list(WAYS))
def way(request: pytest.FixtureRequest) -> Callable[[Path, Path], None]:
    return WAYS[request.param]


def seen(folder: Path) -> dict[str, tuple[int, ...]]:
    """All that a write would change."""
    found: dict[str, tuple[int, ...]] = {}
    for place, directories, files in os.walk(folder):
        for name in [".", *directories, *files]:
            there = os.lstat(os.path.join(place, name))
            found[os.path.join(place, name)] = (there.st_ino, there.st_mode, there.st_size, there.st_ctime_ns)
    return found


def no_links(sbin: Path, host: Path) -> str:
    sbin.mkdir()
    return "/sbin/vm-agent"


def absolute(sbin: Path, host: Path) -> str:
    sbin.symlink_to(host)
    return f"{host}/vm-agent"


def upwards(sbin: Path, host: Path) -> str:
    sbin.symlink_to("../../..")
    return "/vm-agent"


def upwards_to_the_host(sbin: Path, host: Path) -> str:
    sbin.symlink_to("../" * 30 + str(host)[1:])
    return f"{host}/vm-agent"


def through_proc(sbin: Path, host: Path) -> str:
    sbin.symlink_to("/proc/self/root/there")
    return "/proc/self/root/there/vm-agent"


def in_two_steps(sbin: Path, host: Path) -> str:
    (sbin.parent / "step").symlink_to(host)
    sbin.symlink_to("step/..")
    return f"{host.parent}/vm-agent"


def the_file_itself(sbin: Path, host: Path) -> str:
    sbin.mkdir()
    (sbin / "vm-agent").symlink_to(host / "vm-agent")
    return "/sbin/vm-agent"


def the_file_itself_upwards(sbin: Path, host: Path) -> str:
    sbin.mkdir()
    (sbin / "vm-agent").symlink_to("../" * 30 + str(host)[1:] + "/vm-agent")
    return "/sbin/vm-agent"


def dangling(sbin: Path, host: Path) -> str:
    sbin.mkdir()
    (sbin / "vm-agent").symlink_to(host / "not-there")
    return "/sbin/vm-agent"


def fifo(sbin: Path, host: Path) -> str:
    sbin.mkdir()
    os.mkfifo(sbin / "vm-agent")
    return "/sbin/vm-agent"


def device(sbin: Path, host: Path) -> str:
    sbin.mkdir()
    # The host's /dev/full: writing to it fails.
    os.mknod(sbin / "vm-agent", stat.S_IFCHR | 0o666, os.makedev(1, 7))
    return "/sbin/vm-agent"


def hard_link(sbin: Path, host: Path) -> str:
    sbin.mkdir()
    (sbin / "vm-agent").write_text("one of two")
    os.link(sbin / "vm-agent", sbin / "other")
    return "/sbin/vm-agent"


@pytest.mark.parametrize(
    "layout",
    [
        no_links,
        absolute,
        upwards,
        upwards_to_the_host,
        through_proc,
        in_two_steps,
        the_file_itself,
        the_file_itself_upwards,
        dangling,
        fifo,
        device,
        hard_link,
    ],
)
def test_the_file_is_in_the_image(
    layout: Callable[[Path, Path], str], way: Callable[[Path, Path], None], tmp_path: Path
) -> None:
    host = tmp_path / "host"
    host.mkdir()
    (host / "vm-agent").write_text("the host's own")
    layer = tmp_path / "layer"
    (layer / "etc").mkdir(parents=True)
    expected = layout(layer / "sbin", host)
    image = tmp_path / "rootfs.ext4"
    before, root = seen(host), sorted(os.listdir("/"))
    way(layer, image)
    assert seen(host) == before
    assert sorted(os.listdir("/")) == root
    assert finished.content(image, expected) == AGENT
    assert "Mode:  0755 " in finished.status(image, expected)
    if layout is hard_link:
        assert finished.content(image, "/sbin/other") == b"one of two"
    assert finished.complaints(image) == ""


def looped(sbin: Path, host: Path) -> None:
    sbin.symlink_to("sbin")


def a_file(sbin: Path, host: Path) -> None:
    sbin.write_text("no directory")


def a_directory(sbin: Path, host: Path) -> None:
    (sbin / "vm-agent").mkdir(parents=True)


@pytest.mark.parametrize("layout", [looped, a_file, a_directory])
def test_where_there_is_no_place(
    layout: Callable[[Path, Path], None], way: Callable[[Path, Path], None], tmp_path: Path
) -> None:
    layer = tmp_path / "layer"
    layer.mkdir()
    layout(layer / "sbin", tmp_path)
    image = tmp_path / "rootfs.ext4"
    with pytest.raises(errors.InjectionError, match="sbin"):
        way(layer, image)
    if way is plan:
        assert not image.exists()
    else:
        assert finished.complaints(image) == ""
