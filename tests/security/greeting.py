"""An application that answers with what it knows about its caller."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import AsyncIterator

from greeter_pb2 import HelloReply, HelloRequest
from greeter_sdk import GreeterBase, GreeterHandle

from sdk import grpc_deployment
from sdk.context import ServicerContext, current_context

SERVICE = "greeter.Greeter"
SAY_HELLO, MANY, ALL, EACH = (
    f"/{SERVICE}/{name}" for name in ("SayHello", "SayHelloInManyTongues", "SayHelloToAll", "SayHelloToEach")
)


#: Request id and identities of the last calls that have reached a handler.
RECEIVED: deque[tuple[str, list[bytes]]] = deque(maxlen=1000)


def describe(context: ServicerContext) -> HelloReply:
    RECEIVED.append((context.request_id(), [*(context.peer_identities() or ())]))
    seen = {
        "key": context.peer_identity_key(),
        "identities": [each.decode() for each in context.peer_identities() or ()],
        "auth": sorted(context.auth_context()),
        "claims": dict(context.claims()),
        "metadata": {key: value for key, value in context.invocation_metadata() if isinstance(value, str)},
    }
    return HelloReply(text=json.dumps(seen))


@grpc_deployment
class Mirror(GreeterBase):
    async def SayHello(self, request: HelloRequest) -> HelloReply:
        return describe(current_context())

    async def SayHelloInManyTongues(self, request: HelloRequest) -> AsyncIterator[HelloReply]:
        yield describe(current_context())

    async def SayHelloToAll(self, requests: AsyncIterator[HelloRequest]) -> HelloReply:
        async for _ in requests:
            pass
        return describe(current_context())

    async def SayHelloToEach(self, requests: AsyncIterator[HelloRequest]) -> AsyncIterator[HelloReply]:
        async for _ in requests:
            yield describe(current_context())


@grpc_deployment
class Plain(Mirror):
    """Answers at once."""

    async def SayHello(self, request: HelloRequest) -> HelloReply:
        return HelloReply()


@grpc_deployment
class Outer(Mirror):
    """Asks another deployment who calls."""

    def __init__(self, inner: GreeterHandle) -> None:
        self.inner = inner

    async def SayHello(self, request: HelloRequest) -> HelloReply:
        return await self.inner.SayHello(request)
