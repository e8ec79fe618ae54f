"""Fault injection for the test server: delays, and error statuses before or during a handler's response."""

from __future__ import annotations

import asyncio
import contextvars
import random
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import grpc
import grpc.aio

from sdk._wire.route import build_routes

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from sdk._wire.call import Call
    from sdk._wire.route import Route
    from sdk._wire.server import WireServer
    from sdk.errors import RpcError
    from sdk.service import MethodBinding


@dataclass(eq=False)
class Fault:
    """A fault of :meth:`Server.inject`. It is active until :meth:`clear` or the end of its ``with`` block.

    Attributes:
        latency_s: Seconds to delay a call.
        error: Status of the call; None to only delay it.
        after_messages: Number of the handler's response messages that the client gets before the error.
        paths: Paths of the methods that it affects; None for all.
        application: Name of the application that it affects; None for all.
        times: Number of calls that it still affects; None for any number.
        share: Share of the calls that it affects, from 0 to 1.
        hits: Number of calls that it has affected.
    """

    latency_s: float
    error: RpcError | None
    after_messages: int
    paths: frozenset[str] | None
    application: str | None
    times: int | None
    share: float
    faults: Faults = field(repr=False)
    hits: int = 0

    def clear(self) -> None:
        """Clear the fault. Calls that it already affects are not changed."""
        self.faults.remove(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.clear()


_current: contextvars.ContextVar[Fault] = contextvars.ContextVar("sdk_testing_fault")


class Faults:
    """The active faults of a test server. The test's thread adds and removes them, the server's loop takes them."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._lock = threading.Lock()
        self._random = random.Random(0)  # the same calls in every run

    def add(self, fault: Fault) -> None:
        """Add a fault."""
        with self._lock:
            self._faults.append(fault)

    def remove(self, fault: Fault) -> None:
        """Remove a fault; do nothing if it was removed before."""
        with self._lock:
            self._faults = [other for other in self._faults if other is not fault]

    def clear(self) -> None:
        """Remove all faults."""
        with self._lock:
            self._faults = []

    def take(self, application: str, path: str) -> Fault | None:
        """Return the first fault that affects a call, and count the hit; None if there is no such fault."""
        if not self._faults:
            return None
        with self._lock:
            for fault in self._faults:
                if fault.application not in (None, application) or not (fault.paths is None or path in fault.paths):
                    continue
                if fault.times == 0 or self._random.random() >= fault.share:
                    continue
                if fault.times is not None:
                    fault.times -= 1
                fault.hits += 1
                return fault
        return None

    def install(
        self,
        server: WireServer,
        application: str,
        bindings: Iterable[MethodBinding],
        compression: grpc.Compression | None,
        interceptors: Sequence[grpc.aio.ServerInterceptor],
    ) -> None:
        """Wrap every method of a wire server. Calls that no fault affects are answered as without this.

        Args:
            server: The server; its routes are changed.
            application: Name of the application.
            bindings: The server's methods with their handlers.
            compression: The server's compression.
            interceptors: The server's interceptors.
        """
        interrupted_routes = build_routes(bindings, compression, [_Interruption(), *interceptors])
        for path, route in server.routes.items():
            route.answer = self._answer(application, route.answer, interrupted_routes[path])

    def _answer(self, application: str, plain: Callable[..., Awaitable[None]], interrupted: Route) -> Any:
        path = interrupted.method.path

        def answer(call: Call, route: Route) -> Awaitable[None]:
            fault = self.take(application, path)
            # Not awaited here: the tracebacks that clients get must show the handler and no frame of this module.
            return plain(call, route) if fault is None else faulty(fault, call, route)

        async def faulty(fault: Fault, call: Call, route: Route) -> None:
            if fault.latency_s:
                await asyncio.sleep(fault.latency_s)
            if fault.error is None:
                await plain(call, route)
            elif not fault.after_messages:
                raise fault.error
            else:
                _current.set(fault)
                await interrupted.answer(call, interrupted)

        return answer


class _Interruption(grpc.aio.ServerInterceptor):
    """Interrupts a response with the error of the call's fault, after some of its messages."""

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        handler = await continuation(handler_call_details)
        fault = _current.get()
        assert fault.error is not None
        error = fault.error

        async def stream(request: Any, context: Any) -> AsyncIterator[Any]:
            function = handler.stream_stream or handler.unary_stream
            sent = 0
            async for response in function(request, context):
                yield response
                sent += 1
                if sent == fault.after_messages:
                    break
            raise error

        async def unary(request: Any, context: Any) -> Message:
            await (handler.stream_unary or handler.unary_unary)(request, context)
            raise error

        kinds = ("unary", "stream")
        name = f"{kinds[handler.request_streaming]}_{kinds[handler.response_streaming]}_rpc_method_handler"
        return getattr(grpc, name)(
            stream if handler.response_streaming else unary, handler.request_deserializer, handler.response_serializer
        )
