"""The service that is measured. A module of its own: Ray's workers import it."""

from __future__ import annotations

from bench_sdk import BenchBase

from sdk import grpc_deployment
from tests.benchmarks.handlers import Handlers


@grpc_deployment(max_ongoing_requests=4000)
class Bench(Handlers, BenchBase):
    """The handlers as a deployment of the SDK."""


app = Bench.bind()
