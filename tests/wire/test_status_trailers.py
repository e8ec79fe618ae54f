"""Errors with google.rpc details: what a handler raises, and what grpcio-status reads of it at the client."""

from __future__ import annotations

import base64
import logging
import pickle
from typing import Any
from urllib.parse import unquote

import cloudpickle
import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.wrappers_pb2 import Int32Value, StringValue
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status
from hypothesis import given
from hypothesis import strategies as st
from ray.exceptions import RayTaskError

from sdk import RpcError, current_context
from sdk._serve.replica import translate
from sdk._wire import metadata as md
from sdk._wire.server import WireSettings
from sdk._wire.status_trailers import answer_of
from tests.support.wire_rig import SERVER, UNARY, Answer, Peer, serving

INVALID = grpc.StatusCode.INVALID_ARGUMENT
BAD = BadRequest(field_violations=[BadRequest.FieldViolation(field="name", description="is empty")])
INFO = ErrorInfo(reason="EMPTY", domain="example.org", metadata={"a": "b"})


class Received:
    """The client's side of a call that has ended, as grpcio-status wants it."""

    def __init__(self, answer: Answer) -> None:
        self._trailers = [
            (key, base64.b64decode(value + "==") if key.endswith("-bin") else value) for key, value in answer.trailers
        ]

    def code(self) -> grpc.StatusCode:
        return next(c for c in grpc.StatusCode if str(c.value[0]) == dict(self._trailers)["grpc-status"])

    def details(self) -> str:
        return unquote(str(dict(self._trailers).get("grpc-message", "")))

    def trailing_metadata(self) -> Any:
        return self._trailers

    def status(self) -> Any:
        """Raises ValueError when the status does not agree with code and message."""
        return rpc_status.from_call(self)  # type: ignore[arg-type]


async def receive(handler: Any, cardinality: Any = UNARY) -> Received:
    async with serving() as serve:
        peer = Peer(serve(settings=WireSettings(error_details="message"), Get=(cardinality, handler)))
        peer.call("Get", Int32Value())
        answer = await peer.answer()
    size = sum(len(key) + len(value) + 32 for key, value in answer.trailers)
    assert size <= 8192, "grpcio refuses longer trailers"
    return Received(answer)


def raising(error: Exception) -> Any:
    async def handler(request: Any) -> StringValue:
        raise error

    return handler


async def aborts(request: Any) -> StringValue:
    status = Status(code=INVALID.value[0], message="bad näme")
    status.details.add().Pack(BAD)
    status.details.add().Pack(INFO)
    await current_context().abort_with_status(rpc_status.to_status(status))
    raise AssertionError


def raises_in_a_stream(request: Any) -> Any:
    yield StringValue()
    raise RpcError(INVALID, "bad näme", errors=[BAD, INFO])


@pytest.mark.parametrize(
    ("cardinality", "handler"),
    [
        (UNARY, raising(RpcError(INVALID, "bad näme", errors=[BAD, INFO]))),
        (UNARY, raising(pickle.loads(pickle.dumps(RpcError(INVALID, "bad näme", errors=iter([BAD, INFO])))))),
        (UNARY, aborts),
        (SERVER, raises_in_a_stream),
    ],
)
async def test_the_client_reads_what_the_handler_raised(cardinality: Any, handler: Any) -> None:
    received = await receive(handler, cardinality)
    assert (received.code(), received.details()) == (INVALID, "bad näme")
    status = received.status()
    assert (status.code, status.message) == (3, "bad näme")
    bad, info = BadRequest(), ErrorInfo()
    assert status.details[0].Unpack(bad)
    assert status.details[1].Unpack(info)
    assert (bad, info) == (BAD, INFO)


async def test_metadata_stays_beside_the_details() -> None:
    async def handler(request: Any) -> StringValue:
        current_context().set_trailing_metadata([("set", "1")])
        raise RpcError(INVALID, "bad", [("raised", "2")], errors=[BAD])

    received = await receive(handler)
    assert {("set", "1"), ("raised", "2"), ("request_id", "made")} < set(received.trailing_metadata())
    assert len(received.status().details) == 1


async def test_an_error_without_details_has_no_status() -> None:
    assert (await receive(raising(RpcError(INVALID, "bad")))).status() is None


LONG_TEXT = "é" * 5000
BIG = ErrorInfo(reason="x" * 5000)


