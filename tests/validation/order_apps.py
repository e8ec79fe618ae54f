"""Applications that check their messages. A separate module, because replicas import it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import grpc.aio
from orders_pb2 import Divisor, Note, Order, Receipt
from orders_sdk import OrdersBase, OrdersHandle

from sdk import RpcError, grpc_deployment
from sdk.context import ServicerContext

QUICK: dict[str, Any] = {"graceful_shutdown_wait_loop_s": 0.1, "graceful_shutdown_timeout_s": 2}


class _Orders(OrdersBase):
    async def Place(self, request: Order) -> Receipt:
        return Receipt(text="" if request.id == "empty" else request.id)

    async def Follow(self, request: Order) -> AsyncIterator[Receipt]:
        yield Receipt(text=request.id)
        yield Receipt(text="" if request.id == "empty" else "there")

    async def Collect(self, requests: AsyncIterator[Order]) -> Receipt:
        return Receipt(text=" ".join([request.id async for request in requests]))

    async def Exchange(self, requests: AsyncIterator[Order]) -> AsyncIterator[Receipt]:
        async for request in requests:
            yield Receipt(text=request.id)

    async def Echo(self, request: Note) -> Note:
        return request

    async def Divide(self, request: Divisor) -> Note:
        return Note(text=str(1000 // request.number))


@grpc_deployment(validate=True, **QUICK)
class Orders(_Orders):
    """Checks requests."""


@grpc_deployment(validate="both", **QUICK)
class Strict(_Orders):
    """Checks requests and responses."""


@grpc_deployment(validate={"Place": False, "Follow": "responses", "*": True}, **QUICK)
class Some(_Orders):
    """Checks what each RPC says."""


@grpc_deployment(validate="both", **QUICK)
class Sync(OrdersBase):
    """The same with plain functions, which run in threads."""

    def Place(self, request: Order) -> Receipt:
        return Receipt(text="" if request.id == "empty" else request.id)

    def Follow(self, request: Order) -> Iterator[Receipt]:
        yield Receipt(text=request.id)
        yield Receipt(text="" if request.id == "empty" else "there")

    def Collect(self, requests: Iterator[Order]) -> Receipt:
        return Receipt(text=" ".join(request.id for request in requests))

    def Exchange(self, requests: Iterator[Order]) -> Iterator[Receipt]:
        for request in requests:
            yield Receipt(text=request.id)

    def Echo(self, request: Note) -> Note:
        return request

    def Divide(self, request: Divisor) -> Note:
        return Note(text=str(1000 // request.number))


@grpc_deployment(**QUICK)
class Outer(OrdersBase):
    """Passes every call on through a handle."""

    def __init__(self, orders: OrdersHandle) -> None:
        self.orders = orders

    async def Place(self, request: Order) -> Receipt:
        return await self.orders.Place(request)

    async def Follow(self, request: Order) -> AsyncIterator[Receipt]:
        async for receipt in self.orders.Follow(request):
            yield receipt

    async def Collect(self, requests: AsyncIterator[Order]) -> Receipt:
        return await self.orders.Collect(requests)

    async def Exchange(self, requests: AsyncIterator[Order]) -> AsyncIterator[Receipt]:
        async for receipt in self.orders.Exchange(requests):
            yield receipt

    async def Echo(self, request: Note) -> Note:
        return await self.orders.Echo(request)

    async def Divide(self, request: Divisor) -> Note:
        return await self.orders.Divide(request)


class Noting(grpc.aio.ServerInterceptor):
    """Notes the method of each call."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        self.seen.append(handler_call_details.method)
        return await continuation(handler_call_details)


NOTING = Noting()


@grpc_deployment(validate="both", interceptors=[NOTING], compression=grpc.Compression.Gzip, **QUICK)
class Intercepted(_Orders):
    """Has everything that is between a call and its handler."""


@grpc_deployment(validate="both", partial=True, **QUICK)
class Reading(OrdersBase):
    """Reads and writes through the context, and continues after a request that breaks a rule."""

    async def Exchange(self, requests: Any, grpc_context: ServicerContext) -> None:
        while True:
            try:
                request = await grpc_context.read()
            except RpcError as error:
                await grpc_context.write(Receipt(text=error.details))
                continue
            if request is grpc.aio.EOF:
                return
            await grpc_context.write(Receipt(text="" if request.id == "empty" else request.id))
