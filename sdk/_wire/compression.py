"""Compression of responses: the encoding that a call may use, and the work. Costs a call without compression nothing.

https://github.com/grpc/grpc/blob/master/doc/compression.md
"""

from __future__ import annotations

import asyncio
import zlib

import grpc

from sdk._wire.frames import WINDOW_BITS

_ENCODINGS = {grpc.Compression.Deflate: b"deflate", grpc.Compression.Gzip: b"gzip"}

# Bytes from which a message is compressed in a thread: a hop to one costs about 0.1 ms, compressing 16 KiB up to
# 0.5 ms, and the other calls of the replica would wait for it. zlib releases the GIL.
DEFLATE_IN_THREAD_BYTES = 16 << 10


class Compressor:
    """Compresses the response messages of one call.

    Attributes:
        encoding: Value of the ``grpc-encoding`` header.
        skip_next: True if the next message is sent uncompressed.
    """

    __slots__ = ("encoding", "skip_next")

    def __init__(self, encoding: bytes) -> None:
        self.encoding = encoding
        self.skip_next = False

    def compress(self, data: bytes) -> tuple[int, bytes]:
        """Return the flag of a message and its bytes; one that would not get shorter stays as it is."""
        if self.skip_next:
            self.skip_next = False
            return 0, data
        deflater = zlib.compressobj(wbits=WINDOW_BITS[self.encoding])
        packed = deflater.compress(data) + deflater.flush()
        return (1, packed) if len(packed) < len(data) else (0, data)

    async def compress_async(self, data: bytes) -> tuple[int, bytes]:
        """Return the same as :meth:`compress`; a long message does not block the loop."""
        if len(data) < DEFLATE_IN_THREAD_BYTES or self.skip_next:
            return self.compress(data)
        return await asyncio.to_thread(self.compress, data)


def compressor_for(compression: grpc.Compression, accepted: bytes | None) -> Compressor | None:
    """Return the compressor for a client, or None if nothing is compressed.

    Args:
        compression: The handler's choice.
        accepted: The client's ``grpc-accept-encoding``; a client that does not send it supports no compression.

    Raises:
        ValueError: It is not a member of ``grpc.Compression``.
    """
    if compression == grpc.Compression.NoCompression:
        return None
    encoding = _ENCODINGS.get(compression)
    if encoding is None:
        raise ValueError(f"{compression!r} is not a compression; give a member of grpc.Compression")
    if accepted is None or encoding not in accepted.replace(b" ", b"").split(b","):
        return None
    return Compressor(encoding)
