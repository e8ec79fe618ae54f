"""The way to answer each method: unary or a stream, on the loop or in a thread, intercepted or compressed.

Decided once per method, when the server starts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from sdk._wire.answering import answer_stream_async, answer_stream_sync, answer_unary_async, answer_unary_sync
from sdk._wire.call_counts import LATENCY_BOUNDS_MS
from sdk._wire.call_rules import ruled
from sdk._wire.checked_route import route_class
from sdk._wire.interceptors import intercept

if TYPE_CHECKING:
    import grpc
    import grpc.aio

    from sdk._wire.call import Call
    from sdk._wire.route import Answer, Route
    from sdk.service import MethodBinding


def build_routes(
    bindings: Iterable[MethodBinding],
    compression: grpc.Compression | None = None,
    interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
    latency_bounds_ms: Sequence[float] = LATENCY_BOUNDS_MS,
) -> dict[bytes, Route]:
    """Return the routes by path.

    Args:
        bindings: The methods and their handlers.
        compression: Compression of responses whose handler does not choose one.
        interceptors: Run between a call and its handler, the outermost first.
        latency_bounds_ms: Upper bounds of the buckets in which calls are counted, in milliseconds.
    """
    bindings = list(bindings)
    routes = {each.method.path.encode(): route_class(each)(each, latency_bounds_ms) for each in bindings}
    for route in routes.values():
        route.answer = _answer_for(route)
    if interceptors:
        intercept(routes, interceptors)
    if compression is not None:
        for route in routes.values():
            route.answer = _compressing(compression, route.answer)
    for each in bindings:
        if each.rule is not None:
            route = routes[each.method.path.encode()]
            route.answer = ruled(each.rule, route.answer)
    return routes


def _answer_for(route: Route) -> Answer:
    if route.server_streaming:
        return answer_stream_async if route.is_async else answer_stream_sync
    return answer_unary_async if route.is_async else answer_unary_sync


def _compressing(compression: grpc.Compression, answer: Answer) -> Answer:
    """Return a way to answer that compresses unless the handler chooses otherwise."""

    async def answer_compressed(call: Call, route: Route) -> None:
        call.set_compression(compression)
        await answer(call, route)

    return answer_compressed
