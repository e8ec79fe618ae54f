"""Where things are written: ``app.py:12`` for code, ``greet.proto:7`` for protos."""

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
    """Return the place of a function's ``def``, or of a property's; ``""`` for what is no Python function."""
    if isinstance(function, property):
        function = function.fget
    elif isinstance(function, functools.cached_property):
        function = function.func
    code = getattr(function, "__code__", None)
    if code is None:
        return ""
    first = line = code.co_firstlineno
    if code.co_name == "<lambda>":
        return place(code.co_filename, first)
    # Python counts from the first decorator; the author looks for the name.
    while (text := linecache.getline(code.co_filename, line)) and not _DEF.match(text):
        line += 1
    return place(code.co_filename, line if text else first)


def of_class(cls: type) -> str:
    """Return the place of a class's ``class``; ``""`` when its source is not known."""
    try:
        path = inspect.getfile(cls)
        lines, first = inspect.getsourcelines(cls)
    except (OSError, TypeError, SyntaxError, tokenize.TokenError):
        return ""
    offset = next((i for i, line in enumerate(lines) if line.lstrip().startswith("class ")), 0)
    return place(path, first + offset)


def of_proto(service: Service, line: int) -> str:
    """Return a place in the proto file of a service."""
    return f"{service.proto}:{line}" if line else service.proto


def place(path: str, line: int | None) -> str:
    """Return a file and a line, the file as short as it stays clear.

    Args:
        path: The file.
        line: The line, from 1; None when unknown.
    """
    file = Path(path)
    try:
        short = str(file.relative_to(os.getcwd())) if file.is_absolute() else path
    except (ValueError, OSError):  # elsewhere, or the working directory is gone
        short = file.name
    return f"{short}:{line}" if line else short


def find_proto(name: str) -> Path | None:
    """Return a proto file of the working directory, or of a folder in it, by the name that protoc knows it by."""
    here = Path.cwd()
    return next((path for path in (here / name, *sorted(here.glob(f"*/{name}"))) if path.is_file()), None)
