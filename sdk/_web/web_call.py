"""A call in another protocol than gRPC: the parts that all have in common.

The life of a call is that of :class:`sdk._wire.call.Call`: admission, deadline, handler, cancellation, counts. A
subclass here changes the bytes only: what it takes from the request, and what it writes.

Each response carries the name of its gRPC status, in a header or an HTTP trailer ``call-status``, for Envoy's access
log (``sdk/_xds/access_log.py``): Envoy reads the ``grpc-status`` of gRPC calls only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sdk._replica_protocol import REPLICA_DIED
from sdk._web.json_codec import parse_message, print_message
from sdk._wire.call import Call
from sdk._wire.call_counts import STATUS_NAMES
from sdk._wire.compression import compressor_for
from sdk._wire.crash_trailers import GuardWithEnd
from sdk._wire.frames import FrameError, MalformedRequest
from sdk._wire.metadata import INVALID_ARGUMENT, UNAVAILABLE
from sdk._wire.steps import MESSAGE_BURST

if TYPE_CHECKING:
    from collections.abc import Callable

    import grpc

    from sdk._wire.call import Transport
    from sdk._wire.compression import Compressor
    from sdk._wire.host import Host
    from sdk._wire.route import Route

#: Header or HTTP trailer with the name of the gRPC status.
STATUS_KEY = b"call-status"
#: Header with the path of the method, if the request's path is another one.
METHOD_KEY = b"call-method"
# Headers of these protocols, and those that a browser adds: not the client's metadata.
_NOT_METADATA = frozenset(
    {
        b"accept", b"accept-encoding", b"accept-language", b"connect-accept-encoding", b"connect-content-encoding",
        b"connect-protocol-version", b"connect-timeout-ms", b"content-encoding", b"cache-control", b"pragma",
        b"priority", b"sec-fetch-dest", b"sec-fetch-mode", b"sec-fetch-site", b"x-grpc-web",
    }
)  # fmt: skip


def status_name(code: int) -> bytes:
    """Return the name of a gRPC status, the value of ``call-status``.

    Example:
        >>> status_name(5)
        b'NOT_FOUND'
    """
    return _STATUS_NAMES.get(code, b"UNKNOWN")


_STATUS_NAMES = {code: name.encode() for code, name in STATUS_NAMES.items()}


class WebCall(Call):
    """A call in another protocol than gRPC.

    Args:
        host: Limits, counters and hooks.
        transport: Takes the response.
        route: The method and its handler; None if there is no such method.
        path: Path of the method, or the request's path if there is no such method.
        headers: The request's headers.
        fields: The headers by name.
        on_finished: Called once, when the response has been handed to the transport.
        codec: ``"json"`` or ``"proto"``: the form of messages.
    """

    #: False if an error before the first message needs the head for its HTTP status.
    sends_head_early = True
    #: Code for a request whose bytes are not what they should be.
    malformed_code = INVALID_ARGUMENT

    __slots__ = ("_initial", "_packer", "_skips_next", "codec", "has_other_path")

    def __init__(
        self,
        host: Host,
        transport: Transport,
        route: Route | None,
        path: bytes,
        headers: list[tuple[bytes, bytes]],
        fields: dict[bytes, bytes],
        on_finished: Callable[[Call], None],
        codec: str,
    ) -> None:
        super().__init__(host, transport, route, path, headers, fields, on_finished)
        self.headers = [pair for pair in headers if pair[0] not in _NOT_METADATA]
        self.codec = codec
        self.has_other_path = False
        self._initial = b""
        self._packer: Compressor | None = None
        self._skips_next = False

    # -- the request --------------------------------------------------------------------------

    def headers_complete(self) -> None:
        """Start the work that need not wait for the request's body."""
        error = self.read_headers()
        if error is None:
            super().headers_complete()
        else:
            self.finish_with(error.code, str(error))

    def read_headers(self) -> FrameError | None:
        """Translate the headers of the protocol to those of gRPC; return what is wrong with them."""
        timeout = self._fields.pop(b"connect-timeout-ms", None)
        if timeout is None:
            return None
        # https://connectrpc.com/docs/protocol#unary-request: a positive integer of at most ten digits
        if not timeout.isdigit() or len(timeout) > 10 or not int(timeout):
            text = f"connect-timeout-ms must be from 1 to 9999999999 milliseconds, not {timeout.decode('latin-1')!r}"
            return FrameError(INVALID_ARGUMENT, text)
        milliseconds = int(timeout)
        seconds = f"{milliseconds}m" if milliseconds < 10**8 else f"{milliseconds // 1000}S"
        self._fields[b"grpc-timeout"] = seconds.encode()
        return None

    def take_message(self) -> bytes | bytearray:
        """Return the one request message of a method that takes one.

        Raises:
            FrameError: The body is not one message.
        """
        return self.read_message_bytes(super().take_message())

    def peek_message(self) -> bytes | bytearray:
        """Return what :meth:`take_message` returns, without taking it."""
        return self.read_message_bytes(super().peek_message())

    async def next_message(self) -> bytes | bytearray | None:
        """Return the bytes of the next request message, or None after the last.

        Raises:
            FrameError: The client sent something that is not a message.
        """
        message = await super().next_message()
        return None if message is None else self.read_message_bytes(message)

    def finish_refused(self, error: FrameError) -> None:
        """End a call whose request is not one of its method."""
        code = self.malformed_code if isinstance(error, MalformedRequest) else error.code
        self.finish_with(code, str(error))

    def read_message_bytes(self, data: bytes | bytearray) -> bytes | bytearray:
        """Return a request message as protobuf bytes.

        Raises:
            FrameError: It is not JSON of such a message.
        """
        if self.codec == "proto":
            return data
        assert self.route is not None
        return parse_message(data, self.route.method.request)

    # -- the response -------------------------------------------------------------------------

    def write_message_bytes(self, data: bytes) -> bytes:
        """Return a response message in the form of the codec.

        Raises:
            FrameError: JSON can't express it.
        """
        if self.codec == "proto":
            return data
        assert self.route is not None
        return print_message(data, self.route.method.response)

    def frame(self, data: bytes, flag: int) -> bytes:
        """Return the bytes of the body for one message of a stream.

        Args:
            data: The message in the form of the codec.
            flag: 1 if it is compressed.
        """
        raise NotImplementedError

    def stream_head(self) -> bytes:
        """Return the status line and the headers of a stream, without the empty line."""
        raise NotImplementedError

    def stream_end(self, code: int, details: str) -> bytes:
        """Return the last bytes of the body of a stream."""
        raise NotImplementedError

    def lone_status(self, code: int, details: str) -> bytes:
        """Return the whole response to a call without messages."""
        begin = self._begin()
        return begin + self._end(code, details)

    def send_only(self, data: bytes, flag: int = 0) -> None:
        """Send the one message of a unary response together with the end of the call."""
        if self._finished:
            return
        self.send(data, flag, is_last=True)
        self.finish_with(self.code or 0, self.details)

    def send(self, data: bytes, flag: int = 0, *, is_last: bool = False) -> None:
        """Send one message."""
        if self._finished:
            self.writable = False  # the handler's next wait ends it
            return
        data = self.write_message_bytes(data)
        if self._packer is not None:
            self._packer.skip_next, self._skips_next = self._skips_next, False
            flag, data = self._packer.compress(data)
        self._count_burst(len(data) + MESSAGE_BURST, 1)
        head = b"" if self._head_sent else self._begin()
        piece = self.frame(data, flag)
        if self.stream_guard is not None:
            self.stream_guard.before_write(len(piece) + 32)
        self.transport.write(b"%s%x\r\n%s\r\n" % (head, len(piece), piece))

    def finish_with(self, code: int, details: str) -> None:
        """End the call with a status, unless it has ended."""
        if self._finished:
            return
        self.status = code
        self.transport.write(self._end(code, details) if self._head_sent else self.lone_status(code, details))
        self._head_sent = True
        self._finish()

    def _begin(self) -> bytes:
        """Return the head of a stream, whose end is not written with it."""
        self._head_sent = True
        crash_trailers = self.host.crash_trailers
        if crash_trailers is not None:
            self.stream_guard = crash_trailers.guard(self.transport, self._crash_end(), GuardWithEnd)
        return self.stream_head() + self.common_headers() + self._initial + b"transfer-encoding: chunked\r\n\r\n"

    def _crash_end(self) -> bytes:
        """Return the end of the response if this process is killed before."""
        return self._chunks_to_end(UNAVAILABLE, REPLICA_DIED)

    def _end(self, code: int, details: str) -> bytes:
        end = self._chunks_to_end(code, details)
        if self.stream_guard is not None:
            self.stream_guard.before_end(len(end))
            self.stream_guard = None
        return end

    def _chunks_to_end(self, code: int, details: str) -> bytes:
        last = self.stream_end(code, details)
        chunk = b"%x\r\n%s\r\n" % (len(last), last) if last else b""
        return b"%s0\r\n%s: %s\r\n\r\n" % (chunk, STATUS_KEY, status_name(code))

    def common_headers(self) -> bytes:
        """Return the header lines that every response has."""
        lines = b"request_id: %s\r\n" % self._id()
        if self.has_other_path and self.route is not None:
            lines += b"%s: %s\r\n" % (METHOD_KEY, self.path)
        if self.host.closing:
            lines += b"connection: close\r\n"
        return lines

    # -- compression and initial metadata -----------------------------------------------------

    def accepted_encodings(self) -> bytes | None:
        """Return the encodings of messages that the client accepts, separated by commas."""
        return self._fields.get(b"grpc-accept-encoding")

    def _set_compressor(self, compression: grpc.Compression) -> None:
        if self._head_sent:
            raise RuntimeError("set_compression comes too late: the head of the response was sent already")
        self._packer = compressor_for(compression, self.accepted_encodings())

    def disable_next_message_compression(self) -> None:
        """Send the next message uncompressed."""
        self._skips_next = True

    def _send_head(self, lines: bytes) -> None:
        if self._finished:
            return
        if self._head_sent or self._initial:
            raise RuntimeError("the initial metadata was sent already: with the first message, or by an earlier call")
        self._initial = lines
        if self.sends_head_early:
            self.transport.write(self._begin())
