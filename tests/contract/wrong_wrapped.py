# mypy: ignore-errors
"""Classes that do not fit, with string annotations: decorators, inheritance, and imports for type checkers only."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import wrapt

from tests.contract.greet_code import UNARY, Downloader, Greeter, HelloReply, HelloRequest, OtherReply, make_base
from tests.contract.tables import wrong

if TYPE_CHECKING:
    from collections.abc import AsyncIterator as Stream

    from tests.contract.greet_code import HelloReply as Question
    from tests.contract.greet_code import OtherReply as Reply

    Replies = Stream[HelloRequest]
    Itself = "Itself"

AnyRequest = TypeVar("AnyRequest", bound=HelloRequest)


def with_session(function):
    @functools.wraps(function)
    async def wrapper(self, request, user):
        return await function(self, request, user, "session")

    return wrapper


def passing(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)

    return wrapper


def awaiting(function):
    @functools.wraps(function)
    async def wrapper(*args, **kwargs):
        return await function(*args, **kwargs)

    return wrapper


@wrapt.decorator
def traced(wrapped, instance, args, kwargs):
    return wrapped(*args, **kwargs)


# -- decorators -------------------------------------------------------------------------------


@wrong("extra-parameter SayHello")
class WrapperTakesMore(Greeter):
    @with_session
    async def SayHello(self, request: HelloRequest, user: str, session: str) -> HelloReply: ...


@wrong("request-type SayHello")
class WrapperOfAnotherType(Greeter):
    @passing
    @with_session
    async def SayHello(self, request: HelloReply, user: str = "", session: str = "") -> HelloReply: ...

    SayHello.__wrapped__.__defaults__ = ("",)


@wrong("extra-parameter SayHello", "request-type SayHello")
class TracedWrong(Greeter):
    @traced
    async def SayHello(self, request: HelloReply, context: Any) -> HelloReply: ...


@wrong("response-type SayHello")
class PartialOfAnotherType(Greeter):
    async def _hello(self, greeting: str, request: HelloRequest) -> HelloRequest: ...

    SayHello = functools.partialmethod(_hello, "Hello")


@wrong("extra-parameter SayHello")
class PartialTooLittle(Greeter):
    async def _hello(self, request: HelloRequest, greeting: str, more: str) -> HelloReply: ...

    SayHello = functools.partialmethod(_hello, more="more")


@wrong("request-type SayHello")
class StaticOfAnotherType(Greeter):
    @staticmethod
    async def SayHello(self: HelloReply, request: HelloRequest = None) -> HelloReply: ...


@wrong("response-type SayHello")
class ClassMethodOfAnotherType(Greeter):
    @classmethod
    def SayHello(cls, request: HelloRequest) -> str: ...


@wrong("wrapper SayHello")
class Cached(Greeter):
    @functools.cache  # noqa: B019  # the mistake
    def SayHello(self, request: HelloRequest) -> HelloReply: ...


@wrong("wrapper SayHello")
class CachedCoroutine(Greeter):
    @functools.lru_cache(maxsize=8)  # noqa: B019  # the mistake
    async def SayHello(self, request: HelloRequest) -> HelloReply: ...


@wrong("wrapper Down")
class CachedStream(Downloader):
    @staticmethod
    @functools.cache
    def Down(request: HelloRequest) -> Iterator[HelloReply]:
        yield HelloReply()


@wrong("wrapper Down")
class ContextManagerForAStream(Downloader):
    @contextlib.contextmanager
    def Down(self, request: HelloRequest) -> Iterator[HelloReply]:
        yield HelloReply()


@wrong("wrapper Down")
class AsyncContextManagerForAStream(Downloader):
    @contextlib.asynccontextmanager
    async def Down(self, request: HelloRequest) -> AsyncIterator[HelloReply]:
        yield HelloReply()


@wrong("wrapper Down")
class AwaitsAStream(Downloader):
    @awaiting
    async def Down(self, request: HelloRequest) -> AsyncIterator[HelloReply]:
        yield HelloReply()


# -- inheritance --------------------------------------------------------------------------------


class Fits(Greeter):
    async def SayHello(self, request: HelloRequest) -> HelloReply: ...


@wrong("request-type SayHello")
class OverridesInAChild(type("Between", (Fits,), {})):
    async def SayHello(self, request: HelloReply) -> HelloReply: ...


@wrong("not-callable SayHello")
class TakenAwayInAChild(Fits):
    SayHello = None


class MixinOfAnotherType:
    async def SayHello(self, request: HelloRequest) -> OtherReply: ...


@wrong("response-type SayHello")
class MixinFirst(MixinOfAnotherType, Fits):
    pass


@wrong("missing-rpc Down")
class OneOfTwoServices(Fits, Downloader):
    pass


@wrong("abstract SayHello")
class StillAbstract(Greeter, ABC):
    @abstractmethod
    async def SayHello(self, request: HelloRequest) -> HelloReply: ...


@wrong("abstract ")
class AbstractElsewhere(Fits, ABC):
    @abstractmethod
    def load(self) -> None: ...


@wrong("abstract ", "missing-rpc SayHello")
class AbstractTwice(Greeter, ABC):
    @abstractmethod
    def load(self) -> None: ...

    @abstractmethod
    def close(self) -> None: ...


async def say_hello(self, user: str) -> str: ...


@wrong("request-type SayHello", "response-type SayHello")
class AssignedOfAnotherType(Greeter):
    SayHello = say_hello


@wrong("not-callable SayHello")
class KeptInASlot(Greeter):
    __slots__ = ("SayHello",)


@wrong("missing-rpc SayHello")
class OnlyAnnotated(Greeter):
    SayHello: Any


# -- annotations ------------------------------------------------------------------------------


@wrong("request-type SayHello", "response-type SayHello")
class OtherTypesForTypeCheckers(Greeter):
    async def SayHello(self, request: Question) -> Reply: ...


@wrong("response-type Down")
class OtherStreamForTypeCheckers(Downloader):
    async def Down(self, request: HelloRequest) -> Replies:
        yield HelloRequest()


@wrong("response-type SayHello")
class AliasOfItself(Greeter):
    async def SayHello(self, request: HelloRequest) -> Itself | None: ...


@wrong("response-type SayHello")
class AsyncThatReturnsFuture(Greeter):
    async def SayHello(self, request: HelloRequest) -> asyncio.Future[HelloReply]: ...


@wrong("response-type SayHello")
class FutureOfAThread(Greeter):
    def SayHello(self, request: HelloRequest) -> concurrent.futures.Future[HelloReply]: ...


@wrong("request-type SayHello")
class ClassOfRequests(Greeter):
    async def SayHello(self, request: type[HelloRequest]) -> HelloReply: ...


@wrong("response-type SayHello")
class Pair(Greeter):
    async def SayHello(self, request: HelloRequest) -> tuple[HelloReply, int]: ...


@wrong("response-type SayHello")
class OneOfTwoTypes(Greeter):
    async def SayHello(self, request: HelloRequest) -> HelloReply | OtherReply: ...


@wrong("response-type SayHello")
class TypeVarOfAnotherType(Greeter):
    async def SayHello(self, request: AnyRequest) -> AnyRequest: ...


@wrong("response-stream SayHello")
class AsyncGeneratorAnnotation(Greeter):
    async def SayHello(self, request: HelloRequest) -> AsyncGenerator[HelloReply, None]: ...


@wrong("response-stream Down")
class AwaitsOneResponse(Downloader):
    def Down(self, request: HelloRequest) -> Awaitable[HelloReply]: ...


@wrong("request-type One", "response-type Two", "wrong-case Three")
class OneProblemEach(make_base("Three", ("One", UNARY), ("Two", UNARY), ("Three", UNARY))):
    async def One(self, request: bytes) -> HelloReply: ...

    def Two(self, request: HelloRequest) -> bool: ...

    def three(self, request: HelloRequest) -> HelloReply: ...


@wrong("request-stream SayHello", "response-stream SayHello")
class StreamsForOne(Greeter):
    async def SayHello(self, requests: AsyncIterator[HelloRequest]) -> AsyncIterator[HelloReply]:
        yield HelloReply()
