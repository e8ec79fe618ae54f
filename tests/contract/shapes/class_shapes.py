# Parameters without annotation are shapes too, and some decorators of these tests have no types.
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators, allow-any-generics
# ruff: noqa
"""Class shapes: the rows of the table in `docs/reference/checks.md`.

Each class with a docstring is a row, under the heading in the comment above it. The docstring's second paragraph says why
the type checkers, `sdk check` and the real call differ. Handlers answer with the text of the request.
"""

import asyncio
import contextlib
import dataclasses
import functools
import inspect
import itertools
from abc import ABC, abstractmethod
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Coroutine,
    Generator,
    Iterable,
    Iterator,
    Sequence,
)
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Concatenate,
    Generic,
    Literal,
    NewType,
    NoReturn,
    Optional,
    ParamSpec,
    Protocol,
    TypeAlias,
    TypeVar,
    Union,
    no_type_check,
    overload,
)

import grpc.aio
import typing_extensions
from google.protobuf.message import Message
from shapes_pb2 import Ask, Reply
from shapes_pb2_grpc import OneServicer
from shapes_sdk import ChatterBase, ListerBase, OneBase, PutterBase

from sdk.context import ServicerContext
from sdk.service import RequestStream, ResponseStream

if TYPE_CHECKING:
    from shapes_pb2 import Reply as Answer

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")
AnyReply = TypeVar("AnyReply", bound=Message)
AnyAsk = TypeVar("AnyAsk", Ask, Reply)
ReplyAlias: TypeAlias = Reply
Replies: TypeAlias = "AsyncIterator[Reply]"
NewReply = NewType("NewReply", Reply)


def answer(*requests: Any) -> Reply:
    return Reply(text="".join(request.text for request in requests))


# == One request, one response


class AsyncUnary(OneBase):
    """`async def Get(self, request: Ask) -> Reply`"""

    async def Get(self, request: Ask) -> Reply:
        return answer(request)


class SyncUnary(OneBase):
    """`def Get(self, request: Ask) -> Reply`"""

    def Get(self, request: Ask) -> Reply:
        return answer(request)


class Unannotated(OneBase):
    """`async def Get(self, request)`"""

    async def Get(self, request):
        return answer(request)


class ReturnsCoroutine(OneBase):
    """`def Get(…) -> Coroutine[Any, Any, Reply]`"""

    def Get(self, request: Ask) -> Coroutine[Any, Any, Reply]:
        return self._get(request)

    async def _get(self, request: Ask) -> Reply:
        return answer(request)


class EitherReplyOrAwaitable(OneBase):
    """`def Get(…) -> Reply | Awaitable[Reply]`"""

    def Get(self, request: Ask) -> Reply | Awaitable[Reply]:
        return answer(request)


class AsyncReturnsAwaitable(OneBase):
    """`async def Get(…) -> Awaitable[Reply]`"""

    async def Get(self, request: Ask) -> Awaitable[Reply]:
        later = asyncio.get_running_loop().create_future()
        later.set_result(answer(request))
        return later


class AnotherRequest(OneBase):
    """`Get(self, request: Reply)`

    What is passed does not depend on annotations. Pyright does not compare the parameters of an override with those of the base."""

    async def Get(self, request: Reply) -> Reply:
        return answer(request)


class AnotherResponse(OneBase):
    """`Get(…) -> Ask`"""

    async def Get(self, request: Ask) -> Ask:
        return request


class AnyBoth(OneBase):
    """`Get(self, request: Any) -> Any`"""

    async def Get(self, request: Any) -> Any:
        return answer(request)


class BaseRequest(OneBase):
    """`Get(self, request: Message) -> Reply`"""

    async def Get(self, request: Message) -> Reply:
        return answer(request)


class BaseResponse(OneBase):
    """`Get(…) -> Message`

    A base of the message says too little to a type checker."""

    async def Get(self, request: Ask) -> Message:
        return answer(request)


class ObjectRequest(OneBase):
    """`Get(self, request: object) -> Reply`"""

    async def Get(self, request: object) -> Reply:
        return answer(request)


class OptionalRequest(OneBase):
    """`Get(self, request: Ask | None) -> Reply`"""

    async def Get(self, request: Ask | None) -> Reply:
        return answer(request)


class OptionalResponse(OneBase):
    """`Get(…) -> Reply | None`

    A call fails only if it returns None."""

    async def Get(self, request: Ask) -> Optional[Reply]:
        return answer(request)


class NoneResponse(OneBase):
    """`Get(…) -> None`"""

    async def Get(self, request: Ask) -> None:
        return None


class NeverReturns(OneBase):
    """`Get(…) -> NoReturn`

    It always raises."""

    async def Get(self, request: Ask) -> NoReturn:
        raise ValueError("always")


class UnionRequest(OneBase):
    """`Get(self, request: Union[Ask, Reply]) -> Reply`"""

    async def Get(self, request: Union[Ask, Reply]) -> Reply:
        return answer(request)


class UnionResponse(OneBase):
    """`Get(…) -> Reply | Ask`

    A call fails only if it returns the other message."""

    async def Get(self, request: Ask) -> Reply | Ask:
        return answer(request)


class AnnotatedBoth(OneBase):
    """`Get(self, request: Annotated[Ask, …]) -> Annotated[Reply, …]`"""

    async def Get(self, request: Annotated[Ask, "of a client"]) -> Annotated[Reply, "to a client"]:
        return answer(request)


class Quoted(OneBase):
    """`Get(self, request: "Ask") -> "Reply"`"""

    async def Get(self, request: "Ask") -> "Reply":
        return answer(request)


class QuotedForTypeCheckers(OneBase):
    """`Get(…) -> "Answer"`, imported under `if TYPE_CHECKING:`"""

    async def Get(self, request: Ask) -> "Answer":
        return answer(request)


class QuotedFurtherDown(OneBase):
    """`Get(…) -> "Later"`, which the module binds below the class"""

    async def Get(self, request: Ask) -> "Later":
        return answer(request)


class OfAnAlias(OneBase):
    """`Get(…) -> ReplyAlias`, a `TypeAlias`"""

    async def Get(self, request: Ask) -> ReplyAlias:
        return answer(request)


