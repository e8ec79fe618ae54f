"""The code in the documentation.

Every Python block compiles, its imports from `sdk` exist, and the command line takes every `sdk` command.
"""

from __future__ import annotations

import ast
import importlib
import re
import shlex
import textwrap
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from sdk.cli.main import main
from tests.test_docs import PAGES, ROOT

_FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_COMMAND = re.compile(r"^(?:    |\$ )(sdk .*)$", re.MULTILINE)
CHECKED = [page for page in PAGES if page.name != "CHANGELOG.md"]


def blocks_of(page: Path, language: str) -> Iterator[str]:
    for found, code in _FENCED.findall(page.read_text()):
        if found == language:
            yield textwrap.dedent(code)


def commands_of(page: Path) -> Iterator[str]:
    text = page.read_text()
    yield from (found.strip() for found in _COMMAND.findall(text))
    for language in ("sh", "shell", "bash", "console"):
        for block in blocks_of(page, language):
            yield from (line.strip() for line in block.splitlines() if line.startswith("sdk "))


def problem_of(command: str) -> str:
    """Return the reason why the command line does not take a command; empty if it does."""
    words: list[str] = []
    for word in shlex.split(command.replace("…", "X"), comments=True):
        if word in ("|", "&&", ";", ">", "&", "#") or word.startswith((">", "(")):
            break
        words.append(word)
    context = click.Context(main)
    command_ = main.get_command(context, words[1]) if len(words) > 1 and not words[1].startswith("-") else main
    if command_ is None:
        return f"no command {words[1]}"
    try:
        command_.make_parser(click.Context(command_, info_name=words[-1])).parse_args(words[2:])
    except click.UsageError as error:
        return error.format_message()
    return ""


@pytest.mark.parametrize("page", CHECKED, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_python_block_compiles_and_its_imports_exist(page: Path) -> None:
    missing = []
    for block in blocks_of(page, "python"):
        tree = compile(block, str(page), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT | ast.PyCF_ONLY_AST)
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "sdk":
                module = importlib.import_module(node.module or "")
                missing += [f"{node.module}.{each.name}" for each in node.names if not hasattr(module, each.name)]
    assert missing == []


@pytest.mark.parametrize("page", CHECKED, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_is_one_of_the_command_line(page: Path) -> None:
    assert [(command, problem) for command in commands_of(page) if (problem := problem_of(command))] == []


def test_a_command_that_does_not_exist_is_found() -> None:
    assert problem_of("sdk serve app") == "no command serve"
    assert "--prot" in problem_of("sdk run app:app --prot 9000")
    assert problem_of("sdk run app:app --port 9000  # a comment") == ""
    assert sum(1 for page in CHECKED for _ in commands_of(page)) > 50
