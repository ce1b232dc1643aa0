"""The command line. Commands that are not here are files in `layermelt.commands`."""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import stat
from collections.abc import Mapping
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

import click

from layermelt import settings
from layermelt.console import (
    EXIT_CODES,
    PATH,
    SOURCE_HELP,
    SizeType,
    errors,
    json_option,
    parse_agent,
    parse_file,
    print_json,
    print_path,
    print_text,
    say,
    size_text,
    source_options,
)
from layermelt.errors import InternalError

if TYPE_CHECKING:
    from layermelt.builder import BuildResult, InspectResult
    from layermelt.images import ImageReport

__all__ = ["cli", "main"]

_CONTEXT: dict[str, Any] = {"help_option_names": ["-h", "--help"], "max_content_width": 100}

#: Commands that are files in `layermelt.commands`, read when they are asked for.
_FILES = ("clone", "hash")


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *_FILES])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _FILES:
            return super().get_command(ctx, cmd_name)
        module = importlib.import_module(f"layermelt.commands.{cmd_name}")
        command = module.command
        assert isinstance(command, click.Command)
        return command


@click.group(cls=_Commands, context_settings=_CONTEXT, epilog=EXIT_CODES)
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=lambda ctx, _param, value: _print_version(ctx) if value else None,
    help="Show the version and exit.",
)
def cli() -> None:
    """Melts a chain of container layers into one bootable ext4 image."""


