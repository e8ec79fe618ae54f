"""Base classes of generated clients and of their methods; ``_calls.py`` has one class for each cardinality.

A generated client is a class with one attribute for each RPC. Calls return grpc's call objects, with their whole API:
``await call``, ``async for``, ``call.cancel()``, ``call.trailing_metadata()``
(https://grpc.github.io/grpc/python/grpc_asyncio.html). Targets, credentials and channel arguments are in
``sdk/client/_channel.py``. Neither Ray nor the serving side is imported.
"""

from __future__ import annotations

import asyncio
import copy
import os
from collections.abc import Iterable, Sequence
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NoReturn, Self, TypeAlias, TypeVar, cast

import grpc
import grpc.aio
from google.protobuf.message import Message
from typing_extensions import TypedDict

from sdk._misuse import unexpected_keyword, unknown_method
from sdk._otel import current as current_tracing
from sdk.client._channel import (
    DEFAULT_MAX_MESSAGE_LENGTH,
    Keepalive,
    RetryPolicy,
    Token,
    channel_options,
    parse_target,
    with_token,
)
from sdk.client._error_notes import describe_call, with_notes
from sdk.client._requests import CheckedRequests, Validation, check_request, validation_of

if TYPE_CHECKING:
    from sdk._otel.spans import Tracing
    from sdk.service import Method

Metadata: TypeAlias = Sequence[tuple[str, "str | bytes"]]
"""Metadata of a call: pairs of a key and a string, or of a key that ends with ``-bin`` and bytes."""

ChannelT = TypeVar("ChannelT", bound="grpc.Channel | grpc.aio.Channel")

# Keyword arguments that are sent as metadata, with the keys of Ray Serve's gRPC guide
# (https://docs.ray.io/en/latest/serve/advanced-guides/grpc-guide.html).
_METADATA_KEYS = {"application": "application", "model_id": "multiplexed_model_id", "request_id": "request_id"}
_ROUTING = frozenset(_METADATA_KEYS.values())
# Keyword arguments that are passed to grpc unchanged.
_GRPC_ARGUMENTS = ("wait_for_ready", "compression", "credentials")
_OPTIONS = frozenset({"timeout", "metadata", *_METADATA_KEYS, *_GRPC_ARGUMENTS})
_DEFAULT_RETRY = RetryPolicy()
_DEFAULT_KEEPALIVE = Keepalive()


RequestT = TypeVar("RequestT", bound=Message)
ResponseT = TypeVar("ResponseT", bound=Message)


class CallOptions(TypedDict, total=False):
    """Keyword arguments of every call. Each one overrides the argument of the client."""

    timeout: float | None
    """Seconds until the call ends with DEADLINE_EXCEEDED; None for no deadline."""
    metadata: Metadata
    """Pairs to send in addition to those of the client."""
    application: str | None
    """Name of the application to route to; None to send none."""
    model_id: str | None
    """ID of the model that the replica should have loaded (metadata ``multiplexed_model_id``)."""
    request_id: str | None
    """ID of the request in the server's logs and in the trailing metadata; without it the server generates one."""
    wait_for_ready: bool | None
    """True to wait until the deadline while the server can't be reached, instead of ending UNAVAILABLE.

    See https://github.com/grpc/grpc/blob/master/doc/wait-for-ready.md.
    """
    compression: grpc.Compression | None
    """Compression of the requests."""
    credentials: grpc.CallCredentials | None
    """Credentials of this call, in addition to those of the channel; over TLS only."""


