"""The gRPC context of a call, with which a handler reads the call's metadata and sets its status and trailers.

It has the methods of ``grpc.aio.ServicerContext``
(https://grpc.github.io/grpc/python/grpc_asyncio.html#grpc.aio.ServicerContext) and of Ray Serve's
``RayServegRPCContext`` (https://docs.ray.io/en/latest/serve/advanced-guides/grpc-guide.html). A handler receives it in
a parameter named ``grpc_context``, or gets it from :func:`current_context`.
"""

from __future__ import annotations

import contextvars
import json
import time
from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TypeAlias

import grpc
import grpc.aio

from sdk.errors import RpcError

_current: contextvars.ContextVar[CallState | None] = contextvars.ContextVar("sdk_call", default=None)
_in_batch: contextvars.ContextVar[bool] = contextvars.ContextVar("sdk_in_batch", default=False)
_CODE_BY_NUMBER = {code.value[0]: code for code in grpc.StatusCode}

_NO_CALL = "no current gRPC call: use current_context() in a handler or in functions that it calls"
_NO_CALL_IN_BATCH = (
    "no current gRPC call: a method with @serve.batch runs once for several calls. Call current_context() before, in "
    "the handler that calls this method, and pass what it needs as one more argument; or, if the method is the "
    "handler, take `grpc_context: list[ServicerContext]`, with the context of each call"
)

MetadataPairs: TypeAlias = "grpc.aio.Metadata | Sequence[tuple[str, str | bytes]]"


class CallState(Protocol):
    """The call behind a context, as ``sdk._wire.call.Call`` implements it."""

    # ruff: noqa: D102 - the methods are documented by the methods of the context with the same names
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


#: Keys of ``auth_context``: those of gRPC, then ours.
SAN, COMMON_NAME = "x509_subject_alternative_name", "x509_common_name"
PEM_CERTIFICATE = "x509_pem_cert"
TOKEN_ISSUER, TOKEN_SUBJECT, TOKEN_CLAIMS = "token_issuer", "token_subject", "token_claims"  # no secrets
API_KEY_NAME = "api_key_name"
# The request headers that ServicerContext has methods for.
_CONTEXT_HEADERS = (b"application", b"multiplexed_model_id", b"traceparent", b"tracestate")


