"""Fixtures of the benchmarks of parts."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

# The benchmarks import each other and the helpers of the integration tests.
sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[1] / "tests")]

from integration.real import store  # noqa: E402 (the path above comes first)

#: As many entries as a small service's image has.
FILES = 2_000
#: How many comparisons there are in a whole run.
GROUPS = 9


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


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """One table: each part beside its peers, with ratios of medians of this run."""
    session = getattr(config, "_benchmarksession", None)
    found = [one for one in session.benchmarks if one.group] if session is not None else []
    if not found:
        return
    groups: dict[str, list[tuple[str, float, str]]] = {}
    for one in found:
        name = one.params["who"] if one.params else one.name
        # Of what runs as a process of its own.
        peak = f"{one.extra_info['peak_mib']:,.0f}" if "peak_mib" in one.extra_info else ""
        groups.setdefault(one.group, []).append((name, one.stats.median, peak))
    lines = [
        "# Parts beside their peers",
        "",
        f"Medians of one run, page cache warm, {os.cpu_count()} processors (`pytest benches`).",
        "The ratio is that to layermelt's: above 1, we are faster.",
        "",
        "| what | who | median | ratio | peak RSS MiB |",
        "|---|---|---:|---:|---:|",
    ]
    for group, rows in groups.items():
        ours = rows[0][1]
        for name, median, peak in rows:
            lines.append(f"| {group} | {name} | {median * 1000:,.1f} ms | {median / ours:.2f} | {peak} |")
    page = "\n".join(lines) + "\n"
    terminalreporter.write("\n" + page)
    # Of a whole run only: a choice of tests is not a report.
    if len(groups) >= GROUPS and not config.getoption("keyword"):
        report = Path(__file__).resolve().parent / "reports" / "parts.md"
        report.parent.mkdir(exist_ok=True)
        report.write_text(page)
