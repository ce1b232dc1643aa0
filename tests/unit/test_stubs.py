"""The types of the extension module are those it has."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_stub_is_the_module(tmp_path: Path) -> None:
    command = [
        *(sys.executable, "-m", "mypy.stubtest", "layermelt._core"),
        *("--mypy-config-file", str(ROOT / "pyproject.toml")),
    ]
    environment = {**os.environ, "MYPY_CACHE_DIR": os.fspath(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_package_is_typed() -> None:
    assert (ROOT / "python/layermelt/py.typed").is_file()
