"""The test server of ``sdk.testing.serve``."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, cast

import grpc
import grpc.aio

from sdk.client import AsyncClient, SyncClient
from sdk.errors import ApplicationError, OptionsError, RpcError
from sdk.options import GrpcOptions
from sdk.testing._faults import Fault
from sdk.testing._runtime_protocol import make_runtime

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from sdk.service import Method
    from sdk.testing._runtime_protocol import ServedReplica, ServerRuntime

C = TypeVar("C", bound="AsyncClient | SyncClient")
T = TypeVar("T")

ChannelOptions = Sequence[tuple[str, Any]]

# A proxy of the environment does not reach this machine.
_DIRECT = [("grpc.enable_http_proxy", 0)]


class Server:
    """Serves applications in this process until its ``with`` block ends. Created by :func:`serve`."""

    def __init__(self, targets: Mapping[str, Any], options: GrpcOptions, *, tls: bool = False) -> None:
        self._runtime = make_runtime(targets, options, tls=tls)
        self._closing: list[Callable[[], None]] = []
        self._closing_async: list[grpc.aio.Channel] = []
        self._state: Literal["not started", "running", "ended"] = "not started"

    # -- start and stop -----------------------------------------------------------------------

    def __enter__(self) -> Self:
        if self._state != "not started":
            raise RuntimeError("a test server is started once; call sdk.testing.serve again")
        self._state = "running"
        self._runtime.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._state = "ended"
        try:
            for close in reversed(self._closing):
                close()
        finally:
            self._runtime.stop()

    async def __aenter__(self) -> Self:
        starting = asyncio.ensure_future(asyncio.to_thread(self.__enter__))
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            # The thread continues, and what it starts must be stopped.
            with contextlib.suppress(Exception):
                await starting
                await asyncio.to_thread(self.__exit__, None, None, None)
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            for channel in self._closing_async:
                await channel.close(None)
        finally:
            await asyncio.to_thread(self.__exit__, kind, error, traceback)

    @property
    def _running(self) -> ServerRuntime:
        """The runtime, while the server runs.

        Raises:
            RuntimeError: The server is not started, or has stopped.
        """
        if self._state == "not started":
            raise RuntimeError("the test server is not started: write `with sdk.testing.serve(...) as server:`")
        if self._state == "ended":
            raise RuntimeError("the test server has ended, with its `with` block")
        return self._runtime

    # -- clients ------------------------------------------------------------------------------

    @property
    def target(self) -> str:
        """The address for clients, ``"127.0.0.1:41234"``."""
        return self._running.ingress.target

    @property
    def credentials(self) -> grpc.ChannelCredentials | None:
        """Credentials with which a client trusts the server's certificate; None without TLS."""
        certificate = self._running.options.tls_certificate
        return None if certificate is None else grpc.ssl_channel_credentials(Path(certificate).read_bytes())

    def channel(
        self, *, credentials: grpc.ChannelCredentials | None = None, options: ChannelOptions | None = None
    ) -> grpc.Channel:
        """Return a channel of ``grpc``, for generated stubs; it is closed when the server stops.

        Args:
            credentials: By default :attr:`credentials`.
            options: Channel arguments of gRPC.
        """
        credentials = credentials or self.credentials
        options = [*_DIRECT, *(options or ())]
        if credentials is None:
            channel = grpc.insecure_channel(self.target, options=options)
        else:
            channel = grpc.secure_channel(self.target, credentials, options=options)
        self._closing.append(channel.close)
        return channel

    def aio_channel(
        self, *, credentials: grpc.ChannelCredentials | None = None, options: ChannelOptions | None = None
    ) -> grpc.aio.Channel:
        """Return a channel of ``grpc.aio``, which is closed at the end of ``async with serve(...)``.

        Args:
            credentials: By default :attr:`credentials`.
            options: Channel arguments of gRPC.
        """
        credentials = credentials or self.credentials
        options = [*_DIRECT, *(options or ())]
        if credentials is None:
            channel = grpc.aio.insecure_channel(self.target, options=options)
        else:
            channel = grpc.aio.secure_channel(self.target, credentials, options=options)
        self._closing_async.append(channel)
        return channel

    def client(self, kind: type[C], /, **arguments: Any) -> C:
        """Return a generated client of the server.

        A sync client is closed when the server stops; close an async one with ``async with``.

        Args:
            kind: The client's class, ``GreeterClient`` or ``GreeterSyncClient``.
            **arguments: Arguments of its constructor other than the target: ``application``, ``timeout``,
                ``metadata``…
        """
        arguments.setdefault("credentials", self.credentials)
        client = kind(self.target, **arguments)
        if isinstance(client, SyncClient):
            self._closing.append(client.close)
        return client

    # -- applications -------------------------------------------------------------------------

    @property
    def applications(self) -> tuple[str, ...]:
        """Names of the applications."""
        return tuple(self._running.applications)

    @property
    def envoy_pid(self) -> int:
        """Process id of its Envoy."""
        return self._running.ingress.envoy_pid

    def instance(self, kind: type[T], /, *, application: str | None = None, deployment: str | None = None) -> T:
        """Return the instance that answers the calls of a deployment, to inspect it.

        Its methods run on the event loop of another thread: read and set plain attributes, and don't call its async
        methods.

        Args:
            kind: The class that was bound.
            application: Name of its application, if several applications have a deployment of the class.
            deployment: Name of its deployment, if the application has several of the class.

        Raises:
            LookupError: There is no such deployment, or there are several.
        """
        found = [
            replica
            for name, served in self._runtime.applications.items()
            for replica in served.replicas.values()
            if isinstance(replica.instance, kind) and application in (None, name) and deployment in (None, replica.name)
        ]
        if len(found) != 1:
            names = ", ".join(f"{replica.application}/{replica.name}" for replica in found)
            raise LookupError(
                f"{len(found)} deployments of {kind.__name__} are served ({names}): choose one with `application` or "
                "`deployment`"
                if found
                else f"no deployment of {kind.__name__} is served"
            )
        return cast("T", found[0].instance)

    def handle(self, application: str | None = None) -> Any:
        """Return Ray Serve's ``DeploymentHandle`` of an application, as :func:`sdk.run` does.

        Args:
            application: Its name; optional if the server has one application.

        Raises:
            LookupError: There is no such application, or no name was given and there are several.
        """
        served = self._running.applications
        if application is None and len(served) == 1:
            application = next(iter(served))
        if application is None or application not in served:
            raise LookupError(f"no application {application!r}: there are {', '.join(map(repr, served))}")
        return served[application].handle

    # -- faults -------------------------------------------------------------------------------

    def inject(
        self,
        *,
        latency_s: float = 0.0,
        status: grpc.StatusCode | None = None,
        details: str = "",
        trailing_metadata: Sequence[tuple[str, str | bytes]] = (),
        errors: Sequence[Message] = (),
        method: Any = None,
        application: str | None = None,
        times: int | None = None,
        share: float = 1.0,
        after_messages: int = 0,
    ) -> Fault:
        """Inject latency or an error status into calls until the fault is cleared, to test how clients react.

        The status is sent as a response without messages, and the handler does not run, as with an overloaded or
        leaving replica. So clients retry it (https://grpc.io/docs/guides/retry/).

        Args:
            latency_s: Seconds to delay a call.
            status: Status of the call; None to only delay it.
            details: Message of the status.
            trailing_metadata: Pairs to send with the status.
            errors: ``google.rpc`` details to send with the status.
            method: The method to affect: ``GreeterBase.SayHello``, ``GreeterClient.SayHello``,
                ``"/greet.Greeter/SayHello"``, or ``"greet.Greeter"`` for all methods of a service; None for all
                methods.
            application: Name of the application to affect; None for all.
            times: Number of calls to affect; None for any number.
            share: Share of the calls to affect, from 0 to 1; the same calls in every run.
            after_messages: Run the handler, and send the status after this many of its response messages. The response
                has begun by then, so clients don't retry.

        Returns:
            The fault: a context manager, with ``clear()`` and the number of ``hits``.

        Raises:
            OptionsError: An argument is invalid.

        Example:
            ::

                with server.inject(status=grpc.StatusCode.UNAVAILABLE, times=2) as fault:
                    client.SayHello(HelloRequest(name="you"))  # succeeds with the third attempt
                assert fault.hits == 2
        """
        wrong = []
        if latency_s < 0:
            wrong.append(f"latency_s must not be negative, got {latency_s}")
        if not 0 <= share <= 1:
            wrong.append(f"share must be from 0 to 1, got {share}")
        if times is not None and times < 1:
            wrong.append(f"times must be at least 1 or None, got {times}")
        if after_messages < 0 or (after_messages and status is None):
            wrong.append(f"after_messages must be at least 0 and come with a status, got {after_messages}")
        if status is None and not latency_s:
            wrong.append("give latency_s, status, or both")
        if application is not None and application not in self._running.applications:
            wrong.append(f"no application {application!r} is served")
        paths = None if method is None else self._paths(method)
        if paths is not None and not paths:
            wrong.append(f"no method {_describe(method)} is served; there are {', '.join(sorted(self._methods()))}")
        if wrong:
            raise OptionsError("inject: " + "; ".join(wrong))
        error = None
        if status is not None:
            error = RpcError(status, details or "injected by the test", trailing_metadata, errors=errors)
        fault = Fault(latency_s, error, after_messages, paths, application, times, share, self._runtime.faults)
        self._running.faults.add(fault)
        return fault

    def clear_faults(self) -> None:
        """Clear all faults."""
        self._runtime.faults.clear()

    def _methods(self) -> dict[str, list[tuple[ServedReplica, Method]]]:
        found: dict[str, list[tuple[ServedReplica, Method]]] = {}
        for application in self._running.applications.values():
            for replica in application.replicas.values():
                for service in replica.definition.services if replica.definition else ():
                    for method in service.methods:
                        found.setdefault(method.path, []).append((replica, method))
        return found

    def _paths(self, wanted: Any) -> frozenset[str]:
        methods = self._methods()
        if isinstance(wanted, str):
            path = "/" + wanted.lstrip("/")
            return frozenset(known for known in methods if known == path or known.startswith(f"{path.rstrip('/')}/"))
        described = getattr(wanted, "method", wanted)  # an attribute of an RPC of a client's class
        return frozenset(
            path
            for path, bound in methods.items()
            for replica, method in bound
            if described == method or any(vars(base).get(method.python_name) is wanted for base in replica.cls.__mro__)
        )


