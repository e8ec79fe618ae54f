"""What each way of failing looks like to the client."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import apps
import grpc
import pytest
from clients import error_of, trailing
from user_defined_protos_pb2 import UserDefinedMessage
from user_defined_protos_pb2_grpc import UserDefinedServiceStub


@pytest.fixture(autouse=True, scope="module")
def notes(deploy: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("notes")
    deploy(apps.Behaviour.bind(str(folder)), "behaviour")
    return folder


@pytest.fixture
def call(channel: grpc.Channel) -> Any:
    stub = UserDefinedServiceStub(channel)

    def call(name: str, origin: str = "", **kwargs: Any) -> Any:
        metadata = (("application", "behaviour"), ("x-mine", "mine"))
        return stub.__call__.with_call(UserDefinedMessage(name=name, origin=origin), metadata=metadata, **kwargs)

    return call


def test_custom_metadata_reaches_the_handler(call: Any) -> None:
    assert call("")[0].greeting == "mine"


def test_an_exception_is_internal_with_its_traceback(call: Any) -> None:
    error = error_of(call, "raise")
    assert error.code() is grpc.StatusCode.INTERNAL
    assert "apps.py" in error.details()
    assert error.details().endswith("ValueError: this is wrong: ü")
    assert "sdk/wire" not in error.details()


def test_an_exception_overrides_a_code_and_keeps_trailers(call: Any) -> None:
    error = error_of(call, "set code and raise")
    assert error.code() is grpc.StatusCode.INTERNAL
    assert trailing(error)["kept"] == "yes"


def test_context(call: Any) -> None:
    error = error_of(call, "set code")
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error.details() == "not found, adding"
    assert trailing(error)["num"] == "0"


def test_abort(call: Any) -> None:
    error = error_of(call, "abort")
    assert (error.code(), error.details()) == (grpc.StatusCode.PERMISSION_DENIED, "no")


def test_rpc_error(call: Any) -> None:
    error = error_of(call, "rpc error")
    assert (error.code(), error.details()) == (grpc.StatusCode.NOT_FOUND, "no user 7")
    assert trailing(error)["user"] == "7"


@pytest.mark.parametrize(("name", "got"), [("wrong type", "UserDefinedMessage"), ("none", "None")])
def test_a_wrong_response_names_both_types(call: Any, name: str, got: str) -> None:
    error = error_of(call, name)
    assert error.code() is grpc.StatusCode.INTERNAL
    assert got in error.details()
    assert "userdefinedprotos.UserDefinedResponse" in error.details()


def test_an_exception_amid_a_stream(channel: grpc.Channel) -> None:
    call = UserDefinedServiceStub(channel).Streaming(
        UserDefinedMessage(name="raise"), metadata=(("application", "behaviour"),)
    )
    got: list[int] = []
    error = error_of(lambda: got.extend(r.num for r in call))
    assert got == [0, 1, 2]
    assert error.code() is grpc.StatusCode.INTERNAL
    assert error.details().endswith("ValueError: after three messages")


def test_a_deadline_cancels_the_handler(call: Any, notes: Path) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        call("sleep", "deadline", timeout=0.5)
    assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert apps.wait_for(notes / "deadline-cancelled")


def test_a_client_that_cancels_cancels_the_handler(channel: grpc.Channel, notes: Path) -> None:
    stub = UserDefinedServiceStub(channel)
    metadata = (("application", "behaviour"),)
    future = stub.__call__.future(UserDefinedMessage(name="sleep", origin="cancel"), metadata=metadata)
    assert apps.wait_for(notes / "cancel-began")
    future.cancel()
    assert apps.wait_for(notes / "cancel-cancelled")
    stream = stub.Streaming(UserDefinedMessage(name="sleep", origin="stream"), metadata=metadata)
    assert apps.wait_for(notes / "stream-began")
    stream.cancel()
    assert apps.wait_for(notes / "stream-cancelled")


def test_too_many_calls_are_resource_exhausted(channel: grpc.Channel, notes: Path) -> None:
    stub = UserDefinedServiceStub(channel)
    metadata = (("application", "behaviour"),)
    futures = [
        stub.__call__.future(UserDefinedMessage(name="sleep", origin=f"full{i}"), metadata=metadata) for i in range(2)
    ]
    assert apps.wait_for(notes / "full0-began")
    assert apps.wait_for(notes / "full1-began")
    waiting = [stub.__call__.future(UserDefinedMessage(name="", origin=""), metadata=metadata) for _ in range(4)]
    refused = [f for f in waiting if isinstance(f.exception(timeout=1) if f.done() else None, grpc.RpcError)]
    error = error_of(stub.__call__, UserDefinedMessage(), metadata=metadata)
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert error.details() == "Request dropped due to backpressure (num_queued_requests=1, max_queued_requests=1)."
    for future in futures:
        future.cancel()
    codes = sorted(f.code().name for f in waiting)
    assert codes == ["OK", *["RESOURCE_EXHAUSTED"] * 3], refused
