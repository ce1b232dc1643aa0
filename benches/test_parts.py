"""What parts of the public face cost; DESIGN section 5 has the budgets.

make bench       or       python -m pytest benches
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import measure
import pytest
from pytest_benchmark.fixture import BenchmarkFixture  # noqa: TC002 (pytest reads the annotations)

import layermelt


def test_has_ext4_magic(benchmark: BenchmarkFixture, image: Path) -> None:
    assert benchmark(layermelt.has_ext4_magic, image) is True


def test_has_ext4_magic_of_a_missing_file(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    assert benchmark(layermelt.has_ext4_magic, tmp_path / "none") is False


def test_check_image(benchmark: BenchmarkFixture, image: Path) -> None:
    assert benchmark(layermelt.check_image, image).problems == ()


@pytest.mark.parametrize("threads", [1, 2])
def test_build_of_a_small_chain(
    benchmark: BenchmarkFixture, layers: list[Path], tmp_path: Path, threads: int
) -> None:
    output = tmp_path / "rootfs.ext4"

    def build() -> layermelt.BuildResult:
        return layermelt.build_rootfs(
            None, output, layers=layers, userxattr=True, threads=threads, sync=False
        )

    assert benchmark(build).entries > 1000


def test_inspect_of_a_small_chain(benchmark: BenchmarkFixture, layers: list[Path]) -> None:
    result = benchmark(layermelt.inspect_source, None, layers=layers, userxattr=True)
    assert result.entries > 1000


def test_start_of_the_command(benchmark: BenchmarkFixture) -> None:
    command = [*measure.layermelt(), "--version"]
    benchmark(subprocess.run, command, check=True, capture_output=True)


def test_import(benchmark: BenchmarkFixture) -> None:
    command = [sys.executable, "-c", "import layermelt"]
    benchmark(subprocess.run, command, check=True)
