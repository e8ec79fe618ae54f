"""The measured service, in a separate module that Ray's workers import."""

from __future__ import annotations

from typing import Any

from bench_pb2 import Ask
from bench_sdk import BenchBase, BenchHandle

from sdk import grpc_deployment
from tests.benchmarks.handlers import Handlers


@grpc_deployment(max_ongoing_requests=4000)
class Bench(Handlers, BenchBase):
    """The handlers as a deployment of the SDK."""

    def __init__(self, downstream: BenchHandle | None = None) -> None:
        super().__init__(downstream)

    def call(self, method: str, request: Ask) -> Any:
        """Start a call of the other deployment."""
        return getattr(self._downstream, method)(request)

    stream = call


app = Bench.bind()
