"""The injector ``mount`` where the mount program has to make the loop device, as before Linux 5.8.

The kernel of the tests can more; so the injector is told to leave it to the program, as it does
when LOOP_CONFIGURE is not there.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from integration.real import finished
from layermelt import errors
from layermelt.inject import mount

pytestmark = pytest.mark.root


def program(name: str) -> str:
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    assert found is not None, f"no {name}: .ci/setup test installs it"
    return found


#: A program of times when a loop device outlived its mount.
OLD_MOUNT = """#!/bin/sh
device=$(losetup --show -f "$7") && exec mount "$1" "$2" "$3" "$4" "$5" "${6#loop,}" "$device" "$8"
"""


@pytest.fixture(params=["busybox", "mount", "old"])
def injector(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> mount.MountInjector:
    """One that has only this program, and no way to make a loop device itself."""
    if request.param == "old":
        old = tmp_path / "old-mount"
        old.write_text(OLD_MOUNT)
        old.chmod(0o755)
        only = [f"mount={old}"]
    else:
        only = [f"{request.param}={program(request.param)}"]
    monkeypatch.setattr(mount.MountInjector, "_loop", "program")
    monkeypatch.setattr(mount.MountInjector, "_programs", lambda _: only)
    return mount.MountInjector()


@pytest.fixture
def image(tmp_path: Path) -> Path:
    layer = tmp_path / "layer"
    (layer / "usr/sbin").mkdir(parents=True)
    (layer / "sbin").symlink_to("usr/sbin")
    path = tmp_path / "images" / "rootfs.ext4"
    path.parent.mkdir()
    finished.by_layermelt(layer, path)
    return path


def test_the_program_makes_the_loop_device(
    injector: mount.MountInjector, image: Path, tmp_path: Path
) -> None:
    before = finished.mounts_of_all()
    for number in range(3):
        content = b"%d\n" % number * 100_000
        injector.inject(os.fspath(image), content, b"/sbin/vm-agent")
        # The device is gone when the call returns, not a moment after.
        assert finished.loop_devices(tmp_path) == []
        assert finished.content(image, "/usr/sbin/vm-agent") == content
        assert finished.names(image, "/usr/sbin") == {"vm-agent"}
        assert "Mode:  0755 " in finished.status(image, "/usr/sbin/vm-agent")
        assert finished.complaints(image) == ""
    assert {one for one in finished.mounts_of_all() - before if "layermelt" in one} == set()


def test_a_refusal_leaves_no_loop_device(injector: mount.MountInjector, image: Path, tmp_path: Path) -> None:
    with pytest.raises(errors.InjectionError):
        injector.inject(os.fspath(image), b"agent", b"/usr")
    assert finished.loop_devices(tmp_path) == []
    assert finished.names(image, "/usr/sbin") == set()
    assert finished.complaints(image) == ""