@cli.command(epilog=EXIT_CODES, short_help="Make an image.", help=f"Makes an ext4 image.\n\n{SOURCE_HELP}")
@click.argument("source", type=PATH, required=False)
@click.option("-o", "--output", type=PATH, required=True, metavar="FILE", help="The image to be written.")
@source_options
@click.option(
    "--agent",
    metavar="FILE[:DEST]",
    help=f"A program to put in, 0755 and root's (default for DEST: {settings.AGENT_DESTINATION}).",
)
@click.option(
    "--file",
    "files",
    multiple=True,
    metavar="SRC:DEST[:MODE]",
    help="A further file to put in, root's (default for MODE: 0755 if it is executable, else 0644).",
)
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
    show_default="256M",
    metavar="N",
    help="Bytes that are free in an image of --size auto; they take no room on the disk.",
)
@click.option(
    "--inodes", type=click.IntRange(1, (1 << 32) - 1), metavar="N", help="Inodes there are to be at least."
)
@click.option("--label", default="", help="The file system's label, at most 16 bytes.")
@click.option("--uuid", help="The file system's UUID (default: derived from the tree).")
@click.option("--no-agent-check", is_flag=True, help="Put the agent in even if the image cannot run it.")
@click.option("--no-sync", is_flag=True, help="Do not wait until the disk has everything.")
@click.option("-q", "--quiet", is_flag=True, help="No summary on stderr.")
def build(
    source: str | None,
    output: str,
    layers: tuple[str, ...],
    docker_root: str | None,
    agent: str | None,
    files: tuple[str, ...],
    size: int | str,
    free_space: int,
    inodes: int | None,
    label: str,
    uuid: str | None,
    threads: int | None,
    userxattr: bool | None,
    no_agent_check: bool,
    no_sync: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    from layermelt.builder import build_rootfs

    with errors(as_json=as_json):
        result = build_rootfs(
            source,
            output,
            layers=layers,
            docker_root=docker_root,
            agent=None if agent is None else parse_agent(agent),
            files=[parse_file(file) for file in files],
            size=size,
            free_space=free_space,
            inodes=inodes,
            label=label,
            uuid=uuid,
            threads=threads,
            userxattr=userxattr,
            agent_check=not no_agent_check,
            sync=not no_sync,
        )
        for warning in result.warnings:
            say(f"warning: {warning}")
        if not quiet:
            say(_build_summary(result))
        if as_json:
            print_json(result.as_dict())
        else:
            print_path(os.fspath(result.path))


@cli.command(epilog=EXIT_CODES, short_help="Say whether an image is sound.")
@click.argument("image", type=PATH)
@json_option
def check(image: str, as_json: bool) -> None:
    """Says whether IMAGE, a file or a block device, is a sound ext4.

    It compares the magic number, the checksums of the superblock, of every group's descriptor and
    bitmaps and of the root directory's inode, the free counts, the features and the geometry
    against the file's size. Files' data and other inodes are left to e2fsck.
    """
    from layermelt.images import check_image

    with errors(as_json=as_json):
        report = check_image(image)
        if as_json:
            print_json(report.as_dict())
        elif report.sound:
            print_text(f"{image}: sound ext4, {size_text(report.size)}, {len(report.features)} features")
        if not report.sound:
            if not as_json:
                say(_problems(report))
            raise SystemExit(1)


@cli.command(
    epilog=EXIT_CODES,
    short_help="Tell what a source or an image holds.",
    help="Tells what SOURCE holds when it is merged, without writing anything, or what an image says about "
    f"itself.\n\n{SOURCE_HELP}",
)
@click.argument("source", type=PATH, required=False, metavar="[SOURCE|IMAGE]")
@source_options
def inspect(
    source: str | None,
    layers: tuple[str, ...],
    docker_root: str | None,
    userxattr: bool | None,
    threads: int | None,
    as_json: bool,
) -> None:
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


def main() -> NoReturn:
    """Runs the command line and exits with its code."""
    # Like Ctrl-C, so that what was begun is cleaned up.
    signal.signal(signal.SIGTERM, _terminate)
    try:
        cli.main(prog_name="layermelt", standalone_mode=False)
    except (click.exceptions.Abort, KeyboardInterrupt):
        say("interrupted")
        raise SystemExit(130) from None
    except click.ClickException as error:
        with contextlib.suppress(OSError):
            error.show()
        raise SystemExit(error.exit_code) from None
    except click.exceptions.Exit as exit_:
        raise SystemExit(exit_.exit_code) from None
    except Exception as error:  # noqa: BLE001 - nobody is to see a traceback
        _unexpected(error)
    raise SystemExit(0)


def _print_version(ctx: click.Context) -> None:
    from layermelt._core import __version__

    print_text(f"layermelt {__version__}")
    ctx.exit()


def _terminate(_number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(143)


def _unexpected(error: BaseException) -> NoReturn:
    """A fault of layermelt itself is one message as well."""
    if os.environ.get("LAYERMELT_TRACEBACK"):
        raise error
    say(
        f"error: a fault of layermelt itself: {type(error).__name__}: {error}; please report it "
        "(with LAYERMELT_TRACEBACK=1 in the environment it says where)"
    )
    raise SystemExit(InternalError.return_code)


def _is_image(source: str) -> bool:
    try:
        mode = os.stat(source).st_mode
    except OSError:
        return False
    return stat.S_ISREG(mode) or stat.S_ISBLK(mode)


def _build_summary(result: BuildResult) -> str:
    free = f"{size_text(result.free_blocks * result.block_size)} and {result.free_inodes:,} inodes free"
    return "\n".join(
        (
            result.source,
            _counts(result),
            f"image {size_text(result.size)}, {size_text(result.allocated)} on the disk, {free}",
            f"{_phases(result.phases)} = {result.seconds:.2f} s ({result.copy_method})",
        )
    )


def _counts(result: BuildResult | InspectResult) -> str:
    return (
        f"{result.entries:,} entries: {result.files:,} files, {result.directories:,} directories, "
        f"{result.symlinks:,} symlinks, {result.special:,} special, {result.hard_links:,} further hard links; "
        f"{size_text(result.content)} of content"
    )


def _phases(phases: Mapping[str, float]) -> str:
    return " + ".join(f"{name} {seconds:.2f}" for name, seconds in phases.items())


def _source_text(result: InspectResult) -> str:
    marks = "user.overlay.*" if result.userxattr else "trusted.overlay.*"
    writer = ", written by fuse-overlayfs" if result.fuse_overlayfs else ""
    layers = "\n".join(f"  {layer}" for layer in result.layers)
    return f"{result.source} (marks {marks}{writer})\n{_counts(result)}\nlayers, base first:\n{layers}"


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
        lines.append(_problems(report))
    return "\n".join(lines)


def _problems(report: ImageReport) -> str:
    lines = [f"{report.path}: not a sound ext4"]
    lines += [f"  {problem.code}: {problem.text}" for problem in report.problems]
    if report.more_problems:
        lines.append(f"  and {report.more_problems:,} more")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
