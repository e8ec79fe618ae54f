"""The outcome of a call, also if the server sends invalid data."""

from __future__ import annotations

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc.status_pb2 import Status

from sdk._protos.descriptors import Descriptors, with_imports
from sdk._status import STATUS_DETAILS
from sdk.cli.rpc.json_messages import JsonCodec
from sdk.cli.rpc.outcome import CallOutcome, as_json, as_lines

NONE = JsonCodec(DescriptorPool())


def test_control_characters_are_escaped() -> None:
    outcome = CallOutcome(grpc.StatusCode.INTERNAL, "a\n\x1b[31mred\x9b", trailing=(("key", "\x07x"),), seconds=61.25)
    lines = list(as_lines(outcome, NONE))
    assert lines == [
        "\x1b[31m\x1b[1mINTERNAL\x1b[0m: a\n\\x1b[31mred\\x9b (0 messages in 61.2 s)",
        "  \x1b[2mkey:\x1b[0m \\x07x",
    ]


def test_a_detail_that_can_not_be_parsed_as_its_type() -> None:
    messages = JsonCodec(Descriptors(with_imports([Timestamp.DESCRIPTOR.file]), "protobuf").pool)
    broken = AnyMessage(type_url="x/google.protobuf.Timestamp", value=b"\xff")
    data = Status(code=13, details=[broken]).SerializeToString()
    outcome = CallOutcome(grpc.StatusCode.INTERNAL, "", trailing=((STATUS_DETAILS, data),), seconds=0.001)
    _, detail = as_lines(outcome, messages)
    assert detail == '  \x1b[1mgoogle.protobuf.Timestamp\x1b[0m {"@value": "/w=="}'
    details = as_json(outcome, [], messages)["status"]["details"]
    assert details == [{"@type": "x/google.protobuf.Timestamp", "@value": "/w=="}]


def test_details_that_are_not_a_status_are_shown_unparsed() -> None:
    outcome = CallOutcome(grpc.StatusCode.INTERNAL, "", trailing=((STATUS_DETAILS, b"\xff"),))
    assert list(as_lines(outcome, NONE))[1:] == ["  \x1b[2mgrpc-status-details-bin:\x1b[0m /w=="]
