"""``layermelt hash SOURCE|FILE``."""

from __future__ import annotations

import os
import stat

import click

from layermelt.console import EXIT_CODES, SOURCE_HELP, errors, print_json, print_text, source_options

__all__ = ["command"]

_HELP = f"""Prints the digest of SOURCE's chain, or of the data of FILE.

\b
With --key
  content  BLAKE3 over every entry of every layer and its data; of a FILE, its data
  stat     of what the file system says of them, inode numbers and ctimes too: no
           data is read, and it stays the same as long as nothing is written
  path     the 16 digits by which older agents name the image of that path

Equal layers have equal digests on any file system.

{SOURCE_HELP}"""


@click.command("hash", epilog=EXIT_CODES, short_help="Print the digest of a source or a file.", help=_HELP)
@click.argument("source", required=False, metavar="[SOURCE|FILE]")
@click.option(
    "--key",
    type=click.Choice(["content", "stat", "path"]),
    default="content",
    show_default=True,
    help="What to make it from.",
)
@source_options
def command(
    source: str | None,
    *,
    key: str,
    layers: tuple[str, ...],
    docker_root: str | None,
    userxattr: bool | None,
    threads: int | None,
    as_json: bool,
) -> None:
    """See `_HELP`."""
    with errors(as_json=as_json):
        kind, value = _hash(source, key, layers, docker_root, threads, userxattr=userxattr)
        if as_json:
            named = {"layers": list(layers)} if layers else {"source": source}
            print_json({"kind": kind, "key": key, "digest": value, **named})
        else:
            print_text(value)


def _hash(
    source: str | None,
    key: str,
    layers: tuple[str, ...],
    docker_root: str | None,
    threads: int | None,
    *,
    userxattr: bool | None,
) -> tuple[str, str]:
    """What was hashed, and its digest."""
    from layermelt import digests
    from layermelt.errors import InvalidOptionError

    if key == "path":
        if source is None or layers:
            raise InvalidOptionError("a path key is made of one path; give it, without --layer")
        return "path", digests.path_key(source)
    if source is not None and not layers and _is_file(source):
        if key == "stat":
            raise InvalidOptionError(f"{source}: is a file; --key stat is for a source's layers")
        return "file", digests.file_digest(source, threads=threads)
    make = digests.chain_digest if key == "content" else digests.stat_fingerprint
    return "chain", make(source, layers=layers, docker_root=docker_root, userxattr=userxattr, threads=threads)


def _is_file(source: str) -> bool:
    try:
        return stat.S_ISREG(os.stat(source).st_mode)
    except (OSError, ValueError):
        return False
