"""``layermelt convert LAYER``."""

from __future__ import annotations

import logging
import os
from typing import Any

import click

from layermelt.console import EXIT_CODES, PATH, errors, json_option, print_json, print_path, say

__all__ = ["command"]


@click.command("convert", epilog=EXIT_CODES, short_help="Make a layer's rootfs, as older agents do.")
@click.argument("layer", type=PATH)
@click.option("--cache-dir", type=PATH, metavar="DIR", help="Where the images are (default: /arcbox/bin).")
@click.option(
    "--agent", type=PATH, metavar="FILE", help="The agent to put in (default: /arcbox/bin/vm-agent)."
)
@click.option("--engine", metavar="native|oci2rootfs", help="What makes the image (default: native).")
@click.option(
    "--oci2rootfs",
    type=PATH,
    metavar="FILE",
    help="The program of the engine oci2rootfs (default: it is looked for).",
)
@click.option("--injector", metavar="auto|plan|mount", help="What puts the agent in (default: auto).")
@click.option("--busybox", type=PATH, metavar="FILE", help="The busybox of the injector mount.")
@click.option("--legacy", is_flag=True, help="Engine oci2rootfs, injector mount, key path.")
@click.option(
    "--key",
    type=click.Choice(["path", "content", "stat"]),
    help="What an image is named by: the layer's path (default), its content, or what stat says.",
)
@click.option("--no-verify", is_flag=True, help="Take a cached image by its magic number alone.")
@click.option("--no-agent-check", is_flag=True, help="Put the agent in even if the image cannot run it.")
@click.option(
    "--timeout", type=click.FloatRange(0, min_open=True), metavar="SECONDS", help="How long it may take."
)
@json_option
@click.option("-q", "--quiet", is_flag=True, help="No log on stderr.")
def command(
    layer: str,
    *,
    legacy: bool,
    no_verify: bool,
    no_agent_check: bool,
    as_json: bool,
    quiet: bool,
    **given: Any,
) -> None:
    """Prints the path of the rootfs of LAYER, a directory overlay2/<id>, with the agent in it.

    It is made unless it is in the cache: rootfs-KEY.ext4, which older agents take for theirs as
    this takes theirs. Each option's default is what LAYERMELT_<OPTION> in the environment says.
    """
    from layermelt.convert import convert_layer_to_rootfs
    from layermelt.settings import Settings

    logger = logging.getLogger("layermelt")
    handler = _Handler()
    if not quiet:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
    try:
        with errors(as_json=as_json):
            arguments = {name: value for name, value in given.items() if value is not None}
            if no_verify:
                arguments["verify"] = False
            if no_agent_check:
                arguments["agent_check"] = False
            settings = Settings.legacy(**arguments) if legacy else Settings(**arguments)
            path = convert_layer_to_rootfs(layer, settings=settings)
            if as_json:
                print_json({"layer": layer, "path": os.fspath(path)})
            else:
                print_path(os.fspath(path))
    finally:
        logger.removeHandler(handler)


class _Handler(logging.Handler):
    """The log as messages on stderr, the paths behind them."""

    _FIELDS = ("layer", "agent", "rootfs", "engine", "injector", "fault")

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler`."""
        fields = [f"{name}={getattr(record, name)}" for name in self._FIELDS if hasattr(record, name)]
        warning = "warning: " if record.levelno >= logging.WARNING else ""
        say(f"{warning}{record.getMessage()} {' '.join(fields)}".rstrip())
