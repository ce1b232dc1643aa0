"""The injector ``mount`` killed with SIGKILL at random moments: nothing of it stays.

LAYERMELT_KILLS says how often, for each maker of the loop device (default 100: 200 in all).
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from integration.real import finished

pytestmark = [pytest.mark.root, pytest.mark.slow]

KILLS = int(os.environ.get("LAYERMELT_KILLS", "100"))
#: Tells that it is about to begin, so that the moments are of the work and not of Python's start.
CALLER = """
import sys
from layermelt import _core
from layermelt.inject import find_injector
tool = find_injector("mount")
tool._loop = sys.argv[3]
print("begins", flush=True)
tool.inject(sys.argv[1], open(sys.argv[2], "rb").read(), b"/usr/sbin/vm-agent")
print("done", flush=True)
"""


def descendants(process: int) -> list[int]:
    """The processes that it started, and theirs, nearest first."""
    found = []
    for entry in Path(f"/proc/{process}/task").glob("*/children"):
        try:
            children = [int(number) for number in entry.read_text().split()]
        except OSError:
            continue
        for child in children:
            found += [child, *descendants(child)]
    return found


def await_release(folder: Path) -> None:
    """The kernel ends a killed process's namespace a moment after it."""
    end = time.monotonic() + 20
    while left := finished.processes(os.fsencode(folder)) or finished.loop_devices(folder):
        assert time.monotonic() < end, left
        time.sleep(0.002)


@pytest.mark.parametrize("loop", ["own", "program"])
def test_killed_at_random_moments(loop: str, tmp_path: Path) -> None:
    """`loop` is who makes the loop device: see `MountInjector`."""
    chance = random.Random(5)
    layer, folder = tmp_path / "layer", tmp_path / "images"
    (layer / "usr/sbin").mkdir(parents=True)
    folder.mkdir()
    image, new = folder / "rootfs.ext4", tmp_path / "new"
    finished.by_layermelt(layer, image)
    mounts = Path("/proc/self/mounts").read_text()
    temporary = {name for name in os.listdir("/tmp") if "layermelt" in name}
    # How long it takes here, to the end.
    new.write_bytes(b"")
    begin = time.monotonic()
    subprocess.run([sys.executable, "-c", CALLER, image, new, loop], check=True, stdout=subprocess.DEVNULL)
    whole = min(0.5, time.monotonic() - begin)
    there, ends = b"", {"done": 0, "killed": 0, "attached": 0}

    for number in range(KILLS):
        content = b"%d\n" % number * chance.randrange(1, 400_000)
        new.write_bytes(content)
        caller = subprocess.Popen(
            [sys.executable, "-c", CALLER, image, new, loop],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        with caller:
            assert caller.stdout is not None
            assert caller.stdout.readline() == "begins\n"
            time.sleep(chance.random() * whole * 0.6)
            victims = [caller.pid, *descendants(caller.pid)]
            ends["attached"] += bool(finished.loop_devices(folder))
            # Ourselves, the child, or what it runs.
            victim = victims[min(chance.randrange(3), len(victims) - 1)]
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
            done = "done" in caller.stdout.read()
            caller.wait(30)
        await_release(folder)
        assert finished.complaints(image) == "", f"run {number}"
        listed = finished.names(image, "/usr/sbin") - {".layermelt-injecting"}
        now = finished.content(image, "/usr/sbin/vm-agent") if listed else b""
        assert listed <= {"vm-agent"}
        assert now == content if done else now in (there, content), f"run {number}"
        there = now
        ends["done" if done else "killed"] += 1

    assert Path("/proc/self/mounts").read_text() == mounts
    assert {name for name in os.listdir("/tmp") if "layermelt" in name} == temporary
    assert os.listdir(folder) == ["rootfs.ext4"]
    # Else it was not at random moments of the work.
    assert ends["killed"] >= KILLS // 4, ends
    assert ends["attached"] >= KILLS // 10, ends
    print(f"{KILLS} kills: {ends}")


@pytest.mark.parametrize("victim", ["caller", "child"])
def test_killed_while_the_mount_program_hangs(victim: str, tmp_path: Path) -> None:
    """What would go on for a long time ends at once, and the device with it."""
    layer, folder = tmp_path / "layer", tmp_path / "images"
    layer.mkdir()
    folder.mkdir()
    image, busybox = folder / "rootfs.ext4", tmp_path / "busybox"
    finished.by_layermelt(layer, image)
    busybox.write_text("#!/bin/sh\nsleep 54321 & setsid sleep 54321\n")
    busybox.chmod(0o755)
    code = CALLER.replace('find_injector("mount")', f'find_injector("mount", busybox={str(busybox)!r})')
    caller = subprocess.Popen([sys.executable, "-c", code, image, busybox, "own"], stderr=subprocess.DEVNULL)
    with caller:
        end = time.monotonic() + 20
        while len(finished.processes(b"sleep\x0054321")) < 2:
            assert time.monotonic() < end
            time.sleep(0.01)
        assert len(finished.loop_devices(folder)) == 1
        os.kill(caller.pid if victim == "caller" else descendants(caller.pid)[0], signal.SIGKILL)
        assert caller.wait(20) != 0
    await_release(folder)
    finished.await_end(b"sleep\x0054321")
    assert finished.complaints(image) == ""
