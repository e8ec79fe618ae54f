"""An application with what the harness must treat as a cluster does. A separate module, because replicas import it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
from probe_pb2 import Ask, Told
from probe_sdk import AsyncProbeHandle, SyncProbeBase

from sdk import current_context, grpc_deployment
from tests.integration.typed_handle_apps import FAST, Inner, outer


class Tagging(grpc.aio.ServerInterceptor):
    """Sets a trailer of each call."""

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        current_context().set_trailing_metadata([("method", handler_call_details.method)])
        return await continuation(handler_call_details)


@grpc_deployment(partial=True, interceptors=[Tagging], compression=grpc.Compression.Gzip, **FAST)
class Front(SyncProbeBase):
    """Half of its service, intercepted and compressed, in front of a hidden deployment.

    Args:
        inner: The hidden deployment.
        other: Another deployment of the application, which calls it too.
    """

    def __init__(self, inner: AsyncProbeHandle, other: Any) -> None:
        self.inner = inner

    async def Unary(self, request: Ask, grpc_context: Any) -> Told:
        grpc_context.send_initial_metadata([("early", "yes"), ("early-bin", b"\0")])
        return await self.inner.Unary(request)

    async def Down(self, request: Ask) -> AsyncIterator[Told]:
        async for told in self.inner.Down(request):
            yield told


def application(notes: str) -> Any:
    inner = Inner.bind(notes)
    return Front.bind(inner, outer(inner))
