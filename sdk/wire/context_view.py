"""What the gRPC context reads of a call and sets on it (``sdk.context.CallState``), apart from the call's way."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from grpc.aio import EOF  # type: ignore[attr-defined]  # grpc-stubs does not know it

from sdk.wire import metadata as md

if TYPE_CHECKING:
    from sdk.context import MetadataPairs
    from sdk.wire.routes import Route
    from sdk.wire.server import WireServer


class Transport(Protocol):
    """What a call needs of an ``asyncio.Transport``."""

    def write(self, data: bytes, /) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def close(self) -> None: ...
    def is_closing(self) -> bool: ...


class ContextView:
    """Base of a call: its state as the context wants it. Nothing here is computed before it is asked for."""

    __slots__ = (
        "_cancel_reason",
        "_deadline",
        "_done_callbacks",
        "_fields",
        "_finished",
        "_head_sent",
        "_metadata",
        "_request_id",
        "_trailing",
        "headers",
        "route",
        "server",
        "transport",
        "writable",
    )

    if TYPE_CHECKING:
        headers: list[tuple[bytes, bytes]]
        route: Route | None
        server: WireServer
        transport: Transport
        writable: bool
        _cancel_reason: tuple[int, str] | None
        _deadline: float | None
        _done_callbacks: list[Callable[[], None]] | None
        _fields: dict[bytes, bytes]
        _finished: bool
        _head_sent: bool
        _metadata: md.Metadata | None
        _request_id: bytes | None
        _trailing: md.Metadata

        # ruff: noqa: D102
        async def next_message(self) -> bytes | None: ...
        async def wait_writable(self) -> None: ...
        def send(self, data: bytes) -> None: ...

    def _id(self) -> bytes:
        request_id = self._request_id
        if request_id is None:
            fields = self._fields
            # Envoy makes an ``x-request-id`` for every call, so that its own answers and ours name the same one.
            request_id = fields.get(b"request_id") or fields.get(b"x-request-id") or str(uuid.uuid4()).encode()
            self._request_id = request_id
        return request_id

    @property
    def request_id(self) -> str:
        """Return the call's request id."""
        return self._id().decode("latin-1")

    def header(self, name: bytes) -> str | None:
        """Return the last value of a header, or None."""
        value = self._fields.get(name)
        return None if value is None else value.decode("latin-1")

    @property
    def metadata(self) -> md.Metadata:
        """Return the metadata that the client sent."""
        if self._metadata is None:
            self._metadata = md.from_headers(self.headers)
        return self._metadata

    @property
    def trailing(self) -> md.Metadata:
        """Return the trailing metadata set so far."""
        return self._trailing

    @property
    def peer(self) -> str:
        """Return the client's address as Envoy saw it."""
        # Envoy appends the address it saw; what stands before it came from the client and proves nothing.
        address = (self.header(b"x-forwarded-for") or "").rpartition(",")[2].strip()
        return f"{'ipv6' if ':' in address else 'ipv4'}:{address}" if address else "unknown"

    def set_trailing(self, metadata: MetadataPairs) -> None:
        """Set the trailing metadata."""
        self._trailing = md.check(metadata)

    def send_initial_metadata(self, metadata: MetadataPairs) -> None:
        """Send the initial metadata now."""
        if self._head_sent:
            raise RuntimeError("the initial metadata was sent already: with the first message, or by an earlier call")
        lines = md.encode(md.check(metadata))
        self._head_sent = True
        head = self.server.head[:-2] + lines + b"\r\n"
        if self.server.is_loop_thread():
            self._write_head(head)
        else:
            self.server.on_loop(partial(self._write_head, head))

    def _write_head(self, head: bytes) -> None:
        if not self._finished:
            self.transport.write(head)

    def time_remaining(self) -> float | None:
        """Return the seconds left until the deadline, or None."""
        return None if self._deadline is None else max(0.0, self._deadline - self.server.loop.time())

    def is_done(self) -> bool:
        """Tell whether the answer is out, or nobody wants it any more."""
        return self._finished

    def is_cancelled(self) -> bool:
        """Tell whether the client is gone or the deadline has passed."""
        return self._cancel_reason is not None

    def on_done(self, callback: Callable[[], None]) -> None:
        """Call back when the call is over; at once when it is."""
        if self._finished:
            callback()
        elif self._done_callbacks is None:
            self._done_callbacks = [callback]
        else:
            self._done_callbacks.append(callback)

    async def read_message(self) -> Any:
        """Return the next request message, or ``grpc.aio.EOF``."""
        route = self.route
        assert route is not None
        message = await self.next_message()
        return EOF if message is None else route.decode_request(message)

    async def write_message(self, message: Any) -> None:
        """Send one response message, and wait until there is room for more."""
        route = self.route
        assert route is not None
        self.send(route.encode_response(message))
        if not self.writable:
            await self.wait_writable()
        if self.transport.is_closing():
            await asyncio.sleep(0)  # as for a stream that is iterated: see handlers.py
