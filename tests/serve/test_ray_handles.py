"""Calls of typed handles that Ray Serve's handle carries, whose replica dies."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from google.protobuf.wrappers_pb2 import StringValue
from ray.exceptions import ActorDiedError

from sdk._channel import target
from sdk._channel.feed import State
from sdk._wire.frames import pack_prefix
from sdk._wire.host import KEEP_ALIVE_HEAD
from sdk.errors import RpcError
from sdk.handles import HandleUnary, ServiceHandle
from sdk.service import Cardinality, Method

METHOD = Method("Get", "Get", "/t.T/Get", Cardinality.UNARY_UNARY, StringValue, StringValue)
DATA = StringValue(value="here").SerializeToString()
FRAME = pack_prefix(0, len(DATA)) + DATA
ANSWER = KEEP_ALIVE_HEAD + b"%x\r\n%s\r\n0\r\ngrpc-status: 0\r\nrequest_id: r\r\n\r\n" % (len(FRAME), FRAME)


class DyingHandle:
    """Ray Serve's handle to a deployment whose replica dies during the first call."""

    app_name, deployment_name = "app", "D"

    def __init__(self) -> None:
        self.calls = 0

    def options(self, **_: Any) -> DyingHandle:
        return self

    async def remote(self, request: bytes) -> AsyncIterator[bytes]:
        self.calls += 1
        if self.calls == 1:
            raise ActorDiedError
        yield ANSWER


@pytest.mark.parametrize(("idempotency", "calls"), [("unknown", 1), ("idempotent", 2)])
async def test_a_replica_that_dies(idempotency: Any, calls: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(target, "local_lookup", lambda _: State("app", "D", False))
    handle = DyingHandle()
    call = HandleUnary.of(ServiceHandle(handle), replace(METHOD, idempotency=idempotency))(StringValue())
    if calls == 1:
        with pytest.raises(RpcError, match="UNAVAILABLE: The replica died before its answer was complete"):
            await call
    else:
        assert await call == StringValue(value="here")
    assert handle.calls == calls