class ClientMethod(Generic[RequestT, ResponseT]):
    """Method of a generated client class. Read from a client object, it is bound to the channel of that client.

    Attributes:
        method: The RPC.
    """

    # True if a call returns grpc's call object, False if it returns the response.
    _returns_call: ClassVar[bool] = True

    def __init__(self, method: Method) -> None:
        self.method = method
        self._name = method.python_name
        self._client: AsyncClient | SyncClient | None = None
        self._invoke: Any = None
        self._validation: Validation | None = None

    @classmethod
    def of(cls, client: AsyncClient | SyncClient, method: Method) -> Self:
        """Return the method bound to a client, for a property of a generated client class."""
        return cls(method).__get__(client)

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, client: AsyncClient | SyncClient | None, owner: type | None = None) -> Self:
        if client is None:
            return self
        # The bound copy is stored in the client's namespace, where Python finds it before it calls this again. Only an
        # implicit `client(...)`, of an RPC named __call__, comes here every time.
        bound: Self | None = vars(client).get(self._name)
        if bound is None:
            bound = copy.copy(self)
            bound._client = client
            bound._validation = validation_of(self.method) if client._validate else None
            multicallable = getattr(client.channel, self.method.cardinality.value)
            bound._invoke = multicallable(
                self.method.path,
                request_serializer=self.method.request.SerializeToString,
                response_deserializer=self.method.response.FromString,
            )
            vars(client)[self._name] = bound
        return bound

    def _call(self, request: RequestT, options: CallOptions, entry: str = "__call__") -> Any:
        check_request(request, self.method, self._validation)
        return self._send(request, options, entry)

    def _call_with_stream(self, requests: Iterable[RequestT], options: CallOptions, entry: str = "__call__") -> Any:
        checked = CheckedRequests(requests, self.method, self._validation)
        try:
            return self._send(checked, options, entry)
        except grpc.RpcError as error:
            if checked.error is not None:  # grpc reports UNKNOWN; the error of the iterator says more
                raise checked.error from error
            raise

    def _send(self, request: Any, options: CallOptions, entry: str = "__call__") -> Any:
        if self._client is None:
            raise TypeError(f"call {self._name} on a client, not on its class")
        arguments = self._client._arguments(self.method, options)
        tracing = current_tracing.refresh()
        try:
            if tracing is None:
                call = getattr(self._invoke, entry)(request, **arguments)
            else:
                call = self._start_traced(tracing, request, arguments, entry)
        except grpc.RpcError as error:
            error.add_note(self._note(options, error))
            raise
        return with_notes(call, partial(self._note, options)) if self._returns_call else call

    def _start_traced(self, tracing: Tracing, request: Any, arguments: dict[str, Any], entry: str) -> Any:
        from sdk.client._traced_call import ClientSpan

        assert self._client is not None
        span = ClientSpan(tracing, self.method.path, self._client._address, arguments)
        with span:
            call = getattr(self._invoke, entry)(request, **span.arguments)
        span.follow(call, is_call=self._returns_call)
        return call

    def _note(self, options: CallOptions, error: Any) -> str:
        assert self._client is not None
        return describe_call(self.method, self._client._target, options.get("request_id"), error)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.method.path}>"


