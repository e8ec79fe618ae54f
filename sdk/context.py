"""The gRPC context of a call: what a handler may read of the request and set on the answer.

It has the methods of ``grpc.aio.ServicerContext`` and of Ray Serve's ``RayServegRPCContext``. A handler gets it by
naming a parameter ``grpc_context``, or from :func:`current_context`.
"""

from __future__ import annotations

import contextvars
import time
from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TypeAlias

import grpc
import grpc.aio

from sdk.errors import RpcError

_current: contextvars.ContextVar[ServicerContext | CallState | None] = contextvars.ContextVar("sdk_call", default=None)
_CODE_BY_NUMBER = {code.value[0]: code for code in grpc.StatusCode}

MetadataPairs: TypeAlias = "grpc.aio.Metadata | Sequence[tuple[str, str | bytes]]"


class CallState(Protocol):
    """What a context needs of the call behind it; ``sdk._wire.call.Call`` is one."""

    # ruff: noqa: D102 - the names are those of the context's methods
    code: int | None
    details: str
    aborted: RpcError | None
    context: ServicerContext | None

    @property
    def request_id(self) -> str: ...
    @property
    def metadata(self) -> tuple[tuple[str, str | bytes], ...]: ...
    @property
    def trailing(self) -> tuple[tuple[str, str | bytes], ...]: ...
    @property
    def peer(self) -> str: ...
    @property
    def auth_context(self) -> Mapping[str, Sequence[bytes]]: ...
    @property
    def path(self) -> bytes: ...
    def header(self, name: bytes) -> str | None: ...
    def set_trailing(self, metadata: MetadataPairs) -> None: ...
    def send_initial_metadata(self, metadata: MetadataPairs) -> None: ...
    def set_compression(self, compression: grpc.Compression) -> None: ...
    def disable_next_message_compression(self) -> None: ...
    def time_remaining(self) -> float | None: ...
    def is_done(self) -> bool: ...
    def is_cancelled(self) -> bool: ...
    def on_done(self, callback: Callable[[], None]) -> bool: ...
    def cancel_by_handler(self) -> None: ...
    async def read_message(self) -> Any: ...
    async def write_message(self, message: Any) -> None: ...


# Headers that the context has methods for.
_NAMED = (b"application", b"multiplexed_model_id", b"traceparent", b"tracestate")


class PassedCall:
    """The call behind a context that was passed to another process; what the client sent can be read there.

    Args:
        call: The call, in its own process.
    """

    def __init__(self, call: CallState) -> None:
        remaining = call.time_remaining()
        vars(self).update(
            request_id=call.request_id,
            metadata=tuple((key, value) for key, value in call.metadata),
            trailing=call.trailing,
            peer=call.peer,
            auth_context=dict(call.auth_context),
            path=call.path,
            code=call.code,
            details=call.details,
            context=None,
            _headers={name: call.header(name) for name in _NAMED},
            _deadline=None if remaining is None else time.time() + remaining,
        )

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

    def header(self, name: bytes) -> str | None:
        value: str | None = self._headers.get(name)
        return value

    def time_remaining(self) -> float | None:
        return None if self._deadline is None else max(0.0, self._deadline - time.time())

    def is_done(self) -> bool:
        return False

    def is_cancelled(self) -> bool:
        return False

    def __setattr__(self, name: str, value: Any) -> None:
        if name != "aborted":  # the error goes to the caller of the handle, and ends its call
            self._refuse()

    def _refuse(self, *_: Any) -> NoReturn:
        raise RuntimeError(
            "this gRPC context was passed to another deployment: what the client sent can be read there, but the "
            "answer is the handler's own. Return to it what it needs, or raise sdk.RpcError"
        )

    set_trailing = send_initial_metadata = set_compression = disable_next_message_compression = _refuse
    on_done = cancel_by_handler = read_message = write_message = _refuse


class AbortError(RpcError, grpc.aio.AbortError):
    """What ``abort`` raises. Code written for ``grpc.aio`` knows it by its base class."""


class _Finished:
    """An awaitable that is done: lets async handlers await what sync handlers call plainly."""

    def __await__(self) -> Generator[None, None, None]:
        return
        yield


_FINISHED = _Finished()


