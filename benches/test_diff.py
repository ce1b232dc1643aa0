"""Comparing and checking beside the programs that people take for it, as whole processes.

make bench       or       python -m pytest benches

layermelt reads chains and images as they lie; for the others they are mounted, which is not
measured. Every program finds both sides equal, so that all has to be read. GNU diff compares
names and bytes alone; rsync owners, modes, times and attributes as well.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import measure
import pytest
from pytest_benchmark.fixture import BenchmarkFixture  # noqa: TC002 (pytest reads the annotations)

import layermelt
from integration.oracle import kernel, mounts
from integration.real import store

#: Files of a base image, some KB each, and one that is large.
FILES = 20_000
LARGE = 256 << 20
PROGRAMS = {
    "layermelt": [*measure.layermelt(), "diff", "--quiet"],
    "diff -r": ["diff", "--recursive", "--no-dereference", "--exclude=lost+found"],
    "rsync -nac -X": ["rsync", "-nac", "--delete", "-X", "--exclude=/lost+found"],
}
ROUNDS = 5


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two layers, base first."""
    content = random.Random(3).randbytes(1 << 20)
    maker = store.ChainMaker(
        tmp_path_factory.mktemp("chain") / "docker", store.Marks("user.overlay.", devices=False)
    )
    with maker.layer("base"):
        for number in range(FILES):
            start = number * 37 % (1 << 19)
            size = number * number % 20_000
            maker.write(f"usr/{number % 200:03}/file-{number:05}", content[start : start + size])
        maker.write("usr/large", content * (LARGE >> 20))
    with maker.layer("top"):
        for number in range(0, FILES, 20):
            maker.write(f"usr/{number % 200:03}/file-{number:05}", content[: number % 3000])
        maker.remove("usr/001")
    return maker.diffs


@pytest.fixture(scope="module")
def images(chain: list[Path], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two images of the chain, with free space between their files or without."""
    folder = tmp_path_factory.mktemp("images")
    built = []
    for size in ("auto", "min"):
        result = layermelt.build_rootfs(
            None, folder / size, layers=chain, userxattr=True, sync=False, size=size
        )
        built.append(result.path)
    return built


@pytest.fixture(scope="module")
def mounted(chain: list[Path], images: list[Path]) -> Iterator[dict[str, Path]]:
    """What the kernel shows of the chain and of both images."""
    if os.geteuid() != 0:
        pytest.skip("needs root: mounts chain and images")
    kernel.enter_private_mount_namespace()
    with ExitStack() as stack:
        yield {
            "chain": stack.enter_context(mounts.overlay(chain, userxattr=True)),
            "image": stack.enter_context(mounts.image(images[0])),
            "other": stack.enter_context(mounts.image(images[1])),
        }


#: A process's peak includes what it was before exec; so that of a large pytest would count.
LAUNCHER = """
import os, sys
pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ,
                     file_actions=[(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)])
_, status, usage = os.wait4(pid, 0)
print(usage.ru_maxrss)
sys.exit(os.waitstatus_to_exitcode(status))
"""


def peak_mib(command: list[str]) -> float:
    """The largest resident set, at least the 8 MiB or so of a Python that starts it."""
    launcher = [sys.executable, "-I", "-S", "-c", LAUNCHER]
    done = subprocess.run([*launcher, *command], capture_output=True, text=True, check=True)
    return int(done.stdout) / 2**10


def measured(benchmark: BenchmarkFixture, command: list[str]) -> None:
    """Runs whole processes, which have to say that both sides are equal."""
    program = measure.program(command[0]) if "/" not in command[0] else command[0]
    if program is None:
        pytest.skip(f"no {command[0]} (.ci/setup bench gets it)")
    whole = [program, *command[1:]]
    benchmark.extra_info["peak_mib"] = peak_mib(whole)
    benchmark.pedantic(
        subprocess.run, (whole,), {"check": True, "capture_output": True}, rounds=ROUNDS, warmup_rounds=1
    )  # type: ignore[no-untyped-call]


def as_directory(path: Path) -> str:
    """As rsync wants it, and GNU diff takes it: what is in it."""
    return f"{path}/"


@pytest.mark.benchmark(group="compare an image with another of 20,000 files, 0.5 GB")
@pytest.mark.parametrize("who", PROGRAMS)
def test_image_and_image(
    benchmark: BenchmarkFixture, images: list[Path], mounted: dict[str, Path], who: str
) -> None:
    sides = [os.fspath(image) for image in images]
    if who != "layermelt":
        sides = [as_directory(mounted["image"]), as_directory(mounted["other"])]
    measured(benchmark, [*PROGRAMS[who], *sides])


@pytest.mark.benchmark(group="compare a chain with its image of 20,000 files, 0.5 GB")
@pytest.mark.parametrize("who", PROGRAMS)
def test_chain_and_image(
    benchmark: BenchmarkFixture,
    chain: list[Path],
    images: list[Path],
    mounted: dict[str, Path],
    who: str,
) -> None:
    if who == "layermelt":
        sides = ["--userxattr", os.fspath(chain[-1].parent), os.fspath(images[0])]
    else:
        sides = [as_directory(mounted["chain"]), as_directory(mounted["image"])]
    measured(benchmark, [*PROGRAMS[who], *sides])


@pytest.mark.benchmark(group="check an image of 20,000 files, 0.5 GB, to the last block")
@pytest.mark.parametrize("who", ["layermelt check --deep", "e2fsck -fn"])
def test_deep_check(benchmark: BenchmarkFixture, images: list[Path], who: str) -> None:
    ours = [*measure.layermelt(), "check", "--deep"]
    command = ours if who.startswith("layermelt") else who.split()
    measured(benchmark, [*command, os.fspath(images[0])])
