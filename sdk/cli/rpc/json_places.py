"""Positions in a JSON text, for errors about a value that is valid JSON but does not fit."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

_SPACE = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder()


def offset_of(text: str, path: Sequence[str | int]) -> int:
    """Return the offset of a part of a valid JSON text.

    Args:
        text: The text.
        path: Names of members and indices of elements, from the outside in. The offset of a member is that of its name.

    Example:
        >>> offset_of('{"a": [1, {"b": 2}]}', ["a", 1, "b"])
        11
    """
    at, name_at = _skip(text, 0), 0
    for step in path:
        begin, at = at, _skip(text, at + 1)
        index = 0
        while True:
            name_at = at
            if text[begin] == "{":
                name, at = _DECODER.raw_decode(text, at)
                at = _skip(text, _skip(text, at) + 1)  # over the colon
                found = name == step
            else:
                found = index == step
                index += 1
            if found:
                break
            _, at = _DECODER.raw_decode(text, at)
            at = _skip(text, _skip(text, at) + 1)  # over the comma
    return name_at if path else at


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    assert match is not None
    return match.end()
