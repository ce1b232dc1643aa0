"""What parts of the public face cost; DESIGN section 5 has the budgets.

make bench       or       python -m pytest benches
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import measure
import pytest
from pytest_benchmark.fixture import BenchmarkFixture  # noqa: TC002 (pytest reads the annotations)

import layermelt
from layermelt import digests
from layermelt.cloning import clone_image
from layermelt.engines import find_engine

THREADS = os.cpu_count() or 1
PEERS = Path(__file__).resolve().parents[1] / ".cache/peers/bin"
#: Bytes of the file that is hashed and cloned.
LARGE = 512 << 20


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


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A large file without holes, in memory."""
    path = tmp_path_factory.mktemp("large") / "large"
    with path.open("wb") as file:
        for _ in range(LARGE >> 20):
            file.write(os.urandom(1 << 20))
    return path


@pytest.fixture(scope="module")
def sparse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file as an image is: a third of it data, in pieces."""
    path = tmp_path_factory.mktemp("sparse") / "sparse"
    with path.open("wb") as file:
        file.truncate(LARGE)
        for start in range(0, LARGE - (1 << 20), 3 << 20):
            file.seek(start)
            file.write(os.urandom(1 << 20))
    return path


def peer(name: str) -> str:
    """A program of others, built by benches/peers/install.sh."""
    program = PEERS / name
    if not os.access(program, os.X_OK):
        pytest.skip(f"no {name}: benches/peers/install.sh .cache/peers gets it")
    return os.fspath(program)


def rounds(
    benchmark: BenchmarkFixture,
    work: Callable[[], object],
    count: int,
    setup: Callable[[], object] | None = None,
) -> None:
    """Measures so many rounds after one that warms up, each after `setup`."""
    benchmark.pedantic(work, setup=setup, rounds=count, warmup_rounds=1)  # type: ignore[no-untyped-call]


def quietly(*command: str | Path) -> None:
    """Runs a program to its end."""
    subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL)


@pytest.mark.benchmark(group="hash one file of 512 MiB")
@pytest.mark.parametrize("who", ["layermelt", "b3sum", "sha256sum"])
def test_hash_of_a_large_file(benchmark: BenchmarkFixture, large: Path, who: str) -> None:
    if who == "layermelt":
        rounds(benchmark, lambda: digests.file_digest(large, threads=THREADS), 5)
    else:
        options = ["--num-threads", str(THREADS)] if who == "b3sum" else []
        program = peer(who) if who == "b3sum" else who
        rounds(benchmark, lambda: quietly(program, *options, large), 5)


@pytest.mark.benchmark(group="hash 2,000 small files")
@pytest.mark.parametrize("who", ["layermelt", "b3sum", "sha256sum"])
def test_hash_of_small_files(benchmark: BenchmarkFixture, layers: list[Path], who: str) -> None:
    base = layers[0]
    if who == "layermelt":
        rounds(benchmark, lambda: digests.layer_digest(base, threads=THREADS), 9)
    else:
        options = ["--num-threads", str(THREADS)] if who == "b3sum" else []
        program = peer(who) if who == "b3sum" else who
        files = [path for path in base.rglob("*") if path.is_file()]
        rounds(benchmark, lambda: quietly(program, *options, *files), 9)


@pytest.mark.benchmark(group="clone a file of 512 MiB, a third of it data")
@pytest.mark.parametrize("who", ["layermelt", "cp --sparse=always --reflink=auto"])
def test_clone_of_a_sparse_file(benchmark: BenchmarkFixture, sparse: Path, tmp_path: Path, who: str) -> None:
    clone(benchmark, sparse, tmp_path / "clone", who)


@pytest.mark.benchmark(group="clone a file of 512 MiB of data")
@pytest.mark.parametrize("who", ["layermelt", "cp --sparse=always --reflink=auto"])
def test_clone_of_a_full_file(benchmark: BenchmarkFixture, large: Path, tmp_path: Path, who: str) -> None:
    clone(benchmark, large, tmp_path / "clone", who)


def clone(benchmark: BenchmarkFixture, source: Path, target: Path, who: str) -> None:
    def clean() -> None:
        target.unlink(missing_ok=True)
        os.sync()

    def work() -> object:
        if who == "layermelt":
            return clone_image(source, target, sync=False)
        quietly(*who.split(), source, target)
        return None

    rounds(benchmark, work, 9, clean)
    assert target.stat().st_size == source.stat().st_size


@pytest.mark.benchmark(group="convert a small chain")
@pytest.mark.parametrize("who", ["native", "oci2rootfs"])
def test_conversion_by_each_engine(
    benchmark: BenchmarkFixture, layers: list[Path], tmp_path: Path, who: str
) -> None:
    engine = find_engine(who, oci2rootfs=peer(who) if who == "oci2rootfs" else None)
    image = tmp_path / "rootfs.ext4"
    top = os.fspath(layers[-1].parent)

    def clean() -> None:
        image.unlink(missing_ok=True)

    rounds(benchmark, lambda: engine.build(top, os.fspath(image)), 9, clean)
    assert layermelt.has_ext4_magic(image)


@pytest.mark.benchmark(group="put an agent into a finished image")
def test_injection_by_a_mount(benchmark: BenchmarkFixture, image: Path, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: mounts the image")
    copy = tmp_path / "copy.ext4"
    shutil.copy2(image, copy)
    agent = layermelt.InjectedFile("/sbin/vm-agent", content=bytes(1 << 20), mode=0o755)
    benchmark(layermelt.inject_files, copy, agent=agent, agent_check=False)
