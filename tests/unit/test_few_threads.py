"""Where the system has no threads left, as in a container with a limit of processes."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

#: Root has as many threads as it likes: the work is done as a user that nobody else is.
CHILD = """
import os, resource, sys
import layermelt
from layermelt import digests, errors

layers, output = sys.argv[1:2], sys.argv[2]

def work():
    layermelt.build_rootfs(None, output, layers=layers, threads=8, sync=False)
    digests.stat_fingerprint(None, layers=layers, threads=8)
    layermelt.check_image(output, deep=True)

work()
os.unlink(output)
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(54321)
    os.setuid(54321)
for most in range(12):
    resource.setrlimit(resource.RLIMIT_NPROC, (most, 12))
    try:
        work()
        print("done")
    except errors.LayermeltError as error:
        print(error)
"""


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A directory that any user may use."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o777)
        yield Path(name)


def test_what_cannot_be_started_is_done_by_the_others_or_said(scratch: Path) -> None:
    layer = scratch / "layer"
    layer.mkdir()
    # Several threads' share of the fingerprint.
    for number in range(2000):
        (layer / f"{number}").write_bytes(b"x")
    command = [sys.executable, "-c", CHILD, os.fspath(layer), os.fspath(scratch / "image")]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert ran.returncode == 0, ran.stderr
    lines = ran.stdout.splitlines()
    assert len(lines) == 12
    assert lines[0].startswith("cannot start a thread: Resource temporarily unavailable")
    assert all(line == "done" or line.startswith("cannot start a thread") for line in lines), lines
    if os.geteuid() == 0:
        assert lines[-1] == "done"
    assert sorted(os.listdir(scratch)) == (["image", "layer"] if "done" in lines else ["layer"])
