"""``layermelt grow IMAGE SIZE``."""

from __future__ import annotations

import os

import click

from layermelt.console import (
    EXIT_CODES,
    PATH,
    errors,
    json_option,
    print_json,
    print_path,
    say,
    size_text,
)

__all__ = ["command"]


@click.command("grow", epilog=EXIT_CODES, short_help="Make an image larger, unmounted.")
@click.argument("image", type=PATH)
@click.argument("size", metavar="SIZE|+MORE|max")
@json_option
@click.option("--no-sync", is_flag=True, help="Do not wait for the disk: not safe against power failures.")
@click.option("-q", "--quiet", is_flag=True, help="No summary on stderr.")
def command(image: str, size: str, *, as_json: bool, no_sync: bool, quiet: bool) -> None:
    """Makes the ext4 file system in IMAGE, a file or a block device, larger.

    SIZE is a number of bytes in all, +MORE that many more (K, M, G, T are binary), max all that
    the file or device has. The image may be of any origin; nothing may have it in use. No block is
    moved, and the new part of a file is a hole. Whatever happens meanwhile, the image is the old
    file system or the new one.
    """
    from layermelt.growing import grow_image

    with errors(as_json=as_json):
        report = grow_image(image, size, sync=not no_sync)
        if not quiet:
            old, new = report.old, report.new
            if report.changed:
                why = f" ({report.reason})" if report.reason else ""
                say(
                    f"grown from {size_text(old.size)} to {size_text(new.size)}, {new.groups - old.groups:,} more "
                    f"groups, {size_text(new.free_blocks * report.block_size)} and {new.free_inodes:,} inodes free; "
                    f"by way of {'its journal' if report.method == 'journal' else 'a copy'}{why}"
                )
            else:
                say(f"has {size_text(new.size)} already: nothing was changed")
        if as_json:
            print_json(report.as_dict())
        else:
            print_path(os.fspath(report.path))
