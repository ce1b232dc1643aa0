"""The command line: ``layermelt build``, ``check`` and ``inspect``."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import stat
import sys
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

import click

from layermelt import settings
from layermelt.errors import InternalError, InvalidOptionError, LayermeltError, OutputError

if TYPE_CHECKING:
    from layermelt.builder import BuildResult, InjectedFile, InspectResult
    from layermelt.images import ImageReport

    _ParamType = click.ParamType[Any]
else:
    # Generic since click 8.2 only.
    _ParamType = click.ParamType

__all__ = ["cli", "main"]

_EXIT_CODES = """\b
Exit codes:
  0    done; for check: the image is sound
  1    the image is not sound
  2    wrong usage, or an option's value that cannot be
  3    the source is missing, of an unknown kind, or inconsistent
  4    no permission to read something
  5    a layer is corrupt, or changed during the build
  6    the image, or its size, cannot hold what is to go in
  7    a file cannot be put into the image
  8    the image cannot be written (no room, no such directory, ...)
  9    an image to be looked at cannot be read
  10   an external engine cannot make the image
  70   a fault of layermelt itself
  130  interrupted (143: terminated)
"""

_CONTEXT: dict[str, Any] = {"help_option_names": ["-h", "--help"], "max_content_width": 100}

_SOURCE_HELP = """\b
SOURCE is one of
  DIR                   a chain directory: overlay2/<id> of Docker, or overlay/<id>
                        of containers-storage (podman, buildah, CRI-O)
  docker:NAME[:TAG]     an image of Docker, also docker:NAME@DIGEST or docker:ID,
                        read from the data root: no daemon need run
and is left out when the layers are given with --layer.
"""


class _PathType(_ParamType):
    """A path: any bytes, nothing is looked at."""

    name = "path"

    def convert(
        self,
        value: Any,
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> str:
        path = os.fsdecode(value)
        if not path or "\0" in path:
            self.fail("a path cannot be empty", param, ctx)
        return path


class _SizeType(_ParamType):
    """A number of bytes, also with K, M, G or T."""

    name = "size"

    def __init__(self, *words: str) -> None:
        self._words = words

    def convert(
        self,
        value: Any,
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Any:
        if value in self._words or isinstance(value, int):
            return value
        try:
            return settings.parse_size(value, "size")
        except InvalidOptionError as error:
            words = "".join(f", or {word}" for word in self._words)
            self.fail(f"{error}{words}", param, ctx)


_PATH = _PathType()


def _source_options(command: Callable[..., None]) -> Callable[..., None]:
    """What every command that reads a source takes."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print all results as JSON on stdout."),
        click.option(
            "--userxattr/--no-userxattr",
            default=None,
            help="The layers' marks are user.overlay.* (default: what the store says).",
        ),
        click.option("--threads", type=click.IntRange(1, 256), help="Default: one for each processor."),
        click.option(
            "--docker-root",
            type=_PATH,
            metavar="DIR",
            help=f"Docker's data root, for docker: (default: {settings.DEFAULT_DOCKER_ROOT}).",
        ),
        click.option(
            "--layer", "layers", type=_PATH, multiple=True, metavar="DIR", help="A layer's tree, base first."
        ),
    ):
        command = option(command)
    return command


@click.group(context_settings=_CONTEXT, epilog=_EXIT_CODES)
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


