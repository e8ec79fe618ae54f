"""Compressed answers: which encoding a call may use, and the work of it. Costs nothing where nobody asks for it."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import grpc

from sdk._wire.frames import WINDOW_BITS

if TYPE_CHECKING:
    from sdk._wire.call import Call
    from sdk._wire.route import Route

_ENCODINGS = {grpc.Compression.Deflate: b"deflate", grpc.Compression.Gzip: b"gzip"}

# From here on a message is compressed in a thread: a hop to one costs about 0.1 ms, compressing 16 KiB up to 0.5 ms,
# and the other calls of the replica would wait for it. zlib releases the GIL.
THREAD_BYTES = 16 << 10


class Compressor:
    """Compresses the answer's messages of one call.

    Attributes:
        encoding: Value of the ``grpc-encoding`` header.
        skip_next: Whether the next message goes out as it is.
    """

    __slots__ = ("encoding", "skip_next")

    def __init__(self, encoding: bytes) -> None:
        self.encoding = encoding
        self.skip_next = False

    def pack(self, data: bytes) -> tuple[int, bytes]:
        """Return the flag of a message and its bytes; one that would not get shorter goes out as it is."""
        if self.skip_next:
            self.skip_next = False
            return 0, data
        deflater = zlib.compressobj(wbits=WINDOW_BITS[self.encoding])
        packed = deflater.compress(data) + deflater.flush()
        return (1, packed) if len(packed) < len(data) else (0, data)

    async def pack_on_loop(self, data: bytes) -> tuple[int, bytes]:
        """Do the same on a loop that must not wait for a long message."""
        if len(data) < THREAD_BYTES or self.skip_next:
            return self.pack(data)
        return await asyncio.to_thread(self.pack, data)


def compressor_for(compression: grpc.Compression, accepted: bytes | None) -> Compressor | None:
    """Return what compresses for a client, or None when nothing is to be compressed.

    Args:
        compression: What the handler wants.
        accepted: The client's ``grpc-accept-encoding``; a client that does not send it understands no compression.

    Raises:
        ValueError: It is not a member of ``grpc.Compression``.
    """
    if compression == grpc.Compression.NoCompression:
        return None
    encoding = _ENCODINGS.get(compression)
    if encoding is None:
        raise ValueError(f"there is no compression {compression!r}; give a member of grpc.Compression")
    if accepted is None or encoding not in accepted.replace(b" ", b"").split(b","):
        return None
    return Compressor(encoding)


def compressing(
    compression: grpc.Compression, answer: Callable[[Call, Route], Awaitable[None]]
) -> Callable[[Call, Route], Awaitable[None]]:
    """Return a way to answer a call that compresses unless the handler wants something else."""

    async def answer_compressed(call: Call, route: Route) -> None:
        call.set_compression(compression)
        await answer(call, route)

    return answer_compressed
