"""Formats Python like ``ruff format``, so that generated code needs no formatter.

It supports only what the templates need: items in brackets, signatures, docstrings.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence

# The default of ruff and black.
WIDTH = 88

# A quote at the end that is not escaped: an even number of backslashes comes before it.
_BARE_QUOTE = re.compile(r'(?<!\\)(?:\\\\)*"$')


def bracketed(head: str, items: Sequence[str], tail: str, indent: int = 0) -> str:
    """Format items between brackets: on one line, else indented on one line, else one on each line.

    Args:
        head: The text before the items, with the opening bracket.
        items: The items.
        tail: The text after them, with the closing bracket.
        indent: Columns before ``head``. The first line is returned without them.
    """
    flat = ", ".join(items)
    one_tuple = "," if len(items) == 1 and head.endswith(("= (", "return (")) else ""
    if not items or indent + len(head + flat + one_tuple + tail) <= WIDTH:
        return head + flat + one_tuple + tail
    if not one_tuple and indent + 4 + len(flat) <= WIDTH:
        return _lines(indent, head, flat, tail)
    return exploded(head, items, tail, indent)


def listed(head: str, items: Sequence[str], tail: str) -> str:
    """Format the items of a list: on one line, else one on each line."""
    flat = head + ", ".join(items) + tail
    return flat if len(flat) <= WIDTH else exploded(head, items, tail)


def exploded(head: str, items: Sequence[str], tail: str, indent: int = 0) -> str:
    """Format items between brackets, one on each line. An item may have several lines, which are indented already."""
    return _lines(indent, head, *(f"{item}," for item in items), tail)


def imported(module: str, names: Sequence[str], comment: str = "") -> str:
    """Format a ``from … import …``, which has no form with all names on one indented line.

    Args:
        module: What to import from.
        names: The names to import.
        comment: A comment on its first line, with the spaces before it.
    """
    line = f"from {module} import {', '.join(names)}{comment}"
    return line if len(line) <= WIDTH else exploded(f"from {module} import ({comment}", names, ")")


def subscripted(name: str, subscripts: Sequence[str], arguments: str, indent: int) -> str:
    """Format ``name = Class[…](…)``, which breaks its last bracket first."""
    flat = f"{name}[{', '.join(subscripts)}]("
    if indent + len(f"{flat}{arguments})") <= WIDTH:
        return f"{flat}{arguments})"
    if indent + len(flat) <= WIDTH:
        return _lines(indent, flat, arguments, ")")
    return bracketed(f"{name}[", subscripts, f"]({arguments})", indent)


def signature(name: str, parameters: Sequence[str], alternatives: Sequence[str], indent: int) -> str:
    """Format a ``def`` that returns one of several types.

    Args:
        name: The function's name.
        parameters: Its parameters.
        alternatives: The types it may return.
        indent: Columns before ``def``. The first line is returned without them.
    """
    union = " | ".join(alternatives)
    flat = f"def {name}({', '.join(parameters)}) -> {union}:"
    if indent + len(flat) <= WIDTH:
        return flat
    tail = f") -> {union}:"
    if indent + len(tail) > WIDTH and len(alternatives) == 1:
        head, _, inner = union.partition("[")
        tail = _lines(indent, f") -> {head}[", inner[:-1], "]:")
    elif indent + len(tail) > WIDTH:
        # The type does not fit on one line; ruff wraps it in parentheses.
        fits = indent + 4 + len(union) <= WIDTH
        rows = (
            [union]
            if fits
            else [_narrow("| " * (row > 0) + each, "", indent + 4) for row, each in enumerate(alternatives)]
        )
        tail = _lines(indent, ") -> (", *rows, "):")
    inner = ", ".join(parameters)
    if indent + 4 + len(inner) <= WIDTH:
        return _lines(indent, f"def {name}(", inner, tail)
    return exploded(f"def {name}(", [_narrow(each, ",", indent + 4) for each in parameters], tail, indent)


def getter(name: str, generic: str, types: Sequence[str], indent: int) -> str:
    """Format the ``def`` of a property that returns ``generic[types]``. The first line is returned unindented."""
    annotation = f"{generic}[{', '.join(types)}]"
    flat = f"def {name}(self) -> {annotation}:"
    if indent + len(flat) <= WIDTH:
        return flat
    if indent + len(f") -> {annotation}:") > WIDTH:
        annotation = exploded(f"{generic}[", types, "]", indent)
    return _lines(indent, f"def {name}(", "self,", f") -> {annotation}:")


def subclass(name: str, bases: Sequence[str], comment: str, indent: int) -> str:
    """Format the head of a class with a comment on its first line. The first line is returned unindented."""
    # ruff does not count a comment for type checkers as part of the width.
    flat = f"class {name}({', '.join(bases)}):"
    if indent + len(flat) <= WIDTH:
        return flat + comment
    return exploded(f"class {name}({comment}", bases, "):", indent)


def docstring(text: str, indent: int) -> str:
    """Format a docstring. Its value is ``text``, whatever it contains.

    Args:
        text: Lines without trailing space or control characters.
        indent: Columns before it. The first line is returned without them.
    """
    first, *rest = text.replace("\\", "\\\\").replace('"""', r"\"\"\"").split("\n")
    # Indentation that all lines but the first share is not part of a docstring's value.
    lines = [first.lstrip(), *textwrap.dedent("\n".join(rest)).split("\n")] if rest else [first.lstrip()]
    # A quote next to the opening or closing quotes would be read as part of them.
    if lines[0].startswith('"'):
        lines[0] = "\\" + lines[0]
    if len(lines) > 1:
        margin = " " * indent
        return "\n".join([f'"""{lines[0]}', *(margin + line if line else "" for line in lines[1:]), f'{margin}"""'])
    if _BARE_QUOTE.search(lines[0]):
        lines[0] = lines[0][:-1] + '\\"'
    return f'"""{lines[0]}"""'


def _narrow(item: str, comma: str, indent: int) -> str:
    """Break ``Name[type]`` at its brackets if it does not fit on one line."""
    head, bracket, rest = item.partition("[")
    if not bracket or indent + len(item + comma) <= WIDTH:
        return item
    return _lines(indent, head + bracket, rest[:-1], "]")


def _lines(indent: int, head: str, *rest: str) -> str:
    *inner, tail = rest
    margin = " " * indent
    return "\n".join([head, *(f"{margin}    {line}" for line in inner), margin + tail])
