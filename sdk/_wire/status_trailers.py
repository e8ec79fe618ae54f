"""Message and trailers of a call that ends with an error, with a ``google.rpc.Status`` that agrees with them.

https://grpc.io/docs/guides/error/#richer-error-model
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING
from urllib.parse import unquote

from google.protobuf.message import DecodeError

from sdk._status import STATUS_DETAILS
from sdk._wire import metadata as md

if TYPE_CHECKING:
    from sdk._gen.status_pb2 import Status
    from sdk.errors import RpcError

logger = logging.getLogger("sdk.wire")

# Most bytes of metadata lines, apart from the message: clients accept trailers of 8 KiB.
_EXTRA_LIMIT = 6144


def error_trailers(error: RpcError, trailing: md.Metadata) -> tuple[str, md.Metadata]:
    """Return the message and the trailing metadata for an error.

    Args:
        error: The handler's error.
        trailing: Trailing metadata set so far; it is kept.

    Raises:
        TypeError: The error's metadata is not a sequence of pairs.
        ValueError: The error's metadata can't be sent.
    """
    pairs = md.check((*trailing, *error.trailing_metadata))
    data = next((value for key, value in pairs if key == STATUS_DETAILS), None)
    if data is None and not error.errors:
        return error.details, pairs
    from sdk._gen.status_pb2 import Status  # not before a call needs it

    others = tuple(pair for pair in pairs if pair[0] != STATUS_DETAILS)
    if isinstance(data, bytes):
        if _fits(error.details, pairs):
            return error.details, pairs
        try:
            status = Status.FromString(data)
        except DecodeError:
            logger.warning(
                "the metadata %r of a %s is not a google.rpc.Status and was left out", STATUS_DETAILS, error.code
            )
            return error.details, others
    else:
        status = Status(code=error.code.value[0], message=error.details, details=error.packed_errors())
    return _fit(status, others)


def _fit(status: Status, others: md.Metadata) -> tuple[str, md.Metadata]:
    """Return message and metadata with the status, cut to fit into trailers; code and message always stay."""
    count = len(status.details)

    def whole() -> md.Metadata:
        return (*others, (STATUS_DETAILS, status.SerializeToString()))

    if not _fits(status.message, whole()):
        status.message = unquote(md.fit_message(status.message, md.MIN_MESSAGE_ROOM).decode("ascii"))
    while status.details and not _fits(status.message, whole()):
        del status.details[-1]
    if len(status.details) < count:
        logger.warning(
            "%d of the %d errors of a %d status do not fit into the trailers and were left out",
            count - len(status.details), count, status.code,
        )  # fmt: skip
    return status.message, whole() if status.details else others


def _fits(message: str, pairs: md.Metadata) -> bool:
    extra = len(md.encode(pairs))
    return extra <= _EXTRA_LIMIT and len(md.encode_message(message)) <= md.message_room(extra)