@pytest.mark.parametrize(
    ("message", "errors", "kept"),
    [
        ("bad", [BAD, BIG, BIG], 1),
        ("bad", [BIG], 0),
        (LONG_TEXT, [BAD, INFO], 2),
        (LONG_TEXT, [BAD, ErrorInfo(reason="x" * 3500)], 2),
        (LONG_TEXT, [BAD, ErrorInfo(reason="x" * 4400)], 1),
        (LONG_TEXT, [], 0),
        ("bad", [ErrorInfo(reason="x" * 3500)], 1),
        ("bad", [BAD] * 1000, None),
    ],
)
@pytest.mark.parametrize("way", ["raise", "abort"])
async def test_what_is_too_long_for_the_trailers_keeps_code_and_message(
    message: str, errors: list[Any], kept: int | None, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    error = RpcError(INVALID, message, errors=errors)

    async def handler(request: Any) -> StringValue:
        if way == "abort":
            status = Status(code=3, message=message, details=error.packed_errors())
            await current_context().abort_with_status(rpc_status.to_status(status))
        raise error

    with caplog.at_level(logging.WARNING, "sdk.wire"):
        received = await receive(handler)
    assert received.code() is INVALID
    if message == "bad":
        assert received.details() == "bad"
    else:
        assert received.details().startswith("éé")
        assert received.details().endswith("éé")
    status = received.status()
    count = len(status.details) if status is not None else 0
    assert count == kept if kept is not None else 20 < count < 200
    assert ("do not fit into the trailers" in caplog.text) is (count < len(errors))


async def test_a_traceback_leaves_room_for_the_metadata_that_is_kept() -> None:
    async def handler(request: Any) -> StringValue:
        current_context().set_trailing_metadata([("k", "v" * 4000)])
        raise ValueError("é" * 5000)

    received = await receive(handler)
    assert received.code() is grpc.StatusCode.INTERNAL
    assert ("k", "v" * 4000) in received.trailing_metadata()
    assert received.details().startswith("ValueError: é")


async def test_a_long_status_that_is_none_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    received = await receive(raising(RpcError(INVALID, "bad", [("grpc-status-details-bin", b"\xff" * 7000)])))
    assert (received.code(), received.details(), received.status()) == (INVALID, "bad", None)
    assert "is no google.rpc.Status" in caplog.text


class Refused(RpcError):
    """A user's own error, with a constructor of its own."""

    def __init__(self, name: str) -> None:
        super().__init__(INVALID, f"{name} is refused", [("who", name)], errors=[BAD])
        self.name = name


@pytest.mark.parametrize("dumps", [pickle.dumps, cloudpickle.dumps])
async def test_it_travels_between_deployments(dumps: Any) -> None:
    raised = RayTaskError("downstream", "its traceback", Refused("Ann"))
    cause = translate(pickle.loads(dumps(raised)))
    assert isinstance(cause, Refused)
    assert (cause.code, cause.details, cause.name, str(cause)) == (
        INVALID, "Ann is refused", "Ann", "INVALID_ARGUMENT: Ann is refused",
    )  # fmt: skip
    assert cause.find(BadRequest) == BAD
    received = await receive(raising(cause))
    assert ("who", "Ann") in received.trailing_metadata()
    assert len(received.status().details) == 1


def test_who_gets_it_need_not_know_its_messages() -> None:
    error = pickle.loads(pickle.dumps(RpcError(INVALID, errors=[BAD])))
    assert [type(message) for message in error.errors] == [AnyMessage]


def test_find() -> None:
    error = RpcError(INVALID, errors=[INFO, BAD])
    assert error.find(BadRequest) == BAD
    assert error.find(RetryInfo) is None


@pytest.mark.parametrize(
    ("make", "kind", "says"),
    [
        (lambda: RpcError(3), TypeError, "needs a member of grpc.StatusCode, not 3"),  # type: ignore[arg-type]
        (lambda: RpcError(grpc.StatusCode.OK), ValueError, "can't have the code OK"),
        (lambda: RpcError(INVALID, errors=["text"]), TypeError, "protobuf messages, .* not 'text'"),  # type: ignore[list-item]
        (lambda: RpcError(INVALID, errors=[BadRequest]), TypeError, "protobuf messages"),
        (
            lambda: RpcError(INVALID, "", [("grpc-status-details-bin", b"")], errors=[BAD]),
            ValueError,
            "either errors or 'grpc-status-details-bin'",
        ),
    ],
)
def test_wrong_arguments(make: Any, kind: type[Exception], says: str) -> None:
    with pytest.raises(kind, match=says):
        make()


@given(
    st.text(alphabet=st.characters(codec="utf-8"), max_size=4000),
    st.lists(st.integers(0, 5000), max_size=5),
    st.integers(0, 4000),
)
def test_trailers_hold_every_error(text: str, sizes: list[int], others: int) -> None:
    errors = [ErrorInfo(reason="x" * size) for size in sizes]
    trailing = (("k", "v" * others),)
    message, pairs = answer_of(RpcError(INVALID, text, errors=errors), trailing)
    extra = len(md.encode(pairs))
    encoded = md.fit_message(message, md.message_room(extra))
    assert extra + len(encoded) + 500 < 8192  # the rest: grpc-status, the request id, what HPACK counts
    assert pairs[: len(trailing)] == trailing
    data = dict(pairs).get("grpc-status-details-bin")
    if data is not None:
        status = Status.FromString(data)
        assert (status.code, status.message) == (3, unquote(encoded.decode()))
        assert list(status.details) == RpcError(INVALID, errors=errors).packed_errors()[: len(status.details)]
    elif errors:
        assert sum(sizes) + len(text) + others > 2000, "there was room"