class OfANewType(OneBase):
    """`Get(…) -> NewReply`, a `NewType`"""

    async def Get(self, request: Ask) -> NewReply:
        return NewReply(answer(request))


class OfATypeVar(OneBase):
    """`Get(self, request: AnyAsk) -> Reply`, a `TypeVar` with constraints"""

    async def Get(self, request: AnyAsk) -> Reply:
        return answer(request)


class OfAProtocolRequest(OneBase):
    """`Get(self, request: HasText) -> Reply`, a `Protocol`"""

    async def Get(self, request: "HasText") -> Reply:
        return answer(request)


class HasText(Protocol):
    @property
    def text(self) -> str: ...


class StreamForOne(OneBase):
    """`Get(…) -> AsyncIterator[Reply]` with `yield`"""

    async def Get(self, request: Ask) -> AsyncIterator[Reply]:
        yield answer(request)


class ListForOne(OneBase):
    """`Get(…) -> list[Reply]`"""

    async def Get(self, request: Ask) -> list[Reply]:
        return [answer(request)]


class StreamOfRequestsForOne(OneBase):
    """`Get(self, requests: AsyncIterator[Ask])`

    Pyright does not compare the parameters of an override with those of the base."""

    async def Get(self, requests: AsyncIterator[Ask]) -> Reply:
        return answer([request async for request in requests][0])


class OfALiteral(OneBase):
    """`Get(…) -> Literal["x"]`"""

    async def Get(self, request: Ask) -> Literal["x"]:
        return "x"


class OfAFunction(OneBase):
    """`Get(…) -> any`, the function

    It serves, but the annotation is wrong."""

    async def Get(self, request: Ask) -> any:  # type: ignore[valid-type]  # pyright: ignore
        return answer(request)


class OfAListDisplay(OneBase):
    """`Get(…) -> [Reply]`

    It serves, but the annotation is wrong."""

    async def Get(self, request: Ask) -> [Reply]:
        return answer(request)


class OfAMissingName(OneBase):
    """`Get(…) -> "Repli"`, a name that does not exist

    It serves, but the annotation is wrong."""

    async def Get(self, request: Ask) -> "Repli":
        return answer(request)


class OfAClass(OneBase):
    """`Get(…) -> type[Reply]`"""

    async def Get(self, request: Ask) -> type[Reply]:
        return Reply


class WithoutTypeCheck(OneBase):
    """`@typing.no_type_check`, with annotations that are not types"""

    @no_type_check
    async def Get(self, request: "Nothing") -> "Nowhere":
        return answer(request)


class Overloads(OneBase):
    """`@typing.overload`, with a definition that takes both"""

    @overload
    async def Get(self, request: Ask) -> Reply: ...
    @overload
    async def Get(self, request: Reply) -> Reply: ...
    async def Get(self, request: Ask | Reply) -> Reply:
        return answer(request)


class TaskOfAThread(OneBase):
    """`def Get(…) -> asyncio.Task[Reply]`, made by the function

    It runs in a thread, where no event loop runs."""

    async def _get(self, request: Ask) -> Reply:
        return answer(request)

    def Get(self, request: Ask) -> asyncio.Task[Reply]:
        later = self._get(request)
        try:
            return asyncio.create_task(later)
        except RuntimeError:
            later.close()
            raise


# == Parameters


class OtherName(OneBase):
    """`Get(self, message: Ask)`"""

    async def Get(self, message: Ask) -> Reply:
        return answer(message)


class WithContext(OneBase):
    """`Get(self, request, grpc_context)`"""

    async def Get(self, request: Ask, grpc_context: ServicerContext) -> Reply:
        return answer(request)


class WithAioContext(OneBase):
    """`Get(self, request, grpc_context: grpc.aio.ServicerContext[Ask, Reply])`"""

    async def Get(self, request: Ask, grpc_context: "grpc.aio.ServicerContext[Ask, Reply]") -> Reply:
        return answer(request)


class ContextByKeyword(OneBase):
    """`Get(self, request, *, grpc_context=None)`"""

    async def Get(self, request: Ask, *, grpc_context: Any = None) -> Reply:
        return answer(request)


class ContextFirst(OneBase):
    """`Get(self, grpc_context, request)`

    Type checkers see the request in the place of `grpc_context`."""

    async def Get(self, grpc_context: Any, request: Ask) -> Reply:
        return answer(request)


class ContextOfAnotherName(OneBase):
    """`Get(self, request, context)`

    The base allows type checkers any more parameters, because `grpc_context` is optional."""

    async def Get(self, request: Ask, context: Any) -> Reply:
        return answer(request)


class ExtraParameter(OneBase):
    """`Get(self, request, verbose)`

    The base allows type checkers any more parameters, because `grpc_context` is optional."""

    async def Get(self, request: Ask, verbose: bool) -> Reply:
        return answer(request)


class DefaultParameter(OneBase):
    """`Get(self, request, verbose=False)`"""

    async def Get(self, request: Ask, verbose: bool = False) -> Reply:
        return answer(request)


class KeywordWithoutDefault(OneBase):
    """`Get(self, request, *, verbose)`

    The base allows type checkers any more parameters, because `grpc_context` is optional."""

    async def Get(self, request: Ask, *, verbose: bool) -> Reply:
        return answer(request)


class RequestWithDefault(OneBase):
    """`Get(self, request=None)`"""

    async def Get(self, request: Ask | None = None) -> Reply:
        return answer(request)


class PositionalOnly(OneBase):
    """`Get(self, request, /)`"""

    async def Get(self, request: Ask, /) -> Reply:
        return answer(request)


class PositionalContext(OneBase):
    """`Get(self, request, grpc_context, /)`

    The base allows type checkers any more parameters, because `grpc_context` is optional."""

    async def Get(self, request: Ask, grpc_context: Any, /) -> Reply:
        return answer(request)


class KeywordRequest(OneBase):
    """`Get(self, *, request)`

    Pyright does not compare the parameters of an override with those of the base."""

    async def Get(self, *, request: Ask) -> Reply:
        return answer(request)


