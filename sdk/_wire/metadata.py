"""Metadata, deadlines and status messages, between gRPC's terms and the bytes of HTTP/1.1 headers.

The headers are those of https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md.
"""

from __future__ import annotations

import base64
import binascii
import re
import traceback
from asyncio import futures as _asyncio_futures
from collections.abc import Iterable
from concurrent import futures as _concurrent_futures
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from sdk._replica_protocol import API_KEY_HEADER, IDENTITY_HEADERS, NODE_SECRET_HEADER, TOKEN_HEADER

Metadata = tuple[tuple[str, "str | bytes"], ...]

# Status codes (https://github.com/grpc/grpc/blob/master/doc/statuscodes.md), as plain numbers for speed.
CANCELLED, INVALID_ARGUMENT, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED = 1, 3, 4, 8
UNIMPLEMENTED, INTERNAL, UNAVAILABLE = 12, 13, 14


class Metadatum(NamedTuple):
    """One pair of the client's metadata, with grpcio's names for its parts."""

    key: str
    value: str | bytes


# Headers of the HTTP message, and those that Envoy adds: not the client's metadata.
_TRANSPORT = frozenset(
    {
        b"host", b"te", b"transfer-encoding", b"content-length", b"connection", b"content-type", b"grpc-timeout",
        b"grpc-encoding", b"grpc-accept-encoding", b"x-forwarded-client-cert", b"x-forwarded-for", b"x-forwarded-proto",
        b"x-request-id", TOKEN_HEADER.encode(), API_KEY_HEADER.encode(), NODE_SECRET_HEADER.encode(),
        b"x-envoy-attempt-count", b"x-envoy-expected-rq-timeout-ms", b"x-envoy-external-address", b"x-envoy-internal",
    }
)  # fmt: skip
# Headers of the HTTP message, which a handler may not set.
_OF_HTTP = frozenset(
    {
        "connection", "content-length", "content-type", "host", "keep-alive", "proxy-connection", "te", "trailer",
        "transfer-encoding", "upgrade",
    }
)  # fmt: skip
# Headers by which a replica knows who calls, which a handler that calls another one may not set.
_OF_THE_PROXY = frozenset(
    {*IDENTITY_HEADERS, NODE_SECRET_HEADER, "x-forwarded-client-cert", "x-forwarded-for", "x-forwarded-proto"}
)
# The keys of gRPC that a handler may set: the rich status, when to retry (-1: not at all), and the server's statistics.
# https://github.com/grpc/proposal/blob/master/A6-client-retries.md#pushback
# https://github.com/grpc/proposal/blob/master/A66-otel-stats.md
_OF_GRPC_SERVERS = frozenset({"grpc-status-details-bin", "grpc-retry-pushback-ms", "grpc-server-stats-bin"})
# Folders of the code that calls a handler: this package, and the standard library's threads and futures.
_SERVER_FOLDERS = tuple(
    str(Path(file).parent) for file in (__file__, _asyncio_futures.__file__, _concurrent_futures.__file__)
)
#: Details of the status for an exception that is kept from the client.
INTERNAL_ERROR = "Internal error."
# Bytes that a status message gets in any case.
MIN_MESSAGE_ROOM = 1024
# Most metadata that a handler may send at a time. Envoy accepts it (sdk/_xds/clusters.py); many clients accept less.
MAX_PAIRS, MAX_BYTES = 1000, 64 << 10
_KEY = re.compile(r"[0-9a-z_.-]+\Z")
_PLAIN_VALUE = re.compile(r"[\x20-\x7e]*\Z")
_UNSAFE_IN_MESSAGE = re.compile(rb"[^\x20-\x24\x26-\x7e]")
_CONTENT_TYPES = frozenset({b"application/grpc", b"application/grpc+proto"})
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_TIMEOUT = re.compile(rb"(\d{1,8})([HMSmun])\Z")
_UNIT_SECONDS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}