@cli.command(epilog=_EXIT_CODES, short_help="Make an image.", help=f"Makes an ext4 image.\n\n{_SOURCE_HELP}")
@click.argument("source", type=_PATH, required=False)
@click.option("-o", "--output", type=_PATH, required=True, metavar="FILE", help="The image to be written.")
@_source_options
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
    type=_SizeType("auto", "min"),
    default="auto",
    show_default=True,
    metavar="auto|min|N",
    help="Size of the image: N bytes (K, M, G, T are binary), as small as can be, or that and --free-space.",
)
@click.option(
    "--free-space",
    type=_SizeType(),
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

    with _errors(as_json=as_json):
        result = build_rootfs(
            source,
            output,
            layers=layers,
            docker_root=docker_root,
            agent=None if agent is None else _parse_agent(agent),
            files=[_parse_file(file) for file in files],
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
            _say(f"warning: {warning}")
        if not quiet:
            _say(_build_summary(result))
        if as_json:
            _print_json(result.as_dict())
        else:
            _print_path(os.fspath(result.path))


@cli.command(epilog=_EXIT_CODES, short_help="Say whether an image is sound.")
@click.argument("image", type=_PATH)
@click.option("--json", "as_json", is_flag=True, help="Print all results as JSON on stdout.")
def check(image: str, as_json: bool) -> None:
    """Says whether IMAGE, a file or a block device, is a sound ext4.

    It compares the magic number, the checksums of the superblock, of every group's descriptor and
    bitmaps and of the root directory's inode, the free counts, the features and the geometry
    against the file's size. Files' data and other inodes are left to e2fsck.
    """
    from layermelt.images import check_image

    with _errors(as_json=as_json):
        report = check_image(image)
        if as_json:
            _print_json(report.as_dict())
        elif report.sound:
            _print_text(f"{image}: sound ext4, {_size(report.size)}, {len(report.features)} features")
        if not report.sound:
            if not as_json:
                _say(_problems(report))
            raise SystemExit(1)


@cli.command(
    epilog=_EXIT_CODES,
    short_help="Tell what a source or an image holds.",
    help="Tells what SOURCE holds when it is merged, without writing anything, or what an image says about "
    f"itself.\n\n{_SOURCE_HELP}",
)
@click.argument("source", type=_PATH, required=False, metavar="[SOURCE|IMAGE]")
@_source_options
def inspect(
    source: str | None,
    layers: tuple[str, ...],
    docker_root: str | None,
    userxattr: bool | None,
    threads: int | None,
    as_json: bool,
) -> None:
    with _errors(as_json=as_json):
        if source is not None and not layers and _is_image(source):
            from layermelt.images import check_image

            report = check_image(source)
            if as_json:
                _print_json({"kind": "image", **report.as_dict()})
            else:
                _print_text(_image_text(report))
            return
        from layermelt.builder import inspect_source

        result = inspect_source(
            source, layers=layers, docker_root=docker_root, threads=threads, userxattr=userxattr
        )
        for warning in result.warnings:
            _say(f"warning: {warning}")
        if as_json:
            _print_json({"kind": "source", **result.as_dict()})
        else:
            _print_text(_source_text(result))


def main() -> NoReturn:
    """Runs the command line and exits with its code."""
    # Like Ctrl-C, so that what was begun is cleaned up.
    signal.signal(signal.SIGTERM, _terminate)
    try:
        cli.main(prog_name="layermelt", standalone_mode=False)
    except (click.exceptions.Abort, KeyboardInterrupt):
        _say("interrupted")
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

    _print_text(f"layermelt {__version__}")
    ctx.exit()


def _terminate(_number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(143)


def _unexpected(error: BaseException) -> NoReturn:
    """A fault of layermelt itself is one message as well."""
    if os.environ.get("LAYERMELT_TRACEBACK"):
        raise error
    _say(
        f"error: a fault of layermelt itself: {type(error).__name__}: {error}; please report it "
        "(with LAYERMELT_TRACEBACK=1 in the environment it says where)"
    )
    raise SystemExit(InternalError.return_code)


@contextlib.contextmanager
def _errors(*, as_json: bool) -> Iterator[None]:
    """An error is one message on stderr and an exit code; with --json also an object on stdout."""
    try:
        yield
    except LayermeltError as error:
        if as_json:
            _print_json({"error": _error_dict(error)})
        _say(f"error: {error}")
        raise SystemExit(error.return_code) from None


def _error_dict(error: LayermeltError) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "type": type(error).__name__,
        "message": error.message,
        "path": error.path,
        "exit_code": error.return_code,
    }
    for name in ("paths", "problems", "given", "needed"):
        if hasattr(error, name):
            fields[name] = getattr(error, name)
    return fields


def _parse_agent(text: str) -> InjectedFile:
    from layermelt.builder import InjectedFile

    source, colon, destination = text.rpartition(":/")
    if not colon:
        return InjectedFile(settings.AGENT_DESTINATION, source=text, mode=settings.AGENT_MODE)
    return InjectedFile("/" + destination, source=source, mode=settings.AGENT_MODE)


def _parse_file(text: str) -> InjectedFile:
    from layermelt.builder import InjectedFile

    match = re.fullmatch(r"(?P<source>.+):(?P<destination>/.*?)(?::(?P<mode>[0-7]{3,5}))?", text, re.DOTALL)
    if match is None:
        raise InvalidOptionError(
            f"invalid --file {text!r}: expected SRC:DEST[:MODE] with an absolute DEST and an octal MODE"
        )
    mode = None if match["mode"] is None else settings.parse_mode(match["mode"], "mode in --file")
    return InjectedFile(match["destination"], source=match["source"], mode=mode)


def _is_image(source: str) -> bool:
    try:
        mode = os.stat(source).st_mode
    except OSError:
        return False
    return stat.S_ISREG(mode) or stat.S_ISBLK(mode)


def _build_summary(result: BuildResult) -> str:
    free = f"{_size(result.free_blocks * result.block_size)} and {result.free_inodes:,} inodes free"
    return "\n".join(
        (
            result.source,
            _counts(result),
            f"image {_size(result.size)}, {_size(result.allocated)} on the disk, {free}",
            f"{_phases(result.phases)} = {result.seconds:.2f} s ({result.copy_method})",
        )
    )


def _counts(result: BuildResult | InspectResult) -> str:
    return (
        f"{result.entries:,} entries: {result.files:,} files, {result.directories:,} directories, "
        f"{result.symlinks:,} symlinks, {result.special:,} special, {result.hard_links:,} further hard links; "
        f"{_size(result.content)} of content"
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
        f"size {_size(report.size)}: {report.blocks:,} blocks of {report.block_size}, {report.free_blocks:,} free",
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


def _size(count: int) -> str:
    number = float(count)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if number < 1024:
            return f"{count} bytes" if unit == "bytes" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} TiB"


def _printable(text: str) -> str:
    """Without what a terminal would obey, or an encoding could not say: names are anyone's."""
    escaped = (
        char
        if char.isprintable() or char in "\n\t"
        else char.encode("utf-8", "surrogateescape").decode("latin-1").encode("unicode_escape").decode()
        if len(char.encode("utf-8", "surrogateescape")) == 1
        else char.encode("unicode_escape").decode()
        for char in text
    )
    return "".join(escaped)


def _say(text: str) -> None:
    """To stderr. That it is closed is no reason to fail."""
    with contextlib.suppress(OSError, ValueError):
        _write(sys.stderr, f"layermelt: {_printable(text)}\n")


def _print_text(text: str) -> None:
    with _results():
        _write(sys.stdout, _printable(text) + "\n")


def _print_json(value: dict[str, Any]) -> None:
    # ASCII: every locale can say it, and "\udcff" stands for the byte 0xff as in os.fsdecode.
    with _results():
        _write(sys.stdout, json.dumps(value, indent=2) + "\n")


def _print_path(path: str) -> None:
    """The path itself, byte for byte: it is meant for programs."""
    with _results():
        click.echo(os.fsencode(path) + b"\n", nl=False)


@contextlib.contextmanager
def _results() -> Iterator[None]:
    """What is to be read on stdout: that it cannot be written there is a failure."""
    try:
        yield
    except OSError as error:
        # Python would try again while it exits, and complain.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.close(null)
        if isinstance(error, BrokenPipeError):
            raise SystemExit(128 + signal.SIGPIPE) from None
        _say(f"error: cannot write the results to stdout: {error.strerror}")
        raise SystemExit(OutputError.return_code) from None


def _write(stream: Any, text: str) -> None:
    encoding = getattr(stream, "encoding", None) or "ascii"
    stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
    stream.flush()


if __name__ == "__main__":
    main()
