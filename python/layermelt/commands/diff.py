"""``layermelt diff A B``."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import click

from layermelt import settings
from layermelt.console import (
    PATH,
    chain_options,
    errors,
    json_text,
    name_text,
    say,
    write_results,
)

if TYPE_CHECKING:
    from layermelt.differ import Difference, DiffResult, FieldChange

__all__ = ["command"]

_HELP = """Tells in what two trees differ, as the kernel would show them.

\b
A and B each are one of
  DIR                   a chain directory (overlay2/<id>, overlay/<id> or
                        snapshots/<id>), which is merged, or else a plain directory
  docker:NAME[:TAG]     an image of Docker, read from the data root
  containerd:NAME[:TAG] an image of containerd
  FILE                  an ext4, ext3 or ext2 image of any origin, or a block device
  dir:PATH, image:PATH  a plain directory or an image, whatever it looks like

Compared are types, modes, owners, mtimes in ns, sizes and bytes of files, symlinks' targets, device
numbers, extended attributes with ACLs, and which names are one inode. An empty /lost+found that one
of them alone has is no difference, unless --strict is given.

\b
One line is printed for each path, in the order of the paths' bytes:
  - PATH  ...           A alone has it
  + PATH  ...           B alone has it
  ~ PATH  FIELD A -> B  both have it, and it differs
A path with blanks, quotes or unprintable bytes stands in double quotes, with \\n, \\t, \\", \\\\ and
\\xNN for a byte. With --json a name that is no UTF-8 has U+FFFD for what is wrong in it, and
"path_hex" (or "name_hex", "a_hex", "b_hex", "first_hex") has all of its bytes.
"""

_EXIT_CODES = """\b
Exit codes:
  0    the trees are equal
  1    they differ
  2    wrong usage, or an option's value that cannot be
  3    a source is missing, of an unknown kind, or inconsistent
  4    no permission to read something
  5    a layer is corrupt, something is mounted in a directory, or a file changed meanwhile
  8    the results cannot be written to stdout
  9    an image cannot be read, or makes no sense
  70   a fault of layermelt itself
  130  interrupted (143: terminated)
