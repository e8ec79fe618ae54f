# mypy: enable-error-code="deprecated"
"""Code without type errors for `mypy --strict` and pyright. It is checked, never run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import grpc
import grpc.aio
from awkward_pb2 import AMessageWithANameThatIsSoLongThatNoSignatureFitsOnOneLineAnyMore as Long
from awkward_pb2 import Outer
from awkward_sdk import AsyncBase, AwkwardBase, AwkwardClient, AwkwardHandle, AwkwardSyncClient
from google.protobuf.empty_pb2 import Empty
from google.protobuf.wrappers_pb2 import StringValue
from shapes.awkward_pb2 import Square
from shapes.circle_pb2 import Circle
from typing_extensions import ParamSpec
from user_defined_protos_pb2 import (
    ImageClass,
    ImageData,
    UserDefinedMessage,
    UserDefinedMessage2,
    UserDefinedResponse,
    UserDefinedResponse2,
)
from user_defined_protos_sdk import (
    ImageClassificationServiceBase,
    ImageClassificationServiceHandle,
    UserDefinedServiceBase,
    UserDefinedServiceClient,
    UserDefinedServiceHandle,
    UserDefinedServiceSyncClient,
)

import sdk
from sdk._protos.reflection_client import ReflectionClient
from sdk.context import ServicerContext
from sdk.deployment import grpc_deployment
from sdk.errors import Change, RpcError

if TYPE_CHECKING:
    from ray.serve.handle import DeploymentHandle

    from sdk.service import RequestStream


@grpc_deployment
class AsyncHandlers(AwkwardBase):
    def __init__(self, prefix: str, *, depth: int = 0) -> None:
        self.prefix, self.depth = prefix, depth

    async def Unary(self, request: Outer, grpc_context: Any) -> Outer.Inner.Deepest:
        return Outer.Inner.Deepest(depth=self.depth)

    async def Down(self, request: Circle) -> AsyncIterator[Outer.Inner]:
        yield Outer.Inner(name=self.prefix)

    async def Up(self, requests: AsyncIterator[StringValue]) -> Empty:
        async for _ in requests:
            pass
        return Empty()

    async def Both(self, requests: RequestStream[Square], grpc_context: Any) -> AsyncIterator[Long]:
        async for square in requests:
            yield Long(text=str(square.side))


@grpc_deployment(num_replicas=2)
class SyncHandlers(AwkwardBase):
    def Unary(self, message: Outer) -> Outer.Inner.Deepest:
        return Outer.Inner.Deepest()

    def Down(self, request: Circle, grpc_context: Any) -> Iterator[Outer.Inner]:
        yield Outer.Inner()

    def Up(self, requests: Iterator[StringValue]) -> Empty:
        list(requests)
        return Empty()

    def Both(self, requests: RequestStream[Square]) -> Iterator[Long]:
        for square in requests:
            yield Long(text=str(square.side))


@grpc_deployment
class TwoServices(UserDefinedServiceBase, ImageClassificationServiceBase):
    def __init__(self, downloader: DeploymentHandle[Any], labels: list[str]) -> None:
        self.downloader, self.labels = downloader, labels

    def __call__(self, user_message: UserDefinedMessage) -> UserDefinedResponse:
        return UserDefinedResponse(greeting=user_message.name)

    async def Multiplexing(self, user_message: UserDefinedMessage2) -> UserDefinedResponse2:
        return UserDefinedResponse2()

    def Streaming(self, user_message: UserDefinedMessage) -> Iterator[UserDefinedResponse]:
        yield self(user_message)

    async def Predict(self, image_data: ImageData) -> ImageClass:
        return ImageClass(classes=self.labels)


@grpc_deployment
class RenamedByPython(AsyncBase):
    def import_(self, request: Outer) -> Outer:
        return request

    def Any(self, request: Outer) -> Outer:
        return self.import_(request)


P = ParamSpec("P")
T = TypeVar("T")


def traced(function: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
    async def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
        return await function(*args, **kwargs)

    return wrapper


class Predicts:
    async def Predict(self, image_data: ImageData) -> ImageClass:
        return ImageClass()


@grpc_deployment
class FromAMixin(Predicts, ImageClassificationServiceBase):
    pass


class Labelled(ImageClassificationServiceBase, Generic[T]):
    def __init__(self, label: T) -> None:
        self.label = label

    @traced
    async def Predict(self, image_data: ImageData, *, grpc_context: ServicerContext | None = None) -> ImageClass:
        return ImageClass(classes=[str(self.label)])


@grpc_deployment
class Overridden(Labelled[int]):
    async def Predict(
        self, image_data: ImageData, *, grpc_context: ServicerContext | None = None, verbose: bool = False
    ) -> ImageClass:
        return await super().Predict(image_data, grpc_context=grpc_context)


@grpc_deployment
@dataclass
class Data(ImageClassificationServiceBase):
    labels: list[str]

    @staticmethod
    async def Predict(request: ImageData) -> ImageClass:
        return ImageClass()


Overridden.bind(7)
Data.bind(labels=["cat"])


def updates() -> tuple[Change, ...]:
    sdk.start(sdk.GrpcOptions(port=9000))
    handle: DeploymentHandle[Any] = sdk.run(Overridden.bind(7), name="labels", allow_breaking=True)
    try:
        sdk.run(FromAMixin.bind(), name="labels")
    except sdk.BreakingChangeError as error:
        print(error.application, handle)
        return error.changes
    return ()


def reflected(channel: grpc.Channel) -> list[str]:
    reflection = ReflectionClient(channel, [("application", "labels")], timeout=3)
    files = reflection.file_descriptor_set(reflection.services())
    return [file.name for file in files.file]


AsyncHandlers.bind("a", depth=1)
AsyncHandlers.options(num_replicas=3, name="x").bind("a")
downloader = SyncHandlers.bind()
TwoServices.bind(sdk.handle(downloader), ["cat"])  # its parameter is annotated with Ray Serve's own handle
TwoServices.options(max_ongoing_requests=7, expose=False).bind(sdk.handle(downloader), labels=["cat"])


@grpc_deployment
class Composed(ImageClassificationServiceBase):
    def __init__(
        self,
        awkward: AwkwardHandle,
        guide: UserDefinedServiceHandle | None = None,
        *many: AwkwardHandle,
        named: dict[str, AwkwardHandle] | None = None,
    ) -> None:
        self.awkward, self.guide = awkward, guide

    async def Predict(self, image_data: ImageData) -> ImageClass:
        reply: Outer.Inner.Deepest = await self.awkward.Unary(Outer(), timeout=2.5, model_id="m")
        async for inner in self.awkward.Down(Circle(), metadata=[("key", "value"), ("key-bin", b"value")]):
            name: str = inner.name
            print(name, reply)
        assert self.guide is not None
        greeting: UserDefinedResponse = await self.guide(UserDefinedMessage(), timeout=None)
        same: UserDefinedResponse = self.guide.__call__(UserDefinedMessage()).result()
        for response in self.guide.Streaming(UserDefinedMessage()):
            print(response.greeting, greeting, same)
        call = self.awkward.Unary(Outer())
        call.cancel()
        return ImageClass()


Composed.bind(AsyncHandlers.bind("a"))
Composed.bind(
    SyncHandlers.options(num_replicas=2).bind(), TwoServices.bind(sdk.handle(downloader), []), SyncHandlers.bind()
)
Composed.options(num_replicas=2).bind(SyncHandlers.bind(), guide=None, named={"a": AsyncHandlers.bind("a")})
# A class of two services is a handle of the first.
ImageClassificationServiceHandle(TwoServices.bind(sdk.handle(downloader), []))


async def async_clients(channel: grpc.aio.Channel) -> None:
    async with AwkwardClient("localhost:9000", application="a", model_id="m", timeout=1.5) as client:
        call = client.Unary(Outer(), timeout=2, metadata=[("key", "value"), ("key-bin", b"value")])
        code: grpc.StatusCode = await call.code()
        reply: Outer.Inner.Deepest = await call
        async for inner in client.Down(Circle(), application=None):
            name: str = inner.name
            print(name, code, reply)
        empty: Empty = await client.Up(iter([StringValue()]), request_id="1")
        writer = client.Up()
        await writer.write(StringValue())
        both = client.Both()
        await both.write(Square())
        async for long in both:
            print(long.text, empty)
    guide = UserDefinedServiceClient(channel)
    greeting: UserDefinedResponse = await guide(UserDefinedMessage(name="foo"))
    again: UserDefinedResponse = await guide.__call__(UserDefinedMessage(name="foo"))
    print(greeting, again)


def sync_clients(channel: grpc.Channel) -> None:
    with AwkwardSyncClient(channel, metadata=[("key", "value")]) as client:
        reply: Outer.Inner.Deepest = client.Unary(Outer(), model_id="m")
        reply, call = client.Unary.with_call(request=Outer())
        code: grpc.StatusCode = call.code()
        for inner in client.Down(Circle()):
            print(inner.name, reply, code)
        empty: Empty = client.Up([StringValue()])
        empty, call = client.Up.with_call(iter([StringValue()]))
        for long in client.Both([Square()]):
            print(long.text, empty)
    guide = UserDefinedServiceSyncClient("localhost:9000", credentials=grpc.ssl_channel_credentials())
    response, call = guide.__call__.with_call(request=UserDefinedMessage(name="foo"))
    print(response.greeting, guide(UserDefinedMessage()).greeting)


class Tracing(grpc.aio.ServerInterceptor):
    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        return await continuation(handler_call_details)


def make_tracing() -> Tracing:
    return Tracing()


@grpc_deployment(num_replicas=2, compression=grpc.Compression.Gzip, interceptors=[Tracing(), Tracing, make_tracing])
class Guarded(ImageClassificationServiceBase):
    async def Predict(self, request: ImageData, grpc_context: ServicerContext) -> ImageClass:
        names = grpc_context.peer_identities()
        if names is None:
            raise RpcError(
                grpc.StatusCode.UNAUTHENTICATED, "who?", [("key", "value")], errors=[StringValue(value="who?")]
            )
        try:
            await grpc_context.abort(grpc.StatusCode.ABORTED, names[0].decode())
        except RpcError as error:
            found: StringValue | None = error.find(StringValue)
            print(found)
        return ImageClass()


# A partial class lacks methods, and is not abstract.
@grpc_deployment(partial=True)
class Part(AwkwardBase):
    async def Unary(self, request: Outer) -> Outer.Inner.Deepest:
        return Outer.Inner.Deepest()


part: Part = Part()
bound_part: AwkwardHandle = Part.options(num_replicas=2).bind()