class NoRequest(OneBase):
    """`Get(self)`

    Pyright does not compare the parameters of an override with those of the base."""

    async def Get(self) -> Reply:
        return Reply()


class SelfForgotten(OneBase):
    """`Get(request)` without `self`

    Pyright does not compare the parameters of an override with those of the base."""

    async def Get(request) -> Reply:  # pyright: ignore[reportSelfClsParameterName]
        return answer(request)


class StarArguments(OneBase):
    """`Get(self, *args, **kwargs)`"""

    async def Get(self, *args: Any, **kwargs: Any) -> Reply:
        return answer(*args)


class StarKeywords(OneBase):
    """`Get(self, request, **kwargs)`"""

    async def Get(self, request: Ask, **kwargs: Any) -> Reply:
        return answer(request)


class OnlyKeywords(OneBase):
    """`Get(self, **kwargs)`

    Pyright does not compare the parameters of an override with those of the base."""

    async def Get(self, **kwargs: Any) -> Reply:
        return answer(*kwargs.values())


class AnyMoreOfRequest(OneBase):
    """`Get(self, *requests: Ask)`"""

    async def Get(self, *requests: Ask) -> Reply:
        return answer(*requests)


class ContextOfADefault(OneBase):
    """`Get(self, request, context=None)`"""

    def Get(self, request: Ask, context: Any = None) -> Reply:
        return answer(request)


class NoParameter(OneBase):
    """`def Get()`

    Pyright does not compare the parameters of an override with those of the base."""

    def Get() -> Reply:  # type: ignore[misc]  # pyright: ignore
        return answer()


# == Response streams


class AsyncGeneratorStream(ListerBase):
    """`async def List(…) -> AsyncIterator[Reply]` with `yield`"""

    async def List(self, request: Ask) -> AsyncIterator[Reply]:
        yield answer(request)
        yield answer(request)


class GeneratorStream(ListerBase):
    """`def List(…) -> Iterator[Reply]` with `yield`"""

    def List(self, request: Ask) -> Iterator[Reply]:
        yield answer(request)
        yield answer(request)


class AsyncGeneratorAnnotation(ListerBase):
    """`async def List(…) -> AsyncGenerator[Reply, None]` with `yield`"""

    async def List(self, request: Ask) -> AsyncGenerator[Reply, None]:
        yield answer(request)
        yield answer(request)


class GeneratorAnnotation(ListerBase):
    """`def List(…) -> Generator[Reply, None, None]` with `yield`"""

    def List(self, request: Ask) -> Generator[Reply, None, None]:
        yield answer(request)
        yield answer(request)


class AsyncIterableAnnotation(ListerBase):
    """`async def List(…) -> AsyncIterable[Reply]` with `yield`"""

    async def List(self, request: Ask) -> AsyncIterable[Reply]:
        yield answer(request)
        yield answer(request)


class IterableAnnotation(ListerBase):
    """`def List(…) -> Iterable[Reply]` with `yield`"""

    def List(self, request: Ask) -> Iterable[Reply]:
        yield answer(request)
        yield answer(request)


class QuotedStream(ListerBase):
    """`async def List(…) -> Replies` with `yield`, an alias of `"AsyncIterator[Reply]"`"""

    async def List(self, request: Ask) -> "Replies":
        yield answer(request)
        yield answer(request)


class UnannotatedStream(ListerBase):
    """`async def List(self, request)` with `yield`"""

    async def List(self, request):
        yield answer(request)
        yield answer(request)


class AsyncGeneratorOfIterator(ListerBase):
    """`async def List(…) -> Iterator[Reply]` with `yield`

    It serves, but the annotation is wrong."""

    async def List(self, request: Ask) -> Iterator[Reply]:
        yield answer(request)
        yield answer(request)


class GeneratorOfAList(ListerBase):
    """`def List(…) -> list[Reply]` with `yield`

    It serves, but the annotation is wrong."""

    def List(self, request: Ask) -> list[Reply]:
        yield answer(request)
        yield answer(request)


class ReturnsAList(ListerBase):
    """`def List(…) -> list[Reply]`"""

    def List(self, request: Ask) -> list[Reply]:
        return [answer(request)] * 2


class AsyncReturnsAList(ListerBase):
    """`async def List(…) -> list[Reply]`"""

    async def List(self, request: Ask) -> list[Reply]:
        return [answer(request)] * 2


class ReturnsASequence(ListerBase):
    """`def List(…) -> Sequence[Reply]`"""

    def List(self, request: Ask) -> Sequence[Reply]:
        return [answer(request)] * 2


class ReturnsATuple(ListerBase):
    """`async def List(…) -> tuple[Reply, ...]`"""

    async def List(self, request: Ask) -> tuple[Reply, ...]:
        return (answer(request),) * 2


class ReturnsAnIterable(ListerBase):
    """`def List(…) -> Iterable[Reply]`"""

    def List(self, request: Ask) -> Iterable[Reply]:
        return [answer(request)] * 2


class ReturnsAnIterator(ListerBase):
    """`async def List(…) -> Iterator[Reply]`"""

    async def List(self, request: Ask) -> Iterator[Reply]:
        return iter([answer(request)] * 2)


class ReturnsAnAsyncIterator(ListerBase):
    """`def List(…) -> AsyncIterator[Reply]`"""

    def List(self, request: Ask) -> AsyncIterator[Reply]:
        return stream_of(request)


class AwaitsAnAsyncIterator(ListerBase):
    """`async def List(…) -> AsyncIterator[Reply]` without `yield`"""

    async def List(self, request: Ask) -> AsyncIterator[Reply]:
        return stream_of(request)


class ReturnsAnAsyncIterable(ListerBase):
    """`def List(…) -> AsyncIterable[Reply]`, an object with `__aiter__` only"""

    def List(self, request: Ask) -> AsyncIterable[Reply]:
        return Page(request)


class ReturnsAClassOfItsOwn(ListerBase):
    """`async def List(…) -> Page`, a class with `__aiter__`"""

    async def List(self, request: Ask) -> "Page":
        return Page(request)


class ReturnsAResponseStream(ListerBase):
    """`def List(…) -> ResponseStream[Reply]`"""

    def List(self, request: Ask) -> ResponseStream[Reply]:
        return [answer(request)] * 2


