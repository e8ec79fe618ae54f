"""Streams of JSON values in chunks of any size; every error has its position."""

from __future__ import annotations

import json
from itertools import chain

import pytest

from sdk.cli.rpc.json_places import offset_of
from sdk.cli.rpc.json_stream import JsonError, JsonStream

TEXT = ' {"a": "}{\\"\\\\", "b": [1, {"c": "é\\u00e9"}]}\n[1,2]"x" 12 true\tnull{"last":{}}\n{"a":1}-1.5e3\n'
VALUES = [{"a": '}{"\\', "b": [1, {"c": "éé"}]}, [1, 2], "x", 12, True, None, {"last": {}}, {"a": 1}, -1500.0]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_values_are_split_in_chunks_of_any_size(size: int) -> None:
    stream = JsonStream("-d")
    found = []
    for start in range(0, len(TEXT), size):
        found += stream.feed(TEXT[start : start + size])
    found += stream.end()
    assert [each.value for each in found] == VALUES
    lines = TEXT.split("\n")
    for each in found:
        assert lines[each.line - 1][each.column - 1 :].startswith(each.text[:1])


def test_an_object_is_returned_as_soon_as_it_is_complete() -> None:
    stream = JsonStream("stdin")
    assert [each.value for each in stream.feed('{"a": 1}')] == [{"a": 1}]
    assert list(stream.feed("\n12")) == []  # more digits may come
    assert [each.value for each in stream.feed("3 ")] == [123]
    assert list(stream.end()) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "line 1, column 2: invalid JSON: Expecting property name enclosed in double quotes"),
        ('{"a": 1}\n {"b" 2}', "line 2, column 7: invalid JSON: Expecting ':' delimiter"),
        ('{"a": 1,\n "b": }', "line 2, column 7: invalid JSON: Expecting value"),
        ("}", "line 1, column 1: invalid JSON: Expecting value"),
        ("hello {}", "line 1, column 1: invalid JSON: Expecting value"),
        ('{"a": "x', "line 1, column 7: invalid JSON: Unterminated string starting at"),
        ("{'a': 1}", "line 1, column 2: invalid JSON: Expecting property name enclosed in double quotes"),
        ('\n\n{"a": 1, "a": 2}', "line 3, column 1: `a` is twice in one object"),
        ('{"a": [}', "line 1, column 8: invalid JSON: Expecting value"),
        ("[" * 100_000 + "]" * 100_000, "line 1, column 1: it is nested too deeply"),
        ('{"a": ' + "1" * 5000 + "}", "line 1, column 1: a number has too many digits"),
    ],
)
def test_invalid_json(text: str, said: str) -> None:
    stream = JsonStream("-d")
    with pytest.raises(JsonError) as raised:
        list(chain(stream.feed(text), stream.end()))
    assert str(raised.value) == f"-d, {said}"


def test_values_before_an_invalid_one_are_returned() -> None:
    values = JsonStream("-d").feed('{"a": 1} {"a": 2} x ')
    assert [next(values).value, next(values).value] == [{"a": 1}, {"a": 2}]
    with pytest.raises(JsonError, match="column 19"):
        next(values)


@pytest.mark.parametrize(
    ("path", "begin"),
    [
        ([], '{ "a'),
        (["a"], '"a" :'),
        (["a", 1], '{"b'),
        (["a", 1, "b"], '"b":'),
        (["a", 1, "b", 0], "[3"),
        (["c\n"], '"c\\n"'),
    ],
)
def test_the_place_of_a_part(path: list[str | int], begin: str) -> None:
    text = ' { "a" : [ {"b": 1} , {"b": [[3, 4]]} ], "c\\n": "x" } '
    json.loads(text)
    assert text[offset_of(text, path) :].startswith(begin)
