# mypy: ignore-errors
"""Classes that fit, with annotations that are evaluated: decorators, inheritance, and the forms of `typing`."""

import asyncio
import dataclasses
import functools
import types
import typing
from abc import ABC, abstractmethod
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Generator, Iterable, Iterator
from typing import Annotated, Any, ClassVar, Generic, NewType, Protocol, Self, TypeVar
from unittest import mock

import typing_extensions
import wrapt
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.message import Message
from typing_extensions import ParamSpec, TypeAliasType

from tests.contract.greet_code import GREET, UNARY, Downloader, Greeter, Talker, Uploader, make_base
from tests.contract.greet_code import HelloReply as Reply
from tests.contract.greet_code import HelloRequest as Request
from tests.contract.right_classes import Async
from tests.contract.tables import right

P = ParamSpec("P")
T = TypeVar("T")
AnyReply = TypeVar("AnyReply", bound=Reply)


# -- decorators -------------------------------------------------------------------------------


def preserving(function: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
    @functools.wraps(function)
    async def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
        return await function(*args, **kwargs)

    return wrapper


def with_session(function):
    @functools.wraps(function)
    async def wrapper(self, request):
        return await function(self, request, "session")

    return wrapper


def with_session_and_more(function):
    @functools.wraps(function)
    async def wrapper(self, request, **kwargs):
        return await function(self, request, "session", **kwargs)

    return wrapper


def of_text(function):
    @functools.wraps(function)
    async def wrapper(self, request):
        return Reply(text=await function(self, request.name))

    return wrapper


def returning(function):
    @functools.wraps(function)
    async def wrapper(*args, **kwargs):
        await asyncio.sleep(0)
        return function(*args, **kwargs)

    return wrapper


@wrapt.decorator
def traced(wrapped, instance, args, kwargs):
    return wrapped(*args, **kwargs)


class Retried:
    def __init__(self, function):
        functools.update_wrapper(self, function)
        self.function = function

    def __call__(self, *args, **kwargs):
        return self.function(*args, **kwargs)

    def __get__(self, instance, owner=None):
        return self if instance is None else types.MethodType(self, instance)


class Given:
    def __get__(self, instance, owner):
        return lambda request: Reply()


@right
class Preserved(Greeter):
    @preserving
    async def SayHello(self, request: Request, grpc_context: Any) -> Reply: ...


@right
class GivenASession(Greeter):
    @with_session
    async def SayHello(self, request: Request, session: str) -> Reply: ...


@right
class GivenASessionAndTheContext(Greeter):
    @preserving
    @with_session_and_more
    async def SayHello(self, request: Request, session: str, grpc_context: Any) -> Reply: ...


@right
class TakesAndReturnsText(Greeter):
    @of_text
    async def SayHello(self, name: str) -> str: ...


@right
class Traced(Greeter):
    @traced
    async def SayHello(self, request: Request, grpc_context: Any) -> Reply: ...


@right
class RetriedByAnObject(Greeter):
    @Retried
    async def SayHello(self, request: Request, grpc_context: Any) -> Reply: ...


@right
class GivenByADescriptor(Greeter):
    SayHello = Given()


@right
class Dispatched(Greeter):
    @functools.singledispatchmethod
    async def SayHello(self, request: Message) -> Reply: ...


@right
class Marked(Greeter):
    @typing.final
    @typing_extensions.override
    @typing_extensions.deprecated("say something else")
    async def SayHello(self, request: Request) -> Reply: ...


@right
class Overloaded(Greeter):
    @typing.overload
    def SayHello(self, request: Request) -> Reply: ...
    @typing.overload
    def SayHello(self, request: int) -> int: ...
    def SayHello(self, request: Any) -> Any: ...


@right
class PartialOfKeyword(Greeter):
    async def _hello(self, request: Request, *, greeting: str) -> Reply: ...

    SayHello = functools.partialmethod(_hello, greeting="Hello")


@right
class PartialOfClassMethod(Greeter):
    @classmethod
    async def _hello(cls, greeting: str, request: Request) -> Reply: ...

    SayHello = functools.partialmethod(_hello, "Hello")


@right
class BarePartial(Greeter):
    SayHello = functools.partial(lambda greeting, request: None, "Hello")


@right
class Mocked(Greeter):
    SayHello = mock.AsyncMock()


@right
class StreamReturnedByACoroutine(Downloader):
    @returning
    async def Down(self, request: Request) -> AsyncIterator[Reply]:
        yield Reply()


@right
class AwaitsAMethod(Greeter):
    @preserving
    async def SayHello(self, request: Request) -> Reply: ...


@right
class CachedUpload(Uploader):
    @functools.cache  # noqa: B019  # a stream of requests has a hash
    def Up(self, requests: Iterator[Request]) -> Reply: ...


@right
class CachedPart(Greeter):
    @of_text
    @functools.cache  # noqa: B019  # it gets a str
    async def SayHello(self, name: str) -> str: ...


# -- inheritance --------------------------------------------------------------------------------


async def say_hello(self, request: Request) -> Reply: ...


@right
class Assigned(Greeter):
    SayHello = say_hello


@right
class AssignedLater(Greeter):
    pass


AssignedLater.SayHello = say_hello


@right
class Lambda(Greeter):
    SayHello = lambda self, request: Reply()  # noqa: E731  # this form is tested


@right
class ClassVariable(Greeter):
    SayHello: ClassVar[Callable[..., Any]] = staticmethod(lambda request: Reply())


class Abstract(Greeter, ABC):
    @abstractmethod
    async def SayHello(self, request: Request) -> Reply: ...


@right
class OfAnAbstractClass(Abstract):
    async def SayHello(self, request: Request) -> Reply:
        return await super().SayHello(request)


class CanGreet(Protocol):
    async def SayHello(self, request: Request) -> Reply: ...


@right
class OfAProtocol(CanGreet, Greeter):
    async def SayHello(self, request: Request) -> Reply: ...


class OfSomething(Greeter, Generic[T]):
    async def SayHello(self, request: Request) -> T: ...


@right
class OfAGenericClass(OfSomething[Reply]):
    pass


@right
@dataclasses.dataclass
class DataClass(Greeter):
    greeting: str = "Hello"

    async def SayHello(self, request: Request) -> Reply: ...


@right
class WithSlots(Greeter):
    __slots__ = ()

    async def SayHello(self, request: Request) -> Reply: ...


@right
class MadeByAFunction(types.new_class("Made", (Greeter,))):
    def SayHello(self, request: Request) -> Reply: ...


@right
class GrandChild(type("Between", (Async,), {})):
    async def SayHello(self, request: Request) -> Reply:
        return await super().SayHello(request)


@right
class TwoServicesAndAMixin(type("Mixin", (), {"Down": lambda self, request: iter(())}), Greeter, Downloader):
    async def SayHello(self, request: Request) -> Reply: ...


@right
class ServedTwice(Async, Greeter):
    pass


# -- parameters -------------------------------------------------------------------------------


@right
class StarArguments(Greeter):
    async def SayHello(self, *args: Any, **kwargs: Any) -> Reply: ...


@right
class TypedStarArguments(Greeter):
    async def SayHello(self, *requests: Request) -> Reply: ...


@right
class ContextAmongKeywords(Greeter):
    async def SayHello(self, request, **grpc_context): ...


@right
class Defaults(Greeter):
    async def SayHello(self, request: Request | None = None, more: int = 3, *, grpc_context: Any = None) -> Reply: ...


@right
class TypedSelf(Greeter):
    async def SayHello(self: Self, request: Request) -> Reply: ...


# -- annotations ------------------------------------------------------------------------------

_pool = descriptor_pool.DescriptorPool()
_file = FileDescriptorProto()
GREET.CopyToProto(_file)
_pool.Add(_file)
ReplyOfAnotherModule = message_factory.GetMessageClass(_pool.FindMessageTypeByName("checks.greet.HelloReply"))


@right
class GeneratedTwice(Greeter):
    async def SayHello(self, request: Request) -> ReplyOfAnotherModule: ...


@right
class Futures(make_base("Futures", ("One", UNARY), ("Two", UNARY))):
    def One(self, request: Request) -> "asyncio.Future[Reply]": ...

    def Two(self, request: Request) -> asyncio.Task[Reply]: ...


@right
class AliasTypes(Greeter):
    async def SayHello(self, request: TypeAliasType("Request_", Request)) -> NewType("Reply_", Reply): ...


@right
class BoundTypeVar(Greeter):
    async def SayHello(self, request: Request) -> AnyReply: ...


@right
class QuotedParts(Downloader):
    def Down(self, request: "Request") -> typing.Iterator["Reply"]:
        yield Reply()


@right
class AnnotatedItems(Downloader):
    async def Down(self, request: Request) -> AsyncIterator[Annotated[Reply, "one of many"]]:
        yield Reply()


@right
class IterableResponses(Downloader):
    def Down(self, request: Request) -> Iterable[Reply]:
        yield Reply()


@right
class AsyncIterableResponses(Downloader):
    async def Down(self, request: Request) -> AsyncIterable[Reply]:
        yield Reply()


@right
class AwaitsItsStream(Downloader):
    def Down(self, request: Request) -> Awaitable[AsyncIterator[Reply]]: ...


@right
class StreamsOrRaises(Downloader):
    def Down(self, request: Request) -> Generator[Reply, None, None]: ...


@right
class EitherKindOfRequests(Uploader):
    async def Up(self, requests: AsyncIterator[Request] | Iterator[Request]) -> Reply: ...


@right
class AnyRequests(Talker):
    async def Both(self, requests: Any, grpc_context: Any) -> AsyncIterator[Any]:
        yield Reply()