class PassedCall:
    """Picklable copy of a call, behind a context that was passed to another process. It is read-only.

    Args:
        call: The call to copy, in the process that serves it.
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
            _headers={name: call.header(name) for name in _CONTEXT_HEADERS},
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
        if name != "aborted":  # set by abort, whose error ends the call of the handle's caller
            self._raise_read_only()

    def _raise_read_only(self, *_: Any) -> NoReturn:
        raise RuntimeError(
            "this gRPC context was passed to another deployment and is read-only: only the handler of the call can set "
            "its status and metadata. Return the values to the handler, or raise sdk.RpcError"
        )

    set_trailing = send_initial_metadata = set_compression = disable_next_message_compression = _raise_read_only
    on_done = cancel_by_handler = read_message = write_message = _raise_read_only


class AbortError(RpcError, grpc.aio.AbortError):
    """Error that ``abort`` raises. Code for ``grpc.aio`` recognizes it by its base class."""


class _Finished:
    """Completed awaitable, so that async handlers can await a method that sync handlers call without ``await``."""

    def __await__(self) -> Generator[None, None, None]:
        return
        yield


_FINISHED = _Finished()


class ServicerContext(grpc.aio.ServicerContext[Any, Any]):
    """The context of one call.

    Methods that ``grpc.aio`` declares ``async`` but that do not wait here (``abort``, ``send_initial_metadata``) take
    effect when they are called, and return an awaitable: they work in async and in sync handlers.

    A context can be passed to other deployments through their handles. The request metadata can be read there;
    ``abort`` ends the call of the handler that awaits the handle, and methods that change the response raise
    RuntimeError.

    Example:
        ::

            async def SayHello(self, request: HelloRequest, grpc_context: ServicerContext) -> HelloReply:
                if not request.name:
                    await grpc_context.abort(grpc.StatusCode.INVALID_ARGUMENT, "name is empty")
                grpc_context.set_trailing_metadata([("greeted-by", "replica-1")])
                return HelloReply(text=f"Hello {request.name}")
    """

    def __init__(self, call: CallState) -> None:
        self._call = call

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._call if isinstance(self._call, PassedCall) else PassedCall(self._call),)

    # -- the request ---------------------------------------------------------------------------

    def request_id(self) -> str:
        """Return the request id: the client's, or a generated one. The client receives it in the trailing metadata."""
        return self._call.request_id

    def application(self) -> str | None:
        """Return the ``application`` metadata, or None if the client did not send it."""
        return self._call.header(b"application")

    def multiplexed_model_id(self) -> str | None:
        """Return the ``multiplexed_model_id`` metadata, or None."""
        return self._call.header(b"multiplexed_model_id")

    def traceparent(self) -> str | None:
        """Return the ``traceparent`` metadata (https://www.w3.org/TR/trace-context/), or None."""
        return self._call.header(b"traceparent")

    def tracestate(self) -> str | None:
        """Return the ``tracestate`` metadata (https://www.w3.org/TR/trace-context/), or None."""
        return self._call.header(b"tracestate")

    def invocation_metadata(self) -> Any:
        """Return the request metadata in order; values of ``-bin`` keys are bytes."""
        return self._call.metadata

    def peer(self) -> str:
        """Return the client's address as Envoy sees it, ``"ipv4:127.0.0.1:50000"``; it can't be forged."""
        return self._call.peer

    def peer_identities(self) -> Sequence[bytes] | None:
        """Return the names by which the ingress knows the client, or None for a client that it does not know.

        Those in its certificate, else the subject of its token, else the name of its API key. What a client sends can't
        look like them: the ingress verifies credentials, and removes headers that imitate its own.
        """
        key = self.peer_identity_key()
        return None if key is None else self.auth_context()[key]

    def peer_identity_key(self) -> str | None:
        """Return the key of :meth:`auth_context` with the client's identities, or None if it has none.

        As in gRPC: ``"x509_subject_alternative_name"``, or ``"x509_common_name"`` for a certificate without alternative
        names. Without a certificate ``"token_subject"``, or ``"api_key_name"``.
        """
        known = self.auth_context()
        return next((key for key in (SAN, COMMON_NAME, TOKEN_SUBJECT, API_KEY_NAME) if key in known), None)

    def auth_context(self) -> Mapping[str, Sequence[bytes]]:
        """Return the client's authentication properties, by gRPC's names. Envoy verified them; they can't be forged.

        With TLS it has ``transport_security_type``; with a client certificate also ``x509_common_name``,
        ``x509_subject``, ``x509_subject_alternative_name`` and ``x509_pem_cert``. See
        https://grpc.github.io/grpc/python/grpc.html#grpc.ServicerContext.auth_context. With a token it has
        ``token_issuer``, ``token_subject`` and ``token_claims`` (JSON, see :meth:`claims`), with an API key
        ``api_key_name``.
        """
        return self._call.auth_context

    def claims(self) -> Mapping[str, Any]:
        """Return the claims of the client's token, which the ingress has verified; empty without a token.

        Those of the option ``claims`` of the token's issuer (:class:`sdk.access.JwtIssuer`).

        Example:
            ::

                if "admin" not in grpc_context.claims().get("roles", ()):
                    await grpc_context.abort(grpc.StatusCode.PERMISSION_DENIED, "for admins only")
        """
        found = self.auth_context().get(TOKEN_CLAIMS)
        claims: Mapping[str, Any] = json.loads(found[0]) if found else {}
        return claims

    def time_remaining(self) -> Any:
        """Return the seconds until the deadline, or None without a deadline."""
        return self._call.time_remaining()

    # -- the response --------------------------------------------------------------------------

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
        """Set the status code of the call. An exception in the handler overrides it with INTERNAL.

        Args:
            code: The status code, or its number.

        Raises:
            ValueError: The status code does not exist.
        """
        self._call.code = status_code(code).value[0]

    def set_details(self, details: str) -> None:
        """Set the details of the call's status, the text of ``grpc-message``."""
        self._call.details = "" if details is None else str(details)

    def set_trailing_metadata(self, trailing_metadata: MetadataPairs) -> None:
        """Set the trailing metadata. The ``request_id`` is always added to it.

        Raises:
            ValueError: A key or value is invalid, or the key is reserved.
        """
        self._call.set_trailing(trailing_metadata)

    def send_initial_metadata(self, initial_metadata: MetadataPairs) -> Any:
        """Send the initial metadata now, ahead of the first message.

        Raises:
            ValueError: A key or value is invalid, or the key is reserved.
            RuntimeError: The initial metadata was sent before.
        """
        self._call.send_initial_metadata(initial_metadata)
        return _FINISHED

    def abort(  # type: ignore[override]  # a coroutine must be awaited, which a sync handler can not
        self,
        code: grpc.StatusCode | int,
        details: str = "",
        trailing_metadata: MetadataPairs = (),
    ) -> Awaitable[NoReturn]:
        """End the call with a status. It raises, so the code after it does not run; do not catch the raised error.

        It is typed as an awaitable because pyright refuses to await ``NoReturn``. Where a type checker must know that
        the code after it does not run, use ``raise sdk.RpcError(code, details)``.

        Args:
            code: Any code but ``OK`` (which becomes ``UNKNOWN``, as in grpcio), or its number.
            details: Text of ``grpc-message``.
            trailing_metadata: Replaces the trailing metadata set so far, if given.

        Raises:
            AbortError: Always.
            ValueError: The status code does not exist, or the metadata is invalid.
        """
        if trailing_metadata:
            self._call.set_trailing(trailing_metadata)
        status = status_code(code)
        if status is grpc.StatusCode.OK:
            status, details = grpc.StatusCode.UNKNOWN, ""
        error = AbortError(status, "" if details is None else details)
        self._call.aborted = error
        raise error

    def abort_with_status(self, status: grpc.Status) -> Awaitable[NoReturn]:  # type: ignore[override]  # as abort
        """End the call with a ``grpc.Status``, for example from ``grpc_status.rpc_status.to_status``."""
        return self.abort(status.code, status.details, tuple(status.trailing_metadata or ()))

    def set_compression(self, compression: grpc.Compression) -> None:
        """Compress the response messages, unless the client does not accept the encoding.

        See https://github.com/grpc/grpc/blob/master/doc/compression.md.

        Args:
            compression: ``grpc.Compression.Gzip``, ``Deflate`` or ``NoCompression``.

        Raises:
            RuntimeError: The first message or the initial metadata was sent before.
            ValueError: It is not a member of ``grpc.Compression``.
        """
        self._call.set_compression(compression)

    def disable_next_message_compression(self) -> None:
        """Send the next message uncompressed, for example because its content is compressed already."""
        self._call.disable_next_message_compression()

    # -- messages and lifetime ------------------------------------------------------------------

    def read(self) -> Coroutine[Any, Any, Any]:
        """Return the next request message of a client stream, or ``grpc.aio.EOF`` after the last one."""
        return self._call.read_message()

    def write(self, message: Any) -> Coroutine[Any, Any, None]:
        """Send one response message of a server stream. Waits while flow control blocks the stream."""
        return self._call.write_message(message)

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Call ``callback(context)`` when the call ends, or at once if it has ended.

        The callback of an async handler runs on the event loop and must not block; that of a sync handler runs in a
        thread.
        """
        if not self._call.on_done(lambda: callback(self)):
            callback(self)

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """Call ``callback()`` when the call ends, as :meth:`add_done_callback` does.

        Returns:
            False if the call has ended; the callback is not called then.
        """
        return self._call.on_done(callback)

    def cancel(self) -> None:
        """End the call with CANCELLED, and cancel an async handler. Does nothing after the end of the call."""
        self._call.cancel_by_handler()

    def is_active(self) -> bool:
        """Return whether the call has not ended yet."""
        return not self._call.is_done()

    def cancelled(self) -> bool:
        """Return whether the client cancelled or disconnected, or the deadline has passed."""
        return self._call.is_cancelled()

    def done(self) -> bool:
        """Return whether the call has ended."""
        return self._call.is_done()


def current_context() -> ServicerContext:
    """Return the context of the current call, without a ``grpc_context`` parameter.

    It works in a handler and in functions that the handler calls, also across ``await``; not in a method with
    ``@serve.batch``, which runs once for several calls.

    Raises:
        RuntimeError: No call is current.

    Example:
        >>> current_context()
        Traceback (most recent call last):
        ...
        RuntimeError: no current gRPC call: use current_context() in a handler or in functions that it calls
    """
    call = _current.get()
    if call is None:
        raise RuntimeError(_NO_CALL_IN_BATCH if _in_batch.get() else _NO_CALL)
    return context_of(call)


def context_of(call: CallState) -> ServicerContext:
    """Return the context of a call. It is created at the first use, because most handlers do not use it."""
    if call.context is None:
        call.context = ServicerContext(call)
    return call.context


def status_code(code: grpc.StatusCode | int) -> grpc.StatusCode:
    """Return a status code that is given as itself or by its number.

    Raises:
        ValueError: It does not exist.

    Example:
        >>> status_code(5)
        <StatusCode.NOT_FOUND: (5, 'not found')>
    """
    status = code if isinstance(code, grpc.StatusCode) else _CODE_BY_NUMBER.get(code)
    if status is None:
        raise ValueError(f"unknown gRPC status code {code!r}; use a member of grpc.StatusCode")
    return status


def leave_call_for_batches() -> None:
    """Leave the current call: this task runs the batches of all calls."""
    _current.set(None)
    _in_batch.set(True)


#: Set the current call. The wire server calls it in the ``contextvars`` context of the handler.
enter_call = _current.set


def current_call() -> Any:
    """Return the current call, as :func:`enter_call` set it, or None."""
    return _current.get()
