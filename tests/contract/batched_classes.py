# mypy: ignore-errors
"""Classes whose methods are behind `@serve.batch`, where they take and return lists of messages."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any, List  # noqa: UP035  # the old form is tested

from ray import serve
from ray.serve.handle import DeploymentResponse

from tests.contract.greet_code import Downloader, Greeter, HelloReply, HelloRequest
from tests.contract.tables import right, wrong


@right
class Batched(Greeter):
    @serve.batch
    async def SayHello(self, requests: list[HelloRequest]) -> list[HelloReply]: ...


@right
class BatchedSequences(Greeter):
    @serve.batch(max_batch_size=8, batch_wait_timeout_s=0.1)
    async def SayHello(self, requests: Sequence[HelloRequest]) -> List[HelloReply]: ...  # noqa: UP006


@right
class BatchedAnything(Greeter):
    @serve.batch
    async def SayHello(self, requests: list) -> Any: ...


@right
class BatchedStreams(Downloader):
    @serve.batch(max_batch_size=3)
    async def Down(self, requests: list[HelloRequest]) -> AsyncGenerator[list[HelloReply], None]:
        yield [HelloReply() for _ in requests]


@right
class Multiplexed(Greeter):
    @serve.multiplexed(max_num_models_per_replica=2)
    async def get_model(self, model_id: str) -> str: ...

    async def SayHello(self, request: HelloRequest) -> HelloReply: ...


@right
class BatchesInside(Greeter):
    @serve.batch
    async def predict(self, names: list[str]) -> list[str]: ...

    async def SayHello(self, request: HelloRequest) -> HelloReply: ...


@right
class ResponseOfAHandle(Greeter):
    def SayHello(self, request: HelloRequest) -> DeploymentResponse[HelloReply]: ...


@wrong("request-type SayHello")
class BatchedWrong(Greeter):
    @serve.batch(max_batch_size=3)
    async def SayHello(self, requests: list[HelloReply]) -> list[HelloReply]: ...


@wrong("request-type SayHello", "response-type SayHello")
class BatchedOneByOne(Greeter):
    @serve.batch
    async def SayHello(self, request: HelloRequest) -> HelloReply: ...


@wrong("response-stream Down")
class BatchedWithoutStream(Downloader):
    @serve.batch
    async def Down(self, requests: list[HelloRequest]) -> list[HelloReply]: ...


@wrong("response-type Down")
class BatchedStreamOfOne(Downloader):
    @serve.batch(max_batch_size=3)
    async def Down(self, requests: list[HelloRequest]) -> AsyncIterator[HelloReply]:
        yield HelloReply()