class ReturnsEither(ListerBase):
    """`def List(…) -> Iterator[Reply] | AsyncIterator[Reply]`"""

    def List(self, request: Ask) -> Iterator[Reply] | AsyncIterator[Reply]:
        return stream_of(request)


class AwaitableOfAStream(ListerBase):
    """`def List(…) -> Awaitable[AsyncIterator[Reply]]`"""

    def List(self, request: Ask) -> Awaitable[AsyncIterator[Reply]]:
        async def later() -> AsyncIterator[Reply]:
            return stream_of(request)

        return later()


class OptionalStream(ListerBase):
    """`def List(…) -> Iterator[Reply] | None`

    A call fails only if it returns None."""

    def List(self, request: Ask) -> Iterator[Reply] | None:
        return iter([answer(request)] * 2)


class Writes(ListerBase):
    """`async def List(self, request, grpc_context) -> None` with `grpc_context.write`"""

    async def List(self, request: Ask, grpc_context: "grpc.aio.ServicerContext[Ask, Reply]") -> None:
        await grpc_context.write(answer(request))
        await grpc_context.write(answer(request))


class WritesLater(ListerBase):
    """`def List(self, request, grpc_context) -> Awaitable[None]` with `grpc_context.write`"""

    def List(self, request: Ask, grpc_context: "grpc.aio.ServicerContext[Ask, Reply]") -> Awaitable[None]:
        async def write() -> None:
            await grpc_context.write(answer(request))
            await grpc_context.write(answer(request))

        return write()


class WritesWithoutContext(ListerBase):
    """`async def List(self, request) -> None`

    Type checkers do not see that it lacks the context."""

    async def List(self, request: Ask) -> None:
        return None


class OneResponse(ListerBase):
    """`async def List(…) -> Reply`"""

    async def List(self, request: Ask) -> Reply:
        return answer(request)


class StreamOfAnother(ListerBase):
    """`async def List(…) -> AsyncIterator[Ask]` with `yield`"""

    async def List(self, request: Ask) -> AsyncIterator[Ask]:
        yield request


class StreamOfAny(ListerBase):
    """`async def List(…) -> AsyncIterator[Any]` with `yield`"""

    async def List(self, request: Ask) -> AsyncIterator[Any]:
        yield answer(request)
        yield answer(request)


class StreamOfOptional(ListerBase):
    """`def List(…) -> Iterator[Reply | None]` with `yield`

    A call fails only if it yields None."""

    def List(self, request: Ask) -> Iterator[Reply | None]:
        yield answer(request)
        yield answer(request)


class ReturnsADict(ListerBase):
    """`def List(…) -> dict[str, Reply]`"""

    def List(self, request: Ask) -> dict[str, Reply]:
        return {"a": answer(request)}


class ReturnsText(ListerBase):
    """`def List(…) -> str`"""

    def List(self, request: Ask) -> str:
        return request.text


async def stream_of(request: Ask) -> AsyncIterator[Reply]:
    yield answer(request)
    yield answer(request)


class Page:
    def __init__(self, request: Ask) -> None:
        self.request = request

    def __aiter__(self) -> AsyncIterator[Reply]:
        return stream_of(self.request)


class ReturnsAMap(ListerBase):
    """`def List(…) -> "map[Reply]"`"""

    def List(self, request: Ask) -> "map[Reply]":
        return map(answer, [request, request])


class ReturnsAChain(ListerBase):
    """`def List(…) -> "itertools.chain[Reply]"`"""

    def List(self, request: Ask) -> "itertools.chain[Reply]":
        return itertools.chain([answer(request)], [answer(request)])


class ReturnsPagesOfAnother(ListerBase):
    """`def List(…) -> Pages[Ask]`, a generic class with `__iter__`

    The meaning of the type parameters of a class is known to type checkers only."""

    def List(self, request: Ask) -> "Pages[Ask]":
        return Pages([request, request])


class ReturnsATupleWithAnother(ListerBase):
    """`def List(…) -> tuple[Reply, Ask]`"""

    def List(self, request: Ask) -> tuple[Reply, Ask]:
        return answer(request), request


class AwaitableOfAList(ListerBase):
    """`def List(…) -> Awaitable[list[Reply]]`"""

    async def _list(self, request: Ask) -> list[Reply]:
        return [answer(request), answer(request)]

    def List(self, request: Ask) -> Awaitable[list[Reply]]:
        return self._list(request)


class StreamOfLists(ListerBase):
    """`async def List(…) -> AsyncIterator[list[Reply]]` with `yield`"""

    async def List(self, request: Ask) -> AsyncIterator[list[Reply]]:
        yield [answer(request)]


class StreamOfAwaitables(ListerBase):
    """`def List(…) -> Iterator[Awaitable[Reply]]` with `yield`"""

    class Later:
        def __await__(self) -> Generator[None, None, Reply]:
            raise NotImplementedError

    def List(self, request: Ask) -> Iterator[Awaitable[Reply]]:
        yield self.Later()


class SyncWriter(ListerBase):
    """`def List(self, request, grpc_context) -> None`"""

    def List(self, request: Ask, grpc_context: ServicerContext) -> None:
        return None


class Pages(Generic[AnyReply]):
    def __init__(self, items: Sequence[AnyReply]) -> None:
        self.items = items

    def __iter__(self) -> Iterator[AnyReply]:
        return iter(self.items)


# == Request streams


class AsyncRequests(PutterBase):
    """`async def Put(self, requests: AsyncIterator[Ask])`"""

    async def Put(self, requests: AsyncIterator[Ask]) -> Reply:
        return answer(*[request async for request in requests])


class SyncRequests(PutterBase):
    """`def Put(self, requests: Iterator[Ask])`"""

    def Put(self, requests: Iterator[Ask]) -> Reply:
        return answer(*requests)


class AsyncIterableRequests(PutterBase):
    """`async def Put(self, requests: AsyncIterable[Ask])`"""

    async def Put(self, requests: AsyncIterable[Ask]) -> Reply:
        return answer(*[request async for request in requests])