class ServicerContext(grpc.aio.ServicerContext[Any, Any]):
    """The context of one call.

    Methods that ``grpc.aio`` declares ``async`` and that need no waiting here (``abort``, ``send_initial_metadata``)
    act when they are called, and what they return can be awaited: they work in async and in sync handlers alike.

    It may be passed to other deployments through their handles. What the client sent can be read there; ``abort`` ends
    the call of the handler that awaits the handle, and what would set the answer raises RuntimeError.
    """

    def __init__(self, call: CallState) -> None:
        self._call = call

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._call if isinstance(self._call, PassedCall) else PassedCall(self._call),)

    # -- what the client sent -----------------------------------------------------------------

    def request_id(self) -> str:
        """Return the request id: the client's, or one made for the call. The client gets it back as trailer."""
        return self._call.request_id

    def application(self) -> str | None:
        """Return the ``application`` metadata, or None when the client sent none."""
        return self._call.header(b"application")

    def multiplexed_model_id(self) -> str | None:
        """Return the ``multiplexed_model_id`` metadata, or None."""
        return self._call.header(b"multiplexed_model_id")

    def traceparent(self) -> str | None:
        """Return the ``traceparent`` metadata (W3C Trace Context), or None."""
        return self._call.header(b"traceparent")

    def tracestate(self) -> str | None:
        """Return the ``tracestate`` metadata (W3C Trace Context), or None."""
        return self._call.header(b"tracestate")

    def invocation_metadata(self) -> Any:
        """Return the metadata that the client sent, in order; values of ``-bin`` keys are bytes."""
        return self._call.metadata

    def peer(self) -> str:
        """Return the address from which the client reaches Envoy, ``"ipv4:127.0.0.1:50000"``; it can't be forged."""
        return self._call.peer

    def peer_identities(self) -> Sequence[bytes] | None:
        """Return the names in the client's certificate, or None when it has shown none that is trusted."""
        key = self.peer_identity_key()
        return None if key is None else self.auth_context()[key]

    def peer_identity_key(self) -> str | None:
        """Return under which key of :meth:`auth_context` the client's identities are, or None without any.

        As in gRPC: ``"x509_subject_alternative_name"``, or ``"x509_common_name"`` for a certificate that has none.
        """
        known = self.auth_context()
        keys = ("x509_subject_alternative_name", "x509_common_name")
        return next((key for key in keys if key in known), None)

    def auth_context(self) -> Mapping[str, Sequence[bytes]]:
        """Return what Envoy found out about the client, under gRPC's names; it can't be forged.

        Empty without TLS. With it ``transport_security_type``; with a client certificate ``x509_common_name``,
        ``x509_subject``, ``x509_subject_alternative_name`` and ``x509_pem_cert`` as well.
        """
        return self._call.auth_context

    def time_remaining(self) -> Any:
        """Return the seconds left until the deadline, or None without one."""
        return self._call.time_remaining()

    # -- the answer ---------------------------------------------------------------------------

    def code(self) -> Any:
        """Return the status code set so far, or None."""
        return None if self._call.code is None else _CODE_BY_NUMBER[self._call.code]

    def details(self) -> str:
        """Return the details set so far."""
        return self._call.details

    def trailing_metadata(self) -> Any:
        """Return the trailing metadata set so far."""
        return self._call.trailing

    def set_code(self, code: grpc.StatusCode | int) -> None:
        """Set the status code for the end of the call. An exception in the handler overrides it with INTERNAL.

        Args:
            code: The status code, or its number.

        Raises:
            ValueError: There is no such status code.
        """
        self._call.code = _number(code)

    def set_details(self, details: str) -> None:
        """Set the text of ``grpc-message`` for the end of the call."""
        self._call.details = "" if details is None else str(details)

    def set_trailing_metadata(self, trailing_metadata: MetadataPairs) -> None:
        """Set the trailing metadata; the ``request_id`` is added to it in any case.

        Raises:
            ValueError: A key or value can't be sent, or the key is reserved.
        """
        self._call.set_trailing(trailing_metadata)

    def send_initial_metadata(self, initial_metadata: MetadataPairs) -> Any:
        """Send the initial metadata now, ahead of the first message.

        Raises:
            ValueError: A key or value can't be sent, or the key is reserved.
            RuntimeError: It was sent already.
        """
        self._call.send_initial_metadata(initial_metadata)
        return _FINISHED

    def abort(  # type: ignore[override]  # a coroutine must be awaited, which a sync handler can not
        self,
        code: grpc.StatusCode | int,
        details: str = "",
        trailing_metadata: MetadataPairs = (),
    ) -> Awaitable[NoReturn]:
        """End the call with a status. Raises, so that nothing behind it runs; the raised error must not be caught.

        Type checkers believe that it returns something to await: pyright refuses to await ``NoReturn``. Where they miss
        that nothing behind it runs, ``raise sdk.RpcError(code, details)`` tells them.

        Args:
            code: Any code but ``OK`` (which becomes ``UNKNOWN``, as grpcio has it), or its number.
            details: Text of ``grpc-message``.
            trailing_metadata: Replaces the trailing metadata set so far, when given.

        Raises:
            AbortError: Always.
            ValueError: There is no such status code, or the metadata can't be sent.
        """
        if trailing_metadata:
            self._call.set_trailing(trailing_metadata)
        status = _CODE_BY_NUMBER[_number(code)]
        if status is grpc.StatusCode.OK:
            status, details = grpc.StatusCode.UNKNOWN, ""
        error = AbortError(status, "" if details is None else details)
        self._call.aborted = error
        raise error

    def abort_with_status(self, status: grpc.Status) -> Awaitable[NoReturn]:  # type: ignore[override]  # as abort
        """End the call with a ``grpc.Status``, such as ``grpc_status.rpc_status.to_status`` makes of rich errors."""
        return self.abort(status.code, status.details, tuple(status.trailing_metadata or ()))

    def set_compression(self, compression: grpc.Compression) -> None:
        """Compress the messages of the answer. A client that does not understand the encoding gets them as they are.

        Args:
            compression: ``grpc.Compression.Gzip``, ``Deflate`` or ``NoCompression``.

        Raises:
            RuntimeError: The first message or the initial metadata was sent already.
            ValueError: It is not a member of ``grpc.Compression``.
        """
        self._call.set_compression(compression)

    def disable_next_message_compression(self) -> None:
        """Send the next message as it is, one that is compressed already for example."""
        self._call.disable_next_message_compression()

    # -- messages and life --------------------------------------------------------------------

    def read(self) -> Coroutine[Any, Any, Any]:
        """Return the next request message of a client stream, or ``grpc.aio.EOF`` after the last."""
        return self._call.read_message()

    def write(self, message: Any) -> Coroutine[Any, Any, None]:
        """Send one response message of a server stream; waits while the client does not keep up."""
        return self._call.write_message(message)

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Call ``callback(context)`` when the call is over; at once when it is over already.

        The callback of an async handler runs on the loop and must not block; that of a sync handler runs in a thread.
        """
        if not self._call.on_done(lambda: callback(self)):
            callback(self)

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """Call ``callback()`` when the call is over, as :meth:`add_done_callback` does.

        Returns:
            False when the call is over already: the callback is not called then.
        """
        return self._call.on_done(callback)

    def cancel(self) -> None:
        """End the call: the client gets CANCELLED, and an async handler is cancelled. Does nothing after the end."""
        self._call.cancel_by_handler()

    def is_active(self) -> bool:
        """Tell whether the call is still going on."""
        return not self._call.is_done()

    def cancelled(self) -> bool:
        """Tell whether the client is gone or the deadline has passed."""
        return self._call.is_cancelled()

    def done(self) -> bool:
        """Tell whether the call is over."""
        return self._call.is_done()


def current_context() -> ServicerContext:
    """Return the context of the call that runs here, without naming a ``grpc_context`` parameter.

    Raises:
        RuntimeError: No call runs here.

    Example:
        >>> current_context()
        Traceback (most recent call last):
        ...
        RuntimeError: no gRPC call runs here: current_context() works in a handler and in what it calls
    """
    call = _current.get()
    if call is None:
        raise RuntimeError("no gRPC call runs here: current_context() works in a handler and in what it calls")
    return call if isinstance(call, ServicerContext) else context_of(call)


def context_of(call: CallState) -> ServicerContext:
    """Return the one context of a call; it is made when it is first asked for, since most handlers never do."""
    if call.context is None:
        call.context = ServicerContext(call)
    return call.context


def _number(code: grpc.StatusCode | int) -> int:
    number: int = code.value[0] if isinstance(code, grpc.StatusCode) else code
    if number not in _CODE_BY_NUMBER:
        raise ValueError(f"there is no gRPC status code {code!r}; give a member of grpc.StatusCode")
    return number


#: Marks a call as the current one. The wire server calls it in the context that the handler runs in.
enter_call = _current.set


def current_call() -> Any:
    """Return the call that runs here: what :func:`enter_call` marked."""
    return _current.get()
