"""``layermelt clone IMAGE OUT``."""

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


@click.command("clone", epilog=EXIT_CODES, short_help="Clone an image, by reflink where that goes.")
@click.argument("image", type=PATH)
@click.argument("out", type=PATH)
@json_option
@click.option("--no-sync", is_flag=True, help="Do not wait until the disk has everything.")
@click.option("-q", "--quiet", is_flag=True, help="No summary on stderr.")
def command(image: str, out: str, *, as_json: bool, no_sync: bool, quiet: bool) -> None:
    """Clones the file IMAGE to OUT, which appears whole or not at all.

    The blocks are shared where the file system can do that (reflink), else copied by the kernel,
    else read and written; holes stay holes. Which way was taken, and why, is told on stderr.
    """
    from layermelt.cloning import clone_image

    with errors(as_json=as_json):
        report = clone_image(image, out, sync=not no_sync)
        if not quiet:
            why = f" ({'; '.join(report.reasons)})" if report.reasons else ""
            say(
                f"{report.method}{why}: {size_text(report.bytes_cloned)} shared, "
                f"{size_text(report.bytes_copied)} copied, {size_text(report.holes)} of holes kept"
            )
        if as_json:
            print_json(report.as_dict())
        else:
            print_path(os.fspath(report.path))
