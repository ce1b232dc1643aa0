"""One real image, built by us and by the peers, side by side.

    make bench        or        python benches/compare.py --cache .cache

Every contestant starts from the same chain on disk (benches/chain.py) and ends
with one ext4 file on the same file system. `layermelt` and oci2rootfs read the
layers; `mke2fs -d` and mkext4's `mkfs` read the kernel's overlay mount of them,
which needs root and is made before the clock starts. Runs are interleaved, the
page cache is warm, dirty pages are flushed before each run. Afterwards each
image is judged: by `e2fsck -fn` and, entry by entry, against the kernel's mount.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

import chain
import measure

from integration.oracle import compare as oracle_compare
from integration.oracle import dump, mounts

REPORT = measure.REPORTS / "compare.md"


@dataclass
class Contestant:
    """One way to the image."""

    name: str
    command: list[str]
    #: What it waits for before it ends.
    fsync: str
    image: Path
    environment: dict[str, str] = field(default_factory=dict)
    series: measure.Series = field(default_factory=measure.Series)
    fsck: str = ""
    tree: str = "not compared"
    allocated: int = 0
    length: int = 0
    failure: str = ""


def contestants(made: chain.Made, mount: Path | None, peers: Path, out: Path) -> list[Contestant]:
    """All that can run here; what cannot is said on stderr."""
    # The peers must be told a size. Ours says what the chain needs; a quarter
    # more is room for any of them.
    need = sum(made.manifest["layer_bytes"]) * 5 // 4
    size = (need + 2**20 - 1) >> 20 << 20
    ours = [*measure.layermelt(), "build", str(made.top), "--quiet"]
    if made.manifest["userxattr"]:
        ours.append("--userxattr")
    found = [
        Contestant("layermelt", ours, "yes", out / "layermelt.ext4"),
        Contestant("layermelt --no-sync", [*ours, "--no-sync"], "no", out / "layermelt-no-sync.ext4"),
    ]
    for one in found:
        one.command += ["-o", str(one.image)]
    mke2fs = measure.program("mke2fs")
    if mount is not None and mke2fs is not None:
        image = out / "mke2fs.ext4"
        arguments = ["-q", "-F", "-t", "ext4", "-b", "4096", "-d", str(mount), str(image)]
        found.append(Contestant("mke2fs -d", [mke2fs, *arguments, f"{size >> 10}k"], "yes", image))
    oci2rootfs = peers / "bin" / "oci2rootfs"
    if oci2rootfs.exists():
        image = out / "oci2rootfs.ext4"
        command = [str(oci2rootfs), str(made.top), "-o", str(image), "--size", str(size)]
        found.append(Contestant("oci2rootfs 0.3.0", command, "no", image, {"RUST_LOG": "warn"}))
    mkext4 = peers / "bin" / "mkfs"
    if mount is not None and mkext4.exists():
        image = out / "mkext4.ext4"
        command = [str(mkext4), str(mount), str(image), str(size)]
        found.append(Contestant("mkext4 0.0.3 mkfs", command, "no", image))
    return found


def race(entrants: list[Contestant], rounds: int, out: Path) -> None:
    """A warm-up and then `rounds` rounds; in each, everybody once."""
    for number in range(rounds + 1):
        for one in entrants:
            if one.failure:
                continue
            one.image.unlink(missing_ok=True)
            measure.settle()
            try:
                run = measure.run(one.command, out / "log", one.environment)
            except measure.ProgramFailedError as error:
                one.failure = str(error)
                print(error, file=sys.stderr)
                continue
            if number > 0:
                one.series.runs.append(run)
            word = "warm-up" if number == 0 else f"round {number}"
            print(f"{word}: {one.name}: {run.seconds:.2f} s", file=sys.stderr)


def judge(one: Contestant, expected: dump.Tree | None) -> None:
    """Says whether the image is a sound ext4 and has the kernel's tree."""
    info = one.image.stat()
    one.length, one.allocated = info.st_size, info.st_blocks * 512
    e2fsck = measure.program("e2fsck")
    if e2fsck is None:
        one.fsck = "no e2fsck"
    else:
        done = subprocess.run([e2fsck, "-fn", str(one.image)], capture_output=True, text=True, check=False)
        # The headings of the passes and the closing summary are no complaint.
        complaints = [
            line
            for line in done.stdout.splitlines()
            if line and not line.startswith("Pass ") and " files (" not in line
        ]
        if done.returncode == 0 and not complaints:
            one.fsck = "clean"
        else:
            one.fsck = f"exit {done.returncode}, {len(complaints)} complaints"
    if expected is not None:
        try:
            with mounts.image(one.image) as root:
                found = oracle_compare.differences(expected, dump.dump(root))
            one.tree = "equal" if not found else f"{len(found)} difference{'s' if len(found) > 1 else ''}"
            for line in found[:5]:
                print(f"{one.name}: {line}", file=sys.stderr)
        except (OSError, AssertionError) as error:
            one.tree = f"{error}"


