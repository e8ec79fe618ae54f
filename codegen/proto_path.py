"""The option ``-I``, ``--proto-path`` of every command that compiles protos."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def proto_path_option(condition: str = "") -> Callable[[F], F]:
    """Return the decorator that adds the option to a command, which receives folders as ``proto_path``.

    Args:
        condition: When the option has an effect, for its help: ``"if TARGET is a proto"``.
    """
    return click.option(
        "-I",
        "--proto-path",
        multiple=True,
        type=click.Path(path_type=Path, readable=False),
        metavar="DIR",
        help=f"Search DIR for imported protos{f', {condition}' if condition else ''}. Repeatable.",
    )
