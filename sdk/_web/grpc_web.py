"""gRPC-Web: gRPC's frames with the trailers as a last frame of the body, in binary or in base64.

https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-WEB.md
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import TYPE_CHECKING

from sdk._web.web_call import WebCall
from sdk._wire import metadata as md
from sdk._wire.frames import FrameError, pack_prefix
from sdk._wire.metadata import INTERNAL, UNIMPLEMENTED

if TYPE_CHECKING:
    from collections.abc import Callable

    from sdk._wire.call import Call, Transport
    from sdk._wire.host import Host
    from sdk._wire.route import Route

BINARY, TEXT = b"application/grpc-web", b"application/grpc-web-text"
_KINDS = (BINARY, BINARY + b"+proto", TEXT, TEXT + b"+proto")
# A client may encode each piece separately, so that there is padding within the body.
_PIECES = re.compile(rb"[^=]+={0,2}")
_TRAILERS_FLAG = 0x80


def is_grpc_web(content_type: bytes) -> bool:
    """Return True for a content-type of gRPC-Web, without its parameters. Those of other messages than protobuf count.

    Example:
        >>> is_grpc_web(b"application/grpc-web+json")
        True
    """
    return content_type.startswith(BINARY)


class GrpcWebCall(WebCall):
    """A call over gRPC-Web.

    Args:
        host: Limits, counters and hooks.
        transport: Takes the response.
        route: The method and its handler; None if there is no such method.
        path: The request's path.
        headers: The request's headers.
        fields: The headers by name.
        on_finished: Called once, when the response has been handed to the transport.
        content_type: The request's content-type, without parameters.
    """

    malformed_code = INTERNAL

    __slots__ = ("_content_type", "_is_text", "_left", "_sends_text")

    def __init__(
        self,
        host: Host,
        transport: Transport,
        route: Route | None,
        path: bytes,
        headers: list[tuple[bytes, bytes]],
        fields: dict[bytes, bytes],
        on_finished: Callable[[Call], None],
        content_type: bytes,
    ) -> None:
        super().__init__(host, transport, route, path, headers, fields, on_finished, "proto")
        self._content_type = content_type
        self._is_text = content_type.startswith(TEXT)
        accept = self._fields.get(b"accept", b"")
        self._sends_text = accept.startswith(TEXT) if BINARY in accept else self._is_text
        self._left = b""  # characters that do not make up a group of four yet

    def read_headers(self) -> FrameError | None:
        """Translate the headers of the protocol to those of gRPC; return what is wrong with them."""
        if self._content_type in _KINDS:
            return super().read_headers()
        # A client of gRPC-Web reads no body of an HTTP error.
        known = ", ".join(kind.decode() for kind in _KINDS)
        text = f"the content-type {self._content_type.decode('latin-1')!r} is not supported: use one of {known}"
        return FrameError(UNIMPLEMENTED, text)

    def feed(self, data: bytes) -> None:
        """Take bytes of the request's body."""
        if self._is_text:
            data = self._left + data
            whole = len(data) // 4 * 4
            self._left = data[whole:]
            try:
                data = b"".join(base64.b64decode(piece, validate=True) for piece in _PIECES.findall(data[:whole]))
            except binascii.Error as error:
                self.finish_with(INTERNAL, f"the request is not base64: {error}")
                return
            if not data:
                return
        super().feed(data)

    def stream_head(self) -> bytes:
        """Return the status line and the headers of the response."""
        kind = TEXT if self._sends_text else BINARY
        head = b"HTTP/1.1 200 OK\r\ncontent-type: %s+proto\r\n" % kind
        return head if self._packer is None else b"%sgrpc-encoding: %s\r\n" % (head, self._packer.encoding)

    def common_headers(self) -> bytes:
        """Return the header lines of the response; the request id is a trailer, as in gRPC."""
        return b"connection: close\r\n" if self.host.closing else b""

    def frame(self, data: bytes, flag: int) -> bytes:
        """Return the bytes of the body for one message."""
        framed = pack_prefix(flag, len(data)) + data
        return base64.b64encode(framed) if self._sends_text else framed

    def stream_end(self, code: int, details: str) -> bytes:
        """Return the frame with the trailers."""
        extra = md.encode(self._trailing) if self._trailing else b""
        message = b"grpc-message: %s\r\n" % md.fit_message(details, md.message_room(len(extra))) if details else b""
        trailers = b"grpc-status: %d\r\n%s%srequest_id: %s\r\n" % (code, message, extra, self._id())
        return self.frame(trailers, _TRAILERS_FLAG)
