"""Source locations for messages: ``app.py:12`` for code, ``greet.proto:7`` for protos."""

from __future__ import annotations

import functools
import inspect
import linecache
import os
import re
import tokenize
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sdk.service import Service

_DEF = re.compile(r"\s*(async\s+)?def\s")


def of_function(function: Any) -> str:
    """Return the location of the ``def`` of a function or property; ``""`` for anything not written in Python.

    Args:
        function: A function, a ``property`` or a ``functools.cached_property``.
    """
    if isinstance(function, property):
        function = function.fget
    elif isinstance(function, functools.cached_property):
        function = function.func
    code = getattr(function, "__code__", None)
    if code is None:
        return ""
    first = line = code.co_firstlineno
    if code.co_name == "<lambda>":
        return format_location(code.co_filename, first)
    # The code object begins at the first decorator; the author looks for the name.
    while (text := linecache.getline(code.co_filename, line)) and not _DEF.match(text):
        line += 1
    return format_location(code.co_filename, line if text else first)


def of_class(cls: type) -> str:
    """Return the location of a ``class`` statement; ``""`` when the source is not available."""
    try:
        path = inspect.getfile(cls)
        lines, first = inspect.getsourcelines(cls)
    except (OSError, TypeError, SyntaxError, tokenize.TokenError):
        return ""
    offset = next((i for i, line in enumerate(lines) if line.lstrip().startswith("class ")), 0)
    return format_location(path, first + offset)


def of_proto(service: Service, line: int) -> str:
    """Return a location in the proto file of a service.

    Args:
        service: The service.
        line: The line, from 1; 0 when unknown.
    """
    return f"{service.proto}:{line}" if line else service.proto


def format_location(path: str, line: int | None) -> str:
    """Return ``file:line``, with the path relative to the working directory, or the bare file name outside of it.

    Args:
        path: The file.
        line: The line, from 1; None when unknown.

    Example:
        >>> format_location("/elsewhere/app.py", 12), format_location("app.py", None)
        ('app.py:12', 'app.py')
    """
    file = Path(path)
    try:
        short = str(file.relative_to(os.getcwd())) if file.is_absolute() else path
    except (ValueError, OSError):  # outside the working directory, or that is deleted
        short = file.name
    return f"{short}:{line}" if line else short


def find_proto(name: str) -> Path | None:
    """Return a proto file in the working directory or in one of its folders, or None.

    Args:
        name: The path that protoc knows it by, ``"acme/greet.proto"``.
    """
    here = Path.cwd()
    return next((path for path in (here / name, *sorted(here.glob(f"*/{name}"))) if path.is_file()), None)