def is_grpc(content_type: bytes) -> bool:
    """Return True for the content-type of a gRPC call with protobuf messages; its parameters don't matter."""
    return content_type in _CONTENT_TYPES or content_type.partition(b";")[0].rstrip() in _CONTENT_TYPES


def parse_timeout(value: bytes) -> float | None:
    """Return the seconds of a ``grpc-timeout`` header, or None when it is malformed."""
    match = _TIMEOUT.match(value)
    return int(match[1]) * _UNIT_SECONDS[match[2]] if match else None


def from_headers(headers: Iterable[tuple[bytes, bytes]]) -> Metadata:
    """Return the client's metadata: order and repeated keys kept, ``-bin`` values decoded."""
    pairs: list[tuple[str, str | bytes]] = []
    for name, value in headers:
        if name in _TRANSPORT:
            continue
        key = name.decode("latin-1")
        if key.endswith("-bin"):
            pairs.extend(Metadatum(key, decode_binary(part)) for part in value.split(b","))
        else:
            pairs.append(Metadatum(key, value.decode("latin-1")))
    return tuple(pairs)


def size_of(headers: Iterable[tuple[bytes, bytes]]) -> int:
    """Return the size of the client's metadata: the bytes of its keys and values, as received."""
    return sum(len(name) + len(value) for name, value in headers if name not in _TRANSPORT)


def decode_binary(value: bytes) -> bytes:
    """Return the bytes of a ``-bin`` value. The padding may be missing; a value that is not base64 stays as it is."""
    value = value.strip()
    try:
        return base64.b64decode(value + b"=" * (-len(value) % 4), validate=True)
    except binascii.Error:
        return value


def check(metadata: Iterable[tuple[str, str | bytes]] | None) -> Metadata:
    """Check metadata that a handler wants to send, and return it.

    A ``request_id`` is dropped: the call's own is sent, once.

    Raises:
        TypeError: It is not a sequence of pairs.
        ValueError: A key or value can't be sent, a key is reserved for gRPC, HTTP or the proxy, or the metadata is too
            large.
    """
    try:
        pairs = tuple((key, value) for key, value in metadata or () if key != "request_id")
    except (TypeError, ValueError):
        raise TypeError(f"metadata must be (key, value) pairs, [('key', 'value')], not {metadata!r}") from None
    for key, value in pairs:
        if not isinstance(key, str) or not _KEY.match(key):
            raise ValueError(f"metadata key {key!r} is not allowed: use lower-case letters, digits, '_', '-' and '.'")
        if key.startswith("grpc-") and key not in _OF_GRPC_SERVERS:
            raise ValueError(f"metadata key {key!r} is reserved for gRPC")
        if key in _OF_HTTP:
            raise ValueError(f"metadata key {key!r} is reserved for HTTP")
        if key.startswith("x-envoy-") or key in _OF_THE_PROXY:
            raise ValueError(f"metadata key {key!r} is reserved for the proxy")
        if key.endswith("-bin"):
            if not isinstance(value, bytes):
                raise ValueError(f"metadata value of {key!r} must be bytes, not {type(value).__name__}")
        elif not isinstance(value, str) or not _PLAIN_VALUE.match(value):
            raise ValueError(f"metadata value of {key!r} must be printable ASCII text, not {value!r}; use a '-bin' key")
    size, count = sum(len(key) + len(value) for key, value in pairs), len(pairs)
    if count > MAX_PAIRS or size > MAX_BYTES:
        raise ValueError(
            f"metadata of {size} bytes in {count} pairs is too much: at most {MAX_BYTES} bytes in {MAX_PAIRS} pairs"
        )
    return pairs


def is_reserved(key: str) -> bool:
    """Return True for a key that belongs to gRPC, HTTP or the proxy."""
    return key.startswith(("grpc-", "x-envoy-")) or key in _OF_HTTP or key in _OF_THE_PROXY