class _Client(Generic[ChannelT]):
    """Base of both kinds of clients: the channel, and the arguments of every call."""

    _own_channel: ClassVar[type[Any]]
    _other_channel: ClassVar[type[Any]]
    _channel_remedy: ClassVar[str]

    def __init__(
        self,
        target: str | ChannelT,
        *,
        application: str | None = None,
        model_id: str | None = None,
        timeout: float | None = None,
        metadata: Metadata = (),
        credentials: grpc.ChannelCredentials | None = None,
        token: Token | None = None,
        retry: RetryPolicy | None = _DEFAULT_RETRY,
        keepalive: Keepalive | None = _DEFAULT_KEEPALIVE,
        max_message_length: int = DEFAULT_MAX_MESSAGE_LENGTH,
        options: Sequence[tuple[str, Any]] | None = None,
        validate: bool = False,
    ) -> None:
        _check_settings(validate=(validate, bool))
        _check_settings(application=(application, str), model_id=(model_id, str), timeout=(timeout, (int, float)))
        _check_settings(retry=(retry, RetryPolicy), keepalive=(keepalive, Keepalive))
        self._target: str | ChannelT = target
        self._address = ""
        self._channel: ChannelT | None = None
        if isinstance(target, str):
            self._address, credentials = parse_target(target, credentials)
            self._credentials = with_token(credentials, token)
            self._options = channel_options(
                self._address, self._methods(), retry, keepalive, max_message_length, options
            )
        elif isinstance(target, self._other_channel):
            raise TypeError(f"{type(self).__name__} {self._channel_remedy}")
        elif not isinstance(target, self._own_channel):
            raise TypeError(f"{type(self).__name__} needs a target, 'host:port', or a channel, not {target!r}")
        elif (
            (credentials, token, options) != (None, None, None)
            or (retry, keepalive) != (_DEFAULT_RETRY, _DEFAULT_KEEPALIVE)
            or max_message_length != DEFAULT_MAX_MESSAGE_LENGTH
        ):
            raise ValueError(
                "credentials, token, retry, keepalive, max_message_length and options belong to a channel: pass them "
                "where the channel is created"
            )
        else:
            self._channel = target
        # ID of the process that created the channel. A client may be created before a fork and used after it.
        self._process = None if self._channel is None else os.getpid()
        self._closed = False
        self._timeout = timeout
        self._validate = validate
        for method in self._methods() if validate else ():
            validation_of(method)  # what is missing shows here, and not at a call
        self._plain, self._routing = _split_routing(metadata)
        if application is not None:
            self._routing["application"] = application
        if model_id is not None:
            self._routing["multiplexed_model_id"] = model_id
        self._metadata = (*self._plain, *self._routing.items())

    @property
    def channel(self) -> ChannelT:
        """The channel. It is created at the first use, so that a client can be created without a running event loop.

        Other clients and generated stubs may share it, ``GuideClient(client.channel)``; it is closed with this client.

        Raises:
            ValueError: The client is closed.
            RuntimeError: An async client is used outside its event loop, or the channel was created before a fork.
        """
        self._check_use()
        if self._channel is None:
            self._channel = self._open()
            self._process = os.getpid()
        return self._channel

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            known = {
                key
                for base in type(self).__mro__
                if base.__module__ != __name__
                for key, value in vars(base).items()
                if isinstance(value, (ClientMethod, property))  # a deprecated RPC is a property
            }
            raise unknown_method(self, name, known)

    def _open(self) -> ChannelT:
        raise NotImplementedError

    def _check_use(self) -> None:
        """Raise if the client can't be used, or not in this process or event loop."""
        if self._closed:
            raise ValueError(f"{type(self).__name__} is closed; create a new one")
        if self._process not in (None, os.getpid()):
            raise RuntimeError(
                f"{type(self).__name__} was in use when this process was forked, and gRPC does not work after a fork: "
                "spawn processes, or fork them before the first call"
            )

    @classmethod
    def _methods(cls) -> list[Method]:
        """Return the methods of the client, except deprecated ones, which are properties."""
        return [each.method for base in cls.__mro__ for each in vars(base).values() if isinstance(each, ClientMethod)]

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"{type(self).__name__} can't be pickled or copied: it has a connection. Pass its target, and create a "
            "client where it is used"
        )

    def __repr__(self) -> str:
        where = repr(self._target) if isinstance(self._target, str) else "a given channel"
        return f"<{type(self).__name__} for {where}{', closed' if self._closed else ''}>"

    def _detach_channel(self) -> ChannelT | None:
        """Mark the client as closed, and return the channel to close if the client created it."""
        self._closed = True
        channel, self._channel = self._channel, None
        return channel if isinstance(self._target, str) else None

    def _arguments(self, method: Method, options: CallOptions) -> dict[str, Any]:
        """Return the keyword arguments for grpc."""
        self._check_use()
        if not options:
            return {"timeout": self._timeout, "metadata": self._metadata}
        given = cast("dict[str, Any]", options)
        if unknown := given.keys() - _OPTIONS:
            raise unexpected_keyword(method, min(unknown), _OPTIONS)
        plain, routing = _split_routing(given.get("metadata", ()))
        routing = {
            **self._routing,
            **routing,
            **{key: given[name] for name, key in _METADATA_KEYS.items() if name in given},
        }
        named = ((key, value) for key, value in routing.items() if value is not None)
        arguments = {name: given[name] for name in _GRPC_ARGUMENTS if name in given}
        arguments["timeout"] = given.get("timeout", self._timeout)
        arguments["metadata"] = (*self._plain, *plain, *named)
        return arguments


