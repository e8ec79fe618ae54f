"""A call of any cardinality: its response messages as they arrive, then its outcome."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import grpc

from sdk._status import HTTP_DATE
from sdk.cli.rpc.outcome import CallOutcome
from sdk.cli.rpc.requests import RequestIterator
from sdk.client import SyncStreamStream, SyncUnaryStream
from sdk.service import Cardinality

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from sdk.client import CallOptions, SyncClient
    from sdk.service import Method


class ClientCall:
    """One call on a client, made as a streaming call: on the wire, all cardinalities are streams.

    Args:
        client: The client.
        method: The method to call.
        requests: The request messages. For a stream, a thread of grpc iterates over them, so they may block.
        options: Options of the call: ``timeout``, ``request_id``…
        started: Called with the initial metadata when it arrives.

    Attributes:
        outcome: The outcome, after :meth:`responses`.
    """

    def __init__(
        self,
        client: SyncClient,
        method: Method,
        requests: Iterator[Message],
        options: CallOptions,
        started: Callable[[tuple[tuple[str, str | bytes], ...]], None] | None = None,
    ) -> None:
        self._client = client
        self._method = method
        self._requests = requests
        self._options: Mapping[str, Any] = options
        self._started = started
        self._messages = 0
        self._call: Any = None
        self._is_cancelled = False
        self.outcome: CallOutcome

    def responses(self) -> Iterator[Message]:
        """Yield each response message when it arrives. A status other than OK is in ``outcome``, not raised.

        Raises:
            JsonError: A request message is invalid; the call is cancelled.
            KeyboardInterrupt: The call is cancelled.
        """
        began = time.perf_counter()
        call, iterator = self._start()
        self._call = call
        if self._is_cancelled:
            call.cancel()
        try:
            if self._started is not None:
                self._started(_pairs(call.initial_metadata()))
            for message in call:
                self._messages += 1
                yield message
        except grpc.RpcError as error:
            if error is not call:
                raise
        finally:
            call.cancel()  # no effect on a call that has ended
        if iterator is not None and iterator.error is not None:
            raise iterator.error
        initial, trailing = _pairs(call.initial_metadata()), _pairs(call.trailing_metadata())
        if not initial:  # a Trailers-Only response
            trailing = tuple(pair for pair in trailing if pair[0] != HTTP_DATE)
        self.outcome = CallOutcome(
            call.code(),
            call.details() or "",
            initial,
            trailing,
            self._messages,
            time.perf_counter() - began,
        )

    def cancel(self) -> None:
        """Cancel the call, from any thread: its status is CANCELLED unless it has ended."""
        self._is_cancelled = True
        if self._call is not None:
            self._call.cancel()

    def _start(self) -> tuple[Any, RequestIterator | None]:
        options: Any = self._options
        if not self._method.cardinality.client_streaming:
            unary: SyncUnaryStream[Any, Any] = SyncUnaryStream.of(self._client, self._as(Cardinality.UNARY_STREAM))
            return unary(next(self._requests), **options), None
        stream: SyncStreamStream[Any, Any] = SyncStreamStream.of(self._client, self._as(Cardinality.STREAM_STREAM))
        iterator = RequestIterator(self._requests)
        call = stream(iterator, **options)
        iterator.on_error(call.cancel)
        return call, iterator

    def _as(self, cardinality: Cardinality) -> Method:
        return replace(self._method, cardinality=cardinality)


def _pairs(metadata: Any) -> tuple[tuple[str, str | bytes], ...]:
    return tuple((key, value) for key, value in metadata or ())
