"""``layermelt build SOURCE``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

import click

from layermelt import settings
from layermelt.console import (
    EXIT_CODES,
    PATH,
    SOURCE_HELP,
    SizeType,
    counts_text,
    errors,
    file_options,
    parse_agent,
    parse_file,
    print_json,
    print_path,
    say,
    size_text,
    source_options,
)
from layermelt.options import BLOCK_SIZES, PROFILES

if TYPE_CHECKING:
    from layermelt.results import BuildResult

__all__ = ["command"]


@click.command(
    "build", epilog=EXIT_CODES, short_help="Make an image.", help=f"Makes an ext4 image.\n\n{SOURCE_HELP}"
)
@click.argument("source", type=PATH, required=False)
@click.option(
    "-o",
    "--output",
    type=PATH,
    metavar="FILE",
    help="The image to be written (default: an entry of the cache).",
)
@click.option(
    "--cache-dir",
    type=PATH,
    metavar="DIR",
    help=f"The cache, without -o (default: ${settings.CACHE_VARIABLE}, else {settings.SYSTEM_CACHE} for root "
    "and $XDG_CACHE_HOME/layermelt for users).",
)
@source_options
@file_options
@click.option(
    "--size",
    type=SizeType("auto", "min"),
    default="auto",
    show_default=True,
    metavar="auto|min|N",
    help="Size of the image: N bytes (K, M, G, T are binary), as small as can be, or that and --free-space.",
)
@click.option(
    "--free-space",
    type=SizeType(),
    default=settings.DEFAULT_FREE_SPACE,
    metavar="N",
    help="Bytes that are free in an image of --size auto; they take no room on the disk (default: 256M).",
)
@click.option(
    "--inodes", type=click.IntRange(1, (1 << 32) - 1), metavar="N", help="Inodes there are to be at least."
)
@click.option(
    "--profile",
    type=click.Choice(PROFILES),
    default="default",
    show_default=True,
    help="What the image is for: compat is for Linux 3.x, readonly for images that nothing writes to.",
)
@click.option(
    "--journal",
    type=SizeType("auto", "none"),
    default="auto",
    show_default=True,
    metavar="auto|none|N",
    help="Size of the journal.",
)
@click.option(
    "--reserved", type=SizeType(), default=0, metavar="N", help="Bytes that only root may fill (default: 0)."
)
@click.option(
    "--block-size",
    type=click.Choice([str(size) for size in BLOCK_SIZES]),
    default="4096",
    show_default=True,
    help="Bytes of a block.",
)
@click.option(
    "--inode-flags", is_flag=True, help="Keep the layers' flags immutable, append, nodump and noatime."
)
@click.option("--label", default="", help="The file system's label, at most 16 bytes.")
@click.option("--uuid", help="The file system's UUID (default: derived from the tree).")
@click.option(
    "--engine", default="native", show_default=True, metavar="native|oci2rootfs", help="What makes the image."
)
@click.option(
    "--engine-arg",
    "engine_args",
    multiple=True,
    metavar="ARG",
    help="A further argument for an external engine's program.",
)
@click.option(
    "--injector",
    default="auto",
    show_default=True,
    metavar="auto|plan|mount",
    help="What puts files in: plan is part of a native build, mount needs root.",
)
@click.option(
    "--timeout", type=click.FloatRange(0, min_open=True), metavar="SECONDS", help="How long it may take."
)
@click.option("--no-agent-check", is_flag=True, help="Put the agent in even if the image cannot run it.")
@click.option("--no-sync", is_flag=True, help="Do not wait until the disk has everything.")
@click.option("-q", "--quiet", is_flag=True, help="No summary on stderr.")
def command(
    source: str | None,
    *,
    output: str | None,
    cache_dir: str | None,
    layers: tuple[str, ...],
    docker_root: str | None,
    agent: str | None,
    files: tuple[str, ...],
    size: int | str,
    free_space: int,
    inodes: int | None,
    profile: str,
    journal: int | str,
    reserved: int,
    block_size: str,
    inode_flags: bool,
    label: str,
    uuid: str | None,
    threads: int | None,
    userxattr: bool | None,
    engine: str,
    engine_args: tuple[str, ...],
    injector: str,
    timeout: float | None,
    no_agent_check: bool,
    no_sync: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Makes an image."""
    from layermelt.builder import build_rootfs

    with errors(as_json=as_json):
        result = build_rootfs(
            source,
            output,
            layers=layers,
            docker_root=docker_root,
            cache_dir=cache_dir,
            agent=None if agent is None else parse_agent(agent),
            files=[parse_file(file) for file in files],
            size=size,
            free_space=free_space,
            inodes=inodes,
            profile=profile,
            journal=journal,
            reserved=reserved,
            block_size=int(block_size),
            inode_flags=inode_flags,
            label=label,
            uuid=uuid,
            threads=threads,
            userxattr=userxattr,
            engine=engine,
            engine_args=engine_args,
            injector=injector,
            timeout=timeout,
            agent_check=not no_agent_check,
            sync=not no_sync,
        )
        for warning in result.warnings:
            say(f"warning: {warning}")
        if not quiet:
            say(_summary(result))
        if as_json:
            print_json(result.as_dict())
        else:
            print_path(os.fspath(result.path))


def _summary(result: BuildResult) -> str:
    free = f"{size_text(result.free_blocks * result.block_size)} and {result.free_inodes:,} inodes free"
    lines = [
        result.source,
        counts_text(result),
        f"image {size_text(result.size)}, {size_text(result.allocated)} on the disk, {free}",
        f"{_phases(result.phases)} = {result.seconds:.2f} s ({result.copy_method})",
    ]
    if result.cached or result.engine != "native":
        # What is in it was not counted.
        del lines[1]
    return "\n".join(lines)


def _phases(phases: Mapping[str, float]) -> str:
    return " + ".join(f"{name} {seconds:.2f}" for name, seconds in phases.items())
