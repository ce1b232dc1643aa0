"""Fixtures of the benchmarks of parts."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

# The benchmarks import each other and the helpers of the integration tests.
sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[1] / "tests")]

from integration.real import store  # noqa: E402 (the path above comes first)

#: As many entries as a small service's image has.
FILES = 2_000


@pytest.fixture(scope="session")
def layers(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A small chain: files of some KB, deletions, a replaced directory."""
    folder = tmp_path_factory.mktemp("chain")
    maker = store.ChainMaker(folder / "docker", store.Marks("user.overlay.", devices=False))
    with maker.layer("base"):
        for number in range(FILES):
            maker.write(f"usr/{number % 50:02}/file-{number:05}", b"%d\n" % number * (number % 3000))
    with maker.layer("top"):
        maker.clear("usr/01")
        maker.remove("usr/02")
        for number in range(3, FILES, 50):
            maker.write(f"usr/03/file-{number:05}", b"above\n")
    return maker.diffs


@pytest.fixture(scope="session")
def image(layers: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The image of the small chain."""
    import layermelt

    output = tmp_path_factory.mktemp("image") / "rootfs.ext4"
    return layermelt.build_rootfs(None, output, layers=layers, userxattr=True, sync=False).path
