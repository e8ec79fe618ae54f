"""The measured service, in a separate module that Ray's workers import."""

from __future__ import annotations

from bench_sdk import BenchBase
from handlers import Handlers

from sdk import grpc_deployment


@grpc_deployment(max_ongoing_requests=4000)
class Bench(Handlers, BenchBase):
    """The handlers as a deployment of the SDK."""


app = Bench.bind()
