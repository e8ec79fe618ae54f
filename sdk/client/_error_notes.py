"""Notes on the errors of calls: method, target and request id, which grpc's errors do not name.

The notes are those of ``BaseException.add_note`` (https://peps.python.org/pep-0678/): they follow the error in
tracebacks and in the output of pytest. They are made when an error is raised or printed. An object of a call only gets
a subclass of its class.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

import grpc

if TYPE_CHECKING:
    from sdk.service import Method


def describe_call(method: Method, target: object, request_id: str | None, error: Any) -> str:
    """Return the note for an error of a call.

    Args:
        method: The RPC.
        target: The target of the client; a channel, which has no name, is left out.
        request_id: The request id that was sent; None if the server was to make one.
        error: An error of ``grpc`` or ``grpc.aio``.
    """
    # A tuple first: up to grpcio 1.74, the keys() of grpc.aio's Metadata are its pairs.
    request_id = dict(tuple(error.trailing_metadata() or ())).get("request_id") or request_id
    at = f" at {target}" if isinstance(target, str) else ""
    return f"call of {method.path}{at}" + (f", request_id {request_id}" if request_id else "")


def with_notes(call: Any, note: Callable[[Any], str]) -> Any:
    """Add a note to each error that an object of a call raises, or that it is.

    Args:
        call: A call of ``grpc.aio``, or a response stream of ``grpc``.
        note: Returns the note for an error.

    Returns:
        The same object.
    """
    kind: Any = type(call)
    call.__class__ = _noting(kind)
    call._sdk_note = note
    return call


@functools.cache
def _noting(kind: Any) -> type[Any]:
    """Return a subclass of a class of grpc's calls, under the same name."""
    if issubclass(kind, grpc.RpcError):
        # A response stream of a blocking client is its own error, and raises itself.
        members: dict[str, Any] = {"__notes__": property(_own_notes)}
    else:
        members = {"_raise_for_status": _raise_for_status}
        if hasattr(kind, "__await__"):
            members["__await__"] = _await_response
    return type(kind.__name__, (kind,), {**members, "_sdk_base": kind, "__module__": kind.__module__})


def _own_notes(call: Any) -> list[str]:
    if call.is_active():  # its metadata would have to be waited for
        return []
    notes: list[str] = vars(call).setdefault("_sdk_notes", [])  # `add_note` appends to it
    if not notes:
        notes.append(call._sdk_note(call))
    return notes


def _await_response(call: Any) -> Generator[Any, None, Any]:
    try:
        return (yield from call._sdk_base.__await__(call))
    except grpc.RpcError as error:
        error.add_note(call._sdk_note(error))
        raise


async def _raise_for_status(call: Any) -> None:
    # Private to grpc.aio, which calls it where a stream ends. Without it there would be no notes on errors of streams.
    try:
        await call._sdk_base._raise_for_status(call)
    except grpc.RpcError as error:
        error.add_note(call._sdk_note(error))
        raise
