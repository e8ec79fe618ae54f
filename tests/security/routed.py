"""The services of ``routed.proto``."""

from __future__ import annotations

from routed_pb2 import Item
from routed_sdk import LampBase, ShelfBase

from sdk import grpc_deployment


@grpc_deployment
class Shelf(ShelfBase):
    async def List(self, request: Item) -> Item:
        return Item(method="List")

    async def Read(self, request: Item) -> Item:
        return Item(method="Read")

    async def Write(self, request: Item) -> Item:
        return Item(method="Write")

    async def Burn(self, request: Item) -> Item:
        return Item(method="Burn")


@grpc_deployment
class Lamp(LampBase):
    async def Light(self, request: Item) -> Item:
        return Item(method="Light")
