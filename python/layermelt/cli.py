"""The command line's frame. The commands are files in `layermelt.commands`."""

from __future__ import annotations

import contextlib
import importlib
import os
import pkgutil
import signal
import sys
from types import FrameType
from typing import Any, NoReturn

import click

from layermelt import commands
from layermelt.console import EXIT_CODES, print_text, say
from layermelt.errors import InternalError

__all__ = ["cli", "main"]

#: Started under this name, it is the command of that name.
_OLD_NAME = "oci2rootfs"

_CONTEXT: dict[str, Any] = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class _Commands(click.Group):
    """Each file in `layermelt.commands` is a command, imported when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return sorted(module.name for module in pkgutil.iter_modules(commands.__path__))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        command = importlib.import_module(f"layermelt.commands.{cmd_name}").command
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


def main() -> NoReturn:
    """Runs the command line and exits with its code."""
    # Like Ctrl-C, so that what was begun is cleaned up.
    signal.signal(signal.SIGTERM, _terminate)
    if signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:
        # Unless it is ignored: nohup(1).
        signal.signal(signal.SIGHUP, _terminate)
    try:
        if os.path.basename(sys.argv[0]) == _OLD_NAME:
            # By a symlink, in the place of the program of that name.
            from layermelt.commands.oci2rootfs import command

            command.main(prog_name=_OLD_NAME, standalone_mode=False)
        else:
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


def _terminate(number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


def _unexpected(error: BaseException) -> NoReturn:
    """A fault of layermelt itself is one message as well."""
    if os.environ.get("LAYERMELT_TRACEBACK"):
        raise error
    say(
        f"error: a fault of layermelt itself: {type(error).__name__}: {error}; please report it "
        "(with LAYERMELT_TRACEBACK=1 in the environment it says where)"
    )
    raise SystemExit(InternalError.return_code)


if __name__ == "__main__":
    main()
