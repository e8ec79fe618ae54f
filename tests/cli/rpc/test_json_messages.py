"""Messages from and to JSON; an error has the position and the expected type."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.struct_pb2 import Value
from google.protobuf.timestamp_pb2 import Timestamp

from sdk._protos.descriptors import Descriptors, with_imports
from sdk.cli.rpc.json_messages import JsonCodec, UnprintableError, dumps
from sdk.cli.rpc.json_stream import JsonError, JsonStream
from tests.support.desk_server import Ticket


def pool() -> DescriptorPool:
    return Descriptors(with_imports([Ticket.DESCRIPTOR.file]), "desk").pool


def read(text: str, **options: bool) -> Any:
    known = pool()
    stream = JsonStream("-d")
    (value,) = [*stream.feed(text), *stream.end()]
    kind = GetMessageClass(known.FindMessageTypeByName("desk.v1.Ticket"))
    return JsonCodec(known, **options).read(value, kind)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[1]", "column 1: desk.v1.Ticket must be an object in {}, not [1]"),
        ('{"titel": "x"}', "column 2: desk.v1.Ticket has no field `titel`; did you mean `title`?"),
        ('{"owner": {"name": 1}}', "column 12: desk.v1.Person has no field `name`; it has `firstName`, `age`"),
        ('{"owner": {"xyz": 1}}', "column 12: desk.v1.Person has no field `xyz`; it has `firstName`, `age`"),
        ('{"title": 1}', "column 2: `title` must be a string, not 1"),
        ('{"number": "x"}', 'column 2: `number` must be an integer (int64), not "x"'),
        ('{"number": 1.5}', "column 2: `number` must be an integer (int64), not 1.5"),
        ('{"owner": {"age": 3000000000}}', "column 12: `age` must be an integer (int32), not 3000000000"),
        ('{"vip": "yes"}', 'column 2: `vip` must be true or false, not "yes"'),
        ('{"price": "x"}', 'column 2: `price` must be a number, not "x"'),
        ('{"stamp": 7}', "column 2: `stamp` must be a string in base64, not 7"),
        ('{"seats": 1}', "column 2: `seats` is repeated: it must be a list in [], not 1"),
        ('{"seats": [1, 2, "x"]}', 'column 18: `seats[2]` must be an integer (int32), not "x"'),
        ('{"waiting": [{}, {"age": true}]}', "column 19: `age` must be an integer (int32), not true"),
        ('{"waiting": [null]}', "column 14: `waiting[0]` must be desk.v1.Person, not null"),
        ('{"owner": 3}', "column 2: `owner` must be desk.v1.Person, not 3"),
        (
            '{"urgency": "HIHG"}',
            "column 2: `urgency` must be a value of enum desk.v1.Urgency, not \"HIHG\"; did you mean 'HIGH'?",
        ),
        (
            '{"urgency": "soon"}',
            'column 2: `urgency` must be a value of enum desk.v1.Urgency, not "soon": URGENCY_UNSPECIFIED, LOW, HIGH',
        ),
        ('{"guests": [1]}', "column 2: `guests` is a map: it must be an object in {}, not [1]"),
        ('{"guests": {"a": {}, "b": {"age": "x"}}}', 'column 28: `age` must be an integer (int32), not "x"'),
        (
            '{"labels": {"x": "y"}}',
            'column 13: `labels` maps from an integer (int32) to a string: {"x": "y"} does not fit',
        ),
        ('{"due": "today"}', 'column 2: `due` must be google.protobuf.Timestamp, not "today"'),
        ('{"note": 3}', "column 2: `note` must be google.protobuf.StringValue, not 3"),
    ],
)  # fmt: skip
def test_values_that_do_not_fit(text: str, said: str) -> None:
    with pytest.raises(JsonError) as raised:
        read(text)
    assert str(raised.value) == f"-d, line 1, {said}"


def test_the_line_counts_within_the_text() -> None:
    with pytest.raises(JsonError, match=r"^-d, line 4, column 5: desk.v1.Person has no field `years`; it has"):
        read('\n{\n  "owner": {\n    "years": 1}}')


def test_a_problem_of_no_single_part_has_the_message_of_protobuf() -> None:
    with pytest.raises(JsonError, match=r'^-d, line 1, column 1: .*should not have multiple "place" oneof fields'):
        read('{"room": "a", "isRemote": true}')


def test_unknown_fields_can_be_ignored() -> None:
    assert read('{"titel": "x", "number": 3}', allow_unknown_fields=True).number == 3


FULL = {
    "title": "t",
    "number": "3",
    "seats": [1],
    "urgency": "HIGH",
    "owner": {"firstName": "a"},
    "guests": {"x": {"age": 1}},
    "isRemote": True,
    "due": "2026-01-01T00:00:00Z",
    "note": "n",
    "form": {"a": [1.0, None]},
    "stamp": "AQI=",
    "price": 0.5,
    "vip": False,
    "extra": {"@type": "type.googleapis.com/desk.v1.Person", "age": 7},
}


def test_round_trip() -> None:
    message = read(json.dumps(FULL))
    assert json.loads(JsonCodec(pool()).write(message)) == FULL


def test_names_and_defaults() -> None:
    message = read('{"owner": {"age": 1}}')
    assert JsonCodec(pool(), proto_names=True, emit_defaults=True).as_dict(message)["owner"] == {
        "first_name": "",
        "age": 1,
    }
    assert JsonCodec(pool(), emit_defaults=True).as_dict(message)["seats"] == []
    assert "vip" not in JsonCodec(pool(), emit_defaults=True).as_dict(message)  # it knows whether it is there


def test_an_any_of_an_unknown_type_has_its_bytes() -> None:
    known = pool()
    kind = GetMessageClass(known.FindMessageTypeByName("desk.v1.Ticket"))
    stranger = AnyMessage(type_url="type.googleapis.com/far.away.Thing", value=b"\x01\x02")
    inner = kind(extra={"type_url": "x/far.away.Thing", "value": b"\x03"})
    message: Any = kind(extra={"type_url": "x/desk.v1.Ticket", "value": inner.SerializeToString()})
    message.form.update({"a": 1})
    messages = JsonCodec(known)
    assert messages.as_dict(message)["extra"] == {
        "@type": "x/desk.v1.Ticket",
        "extra": {"@type": "x/far.away.Thing", "@value": "Aw=="},
    }
    message = kind(extra={"type_url": stranger.type_url, "value": stranger.value})
    for _ in range(2):  # the message itself does not change
        assert messages.as_dict(message)["extra"] == {"@type": stranger.type_url, "@value": "AQI="}


def test_values_that_json_can_not_represent() -> None:
    with pytest.raises(
        UnprintableError, match=r"^The server sent a google.protobuf.Value that JSON can't represent: .*Infinity"
    ):
        JsonCodec(DescriptorPool()).as_dict(Value(number_value=float("inf")))
    nameless = AnyMessage(type_url="x/", value=b"a")
    with pytest.raises(UnprintableError, match=r" that JSON can't represent: type 'x/' is unknown$"):
        JsonCodec(DescriptorPool()).as_dict(nameless)
    broken = AnyMessage(type_url="x/google.protobuf.Timestamp", value=b"\xff")
    files = Descriptors(with_imports([Timestamp.DESCRIPTOR.file]), "protobuf")
    with pytest.raises(UnprintableError, match=r"^The server sent a google.protobuf.Any that JSON can't represent: "):
        JsonCodec(files.pool).as_dict(broken)


def test_text_that_a_terminal_can_not_print_is_escaped() -> None:
    assert dumps({"a": "é"}) == '{"a": "é"}'
    assert dumps({"a": "\ud800"}) == '{"a": "\\ud800"}'