def is_plain(value: object) -> bool:
    """Return True for text that can be the value of a header: printable ASCII."""
    return isinstance(value, str) and _PLAIN_VALUE.match(value) is not None


def encode(metadata: Metadata) -> bytes:
    """Return metadata as header lines, each with its line end."""
    lines = []
    for key, value in metadata:
        data = base64.b64encode(value).rstrip(b"=") if isinstance(value, bytes) else value.strip().encode("ascii")
        lines.append(b"%s: %s\r\n" % (key.encode("ascii"), data))
    return b"".join(lines)


def encode_message(text: str) -> bytes:
    """Return a status message in the form of ``grpc-message``: percent-encoded UTF-8."""
    encoded = _UNSAFE_IN_MESSAGE.sub(lambda match: b"%%%02X" % match[0][0], text.encode("utf-8", "replace"))
    # HTTP drops spaces around a value. Encoding the outermost ones keeps the others.
    if encoded.startswith(b" "):
        encoded = b"%20" + encoded[1:]
    return encoded[:-1] + b"%20" if encoded.endswith(b" ") else encoded


def message_room(extra: int) -> int:
    """Return the most bytes that a percent-encoded status message may have.

    Clients accept trailers of 8 KiB, the rest of which is the status, the request id and what HPACK counts.

    Args:
        extra: Bytes of the metadata lines in the same trailers.
    """
    return max(MIN_MESSAGE_ROOM, 6144 - extra)


def fit_message(text: str, limit: int) -> bytes:
    """Return a percent-encoded status message of at most ``limit`` bytes, cut in the middle.

    The first lines of a traceback show where it began and the last ones what went wrong, so both ends stay.
    """
    encoded = encode_message(text)
    if len(encoded) <= limit:
        return encoded
    mark = encode_message("\n… cut …\n")
    room = limit - len(mark)
    return _cut(encoded, room // 3) + mark + _cut(encoded, -(room - room // 3))


def _without_server_frames(frames: TracebackType | None) -> TracebackType | None:
    """Return a traceback from the handler on: the server's frames before it mean nothing to its author."""
    first = frames
    while first is not None and first.tb_frame.f_code.co_filename.startswith(_SERVER_FOLDERS):
        first = first.tb_next
    return first or frames


def _cut(encoded: bytes, length: int) -> bytes:
    """Return the first (or, when negative, last) ``length`` bytes without half an escape or half a character."""
    if length >= 0:
        piece = re.sub(rb"%[0-9A-F]?\Z", b"", encoded[:length])
        # A cut inside a character leaves a lead byte without all of its continuation bytes: drop it.
        match = re.search(rb"(%[C-F][0-9A-F])((?:%[89AB][0-9A-F]){0,3})\Z", piece)
        if match is not None:
            lead = int(match[1][1:], 16)
            if len(match[2]) // 3 < (1 if lead < 0xE0 else 2 if lead < 0xF0 else 3):
                piece = piece[: match.start()]
        return piece
    # Skip the last digits of an escape that starts before the cut, and continuation bytes without their lead byte.
    start = len(encoded) + length
    for back in (1, 2):
        if encoded[start - back : start - back + 1] == b"%":
            start += 3 - back
    return re.sub(rb"\A(?:%[89AB][0-9A-F])+", b"", encoded[start:])


def describe_exception(error: BaseException, style: str) -> str:
    """Return the status details for an exception in a handler.

    Args:
        error: The handler's exception.
        style: ``"traceback"`` (as in Ray Serve's gRPC guide), ``"message"`` or ``"none"``.
    """
    if style == "traceback":
        frames = _without_server_frames(error.__traceback__)
        # Ray colours the text of an exception in another process.
        return _COLOUR.sub("", "".join(traceback.format_exception(type(error), error, frames))).rstrip()
    if style == "message":
        return f"{type(error).__name__}: {error}"
    return INTERNAL_ERROR
