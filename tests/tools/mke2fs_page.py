#!/usr/bin/env python3
"""Keeps docs/mke2fs.md: what dumpe2fs says of our images and of mke2fs's, side by side.

    python tests/tools/mke2fs_page.py [--write]

makes both images of each pair anew and says what the page has wrong: a difference that it
does not explain, an explanation of what is no difference, a table that is not what the
programs print. With --write the tables are put into the page; the reasons are written by hand.
"""

from __future__ import annotations

import fnmatch
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "mke2fs.md"
#: Debian 12's /etc/mke2fs.conf, so that the machine's own does not matter.
CONFIG = Path(__file__).resolve().with_name("mke2fs-debian12.conf")

#: How a cell tells that the value is another one for another tree, or in another run.
BY_TREE = "*by the tree*"
BY_RUN = "*by the run*"
ABSENT = "*not shown*"

#: So many ranges of groups are shown one by one.
LONGEST = 8
#: Groups whose places are shown: the first, one with a backup, the first of the second flex group.
SHOWN_GROUPS = (0, 1, 16)


class MissingError(RuntimeError):
    """A program of e2fsprogs is not on this machine."""


@dataclass(frozen=True)
class Pair:
    """Two images of one size, of an empty tree.

    Attributes:
        name: What the page calls it.
        size: Of both, as ``--size`` takes it.
        ours: Further arguments of ``layermelt build``.
        theirs: Further arguments of ``mke2fs -t ext4``.
    """

    name: str
    size: str
    ours: tuple[str, ...] = ()
    theirs: tuple[str, ...] = ()


PAIRS = (
    Pair("default", "256M", theirs=("-T", "default")),
    Pair("small", "256M"),
    Pair("large", "64G"),
    Pair(
        "compat",
        "256M",
        ours=("--profile", "compat"),
        theirs=("-T", "default", "-O", "^64bit,^metadata_csum,uninit_bg"),
    ),
    Pair(
        "readonly",
        "256M",
        ours=("--profile", "readonly"),
        theirs=("-T", "default", "-O", "^has_journal,^resize_inode", "-m", "0"),
    ),
)


@dataclass(frozen=True)
class Row:
    """One thing that dumpe2fs says of both images; `None`: it does not say it."""

    field: str
    ours: str | None
    theirs: str | None

    @property
    def differs(self) -> bool:
        """Whether there is something to explain."""
        return self.ours != self.theirs or self.ours in (BY_TREE, BY_RUN)


Tables = dict[str, list[Row]]


@dataclass(frozen=True)
class Programs:
    """mke2fs and dumpe2fs of one release: how to start them."""

    commands: Mapping[str, Sequence[str]]

    @classmethod
    def installed(cls) -> Programs:
        """Those of this machine."""
        path = f"{os.environ.get('PATH', '')}:/sbin:/usr/sbin"
        commands = {}
        for name in ("mke2fs", "dumpe2fs"):
            found = shutil.which(name, path=path)
            if found is None:
                raise MissingError(f"no {name}: the package e2fsprogs has it")
            commands[name] = [found]
        return cls(commands)

    @property
    def version(self) -> str:
        """What ``mke2fs -V`` says."""
        said = _run([*self.commands["mke2fs"], "-V"]).stderr
        found = re.match(r"mke2fs (\S+)", said)
        if found is None:
            raise RuntimeError(f"mke2fs -V says {said!r}")
        return found[1]

    def make(self, image: Path, pair: Pair, clock: int) -> None:
        """An image by mke2fs, which takes `clock` for the time (1.47.1 and later by another name)."""
        times = {"E2FSPROGS_FAKE_TIME": str(clock), "SOURCE_DATE_EPOCH": str(clock)}
        _run(["truncate", "-s", pair.size, os.fspath(image)])
        _run(
            [*self.commands["mke2fs"], "-q", "-F", "-t", "ext4", *pair.theirs, os.fspath(image)],
            {"MKE2FS_CONFIG": os.fspath(CONFIG), **times},
        )

    def dump(self, image: Path) -> dict[str, str]:
        """What dumpe2fs says of an image, field by field, and of its groups."""
        return parse_dump(_run([*self.commands["dumpe2fs"], os.fspath(image)]).stdout)


def _run(
    command: Sequence[str], environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    # An environment of its own: SOURCE_DATE_EPOCH and mke2fs's variables change images.
    base = {"LC_ALL": "C", "TZ": "UTC", "PATH": os.environ.get("PATH", "")}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**base, **(environment or {})}
    )
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} exits {done.returncode}: {done.stderr}")
    return done


