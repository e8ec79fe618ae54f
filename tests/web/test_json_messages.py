"""Conversions from and to JSON next to protobuf's own: random messages, and JSON with values that do not fit."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor as Field
from google.protobuf.message import Message
from google.protobuf.type_pb2 import Type
from hypothesis import given
from hypothesis import strategies as st

from sdk._gen import envoy_pb2
from sdk._protos.wire_format import is_repeated, map_entry
from sdk._web.json_codec import parse_message
from sdk._web.json_reader import message_of
from sdk._web.json_writer import message_text
from sdk._wire.frames import FrameError
from sdk._wire.metadata import INVALID_ARGUMENT

_FLOATS = (0.0, -0.0, 1.0, 0.1, 1 / 3, 1e-7, -2.5e10, 1e22, 5e-324, 123456789.125, math.inf, -math.inf, math.nan)
_TEXTS = ("", "a", 'ü "\\\n\t\u2028\0', "😀", "true", "12", "a" * 40)
_INTEGERS = {
    Field.TYPE_INT32: (-(2**31), 2**31 - 1), Field.TYPE_SINT32: (-(2**31), 2**31 - 1),
    Field.TYPE_SFIXED32: (-(2**31), 2**31 - 1), Field.TYPE_INT64: (-(2**63), 2**63 - 1),
    Field.TYPE_SINT64: (-(2**63), 2**63 - 1), Field.TYPE_SFIXED64: (-(2**63), 2**63 - 1),
    Field.TYPE_UINT32: (0, 2**32 - 1), Field.TYPE_FIXED32: (0, 2**32 - 1),
    Field.TYPE_UINT64: (0, 2**64 - 1), Field.TYPE_FIXED64: (0, 2**64 - 1),
}  # fmt: skip
# Values that fit few fields, in place of those that fit.
_ODD: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 1.0, 1.5, 2**31, 2**64, -(2**63) - 1, 10**400, 1e39, 3.4028235e38, math.nan, math.inf,
    "", "1", "-7", "+1", "01", "1.0", "1e2", " 1", "1_0", "٣", "NaN", "nan", "Infinity", "-Infinity", "true",
    "COLOR_RED", "CLOSED_TWO", "color_red", "9" * 5000, "YQ", "YQ==", "_-8", "ü", "\ud800", "2024-02-30T00:00:00Z",
    "2024-02-29T12:00:00.5Z", "3.5s", "a.b,c", [], [None], [1], [True], ["1"], [[]], [{}], {}, {"a": 1}, {"text": "x"},
    {"aString": 1}, {"1": 1}, {"true": "COLOR_RED"}, {"\ud800": 1}, {"@type": "type.googleapis.com/sdk.web.Author"},
    {"@type": "type.googleapis.com/google.protobuf.Duration"}, {"@type": "none.Such"},
    {"@type": "type.googleapis.com/google.protobuf.Duration", "value": "1s"}, {"value": 1},
)  # fmt: skip


def _types() -> list[type[Message]]:
    from every_field_pb2 import EveryField
    from every_field_proto2_pb2 import OldFields

    return [EveryField, OldFields, envoy_pb2.RouteConfiguration, Type]


def _scalar(field: Field, source: random.Random) -> Any:
    if field.type in (Field.TYPE_DOUBLE, Field.TYPE_FLOAT):
        return source.choice((*_FLOATS, source.uniform(-1e6, 1e6), source.uniform(-1, 1)))
    if field.type == Field.TYPE_BOOL:
        return source.random() < 0.5
    if field.type == Field.TYPE_STRING:
        return source.choice(_TEXTS)
    if field.type == Field.TYPE_BYTES:
        return source.randbytes(source.randrange(5))
    if field.enum_type is not None:
        known = [value.number for value in field.enum_type.values]
        return source.choice(known if field.enum_type.is_closed else [*known, 77])
    low, high = _INTEGERS[field.type]
    return source.choice((low, high, 1, max(low, -1), source.randint(low, high)))


def _fill(message: Any, source: random.Random, depth: int) -> None:
    """Set some fields of a message to random values."""
    name = message.DESCRIPTOR.full_name
    if name == "google.protobuf.Any":
        inner = _types()[0]()
        _fill(inner, source, 0)
        message.Pack(inner)
    elif name == "google.protobuf.FieldMask":
        message.FromJsonString(source.choice(("", "a", "aB.c,d")))
    elif name in ("google.protobuf.Timestamp", "google.protobuf.Duration"):
        message.seconds, message.nanos = source.randrange(10**9), source.choice((0, 5, 10**6, 999_999_999))
    else:
        fields = message.DESCRIPTOR.fields
        for field in fields:
            if source.random() * min(len(fields), 12) < (3 if depth else 0.7):
                _set(message, field, source, depth)


def _set(message: Any, field: Field, source: random.Random, depth: int) -> None:
    count, entry = source.randrange(3), map_entry(field)
    if depth <= 0 and field.message_type is not None:
        return
    at = getattr(message, field.name)
    if entry is not None:
        key, value = entry.fields_by_name["key"], entry.fields_by_name["value"]
        for _ in range(count):
            if value.message_type is None:
                at[_scalar(key, source)] = _scalar(value, source)
            else:
                _fill(at[_scalar(key, source)], source, depth - 1)
    elif field.message_type is not None:
        for inner in [at.add() for _ in range(count)] if is_repeated(field) else [at]:
            inner.SetInParent()
            _fill(inner, source, depth - 1)
    elif is_repeated(field):
        at.extend([_scalar(field, source) for _ in range(count)])
    else:
        setattr(message, field.name, _scalar(field, source))


def _outcome(convert: Callable[[], Any]) -> Any:
    """Return the result, or the error with its text."""
    try:
        return convert()
    except Exception as error:
        return type(error), str(error)


def _read(convert: Callable[[], Message]) -> Any:
    return _outcome(lambda: convert().SerializePartialToString(deterministic=True))


def _texts(message: Message) -> tuple[Any, Any]:
    def expected() -> str:
        return json.dumps(json_format.MessageToDict(message), ensure_ascii=False, separators=(",", ":"))

    return _outcome(lambda: message_text(message)), _outcome(expected)


def _disturb(value: Any, source: random.Random) -> Any:
    """Return a JSON value in which some values do not fit."""
    if source.random() < 0.04:
        return source.choice(_ODD)
    if isinstance(value, dict):
        changed = {key: _disturb(item, source) for key, item in value.items()}
        if changed and source.random() < 0.1:
            key = source.choice(list(changed))
            other = source.choice(
                (key.upper(), "".join(f"_{c.lower()}" if c.isupper() else c for c in key), "[sdk.web.extra]")
            )
            changed[other] = source.choice((*_ODD, changed[key]))
        return changed
    return [_disturb(item, source) for item in value] if isinstance(value, list) else value


@given(st.integers(0, 2**32))
def test_messages_become_json_and_messages_again_as_with_protobuf(seed: int) -> None:
    source = random.Random(seed)
    for kind in _types():
        message = kind()
        _fill(message, source, 2)
        text, expected = _texts(message)
        assert text == expected
        if isinstance(text, str):
            value = json.loads(text)
            assert _read(lambda: message_of(value, kind)) == _read(lambda: json_format.ParseDict(value, kind()))  # noqa: B023  # called at once


@given(st.integers(0, 2**32))
def test_json_that_does_not_fit_ends_as_with_protobuf(seed: int) -> None:
    source = random.Random(seed)
    for kind in _types():
        message = kind()
        _fill(message, source, 2)
        expected = _texts(message)[1]
        if isinstance(expected, str):
            value = _disturb(json.loads(expected), source)
            assert _read(lambda: message_of(value, kind)) == _read(lambda: json_format.ParseDict(value, kind()))  # noqa: B023  # called at once


@pytest.mark.parametrize("odd", _ODD, ids=lambda odd: repr(odd)[:30])
def test_every_field_takes_what_protobuf_takes(odd: Any) -> None:
    for kind in _types()[:2]:
        for field in kind.DESCRIPTOR.fields:
            for name in dict.fromkeys((field.name, field.json_name)):  # many are the same
                for value in (odd, [odd], {"1": odd}, {"a": odd, "b": 1}):
                    given = {name: value}
                    got, expected = (
                        _read(lambda: message_of(given, kind)),  # noqa: B023  # called at once
                        _read(lambda: json_format.ParseDict(given, kind())),  # noqa: B023  # called at once
                    )
                    assert got == expected, (field.name, value)


@pytest.mark.parametrize("depth", [98, 99, 100, 101])
@pytest.mark.parametrize("last", [{}, {"at": "2024-02-29T12:00:00Z"}, {"int64Value": 1}, {"struct": {"a": {"b": 1}}}])
def test_the_limit_of_the_depth_is_that_of_protobuf(depth: int, last: dict[str, Any]) -> None:
    from every_field_pb2 import EveryField

    value = last
    for _ in range(depth - 1):
        value = {"inner": value}
    assert _read(lambda: message_of(value, EveryField)) == _read(lambda: json_format.ParseDict(value, EveryField()))


@pytest.mark.parametrize("given", [
    {"chosenText": "a", "chosenNumber": 1},
    {"chosenText": None, "chosenNumber": 1},
    {"aString": "a", "a_string": "b"},
    {"inner": {"aBool": True}, "inner ": {}},
    {"maybeDouble": 1, "_maybe_double": 1},
])  # fmt: skip
def test_fields_that_are_given_twice_end_as_with_protobuf(given: dict[str, Any]) -> None:
    from every_field_pb2 import EveryField

    assert _read(lambda: message_of(given, EveryField)) == _read(lambda: json_format.ParseDict(given, EveryField()))


def test_a_required_field_that_is_missing_is_named() -> None:
    from every_field_proto2_pb2 import Strict

    with pytest.raises(FrameError, match=r"is not JSON of a sdk\.web\.Strict: .*needed") as raised:
        parse_message(b"{}", Strict)
    assert raised.value.code == INVALID_ARGUMENT
    assert Strict.FromString(parse_message(b'{"needed": "x"}', Strict)).needed == "x"


def test_values_that_json_can_not_express_end_as_with_protobuf() -> None:
    from every_field_pb2 import EveryField
    from every_field_proto2_pb2 import OldFields, extra

    old = OldFields()
    old.Extensions[extra] = "x"
    infinite = EveryField()
    infinite.structs["a"].fields["b"].number_value = math.inf
    late = EveryField()
    late.inner.at.seconds = 10**15
    unknown = EveryField()
    unknown.any.type_url = "type.googleapis.com/none.Such"
    for message in (old, infinite, late, unknown):
        text, expected = _texts(message)
        assert text == expected
    assert _texts(infinite)[0][0] is json_format.SerializeToJsonError


def test_what_is_usual_is_not_left_to_protobuf(monkeypatch: pytest.MonkeyPatch) -> None:
    from every_field_pb2 import COLOR_DARK, EveryField

    message = EveryField(
        a_double=1.5, a_float=0.1, an_int32=-1, an_int64=2**60, a_uint64=3, a_bool=True, a_string="ü", some_bytes=b"a",
        color=COLOR_DARK, maybe_string="", longs=[1, -2], strings=["a"], texts={"a": "b"}, colors_by_number={1: 1},
        doubles_by_bool={True: 2.0}, chosen_number=5, string_value={"value": "x"}, int64_value={"value": -5}, named="n",
        inner=EveryField(inners=[EveryField(a_string="x"), EveryField()]),
    )  # fmt: skip
    message.at.FromJsonString("2024-02-29T12:00:00Z")
    expected = json_format.MessageToDict(message)
    for name in ("MessageToDict", "ParseDict"):
        monkeypatch.setattr(json_format, name, None)
    assert json.loads(message_text(message)) == expected
    assert message_of({**expected, "takes": None}, EveryField) == message
