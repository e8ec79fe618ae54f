# mypy: ignore-errors
"""Classes that do not fit, each with its expected problems."""

import asyncio
import functools
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Generator, Iterable, Iterator
from typing import TYPE_CHECKING, Annotated, Any, Optional, Union

from sdk.service import RequestStream
from tests.contract.greet_code import (
    BOTH,
    DOWN,
    UNARY,
    Downloader,
    Greeter,
    HelloReply,
    HelloRequest,
    Inner,
    OtherReply,
    Talker,
    Uploader,
    make_base,
)
from tests.contract.tables import wrong

if TYPE_CHECKING:
    from nowhere import Unknown


# -- names ------------------------------------------------------------------------------------


@wrong("no-service ")
class NoBase:
    async def SayHello(self, request): ...


@wrong("missing-rpc SayHello")
class Missing(Greeter):
    pass


@wrong("missing-rpc SayHello")
class Misspelled(Greeter):
    async def SayHelo(self, request): ...


@wrong("missing-rpc SayHello")
class PrivateNearMiss(Greeter):
    async def _SayHello(self, request): ...


@wrong("missing-rpc SayHello")
class NearMissIsNoMethod(Greeter):
    SayHelo = 3


@wrong("wrong-case SayHello")
class SnakeCase(Greeter):
    async def say_hello(self, request): ...


@wrong("wrong-case SayHello")
class CamelCase(Greeter):
    def sayHello(self, request): ...


class Implementation:
    async def SayHello(self, request): ...


@wrong("missing-rpc SayHello")
class HiddenByItsBase(Greeter, Implementation):
    pass


@wrong("missing-rpc Get", "missing-rpc Put")
class TwoMissing(make_base("Two", ("Get", UNARY), ("Put", UNARY), ("List", UNARY))):
    def List(self, request): ...


@wrong("wrong-case GetUser", "missing-rpc GetUsers")
class NearMissTakenByAnother(make_base("Users", ("GetUser", UNARY), ("GetUsers", UNARY))):
    def get_user(self, request): ...


@wrong("missing-rpc SayHello", "missing-rpc Down")
class TwoServicesMissing(Greeter, Downloader):
    pass


@wrong("service-conflict Get")
class Disagreeing(make_base("A", ("Get", UNARY)), make_base("B", ("Get", UNARY, HelloRequest, Inner))):
    async def Get(self, request): ...


@wrong("service-conflict Get")
class DisagreeingOnStream(make_base("A2", ("Get", UNARY)), make_base("B2", ("Get", DOWN))):
    async def Get(self, request): ...


@wrong("reserved-name check_health", "reserved-name reconfigure", "reserved-name record_autoscaling_stats")
class ServeHooks(
    make_base("Hooks", ("check_health", UNARY), ("reconfigure", UNARY), ("record_autoscaling_stats", UNARY))
):
    async def check_health(self, request): ...


@wrong("reserved-name __init__", "reserved-name __del__", "reserved-name __getattr__")
class PythonNames(make_base("Python", ("__init__", UNARY), ("__del__", UNARY), ("__getattr__", UNARY))):
    pass


@wrong("reserved-name bind", "reserved-name options")
class OurNames(make_base("Ours", ("bind", UNARY), ("options", UNARY))):
    pass


# -- kinds of attributes ----------------------------------------------------------------------


@wrong("not-callable SayHello")
class Value(Greeter):
    SayHello = "hello"


@wrong("not-callable SayHello")
class SetToNone(Greeter):
    SayHello = None


@wrong("not-callable SayHello")
class Property(Greeter):
    @property
    def SayHello(self): ...


@wrong("not-callable SayHello")
class CachedProperty(Greeter):
    @functools.cached_property
    def SayHello(self): ...


@wrong("not-callable SayHello")
class Nested(Greeter):
    class SayHello:
        pass


# -- parameters -------------------------------------------------------------------------------


@wrong("parameters SayHello")
class NoRequest(Greeter):
    async def SayHello(self): ...


@wrong("parameters SayHello")
class NotEvenSelf(Greeter):
    async def SayHello(): ...


@wrong("parameters SayHello")
class SelfForgotten(Greeter):
    async def SayHello(request): ...


@wrong("parameters SayHello")
class ContextOnly(Greeter):
    async def SayHello(self, grpc_context): ...


