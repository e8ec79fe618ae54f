"""Calls of typed handles over Ray Serve's handles, where the ingress knows no replica: both ends.

Such a deployment has Ray Serve's own decorator, or the cluster has no ingress. Ray's handle then carries the bytes that
would go through a connection to the wire server: the request in its argument, the response in the items of its stream.
So a call has the same results, for ten times the cost; a stream of requests can't be carried.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from typing import Any

from ray import serve
from ray.exceptions import RayActorError

from sdk._channel.connection import CarriedCall, ReplicaConnection
from sdk._contract.definition import definition_of
from sdk._contract.implementations import find_implementation, generated_bases
from sdk._contract.interceptors import make_interceptors
from sdk._replica_protocol import CALLER_PREFACE
from sdk._serve.internals import cancel_child_requests, deployment_config, request_context_setter
from sdk._serve.translation import translate
from sdk._wire.host import WireSettings
from sdk._wire.server import WireServer

#: Name of the method of a generated base that answers.
METHOD = "_grpc_over_ray"
# Attribute of an instance: the wire server that answers its calls here; it listens nowhere.
SERVER = "_grpc_server"
# Bytes of a response that wait for Ray before the handler does.
_HIGH_WATER = 1 << 18


def ray_connection(handle: Any, model_id: str) -> ReplicaConnection:
    """Return a connection for one call that a Ray handle carries.

    Args:
        handle: Ray Serve's ``DeploymentHandle``.
        model_id: The model that the replica should have loaded, or an empty string.
    """
    return _RayConnection(handle, model_id)


class _NoOwner:
    """The owner of a connection for one call: nothing is kept."""

    preface = CALLER_PREFACE

    def release(self, connection: ReplicaConnection) -> None:
        """Do nothing: the call has ended, and Ray's response with it."""

    forget = release


class _RayConnection(ReplicaConnection):
    """The caller's end."""

    __slots__ = ("_handle", "_model_id", "_reading")

    def __init__(self, handle: Any, model_id: str) -> None:
        super().__init__(_NoOwner())
        self._handle = handle.options(method_name=METHOD, stream=True)
        self._model_id = model_id
        self.accepted.set_result(None)
        self._reading: asyncio.Task[None] | None = None
        self._transport = self

    def send(self, call: CarriedCall, head: bytes, body: bytes = b"") -> None:
        """Begin the call with its whole request."""
        self.call = call
        if self._model_id:
            self._handle = self._handle.options(multiplexed_model_id=self._model_id)
        self._reading = asyncio.get_running_loop().create_task(self._read(head + body))

    def abort(self) -> None:
        """Cancel the call; the transport of this connection is the connection itself."""
        if self._reading is not None:
            self._reading.cancel()

    def pause_reading(self) -> None:
        """Do nothing: Ray takes the items of a stream as fast as they are made."""

    resume_reading = pause_reading

    async def _read(self, request: bytes) -> None:
        responses = None
        try:
            responses = self._handle.remote(request)
            async for data in responses:
                self.data_received(data)
        except asyncio.CancelledError:
            if responses is not None:
                responses.cancel()
            raise
        except RayActorError:
            self.connection_lost(None)  # as if it had closed the connection: an idempotent call is sent again
        except Exception as error:
            status = translate(error)
            call, self.call = self.call, None
            if call is not None:
                call.fail(status if isinstance(status, Exception) else error)
        else:
            self.connection_lost(None)


class _Responses(asyncio.Transport):
    """The callee's end: the transport of a wire server's connection whose bytes become the items of a stream."""

    def __init__(self) -> None:
        super().__init__()
        self._pieces: list[bytes] = []
        self._size = 0
        self._changed = asyncio.Event()
        self._closed = False
        self.connection: Any = None

    def write(self, data: Any) -> None:
        self._pieces.append(data)
        self._size += len(data)
        if self._size > _HIGH_WATER:
            self.connection.pause_writing()
        self._changed.set()

    def writelines(self, pieces: Iterable[Any]) -> None:
        self.write(b"".join(pieces))

    def close(self) -> None:
        self._closed = True
        self._changed.set()

    abort = write_eof = close

    def is_closing(self) -> bool:
        return self._closed

    def pause_reading(self) -> None:
        """Do nothing: the request is here."""

    resume_reading = pause_reading

    def get_write_buffer_size(self) -> int:
        return self._size

    async def next(self) -> bytes:
        """Return the bytes written since the last call; empty after the end."""
        while not self._pieces and not self._closed:
            self._changed.clear()
            await self._changed.wait()
        data = b"".join(self._pieces)
        self._pieces.clear()
        if self._size > _HIGH_WATER:
            self.connection.resume_writing()
        self._size = 0
        return data


async def answer_over_ray(implementation: Any, request: bytes) -> AsyncGenerator[bytes, None]:
    """Answer a call that Ray's handle has carried; yield the bytes of the response.

    Args:
        implementation: The instance of the deployment class.
        request: The whole request, as it would come through a connection.
    """
    server = vars(implementation).get(SERVER) or _make_server(implementation)
    transport = _Responses()
    connection = transport.connection = server.new_connection()
    connection.is_counted = False  # Ray Serve has counted the request that carries it
    connection.connection_made(transport)
    try:
        connection.data_received(request)
        while data := await transport.next():
            yield data
            if connection.call is None:  # it carries one call, and the caller keeps its end open for the next one
                transport.close()
    finally:
        connection.connection_lost(None)


def _make_server(implementation: Any) -> WireServer:
    """Return the wire server of a class with Ray Serve's own decorator; it listens nowhere."""
    cls = type(implementation)
    definition = definition_of(cls)
    context = serve.get_replica_context()
    bindings = (
        definition.bindings(implementation)
        if definition is not None
        else [
            binding
            for base in generated_bases(cls)
            for binding in vars(base)["__grpc_shim__"].bindings(implementation)
            if find_implementation(cls, binding.method.python_name) is not None
        ]
    )
    server = WireServer(
        bindings,
        # Ray Serve itself never lets more calls in.
        WireSettings(max_ongoing_requests=deployment_config().max_ongoing_requests),
        on_start=request_context_setter(context.app_name),
        on_cancel=cancel_child_requests,
        translate_error=translate,
        application=context.app_name,
        compression=definition.compression if definition is not None else None,
        interceptors=make_interceptors(cls.__name__, definition.interceptors) if definition is not None else (),
    )
    server.host.attach(asyncio.get_running_loop())
    setattr(implementation, SERVER, server)
    return server
