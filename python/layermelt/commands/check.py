"""``layermelt check IMAGE``."""

from __future__ import annotations

import click

from layermelt.console import (
    EXIT_CODES,
    PATH,
    errors,
    json_option,
    print_json,
    print_text,
    problems_text,
    say,
    size_text,
)

__all__ = ["command"]


@click.command("check", epilog=EXIT_CODES, short_help="Say whether an image is sound.")
@click.argument("image", type=PATH)
@click.option("--deep", is_flag=True, help="Look at every inode, directory, bitmap and quota.")
@json_option
def command(image: str, *, deep: bool, as_json: bool) -> None:
    """Says whether IMAGE, a file or a block device, is a sound ext4.

    It compares the magic number, the checksums of the superblock, of every group's descriptor and
    bitmaps and of the root directory's inode, the free counts, the features and the geometry
    against the file's size. With --deep it goes through every inode, extent tree, attribute,
    directory, bitmap and quota, and finds what e2fsck -fn finds.
    """
    from layermelt.images import check_image
    from layermelt.meter import meter

    with errors(as_json=as_json):
        with meter() as progress:
            report = check_image(image, deep=deep, progress=progress)
        if as_json:
            print_json(report.as_dict())
        elif report.sound:
            print_text(f"{image}: sound ext4, {size_text(report.size)}, {len(report.features)} features")
        if not as_json:
            for note in report.notes:
                say(f"{image}: not looked at: {note}")
        if not report.sound:
            if not as_json:
                say(problems_text(report))
            raise SystemExit(1)