def measure(programs: Programs) -> Tables:
    """Makes all pairs and has dumpe2fs tell of them."""
    tables = {}
    with tempfile.TemporaryDirectory(prefix="mke2fs-page-") as folder:
        for pair in PAIRS:
            # Each image twice: what is different then is no property of the format.
            place = Path(folder)
            ours = _merged(
                _ours(programs, pair, place, 10**9), _ours(programs, pair, place, 11 * 10**8), BY_TREE
            )
            theirs = _merged(
                _theirs(programs, pair, place, 10**9), _theirs(programs, pair, place, 11 * 10**8), BY_RUN
            )
            fields = [*theirs, *(field for field in ours if field not in theirs)]
            tables[pair.name] = [Row(field, ours.get(field), theirs.get(field)) for field in fields]
    return tables


def _ours(programs: Programs, pair: Pair, folder: Path, mtime: int) -> dict[str, str]:
    tree, image = folder / "tree", folder / "ours.ext4"
    tree.mkdir(exist_ok=True)
    os.utime(tree, (mtime, mtime))
    arguments = ["--layer", os.fspath(tree), "-o", os.fspath(image), "--size", pair.size, *pair.ours]
    _run([sys.executable, "-m", "layermelt", "build", "-q", "--no-sync", *arguments])
    found = programs.dump(image)
    image.unlink()
    return found


def _theirs(programs: Programs, pair: Pair, folder: Path, clock: int) -> dict[str, str]:
    image = folder / "theirs.ext4"
    programs.make(image, pair, clock)
    found = programs.dump(image)
    image.unlink()
    return found


def _merged(first: dict[str, str], second: dict[str, str], varying: str) -> dict[str, str]:
    assert first.keys() == second.keys()
    return {field: value if second[field] == value else varying for field, value in first.items()}


_GROUP = re.compile(r"Group (\d+): \(Blocks \d+-\d+\)( csum 0x[0-9a-f]+)?(?: \[(.*)\])?")
_GROUP_LINE = re.compile(r"  (.*?)(?: at|:) ?(.*)")
_CHECKSUM = re.compile(r",? csum 0x[0-9a-f]+")


def parse_dump(text: str) -> dict[str, str]:
    """The fields of the header, then what can be said of all groups, then some groups' lines."""
    fields: dict[str, str] = {}
    groups: list[dict[str, str]] = []
    for line in text.splitlines():
        group = _GROUP.fullmatch(line)
        if group is not None:
            assert int(group[1]) == len(groups)
            groups.append({"flags": group[3] or "", "checksum": "yes" if group[2] else ""})
        elif groups and line.startswith("  "):
            groups[-1].update(_group_line(line))
        elif line:
            name, _, value = line.partition(":")
            fields[name] = " ".join(value.split())
    return {**fields, **_of_all_groups(groups), **_of_some_groups(groups)}


def _group_line(line: str) -> Iterator[tuple[str, str]]:
    line = _CHECKSUM.sub("", line)
    if "superblock" in line:
        kind, _, place = line.strip().partition(" at ")
        at, _, descriptors = place.partition(", Group descriptors at ")
        yield "superblock", f"{kind.split()[0].lower()}, at {at}"
        yield "descriptors", descriptors
        return
    found = re.fullmatch(r"  (\d+ free blocks, .*)", line)
    if found is not None:
        yield "counts", found[1]
        return
    found = _GROUP_LINE.fullmatch(line)
    assert found is not None, line
    yield found[1].lower().replace("gdt", "GDT"), found[2]


def _of_all_groups(groups: list[dict[str, str]]) -> dict[str, str]:
    def those(what: str) -> str:
        return ranges([number for number, group in enumerate(groups) if what in group["flags"].split(", ")])

    return {
        "Groups": str(len(groups)),
        "Groups with a superblock": ranges([at for at, group in enumerate(groups) if "superblock" in group]),
        "Groups with a checksum": ranges([at for at, group in enumerate(groups) if group["checksum"]]),
        "Groups with BLOCK_UNINIT": those("BLOCK_UNINIT"),
        "Groups with INODE_UNINIT": those("INODE_UNINIT"),
        "Groups with ITABLE_ZEROED": those("ITABLE_ZEROED"),
        "Groups without a free block": ranges(
            [at for at, group in enumerate(groups) if group["counts"].startswith("0 free blocks")]
        ),
    }


def _of_some_groups(groups: list[dict[str, str]]) -> dict[str, str]:
    return {
        f"Group {number}: {name}": value or "none"
        for number in SHOWN_GROUPS
        if number < len(groups)
        for name, value in groups[number].items()
        # Told of all groups, or the rest of what is told.
        if name not in ("flags", "checksum", "free inodes")
    }