class IterableRequests(PutterBase):
    """`def Put(self, requests: Iterable[Ask])`"""

    def Put(self, requests: Iterable[Ask]) -> Reply:
        return answer(*requests)


class AsyncRequestStream(PutterBase):
    """`async def Put(self, requests: RequestStream[Ask])`"""

    async def Put(self, requests: RequestStream[Ask]) -> Reply:
        return answer(*[request async for request in requests])


class SyncRequestStream(PutterBase):
    """`def Put(self, requests: RequestStream[Ask])`"""

    def Put(self, requests: RequestStream[Ask]) -> Reply:
        return answer(*requests)


class AnyRequests(PutterBase):
    """`async def Put(self, requests: Any)`"""

    async def Put(self, requests: Any) -> Reply:
        return answer(*[request async for request in requests])


class ProtocolRequests(PutterBase):
    """`async def Put(self, requests: CanIterate)`, a `Protocol` with `__aiter__`"""

    async def Put(self, requests: "CanIterate") -> Reply:
        return answer(*[request async for request in requests])


class CanIterate(Protocol):
    def __aiter__(self) -> AsyncIterator[Ask]: ...


class AsyncOverIterator(PutterBase):
    """`async def Put(self, requests: Iterator[Ask])`

    Both kinds of handlers have one base, so type checkers do not see that `for` would block the event loop."""

    async def Put(self, requests: Iterator[Ask]) -> Reply:
        return answer(*[request async for request in requests])  # type: ignore[attr-defined]  # pyright: ignore


class OneRequest(PutterBase):
    """`async def Put(self, request: Ask)`

    Pyright does not compare the parameters of an override with those of the base."""

    async def Put(self, request: Ask) -> Reply:
        return answer(request)


class ListOfRequests(PutterBase):
    """`def Put(self, requests: list[Ask])`

    Pyright does not compare the parameters of an override with those of the base."""

    def Put(self, requests: list[Ask]) -> Reply:
        return answer(*requests[:])


class GeneratorOfRequests(PutterBase):
    """`async def Put(self, requests: AsyncGenerator[Ask, None])`

    Pyright does not compare the parameters of an override with those of the base."""

    async def Put(self, requests: AsyncGenerator[Ask, None]) -> Reply:
        found = [request async for request in requests]
        await requests.aclose()
        return answer(*found)


class RequestsOfAnother(PutterBase):
    """`def Put(self, requests: Iterator[Reply])`

    What is passed does not depend on annotations. Pyright does not compare the parameters of an override with those of the base."""

    def Put(self, requests: Iterator[Reply]) -> Reply:
        return answer(*requests)


class AsyncChat(ChatterBase):
    """`async def Chat(self, requests: AsyncIterator[Ask]) -> AsyncIterator[Reply]` with `yield`"""

    async def Chat(self, requests: AsyncIterator[Ask]) -> AsyncIterator[Reply]:
        async for request in requests:
            yield answer(request)


class SyncChat(ChatterBase):
    """`def Chat(self, requests: Iterator[Ask]) -> Iterator[Reply]` with `yield`"""

    def Chat(self, requests: Iterator[Ask]) -> Iterator[Reply]:
        for request in requests:
            yield answer(request)


class MappedChat(ChatterBase):
    """`def Chat(self, requests: Iterator[Ask]) -> Iterable[Reply]`, a `map`"""

    def Chat(self, requests: Iterator[Ask]) -> Iterable[Reply]:
        return map(answer, requests)


class HandsOn(ChatterBase):
    """`def Chat(self, requests: AsyncIterator[Ask]) -> AsyncIterator[Reply]`, an async generator of another function"""

    def Chat(self, requests: AsyncIterator[Ask]) -> AsyncIterator[Reply]:
        return self._chat(requests)

    async def _chat(self, requests: AsyncIterator[Ask]) -> AsyncIterator[Reply]:
        async for request in requests:
            yield answer(request)


class GeneratorOverAsyncIterator(ChatterBase):
    """`def Chat(self, requests: AsyncIterator[Ask]) -> Iterator[Reply]` with `yield`

    The base allows both kinds of iterators, so type checkers do not see that the generator itself runs in a thread."""

    def Chat(self, requests: AsyncIterator[Ask]) -> Iterator[Reply]:
        for request in requests:  # type: ignore[attr-defined]  # pyright: ignore
            yield answer(request)


class ForInACoroutine(PutterBase):
    """`async def Put(self, requests: Iterable[Ask])` with `for`

    Both kinds of handlers have one base, so type checkers do not see that `for` would block the event loop."""

    async def Put(self, requests: Iterable[Ask]) -> Reply:
        return answer(*requests)


class ForOverUnannotated(PutterBase):
    """`async def Put(self, requests)` with `for`

    Without an annotation no check knows that `for` would block the event loop."""

    async def Put(self, requests):
        return answer(*requests)


class SequenceOfRequests(PutterBase):
    """`def Put(self, requests: Sequence[Ask])`

    Pyright does not compare the parameters of an override with those of the base."""

    def Put(self, requests: Sequence[Ask]) -> Reply:
        return answer(*requests[:])


class PassesRequestsOn(PutterBase):
    """`def Put(self, requests: AsyncIterator[Ask]) -> Coroutine[Any, Any, Reply]`"""

    async def _put(self, requests: AsyncIterator[Ask]) -> Reply:
        return answer(*[request async for request in requests])

    def Put(self, requests: AsyncIterator[Ask]) -> Coroutine[Any, Any, Reply]:
        return self._put(requests)


class StreamForOneOfMany(PutterBase):
    """`async def Put(self, requests: AsyncIterator[Ask]) -> AsyncIterator[Reply]` with `yield`"""

    async def Put(self, requests: AsyncIterator[Ask]) -> AsyncIterator[Reply]:
        async for request in requests:
            yield answer(request)


class ListChat(ChatterBase):
    """`async def Chat(self, requests: AsyncIterator[Ask]) -> list[Reply]`"""

    async def Chat(self, requests: AsyncIterator[Ask]) -> list[Reply]:
        return [answer(request) async for request in requests]


