"""What type checkers must refuse. `# expect: <mypy's code> <pyright's rule>` stands on each such line; `-` for none.

Pyright does not compare the parameters of an override with a base method that takes `*args: Any, **kwargs: Any`.
The check at decoration does.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING

import grpc
from awkward_pb2 import Outer
from awkward_sdk import AwkwardBase, AwkwardClient, AwkwardSyncClient
from google.protobuf.empty_pb2 import Empty
from google.protobuf.wrappers_pb2 import StringValue
from shapes.circle_pb2 import Circle

from sdk.deployment import grpc_deployment

if TYPE_CHECKING:
    from sdk.service import RequestStream


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


WrongTypes.bind()  # expect: call-arg reportCallIssue
WrongTypes.bind(3)  # expect: arg-type reportArgumentType
WrongTypes.options(num_replicas=2).bind(prefix=3)  # expect: arg-type reportArgumentType
WrongTypes.options(num_replica=2)  # expect: call-arg reportCallIssue


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


def sync_clients() -> None:
    client = AwkwardSyncClient("localhost:9000")
    client.Unary([Outer()])  # expect: arg-type reportArgumentType
    client.Up(StringValue())  # expect: arg-type reportArgumentType
    client.Down.with_call(Circle())  # expect: attr-defined reportAttributeAccessIssue
    reply: Outer = client.Unary(Outer())  # expect: assignment reportAssignmentType
    print(reply)
