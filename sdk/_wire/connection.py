"""One connection to the wire server: parses HTTP/1.1, and drives the call that it carries.

On every request's way, and written for speed. A connection carries one call at a time, as Envoy uses it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import httptools

from sdk._replica_protocol import HEALTH_CHECK_PATH, HEALTH_CHECK_RESPONSE
from sdk._wire import http_errors as refusals
from sdk._wire import metadata as md
from sdk._wire.call import INTERNAL, RESOURCE_EXHAUSTED, Call
from sdk._wire.http_errors import DEAF, MAX_HEADER_BYTES, Refusal, check_length, refusal_of
from sdk._wire.idle_reaper import Phase

if TYPE_CHECKING:
    from sdk._wire.server import WireServer


class Connection(asyncio.Protocol):
    """One connection from Envoy, or from whoever found the port."""

    __slots__ = (
        "_call",
        "_headers",
        "_is_congested",
        "_overhead",
        "_parser",
        "_path",
        "_server",
        "_transport",
        "calls",
    )

    def __init__(self, server: WireServer) -> None:
        self._server = server
        self._call: Call | None = None
        self._is_congested = False
        self._overhead = 0  # bytes since the last byte of a body, or since the last request
        self._parser: Any = httptools.HttpRequestParser(self)
        self.calls = 0

    # -- asyncio.Protocol ---------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport
        if not self._server.sweep.admit(self, self._server.loop):
            self.abort()

    def data_received(self, data: bytes) -> None:
        self._overhead += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._refuse(refusal_of(error))
        else:
            if self._overhead > MAX_HEADER_BYTES and self._parser is not DEAF:
                self._refuse(Refusal(*refusals.TOO_LONG))

    def eof_received(self) -> None:
        return None

    def connection_lost(self, error: Exception | None) -> None:
        self._server.forget(self)
        self._parser = DEAF  # it refers to this object: without the cycle nothing waits for the GC
        if self._call is not None:
            self._call.connection_lost()

    def pause_writing(self) -> None:
        self._is_congested = True
        if self._call is not None:
            self._call.set_writable(False)

    def resume_writing(self) -> None:
        self._is_congested = False
        if self._call is not None:
            self._call.set_writable(True)

    # -- httptools ----------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        # Who does not take its answers gets no more of them.
        if self._call is not None or self._is_congested:
            raise Refusal(*refusals.PIPELINED)
        self._path = b""
        self._headers: list[tuple[bytes, bytes]] = []

    def on_url(self, url: bytes) -> None:
        self._path += url

    def on_header(self, name: bytes, value: bytes) -> None:
        # Names are in lower case: Envoy writes them so.
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        server = self._server
        headers = self._headers
        self._headers = DEAF  # trailers of a request say nothing in gRPC
        if self._overhead > MAX_HEADER_BYTES:
            check_length(self._path, headers)
        if self._parser.get_method() != b"POST":
            self._answer_other()
            return
        server.calls = self.calls = server.calls + 1
        call = Call(server, self._transport, server.routes.get(self._path), self._path, headers, self._on_finished)
        if not call.is_grpc:
            raise Refusal(*refusals.NOT_GRPC)
        self._call = call
        # What was read may have more in it than the head: it is only then counted exactly.
        limit = server.settings.max_metadata_bytes
        if self._overhead > limit and (size := md.size_of(headers)) > limit:
            call.finish_with(RESOURCE_EXHAUSTED, refusals.too_much_metadata(size, limit))
        else:
            call.headers_complete()

    def _answer_other(self) -> None:
        """Answer Envoy's question whether this replica serves. It is no call, and counts nowhere."""
        if self._path != HEALTH_CHECK_PATH.encode():
            raise Refusal(*refusals.NOT_POST)
        self.calls -= 1  # for the sweep: the connection is in use
        self._transport.write(HEALTH_CHECK_RESPONSE)

    def on_body(self, body: bytes) -> None:
        self._overhead = 0
        if self._call is not None:
            self._call.feed(body)

    def on_message_complete(self) -> None:
        self._overhead = 0
        call = self._call
        if call is None:
            return
        call.end_of_request()
        if call.is_done():
            self._ready_for_next()

    # -- ends ---------------------------------------------------------------------------------

    def _on_finished(self, call: Call) -> None:
        if call.request_complete:
            self._ready_for_next()

    def _ready_for_next(self) -> None:
        self._call = None
        if self._server.closing:
            self._transport.close()

    def close_when_idle(self) -> None:
        """Close now, or when the answer to the running call is out."""
        if self._call is None:
            self._transport.close()

    def end(self, code: int, details: str) -> None:
        """End the running call with a status, and close."""
        call = self._call
        if call is None:
            self._transport.close()
        else:
            call.cancel(code, details)
            self._close_after_answer()

    def abort(self) -> None:
        """Close without sending what is left."""
        self._transport.abort()

    def _refuse(self, refusal: Refusal) -> None:
        """Answer what is wrong, and close: nothing behind it can be trusted."""
        if self._transport.is_closing():
            return
        if self._call is None:
            self._transport.write(refusal.response())
        else:
            self._call.cancel(INTERNAL, f"the request is malformed: {refusal}")
        self._close_after_answer()

    def _close_after_answer(self) -> None:
        # Closing a socket with bytes that were not read resets it, and the peer would lose the answer: what still
        # comes is read and dropped until the peer closes too, or the sweep ends it.
        self._parser = DEAF
        if not self._transport.is_closing():
            try:
                self._transport.write_eof()
            except OSError:  # the peer has reset the connection, and the loop has not told yet
                self._transport.abort()

    # -- for the sweep ------------------------------------------------------------------------

    @property
    def phase(self) -> Phase:
        """What the connection is doing."""
        if self._parser is DEAF or self._transport.is_closing():
            return Phase.CLOSING
        if self._call is not None:
            return Phase.REST if self._call.is_done() else Phase.CALL
        if self._overhead:
            return Phase.HEAD
        return Phase.IDLE if not self.calls or self._parser.should_keep_alive() else Phase.LAST

    @property
    def unsent(self) -> int:
        """Bytes that the peer has not taken yet."""
        size: int = self._transport.get_write_buffer_size()
        return size

    @property
    def unread_socket(self) -> int | None:
        """File descriptor of the socket when it is not read at present."""
        if self._call is None or not self._call.paused:
            return None
        descriptor: int = self._transport.get_extra_info("socket").fileno()
        return descriptor

    def give_up(self, phase: Phase) -> None:
        """End the connection, in the way that fits its phase."""
        if phase is Phase.CLOSING:
            self.abort()
        elif phase is Phase.HEAD:
            self._refuse(Refusal(*refusals.TOO_SLOW))
        else:
            self._transport.close()
