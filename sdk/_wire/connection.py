"""One connection to the wire server: parses HTTP/1.1, and drives the call that it carries.

On the path of every request, and written for speed. A connection carries one call at a time, as Envoy uses it.
"""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import TYPE_CHECKING, Any

import httptools

from sdk._replica_protocol import CALLER_PATH, GOING_AWAY, HEALTH_CHECK_RESPONSE
from sdk._wire import http_errors
from sdk._wire import metadata as md
from sdk._wire.call import Call
from sdk._wire.http_errors import DISCARD, MAX_HEADER_BYTES, HttpError, check_length, to_http_error
from sdk._wire.idle_reaper import Phase
from sdk._wire.metadata import INTERNAL, RESOURCE_EXHAUSTED

if TYPE_CHECKING:
    from sdk._wire.host import Host
    from sdk._wire.idle_reaper import IdleReaper
    from sdk._wire.route import Route


class Connection(asyncio.Protocol):
    """One connection from Envoy, or from another client that found the port.

    Args:
        host: Limits, counters and hooks, for its calls.
        routes: The methods by path.
        reaper: The open connections.

    Attributes:
        is_counted: False if somebody else counts its calls.
    """

    __slots__ = (
        "_began",
        "_call",
        "_headers",
        "_host",
        "_is_caller",
        "_is_congested",
        "_overhead",
        "_parser",
        "_path",
        "_reaper",
        "_routes",
        "_transport",
        "is_counted",
        "request_number",
    )

    def __init__(self, host: Host, routes: dict[bytes, Route], reaper: IdleReaper) -> None:
        self._host = host
        self._routes = routes
        self._reaper = reaper
        self._call: Call | None = None
        self._is_congested = False
        self._is_caller = False  # another replica, not Envoy
        self._overhead = 0  # bytes since the last byte of a body, or since the last request
        self._parser: Any = httptools.HttpRequestParser(self)
        self.request_number = 0
        self.is_counted = True

    # -- asyncio.Protocol ---------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport
        if not self._reaper.admit(self, self._host.loop):
            self.abort()

    def refuse(self, transport: asyncio.BaseTransport) -> None:
        """End a connection that must not begin."""
        self._transport = transport
        self.abort()

    def data_received(self, data: bytes) -> None:
        self._overhead += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._reject(to_http_error(error))
        else:
            if self._overhead > MAX_HEADER_BYTES and self._parser is not DISCARD:
                self._reject(HttpError(*http_errors.TOO_LONG))

    def eof_received(self) -> None:
        return None

    def connection_lost(self, error: Exception | None) -> None:
        self._reaper.discard(self)
        self._parser = DISCARD  # it refers to this object: without the cycle nothing waits for the GC
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
        # Stop reading from a peer that does not drain its responses.
        if self._call is not None or self._is_congested:
            raise HttpError(*http_errors.PIPELINED)
        self._path = b""
        self._headers: list[tuple[bytes, bytes]] = []

    def on_url(self, url: bytes) -> None:
        self._path += url

    def on_header(self, name: bytes, value: bytes) -> None:
        # Names are in lower case: Envoy writes them so.
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        host = self._host
        headers = self._headers
        self._headers = DISCARD  # trailers of a request mean nothing in gRPC
        if self._overhead > MAX_HEADER_BYTES:
            check_length(self._path, headers)
        method = self._parser.get_method()
        if method != b"POST" and self._answer_get(method):
            return
        host.received = self.request_number = host.received + 1
        fields = dict(headers)
        if method == b"POST" and md.is_grpc(fields.get(b"content-type", b"")):
            route = self._routes.get(self._path)
            make = Call if host.make_call is None else host.make_call
            call = make(host, self._transport, route, self._path, headers, fields, self._on_finished)
        else:
            call = self._open_web_call(method, headers, fields)
        self._call = call
        self._began = perf_counter()
        # The overhead may include more than the head: only above the limit the metadata is counted exactly.
        limit = host.settings.max_metadata_bytes
        if self._overhead > limit and (size := md.size_of(headers)) > limit:
            call.finish_with(RESOURCE_EXHAUSTED, http_errors.too_much_metadata(size, limit))
        else:
            call.headers_complete()

    def _answer_get(self, method: bytes) -> bool:
        """Answer a health check, or note the preface of a caller; return False for any other request."""
        if self._path == CALLER_PATH.encode() and method == b"GET":
            self._is_caller = True
            if self._host.closing:
                self.close_when_idle()
            else:
                self._transport.write(HEALTH_CHECK_RESPONSE)
            return True
        response = self._host.answer_get(self._path) if method in (b"GET", b"HEAD") else None
        if response is None:
            return False
        self.request_number -= 1  # for the reaper: the connection is in use
        self._transport.write(response if method == b"GET" else response[: response.index(b"\r\n\r\n") + 4])
        return True

    def _open_web_call(self, method: bytes, headers: list[tuple[bytes, bytes]], fields: dict[bytes, bytes]) -> Call:
        """Return a call in another protocol than gRPC.

        Raises:
            HttpError: This server does not answer it.
        """
        host, open_call = self._host, self._host.open_web_call
        call = open_call and open_call(host, self._transport, method, self._path, headers, fields, self._on_finished)
        if call is None:
            raise HttpError(*(http_errors.NOT_GRPC if method == b"POST" else http_errors.NOT_POST), headers)
        return call  # type: ignore[no-any-return]  # the hook of a higher layer

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

    # -- end ----------------------------------------------------------------------------------

    def _on_finished(self, call: Call) -> None:
        if call.request_complete:
            self._ready_for_next()
        host, route, seconds = self._host, call.route, perf_counter() - self._began
        if self.is_counted:
            counts = host.unknown_methods if route is None else route.counts
            counts.add(call.status, seconds, is_inner=self._is_caller)
        if host.on_end is not None:
            host.on_end(call, call.status, seconds)

    def _ready_for_next(self) -> None:
        self._call = None
        if self._host.closing:
            self.close_when_idle()

    def close_when_idle(self) -> None:
        """Close now, or after the response to the running call."""
        if self._call is not None:
            return
        if self._is_caller:
            self._transport.write(GOING_AWAY)
            self._close_after_response()
        else:
            self._transport.close()

    def end(self, code: int, details: str) -> None:
        """End the running call with a status, and close."""
        call = self._call
        if call is None:
            self._transport.close()
        else:
            call.cancel(code, details)
            self._close_after_response()

    def abort(self) -> None:
        """Close without sending what is left."""
        self._transport.abort()

    def _reject(self, error: HttpError) -> None:
        """Answer a malformed request, and close: the bytes after it can't be trusted."""
        if self._transport.is_closing():
            return
        if self._call is None:
            self._transport.write(error.response(has_body=self._parser.get_method() != b"HEAD"))
        else:
            self._call.cancel(INTERNAL, f"the request is malformed: {error}")
        self._close_after_response()

    def _close_after_response(self) -> None:
        # Closing a socket with unread bytes resets it, and the peer would lose the response: further bytes are read and
        # dropped until the peer closes too, or the reaper ends the connection.
        self._parser = DISCARD
        if not self._transport.is_closing():
            try:
                self._transport.write_eof()
            except OSError:  # the peer has reset the connection, and the loop has not reported it yet
                self._transport.abort()
            except NotImplementedError:  # TLS ends in both directions at once
                self._transport.close()

    @property
    def call(self) -> Call | None:
        """The call that the connection carries."""
        return self._call

    # -- for the reaper -----------------------------------------------------------------------

    @property
    def phase(self) -> Phase:
        """The state of the connection."""
        if self._parser is DISCARD or self._transport.is_closing():
            return Phase.CLOSING
        if self._call is not None:
            return Phase.RESPONSE_SENT if self._call.is_done() else Phase.CALL
        if self._overhead:
            return Phase.HEAD
        return Phase.IDLE if not self.request_number or self._parser.should_keep_alive() else Phase.NOT_KEPT_ALIVE

    @property
    def unsent(self) -> int:
        """Bytes that the peer has not read yet."""
        size: int = self._transport.get_write_buffer_size()
        return size

    @property
    def unread_socket(self) -> int | None:
        """File descriptor of the socket while it is not read."""
        if self._call is None or not self._call.paused:
            return None
        descriptor: int = self._transport.get_extra_info("socket").fileno()
        return descriptor

    def expire(self, phase: Phase) -> None:
        """End the connection in a way that fits its phase."""
        if phase is Phase.CLOSING:
            self.abort()
        elif phase is Phase.HEAD:
            self._reject(HttpError(*http_errors.TOO_SLOW))
        else:
            self._transport.close()