"""


@click.command("diff", epilog=_EXIT_CODES, short_help="Tell in what two trees differ.", help=_HELP)
@click.argument("a", type=PATH)
@click.argument("b", type=PATH)
@click.option(
    "--ignore",
    type=click.Choice(settings.IGNORABLE),
    multiple=True,
    help="What not to compare; can be given several times.",
)
@click.option(
    "--exclude",
    type=PATH,
    multiple=True,
    metavar="PATH",
    help="An absolute path in the trees to leave out, with all below it; can be given several times.",
)
@click.option("--all", "all_names", is_flag=True, help="Each name below a directory that one alone has.")
@click.option("--strict", is_flag=True, help="An empty /lost+found is a difference as well.")
@chain_options
@click.option("-q", "--quiet", is_flag=True, help="No summary on stderr.")
def command(
    a: str,
    b: str,
    *,
    ignore: tuple[str, ...],
    exclude: tuple[str, ...],
    all_names: bool,
    strict: bool,
    docker_root: str | None,
    userxattr: bool | None,
    threads: int | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """See `_HELP`."""
    from layermelt.differ import diff_trees

    with errors(as_json=as_json):
        listing: _Listing = _JsonListing() if as_json else _TextListing()
        result = diff_trees(
            a,
            b,
            docker_root=docker_root,
            threads=threads,
            userxattr=userxattr,
            ignore=ignore,
            exclude=exclude,
            all_names=all_names,
            strict=strict,
            on_difference=listing.tell,
        )
        for warning in result.warnings:
            say(f"warning: {warning}")
        listing.end(result)
        if not quiet:
            say(_summary(result))
    raise SystemExit(0 if result.equal else 1)


class _Listing:
    """Differences are printed as they come, so that any number of them needs no memory."""

    #: So many characters are printed at once.
    PORTION = 1 << 16

    def __init__(self) -> None:
        self._held: list[str] = []
        self._length = 0

    def tell(self, difference: Difference) -> None:
        raise NotImplementedError

    def end(self, result: DiffResult) -> None:
        """After the last one."""
        del result
        write_results("".join(self._held))

    def _put(self, text: str) -> None:
        self._held.append(text)
        self._length += len(text)
        if self._length >= self.PORTION:
            write_results("".join(self._held))
            self._held.clear()
            self._length = 0


class _TextListing(_Listing):
    def tell(self, difference: Difference) -> None:
        self._put(_line(difference) + "\n")


class _JsonListing(_Listing):
    """One document; its list of differences is written first."""

    def __init__(self) -> None:
        super().__init__()
        self._lead = '{"differences": [\n'

    def tell(self, difference: Difference) -> None:
        self._put(self._lead + json_text(difference.as_dict()))
        self._lead = ",\n"

    def end(self, result: DiffResult) -> None:
        rest = result.as_dict()
        del rest["differences"]
        begin = self._lead if self._lead != ",\n" else ""
        self._put(f"{begin}\n], {json_text(rest)[1:]}\n")
        super().end(result)


_MARKS = {"only-a": "-", "only-b": "+", "changed": "~"}


def _line(difference: Difference) -> str:
    path = name_text(difference.path)
    if difference.kind == "changed":
        what = "; ".join(_change_text(change) for change in difference.changes)
        if difference.below:
            what += f"; {_count(difference.below, 'name')} below"
    else:
        what = difference.type or ""
        if difference.size is not None:
            what += f", {_count(difference.size, 'byte')}"
        if difference.below:
            what += f", {_count(difference.below, 'name')} below"
    return f"{_MARKS[difference.kind]} {path}  {what}"


def _count(number: int, what: str, many: str | None = None) -> str:
    return f"{number:,} {what if number == 1 else many or what + 's'}"


def _change_text(change: FieldChange) -> str:
    if change.field == "content":
        return f"content differs at byte {change.a:,}"
    name = "" if change.name is None else f" {name_text(change.name)}"
    value = _VALUES.get(change.field, str)
    return f"{change.field}{name} {value(change.a)} -> {value(change.b)}"


def _mtime_text(nanoseconds: int) -> str:
    seconds, rest = divmod(nanoseconds, 10**9)
    try:
        moment = datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=seconds)
    except OverflowError:
        return f"{seconds}.{rest:09d}"
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"


#: The longest value of an attribute that is printed whole.
_LONG = 40


def _bytes_text(value: bytes | None) -> str:
    if value is None:
        return "none"
    if len(value) <= _LONG:
        return name_text(value, quoted=True)
    return f"{name_text(value[:_LONG], quoted=True)}... ({len(value):,} bytes)"


def _links_text(group: Any) -> str:
    shown = " = ".join(name_text(path) for path in group.first)
    more = group.names - len(group.first)
    return f"[{shown} and {more:,} more]" if more else f"[{shown}]"


_VALUES: dict[str, Callable[[Any], str]] = {
    "mode": lambda value: f"{value:04o}",
    "mtime": _mtime_text,
    "size": lambda value: f"{value:,}",
    "target": name_text,
    "device": lambda value: f"{value[0]}:{value[1]}",
    "xattr": _bytes_text,
    "links": _links_text,
}


def _summary(result: DiffResult) -> str:
    entries = [_count(number, "entry", "entries") for number in (result.entries_a, result.entries_b)]
    sides = f"A {result.a}: {entries[0]}\nB {result.b}: {entries[1]}\n"
    if result.equal:
        return f"{sides}equal ({result.seconds:.2f} s)"
    return (
        f"{sides}{_count(result.count, 'difference')}: {result.only_a:,} only in A, {result.only_b:,} only in B, "
        f"{result.changed:,} changed ({result.seconds:.2f} s)"
    )
