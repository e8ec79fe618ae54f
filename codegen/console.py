"""Text that every command prints the same way: errors, and counts."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Sequence

import click


def error_line(text: str, *, is_styled: bool = False) -> str:
    """Return an error as commands print it, with the prefix ``error:``.

    Args:
        text: The message.
        is_styled: Add the codes of a terminal. ``click.echo`` removes them where the output is not a terminal.

    Example:
        >>> error_line("protos does not exist")
        'error: protos does not exist'
    """
    prefix = "error:"
    return f"{click.style(prefix, fg='red', bold=True) if is_styled else prefix} {text}"


def show_error(text: str, details: Sequence[str] = ()) -> None:
    """Print an error on stderr.

    Args:
        text: The message.
        details: Lines to print before it.
    """
    for line in details:
        click.echo(line, err=True)
    if sys.stderr.isatty():
        text = wrapped(text, shutil.get_terminal_size().columns, len(error_line("")))
    click.echo(error_line(text, is_styled=True), err=True)


def wrapped(text: str, width: int, indent: int = 0) -> str:
    r"""Return a text with its long lines broken between words, where a terminal would break them anywhere.

    Args:
        text: The text.
        width: The most characters in a line.
        indent: Number of characters before the first line.

    Example:
        >>> wrapped("no such file: a-b.proto\nsee --help", 16, indent=7)
        'no such\nfile: a-b.proto\nsee --help'
    """
    filler = textwrap.TextWrapper(width, break_long_words=False, break_on_hyphens=False)
    lines = (filler.fill(line) for line in f"{'x' * indent}{text}".split("\n"))
    return "\n".join(lines)[indent:]


def count(number: int, noun: str) -> str:
    """Return a number with its noun, in the plural unless it is 1.

    Example:
        >>> count(1, "file"), count(2, "file")
        ('1 file', '2 files')
    """
    return f"{number} {noun}" + ("" if number == 1 else "s")
