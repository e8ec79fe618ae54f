# mypy: ignore-errors
"""Classes whose method takes lists, and is called with single messages because `@serve.batch` is around it."""

from __future__ import annotations

from greet_code import Greeter, HelloReply, HelloRequest
from ray import serve


class Batched(Greeter):
    @serve.batch
    async def SayHello(self, requests: list[HelloRequest]) -> list[HelloReply]: ...


class BatchedWrong(Greeter):
    @serve.batch(max_batch_size=3)
    async def SayHello(self, requests: list[HelloReply]) -> list[HelloReply]: ...
