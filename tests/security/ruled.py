"""Deployments with ``allow``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

from greeter_pb2 import HelloReply, HelloRequest
from greeter_sdk import GreeterBase, GreeterHandle

from sdk import grpc_deployment
from sdk.access import ApiKey, Certificate, Token
from sdk.context import ServicerContext, current_context
from tests.security.greeting import Mirror, describe

ADMIN = Token(claims={"roles": "admin"})


def own_name(request: HelloRequest, grpc_context: ServicerContext) -> bool:
    """Allow clients to greet themselves."""
    if request.name == "broken":
        raise KeyError(request.name)
    return request.name.encode() in (grpc_context.peer_identities() or ())


RULES = {
    "SayHello": [ADMIN, ApiKey("batch"), own_name],
    "SayHelloInManyTongues": ["authenticated"],
    "SayHelloToAll": [Token(claims={"scope": "write"}), Certificate("spiffe://acme/*"), Certificate("*.acme.org")],
    "*": "anyone",
}


@grpc_deployment(allow=RULES)
class Ruled(Mirror):
    """Has a rule for each RPC."""


@grpc_deployment(allow=RULES)
class RuledSync(GreeterBase):
    """The same with plain functions, which run in threads."""

    def SayHello(self, request: HelloRequest) -> HelloReply:
        return describe(current_context())

    def SayHelloInManyTongues(self, request: HelloRequest) -> Iterator[HelloReply]:
        yield describe(current_context())

    def SayHelloToAll(self, requests: Iterator[HelloRequest]) -> HelloReply:
        for _ in requests:
            pass
        return describe(current_context())

    def SayHelloToEach(self, requests: Iterator[HelloRequest]) -> Iterator[HelloReply]:
        for _ in requests:
            yield describe(current_context())


@grpc_deployment
class Passing(GreeterBase):
    """Passes every call on through a handle."""

    def __init__(self, inner: GreeterHandle) -> None:
        self.inner = inner

    async def SayHello(self, request: HelloRequest) -> HelloReply:
        return await self.inner.SayHello(request)

    async def SayHelloInManyTongues(self, request: HelloRequest) -> AsyncIterator[HelloReply]:
        async for reply in self.inner.SayHelloInManyTongues(request):
            yield reply

    async def SayHelloToAll(self, requests: AsyncIterator[HelloRequest]) -> HelloReply:
        return await self.inner.SayHelloToAll(requests)

    async def SayHelloToEach(self, requests: AsyncIterator[HelloRequest]) -> AsyncIterator[HelloReply]:
        async for reply in self.inner.SayHelloToEach(requests):
            yield reply
