"""Handlers with a wrong response: no stream where the proto has one, wrong messages in it, or odd errors."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.wrappers_pb2 import Int32Value, StringValue

from sdk import RpcError
from sdk._wire.host import WireSettings
from tests.support.wire_rig import BIDI, SERVER, UNARY, Peer


async def returns_none(request: Any) -> None:
    return None


def returns_none_in_a_thread(request: Any) -> None:
    return None


async def returns_a_message(request: Any) -> StringValue:
    return StringValue()


def returns_a_message_in_a_thread(request: Any) -> StringValue:
    return StringValue()


async def yields_another(request: Any) -> AsyncIterator[Int32Value]:
    yield Int32Value()


def yields_another_in_a_thread(request: Any) -> Iterator[Int32Value]:
    yield Int32Value()


@pytest.mark.parametrize("cardinality", [SERVER, BIDI])
@pytest.mark.parametrize(
    ("handler", "says"),
    [
        (returns_none, "returned None; the proto says a stream of google.protobuf.StringValue"),
        (returns_none_in_a_thread, "returned None; the proto says a stream of google.protobuf.StringValue"),
        (returns_a_message, "StringValue; the proto says a stream of google.protobuf.StringValue"),
        (returns_a_message_in_a_thread, "StringValue; the proto says a stream of google.protobuf.StringValue"),
        (yields_another, "Int32Value; the proto says google.protobuf.StringValue"),
        (yields_another_in_a_thread, "Int32Value; the proto says google.protobuf.StringValue"),
    ],
)
async def test_a_wrong_response_names_both_types(cardinality: Any, handler: Any, says: str, serve: Any) -> None:
    peer = Peer(serve(Wrong=(cardinality, handler)))
    peer.call("Wrong", Int32Value())
    trailers = await peer.answered()
    assert (trailers["grpc-status"], trailers["request_id"]) == ("13", "made")
    assert trailers["grpc-message"].startswith(handler.__qualname__)
    assert trailers["grpc-message"].endswith(says)


@pytest.mark.parametrize(
    ("style", "says"), [("traceback", "Traceback"), ("message", "ValueError: wrong"), ("none", "Internal error.")]
)
async def test_error_details_of_a_stream(style: Any, says: str, serve: Any) -> None:
    async def fails(request: Int32Value) -> AsyncIterator[StringValue]:
        yield StringValue()
        raise ValueError("wrong")

    peer = Peer(serve(Fails=(SERVER, fails), settings=WireSettings(error_details=style)))
    peer.call("Fails", Int32Value())
    trailers = await peer.answered()
    assert trailers["grpc-status"] == "13"
    assert trailers["grpc-message"].startswith(says)


class Undescribable(Exception):
    def __str__(self) -> str:
        raise ZeroDivisionError


def malformed_error() -> RpcError:
    error = RpcError(grpc.StatusCode.NOT_FOUND)
    error.details = b"bytes"  # type: ignore[assignment]  # the constructor would have converted it to text
    return error


@pytest.mark.parametrize("cardinality", [UNARY, SERVER])
@pytest.mark.parametrize(
    ("error", "style", "says"),
    [
        (Undescribable(), "message", "Undescribable; describing it raised ZeroDivisionError"),
        (Undescribable(), "none", "Internal error."),
        (Undescribable(), "traceback", "Traceback"),
        (malformed_error(), "message", "RpcError; describing it raised AttributeError"),
        (malformed_error(), "none", "Internal error."),
    ],
)
async def test_an_error_that_can_not_be_described_is_answered(
    cardinality: Any, error: Exception, style: Any, says: str, caplog: pytest.LogCaptureFixture, serve: Any
) -> None:
    async def fails(request: Int32Value) -> StringValue:
        raise error

    async def fails_within(request: Int32Value) -> AsyncIterator[StringValue]:
        yield StringValue()
        raise error

    async def body(serve: Any) -> None:
        handler = fails if cardinality is UNARY else fails_within
        peer = Peer(serve(Fails=(cardinality, handler), settings=WireSettings(error_details=style)))
        peer.call("Fails", Int32Value())
        trailers = await peer.answered()
        assert (trailers["grpc-status"], trailers["request_id"]) == ("13", "made")
        assert trailers["grpc-message"].startswith(says)

    await body(serve)
    assert "/t.T/Fails failed, request_id made" in caplog.text
