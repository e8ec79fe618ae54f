"""docs/reference/cli.md documents every command and every option, and no others."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from sdk.cli.main import _COMMANDS, main
from sdk.cli.rpc.server_options import server_options

TEXT = (Path(__file__).parents[2] / "docs" / "reference" / "cli.md").read_text()
SECTIONS = dict(re.findall(r"^## sdk (\w+)\n(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL))


def options(command: click.Command) -> set[str]:
    shown = (param for param in command.params if isinstance(param, click.Option))
    return {name for param in shown for name in (*param.opts, *param.secondary_opts)}


def test_every_command_has_its_section_and_its_line_in_the_table() -> None:
    assert set(SECTIONS) >= set(_COMMANDS)
    assert set(re.findall(r"^\| \[`sdk (\w+)`\]\(#sdk-(?:\w+)\)", TEXT, re.MULTILINE)) == set(SECTIONS)


@pytest.mark.parametrize("name", _COMMANDS)
def test_every_option_is_told_and_no_other(name: str) -> None:
    command = main.get_command(click.Context(main), name)
    assert command is not None
    # In tables and examples; "`--tls-…`" stands for those of `sdk call`.
    told = set(re.findall(r"(?<![\w-])(--[a-z][a-z-]*[a-z]|-[A-Za-z])(?![\w-])", SECTIONS[name]))
    if name == "services":
        told |= options(server_options(click.command()(lambda: None)))
    assert options(command) - told == set()
    foreign = {"--include_imports", "--descriptor_set_out"} | options_of_others(name)
    assert told - options(command) - foreign == set()


def options_of_others(name: str) -> set[str]:
    """Return the options of other commands that the section of a command mentions as such."""
    mentioned = re.findall(r"`sdk (\w+) [^`]*?(--[a-z][a-z-]+|-[a-zA-Z])\b[^`]*`", SECTIONS[name])
    return {option for other, option in mentioned if other != name}