class WritingChat(ChatterBase):
    """`async def Chat(self, requests, grpc_context) -> None` with `grpc_context.write`"""

    async def Chat(self, requests: RequestStream[Ask], grpc_context: "grpc.aio.ServicerContext[Ask, Reply]") -> None:
        async for request in requests:
            await grpc_context.write(answer(request))


class ChatOfOne(ChatterBase):
    """`async def Chat(self, requests: AsyncIterator[Ask]) -> Reply`"""

    async def Chat(self, requests: AsyncIterator[Ask]) -> Reply:
        return answer(*[request async for request in requests])


# == Decorators and other attributes


def typed(function: Callable[P, Awaitable[R]]) -> Callable[P, Awaitable[R]]:
    @functools.wraps(function)
    async def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        return await function(*args, **kwargs)

    return wrapper


def passing(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)

    return wrapper


def bare(function):
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)

    return wrapper


def with_session(
    function: Callable[[S, Ask, str], Awaitable[Reply]],
) -> Callable[[S, Ask], Awaitable[Reply]]:
    @functools.wraps(function)
    async def wrapper(self: S, request: Ask) -> Reply:
        return await function(self, request, "a session")

    return wrapper


def of_text(function: Callable[[S, str], Awaitable[str]]) -> Callable[[S, Ask], Awaitable[Reply]]:
    async def wrapper(self: S, request: Ask) -> Reply:
        return Reply(text=await function(self, request.text))

    return wrapper


def awaiting(function):
    @functools.wraps(function)
    async def wrapper(*args, **kwargs):
        return await function(*args, **kwargs)

    return wrapper


def each(function: Callable[P, AsyncIterator[R]]) -> Callable[P, AsyncIterator[R]]:
    @functools.wraps(function)
    async def wrapper(*args: P.args, **kwargs: P.kwargs) -> AsyncIterator[R]:
        async for item in function(*args, **kwargs):
            yield item

    return wrapper


def close_soon(result):  # Python warns of a coroutine that nobody awaits
    if inspect.iscoroutine(result):
        asyncio.get_running_loop().call_soon(result.close)


def not_awaiting(function):
    @functools.wraps(function)
    async def wrapper(*args, **kwargs):
        result = function(*args, **kwargs)
        close_soon(result)
        return result

    return wrapper


def awaiting_if_needed(function):
    @functools.wraps(function)
    async def wrapper(*args, **kwargs):
        result = function(*args, **kwargs)
        return await result if inspect.isawaitable(result) else result

    return wrapper


def each_async(function):
    @functools.wraps(function)
    async def wrapper(*args, **kwargs):
        async for item in function(*args, **kwargs):
            yield item

    return wrapper


