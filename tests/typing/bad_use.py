# mypy: enable-error-code="deprecated"
"""Code with type errors. Each has a comment `# expect: <mypy's code> <pyright's rule>`, with `-` for no error.

Pyright does not compare the parameters of an override with a base method that takes `*args: Any, **kwargs: Any`.
The check at decoration does.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

import awkward_sdk
import grpc
from awkward_pb2 import AMessageWithANameThatIsSoLongThatNoSignatureFitsOnOneLineAnyMore as Long
from awkward_pb2 import Outer
from awkward_pb2_grpc import AwkwardStub
from awkward_sdk import (
    AWKWARD,
    AsyncHandle,
    AwkwardBase,
    AwkwardClient,
    AwkwardHandle,
    AwkwardShim,
    AwkwardSyncClient,
    RetiredBase,
    RetiredHandle,
)
from google.protobuf.empty_pb2 import Empty
from google.protobuf.wrappers_pb2 import StringValue
from shapes.awkward_pb2 import Square
from shapes.circle_pb2 import Circle

import sdk
from sdk.deployment import grpc_deployment

if TYPE_CHECKING:
    from sdk.service import RequestStream


Circles: TypeAlias = AsyncIterator[Circle]
Strings: TypeAlias = Iterator[StringValue]


@grpc_deployment
class WrongTypes(AwkwardBase):
    def __init__(self, prefix: str) -> None:
        self.prefix = prefix

    async def Unary(self, request: Circle) -> Outer.Inner.Deepest:  # expect: override -
        return Outer.Inner.Deepest()

    def Down(self, request: Circle) -> Iterator[Outer]:  # expect: override reportIncompatibleMethodOverride
        yield Outer()

    async def Up(self, requests: StringValue) -> Empty:  # expect: override -
        return Empty()


@grpc_deployment
class WrongShapes(AwkwardBase):
    async def Unary(self, request: Outer) -> AsyncIterator[Outer]:  # expect: override reportIncompatibleMethodOverride
        yield Outer()

    async def Down(self, request: Circle) -> Outer.Inner:  # expect: override reportIncompatibleMethodOverride
        return Outer.Inner()

    async def Up(self, requests: RequestStream[Outer]) -> Empty:  # expect: override -
        return Empty()


@grpc_deployment
class WrongTypesBehindAContext(AwkwardBase):
    def Unary(self, request: Circle, grpc_context: Any) -> Outer.Inner.Deepest:  # expect: override -
        return Outer.Inner.Deepest()

    async def Down(self, request: Outer, grpc_context: Any) -> AsyncIterator[Outer.Inner]:  # expect: override -
        yield Outer.Inner()

    def Up(self, requests: Strings, grpc_context: Any) -> Outer:  # expect: override reportIncompatibleMethodOverride
        return Outer()

    async def Both(self, requests: Circles, grpc_context: Any) -> AsyncIterator[Long]:  # expect: override -
        yield Long()


@grpc_deployment
class WrongResponses(AwkwardBase):
    async def Unary(self, request: Outer) -> Outer:  # expect: override reportIncompatibleMethodOverride
        return request

    async def Down(self, request: Circle) -> AsyncIterator[Circle]:  # expect: override reportIncompatibleMethodOverride
        yield request

    def Up(self, requests: Strings) -> None:  # expect: override reportIncompatibleMethodOverride
        list(requests)

    def Both(self, requests: Iterator[Square]) -> Iterator[Square]:  # expect: override reportIncompatibleMethodOverride
        return requests


@grpc_deployment
class WrongCardinalities(AwkwardBase):
    def Unary(self, request: Iterator[Outer]) -> Outer.Inner.Deepest:  # expect: override -
        return Outer.Inner.Deepest()

    def Down(self, request: Circle) -> list[Outer]:  # expect: override reportIncompatibleMethodOverride
        return [Outer()]

    def Up(self, requests: Strings) -> Iterator[Empty]:  # expect: override reportIncompatibleMethodOverride
        yield Empty()

    async def Both(self, requests: AsyncIterator[Square]) -> Long:  # expect: override reportIncompatibleMethodOverride
        return Long()


WrongTypes.bind()  # expect: call-arg reportCallIssue
WrongTypes.bind(3)  # expect: arg-type reportArgumentType
WrongTypes.bind("a", "b")  # expect: call-arg reportCallIssue
WrongTypes.bind(suffix="a")  # expect: call-arg reportCallIssue
WrongTypes.bind(WrongShapes.bind())  # expect: arg-type reportArgumentType
WrongShapes.bind(prefix="a")  # expect: call-arg reportCallIssue
WrongTypes.options(num_replicas=2).bind(prefix=3)  # expect: arg-type reportArgumentType
WrongTypes.options(num_replicas=2).bind()  # expect: call-arg reportCallIssue
WrongTypes.options(max_ongoing_requests="7")  # expect: arg-type reportArgumentType
WrongTypes.options(expose="no")  # expect: arg-type reportArgumentType
WrongTypes.options(num_replica=2)  # expect: call-arg reportCallIssue


sdk.run(WrongTypes.bind("a"), allow_breaking="yes")  # expect: arg-type reportArgumentType
sdk.run(WrongTypes.bind("a"), allow_braking=True)  # expect: arg-type reportArgumentType


@grpc_deployment
class Composed(RetiredBase):
    def __init__(self, inner: AwkwardHandle) -> None:
        self.inner = inner

    async def Old(self, request: Outer) -> Outer:
        await self.inner.Unary(Circle())  # expect: arg-type reportArgumentType
        await self.inner.Unary(Outer(), deadline=3)  # expect: call-arg reportCallIssue
        await self.inner.Unary(Outer(), timeout="3")  # expect: arg-type reportArgumentType
        name: str = await self.inner.Unary(Outer())  # expect: assignment reportAssignmentType
        await self.inner.Down(Circle())  # expect: misc reportGeneralTypeIssues
        async for inner in self.inner.Down(Circle()):
            depth: int = inner.name  # expect: assignment reportAssignmentType
            print(depth, name)
        await self.inner.Up(iter([Circle()]))  # expect: arg-type reportArgumentType
        self.inner.Both(Outer())  # expect: arg-type reportArgumentType
        self.inner.Unary.remote(Outer())  # expect: attr-defined reportAttributeAccessIssue
        return request


Composed.bind(Composed.bind(WrongShapes.bind()))  # expect: arg-type reportArgumentType
Composed.bind(WrongShapes)  # expect: arg-type reportArgumentType
Composed.options(num_replicas=2).bind("inner")  # expect: arg-type reportArgumentType
AsyncHandle(WrongShapes.bind()).Missing(Outer())  # expect: attr-defined reportAttributeAccessIssue


async def async_clients() -> None:
    client = AwkwardClient("localhost:9000", deadline=3)  # expect: call-arg reportCallIssue
    AwkwardClient(grpc.insecure_channel("localhost:9000"))  # expect: arg-type reportArgumentType
    await client.Unary(Circle())  # expect: arg-type reportArgumentType
    await client.Unary(Outer(), deadline=3)  # expect: call-arg reportCallIssue
    await client.Unary(Outer(), timeout="3")  # expect: arg-type reportArgumentType
    name: str = await client.Unary(Outer())  # expect: assignment reportAssignmentType
    print(name)
    await client.Missing(Outer())  # expect: attr-defined reportAttributeAccessIssue
    await client.Down(Circle())  # expect: misc reportGeneralTypeIssues
    await client.Up(iter([Outer()]))  # expect: arg-type reportArgumentType
    await client.Up().write(Outer())  # expect: arg-type reportArgumentType
    await client.Both().write(Circle())  # expect: arg-type reportArgumentType
    await client.Both([Square()])  # expect: misc reportGeneralTypeIssues
    async for inner in client.Down(Circle()):
        depth: int = inner.name  # expect: assignment reportAssignmentType
        print(depth)
    async for _ in client.Unary(Outer()):  # expect: attr-defined reportGeneralTypeIssues
        pass
    await client.Unary(Outer(), application=7)  # expect: arg-type reportArgumentType
    await client.Unary(Outer(), metadata={"key": "value"})  # expect: arg-type reportArgumentType


def sync_clients() -> None:
    client = AwkwardSyncClient("localhost:9000")
    client.Unary([Outer()])  # expect: arg-type reportArgumentType
    client.Up(StringValue())  # expect: arg-type reportArgumentType
    client.Down.with_call(Circle())  # expect: attr-defined reportAttributeAccessIssue
    reply: Outer = client.Unary(Outer())  # expect: assignment reportAssignmentType
    print(reply)
    for inner in client.Down(Circle()):
        depth: int = inner.name  # expect: assignment reportAssignmentType
        print(depth)
    for _ in client.Unary(Outer()):  # expect: attr-defined reportGeneralTypeIssues
        pass


def stubs(channel: grpc.Channel, server: grpc.Server) -> None:
    stub = AwkwardStub(channel)
    stub.Unary(Circle())  # expect: arg-type reportArgumentType
    stub.Up(StringValue())  # expect: arg-type reportArgumentType
    reply: Outer = stub.Unary(Outer())  # expect: assignment reportAssignmentType
    stub.Missing(Outer())  # expect: attr-defined reportAttributeAccessIssue
    print(reply)


def shims() -> None:
    AwkwardShim.bindings(RetiredBase())  # expect: arg-type reportArgumentType
    AWKWARD["Unary"].idempotency = "idempotent"  # expect: misc reportAttributeAccessIssue


class ImplementsWhatIsDeprecated(RetiredBase):
    def Old(self, request: Outer) -> Outer:
        return request


async def deprecated() -> None:
    await awkward_sdk.RetiredClient("localhost:9000").Old(Outer())  # expect: deprecated reportDeprecated
    awkward_sdk.RetiredSyncClient("localhost:9000").Old(Outer())  # expect: deprecated reportDeprecated
    await RetiredHandle(None).Old(Outer())  # expect: deprecated reportDeprecated