@wrong("parameters SayHello")
class ContextFirst(Greeter):
    async def SayHello(self, grpc_context, request): ...


@wrong("parameters SayHello")
class KeywordOnlyRequest(Greeter):
    async def SayHello(self, *, request): ...


@wrong("parameters SayHello")
class OnlyKeywords(Greeter):
    async def SayHello(self, **kwargs): ...


@wrong("parameters SayHello")
class PositionalContext(Greeter):
    async def SayHello(self, request, grpc_context, /): ...


@wrong("extra-parameter SayHello")
class ClassicContext(Greeter):
    def SayHello(self, request, context): ...


@wrong("extra-parameter SayHello")
class ExtraParameters(Greeter):
    async def SayHello(self, request, grpc_context, user, *, verbose): ...


@wrong("parameters SayHello")
class StaticWithoutRequest(Greeter):
    @staticmethod
    def SayHello(): ...


@wrong("parameters SayHello")
class EverythingBound(Greeter):
    SayHello = functools.partial(lambda request: None, request=1)


@wrong("extra-parameter SayHello")
class ObjectWithCall(Greeter):
    class _Handler:
        def __call__(self, request, more): ...

    SayHello = _Handler()


# -- types ------------------------------------------------------------------------------------


@wrong("request-type SayHello")
class RequestOfAnotherType(Greeter):
    async def SayHello(self, request: HelloReply) -> HelloReply: ...


@wrong("response-type SayHello")
class ResponseOfAnotherType(Greeter):
    async def SayHello(self, request: HelloRequest) -> HelloRequest: ...


@wrong("request-type SayHello", "response-type SayHello")
class BothOfAnotherType(Greeter):
    async def SayHello(self, request: str) -> dict[str, str]: ...


@wrong("extra-parameter SayHello", "request-type SayHello", "response-type SayHello")
class EverythingWrong(Greeter):
    async def SayHello(self, request: HelloReply, context: Any) -> HelloRequest: ...


@wrong("response-type SayHello")
class SameNameOfAnotherPackage(Greeter):
    async def SayHello(self, request: HelloRequest) -> OtherReply: ...


@wrong("response-type SayHello")
class ReturnsNone(Greeter):
    def SayHello(self, request: HelloRequest) -> None: ...


@wrong("response-type SayHello")
class PerhapsNone(Greeter):
    def SayHello(self, request: HelloRequest) -> Optional[HelloReply]: ...  # noqa: UP045  # this form is tested


@wrong("request-type SayHello")
class InText(Greeter):
    async def SayHello(self, request: "Annotated[HelloReply, 'x'] | None") -> "HelloReply": ...


@wrong("request-type SayHello", "response-type SayHello")
class UnknownNames(Greeter):
    async def SayHello(self, request: "Unknown") -> "Unknown": ...


@wrong("response-type SayHello")
class UnknownAttribute(Greeter):
    async def SayHello(self, request: "HelloRequest") -> "asyncio.Nothing": ...


@wrong("response-type SayHello")
class AsyncThatReturnsAwaitable(Greeter):
    async def SayHello(self, request: HelloRequest) -> Awaitable[HelloReply]: ...


@wrong("response-type SayHello")
class AwaitableOfAnotherType(Greeter):
    def SayHello(self, request: HelloRequest) -> Awaitable[HelloRequest]: ...


def logged(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)

    return wrapper


@wrong("extra-parameter SayHello", "request-type SayHello")
class Decorated(Greeter):
    @logged
    @logged
    async def SayHello(self, request: HelloReply, more: int) -> HelloReply: ...


@wrong("response-type Get")
class NestedMessage(make_base("Nest", ("Get", UNARY, HelloRequest, Inner))):
    async def Get(self, request: HelloRequest) -> HelloReply: ...


@wrong("request-type import")
class RenamedByPython(make_base("Renamed", ("import", UNARY, HelloRequest, HelloReply, "import_"))):
    async def import_(self, request: int) -> HelloReply: ...


# -- streams ----------------------------------------------------------------------------------


@wrong("request-stream SayHello")
class StreamForOneRequest(Greeter):
    async def SayHello(self, requests: AsyncIterator[HelloRequest]) -> HelloReply: ...


@wrong("response-stream SayHello")
class StreamForOneResponse(Greeter):
    def SayHello(self, request: HelloRequest) -> Iterable[HelloReply]: ...


