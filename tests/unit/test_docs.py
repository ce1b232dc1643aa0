"""What the pages name is there."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from layermelt.cli import cli

ROOT = Path(__file__).resolve().parents[2]


def commands() -> dict[str, click.Command]:
    context = click.Context(cli)
    found = {name: cli.get_command(context, name) for name in cli.list_commands(context)}
    return {name: command for name, command in found.items() if command is not None}


def test_readme_names_every_command_and_no_other() -> None:
    table = re.findall(r"^\| `([a-z0-9]+) [^`]*` \|", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert sorted(table) == sorted(commands())


def test_options_that_readme_names_are_there() -> None:
    options = {name for command in commands().values() for one in command.params for name in one.opts}
    own = re.sub(r"(?s)## `make demo`.*?## Licence", "", (ROOT / "README.md").read_text())
    named = set(re.findall(r"`(--[a-z-]+)", own))
    assert named - options == set()
    assert "--profile" in named


@pytest.mark.parametrize("page", ["ARCHITECTURE.md", "CONTRIBUTING.md"])
def test_paths_that_a_page_names_are_there(page: str) -> None:
    text = (ROOT / page).read_text()
    named = set(re.findall(r"`((?:rust|python|tests|benches)/[A-Za-z0-9_/.-]+)`", text))
    assert len(named) > 3
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []
