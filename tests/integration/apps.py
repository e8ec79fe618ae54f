"""The services that the integration tests deploy. A module of its own: replicas import it."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
from ray import serve
from ray.serve.handle import DeploymentHandle
from user_defined_protos_pb2 import (
    ImageClass,
    ImageData,
    UserDefinedMessage,
    UserDefinedMessage2,
    UserDefinedResponse,
    UserDefinedResponse2,
)
from user_defined_protos_sdk import ImageClassificationServiceBase, UserDefinedServiceBase

from sdk import RpcError, current_context, grpc_deployment
from sdk.context import ServicerContext

#: The origin of a request that kills the replica.
LAST_WORDS = "kill -9"


@grpc_deployment(max_ongoing_requests=20, graceful_shutdown_timeout_s=10, graceful_shutdown_wait_loop_s=0.1)
class Guide(UserDefinedServiceBase):
    """The guide's service, async."""

    def __init__(self, salute: str = "Hello") -> None:
        self.salute = salute

    async def __call__(self, request: UserDefinedMessage) -> UserDefinedResponse:
        if request.num:
            await asyncio.sleep(0.001)
        if request.origin == LAST_WORDS:
            os.kill(os.getpid(), signal.SIGKILL)
        return UserDefinedResponse(greeting=f"{self.salute} {request.name} from {request.origin}", num=request.num * 2)

    @serve.multiplexed(max_num_models_per_replica=1)
    async def get_model(self, model_id: str) -> str:
        return f"loading model: {model_id}"

    async def Multiplexing(self, request: UserDefinedMessage2) -> UserDefinedResponse2:
        model = await self.get_model(serve.get_multiplexed_model_id())
        return UserDefinedResponse2(greeting=f"Method2 called model, {model}")

    async def Streaming(self, request: UserDefinedMessage) -> AsyncIterator[UserDefinedResponse]:
        for i in range(10):
            yield UserDefinedResponse(greeting=f"{i}: {self.salute} {request.name}", num=request.num * 2 + i)
            await asyncio.sleep(0.001)


@grpc_deployment(max_ongoing_requests=20)
class SyncGuide(UserDefinedServiceBase):
    """The guide's service with plain functions."""

    def __call__(self, request: UserDefinedMessage) -> UserDefinedResponse:
        return UserDefinedResponse(greeting=f"Hello {request.name}", num=len(current_context().request_id()))

    def Multiplexing(self, request: UserDefinedMessage2) -> UserDefinedResponse2:
        return UserDefinedResponse2(greeting=serve.get_multiplexed_model_id())

    def Streaming(self, request: UserDefinedMessage) -> Iterator[UserDefinedResponse]:
        for i in range(request.num or 10):
            yield UserDefinedResponse(greeting=f"{i}: Hello {request.name}", num=i)


@grpc_deployment(max_ongoing_requests=2, max_queued_requests=1)
class Behaviour(UserDefinedServiceBase):
    """Does what the request's ``name`` says; notes what happened in the folder that it is given."""

    def __init__(self, notes: str) -> None:
        self.notes = Path(notes)

    async def __call__(self, request: UserDefinedMessage, grpc_context: ServicerContext) -> UserDefinedResponse:
        match request.name:
            case "raise":
                raise ValueError("this is wrong: ü")
            case "set code and raise":
                grpc_context.set_code(grpc.StatusCode.ALREADY_EXISTS)
                grpc_context.set_trailing_metadata([("kept", "yes")])
                raise ValueError("raised all the same")
            case "set code":
                grpc_context.set_code(grpc.StatusCode.INVALID_ARGUMENT)
                grpc_context.set_details("not found, adding")
                grpc_context.set_trailing_metadata([("num", "0")])
                return UserDefinedResponse()
            case "abort":
                await grpc_context.abort(grpc.StatusCode.PERMISSION_DENIED, "no")
            case "rpc error":
                raise RpcError(grpc.StatusCode.NOT_FOUND, "no user 7", [("user", "7")])
            case "wrong type":
                return UserDefinedMessage()  # type: ignore[return-value]  # what the test is about
            case "none":
                return None  # type: ignore[return-value]  # what the test is about
            case "sleep":
                await self._sleep(request.origin)
        return UserDefinedResponse(greeting=dict(grpc_context.invocation_metadata()).get("x-mine", ""))

    async def _sleep(self, note: str) -> None:
        (self.notes / f"{note}-began").touch()
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            (self.notes / f"{note}-cancelled").touch()
            raise

    async def Multiplexing(self, request: UserDefinedMessage2) -> UserDefinedResponse2:
        return UserDefinedResponse2()

    async def Streaming(self, request: UserDefinedMessage) -> AsyncIterator[UserDefinedResponse]:
        for i in range(3):
            yield UserDefinedResponse(num=i)
        if request.name == "raise":
            raise ValueError("after three messages")
        if request.name == "sleep":
            await self._sleep(request.origin)


@serve.deployment
class Downloader:
    async def __call__(self, url: str) -> str:
        return f"image of {url}"


@serve.deployment
class Context:
    async def __call__(self) -> tuple[str, str]:
        context = serve.context._get_serve_request_context()
        return context.request_id, context.multiplexed_model_id


@serve.deployment(max_ongoing_requests=1, max_queued_requests=1)
class Narrow:
    async def __call__(self) -> None:
        await asyncio.sleep(1.0)


@grpc_deployment(max_ongoing_requests=50)
class Classifier(ImageClassificationServiceBase):
    """Composition through handles."""

    def __init__(
        self, downloader: DeploymentHandle[Any], context: DeploymentHandle[Any], narrow: DeploymentHandle[Any]
    ) -> None:
        self.downloader, self.context, self.narrow = downloader, context, narrow

    async def Predict(self, request: ImageData) -> ImageClass:
        if request.filename == "narrow":
            await self.narrow.remote()
        image = await self.downloader.remote(request.url)
        return ImageClass(classes=[image, *(await self.context.remote())], probabilities=[0.5])


def classifier() -> Any:
    return Classifier.bind(Downloader.bind(), Context.bind(), Narrow.bind())


def wait_for(path: Path, seconds: float = 5.0) -> bool:
    """Wait until a replica has made this file; a file is what both processes can see."""
    deadline = time.monotonic() + seconds
    while not path.exists():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True
