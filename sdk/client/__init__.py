"""Base classes of generated clients, the classes of their methods, and their channel settings.

Neither Ray nor the serving side is imported.
"""

from sdk.client._base import AsyncClient, CallOptions, Metadata, SyncClient
from sdk.client._calls import (
    AsyncStreamStream,
    AsyncStreamUnary,
    AsyncUnaryStream,
    AsyncUnaryUnary,
    SyncStreamStream,
    SyncStreamUnary,
    SyncUnaryStream,
    SyncUnaryUnary,
)
from sdk.client._channel import Keepalive, RetryPolicy

__all__ = [
    "AsyncClient",
    "AsyncStreamStream",
    "AsyncStreamUnary",
    "AsyncUnaryStream",
    "AsyncUnaryUnary",
    "CallOptions",
    "Keepalive",
    "Metadata",
    "RetryPolicy",
    "SyncClient",
    "SyncStreamStream",
    "SyncStreamUnary",
    "SyncUnaryStream",
    "SyncUnaryUnary",
]