class AsyncClient(_Client[grpc.aio.Channel]):
    """Base of every generated async client. It belongs to one event loop.

    Args:
        target: ``"host:port"``, ``"https://host:port"`` for TLS with the certificates that this machine trusts, any
            other gRPC target (https://github.com/grpc/grpc/blob/master/doc/naming.md), or a channel. The client does
            not close a channel that was passed to it.
        application: Name of the application to route to (metadata ``application``).
        model_id: ID of the model that the replica should have loaded (metadata ``multiplexed_model_id``).
        timeout: Seconds until a call ends with DEADLINE_EXCEEDED; None for no deadline.
        metadata: Pairs to send with every call.
        credentials: For TLS, ``grpc.ssl_channel_credentials(...)``; None for plain text.
        token: Sent as ``authorization: Bearer …`` with every call, over TLS only; or a function that returns the
            current token, which is called in a thread for every call.
        retry: Policy for retries; None for no retries.
        keepalive: Detection of dead connections with pings; None for no pings.
        max_message_length: Longest response message, in bytes; -1 for no limit.
        options: gRPC channel arguments, ``[("grpc.lb_policy_name", "round_robin")]``; they override the client's.
        validate: Check each request against the rules of its proto before it is sent. One that breaks a rule raises
            :class:`sdk.RpcError` INVALID_ARGUMENT, as the server would answer it. Needs the extra ``validate``.

    Raises:
        ValueError: A channel was combined with arguments that belong to one, or the target or the token is invalid.
        TypeError: The channel is a blocking one.

    Example:
        ::

            async with GreeterClient("localhost:9000", application="app1") as client:
                reply = await client.SayHello(HelloRequest(name="you"), timeout=2)
    """

    _own_channel, _other_channel = grpc.aio.Channel, grpc.Channel
    _channel_remedy = "needs a channel of grpc.aio; a channel of grpc goes with the SyncClient"

    _loop: asyncio.AbstractEventLoop | None = None

    def _check_use(self) -> None:
        super()._check_use()
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            name = type(self).__name__
            raise RuntimeError(
                f"{name} is used outside an event loop: call it in a coroutine, or use the SyncClient"
            ) from None
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise RuntimeError(f"{type(self).__name__} belongs to another event loop: create one in each loop")

    def _open(self) -> grpc.aio.Channel:
        if self._credentials is None:
            return grpc.aio.insecure_channel(self._address, options=self._options)
        return grpc.aio.secure_channel(self._address, self._credentials, options=self._options)

    async def wait_for_ready(self, timeout: float | None = None) -> None:
        """Connect, and return when the channel is ready.

        Args:
            timeout: Most seconds to wait; None to wait without a limit.

        Raises:
            TimeoutError: The channel did not become ready in time.
        """
        try:
            await asyncio.wait_for(self.channel.channel_ready(), timeout)
        except TimeoutError:
            raise _not_ready(self, timeout) from None

    async def close(self) -> None:
        """Close the channel, unless it was passed to the client. Running calls are cancelled."""
        channel = self._detach_channel()
        if channel is not None:
            await channel.close(None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()


class SyncClient(_Client[grpc.Channel]):
    """Base of every generated blocking client. Threads may share it.

    It takes the arguments of :class:`AsyncClient`, with a channel of ``grpc`` instead of ``grpc.aio``.

    Raises:
        ValueError: A channel was combined with arguments that belong to one, or the target or the token is invalid.
        TypeError: The channel is a channel of ``grpc.aio``.

    Example:
        ::

            with GreeterSyncClient("localhost:9000", application="app1") as client:
                reply, call = client.SayHello.with_call(HelloRequest(name="you"), timeout=2)
                call.trailing_metadata()
    """

    _own_channel, _other_channel = grpc.Channel, grpc.aio.Channel
    _channel_remedy = "needs a channel of grpc; a channel of grpc.aio goes with the async client"

    def _open(self) -> grpc.Channel:
        if self._credentials is None:
            return grpc.insecure_channel(self._address, options=self._options)
        return grpc.secure_channel(self._address, self._credentials, options=self._options)

    def wait_for_ready(self, timeout: float | None = None) -> None:
        """Connect, and return when the channel is ready.

        Args:
            timeout: Most seconds to wait; None to wait without a limit.

        Raises:
            TimeoutError: The channel did not become ready in time.
        """
        ready = grpc.channel_ready_future(self.channel)
        try:
            ready.result(timeout)
        except grpc.FutureTimeoutError:
            raise _not_ready(self, timeout) from None
        finally:
            ready.cancel()

    def close(self) -> None:
        """Close the channel, unless it was passed to the client. Running calls are cancelled."""
        channel = self._detach_channel()
        if channel is not None:
            channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _split_routing(metadata: Metadata) -> tuple[tuple[tuple[str, str | bytes], ...], dict[str, Any]]:
    """Return the metadata without the keys of keyword arguments, and a dict of those keys.

    Each of those keys must be sent once: with two values of ``application`` the ingress could not route the call.
    """
    try:
        plain = tuple((key, value) for key, value in metadata if key not in _ROUTING)
        return plain, {key: value for key, value in metadata if key in _ROUTING}
    except (TypeError, ValueError):
        raise TypeError(f"metadata must be pairs, [('key', 'value')], not {metadata!r}") from None


def _check_settings(**settings: tuple[Any, Any]) -> None:
    for name, (value, kind) in settings.items():
        if value is not None and not isinstance(value, kind):
            kinds = kind if isinstance(kind, tuple) else (kind,)
            wanted = " or ".join(each.__name__ for each in kinds)
            raise TypeError(f"{name} must be of type {wanted}, or None, not {value!r}")


def _not_ready(client: _Client[Any], timeout: float | None) -> TimeoutError:
    return TimeoutError(f"no connection to {client._target!r} within {timeout} s")
