"""A stream of JSON values, with or without line breaks between them, from chunks of text."""

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
# The first character after a number, `true`, `false` or `null`.
_SCALAR_END = re.compile(r'[\s"{}\[\]]')


class JsonError(OptionsError):
    """Data is not JSON, or not a message of the expected type. Its author must act."""


@dataclass(frozen=True, slots=True)
class JsonValue:
    """One JSON value and its position.

    Attributes:
        value: The value, as ``json.loads`` returns it.
        text: Its text.
        source: Its source, ``"-d"`` or the name of a file.
        line: The line of its first character, from 1.
        column: The column of its first character, from 1.
    """

    value: Any
    text: str
    source: str
    line: int
    column: int

    def place(self, offset: int = 0) -> str:
        """Return the position of a character of the text, ``"-d, line 1, column 9"``.

        Args:
            offset: The character's index in the text.
        """
        return _place(self.source, *_moved(self.line, self.column, self.text[:offset]))


class JsonStream:
    """Splits text into JSON values. Only an incomplete value is kept in memory.

    Args:
        source: The source of the text, for messages.

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
        # The text of the incomplete value, and the state of its parser.
        self._parts: list[str] = []
        self._is_scalar = False
        self._depth = 0
        self._in_string = False
        self._is_escaped = False

    def feed(self, text: str) -> Iterator[JsonValue]:
        """Parse more text and yield each value that is complete now.

        Raises:
            JsonError: A value is not JSON.
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
        """Yield the last value, if only the end of the text completes it.

        Raises:
            JsonError: The last value is not JSON, or incomplete.
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
        """Return the end of the value that continues at ``at``; None if it does not end in this text."""
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
            raise JsonError(f"{_place(self._source, line, column)}: invalid JSON: {error.msg}") from None
        except (_DuplicateError, RecursionError, ValueError) as error:
            others = {RecursionError: "it is nested too deeply", ValueError: "a number has too many digits"}
            what = others.get(type(error), str(error))
            raise JsonError(f"{_place(self._source, self._line, self._column)}: {what}") from None


class _DuplicateError(Exception):
    pass


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        names = [name for name, _ in pairs]
        name = next(name for name in names if names.count(name) > 1)
        raise _DuplicateError(f"`{name}` is twice in one object")
    return made


def _moved(line: int, column: int, text: str) -> tuple[int, int]:
    lines = text.count("\n")
    return line + lines, len(text) - text.rfind("\n") if lines else column + len(text)


def _place(source: str, line: int, column: int) -> str:
    return f"{source}, line {line}, column {column}"
