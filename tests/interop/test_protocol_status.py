"""The end of a call on the wire behind Envoy."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import grpc
import pytest
from google.protobuf.empty_pb2 import Empty
from google.protobuf.wrappers_pb2 import BytesValue, StringValue, UInt32Value
from inspector_pb2 import Pair, Wanted
from inspector_pb2_grpc import InspectorStub

from tests.support.raw_client import PATIENCE_S, RawClient, frame

INSPECTOR = "/sdk.interop.Inspector"
CANCELLED, NOT_FOUND, DEADLINE_EXCEEDED, PERMISSION_DENIED = 1, 5, 4, 7
RESOURCE_EXHAUSTED, UNIMPLEMENTED, INTERNAL = 8, 12, 13
NO_ERROR = 0

MESSAGES = [
    ("", b""),
    ("plain text, 'quoted' \"twice\" ~ \\", b"plain text, 'quoted' \"twice\" ~ \\"),
    ("100 %", b"100 %25"),
    ("%20", b"%2520"),
    ("  spaces around  ", b"%20 spaces around %20"),
    ("\ttab, newline\n, return\r", b"%09tab, newline%0A, return%0D"),
    ("\0\x1f\x7f", b"%00%1F%7F"),
    ("é ☺ 😈", b"%C3%A9 %E2%98%BA %F0%9F%98%88"),
]


@pytest.mark.parametrize(("details", "encoded"), MESSAGES)
@pytest.mark.parametrize("method", ["Send", "SendLate"])
def test_status_messages_are_percent_encoded(raw: RawClient, method: str, details: str, encoded: bytes) -> None:
    stream = raw.call(f"{INSPECTOR}/{method}", Wanted(code=NOT_FOUND, details=details))
    assert stream.status == (NOT_FOUND, encoded)


def test_an_error_without_messages_is_one_header_block(raw: RawClient) -> None:
    wanted = Wanted(code=NOT_FOUND, details="no", trailing=[Pair(key="x-why", text="gone")])
    stream = raw.call(f"{INSPECTOR}/Send", wanted)
    (block,) = stream.blocks
    names = [name for name, _ in block]
    # Envoy adds the date to the first block of every answer.
    expected = [b":status", b"content-type", b"grpc-status", b"grpc-message", b"x-why", b"request_id", b"date"]
    assert names == expected
    assert stream.first(b":status") == [b"200"]
    assert stream.first(b"content-type") == [b"application/grpc"]


@pytest.mark.parametrize("wanted", [Wanted(), Wanted(code=NOT_FOUND)])
def test_an_answer_with_messages_has_headers_and_trailers(raw: RawClient, wanted: Wanted) -> None:
    stream = raw.call(f"{INSPECTOR}/SendLate", wanted)
    head, trailers = stream.blocks
    assert [name for name, _ in head] == [b":status", b"content-type", b"date"]
    assert [name for name, _ in trailers] == [b"grpc-status", b"request_id"]
    assert stream.frames == [(0, b"")]


def test_an_error_after_initial_metadata_has_headers_and_trailers(raw: RawClient) -> None:
    stream = raw.call(f"{INSPECTOR}/Send", Wanted(code=NOT_FOUND, initial=[Pair(key="x-a", text="1")]))
    assert stream.first(b"x-a") == [b"1"]
    assert len(stream.blocks) == 2
    assert stream.status == (NOT_FOUND, b"")


def test_a_client_with_a_retry_policy_retries(inspector: str) -> None:
    policy = {
        "maxAttempts": 3,
        "initialBackoff": "0.01s",
        "maxBackoff": "0.1s",
        "backoffMultiplier": 1,
        "retryableStatusCodes": ["UNAVAILABLE"],
    }
    config = json.dumps({"methodConfig": [{"name": [{}], "retryPolicy": policy}]})
    with grpc.insecure_channel(inspector, [("grpc.service_config", config)]) as channel:
        assert InspectorStub(channel).Retried(StringValue(value="once"), timeout=PATIENCE_S).value == 2


def test_a_response_that_does_not_wait_for_the_requests_end(raw: RawClient) -> None:
    stream = raw.open(f"{INSPECTOR}/First")
    stream.send(frame(BytesValue(value=b"first").SerializeToString()))
    assert stream.finish().status == (0, b"")
    assert stream.messages == [BytesValue(value=b"first").SerializeToString()]
    # The client must stop sending: RST_STREAM with NO_ERROR after the end,
    # https://www.rfc-editor.org/rfc/rfc9113.html#section-8.1
    stream.wait(lambda stream: stream.reset is not None)
    assert stream.reset == NO_ERROR
    assert raw.call(f"{INSPECTOR}/Look", Empty()).status == (0, b"")


def test_an_error_that_does_not_wait_for_the_requests_end(raw: RawClient) -> None:
    stream = raw.open(f"{INSPECTOR}/Refuse")
    stream.send(frame(BytesValue().SerializeToString()))
    assert stream.finish().status == (PERMISSION_DENIED, b"no more, please")
    stream.wait(lambda stream: stream.reset is not None)
    assert stream.reset == NO_ERROR


def test_a_client_that_keeps_sending_gets_the_early_status(inspector: str) -> None:
    sent = 0

    def messages() -> Iterator[BytesValue]:
        nonlocal sent
        for _ in range(10_000):
            sent += 1
            yield BytesValue(value=bytes(100_000))

    with grpc.insecure_channel(inspector) as channel:
        stub = InspectorStub(channel)
        for _ in range(10):
            with pytest.raises(grpc.RpcError) as refused:
                stub.Refuse(messages(), timeout=PATIENCE_S)
            assert (refused.value.code(), refused.value.details()) == (
                grpc.StatusCode.PERMISSION_DENIED,
                "no more, please",
            )
        assert stub.First(messages(), timeout=PATIENCE_S) == BytesValue(value=bytes(100_000))
    assert sent < 10_000, "nobody waited for the end"


def test_a_message_over_the_limit_is_refused_before_it_is_sent(raw: RawClient) -> None:
    stream = raw.open(f"{INSPECTOR}/Echo")
    stream.send(frame(b"")[:1] + (200 << 20).to_bytes(4, "big"))
    code, message = stream.finish().status
    assert code == RESOURCE_EXHAUSTED
    assert b"209715200" in message


def test_a_request_without_a_message(raw: RawClient) -> None:
    for end_with_headers in (True, False):
        stream = raw.open(f"{INSPECTOR}/Look", end=end_with_headers)
        if not end_with_headers:
            stream.send(b"", end=True)
        assert stream.finish().status == (UNIMPLEMENTED, b"the request has no message, and the method takes one")


def test_a_request_that_is_no_message_of_its_type(raw: RawClient) -> None:
    stream = raw.open(f"{INSPECTOR}/Repeat")
    stream.send(frame(b"\xff\xff"), end=True)
    code, message = stream.finish().status
    assert code == INTERNAL
    assert message.startswith(b"the request is not a google.protobuf.BytesValue")


@pytest.mark.parametrize("path", [f"{INSPECTOR}/Nothing", "/sdk.interop.Nobody/Look", "/Look", "/"])
def test_what_nobody_serves_is_unimplemented(raw: RawClient, path: str) -> None:
    assert raw.call(path, Empty()).status[0] == UNIMPLEMENTED
    # The answer does not wait for the end of the client's request.
    assert raw.open(path).finish().status[0] == UNIMPLEMENTED


@pytest.mark.parametrize("leave", ["RST_STREAM", "close"])
def test_a_client_that_leaves_cancels_the_handler(inspector: str, raw: RawClient, leave: str) -> None:
    with RawClient(inspector) as leaving:
        stream = leaving.open(f"{INSPECTOR}/Echo")
        stream.wait(lambda stream: stream.blocks)
        assert echoing(raw) == 1
        if leave == "RST_STREAM":
            stream.cancel()
            wait_for_none(raw)
    wait_for_none(raw)


def echoing(raw: RawClient) -> int:
    return UInt32Value.FromString(raw.call(f"{INSPECTOR}/Echoing", Empty()).messages[0]).value


def wait_for_none(raw: RawClient) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while echoing(raw):
        assert time.monotonic() < deadline, "the handler runs on"


@pytest.mark.parametrize("timeout", ["50m", "50000u", "50000000n", "0S", "0n"])
def test_a_deadline_ends_the_call_and_the_handler(raw: RawClient, timeout: str) -> None:
    stream = raw.open(f"{INSPECTOR}/Echo", [("grpc-timeout", timeout)])
    assert stream.finish().status == (DEADLINE_EXCEEDED, b"Deadline exceeded.")
    wait_for_none(raw)
