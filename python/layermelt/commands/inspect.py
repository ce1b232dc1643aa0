"""``layermelt inspect SOURCE|IMAGE``."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import click

from layermelt.console import (
    EXIT_CODES,
    PATH,
    SOURCE_HELP,
    counts_text,
    errors,
    print_json,
    print_text,
    problems_text,
    say,
    size_text,
    source_options,
)

if TYPE_CHECKING:
    from layermelt.images import ImageReport
    from layermelt.results import InspectResult

__all__ = ["command"]


@click.command(
    "inspect",
    epilog=EXIT_CODES,
    short_help="Tell what a source or an image holds.",
    help="Tells what SOURCE holds when it is merged, without writing anything, or what an image says about "
    f"itself.\n\n{SOURCE_HELP}",
)
@click.argument("source", type=PATH, required=False, metavar="[SOURCE|IMAGE]")
@source_options
def command(
    source: str | None,
    *,
    layers: tuple[str, ...],
    docker_root: str | None,
    userxattr: bool | None,
    threads: int | None,
    as_json: bool,
) -> None:
    """Tells what is in a source, or what an image says about itself."""
    with errors(as_json=as_json):
        if source is not None and not layers and _is_image(source):
            from layermelt.images import check_image

            report = check_image(source)
            if as_json:
                print_json({"kind": "image", **report.as_dict()})
            else:
                print_text(_image_text(report))
            return
        from layermelt.builder import inspect_source

        result = inspect_source(
            source, layers=layers, docker_root=docker_root, threads=threads, userxattr=userxattr
        )
        for warning in result.warnings:
            say(f"warning: {warning}")
        if as_json:
            print_json({"kind": "source", **result.as_dict()})
        else:
            print_text(_source_text(result))


def _is_image(source: str) -> bool:
    try:
        mode = os.stat(source).st_mode
    except OSError:
        return False
    return stat.S_ISREG(mode) or stat.S_ISBLK(mode)


def _source_text(result: InspectResult) -> str:
    marks = "user.overlay.*" if result.userxattr else "trusted.overlay.*"
    writer = ", written by fuse-overlayfs" if result.fuse_overlayfs else ""
    layers = "\n".join(f"  {layer}" for layer in result.layers)
    return f"{result.source} (marks {marks}{writer})\n{counts_text(result)}\nlayers, base first:\n{layers}"


def _image_text(report: ImageReport) -> str:
    lines = [
        f"{report.path}: {'sound ext4' if report.sound else 'not sound'}",
        f"size {size_text(report.size)}: {report.blocks:,} blocks of {report.block_size}, {report.free_blocks:,} free",
        f"inodes {report.inodes:,} of {report.inode_size} bytes, {report.free_inodes:,} free",
        f"uuid {report.uuid}, label {report.label!r}",
        f"journal {report.journal}, {report.state}",
        f"features {' '.join(report.features)}",
    ]
    if not report.sound:
        lines.append(problems_text(report))
    return "\n".join(lines)