@contextlib.contextmanager
def merged(made: chain.Made) -> Iterator[Path | None]:
    """The kernel's mount of the chain where we may mount."""
    if os.geteuid() != 0:
        print("not root: no overlay mount, so no mke2fs -d and no mkext4", file=sys.stderr)
        yield None
        return
    with mounts.overlay(made.diffs, userxattr=bool(made.manifest["userxattr"])) as mount:
        yield mount


def report(entrants: list[Contestant], made: chain.Made, rounds: int, machine: list[str]) -> str:
    """The page that goes into benches/reports."""
    manifest = made.manifest
    layer_bytes = sum(manifest["layer_bytes"])
    lines = [
        "# One real image, side by side",
        "",
        f"Made by `make bench` (`benches/compare.py`) on {datetime.now(timezone.utc):%Y-%m-%d}.",
        "",
        *machine,
        (
            f"- Input: {len(manifest['layers'])} layers of Debian packages, {layer_bytes / 1e9:.2f} GB, "
            f"{manifest['entries']:,} entries after the merge (`benches/chain.lock.json`"
            f"{', with drift' if manifest['drift'] else ''})"
        ),
        (
            f"- Median of {rounds} interleaved runs after a warm-up, whole processes, page cache warm, "
            "dirty pages flushed before each run"
        ),
        (
            "- On a virtual machine that gives free memory back to its host (free page reporting) the first touch of "
            "a page may wait for the host: what writes little else than pages swings most"
        ),
        "- The overlay mount that `mke2fs` and mkext4 read is made before the clock starts",
        "- fsync: whether the program waits until the disk has the image before it ends",
        (
            "- tree: the image mounted by the kernel, compared entry by entry with the kernel's overlay "
            "mount (type, mode, owner, time in ns, size, content, link target, xattrs, hard links)"
        ),
        "",
        "| | fsync | seconds | fastest, slowest | peak RSS MiB | e2fsck -fn | tree | image, MB on disk |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in entrants:
        if one.failure:
            lines.append(f"| {one.name} | {one.fsync} | failed | | | | | |")
            continue
        lines.append(
            f"| {one.name} | {one.fsync} | {one.series.median:.2f} | {one.series.spread} "
            f"| {one.series.peak_mib:.0f} | {one.fsck} | {one.tree} "
            f"| {one.length / 1e6:.0f}, {one.allocated / 1e6:.0f} |"
        )
    lines += ["", "Ratios of the medians, like with like:", ""]
    by_name = {one.name: one for one in entrants if not one.failure}
    for ours, peer in (
        ("layermelt", "mke2fs -d"),
        ("layermelt --no-sync", "oci2rootfs 0.3.0"),
        ("layermelt --no-sync", "mkext4 0.0.3 mkfs"),
    ):
        if ours in by_name and peer in by_name:
            ratio = by_name[peer].series.median / by_name[ours].series.median
            lines.append(f"- {ours}: {ratio:.2f} times as fast as {peer}")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Races, judges, reports."""
    parser = argparse.ArgumentParser(description="race layermelt against its peers")
    parser.add_argument("--cache", type=Path, default=Path(".cache"))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--no-report", action="store_true", help="print the page, do not keep it")
    arguments = parser.parse_args()
    cache: Path = arguments.cache.resolve()
    made = chain.make(cache / "bench")
    out = cache / "bench" / "out"
    out.mkdir(exist_ok=True)
    machine = measure.machine(out)
    try:
        with merged(made) as mount:
            entrants = contestants(made, mount, cache / "peers", out)
            race(entrants, arguments.rounds, out)
            expected = dump.dump(mount) if mount is not None else None
            for one in entrants:
                if not one.failure:
                    judge(one, expected)
        page = report(entrants, made, arguments.rounds, machine)
    finally:
        for image in out.glob("*.ext4"):
            image.unlink()
    print(page)
    if not arguments.no_report:
        REPORT.parent.mkdir(exist_ok=True)
        REPORT.write_text(page)
        series = {one.name: [vars(run) for run in one.series.runs] for one in entrants if not one.failure}
        REPORT.with_suffix(".json").write_text(json.dumps(series, indent=1) + "\n")
    if any(one.failure for one in entrants):
        sys.exit(1)


if __name__ == "__main__":
    main()
