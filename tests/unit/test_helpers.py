"""Helper programs: what ends them early is told as it is, and standard streams may be missing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from layermelt import build_rootfs, check_image, convert_layer_to_rootfs, errors, helpers
from layermelt.engines.oci2rootfs import ENVIRONMENT, Oci2RootfsEngine
from layermelt.settings import Settings


def program(directory: Path, body: str) -> str:
    """An engine's program that does what it is told."""
    path = directory / "engine"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return os.fspath(path)


def test_a_build_that_takes_too_long_says_so(
    overlay2: Path, target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = program(tmp_path, "sleep 100")
    monkeypatch.setenv(ENVIRONMENT, slow)
    with pytest.raises(errors.EngineTimeoutError, match=r"longer than 0\.3 s"):
        build_rootfs(overlay2, target, engine="oci2rootfs", timeout=0.3)
    assert os.listdir(target.parent) == []
    settings = Settings.legacy(
        cache_dir=os.fspath(tmp_path / "cache"),
        agent=slow,
        agent_check=False,
        oci2rootfs=slow,
        timeout=0.3,
    )
    with pytest.raises(errors.EngineTimeoutError, match=r"longer than 0\.3 s"):
        convert_layer_to_rootfs(overlay2, settings=settings)


def test_what_progress_raises_is_raised(overlay2: Path, target: Path, tmp_path: Path) -> None:
    """Also when it looks like a failure of the start."""

    def gone() -> None:
        raise BrokenPipeError("whoever watches has gone")

    engine = Oci2RootfsEngine(program=program(tmp_path, "sleep 100"))
    with pytest.raises(BrokenPipeError, match="has gone"):
        engine.build(os.fspath(overlay2), os.fspath(target), should_stop=gone)


def test_no_python_for_the_helper(
    overlay2: Path, target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Oci2RootfsEngine(program=program(tmp_path, "exit 0"))
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(errors.EngineSpawnError, match="watch over it cannot be started: No such file"):
        engine.build(os.fspath(overlay2), os.fspath(target))
    monkeypatch.setattr(sys, "executable", "")
    with pytest.raises(errors.EngineSpawnError, match=r"no Python program"):
        engine.build(os.fspath(overlay2), os.fspath(target))


@pytest.mark.parametrize("closed", ["<&-", ">&-", "<&- >&-", "<&- >&- 2>&-"])
def test_standard_streams_may_be_closed(closed: str, overlay2: Path, target: Path, tmp_path: Path) -> None:
    sound = tmp_path / "sound.ext4"
    build_rootfs(overlay2, sound, size="min", sync=False)
    copying = program(tmp_path, f'cp {sound} "$3"')
    code = (
        "import sys; from layermelt.engines.oci2rootfs import Oci2RootfsEngine\n"
        "Oci2RootfsEngine(program=sys.argv[1]).build(*sys.argv[2:])"
    )
    words = [sys.executable, "-c", code, copying, os.fspath(overlay2), os.fspath(target)]
    subprocess.run(["sh", "-c", f'exec "$@" {closed}', "sh", *words], check=True)
    assert check_image(target).sound


def test_a_number_above_those_of_the_standard_streams() -> None:
    low, other = os.pipe()
    os.close(other)
    assert helpers.above_standard(low) == low
    os.close(low)
    code = (
        "import os; from layermelt.helpers import above_standard; os.close(0)\n"
        "low = os.memfd_create('x'); high = above_standard(low)\n"
        "assert (low, high > 2, os.get_inheritable(high)) == (0, True, False)\n"
        "try: os.fstat(low)\nexcept OSError: print('closed')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "closed\n"
