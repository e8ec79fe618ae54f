"""JSON values that follow one another: on lines of their own or not, whole or as they come."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sdk.errors import OptionsError

_SPACE = re.compile(r"[ \t\r\n]*")
_STRUCTURE = re.compile(r'["{}\[\]]')
_IN_STRING = re.compile(r'["\\]')
# What ends a number, `true`, `false` or `null`.
_SCALAR_END = re.compile(r'[\s"{}\[\]]')


class JsonError(OptionsError):
    """Data is no JSON, or no message of the type that is wanted. Its author must act."""


@dataclass(frozen=True, slots=True)
class JsonValue:
    """One JSON value and where it stands.

    Attributes:
        value: The value, as ``json.loads`` returns it.
        text: Its text.
        source: Where it comes from, ``"-d"`` or a file's name.
        line: The line of its first character, from 1.
        column: The column of its first character, from 1.
    """

    value: Any
    text: str
    source: str
    line: int
    column: int

    def place(self, offset: int = 0) -> str:
        """Return where a character of the text stands, ``"-d, line 1, column 9"``.

        Args:
            offset: The character's index in the text.
        """
        return _place(self.source, *_moved(self.line, self.column, self.text[:offset]))


class JsonStream:
    """Cuts text into JSON values. Nothing is kept but the value that is not complete yet.

    Args:
        source: Where the text comes from, for messages.

    Example:
        >>> stream = JsonStream("-d")
        >>> [each.value for each in stream.feed('{"a": 1}{"a"')]
        [{'a': 1}]
        >>> [each.value for each in stream.feed(': 2}')]
        [{'a': 2}]
        >>> list(stream.end())
        []
    """

    def __init__(self, source: str) -> None:
        self._source = source
        self._line, self._column = 1, 1
        # Of the value that is not complete yet: what there is of it, and where its text leads to.
        self._parts: list[str] = []
        self._is_scalar = False
        self._depth = 0
        self._in_string = False
        self._is_escaped = False

    def feed(self, text: str) -> Iterator[JsonValue]:
        """Take more text and yield each value that is complete now.

        Raises:
            JsonError: A value is no JSON.
        """
        at = 0
        while True:
            begin = at
            if not self._parts:
                space = _SPACE.match(text, at)
                assert space is not None
                self._line, self._column = _moved(self._line, self._column, space[0])
                begin = at = space.end()
                if at < len(text) and text[at] not in '"{[':
                    self._is_scalar = True
                    at += 1
            if begin == len(text):
                return
            end = self._end_of_value(text, at)
            self._parts.append(text[begin:end])
            if end is None:
                return
            at = end
            yield self._take()

    def end(self) -> Iterator[JsonValue]:
        """Yield the last value, where only the end of the text tells that it is complete.

        Raises:
            JsonError: The last value is no JSON, or not complete.
        """
        if self._parts:
            yield self._take()

    def _take(self) -> JsonValue:
        text = "".join(self._parts)
        value = JsonValue(self._loads(text), text, self._source, self._line, self._column)
        self._line, self._column = _moved(self._line, self._column, text)
        self._parts, self._is_scalar, self._depth, self._in_string, self._is_escaped = [], False, 0, False, False
        return value

    def _end_of_value(self, text: str, at: int) -> int | None:
        """Return where the value ends whose text goes on at ``at``; None when it does not end in this text."""
        if self._is_scalar:
            end = _SCALAR_END.search(text, at)
            return None if end is None else end.start()
        while True:
            if self._is_escaped:
                if at == len(text):
                    return None
                at, self._is_escaped = at + 1, False
            match = (_IN_STRING if self._in_string else _STRUCTURE).search(text, at)
            if match is None:
                return None
            at = match.end()
            if match[0] == "\\":
                self._is_escaped = True
            elif match[0] == '"':
                self._in_string = not self._in_string
            else:
                self._depth += 1 if match[0] in "{[" else -1
            if not self._in_string and self._depth <= 0:
                return at

    def _loads(self, text: str) -> Any:
        try:
            return json.loads(text, object_pairs_hook=_without_duplicates)
        except json.JSONDecodeError as error:
            line, column = _moved(self._line, self._column, text[: error.pos])
            raise JsonError(f"{_place(self._source, line, column)}: no JSON: {error.msg}") from None
        except (_DuplicateError, RecursionError) as error:
            what = str(error) if isinstance(error, _DuplicateError) else "it is nested too deeply"
            raise JsonError(f"{_place(self._source, self._line, self._column)}: {what}") from None


class _DuplicateError(Exception):
    pass


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        names = [name for name, _ in pairs]
        name = next(name for name in names if names.count(name) > 1)
        raise _DuplicateError(f"`{name}` stands twice in one object")
    return made


def _moved(line: int, column: int, text: str) -> tuple[int, int]:
    lines = text.count("\n")
    return line + lines, len(text) - text.rfind("\n") if lines else column + len(text)


def _place(source: str, line: int, column: int) -> str:
    return f"{source}, line {line}, column {column}"
