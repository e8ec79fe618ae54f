"""Helpers for the clients of the integration tests: metadata, trailers and errors."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from user_defined_protos_pb2 import UserDefinedMessage

FOO = UserDefinedMessage(name="foo", num=30, origin="bar")


def metadata_for(application: str, **more: str) -> tuple[tuple[str, str], ...]:
    return (("application", application), *more.items())


def trailing(call: Any) -> dict[str, Any]:
    return dict(call.trailing_metadata())


def error_of(function: Any, *args: Any, **kwargs: Any) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as raised:
        function(*args, **kwargs)
    assert trailing(raised.value).get("request_id"), "every answer carries the request id"
    return raised.value
