"""Asks e2fsprogs about an image: the one of this machine and the newest.

A clean ``e2fsck -fn`` prints its banner, five passes and one summary; any
other line is a complaint, whatever the exit code.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_CLEAN = re.compile(
    rb"""e2fsck\ \d+\.\d+.*
    | Pass\ 1:\ Checking\ inodes,\ blocks,\ and\ sizes
    | Pass\ 2:\ Checking\ directory\ structure
    | Pass\ 3:\ Checking\ directory\ connectivity
    | Pass\ 4:\ Checking\ reference\ counts
    | Pass\ 5:\ Checking\ group\ summary\ information
    | .*:\ \d+/\d+\ files\ \(\d+\.\d%\ non-contiguous\),\ \d+/\d+\ blocks
    |
    """,
    re.VERBOSE | re.DOTALL,
)
_BANNER = re.compile(rb"(dumpe2fs|debugfs) \d+\.\d+[^\n]*\n?")


@dataclass(frozen=True)
class E2fsprogs:
    """One release of e2fsprogs: how to start its programs."""

    version: str
    commands: Mapping[str, Sequence[str]]

    def run(self, tool: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        """Runs a tool; messages are in English."""
        return subprocess.run(
            [*self.commands[tool], *arguments],
            capture_output=True,
            check=False,
            env={"LC_ALL": "C", "PATH": os.environ.get("PATH", "")},
        )


def installed() -> E2fsprogs | None:
    """The e2fsprogs of this machine, if it is there."""
    path = f"{os.environ.get('PATH', '')}:/sbin:/usr/sbin"
    tools = {name: shutil.which(name, path=path) for name in TOOLS}
    if not all(tools.values()):
        return None
    commands = {name: [found] for name, found in tools.items() if found}
    return E2fsprogs(version_of(commands["e2fsck"]), commands)


#: What the tests use of e2fsprogs.
TOOLS = ("e2fsck", "dumpe2fs", "debugfs", "resize2fs")


def version_of(e2fsck: Sequence[str]) -> str:
    """What ``e2fsck -V`` says."""
    banner = subprocess.run([*e2fsck, "-V"], capture_output=True, check=True).stderr
    found = re.search(rb"e2fsck (\S+)", banner)
    if found is None:
        raise RuntimeError(f"{e2fsck} -V says {banner!r}")
    return found[1].decode()


def complaints(image: Path, tools: E2fsprogs, *, but_for: str | None = None) -> list[str]:
    """What e2fsck, dumpe2fs and debugfs have against an image; none is good.

    Lines of e2fsck that match ``but_for`` are not counted.
    """
    expected = re.compile(but_for.encode()) if but_for else None
    found = []
    checked = tools.run("e2fsck", "-fn", str(image))
    if checked.returncode != 0:
        found.append(f"e2fsck -fn exits {checked.returncode}")
    found += [
        "e2fsck: " + line.decode("utf-8", "backslashreplace")
        for line in (checked.stdout + checked.stderr).splitlines()
        if not _CLEAN.fullmatch(line) and not (expected and expected.fullmatch(line))
    ]
    for tool, arguments in (("dumpe2fs", ()), ("debugfs", ("-R", "ls -l"))):
        asked = tools.run(tool, *arguments, str(image))
        said = _BANNER.sub(b"", asked.stderr).strip()
        if asked.returncode != 0 or said or not asked.stdout.strip():
            text = said.decode("utf-8", "backslashreplace")
            found.append(f"{tool} exits {asked.returncode}: {text}")
    return [f"e2fsprogs {tools.version}: {line}" for line in found]


def own_complaints(image: Path, *, but_for: str | None = None) -> list[str]:
    """What layermelt's own check, of everything, has against an image.

    Sentences that match ``but_for`` are not counted.
    """
    import layermelt

    return [
        f"layermelt check: {problem}"
        for problem in layermelt.check_image(image, deep=True).problems
        if but_for is None or re.fullmatch(but_for, problem.text) is None
    ]


def superblock(image: Path) -> dict[str, str]:
    """What this machine's ``dumpe2fs -h`` says, by name."""
    tools = installed()
    assert tools is not None, "e2fsprogs is not installed"
    lines = tools.run("dumpe2fs", "-h", str(image)).stdout.decode().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
