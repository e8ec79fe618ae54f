"""Compression of calls through handles: of requests if the caller says so, of responses if the handler does.

Imported by the first call that uses it. See https://github.com/grpc/grpc/blob/master/doc/compression.md.
"""

from __future__ import annotations

import asyncio

import grpc

from sdk._wire.compression import Compressor, compressor_for
from sdk._wire.frames import ACCEPT_ENCODING, INFLATE_IN_THREAD_BYTES, FrameError, decompress
from sdk._wire.metadata import RESOURCE_EXHAUSTED
from sdk.errors import RpcError

#: Longest message that a compressed response may become, in bytes: a few bytes can become a thousand times as many.
#: A replica takes its option ``max_receive_message_length``.
max_message_length = 64 << 20


def request_compressor(compression: grpc.Compression) -> Compressor | None:
    """Return the compressor for the request messages of one call; None for none.

    Args:
        compression: The caller's choice.

    Raises:
        ValueError: It is not a member of ``grpc.Compression``.
    """
    return compressor_for(compression, ACCEPT_ENCODING)


async def inflate(flag: int, data: bytes | bytearray, encoding: bytes) -> bytes:
    """Return the plain bytes of a compressed response message; a long one does not block the loop.

    Args:
        flag: The flag of the message.
        data: Its bytes.
        encoding: Value of the response's ``grpc-encoding`` header.

    Raises:
        RpcError: It can't be decompressed, or gets too long.
    """
    limit = max_message_length
    try:
        if len(data) < INFLATE_IN_THREAD_BYTES:
            return decompress(flag, data, encoding, limit)
        return await asyncio.to_thread(decompress, flag, data, encoding, limit)
    except FrameError as error:
        if error.code != RESOURCE_EXHAUSTED:
            raise RpcError(grpc.StatusCode.INTERNAL, f"response: {error}") from None
    raise RpcError(
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        f"the compressed response is longer than the limit of {limit} bytes (max_receive_message_length of the "
        "calling replica). A handler sends longer messages with set_compression(grpc.Compression.NoCompression)",
    )
