"""``layermelt inject IMAGE``."""

from __future__ import annotations

import os

import click

from layermelt.console import (
    EXIT_CODES,
    PATH,
    errors,
    file_options,
    json_option,
    parse_agent,
    parse_file,
    print_json,
    print_path,
    say,
)

__all__ = ["command"]


@click.command("inject", epilog=EXIT_CODES, short_help="Put an agent or files into a finished image.")
@click.argument("image", type=PATH)
@file_options
@click.option("--injector", default="mount", show_default=True, metavar="mount", help="What puts them in.")
@click.option("--no-agent-check", is_flag=True, help="Put the agent in even if the image cannot run it.")
@click.option(
    "--timeout", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS", help="It may take so long."
)
@json_option
@click.option("-q", "--quiet", is_flag=True, help="No summary on stderr.")
def command(
    image: str,
    *,
    agent: str | None,
    files: tuple[str, ...],
    injector: str,
    no_agent_check: bool,
    timeout: float | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Puts files into the ext4 IMAGE, whoever made it, in place. Needs root.

    The image is mounted where only this command sees it: however it ends, no mount and no loop
    device is left. Symlinks in the image lead nowhere out of it. Each file is in the image whole
    or not at all, and is read back. An image that is in use is refused.
    """
    from layermelt.inject.files import inject_files

    with errors(as_json=as_json):
        report = inject_files(
            image,
            agent=None if agent is None else parse_agent(agent),
            files=[parse_file(file) for file in files],
            injector=injector,
            agent_check=not no_agent_check,
            timeout=timeout,
        )
        if not quiet:
            say(f"put in by {report.injector} in {report.seconds:.2f} s: {' '.join(report.files)}")
        if as_json:
            print_json(report.as_dict())
        else:
            print_path(os.fspath(report.path))
