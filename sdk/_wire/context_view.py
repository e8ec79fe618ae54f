"""What the gRPC context reads of a call and sets on it (``sdk.context.CallState``), apart from the call's way."""

from __future__ import annotations

import asyncio
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from grpc.aio import EOF

from sdk._wire import metadata as md
from sdk._wire.compression import compressor_for
from sdk._wire.peer import auth_context_of, peer_of
from sdk._wire.threads import on_loop

if TYPE_CHECKING:
    import grpc

    from sdk._wire.call import Transport
    from sdk._wire.compression import Compressor
    from sdk._wire.crash_trailers import Ending
    from sdk._wire.frames import Flagged
    from sdk._wire.route import Route
    from sdk._wire.server import WireServer
    from sdk.context import MetadataPairs

_CANCELLED = 1


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
        "_skips_first",
        "_trailing",
        "compressor",
        "ending",
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
        _done_callbacks: list[Callable[[], object]] | None
        _fields: dict[bytes, bytes]
        _finished: bool
        _head_sent: bool
        _metadata: md.Metadata | None
        _request_id: bytes | None
        _skips_first: bool
        _trailing: md.Metadata
        compressor: Compressor | None
        ending: Ending | None
        messages: deque[bytes | bytearray | Flagged] | None

        def cancel(self, code: int, details: str) -> None: ...
        async def next_message(self) -> bytes | bytearray | None: ...
        async def wait_writable(self) -> None: ...
        def send(self, data: bytes, flag: int = 0) -> None: ...

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
        return peer_of(self.header(b"x-forwarded-for"))

    @property
    def auth_context(self) -> Mapping[str, tuple[bytes, ...]]:
        """Return what Envoy found out about the client."""
        return auth_context_of(self.header(b"x-forwarded-proto"), self.header(b"x-forwarded-client-cert"))

    def set_trailing(self, metadata: MetadataPairs) -> None:
        """Set the trailing metadata."""
        self._trailing = md.check(metadata)

    def send_initial_metadata(self, metadata: MetadataPairs) -> None:
        """Send the initial metadata now."""
        lines = md.encode(md.check(metadata))
        on_loop(self.server, partial(self._send_head, lines))

    def _send_head(self, lines: bytes) -> None:
        if self._finished:
            return  # by its deadline, or the client is gone: the handler will learn it at its next turn
        if self._head_sent:
            raise RuntimeError("the initial metadata was sent already: with the first message, or by an earlier call")
        self._head_sent = True
        self.transport.write(self.begin_answer()[:-2] + lines + b"\r\n")

    def set_compression(self, compression: grpc.Compression) -> None:
        """Compress the messages of the answer from the first one on, if the client understands it."""
        on_loop(self.server, partial(self._set_compressor, compression))

    def _set_compressor(self, compression: grpc.Compression) -> None:
        if self._head_sent:
            raise RuntimeError(
                "set_compression comes too late: the initial metadata, which names the encoding, was sent already, "
                "with the first message or by send_initial_metadata"
            )
        self.compressor = compressor_for(compression, self._fields.get(b"grpc-accept-encoding"))
        if self.compressor is not None:
            # Not set by the constructor: a call that compresses nothing does not pay for it.
            self.compressor.skip_next = getattr(self, "_skips_first", False)

    def disable_next_message_compression(self) -> None:
        """Send the next message as it is, also when what compresses is set only then."""
        self._skips_first = True
        if self.compressor is not None:
            self.compressor.skip_next = True

    def begin_answer(self) -> bytes:
        """Return the head of an answer whose end is not written with it."""
        endings = self.server.endings
        if endings is not None:
            self.ending = endings.begin(self.transport, self._id())
        return self.head()

    def head(self) -> bytes:
        """Return the head of an answer with messages, which may be compressed."""
        head = self.server.head
        if self.compressor is None:
            return head
        return b"%sgrpc-encoding: %s\r\n\r\n" % (head[:-2], self.compressor.encoding)

    def without_messages(self, code: int, trailers: bytes) -> bytes:
        """Return a whole answer that has no messages.

        An error is one block of headers then (gRPC's "Trailers-Only"): the client has no headers of the call before its
        status, and may retry it.
        """
        head = self.server.head
        if not code:
            return head + trailers
        return head[:-2].replace(b"transfer-encoding: chunked", b"content-length: 0") + trailers.removeprefix(b"0\r\n")

    def time_remaining(self) -> float | None:
        """Return the seconds left until the deadline, or None."""
        return None if self._deadline is None else max(0.0, self._deadline - self.server.loop.time())

    def is_done(self) -> bool:
        """Tell whether the answer is out, or nobody wants it any more."""
        return self._finished

    def is_cancelled(self) -> bool:
        """Tell whether the client is gone or the deadline has passed."""
        return self._cancel_reason is not None

    def on_done(self, callback: Callable[[], object]) -> bool:
        """Call back when the call is over, on the loop or in a thread as it is now; False when it is over already."""
        server = self.server
        if not server.is_loop_thread():
            # It may block, as the handler may; the threads of handlers can all be waiting for it.
            callback = partial(server.loop.run_in_executor, None, callback)
        return on_loop(server, partial(self._add_done_callback, callback))

    def _add_done_callback(self, callback: Callable[[], object]) -> bool:
        if self._finished:
            return False
        if self._done_callbacks is None:
            self._done_callbacks = [callback]
        else:
            self._done_callbacks.append(callback)
        return True

    def cancel_by_handler(self) -> None:
        """End the call CANCELLED, and its handler."""
        on_loop(self.server, partial(self.cancel, _CANCELLED, "the handler cancelled the call"))

    async def read_message(self) -> Any:
        """Return the next request message, or ``grpc.aio.EOF``."""
        route = self.route
        assert route is not None
        if self.messages is None:
            return EOF  # the handler has the one message as its argument
        message = await self.next_message()
        return EOF if message is None else route.decode_request(message)

    async def write_message(self, message: Any) -> None:
        """Send one response message, and wait until there is room for more.

        Raises:
            RuntimeError: The answer of the method is one message.
            asyncio.InvalidStateError: The call is over.
        """
        route = self.route
        assert route is not None
        if not route.server_streaming:
            raise RuntimeError(f"write() is for streams; {route.label} answers with one message: return it")
        if self._finished:
            raise asyncio.InvalidStateError("write() after the end of the call")
        data = route.encode_response(message)
        if self.compressor is None:
            self.send(data)
        else:
            flag, data = await self.compressor.pack_on_loop(data)
            self.send(data, flag)
        if not self.writable:
            await self.wait_writable()