def ranges(numbers: Sequence[int]) -> str:
    """Ascending numbers in short: 0-3, 7."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][1] + 1 == number:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(f"{a}-{b}" if b > a else str(a) for a, b in runs) or "none"


@dataclass(frozen=True)
class Reason:
    """Why something differs, as the page says it.

    Attributes:
        title: Its heading.
        covers: (a field, in which ``*`` stands for anything, and a pair's name).
    """

    title: str
    covers: tuple[tuple[str, str], ...]

    def explains(self, field: str, pair: str) -> bool:
        """Whether it is about that."""
        return any(one == pair and fnmatch.fnmatchcase(field, pattern) for pattern, one in self.covers)

    @property
    def link(self) -> str:
        """As a table names it."""
        anchor = re.sub(r"[^\w -]", "", self.title.lower()).replace(" ", "-")
        return f"[{self.title}](#{anchor})"


_REASON = re.compile(r"^### (.+)\n\nFields: ((?:.+\n)+)\n(.+)", re.MULTILINE)


def reasons(page: str) -> list[Reason]:
    """The reasons of a page: a heading, a paragraph of fields, and text."""
    names = [pair.name for pair in PAIRS]
    found = []
    for match in _REASON.finditer(page):
        covers = []
        for item in " ".join(match[2].split()).rstrip(".").split("; "):
            one = re.fullmatch(r"(.+) \(([a-z, ]+)\)", item)
            if one is None:
                raise ValueError(f"{match[1]}: not a field and its pairs: {item!r}")
            pairs = names if one[2] == "all" else one[2].split(", ")
            covers += [(one[1], pair) for pair in pairs]
        found.append(Reason(match[1], tuple(covers)))
    return found


def complaints(page: str, tables: Tables) -> list[str]:
    """What is not explained, and what is explained and does not exist."""
    known = reasons(page)
    found = [
        f"{pair}: {row.field}: not explained: ours {row.ours}, mke2fs {row.theirs}"
        for pair, rows in tables.items()
        for row in rows
        if row.differs and not any(reason.explains(row.field, pair) for reason in known)
    ]
    for reason in known:
        for pattern, pair in reason.covers:
            rows = [row for row in tables.get(pair, []) if fnmatch.fnmatchcase(row.field, pattern)]
            if not any(row.differs for row in rows):
                found.append(f"{pair}: {reason.title}: there is no difference in {pattern}")
    return found


def with_tables(page: str, tables: Tables, version: str) -> str:
    """The page, with the tables and the release that made them."""
    known = reasons(page)
    page = _replaced(page, "release", f"mke2fs and dumpe2fs {version} made the tables.")
    for pair, rows in tables.items():
        page = _replaced(page, pair, _table(pair, rows, known))
    return page


def release(page: str) -> str:
    """The release of e2fsprogs that made the tables."""
    found = re.search(r"mke2fs and dumpe2fs (\S+) made the tables", page)
    return found[1] if found else ""


def _table(pair: str, rows: Sequence[Row], known: Sequence[Reason]) -> str:
    chosen = next(one for one in PAIRS if one.name == pair)
    lines = [
        "```",
        " ".join(["layermelt build --layer TREE -o ours.ext4 --size", chosen.size, *chosen.ours]),
        " ".join(["mke2fs -t ext4", *chosen.theirs, "theirs.ext4", chosen.size]),
        "```",
        "",
        "| field | layermelt | mke2fs | why |",
        "|---|---|---|---|",
    ]
    for row in rows:
        why = [reason.link for reason in known if row.differs and reason.explains(row.field, pair)]
        cells = [row.field, _cell(row.ours), _cell(row.theirs), ", ".join(why)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(value: str | None) -> str:
    if value is None:
        return ABSENT
    runs = value.split(", ")
    if len(runs) > LONGEST and all(re.fullmatch(r"[0-9-]+", run) for run in runs):
        return f"{', '.join(runs[:3])} and so on to {runs[-1]}"
    return value.replace("<", "&lt;").replace("|", "\\|")


def _replaced(page: str, name: str, text: str) -> str:
    start, end = f"<!-- {name} -->\n", "<!-- end -->"
    before, marker, rest = page.partition(start)
    if not marker:
        raise ValueError(f"the page has no place for {name}: {start!r}")
    _, marker, after = rest.partition(end)
    assert marker, f"{name}: not ended"
    return f"{before}{start}\n{text}\n\n{end}{after}"


def main() -> int:
    """See the module's text."""
    programs = Programs.installed()
    tables = measure(programs)
    page = PAGE.read_text()
    found = complaints(page, tables)
    written = with_tables(page, tables, programs.version)
    if sys.argv[1:] == ["--write"]:
        PAGE.write_text(written)
    elif written != page:
        found.append(f"{PAGE}: the tables are not what the programs print; --write puts them in")
    for line in found:
        print(line)
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
