# mypy: ignore-errors
"""Classes that fit, with annotations that are strings."""

from __future__ import annotations

import functools
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Coroutine,
    Generator,
    Iterator,
    Sequence,
)
from typing import TYPE_CHECKING, Annotated, Any, NewType, NoReturn, Optional, TypeAlias, TypeVar, Union

from google.protobuf.message import Message
from typing_extensions import TypeAliasType

from sdk.service import RequestStream, ResponseStream
from tests.contract import greet_code
from tests.contract.greet_code import DOWN, UNARY, Downloader, Greeter, Inner, OtherReply, Talker, Uploader, make_base
from tests.contract.greet_code import HelloReply as Reply
from tests.contract.greet_code import HelloRequest as Request
from tests.contract.tables import right

if TYPE_CHECKING:
    from collections.abc import AsyncIterator as Stream

    import ray.serve.grpc_util as ray_util
    from ray.serve.grpc_util import gRPCInputStream
    from ray.serve.grpc_util import gRPCInputStream as Inputs

    from tests.contract.greet_code import HelloReply, HelloRequest
    from tests.contract.greet_code import HelloReply as Answer
    from tests.contract.greet_code import HelloRequest as Question

    Answers = Stream[Answer]
    OneAnswer: TypeAlias = "Answer"

Alias = Union[Reply, Awaitable[Reply]]  # noqa: UP007  # the other spelling of a union
NamedAlias = TypeAliasType("NamedAlias", Reply)
New = NewType("New", Reply)
AnyMessage = TypeVar("AnyMessage", bound=Message)
Unbound = TypeVar("Unbound")


@right
class Async(Greeter):
    async def SayHello(self, request: Request) -> Reply: ...


@right
class Sync(Greeter):
    def SayHello(self, user_message: Request, grpc_context: Any) -> Reply: ...


@right
class Unannotated(Greeter):
    def SayHello(self, request): ...


@right
class ByKeyword(Greeter):
    async def SayHello(self, request: Request, *, grpc_context: Any, verbose: bool = False) -> Reply: ...


@right
class PositionalOnly(Greeter):
    def SayHello(self, request: Request, /, *args: Any, **kwargs: Any) -> Reply | Awaitable[Reply]: ...


@right
class TypeCheckingOnly(Greeter):
    async def SayHello(self, request: HelloRequest) -> HelloReply: ...


@right
class RenamedForTypeCheckers(Greeter):
    async def SayHello(self, request: Question) -> Answer: ...


@right
class AliasForTypeCheckers(Greeter):
    def SayHello(self, request: Question | None) -> OneAnswer | Awaitable[OneAnswer]: ...


@right
class StreamAliasForTypeCheckers(Downloader):
    async def Down(self, request: Question) -> Answers:
        yield Reply()


@right
class RenamedRayRequests(Uploader):
    async def Up(self, requests: Inputs[Question]) -> Answer: ...


@right
class UnknownContext(Greeter):
    async def SayHello(self, request: Request, /, grpc_context: gRPCContext) -> Reply: ...  # noqa: F821


@right
class ThroughModule(Greeter):
    async def SayHello(self, request: greet_code.HelloRequest) -> greet_code.HelloReply: ...


@right
class BaseClasses(Greeter):
    async def SayHello(self, request: Message) -> Message: ...


@right
class Objects(Greeter):
    async def SayHello(self, request: object) -> Any: ...


@right
class Wrapped(Greeter):
    async def SayHello(self, request: Annotated[Optional[Request], "x"]) -> Annotated[Reply, "y"]: ...  # noqa: UP045


@right
class Unions(Greeter):
    async def SayHello(self, request: int | Request | None) -> Union[Reply, NoReturn]: ...  # noqa: RUF020, UP007


@right
class Aliases(Greeter):
    def SayHello(self, request: Request) -> Alias: ...


@right
class NamedAliases(Greeter):
    def SayHello(self, request: Request) -> NamedAlias | New: ...


@right
class TypeVars(Greeter):
    def SayHello(self, request: AnyMessage) -> Unbound: ...


@right
class ReturnsAwaitable(Greeter):
    def SayHello(self, request: Request) -> Coroutine[Any, Any, Reply]: ...


@right
class AlwaysRaises(Greeter):
    async def SayHello(self, request: Request) -> NoReturn: ...


@right
class Static(Greeter):
    @staticmethod
    async def SayHello(request: Request, grpc_context: Any) -> Reply: ...


@right
class OfTheClass(Greeter):
    @classmethod
    def SayHello(cls, request: Request) -> Reply: ...


@right
class PartialMethod(Greeter):
    async def _hello(self, greeting: str, request: Request) -> Reply: ...

    SayHello = functools.partialmethod(_hello, "Hello")


