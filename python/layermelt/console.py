"""What the commands share: options, texts, results, and how errors are told."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import click

from layermelt import settings
from layermelt.errors import InvalidOptionError, LayermeltError, OutputError

if TYPE_CHECKING:
    from layermelt.images import ImageReport
    from layermelt.options import InjectedFile
    from layermelt.results import BuildResult, InspectResult

    _ParamType = click.ParamType[Any]
else:
    # Generic since click 8.2 only.
    _ParamType = click.ParamType

__all__ = [
    "EXIT_CODES",
    "PATH",
    "SOURCE_HELP",
    "SizeType",
    "chain_options",
    "counts_text",
    "errors",
    "file_options",
    "json_option",
    "json_text",
    "name_text",
    "parse_agent",
    "parse_file",
    "print_json",
    "print_path",
    "print_text",
    "problems_text",
    "say",
    "size_text",
    "source_options",
    "write_results",
]

EXIT_CODES = """\b
Exit codes:
  0    done; for check: the image is sound; for diff: the trees are equal
  1    the image is not sound; the trees differ
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
  129  its terminal was closed
  130  interrupted (143: terminated)
"""

SOURCE_HELP = """\b
SOURCE is one of
  DIR                   a chain directory: overlay2/<id> of Docker, overlay/<id>
                        of containers-storage (podman, buildah, CRI-O), or
                        snapshots/<id> of containerd's overlayfs snapshotter
  docker:NAME[:TAG]     an image of Docker, also docker:NAME@DIGEST or docker:ID,
                        read from the data root, also from the containerd image
                        store: no daemon need run
  containerd:NAME[:TAG] an image of containerd, in the namespace that
                        CONTAINERD_NAMESPACE tells (default: "default")
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


class SizeType(_ParamType):
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
        """See `click.ParamType.convert`."""
        if value in self._words or isinstance(value, int):
            return value
        try:
            return settings.parse_size(value, "size")
        except InvalidOptionError as error:
            words = "".join(f", or {word}" for word in self._words)
            self.fail(f"{error}{words}", param, ctx)


PATH = _PathType()


json_option = click.option("--json", "as_json", is_flag=True, help="Print all results as JSON on stdout.")


def chain_options(command: Callable[..., None]) -> Callable[..., None]:
    """What every command that reads chains takes."""
    for option in (
        json_option,
        click.option(
            "--userxattr/--no-userxattr",
            default=None,
            help="The layers' marks are user.overlay.* (default: what the store says).",
        ),
        click.option("--threads", type=click.IntRange(1, 256), help="Default: one for each processor."),
        click.option(
            "--docker-root",
            type=PATH,
            metavar="DIR",
            help=f"Docker's data root, for docker: (default: {settings.DEFAULT_DOCKER_ROOT}).",
        ),
    ):
        command = option(command)
    return command


def source_options(command: Callable[..., None]) -> Callable[..., None]:
    """What every command that reads a source takes."""
    layer = click.option(
        "--layer", "layers", type=PATH, multiple=True, metavar="DIR", help="A layer's tree, base first."
    )
    return layer(chain_options(command))


def file_options(command: Callable[..., None]) -> Callable[..., None]:
    """What every command that puts files into an image takes; see `parse_agent` and `parse_file`."""
    for option in (
        click.option(
            "--file",
            "files",
            multiple=True,
            metavar="SRC:DEST[:MODE]",
            help="A further file to put in, root's (default for MODE: 0755 if it is executable, else 0644).",
        ),
        click.option(
            "--agent",
            metavar="FILE[:DEST]",
            help=f"A program to put in, 0755 and root's (default for DEST: {settings.AGENT_DESTINATION}).",
        ),
    ):
        command = option(command)
    return command


@contextlib.contextmanager
def errors(*, as_json: bool) -> Iterator[None]:
    """An error is one message on stderr and an exit code; with --json also an object on stdout."""
    try:
        yield
    except LayermeltError as error:
        if as_json:
            print_json({"error": _error_dict(error)})
        say(f"error: {error}")
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


def parse_agent(text: str) -> InjectedFile:
    """The file that ``--agent FILE[:DEST]`` means."""
    from layermelt.options import InjectedFile

    source, colon, destination = text.rpartition(":/")
    if not colon:
        return InjectedFile(settings.AGENT_DESTINATION, source=text, mode=settings.AGENT_MODE)
    return InjectedFile("/" + destination, source=source, mode=settings.AGENT_MODE)


def parse_file(text: str) -> InjectedFile:
    """The file that ``--file SRC:DEST[:MODE]`` means."""
    from layermelt.options import InjectedFile

    match = re.fullmatch(r"(?P<source>.+):(?P<destination>/.*?)(?::(?P<mode>[0-7]{3,5}))?", text, re.DOTALL)
    if match is None:
        raise InvalidOptionError(
            f"invalid --file {text!r}: expected SRC:DEST[:MODE] with an absolute DEST and an octal MODE"
        )
    mode = None if match["mode"] is None else settings.parse_mode(match["mode"], "mode in --file")
    return InjectedFile(match["destination"], source=match["source"], mode=mode)