@wrong("response-stream SayHello")
class GeneratorForOneResponse(Greeter):
    def SayHello(self, request: HelloRequest) -> Generator[HelloReply, None, None]:
        yield HelloReply()


@wrong("response-stream SayHello")
class AsyncGeneratorForOneResponse(Greeter):
    async def SayHello(self, request):
        yield HelloReply()


@wrong("response-stream SayHello")
class DecoratedGeneratorForOneResponse(Greeter):
    @logged
    def SayHello(self, request):
        yield HelloReply()


@wrong("response-stream Down")
class OneResponseForStream(Downloader):
    async def Down(self, request: HelloRequest) -> HelloReply: ...


@wrong("response-type Down")
class ListOfAnotherType(Downloader):
    def Down(self, request: HelloRequest) -> list[HelloRequest]: ...


@wrong("response-type Down")
class PairOfTwoTypes(Downloader):
    def Down(self, request: HelloRequest) -> tuple[HelloReply, HelloRequest]: ...


@wrong("response-stream Down")
class MappingForStream(Downloader):
    def Down(self, request: HelloRequest) -> dict[str, HelloReply]: ...


@wrong("response-stream Down")
class TextForStream(Downloader):
    async def Down(self, request: HelloRequest) -> str: ...


@wrong("response-stream Down")
class GeneratorThatClaimsAList(Downloader):
    def Down(self, request: HelloRequest) -> list[HelloReply]:
        yield HelloReply()


@wrong("response-stream Down")
class AsyncGeneratorThatClaimsAnIterator(Downloader):
    async def Down(self, request: HelloRequest) -> Iterator[HelloReply]:
        yield HelloReply()


@wrong("response-stream Down")
class GeneratorThatClaimsAnAsyncIterator(Downloader):
    def Down(self, request: HelloRequest) -> AsyncIterator[HelloReply]:
        yield HelloReply()


@wrong("response-type Down")
class StreamOfAnotherType(Downloader):
    async def Down(self, request: HelloRequest) -> AsyncGenerator[HelloRequest, None]:
        yield HelloReply()


@wrong("response-type Down")
class StreamOfPerhapsNone(Downloader):
    def Down(self, request: HelloRequest) -> Iterator[HelloReply | None]:
        yield None


@wrong("response-stream Down")
class WritesWithoutContext(Downloader):
    async def Down(self, request: HelloRequest) -> None: ...


@wrong("response-stream Down")
class WritesFromAThread(Downloader):
    def Down(self, request: HelloRequest, grpc_context: Any) -> None: ...


@wrong("request-stream Down", "response-stream Down")
class Reversed(Downloader):
    async def Down(self, requests: AsyncIterator[HelloRequest]) -> HelloReply: ...


@wrong("request-stream Up")
class OneRequestForStream(Uploader):
    async def Up(self, request: HelloRequest) -> HelloReply: ...


@wrong("request-stream Up")
class ListForRequests(Uploader):
    async def Up(self, requests: list[HelloRequest]) -> HelloReply: ...


@wrong("request-stream Up")
class GeneratorForRequests(Uploader):
    async def Up(self, requests: AsyncGenerator[HelloRequest, None]) -> HelloReply: ...


@wrong("request-type Up")
class RequestsOfAnotherType(Uploader):
    async def Up(self, requests: RequestStream[HelloReply]) -> HelloReply: ...


@wrong("request-stream Up")
class AsyncOverIterator(Uploader):
    async def Up(self, requests: Iterator[HelloRequest]) -> HelloReply: ...


@wrong("request-stream Both")
class GeneratorOverAsyncIterator(Talker):
    def Both(self, requests: AsyncIterator[HelloRequest]) -> Iterator[HelloReply]:
        yield HelloReply()


@wrong("request-stream Both", "response-stream Both")
class UnaryForBoth(Talker):
    def Both(self, request: HelloRequest) -> Union[HelloReply, HelloReply]: ...  # noqa: UP007


@wrong("request-type Both", "response-type Both")
class BothStreamsOfAnotherType(make_base("Strict", ("Both", BOTH, Inner, Inner))):
    async def Both(self, requests: AsyncIterator[HelloRequest]) -> AsyncIterator[HelloReply]:
        yield HelloReply()