@right
class Partial(Greeter):
    SayHello = staticmethod(functools.partial(lambda greeting, request: None, "Hello"))


def logged(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)

    return wrapper


def bare(function):
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)

    return wrapper


@right
class Decorated(Greeter):
    @logged
    async def SayHello(self, request: Request, grpc_context: Any) -> Reply: ...


@right
class DecoratedWithoutWraps(Greeter):
    @bare
    async def SayHello(self, request: Reply) -> Request: ...


class Mixin:
    async def SayHello(self, request: Request) -> Reply: ...


@right
class FromMixin(Mixin, Greeter):
    pass


@right
class Child(Async):
    pass


@right
class WithHelpers(Greeter):
    tokens: int = 3

    async def SayHello(self, request: Request) -> Reply: ...

    def SayHelloTwice(self, one: int, two: int) -> None: ...


@right
class Agreeing(make_base("C", ("Get", UNARY)), make_base("D", ("Get", UNARY))):
    async def Get(self, request: Request) -> Reply: ...


@right
class CallIsAllowed(make_base("Callable", ("__call__", UNARY))):
    async def __call__(self, request: Request) -> Reply: ...


@right
class RpcNamedLikeMessage(make_base("Named", ("Request", UNARY), ("Reply", UNARY, Request, OtherReply))):
    async def Request(self, request: Request) -> Reply: ...

    async def Reply(self, request: Request) -> OtherReply: ...


@right
class AsyncStream(Downloader):
    async def Down(self, request: Request) -> AsyncIterator[Reply]:
        yield Reply()


@right
class SyncStream(Downloader):
    def Down(self, request: Request) -> Generator[Reply, None, None]:
        yield Reply()


@right
class AsyncGeneratorStream(Downloader):
    @logged
    async def Down(self, request: Request) -> AsyncGenerator[Reply, None]:
        yield Reply()


@right
class Writes(Downloader):
    async def Down(self, request: Request, grpc_context: Any) -> None: ...


@right
class WritesLater(Downloader):
    def Down(self, request: Request, grpc_context: Any) -> Awaitable[None]: ...


@right
class ReturnsAnyStream(Downloader):
    def Down(self, request: Request) -> ResponseStream[Reply]: ...


@right
class ReturnsAList(Downloader):
    def Down(self, request: Request) -> list[Reply]: ...


@right
class ReturnsASequenceLater(Downloader):
    async def Down(self, request: Request) -> Sequence[Reply] | tuple[Reply, ...]: ...


@right
class ReturnsStream(Downloader):
    def Down(self, request: Request) -> Iterator[Reply] | AsyncIterator[Reply]: ...


@right
class AwaitedStream(Downloader):
    async def Down(self, request: Request) -> AsyncIterator[Reply]: ...


@right
class StreamOfUnknownNames(Downloader):
    async def Down(self, request: HelloRequest) -> Stream[HelloReply]:
        yield Reply()


@right
class NestedStream(make_base("NestedStream", ("Down", DOWN, Request, Inner))):
    async def Down(self, request: Request) -> AsyncIterator[greet_code.Inner]:
        yield Inner()


@right
class AsyncRequests(Uploader):
    async def Up(self, requests: AsyncIterator[Request]) -> Reply: ...


@right
class IterableRequests(Uploader):
    async def Up(self, requests: AsyncIterable[HelloRequest]) -> Reply: ...


@right
class SyncRequests(Uploader):
    def Up(self, requests: Iterator[Request]) -> Reply: ...


@right
class EitherRequests(Uploader):
    async def Up(self, requests: RequestStream[Request], grpc_context: Any) -> Reply: ...


@right
class RayRequests(Uploader):
    async def Up(self, requests: gRPCInputStream) -> Reply: ...


@right
class RayRequestsOfMessages(Uploader):
    async def Up(self, requests: ray_util.gRPCInputStream[HelloRequest]) -> Reply: ...


@right
class BareRequests(Uploader):
    async def Up(self, requests: AsyncIterator) -> Reply: ...


@right
class BothStreams(Talker):
    async def Both(self, requests: AsyncIterator[Request], grpc_context: Any) -> AsyncIterator[Reply]:
        yield Reply()


@right
class HandsOn(Talker):
    def Both(self, requests: AsyncIterator[Request]) -> AsyncIterator[Reply]: ...


@right
class AllServices(Greeter, Downloader, Uploader, Talker):
    async def SayHello(self, request: Request) -> Reply: ...

    def Down(self, request: Request) -> Iterator[Reply]:
        yield Reply()

    def Up(self, requests: RequestStream[Request]) -> Reply: ...

    def Both(self, requests: RequestStream[Request]) -> Iterator[Reply]:
        yield Reply()