def size_text(count: int) -> str:
    """A number of bytes as people read it."""
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


#: Names that stand as they are, as nearly all do: printable ASCII but blank, quote, backslash.
_PLAIN = re.compile(rb"[!#-\[\]-~]+")
_ESCAPES = {"\n": "\\n", "\t": "\\t", "\r": "\\r", '"': '\\"', "\\": "\\\\"}


def name_text(name: bytes, *, quoted: bool = False) -> str:
    r"""A name of any bytes in one word from which they can be told again.

    It stands in double quotes when it has a blank, a quote, a backslash or what stdout cannot
    say or a terminal would obey; then a byte of such is ``\xNN``. The empty name is ``""``.
    """
    if not quoted and _PLAIN.fullmatch(name):
        return name.decode("ascii")
    encoding = getattr(sys.stdout, "encoding", None) or "ascii"
    parts = []
    for char in name.decode("utf-8", "surrogateescape"):
        known = _ESCAPES.get(char)
        if known is not None:
            parts.append(known)
        elif char.isprintable() and _can_say(char, encoding):
            parts.append(char)
        else:
            parts += [f"\\x{byte:02x}" for byte in char.encode("utf-8", "surrogateescape")]
    text = "".join(parts)
    plain = text and not quoted and not any(char in text for char in ' "\\')
    return text if plain else f'"{text}"'


def _can_say(char: str, encoding: str) -> bool:
    if char.isascii():
        return True
    try:
        char.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def say(text: str) -> None:
    """To stderr. That it is closed is no reason to fail."""
    with contextlib.suppress(OSError, ValueError):
        _write(sys.stderr, f"layermelt: {_printable(text)}\n")


def print_text(text: str) -> None:
    """Results for people go to stdout; what they cannot say there is escaped."""
    with _results():
        _write(sys.stdout, _printable(text) + "\n")


def print_json(value: dict[str, Any]) -> None:
    """Results for programs go to stdout."""
    with _results():
        _write(sys.stdout, json_text(value, indent=2) + "\n")


def json_text(value: dict[str, Any], *, indent: int | None = None) -> str:
    r"""A document that every parser takes, in ASCII, which every locale can say.

    Half a surrogate pair, as `os.fsdecode` makes of a byte that is no UTF-8, is an error for
    many parsers. Such a name has U+FFFD there, and its bytes in hex are under ``<its key>_hex``
    beside it (for a list of names: a list of all in hex).
    """
    text = json.dumps(value, indent=indent)
    return json.dumps(_without_halves(value), indent=indent) if "\\udc" in text else text


def _without_halves(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    if isinstance(value, (list, tuple)):
        return [_without_halves(one) for one in value]
    if not isinstance(value, dict):
        return value
    whole = {}
    for key, one in value.items():
        whole[key] = _without_halves(one)
        names = [one] if isinstance(one, str) else one if isinstance(one, (list, tuple)) else []
        if any(isinstance(name, str) and _has_half(name) for name in names):
            as_hex = [name.encode("utf-8", "surrogateescape").hex() for name in names]
            whole[f"{key}_hex"] = as_hex[0] if isinstance(one, str) else as_hex
    return whole


def _has_half(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return True
    return False


def write_results(text: str) -> None:
    """A part of the results, in which nothing is left to be escaped."""
    with _results():
        _write(sys.stdout, text)


def print_path(path: str) -> None:
    """The path itself, byte for byte: it is meant for programs."""
    with _results():
        click.echo(os.fsencode(path) + b"\n", nl=False)


@contextlib.contextmanager
def _results() -> Iterator[None]:
    """What is to be read on stdout: that it cannot be written there is a failure."""
    try:
        _demand_open(sys.stdout)
        yield
    except OSError as error:
        # Python would try again while it exits, and complain.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.close(null)
        if isinstance(error, BrokenPipeError):
            raise SystemExit(128 + signal.SIGPIPE) from None
        say(f"error: cannot write the results to stdout: {error.strerror}")
        raise SystemExit(OutputError.return_code) from None


def _demand_open(stream: Any) -> None:
    """Python has no stream where the process was started without one."""
    if stream is None:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))


def _write(stream: Any, text: str) -> None:
    _demand_open(stream)
    encoding = getattr(stream, "encoding", None) or "ascii"
    stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
    stream.flush()


def counts_text(result: BuildResult | InspectResult) -> str:
    """What is in a tree, in a line. The root has no name and so is no entry."""
    return (
        f"{result.entries:,} entries: {result.files:,} files, {result.directories - 1:,} directories, "
        f"{result.symlinks:,} symlinks, {result.special:,} special, {result.hard_links:,} further hard links; "
        f"{size_text(result.content)} of content"
    )


def problems_text(report: ImageReport) -> str:
    """What is wrong with an image, a line each."""
    lines = [f"{report.path}: not a sound ext4"]
    lines += [f"  {problem.code}: {problem.text}" for problem in report.problems]
    if report.more_problems:
        lines.append(f"  and {report.more_problems:,} more")
    return "\n".join(lines)
