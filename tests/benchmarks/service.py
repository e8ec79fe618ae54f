"""The measured service, in a separate module that Ray's workers import."""

from __future__ import annotations

from bench_sdk import BenchBase

from sdk import grpc_deployment
from tests.benchmarks.handlers import Handlers


@grpc_deployment(max_ongoing_requests=4000)
class Bench(Handlers, BenchBase):
    """The handlers as a deployment of the SDK."""


app = Bench.bind()
