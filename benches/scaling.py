"""How a build's time and memory grow with the number of files.

    python benches/scaling.py [--cache .cache] [--sizes 10000 100000 1000000]

Small files in two layers, the upper one replacing a tenth of the lower one's.
Two trees of 120,000 files are there for large directories: in 1,200 of them and
in one. The budgets: time is linear within 20 %, one directory costs no more than
1.2 times the many, memory no more than 64 MiB + 300 bytes an inode.

Images are written to memory (tmpfs), for a disk would be measured beside the
program: the kernel lets a writer run freely until a part of the memory is dirty,
and from there on at the disk's speed, so that large images look dearer by the
byte whatever writes them. What the same build takes to a disk, and what `cp` takes
to put the finished image there, is in columns of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

import measure

REPORT = measure.REPORTS / "scaling.md"
MEMORY = Path("/dev/shm")
FILES_PER_DIRECTORY = 200
#: Files of the trees for large directories, and how many directories the spread one has.
MANY = 120_000
SPREAD = 1_200
NOTES = """\
- Two layers; medians of whole runs of `layermelt build --no-sync`, cache warm, images to memory (tmpfs)
- An inode's cost is what is beyond a build of nothing (the interpreter's start)
- To a disk: the same build with the image there, and `cp` of the finished image to there; from some GiB on
  the kernel makes a writer wait for the disk"""
COLUMNS = (
    "| | inodes | s | µs an inode | peak RSS MiB | budget MiB | to disk s | cp to disk s "
    "| phases of the last run, s |"
)
#: What "linear" and "one directory costs no more" mean.
LIMIT = 1.2


@dataclass
class Tree:
    """Two layers, and what their builds cost."""

    name: str
    layers: list[Path]
    rounds: int
    memory: measure.Series = field(default_factory=measure.Series)
    disk: measure.Series = field(default_factory=measure.Series)
    copy: measure.Series = field(default_factory=measure.Series)
    result: dict[str, object] = field(default_factory=dict)

    @property
    def inodes(self) -> int:
        """Inodes of the image."""
        entries, links = self.result["entries"], self.result["hard_links"]
        assert isinstance(entries, int)
        assert isinstance(links, int)
        return entries - links

    def cost(self, empty: Tree) -> float:
        """Microseconds an inode, beyond what a build of nothing takes."""
        return (self.memory.median - empty.memory.median) / self.inodes * 1e6


def make_tree(folder: Path, files: int, per_directory: int) -> list[Path]:
    """The two layers, made once and kept."""
    layers = [folder / "base", folder / "top"]
    stamp = folder / "made.json"
    recipe = {"files": files, "per_directory": per_directory, "version": 2}
    if stamp.exists() and json.loads(stamp.read_text()) == recipe:
        return layers
    shutil.rmtree(folder, ignore_errors=True)
    print(f"making {files:,} files", file=sys.stderr)
    for layer, step in zip(layers, (1, 10), strict=True):
        layer.mkdir(parents=True)
        for first in range(0, files, per_directory):
            directory = first // per_directory
            base = layer / f"{directory // 100:03}" / f"{directory:05}"
            base.mkdir(parents=True)
            for number in range(first, min(first + per_directory, files), step):
                # Between nothing and some blocks: as source trees are.
                size = (number * 2654435761 % 97) ** 2 % 6000
                with open(os.path.join(base, f"file-{number:07}"), "wb", buffering=0) as file:
                    file.write(b"%07d" % number * (size // 7))
    stamp.write_text(json.dumps(recipe))
    return layers


def build(tree: Tree, image: Path, log: Path) -> measure.Run:
    """One build; the image is there afterwards."""
    command = [*measure.layermelt(), "build", "-o", str(image), "--json", "--quiet", "--no-sync"]
    for layer in tree.layers:
        command += ["--layer", str(layer)]
    image.unlink(missing_ok=True)
    measure.settle()
    done = measure.run(command, log)
    tree.result = json.loads(log.read_text())
    return done


def measure_all(trees: list[Tree], memory: Path, disk: Path) -> None:
    """A warm-up of each, then rounds of all, so that what else the machine does meets all."""
    quick, slow, log = memory / "scaling.ext4", disk / "scaling.ext4", disk / "log"
    for tree in trees:
        build(tree, quick, log)
    for number in range(max(tree.rounds for tree in trees)):
        for tree in trees:
            if number >= tree.rounds:
                continue
            tree.disk.runs.append(build(tree, slow, log))
            slow.unlink()
            tree.memory.runs.append(build(tree, quick, log))
            copy = ["/bin/cp", "--sparse=always", str(quick), str(slow)]
            tree.copy.runs.append(measure.run(copy, disk / "log.cp"))
            slow.unlink()
            quick.unlink()


def row(tree: Tree, empty: Tree) -> str:
    """One line of the table."""
    phases = tree.result["phases"]
    assert isinstance(phases, dict)
    shown = ", ".join(f"{phase} {s:.2f}" for phase, s in phases.items() if s >= 0.01)
    cost = "" if tree is empty else f"{tree.cost(empty):.2f}"
    return (
        f"| {tree.name} | {tree.inodes:,} | {tree.memory.median:.2f} | {cost} "
        f"| {tree.memory.peak_mib:.0f} | {64 + 300 * tree.inodes / 2**20:.0f} "
        f"| {tree.disk.median:.2f} | {tree.copy.median:.2f} | {shown} |"
    )


def verdicts(empty: Tree, sizes: list[Tree], spread: Tree, single: Tree) -> list[str]:
    """What is said of the budgets, each with its numbers."""
    costs = [tree.cost(empty) for tree in sizes]
    linear = max(costs) / min(costs)
    wide = (single.memory.median - empty.memory.median) / (spread.memory.median - empty.memory.median)
    over = [
        tree.name
        for tree in [*sizes, spread, single]
        if tree.memory.peak_mib > 64 + 300 * tree.inodes / 2**20
    ]
    return [
        f"- An inode's cost, the dearest size by the cheapest: {linear:.2f} ({_kept(linear)} {LIMIT})",
        f"- {MANY:,} files in one directory by the same in {SPREAD:,}: {wide:.2f} ({_kept(wide)} {LIMIT})",
        f"- Peak memory over the budget: {', '.join(over) or 'none'}",
    ]


def _kept(ratio: float) -> str:
    return "within" if ratio <= LIMIT else "OVER"


def main() -> None:
    """Makes the trees, builds each, reports."""
    parser = argparse.ArgumentParser(description="time and memory by the number of files")
    parser.add_argument("--cache", type=Path, default=Path(".cache"))
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--no-report", action="store_true", help="print the page, do not keep it")
    arguments = parser.parse_args()
    folder = arguments.cache.resolve() / "scaling"
    folder.mkdir(parents=True, exist_ok=True)
    nothing = folder / "nothing"
    nothing.mkdir(exist_ok=True)
    machine = measure.machine(folder)
    empty = Tree("nothing", [nothing], 9)
    sizes = [
        Tree(
            f"{files:,} files",
            make_tree(folder / str(files), files, FILES_PER_DIRECTORY),
            max(5, min(9, 1_000_000 // files)),
        )
        for files in arguments.sizes
    ]
    spread = Tree(
        f"{MANY:,} files in {SPREAD:,} directories",
        make_tree(folder / "spread", MANY, MANY // SPREAD),
        7,
    )
    single = Tree(f"{MANY:,} files in one directory", make_tree(folder / "one-directory", MANY, MANY), 7)
    trees = [empty, *sizes, spread, single]
    with tempfile.TemporaryDirectory(dir=MEMORY) as memory:
        measure_all(trees, Path(memory), folder)
    page = "\n".join(
        [
            "# Time and memory by the number of files",
            "",
            f"Made by `make bench` (`benches/scaling.py`) on {datetime.now(timezone.utc):%Y-%m-%d}.",
            "",
            *machine,
            NOTES,
            "",
            COLUMNS,
            "|---|---|---|---|---|---|---|---|---|",
            *(row(tree, empty) for tree in trees),
            "",
            *verdicts(empty, sizes, spread, single),
            "",
        ]
    )
    print(page)
    if not arguments.no_report:
        REPORT.parent.mkdir(exist_ok=True)
        REPORT.write_text(page)


if __name__ == "__main__":
    main()
