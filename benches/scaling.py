"""How a build's time and memory grow with the number of files.

    python benches/scaling.py [--cache .cache] [--sizes 10000 100000 1000000]

Small files in two layers, the upper one replacing a tenth of the lower one's.
One tree spreads them over directories, another puts 120,000 into a single one.
The budget (DESIGN: memory no more than 64 MiB + 300 bytes an inode, cost linear)
is printed beside each row.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from datetime import datetime, timezone
from pathlib import Path

import measure

REPORT = measure.REPORTS / "scaling.md"
FILES_PER_DIRECTORY = 200
ONE_DIRECTORY = 120_000
ROUNDS = 3


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


def row(name: str, layers: list[Path], out: Path) -> str:
    """Builds, and one line of the table."""
    image = out / "scaling.ext4"
    command = [*measure.layermelt(), "build", "-o", str(image), "--json", "--quiet", "--no-sync"]
    for layer in layers:
        command += ["--layer", str(layer)]
    series = measure.Series()
    for _ in range(ROUNDS + 1):
        image.unlink(missing_ok=True)
        measure.settle()
        series.runs.append(measure.run(command, out / "log"))
    del series.runs[0]  # the warm-up
    image.unlink()
    result = json.loads((out / "log").read_text())
    inodes = result["entries"] - result["hard_links"]
    budget = 64 + 300 * inodes / 2**20
    phases = ", ".join(
        f"{phase} {seconds:.2f}" for phase, seconds in result["phases"].items() if seconds >= 0.01
    )
    return (
        f"| {name} | {inodes:,} | {series.median:.2f} | {series.median / inodes * 1e6:.1f} "
        f"| {series.peak_mib:.0f} | {budget:.0f} | {phases} |"
    )


def main() -> None:
    """Makes the trees, builds each, reports."""
    parser = argparse.ArgumentParser(description="time and memory by the number of files")
    parser.add_argument("--cache", type=Path, default=Path(".cache"))
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--no-report", action="store_true", help="print the page, do not keep it")
    arguments = parser.parse_args()
    folder = arguments.cache.resolve() / "scaling"
    folder.mkdir(parents=True, exist_ok=True)
    machine = measure.machine(folder)
    rows = []
    for files in arguments.sizes:
        layers = make_tree(folder / str(files), files, FILES_PER_DIRECTORY)
        rows.append(row(f"{files:,} files", layers, folder))
        print(rows[-1], file=sys.stderr)
    layers = make_tree(folder / "one-directory", ONE_DIRECTORY, ONE_DIRECTORY)
    rows.append(row(f"{ONE_DIRECTORY:,} files in one directory", layers, folder))
    page = "\n".join(
        [
            "# Time and memory by the number of files",
            "",
            f"Made by `make bench` (`benches/scaling.py`) on {datetime.now(timezone.utc):%Y-%m-%d}.",
            "",
            *machine,
            f"- Two layers; median of {ROUNDS} runs of `layermelt build --no-sync`, whole processes, cache warm",
            "",
            "| | inodes | seconds | µs an inode | peak RSS MiB | budget MiB | phases of the last run, s |",
            "|---|---|---|---|---|---|---|",
            *rows,
            "",
        ]
    )
    print(page)
    if not arguments.no_report:
        REPORT.parent.mkdir(exist_ok=True)
        REPORT.write_text(page)


if __name__ == "__main__":
    main()