def serve(*applications: Any, options: GrpcOptions | None = None, tls: bool = False, **named: Any) -> Server:
    """Serve applications in this process, for a test: the wire server of a replica behind a real Envoy, without Ray.

    Every deployment gets one replica. Its constructor, ``reconfigure``, ``check_health`` and ``__del__`` are called as
    Ray Serve calls them, on an event loop in a separate thread; handles to other deployments work. An exception of a
    constructor is raised here, and nothing is left running.

    Args:
        *applications: One application, which is then named ``"default"``, or a mapping of names to applications. An
            application is the result of ``bind``, or an instance of a decorated class. Ray Serve pickles the arguments
            of ``bind``; an instance may hold mocks and other objects that can't be pickled. Its hooks are called, too,
            except ``__del__``.
        options: Options of the ingress. It listens on a free port of 127.0.0.1 and ignores ``host`` and ``port``.
        tls: Serve with TLS, with a certificate that is created for the test and that the server's clients trust.
        **named: More applications by name.

    Returns:
        The server; ``with`` or ``async with`` starts it, and the end of the block stops it.

    Raises:
        ApplicationError: An argument is not an application.
        OptionsError: Both ``tls`` and the options for TLS are given.

    Example:
        ::

            with sdk.testing.serve(Greeter.bind("hi")) as server:
                client = server.client(GreeterSyncClient)
                assert client.SayHello(HelloRequest(name="you")).text == "hi you"
    """
    targets: dict[str, Any] = {}
    for application in applications:
        targets.update(application if isinstance(application, Mapping) else {"default": application})
    wrong = [name for name in targets if not isinstance(name, str) or not name]
    twice = targets.keys() & named.keys()
    if wrong or twice:
        what = f"two are named {min(twice)!r}" if twice else f"{wrong[0]!r} is not a name"
        raise ApplicationError(f"sdk.testing.serve: each application needs a unique name, but {what}")
    targets.update(named)
    if not targets or len(applications) > 1:
        raise ApplicationError(
            "sdk.testing.serve takes one application, or several by name: serve(A.bind(), other=B.bind())"
        )
    if tls and options is not None and options.tls_certificate is not None:
        raise OptionsError("sdk.testing.serve creates a certificate with tls=True: remove tls_certificate, or tls")
    return Server(targets, options or GrpcOptions(), tls=tls)


def _describe(method: Any) -> str:
    return repr(method) if isinstance(method, str) else getattr(method, "__qualname__", repr(method))
