"""Methods of the services of the proxy itself, as the wire server takes them, and the limit of their streams."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc

from sdk.errors import RpcError
from sdk.service import Cardinality, Method, MethodBinding


def bind(
    path: str,
    handler: Callable[..., Any],
    request: Any,
    response: Any,
    cardinality: Cardinality = Cardinality.UNARY_UNARY,
) -> MethodBinding:
    """Return a method bound to its handler.

    Args:
        path: The gRPC path, ``"/grpc.health.v1.Health/Check"``.
        handler: The bound method that answers it.
        request: Class of the request message.
        response: Class of the response message.
        cardinality: One message or a stream of messages in each direction.
    """
    name = path.rpartition("/")[2]
    return MethodBinding(Method(name, name, path, cardinality, request, response), handler)


class OpenStreams:
    """Counts the open streams, so that those of some clients leave connections for the calls of all others.

    Args:
        limit: Most streams that may be open.

    Example:
        >>> streams = OpenStreams(limit=1)
        >>> with streams.place():
        ...     streams.count
        1
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.count = 0

    @contextmanager
    def place(self) -> Iterator[None]:
        """Take a place for a stream while the block runs.

        Raises:
            RpcError: RESOURCE_EXHAUSTED: every place is taken.
        """
        if self.count >= self._limit:
            raise RpcError(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"{self.count} streams of health checks and server reflection are open at this proxy, which is the "
                "limit.",
            )
        self.count += 1
        try:
            yield
        finally:
            self.count -= 1
