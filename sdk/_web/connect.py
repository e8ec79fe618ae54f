"""Streams of the Connect protocol: enveloped messages, and a last one with error and metadata.

https://connectrpc.com/docs/protocol#streaming-rpcs. Unary calls are in :mod:`sdk._web.http_call`.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from sdk._status import STATUS_DETAILS
from sdk._web.json_codec import dump, error_object
from sdk._web.web_call import WebCall
from sdk._wire.frames import FrameError, pack_prefix
from sdk._wire.metadata import INVALID_ARGUMENT, UNIMPLEMENTED

if TYPE_CHECKING:
    from typing import Any

_PREFIX = b"application/connect+"
_END_FLAG = 2


def stream_codec(content_type: bytes) -> str | None:
    """Return the codec of a content-type of a Connect stream; None for any other content-type.

    Example:
        >>> stream_codec(b"application/connect+json")
        'json'
    """
    if not content_type.startswith(_PREFIX):
        return None
    codec = content_type.removeprefix(_PREFIX).decode("latin-1")
    return codec if codec in ("json", "proto") else None


def check_version(version: bytes | None) -> FrameError | None:
    """Return the error for a version of the protocol that this server does not know."""
    if version in (None, b"1"):
        return None
    text = version.decode("latin-1") if version is not None else ""
    return FrameError(INVALID_ARGUMENT, f"connect-protocol-version must be '1', not {text!r}")


class ConnectStreamCall(WebCall):
    """A call with the content-type ``application/connect+json`` or ``application/connect+proto``."""

    __slots__ = ()

    def read_headers(self) -> FrameError | None:
        """Translate the headers of the protocol to those of gRPC."""
        error = check_version(self._fields.get(b"connect-protocol-version"))
        encoding = self._fields.get(b"connect-content-encoding")
        if encoding is not None:
            self._fields[b"grpc-encoding"] = encoding
        return error or super().read_headers()

    def accepted_encodings(self) -> bytes | None:
        """Return the encodings of messages that the client accepts."""
        return self._fields.get(b"connect-accept-encoding")

    def _refuse_encoding(self) -> None:
        text = self._encoding.decode("latin-1")
        details = f"connect-content-encoding {text!r} is not supported: use gzip, deflate or identity"
        self.finish_with(UNIMPLEMENTED, details)

    def stream_head(self) -> bytes:
        """Return the status line and the headers of the response."""
        head = b"HTTP/1.1 200 OK\r\ncontent-type: %s%s\r\n" % (_PREFIX, self.codec.encode())
        return head if self._packer is None else b"%sconnect-content-encoding: %s\r\n" % (head, self._packer.encoding)

    def frame(self, data: bytes, flag: int) -> bytes:
        """Return the envelope of one message."""
        return pack_prefix(flag, len(data)) + data

    def stream_end(self, code: int, details: str) -> bytes:
        """Return the envelope with error and metadata."""
        end: dict[str, Any] = {}
        if code:
            end["error"] = error_object(code, details, self._trailing)
        metadata: dict[str, list[str]] = {}
        for key, value in self._trailing:
            if key != STATUS_DETAILS:
                text = base64.b64encode(value).rstrip(b"=").decode() if isinstance(value, bytes) else value
                metadata.setdefault(key, []).append(text)
        if metadata:
            end["metadata"] = metadata
        return self.frame(dump(end), _END_FLAG)
