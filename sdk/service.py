"""Proto services at run time: the contract between generated code and the SDK.

A generated ``*_sdk.py`` module has one :class:`Service` for each service of its proto file, and a :class:`Shim` that
binds the methods of an implementation to it. The rest of the SDK (checks, wire server, ingress, clients) reads these
values and never a ``_pb2`` module.
"""

from __future__ import annotations

import enum
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, TypeVar

from google.protobuf import descriptor_pool
from typing_extensions import TypeAliasType

from sdk._proto_files.fingerprint import fingerprint
from sdk._proto_files.order import imports_first
from sdk.errors import StaleCodeError

if TYPE_CHECKING:
    from google.protobuf.descriptor import FileDescriptor
    from google.protobuf.message import Message

    from sdk.access import CallRule

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

# ``MethodOptions.idempotency_level``,
# https://github.com/protocolbuffers/protobuf/blob/main/src/google/protobuf/descriptor.proto.
Idempotency = Literal["unknown", "no_side_effects", "idempotent"]


class Cardinality(enum.Enum):
    """Cardinality of an RPC: one message or a stream of messages in each direction.

    See https://grpc.io/docs/what-is-grpc/core-concepts/#service-definition.

    Example:
        >>> Cardinality.UNARY_STREAM.server_streaming
        True
    """

    UNARY_UNARY = "unary_unary"
    UNARY_STREAM = "unary_stream"
    STREAM_UNARY = "stream_unary"
    STREAM_STREAM = "stream_stream"

    @property
    def client_streaming(self) -> bool:
        """True when the client sends a stream of messages."""
        return self in (Cardinality.STREAM_UNARY, Cardinality.STREAM_STREAM)

    @property
    def server_streaming(self) -> bool:
        """True when the server responds with a stream of messages."""
        return self in (Cardinality.UNARY_STREAM, Cardinality.STREAM_STREAM)


class RequestStream(Protocol[T_co]):
    """The request messages of a client-streaming call.

    An ``async def`` handler iterates with ``async for``; a sync handler, which runs in a thread, with ``for``.
    A handler may annotate its parameter as this class, as ``AsyncIterator[T]`` or as ``Iterator[T]``.

    Example:
        ::

            async def Upload(self, requests: RequestStream[Chunk]) -> Summary:
                size = 0
                async for chunk in requests:
                    size += len(chunk.data)
                return Summary(size=size)
    """

    # Written out, because before Python 3.13 a protocol can't inherit from collections.abc.AsyncIterator.
    def __aiter__(self) -> AsyncIterator[T_co]: ...
    async def __anext__(self) -> T_co: ...
    def __iter__(self) -> Iterator[T_co]: ...
    def __next__(self) -> T_co: ...


#: What a handler of a server-streaming call may return: its messages, or an awaitable of them. It is an async
#: generator, a generator, or a function that returns any iterable, such as a list or the stream of another call. A
#: coroutine function that sends its messages with ``grpc_context.write`` returns nothing.
ResponseStream = TypeAliasType(
    "ResponseStream",
    Iterable[T] | AsyncIterable[T] | Awaitable[Iterable[T] | AsyncIterable[T] | None],
    type_params=(T,),
)


@dataclass(frozen=True, slots=True)
class Method:
    """One RPC of a service.

    Attributes:
        name: The RPC's name in the proto, ``"SayHello"``.
        python_name: Name of the Python method that implements it: ``name``, unless Python or the SDK reserves it.
        path: The gRPC path, ``"/greet.Greeter/SayHello"``.
        cardinality: One message or a stream of messages in each direction.
        request: Class of the request message.
        response: Class of the response message.
        line: Line of the RPC in its proto file, from 1; 0 when unknown.
        deprecated: True when the proto marks the RPC as deprecated.
        idempotency: ``option idempotency_level`` of the RPC: ``"no_side_effects"`` and ``"idempotent"`` allow retries;
            ``"unknown"`` when the proto does not set it.
    """

    name: str
    python_name: str
    path: str
    cardinality: Cardinality
    request: type[Message]
    response: type[Message]
    line: int = 0
    deprecated: bool = False
    idempotency: Idempotency = "unknown"


@dataclass(frozen=True)
class Service:
    """One service of a proto file.

    Attributes:
        full_name: ``"greet.Greeter"``.
        proto: Path of the proto file as protoc knows it, ``"greet.proto"``.
        methods: The RPCs in the order of the proto.
        file: Descriptor of the proto file, from the loaded ``_pb2`` module.
        proto_hash: Fingerprint of the proto file that the code was generated from.
        line: Line of the service in its proto file, from 1; 0 when unknown.
        comments: The protos' comments of the service, of its RPCs, and of the types in their messages, by full name.

    Raises:
        StaleCodeError: The loaded ``_pb2`` module was generated from another version of the proto file.
    """

    full_name: str
    proto: str
    methods: tuple[Method, ...]
    file: FileDescriptor = field(repr=False, compare=False)
    proto_hash: str = field(repr=False)
    line: int = 0
    comments: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        loaded = fingerprint(self.file.serialized_pb)
        if loaded != self.proto_hash:
            raise StaleCodeError(self.full_name, self.proto, self.proto_hash, loaded)

    def __reduce__(self) -> tuple[Any, ...]:
        # Descriptors can't be pickled. The file and its imports are pickled as bytes; unpickling looks the file up, or
        # adds them to the default pool.
        files = tuple(file.serialized_pb for file in imports_first([self.file], lambda file: file.dependencies))
        return _load_service, (
            self.full_name, self.proto, self.methods, files, self.proto_hash, self.line, self.comments,
        )  # fmt: skip

    @property
    def name(self) -> str:
        """The service's name without its package, ``"Greeter"``."""
        return self.full_name.rpartition(".")[2]

    @cached_property
    def by_name(self) -> dict[str, Method]:
        """The RPCs by their name in the proto."""
        return {method.name: method for method in self.methods}

    def __getitem__(self, name: str) -> Method:
        """Return the RPC called ``name`` in the proto.

        Raises:
            KeyError: The service has no such RPC.
        """
        return self.by_name[name]


def _load_service(
    full_name: str,
    proto: str,
    methods: tuple[Method, ...],
    files: tuple[bytes, ...],
    proto_hash: str,
    line: int,
    comments: Mapping[str, str],
) -> Service:
    pool = descriptor_pool.Default()
    try:
        file = pool.FindFileByName(proto)
    except KeyError:
        for serialized in files:
            pool.AddSerializedFile(serialized)
        file = pool.FindFileByName(proto)
    return Service(full_name, proto, methods, file, proto_hash, line, comments)


@dataclass(frozen=True, slots=True)
class MethodBinding:
    """An RPC and the method of an implementation that handles its calls.

    Attributes:
        method: The RPC.
        handler: The bound method.
        checks_requests: True if each request is checked against the rules of its proto before the handler gets it.
        checks_responses: True if each response is checked before it is sent.
        rule: Who may call; None for everyone.
    """

    method: Method
    handler: Callable[..., Any]
    checks_requests: bool = False
    checks_responses: bool = False
    rule: CallRule | None = None


class Shim:
    """Binds the methods of an implementation to the RPCs of a service. Generated code has one subclass per service."""

    service: ClassVar[Service]

    @staticmethod
    def bindings(implementation: Any) -> tuple[MethodBinding, ...]:
        """Return one binding for each RPC of the service, in the order of the proto.

        Args:
            implementation: An instance of a class that implements the service's generated base.
        """
        raise NotImplementedError