def each_sync(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        yield from function(*args, **kwargs)

    return wrapper


def each_sync_async(function):
    @functools.wraps(function)
    async def wrapper(*args, **kwargs):
        for item in function(*args, **kwargs):
            yield item

    return wrapper


def in_a_list(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return list(function(*args, **kwargs))

    return wrapper


def run(function: Callable[P, Coroutine[Any, Any, R]]) -> Callable[P, R]:
    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        later = function(*args, **kwargs)
        try:
            return asyncio.run(later)
        finally:
            later.close()

    return wrapper


@contextlib.asynccontextmanager
async def span() -> AsyncIterator[None]:
    yield


class Unbound:
    def __init__(self, function):
        self.function = function

    async def __call__(self, *args, **kwargs):
        return await self.function(*args, **kwargs)


class BoundByPartial:
    def __init__(self, function):
        functools.update_wrapper(self, function)
        self.function = function

    def __get__(self, instance, owner=None):
        return functools.partial(self, instance)

    async def __call__(self, *args, **kwargs):
        return await self.function(*args, **kwargs)


class TypedDecorator(OneBase):
    """`functools.wraps` with a `ParamSpec`, around `async def Get`"""

    @typed
    async def Get(self, request: Ask, grpc_context: ServicerContext) -> Reply:
        return answer(request)


class PassingDecorator(OneBase):
    """`functools.wraps` without types, around `async def Get`"""

    @passing
    async def Get(self, request: Ask, grpc_context: Any) -> Reply:
        return answer(request)


class PassingDecoratorOfAnother(OneBase):
    """`functools.wraps` without types, around `Get(…) -> Ask`

    The decorator has no types for type checkers."""

    @passing
    async def Get(self, request: Ask) -> Ask:
        return request


class BareDecorator(OneBase):
    """a decorator without `functools.wraps`"""

    @bare
    async def Get(self, request: Ask) -> Reply:
        return answer(request)


class SessionDecorator(OneBase):
    """`functools.wraps` that passes one argument more"""

    @with_session
    async def Get(self, request: Ask, session: str) -> Reply:
        return answer(request)


class TextDecorator(OneBase):
    """a decorator that changes the types, without `functools.wraps`"""

    @of_text
    async def Get(self, text: str) -> str:
        return text


class DecoratedStream(ListerBase):
    """`functools.wraps`, an async generator around an async generator"""

    @each
    async def List(self, request: Ask) -> AsyncIterator[Reply]:
        yield answer(request)
        yield answer(request)


class AwaitedStream(ListerBase):
    """`functools.wraps`, a coroutine that awaits an async generator

    The decorator has no types for type checkers."""

    @awaiting
    async def List(self, request: Ask) -> AsyncIterator[Reply]:
        yield answer(request)
        yield answer(request)


class Cached(OneBase):
    """`@functools.cache` around `Get`

    Type checkers do not see that a message has no hash."""

    @functools.cache
    def Get(self, request: Ask) -> Reply:
        return answer(request)


class CachedUpload(PutterBase):
    """`@functools.cache` around `Put`

    A stream of requests has a hash. Every call has another stream, so it caches nothing."""

    @functools.cache
    def Put(self, requests: Iterator[Ask]) -> Reply:
        return answer(*requests)


class ContextManager(ListerBase):
    """`@contextlib.contextmanager` around a stream"""

    @contextlib.contextmanager
    def List(self, request: Ask) -> Iterator[Reply]:
        yield answer(request)


class AsyncContextManager(ListerBase):
    """`@contextlib.asynccontextmanager` around a stream"""

    @contextlib.asynccontextmanager
    async def List(self, request: Ask) -> AsyncIterator[Reply]:
        yield answer(request)


class Static(OneBase):
    """`@staticmethod`"""

    @staticmethod
    async def Get(request: Ask) -> Reply:
        return answer(request)


class OfTheClass(OneBase):
    """`@classmethod`"""

    @classmethod
    async def Get(cls, request: Ask) -> Reply:
        return answer(request)


class Lambda(OneBase):
    """`Get = lambda self, request: …`

    Mypy can't infer the type of this lambda."""

    Get = lambda self, request: answer(request)


class PartialMethod(OneBase):
    """`Get = functools.partialmethod(…)`

    Pyright does not take an object with `__call__` for a method."""

    async def _get(self, more: str, request: Ask) -> Reply:
        return answer(request)

    Get = functools.partialmethod(_get, "more")


class StaticPartial(OneBase):
    """`Get = staticmethod(functools.partial(…))`

    Pyright does not take an object with `__call__` for a method."""

    Get = staticmethod(functools.partial(lambda more, request: answer(request), "more"))


class Assigned(OneBase):
    """`Get = get`, a function of the module"""

    async def get(self, request: Ask) -> Reply:
        return answer(request)

    Get = get


class CallableObject(OneBase):
    """`Get = Answering()`, an object with `__call__`

    Pyright does not take an object with `__call__` for a method."""

    class Answering:
        async def __call__(self, request: Ask) -> Reply:
            return answer(request)

    Get = Answering()


class Property(OneBase):
    """`@property`

    Its value depends on the instance, and the decorator has none."""

    @property
    def Get(self) -> Callable[[Ask], Reply]:
        return answer


class ClassForMethod(OneBase):
    """`class Get`

    Mypy does not compare a class with the method of the base."""

    class Get:
        pass


class NoneForMethod(OneBase):
    """`Get = None`"""

    Get = None


class Dispatched(OneBase):
    """`@functools.singledispatchmethod`

    Pyright does not take it for a method."""

    @functools.singledispatchmethod
    async def Get(self, request: Message) -> Reply:
        return answer(request)


class Overridden(OneBase):
    """`@typing.override`"""

    @typing_extensions.override
    async def Get(self, request: Ask) -> Reply:
        return answer(request)


class AwaitedPlain(OneBase):
    """`functools.wraps`, a coroutine that awaits `def Get`

    The decorator has no types for type checkers."""

    @awaiting
    def Get(self, request: Ask) -> Reply:
        return answer(request)


class AwaitedAwaitable(OneBase):
    """`functools.wraps`, a coroutine that awaits `def Get(…) -> Awaitable[Reply]`"""

    async def _get(self, request: Ask) -> Reply:
        return answer(request)

    @awaiting
    def Get(self, request: Ask) -> Awaitable[Reply]:
        return self._get(request)


class NotAwaited(OneBase):
    """`functools.wraps`, a coroutine that does not await `async def Get`

    The decorator has no types for type checkers."""

    @not_awaiting
    async def Get(self, request: Ask) -> Reply:
        return answer(request)


class AwaitedIfNeeded(OneBase):
    """`functools.wraps`, a coroutine that awaits what can be awaited, around `def Get`"""

    @awaiting_if_needed
    def Get(self, request: Ask) -> Reply:
        return answer(request)


class NotAwaitedStream(ListerBase):
    """`functools.wraps`, a coroutine that returns an async generator"""

    @not_awaiting
    async def List(self, request: Ask) -> AsyncIterator[Reply]:
        yield answer(request)
        yield answer(request)


class AsyncForOverGenerator(ListerBase):
    """`functools.wraps`, `async for` over a generator

    The decorator has no types for type checkers."""

    @each_async
    def List(self, request: Ask) -> Iterator[Reply]:
        yield answer(request)
        yield answer(request)


class ForOverAsyncGenerator(ListerBase):
    """`functools.wraps`, `yield from` an async generator

    The decorator has no types for type checkers."""

    @each_sync
    async def List(self, request: Ask) -> AsyncIterator[Reply]:
        yield answer(request)
        yield answer(request)


class AsyncGeneratorOverGenerator(ListerBase):
    """`functools.wraps`, an async generator with `for` over a generator"""

    @each_sync_async
    def List(self, request: Ask) -> Iterator[Reply]:
        yield answer(request)
        yield answer(request)


class ListOfAsyncGenerator(ListerBase):
    """`functools.wraps`, a list of an async generator

    The decorator has no types for type checkers."""

    @in_a_list
    async def List(self, request: Ask) -> AsyncIterator[Reply]:
        yield answer(request)
        yield answer(request)


class GeneratorAroundOne(OneBase):
    """`functools.wraps`, a generator around `def Get`

    The decorator has no types for type checkers."""

    @each_sync
    def Get(self, request: Ask) -> Reply:
        return answer(request)


class Run(OneBase):
    """`asyncio.run` in a decorator

    Type checkers do not see that an event loop runs already."""

    @run
    async def Get(self, request: Ask) -> Reply:
        return answer(request)


class SpanOfAnAsyncContextManager(OneBase):
    """the result of an `asynccontextmanager` as a decorator, around `async def Get`"""

    @span()
    async def Get(self, request: Ask) -> Reply:
        return answer(request)


class SpanAroundPlain(OneBase):
    """the same, around `def Get`"""

    @span()
    def Get(self, request: Ask) -> Reply:
        return answer(request)


class CachedBehind(OneBase):
    """`@functools.cache` behind `functools.wraps`

    Type checkers do not see that a message has no hash."""

    @passing
    @functools.cache
    def Get(self, request: Ask) -> Reply:
        return answer(request)


class ContextManagerForOne(OneBase):
    """`@contextlib.contextmanager` around `def Get(…) -> Iterator[Reply]` with `yield`"""

    @contextlib.contextmanager
    def Get(self, request: Ask) -> Iterator[Reply]:
        yield answer(request)


class DecoratorObject(OneBase):
    """a decorator that is a class with `__call__`, without `__get__`

    Mypy does not compare an object without types with a method."""

    @Unbound
    async def Get(self, request: Ask) -> Reply:
        return answer(request)


class DecoratorObjectThatBinds(OneBase):
    """the same, with a `__get__` that returns a `functools.partial`

    Pyright does not take an object with `__call__` for a method."""

    @BoundByPartial
    async def Get(self, request: Ask, grpc_context: ServicerContext) -> Reply:
        return answer(request)


class WrappedStatic(OneBase):
    """a decorator above `@staticmethod`

    The decorator has no types for type checkers."""

    @passing
    @staticmethod
    async def Get(request: Ask) -> Reply:
        return answer(request)


class OfC(OneBase):
    """`Get = len`, a function written in C

    Python does not know what it takes."""

    Get = len


# == Inheritance


class Mixin:
    async def Get(self, request: Ask) -> Reply:
        return answer(request)


class FromAMixin(Mixin, OneBase):
    """`class FromAMixin(Mixin, OneBase)`"""


class BaseFirst(OneBase, Mixin):
    """`class BaseFirst(OneBase, Mixin)`"""


class MixinOfAnother:
    async def Get(self, request: Ask) -> Ask:
        return request


class FromAMixinOfAnother(MixinOfAnother, OneBase):
    """`class …(Mixin, OneBase)`, where `Get` of the mixin returns another message"""


class Child(AsyncUnary):
    """a subclass of a class that fits"""


class ChildOfAnother(AsyncUnary):
    """a subclass of a class that fits, with `Get(…) -> Ask`"""

    async def Get(self, request: Ask) -> Ask:
        return request


class OfSomething(OneBase, Generic[AnyReply]):
    async def Get(self, request: Ask) -> AnyReply:  # type: ignore[override]  # pyright: ignore
        return answer(request)  # type: ignore[return-value]  # pyright: ignore


class OfAGenericClass(OfSomething[Reply]):
    """`class …(Base[Reply])`, where `Base` is generic and `Get(…) -> AnyReply`"""


class StillAbstract(OneBase, ABC):
    """`@abstractmethod`

    Type checkers see it where an instance is made."""

    @abstractmethod
    async def Get(self, request: Ask) -> Reply:
        return answer(request)


class NoMethod(OneBase):
    """no method `Get`

    The methods of generated bases are not abstract, for `partial=True`."""


class Misspelled(OneBase):
    """`def get(…)`

    The methods of generated bases are not abstract, for `partial=True`."""

    async def get(self, request: Ask) -> Reply:
        return answer(request)


@dataclasses.dataclass
class DataClass(OneBase):
    """`@dataclass`"""

    text: str = ""

    async def Get(self, request: Ask) -> Reply:
        return answer(request)


class TwoServices(OneBase, ListerBase):
    """two services"""

    async def Get(self, request: Ask) -> Reply:
        return answer(request)

    async def List(self, request: Ask) -> AsyncIterator[Reply]:
        yield answer(request)
        yield answer(request)


class NoBase:
    """no generated base

    A type checker does not know that it is a service."""

    async def Get(self, request: Ask) -> Reply:
        return answer(request)


class Declared(Protocol):
    async def Get(self, request: Ask) -> Reply: ...


class OfADeclaration(Declared, OneBase):
    """`class …(Declared, OneBase)`, where `Declared` is a `Protocol` with an empty `Get`

    Type checkers see it where an instance is made."""


class OfGrpcsServicer(OneServicer, OneBase):
    """`class …(OneServicer, OneBase)` with grpc's own base, and no method `Get`

    The methods of grpc's bases have no types."""


class SetInConstructor(OneBase):
    """`self.Get = …` in the constructor

    The decorator has no instance."""

    def __init__(self) -> None:
        self.Get = self._get

    async def _get(self, request: Ask) -> Reply:
        return answer(request)


class Meta(type):
    pass


class OfAMetaclass(OneBase, metaclass=Meta):
    """a metaclass, and `__slots__`"""

    __slots__ = ("model",)

    async def Get(self, request: Ask) -> Reply:
        return answer(request)


class Registered(OneBase):
    def __init_subclass__(cls, *, key: str) -> None:
        pass


class OfARegistry(Registered, key="x"):
    """a subclass of a class whose `__init_subclass__` needs an argument"""

    async def Get(self, request: Ask) -> Reply:
        return answer(request)


@dataclasses.dataclass(slots=True)
class DataClassWithSlots(OneBase):
    """`@dataclass(slots=True)`"""

    text: str = ""

    async def Get(self, request: Ask) -> Reply:
        return answer(request)


class CallsTheParent(AsyncUnary):
    """`super().Get(request)` of a class that fits"""

    async def Get(self, request: Ask) -> Reply:
        return await super().Get(request)


class TwoServicesAndOneMethod(OneBase, ListerBase):
    """two services, a method for one

    The methods of generated bases are not abstract, for `partial=True`."""

    async def Get(self, request: Ask) -> Reply:
        return answer(request)


# == Local classes


def local_class():
    """a class in a function, with quoted names that the function imports"""
    from shapes_pb2 import Ask as LocalAsk
    from shapes_pb2 import Reply as LocalReply

    class Local(OneBase):
        async def Get(self, request: "LocalAsk") -> "LocalReply":
            return answer(request)

    return Local


def local_class_of_another():
    """the same, with another message"""
    from shapes_pb2 import Ask as LocalReply

    class Local(OneBase):
        async def Get(self, request: Ask) -> "LocalReply":
            return LocalReply(text=request.text)

    return Local


def added_method():
    """a method that is added before the decorator runs"""

    class Local(OneBase):
        pass

    async def get(self: Any, request: Ask) -> Reply:
        return answer(request)

    Local.Get = get  # type: ignore[method-assign]
    return Local


def returned_subclass():
    """a class decorator that returns a subclass"""

    def named(cls: type[S]) -> type[S]:
        return type(cls.__name__, (cls,), {})  # pyright: ignore

    @named
    class Local(OneBase):
        async def Get(self, request: Ask) -> Reply:
            return answer(request)

    return Local


def message_of_a_parameter():
    """a class in a function, with a parameter of the function as a quoted annotation

    The source does not show its value."""

    def make(message: Any) -> type:
        class Local(OneBase):
            async def Get(self, request: Ask) -> "message":
                return message(text=request.text)

        return Local

    return make(Ask)


Later = Reply
