"""Helpers for the clients of the integration tests: metadata, trailers and errors."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from user_defined_protos_pb2 import UserDefinedMessage

import sdk

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


def routed_replicas(application: str) -> set[str] | None:
    """Return the replicas of an application that Envoy routes to, or None while an Envoy may have another table."""
    status = sdk.status()
    if any(proxy.version < status.version for proxy in status.proxies):
        return None
    (found,) = (each for each in status.applications if each.name == application)
    return {endpoint for deployment in found.deployments for endpoint in deployment.endpoints}
